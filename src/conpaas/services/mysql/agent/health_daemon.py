"""The daemon that tells load balancers how the MariaDB beside it is: `python -P …/health_daemon.py <plan.json>`.

    GET /rw, /ro    200: takes sessions. 404: takes no new ones, those it has go on. 503: whoever is connected is better off elsewhere.
    GET /any        the same for when no member is in step with the cluster: a donor, or one that catches up, is good enough then
    GET /           200 while MariaDB answers at all, whatever the cluster says

The body, and the reason beside the status, is one line that says why. A member is in step when Galera is ready, the component is Primary
and its own state is Synced.
A donor (and a member that was desynced on purpose), and one that catches up (Joined), answer 404: it cannot be seen from here whether the
transfer blocks writes. So does one that the agent took out of service by a file, and one whose MariaDB is full. All else is 503.

One thread looks at MariaDB, over a connection that stays; all who ask within a moment share what it saw. While it gets no answer, everybody
is told so at once, and nothing piles up. The file is run by its path, and this module imports nothing of ours: so it takes 16 MB, not 30.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import pwd
import selectors
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

TARGETS: Final = ("/rw", "/ro", "/any", "/")
FRESH: Final = 0.2
"""Seconds for which what was seen is good."""
PATIENCE: Final = 0.4
"""Seconds that MariaDB has to answer."""
CLIENTS: Final = 128
"""Connections at once; the oldest gives way."""
CLIENT_TIMEOUT: Final = 3.0
REQUEST_LIMIT: Final = 4096
LEAST_ROOM: Final = 8 * 1024 * 1024
"""Bytes on a disk, or a hundredth of it where that is more: with less left, what is written may not find room."""

_FULL: Final = (1040, 1203, 1226)
"""What MariaDB says when it has as many sessions as it may have, all in all or of one user."""
_QUERY: Final = "SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_ready', 'wsrep_cluster_status', 'wsrep_local_state')"
_SYNCED: Final = "4"
_BUSY: Final = {"2": "is a donor or desynced", "3": "catches up with the cluster"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """Where to listen, the socket of MariaDB, the file that takes the member out of service, who to be (None: who one is), and the disk
    that the data are on (empty: none of its own)."""

    address: str
    port: int
    socket: str
    flag: str
    user: str | None = None
    data: str = ""

    @classmethod
    def read(cls, path: pathlib.Path) -> Plan:
        return cls(**json.loads(path.read_text(encoding="utf-8")))


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a look at MariaDB found: its status, or why there is none; `full`: it lives but has no room for another session."""

    status: Mapping[str, str] | None
    reason: str = ""
    full: bool = False


SILENT: Final = Seen(None, f"MariaDB gives no answer within {PATIENCE:g} s")


def judge(target: str, seen: Seen, *, out: bool, crowded: bool = False) -> tuple[int, str]:
    """The HTTP status and the line of text that answer a request for `target`. `crowded`: there is no room left on the disk."""
    if target not in TARGETS:
        return 400, "there is nothing of that name"
    if seen.status is None:
        return (404 if seen.full else 503), seen.reason
    ready, cluster, state = (seen.status.get(f"wsrep_{name}", "") for name in ("ready", "cluster_status", "local_state"))
    facts = f"ready {ready or '-'}, component {cluster or '-'}, state {state or '-'}"
    if target == "/":
        return 200, facts
    if ready != "ON" or cluster != "Primary" or state not in (_SYNCED, *_BUSY):
        return 503, f"not a working member of the cluster: {facts}"
    if crowded and target != "/any":
        return 503, "there is no room left on the disk"
    if out:
        return 404, "taken out of service"
    if state in _BUSY and target != "/any":
        return 404, _BUSY[state]
    return 200, "in service"


class MariaDb:
    """Looks at MariaDB over its socket, as a user of this machine (who this process must be)."""

    def __init__(self, path: pathlib.Path, user: str) -> None:
        self._path = path
        self._user = user
        self._connection: Any = None

    def look(self) -> Seen:
        """Ask once; a connection that broke meanwhile is made anew."""
        import pymysql

        kept = self._connection is not None
        try:
            return Seen(self._status())
        except (pymysql.MySQLError, OSError) as error:
            self._close()
            if _timed_out(error):
                return SILENT
            if kept:
                return self.look()
            code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
            return Seen(None, f"MariaDB does not answer: {_line(error)}", full=code in _FULL)

    def _status(self) -> dict[str, str]:
        if self._connection is None:
            self._connection = self._connect()
        with self._connection.cursor() as cursor:
            cursor.execute(_QUERY)
            return {str(name).lower(): str(value) for name, value in cursor.fetchall()}

    def _connect(self) -> Any:
        import pymysql

        os.chdir(self._path.parent)  # the name of a socket holds 107 bytes, which its directory alone may have
        return pymysql.connect(
            unix_socket=self._path.name,
            user=self._user,
            connect_timeout=PATIENCE,
            read_timeout=PATIENCE,
            write_timeout=PATIENCE,
            autocommit=True,
        )

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.close()
        self._connection = None


