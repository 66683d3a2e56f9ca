"""A node with a load balancer for tests: its directories, a real runsvdir; and members that say of themselves how they are."""

from __future__ import annotations

import contextlib
import http.server
import pathlib
import shutil
import socket
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

from conpaas.core import config, file, paths, supervisor
from conpaas.services.mysql import spec
from conpaas.services.mysql.agent import balancer, health
from tests.integration.node import conftest as runit
from tests.support import nodes

new_address = nodes.Addresses("127.64").new
until = nodes.until


class Node:
    """One node: `address`, directories, supervisor, and the roles under test."""

    def __init__(self, root: pathlib.Path, **settings: str) -> None:
        self.address = new_address()
        self.paths = paths.Paths.under(root)
        self.paths.create()
        self.config = config.Config({"agent": {"MY_IP": self.address, "TYPE": "mysql", **self.paths.to_config()}, "mysql": settings})
        self.supervisor = supervisor.Supervisor(self.paths.service, self.paths.log_dir)
        self._runsvdir = runit.start_runsvdir(self.paths.service)
        self.supervisor.reserve(2)
        self._roles: list[balancer.BalancerRole] = []

    def balancer(self, **settings: str) -> balancer.BalancerRole:
        """The role as a fresh agent has it, which may be configured otherwise than the last."""
        configuration = self.config.replace("mysql", **settings)
        notes = file.Notes(self.paths.lib / "mysql.json")
        role = balancer.BalancerRole(self.paths, configuration, self.supervisor, self.address, notes)
        self._roles.append(role)
        return role

    def health(self, address: str = "") -> health.HealthRole:
        """The role as a fresh agent has it."""
        return health.HealthRole(self.paths, self.config, self.supervisor, address or self.address)

    def connect(self, port: int = 8010, timeout: float = 5.0) -> Session:
        return Session(self.address, port, timeout)

    def reboot(self) -> None:
        """All processes are gone at once, and the supervisor starts again."""
        runit.end_runsvdir(self._runsvdir, self.paths.service)
        self._runsvdir = runit.start_runsvdir(self.paths.service)

    def clear(self) -> None:
        """As if nothing had ever run here."""
        for role in self._roles:
            role.close()
        self.balancer().stop(0.0)
        self.health().remove()
        self._roles.clear()

    def close(self) -> None:
        self.clear()
        runit.end_runsvdir(self._runsvdir, self.paths.service)


class Session:
    """A client's connection to a member: the member greets with its name, as MariaDB does, and echoes what it gets."""

    def __init__(self, ip: str, port: int, timeout: float = 5.0) -> None:
        self._socket = socket.create_connection((ip, port), timeout=timeout)
        self.member = self._receive()
        if not self.member:
            self.close()
            raise ConnectionError("closed before a greeting")

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self) -> str:
        """The name of the member that answers; empty when the connection is closed."""
        try:
            self._socket.sendall(b"?")
            return self._receive()
        except ConnectionError:
            return ""

    def _receive(self) -> str:
        with contextlib.suppress(ConnectionError):
            return self._socket.recv(100).decode()
        return ""

    def close(self) -> None:
        self._socket.close()


class Member:
    """Something like a member: a server that greets with its name, and answers about its health as it was told (`says`)."""

    def __init__(self, name: str) -> None:
        self.ip = new_address()
        self.name = name
        self.says = {"/rw": 200, "/ro": 200, "/any": 200}
        self.frozen = False
        self._sessions: set[socket.socket] = set()
        member = self

        class Talk(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                member._sessions.add(self.request)
                with contextlib.suppress(OSError):
                    while True:
                        if not member.frozen:
                            self.request.sendall(name.encode())
                        if not self.request.recv(100):
                            break
                member._sessions.discard(self.request)

        class Health(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(member.says[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Tests have better to say."""

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 128

        self._talk = Talk
        self._server_type = Server
        self._servers: list[Any] = [Server((self.ip, 3306), Talk), Server((self.ip, 9200), Health)]
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def member(self) -> spec.Member:
        return spec.Member(self.name, self.ip)

    def say(self, rw: int, ro: int | None = None, last: int | None = None) -> None:
        """Answer checks so from now on; for `/ro` and `/any` as for `/rw` unless told otherwise."""
        self.says = {"/rw": rw, "/ro": rw if ro is None else ro, "/any": rw if last is None else last}

    def die(self) -> None:
        """As if its MariaDB was killed: sessions break, none is accepted, its health is bad."""
        self.say(503)
        self._servers[0].shutdown()
        self._servers[0].server_close()
        for session in list(self._sessions):
            with contextlib.suppress(OSError):
                session.shutdown(socket.SHUT_RDWR)

    def freeze(self) -> None:
        """Accept connections and say nothing more on any; only its health is told to be bad, after the while that takes."""
        self.frozen = True
        threading.Timer(0.4, self.say, (503,)).start()

    def come_back(self) -> None:
        """Serve again, in step with the others."""
        self._servers[0] = self._server_type((self.ip, 3306), self._talk)
        threading.Thread(target=self._servers[0].serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.say(200)

    def close(self) -> None:
        self.die()
        self._servers[1].shutdown()
        self._servers[1].server_close()


@contextlib.contextmanager
def node(**settings: str) -> Iterator[Node]:
    """A node, gone with all its daemons at the end."""
    root = pathlib.Path(tempfile.mkdtemp(prefix="conpaas-glb."))
    root.chmod(0o755)  # other users work in there too
    try:
        made = Node(root, **settings)
        try:
            yield made
        finally:
            made.close()
    finally:
        shutil.rmtree(root)


@contextlib.contextmanager
def members(*names: str) -> Iterator[list[Member]]:
    made: list[Member] = []
    try:
        made.extend(Member(name) for name in names)
        yield made
    finally:
        for one in made:
            one.close()


def balancing(*those: Member, serial: int = 1, writer: str | None = None) -> spec.BalancerConfig:
    """A configuration of these members."""
    return spec.BalancerConfig(serial, tuple(one.member for one in those), writer=writer)
