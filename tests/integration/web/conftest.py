"""A node of a web service for tests: its directories, a real runsvdir, and servers of every kind behind it."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import http.client
import http.server
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from tests.support import nodes

from conpaas.core import config, file, paths, supervisor
from conpaas.services.webservers import spec
from conpaas.services.webservers.agent import proxy, static

new_address = nodes.Addresses("127.61").new
until = nodes.until
PHP_FPM = "/usr/sbin/php-fpm8.2"


@dataclasses.dataclass
class Reply:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


def ask(
    address: str,
    target: str,
    *,
    port: int = 80,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    timeout: float = 20.0,
) -> Reply:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        connection.request(method, target, body=body, headers=dict(headers or {}))
        answer = connection.getresponse()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


class Node:
    """One node: `address`, directories, supervisor, and the roles under test."""

    def __init__(self, root: pathlib.Path, **settings: str) -> None:
        self.address = new_address()
        self.paths = paths.Paths.under(root)
        self.paths.create()
        self.config = config.Config({"agent": {"MY_IP": self.address, **self.paths.to_config()}, "web": {"NGINX_WORKERS": "2", **settings}})
        self.supervisor = supervisor.Supervisor(self.paths.service, self.paths.log_dir)
        self._runsvdir = self._boot()
        self._roles: list[Any] = []

    def proxy(self) -> proxy.ProxyRole:
        """A proxy role as a fresh agent has it."""
        return self._role(proxy.ProxyRole)

    def static(self) -> static.StaticRole:
        return self._role(static.StaticRole)

    def _role(self, kind: Any) -> Any:
        role = kind(self.paths, self.config, self.supervisor, self.address, file.Notes(self.paths.lib / "web.json"))
        self._roles.append(role)
        return role

    def write(self, version: str, files: Mapping[str, str | bytes]) -> pathlib.Path:
        """Put files of a code version on the node."""
        code = self.paths.cache / "www" / version
        code.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            path = code / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return code

    def ask(self, target: str, **arguments: Any) -> Reply:
        return ask(self.address, target, **arguments)

    def log(self, name: str) -> str:
        return file.tail(self.paths.cache / name, 4_000_000)

    def reboot(self) -> None:
        """All processes are gone at once, and the supervisor starts again."""
        self._halt()
        self._runsvdir = self._boot()

    def close(self) -> None:
        for role in self._roles:
            role.close()
        self._halt()

    def _boot(self) -> subprocess.Popen[bytes]:
        script = 'echo $$ >"$0/.runsvdir.pid"; touch -d @1000000000 "$0"; exec runsvdir -P "$0" "log: $(printf \'%0100d\' 0)"'
        return subprocess.Popen(["sh", "-c", script, str(self.paths.service)], stdin=subprocess.DEVNULL, start_new_session=True)

    def _halt(self) -> None:
        """End what this node runs, as the loss of power does: supervisors first, so that nothing comes back."""
        self._runsvdir.kill()
        self._runsvdir.wait()
        services = self.paths.service
        until(lambda: not self._kill("runsv", services) and not self._kill("svlogd", services), "every runsv has ended")
        for name in self.supervisor.list():
            with contextlib.suppress(OSError, ValueError):
                leader = int((services / name / "leader").read_text())
                until(lambda leader=leader: os.killpg(leader, signal.SIGKILL), f"{name} has ended")

    @staticmethod
    def _kill(comm: str, below: pathlib.Path) -> list[int]:
        found = []
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (process / "comm").read_text().strip() == comm and (process / "cwd").readlink().is_relative_to(below):
                    found.append(int(process.name))
                    os.kill(int(process.name), signal.SIGKILL)
        return found


@pytest.fixture
def directory() -> Iterator[pathlib.Path]:
    """A directory that other users reach too, as the disk of a VM is."""
    made = pathlib.Path(tempfile.mkdtemp(prefix="conpaas-web-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def make_node(directory: pathlib.Path) -> Iterator[Callable[..., Node]]:
    made: list[Node] = []

    def make(**settings: str) -> Node:
        node = Node(directory / f"vm{len(made)}", **settings)
        made.append(node)
        return node

    yield make
    for node in made:
        node.close()


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    return make_node()


# Servers behind a proxy


class Toy:
    """An HTTP server that answers as `answer(handler)` says; counts requests by their path."""

    def __init__(self, answer: Callable[[http.server.BaseHTTPRequestHandler], None] | None = None, ip: str = "", port: int = 8080) -> None:
        self.ip = ip or new_address()
        self.port = port
        self.seen: collections.Counter[str] = collections.Counter()
        self.headers: list[dict[str, str]] = []
        toy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _do(self) -> None:
                if not self.path.startswith("/.conpaas/"):
                    toy.seen[self.path] += 1
                    toy.headers.append({name.lower(): value for name, value in self.headers.items()})
                length = int(self.headers.get("Content-Length") or 0)
                self.rfile.read(length)
                (answer or toy._hello)(self)

            do_GET = do_POST = do_HEAD = do_PUT = _do

            def log_message(self, *_: Any) -> None:
                """Tests have better to say."""

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self._server = Server((self.ip, port), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def upstream(self) -> spec.Upstream:
        return spec.Upstream(self.ip, self.port)

    def _hello(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        send(handler, 200, f"hello from {self.ip}".encode())

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def send(handler: http.server.BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Type": "text/html", "Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


@pytest.fixture
def make_toy() -> Iterator[Callable[..., Toy]]:
    made: list[Toy] = []

    def make(*arguments: Any, **named: Any) -> Toy:
        made.append(Toy(*arguments, **named))
        return made[-1]

    yield make
    for toy in made:
        toy.close()


class Fpm:
    """A real php-fpm of one pool."""

    def __init__(self, directory: pathlib.Path, ip: str, children: int = 4) -> None:
        self.ip, self.port = ip, 9000
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._configuration = directory / f"fpm-{ip}.conf"
        user = "user = www-data\ngroup = www-data\n" if os.geteuid() == 0 else ""
        self._configuration.write_text(
            f"[global]\ndaemonize = no\nerror_log = {directory}/fpm-{ip}.log\n[www]\n{user}listen = {ip}:9000\nlisten.backlog = 511\n"
            f"pm = static\npm.max_children = {children}\nping.path = /.conpaas/fpm-ping\ncatch_workers_output = yes\n"
            "php_admin_value[upload_max_filesize] = 2000M\nphp_admin_value[post_max_size] = 2000M\n"
        )
        self.process = self.start()

    @property
    def upstream(self) -> spec.Upstream:
        return spec.Upstream(self.ip, self.port)

    def start(self) -> subprocess.Popen[bytes]:
        command = [PHP_FPM, "-F", "--fpm-config", str(self._configuration)]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, start_new_session=True, **quiet)  # type: ignore[call-overload]
        until(self.listens, f"php-fpm listens on {self.ip}")
        return self.process

    def listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.ip, self.port), timeout=1):
            return True
        return False

    def signal(self, number: int) -> None:
        """Send a signal to all its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def make_fpm(directory: pathlib.Path) -> Iterator[Callable[..., Fpm]]:
    made: list[Fpm] = []

    def make(ip: str = "", **named: Any) -> Fpm:
        made.append(Fpm(directory / "fpm", ip or new_address(), **named))
        return made[-1]

    yield make
    for fpm in made:
        fpm.kill()


def proxy_config(
    serial: int = 1,
    *,
    version: str = "code-1",
    web: tuple[spec.Upstream, ...] = (),
    backends: tuple[spec.Upstream, ...] = (),
    domains: tuple[spec.Domain, ...] = (),
    **site: Any,
) -> spec.ProxyConfig:
    """A proxy's configuration; without web servers, files come from the proxy's own disk."""
    return spec.ProxyConfig(serial, version, web, backends, spec.SiteSettings(**site), domains)