class Looker:
    """Has MariaDB looked at by one thread, which tells by a byte on `bell` when it has seen something."""

    def __init__(self, database: MariaDb) -> None:
        self._database = database
        self._asked = threading.Event()
        self._ring, self.bell = socket.socketpair()
        self.bell.setblocking(False)
        self.seen = Seen(None, "MariaDB was not looked at yet")
        self.since = -FRESH
        self.began: float | None = None

    def start(self) -> None:
        threading.Thread(target=self._work, name="looker", daemon=True).start()

    @property
    def fresh(self) -> bool:
        return time.monotonic() - self.since < FRESH

    def ask(self) -> None:
        """Have it look, unless it does."""
        if self.began is None:
            self.began = time.monotonic()
            self._asked.set()

    def _work(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            self.seen = self._database.look()
            self.since = time.monotonic()
            self.began = None
            self._ring.send(b".")


@dataclasses.dataclass
class Client:
    """A connection: what it sent so far, what it asked for (once it has), and since when it is there."""

    connection: socket.socket
    since: float
    sent: bytes = b""
    target: str | None = None


class Responder:
    """Answers requests; everything but the look at MariaDB happens in one thread."""

    def __init__(self, plan: Plan, looker: Looker) -> None:
        self._flag = pathlib.Path(plan.flag)
        self._data = plan.data
        self._looker = looker
        self._clients: dict[socket.socket, Client] = {}
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(
            (plan.address, plan.port), family=socket.AF_INET6 if ":" in plan.address else socket.AF_INET, backlog=CLIENTS
        )
        self._listener.setblocking(False)

    def run(self) -> None:
        """Work for ever."""
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._looker.bell, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select(self._pause()):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._looker.bell:
                    self._looker.bell.recv(4096)
                    self._answer_all()
                else:
                    client = self._clients.get(cast(socket.socket, key.fileobj))
                    if client is not None:  # it may have been answered, or have given way, since
                        self._read(client)
            self._expire()

    def _pause(self) -> float:
        """Seconds until something has to be done that nobody tells of."""
        return 0.02 if any(True for _ in self._waiting()) else 1.0

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            if len(self._clients) >= CLIENTS:
                self._drop(next(iter(self._clients.values())))
            self._clients[connection] = Client(connection, time.monotonic())
            self._selector.register(connection, selectors.EVENT_READ)

    def _read(self, client: Client) -> None:
        try:
            data = client.connection.recv(REQUEST_LIMIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or len(client.sent) + len(data) > REQUEST_LIMIT:
            self._drop(client)
            return
        client.sent += data
        if client.target is None and b"\r\n\r\n" in client.sent:
            words = client.sent.split(b"\r\n", 1)[0].decode("ascii", "replace").split(" ")
            client.target = words[1] if len(words) == 3 and words[0] == "GET" else ""
            self._serve(client)

    def _serve(self, client: Client) -> None:
        if self._looker.fresh:
            self._answer(client, self._looker.seen)
            return
        self._looker.ask()
        if self._is_stuck():
            self._answer(client, SILENT)

    def _is_stuck(self) -> bool:
        began = self._looker.began
        return began is not None and time.monotonic() - began > PATIENCE

    def _is_crowded(self) -> bool:
        """Whether what a client writes may not find room: then it is better off with another member (see `room`)."""
        try:
            found = os.statvfs(self._data) if self._data else None
        except OSError:
            return False
        return found is not None and found.f_bavail * found.f_frsize < max(found.f_blocks * found.f_frsize // 100, LEAST_ROOM)

    def _waiting(self) -> Iterator[Client]:
        return (client for client in self._clients.values() if client.target is not None)

    def _answer_all(self) -> None:
        for client in list(self._waiting()):
            self._answer(client, self._looker.seen)

    def _expire(self) -> None:
        if self._is_stuck():
            for client in list(self._waiting()):
                self._answer(client, SILENT)
        oldest = time.monotonic() - CLIENT_TIMEOUT
        for client in [one for one in self._clients.values() if one.since < oldest]:
            self._drop(client)

    def _answer(self, client: Client, seen: Seen) -> None:
        status, text = judge(client.target or "", seen, out=self._flag.exists(), crowded=self._is_crowded())
        body = f"{text}\n".encode()
        reason = text.encode("ascii", "replace").decode()  # HAProxy shows it, and logs it when something changes
        head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        with contextlib.suppress(OSError):  # so short an answer always fits into the socket, or nobody reads it
            client.connection.send(head.encode() + body)
        self._drop(client)

    def _drop(self, client: Client) -> None:
        del self._clients[client.connection]
        self._selector.unregister(client.connection)
        client.connection.close()


def _timed_out(error: BaseException) -> bool:
    return isinstance(error, TimeoutError) or isinstance(error.__cause__ or error.__context__, TimeoutError)


def _line(error: Exception) -> str:
    text = str(error.args[-1]) if error.args else type(error).__name__
    return " ".join(text.split())[:200]


def become(user: str) -> None:
    """Go on with the rights of another user only."""
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def _end(failure: threading.ExceptHookArgs) -> None:
    """A daemon without the thread that looks would be of no use: the supervisor starts it again."""
    sys.excepthook(failure.exc_type, failure.exc_value or failure.exc_type(), failure.exc_traceback)
    os._exit(1)


def main(plan_path: str) -> None:
    plan = Plan.read(pathlib.Path(plan_path))
    threading.excepthook = _end
    # pymysql goes without these two where they are absent; here they would be half of the memory, and the way is a socket of this machine.
    for name in ("ssl", "cryptography"):
        sys.modules[name] = None  # type: ignore[assignment]
    import pymysql  # noqa: F401 - while its files can be read

    database = MariaDb(pathlib.Path(plan.socket), plan.user or pwd.getpwuid(os.geteuid()).pw_name)
    looker = Looker(database)
    responder = Responder(plan, looker)
    if plan.user is not None:
        become(plan.user)
    looker.start()
    responder.run()


if __name__ == "__main__":
    main(sys.argv[1])
