"""Real servers over real mutual TLS on a loopback address of their own."""

from __future__ import annotations

import dataclasses
import pathlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conpaas.core import errors, expose, params, rpc
from conpaas.core.https import identity, limits, server, tls, x509

HOST = "127.11.0.1"
UID, AID = 7, 3


class Pki:
    """A CA, and credentials made by it on demand."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._key, self.ca = x509.new_ca()
        self._count = 0

    def issue(
        self, role: str, uid: int | None = UID, aid: int | None = AID, *, cn: str = "ConPaaS", **options: Any
    ) -> identity.Credentials:
        """New credentials of this CA."""
        self._count += 1
        directory = self._directory / str(self._count)
        directory.mkdir(parents=True)
        key = options.pop("key", None) or x509.new_key()
        subject = x509.Subject(role=role, cn=cn, uid=uid, aid=aid)
        options.setdefault("san", [HOST])
        (directory / "cert.pem").write_text(x509.issue(self._key, self.ca, key.public_key(), subject, **options))
        (directory / "key.pem").write_text(x509.key_pem(key))
        (directory / "ca_cert.pem").write_text(x509.certificate_pem(self.ca))
        return identity.Credentials.from_dir(directory)


class Service:
    """What the tests call. `entered` and `release` let a test hold calls of `block` under way."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.entered = threading.Semaphore(0)
        self.release = threading.Event()
        self.calls = 0

    @expose.expose("GET")
    def get_service_info(self) -> dict[str, str]:
        """State and type."""
        self.calls += 1
        return {"state": "RUNNING", "type": "test"}

    @expose.expose("GET", params.Param("value", params.Json(), None))
    def echo(self, value: Any, caller: identity.PeerIdentity) -> dict[str, Any]:
        """Return the value."""
        return {"value": value, "caller": str(caller), "serial": caller.serial}

    @expose.expose("POST", params.Param("value", params.Json(), None))
    def count(self, value: Any) -> int:
        """Count calls."""
        self.calls += 1
        return self.calls

    @expose.expose("POST")
    def refuse(self) -> None:
        """Answer with an error."""
        raise errors.WrongState("not in this state", hint="wait")

    @expose.expose("GET")
    def block(self) -> str:
        """Answer when released."""
        self.entered.release()
        self.release.wait(30)
        return "released"

    @expose.expose("UPLOAD", params.Param("code", params.Upload()), params.Param("description", params.Text(), ""))
    def upload_code_version(self, code: params.UploadedFile, description: str) -> dict[str, Any]:
        """Take a file."""
        return {"filename": code.filename, "size": code.size, "description": description, "spooled": str(code.path)}

    @expose.expose("GET", params.Param("name", params.Text()))
    def download(self, name: str) -> rpc.FileDownload:
        """Give a file."""
        return rpc.FileDownload(name, self.directory / "download")


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def manager(pki: Pki) -> identity.Credentials:
    return pki.issue("manager")


@pytest.fixture(scope="session")
def director(pki: Pki) -> identity.Credentials:
    return pki.issue("director", None, None)


@pytest.fixture
def service(tmp_path: pathlib.Path) -> Iterator[Service]:
    made = Service(tmp_path)
    yield made
    made.release.set()


@dataclasses.dataclass
class Running:
    """A server, and raw ways to talk to it."""

    https: server.HttpsServer
    spool: pathlib.Path

    @property
    def address(self) -> tuple[str, int]:
        return HOST, self.https.port

    def connect_plain(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=20)

    def connect(self, credentials: identity.Credentials | None, **options: Any) -> ssl.SSLSocket:
        """A TLS connection; options are attributes of the context."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        session = options.pop("session", None)
        for name, value in options.items():
            setattr(context, name, value)
        if credentials is not None:
            credentials.load_into(context)
        return context.wrap_socket(self.connect_plain(), session=session)

    def talk(self, credentials: identity.Credentials | None, message: bytes) -> bytes:
        """Send bytes and read until the server closes the connection."""
        with self.connect(credentials) as sock:
            sock.sendall(message)
            return read_to_end(sock)


def read_to_end(sock: socket.socket) -> bytes:
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


Start = Callable[..., Running]


@pytest.fixture
def start(service: Service, manager: identity.Credentials, tmp_path: pathlib.Path) -> Iterator[Start]:
    """Start servers; they are stopped at the end of the test."""
    running: list[server.HttpsServer] = []

    def start_one(
        policy: identity.CallerPolicy | None = None,
        credentials: identity.Credentials | None = None,
        client_certificates: tls.ClientCertificates = "required",
        app: Any = None,
        **bounds: Any,
    ) -> Running:
        spool = tmp_path / f"spool{len(running)}"
        spool.mkdir()
        limit = limits.Limits(**bounds)
        application = rpc.RpcApplication()
        application.register(0, service)
        application.register(1, service)
        policy = policy or identity.manager_callers(UID, AID)
        wsgi = app or server.rpc_wsgi(application, policy, {"/health": server.text_page(lambda: "fine\n")}, limits=limit, spool_dir=spool)
        https = server.HttpsServer((HOST, 0), wsgi, credentials or manager, client_certificates, limit)
        https.start_in_thread()
        running.append(https)
        return Running(https, spool)

    yield start_one
    service.release.set()
    for https in running:
        https.stop()
