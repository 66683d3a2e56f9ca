"""The HAProxy of a node: its configuration is tried before it replaces the old one, and a reload is done when it is proven.

All is asked of, and told to, the master process over its socket: it passes commands on to the worker that takes connections, and to the
old ones that still have sessions of configurations before.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import os
import pathlib
import re
import socket
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from conpaas.core import errors, file, misc, supervisor
from conpaas.services.mysql import spec
from conpaas.services.mysql.workload import haproxy_config
from conpaas.services.mysql.workload.haproxy_config import ANY, LAST, RO, RW

RELOAD_TIMEOUT: Final = 20.0
LONGEST_STOP: Final = 300.0
"""Seconds that sessions may go on at most when HAProxy is stopped."""
CHECKS_TIMEOUT: Final = 2.0
CURRENT: Final = "@1"

# Without -q every change of a member is on the standard error too, and with it there is no standard output: so the log is a third thing.
_WITH_LOG: Final = ("/bin/sh", "-c", 'exec "$0" "$@" 3>&1')
_SOCKET: Final = "master.sock"
_ANSWER_LIMIT: Final = 32 * 1024 * 1024
_ALERT: Final = re.compile(r"\[ALERT\]\s+\(\d+\) : (?:config : )?(.+)")
_TABLE_ENTRY: Final = re.compile(r"\bserver_key=(\S+)")
_MASTER: Final = re.compile(r"^\d+\s+master\s+(\d+) \[failed: (\d+)\]", re.MULTILINE)
_SESSION: Final = re.compile(r"^(0x[0-9a-f]+): .* be=(\S+) srv=(\S+) ", re.MULTILINE)
_DOWN: Final = "down"
_STATES: Final = {"UP": "up", "DOWN": _DOWN, "NOLB": "out", "DRAIN": "drained", "MAINT": _DOWN}


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of HAProxy's figures: those of a member (`name`) in one of its backends, or of all (`BACKEND`, `FRONTEND`)."""

    backend: str
    name: str
    values: dict[str, str]

    @property
    def of_all(self) -> bool:
        return self.name in ("BACKEND", "FRONTEND")

    @property
    def state(self) -> str:
        """`up`, `down`, `out` (keeps its sessions and gets no new ones, by its own word), `drained` (the same, by ours)."""
        words = self.values.get("status", "").split()
        return _STATES.get(words[0], _DOWN) if words else _DOWN

    def number(self, column: str) -> int:
        text = self.values.get(column, "")
        return int(text) if text.isdecimal() else 0


