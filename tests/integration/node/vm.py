"""A VM for tests: a private directory, booted with user-data as the Director composes it, and a stand-in for the Director's two files."""

from __future__ import annotations

import contextlib
import dataclasses
import email.message
import email.parser
import http.server
import os
import pathlib
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

from conpaas.core import resources
from conpaas.core.https import client, identity, x509
from conpaas.director import context

from . import conftest

UID, AID = 7, 3
TOKEN = "one time $only `x` 'quoted'"
PORT = 5555


class Authority:
    """A certification authority, and certificates of it in directories."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.key, self.certificate = x509.new_ca()
        self.pem = x509.certificate_pem(self.certificate)

    def issue(self, csr: str, role: str, san: tuple[str, ...] = ()) -> str:
        subject = x509.Subject(role=role, cn=role, uid=UID, aid=AID)
        return x509.issue(self.key, self.certificate, csr, subject, san=san)

    def credentials(self, role: str, san: tuple[str, ...] = ()) -> identity.Credentials:
        place = self.directory / role
        place.mkdir()
        key = x509.new_key()
        (place / "key.pem").write_text(x509.key_pem(key))
        (place / "cert.pem").write_text(self.issue(x509.make_csr(key, role), role, san))
        (place / "ca_cert.pem").write_text(self.pem)
        return identity.Credentials.from_dir(place)


@dataclasses.dataclass
class Desk:
    """The Director's part in a boot: it enrols and hands out the code. `role` is what it certifies, `failures` how often it fails first."""

    authority: Authority
    url: str = ""
    role: str = "agent"
    failures: int = 0
    code: bytes = b""
    requests: list[str] = dataclasses.field(default_factory=list)

    def enrol(self, form: dict[str, str]) -> tuple[int, bytes]:
        if self.failures:
            self.failures -= 1
            return 503, b"not yet"
        if form["token"] != TOKEN:
            return 200, b'{"error": "unknown token"}'
        return 200, self.authority.issue(form["csr"], self.role).encode()


@contextlib.contextmanager
def open_desk(authority: Authority, address: str) -> Iterator[Desk]:
    desk = Desk(authority)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            desk.requests.append(self.path)
            body = self.rfile.read(int(self.headers["Content-Length"]))
            parsed = email.parser.BytesParser().parsebytes(b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n" + body)
            self.reply(*desk.enrol(dict(_field(part) for part in parsed.get_payload())))  # type: ignore[arg-type]

        def do_GET(self) -> None:
            desk.requests.append(self.path)
            self.reply(200, desk.code)

        def reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = http.server.ThreadingHTTPServer((address, 0), Handler)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.credentials("frontend", (address,)).load_into(tls)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    desk.url = f"https://{address}:{server.server_port}"
    try:
        yield desk
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _field(part: email.message.Message) -> tuple[str, str]:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return str(part.get_param("name", header="content-disposition")), content.decode()


class Vm:
    """A private directory that stands for a VM's disk, at an address of its own."""

    def __init__(self, root: pathlib.Path, address: str, desk: Desk) -> None:
        self.root = root
        self.address = address
        self.desk = desk
        self.vm_id = "i-1"
        self.image = resources.code_sha256()
        self._runsvdir: subprocess.Popen[bytes] | None = None
        root.mkdir()

    def user_data(self, *, startup_script: str = "", startup_timeout: int = 240, code_sha256: str | None = None) -> str:
        composer = context.Composer(
            director_url=self.desk.url,
            deployment="test",
            ca_pem=lambda: self.desk.authority.pem,
            code_sha256=lambda: code_sha256 or resources.code_sha256(),
            agent_port=PORT,
            startup_timeout=startup_timeout,
        )
        return composer.agent(
            driver="dummy",
            user_id=UID,
            app_id=AID,
            service_id=1,
            agent_type="helloworld",
            manager_ip=self.address,
            token=TOKEN,
            values={"STRING": "it's $HOME `here` %(x)s"},
            startup_script=startup_script,
        )

    def run(self, user_data: str) -> subprocess.CompletedProcess[str]:
        """Run user-data as the cloud's boot does."""
        script = self.root.parent / f"{self.root.name}-user-data"
        script.write_text(user_data)
        environment = {
            "VM_ROOT": str(self.root),
            "IP_PUBLIC": self.address,
            "PRIVATE_IP": self.address,
            "VM_ID": self.vm_id,
            "CPS_PYTHON": sys.executable,
            "CPS_IMAGE_SHA256": self.image,
            "PATH": os.environ["PATH"],
            "HOME": str(self.root / "root"),
            "LANG": "C.UTF-8",
        }
        return subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, timeout=120, check=False)

    def boot(self, **options: Any) -> str:
        """Switch the VM on; what its console shows."""
        done = self.run(self.user_data(**options))
        assert done.returncode == 0, done.stderr
        self._runsvdir = conftest.start_runsvdir(self.root / "service")
        return done.stdout

    def switch_off(self) -> None:
        if self._runsvdir is not None:
            conftest.end_runsvdir(self._runsvdir, self.root / "service")
            self._runsvdir = None

    def pid(self) -> int:
        path = self.root / "service" / "cpsagent" / "supervise" / "pid"
        return int(path.read_text() or "0") if path.exists() else 0

    def call(self, caller: client.RpcClient, method: str, **params: Any) -> Any:
        return caller.get((self.address, PORT), method, params=params)

    def answers(self, caller: client.RpcClient) -> bool:
        with contextlib.suppress(Exception):
            return bool(caller.get((self.address, PORT), "check_process", timeout=5) == {})
        return False
