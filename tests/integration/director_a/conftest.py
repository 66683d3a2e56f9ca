"""A Director that listens on a loopback address of its own, and clients that speak to it as raw as the classic ones."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest

from conpaas.core.https import identity, x509
from conpaas.director import app, config, models, serve, users

HOST = "127.15.0.1"
PASSWORD = "correct horse"


def free_port(host: str) -> int:
    """A port that nobody listens on at present; tests may run beside each other."""
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])


@dataclasses.dataclass(frozen=True)
class Reply:
    """An HTTP reply, unparsed as far as possible."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Running:
    """A listening Director and ways to call it."""

    def __init__(self, configuration: config.DirectorConfig, *, components: bool = False) -> None:
        self.director = app.make_director(configuration, components=components)
        self.server = serve.DirectorServer(configuration, self.director)
        self.server.start()
        self.port = self.server.port
        self.url = f"https://{HOST}:{self.port}"

    def context(self, credentials: identity.Credentials | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.director.authority.ca_path))
        if credentials is not None:
            context.load_cert_chain(credentials.certificate, credentials.key)
        return context

    def connect(self, credentials: identity.Credentials | None = None) -> ssl.SSLSocket:
        raw = socket.create_connection((HOST, self.port), timeout=30)
        return self.context(credentials).wrap_socket(raw, server_hostname=HOST)

    def send(self, request: bytes, credentials: identity.Credentials | None = None) -> Reply:
        """Send a request as it is and read until the server closes, as the classic clients do."""
        with self.connect(credentials) as connection:
            connection.sendall(request)
            received = b""
            while piece := connection.recv(65536):
                received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Reply(int(first.split()[1]), headers, body)

    def get(self, path: str, credentials: identity.Credentials | None = None, *, absolute: bool = True) -> Reply:
        """A GET as the classic command line sends it: absolute URL as target."""
        target = f"{self.url}{path}" if absolute else path
        lines = (f"GET {target} HTTP/1.1", f"Host: {HOST}:{self.port}", "Accept-Encoding: identity", "Connection: close", "", "")
        return self.send("\r\n".join(lines).encode(), credentials)

    def post(self, path: str, fields: dict[str, str], credentials: identity.Credentials | None = None) -> Reply:
        """A POST as the classic command line sends it: multipart with its constant boundary."""
        boundary = "----------_BoUnDaRy_StRiNg_$"
        parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()]
        body = ("".join(parts) + f"--{boundary}--\r\n\r\n").encode()
        lines = (
            f"POST {self.url}{path} HTTP/1.1",
            f"Host: {HOST}:{self.port}",
            "Accept-Encoding: identity",
            "Connection: close",
            f"Content-Type: multipart/form-data; boundary={boundary}",
            f"Content-Length: {len(body)}",
        )
        return self.send("\r\n".join((*lines, "", "")).encode() + body, credentials)


class Holder:
    """Makes credentials of every kind, signed by the Director's CA or by another one."""

    def __init__(self, directory: pathlib.Path, running: Running) -> None:
        self.directory = directory
        self.running = running
        self._number = 0

    def save(self, certificate: str, key: str, ca: str) -> identity.Credentials:
        self._number += 1
        place = self.directory / f"c{self._number}"
        place.mkdir()
        for name, text in (("cert.pem", certificate), ("key.pem", key), ("ca_cert.pem", ca)):
            (place / name).write_text(text)
        return identity.Credentials.from_dir(place)

    def user(self, user: models.User) -> identity.Credentials:
        director = self.running.director
        with director.database.session() as session:
            key, certificate = director.authority.issue_user(session, user)
        return self.save(certificate, key, director.authority.ca_pem)

    def node(self, role: str, uid: int, aid: int) -> identity.Credentials:
        director, key = self.running.director, x509.new_key()
        with director.database.session() as session:
            certificate = director.authority.issue_node(session, role, uid, aid, x509.make_csr(key, "x"))
        return self.save(certificate, x509.key_pem(key), director.authority.ca_pem)

    def stranger(self, uid: int) -> identity.Credentials:
        """The same subject as a user's, but signed by somebody else."""
        ca_key, ca = x509.new_ca()
        key = x509.new_key()
        subject = x509.Subject(role="user", cn="alice", uid=uid, aid=0)
        return self.save(x509.issue(ca_key, ca, key.public_key(), subject), x509.key_pem(key), self.running.director.authority.ca_pem)


@pytest.fixture
def configuration(tmp_path: pathlib.Path) -> config.DirectorConfig:
    path = tmp_path / "state" / "director.cfg"
    path.parent.mkdir()
    path.write_text(f"[director]\nSTATE_DIR = {path.parent}\nDIRECTOR_URL = https://{HOST}:5555\nPORT = 0\n")
    return config.load(path)


@pytest.fixture
def running(configuration: config.DirectorConfig) -> Iterator[Running]:
    started = Running(configuration)
    yield started
    started.server.stop()
    assert not [thread.name for thread in threading.enumerate() if re.match(r"loop-|https-", thread.name)]


@pytest.fixture
def holder(tmp_path: pathlib.Path, running: Running) -> Holder:
    return Holder(tmp_path, running)


def register(running: Running, name: str, role: str = "user") -> models.User:
    wanted = users.NewUser(username=name, email=f"{name}@example.org", password=PASSWORD, credit=10, role=role)
    return users.create(running.director, wanted)


@pytest.fixture
def alice(running: Running) -> models.User:
    return register(running, "alice")


@pytest.fixture
def bob(running: Running) -> models.User:
    return register(running, "bob")