class HaProxy:
    """The HAProxy that the supervisor knows by `name`, at work in `directory`. For one thread at a time where something changes."""

    def __init__(
        self, name: str, *, program: str, configuration: pathlib.Path, directory: pathlib.Path, watcher: supervisor.Supervisor
    ) -> None:
        self._name = name
        self._program = program
        self._configuration = configuration
        self._directory = directory
        self._watcher = watcher

    @property
    def running(self) -> bool:
        return self._watcher.status(self._name).running

    # Life

    def apply(self, host: haproxy_config.Host, members: Sequence[spec.Member], health_port: int, drained: Collection[str] = ()) -> bool:
        """Have it work by a configuration; the first of the members is the writer. Returns whether something had to be done for that.

        New connections are taken all the time; those there are go on. Raises OperationFailed, and the former configuration goes on then.
        """
        text, proof = haproxy_config.render(host, members, health_port)
        if self.proof() == proof:
            return False
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        host.empty.mkdir(exist_ok=True, mode=0o755)
        running = self.running
        known = haproxy_config.parse_state(self.tell("show servers state")) if running else []
        self._write_state(haproxy_config.state(members, health_port, known, drained))
        self._check(text)
        former = self._configuration.read_bytes() if self._configuration.exists() else None
        file.write_atomically(self._configuration, text, mode=0o600)
        try:
            self._watcher.ensure(self._daemon())
            if running:
                self._reload()
            misc.wait_until(lambda: self.proof() == proof, timeout=RELOAD_TIMEOUT, what="The start of the load balancer")
        except errors.ConPaaSError:
            if former is not None:
                file.write_atomically(self._configuration, former, mode=0o600)
                if running:
                    self._reload()
            else:
                self.remove(0.0)  # it would be started again and again, to no purpose
            raise
        self.forget_states(members, health_port, drained)
        self._wait_for_checks()
        return True

    def _reload(self) -> None:
        """Have the master start a new worker, which takes the sockets over. Raises OperationFailed when that is not to be; the former
        worker goes on then."""
        before = self._reloads()
        self._watcher.signal(self._name, "USR2")

        def counted() -> list[str]:
            now = self._reloads()
            return now if now != before else []

        after = misc.wait_until(counted, timeout=RELOAD_TIMEOUT, what="The change of the load balancer's configuration")
        if before and after[1] != before[1]:
            raise errors.OperationFailed("HAProxy cannot work by its new configuration, and goes on by the former one.")

    def _reloads(self) -> list[str]:
        """How often the master was told to reload, and how often it could not; nothing while it begins anew."""
        try:
            found = _MASTER.search(self._ask("show proc"))
        except OSError:
            return []
        return list(found.groups()) if found else []

    def _wait_for_checks(self) -> None:
        """Return once each member was checked: one that was not known before is down until then. What takes long is not waited for."""
        deadline = time.monotonic() + CHECKS_TIMEOUT
        while time.monotonic() < deadline:
            found = [row for row in self.rows() if row.backend in haproxy_config.CHECKED and not row.of_all and LAST not in row.name]
            if all(row.values.get("check_status", "").lstrip("* ") not in ("", "INI") for row in found):
                return
            time.sleep(0.02)

    def forget_states(self, members: Sequence[spec.Member], health_port: int, drained: Collection[str]) -> None:
        """What a worker is to know when the last one is long gone: nothing but who is drained."""
        self._write_state(haproxy_config.state(members, health_port, (), drained))

    def remove(self, timeout: float) -> None:
        """Take no new connections, let those there are go on for at most `timeout` seconds, and forget it."""
        done = threading.Event()
        end = threading.Thread(target=self._end, args=(done, min(timeout, LONGEST_STOP)), name="end of the load balancer", daemon=True)
        end.start()
        try:
            self._watcher.remove(self._name)
        finally:
            done.set()
            end.join()
        self._configuration.unlink(missing_ok=True)
        file.remove_tree(self._directory)

    def proof(self) -> str:
        """The proof of the configuration by which connections are taken; empty when none are."""
        try:
            answer = self._ask(f"{CURRENT} show info")
        except OSError:
            return ""
        return next((line.split(": ", 1)[1].strip() for line in answer.splitlines() if line.startswith("description: ")), "")

    def _end(self, done: threading.Event, timeout: float) -> None:
        """End it, with all its connections, when the time is up; the supervisor, which asks for patience, must have been there first."""
        pause = max(timeout, 0.1)
        while not done.wait(pause):
            with contextlib.suppress(errors.NotFound):
                self._watcher.signal(self._name, "TERM")
            pause = 0.5

    def _daemon(self) -> supervisor.Daemon:
        return supervisor.Daemon(
            name=self._name,
            argv=(*_WITH_LOG, self._program, "-q", "-W", "-f", str(self._configuration), "-S", f"unix@{_SOCKET},mode,600"),
            cwd=self._directory,
            stop_signal="USR1",
            stop_timeout=LONGEST_STOP + 5.0,
        )

    def _check(self, text: str) -> None:
        draft = self._configuration.with_suffix(".new")
        draft.parent.mkdir(parents=True, exist_ok=True)
        file.write_atomically(draft, text, mode=0o600)
        try:
            misc.run([self._program, "-c", "-f", draft], cwd=self._directory)
        except errors.OperationFailed as error:
            reasons = _ALERT.findall(str(error))
            raise errors.OperationFailed(f"HAProxy refuses its configuration: {reasons[0] if reasons else error}") from error
        finally:
            draft.unlink(missing_ok=True)

    def _write_state(self, text: str) -> None:
        file.write_atomically(self._directory / haproxy_config.STATE_FILE, text, mode=0o600)

    # Talking to the master

    def tell(self, command: str, worker: str = CURRENT) -> str:
        """What a worker answers to a command. Raises OperationFailed when there is no answer."""
        try:
            return self._ask(f"{worker} {command}")
        except OSError as error:
            raise errors.OperationFailed(f"The load balancer does not answer: {error.strerror or error}.") from error

    def old_workers(self) -> list[str]:
        """Those that take no connections any more and still have some; names for `tell`."""
        try:
            lines = self._ask("show proc").splitlines()
        except OSError:
            return []
        start = lines.index("# old workers") if "# old workers" in lines else len(lines)
        rows = (line.split() for line in lines[start:])
        return [f"@!{row[0]}" for row in rows if len(row) > 1 and row[1] == "worker"]

    def _ask(self, command: str, timeout: float = 3.0) -> str:
        directory = os.open(self._directory, os.O_PATH | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(timeout)
                connection.connect(f"/proc/self/fd/{directory}/{_SOCKET}")
                connection.sendall(f"{command}\n".encode())
                connection.shutdown(socket.SHUT_WR)
                return _all_of(connection).decode(errors="replace")
        finally:
            os.close(directory)

    # Members

    def rows(self, worker: str = CURRENT) -> list[Row]:
        """The figures of all members and backends."""
        lines = self.tell("show stat", worker).lstrip("# ").splitlines()
        table = csv.DictReader(line for line in lines if line)
        return [Row(values.get("pxname", ""), values["svname"], values) for values in table if values.get("svname")]

    def all_rows(self) -> Iterator[Row]:
        """The figures of the current worker and of all old ones that still are."""
        yield from self.rows()
        for worker in self.old_workers():
            try:
                yield from self.rows(worker)
            except errors.OperationFailed:
                continue  # its last session has ended meanwhile

    def sessions(self, member: str) -> int:
        """How many sessions a member has, in all workers."""
        return sum(row.number("scur") for row in self.all_rows() if row.backend in (RW, RO) and row.name in (member, member + LAST))

    def drain(self, member: str, *, on: bool) -> None:
        """Give a member no new sessions, or again. It keeps those it has."""
        for backend in (RW, RO, ANY):
            said = self.tell(f"set server {backend}/{member} state {'drain' if on else 'ready'}").strip()
            if said:
                raise errors.OperationFailed(f"The load balancer does not change the state of {member}: {said}")

    def close_sessions(self, member: str, *, old_only: bool = False) -> int:
        """End the sessions of a member, in all workers or in the old ones only; returns how many there were."""
        closed = 0
        for worker in [*([] if old_only else [CURRENT]), *self.old_workers()]:
            try:
                found = _SESSION.findall(self.tell("show sess", worker))
            except errors.OperationFailed:
                continue  # its last session has ended meanwhile
            for identity, backend, server in found:
                if backend in (RW, RO) and server in (member, member + LAST):
                    self.tell(f"shutdown session {identity}", worker)
                    closed += 1
        return closed

    def remembered_writer(self) -> str | None:
        """The member that the last writing session went to."""
        found = _TABLE_ENTRY.search(self.tell(f"show table {RW}"))
        return found[1].removesuffix(LAST) if found else None


def _all_of(connection: socket.socket) -> bytes:
    content = bytearray()
    while data := connection.recv(65_536):
        content += data
        if len(content) > _ANSWER_LIMIT:
            raise OSError("the answer is too long")
    return bytes(content)
