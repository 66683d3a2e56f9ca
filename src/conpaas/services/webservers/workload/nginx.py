"""One nginx of a node: its configuration is tried before it replaces the old one, and a reload is done when it is proven.

Which configuration serves is asked over a Unix socket that only the agent reaches: it answers the serial, and a digest of the very text.
Workers of earlier configurations go on with the requests they have; they are remembered, with the serial they serve by.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import pathlib
import re
from typing import Final

from conpaas.core import errors, file, misc, supervisor
from conpaas.services.webservers.workload import nginx_config, sockets

log: Final = logging.getLogger(__name__)
RELOAD_TIMEOUT: Final = 20.0
STOP_TIMEOUT: Final = 20.0
"""Seconds that requests under way have when nginx is stopped."""

_WORKER: Final = b"nginx: worker process"
_EXITING: Final = b"nginx: worker process is shutting down"
_EMERGENCY: Final = re.compile(r"\[emerg\] (?:\d+#\d+: )?(.+)")
_LISTEN: Final = re.compile(r"^\s*listen (?:\S*:)?(\d+)\b", re.MULTILINE)
# nginx cannot listen on a socket that a killed one left behind.
_RUN: Final = 'rm -f -- "$1"; shift; exec "$@"'


@dataclasses.dataclass(frozen=True)
class InForce:
    """The configuration that answers: its serial and the digest of its text."""

    serial: int
    proof: str


@dataclasses.dataclass(frozen=True)
class Process:
    """A process, told from a later one of the same number by when it started."""

    pid: int
    started: int


class Nginx:
    """An nginx named `host.name`, configured by the file `configuration`, started in `run`. For one thread at a time."""

    def __init__(
        self,
        host: nginx_config.Host,
        *,
        program: str,
        configuration: pathlib.Path,
        run: pathlib.Path,
        notes: pathlib.Path,
        watcher: supervisor.Supervisor,
    ) -> None:
        self.name = host.name
        self.configuration = configuration
        self._host = host
        self._program = program
        self._run = run
        self._notes_path = notes
        self._watcher = watcher

    @property
    def running(self) -> bool:
        return self._watcher.status(self.name).running

    def in_force(self) -> InForce | None:
        """What serves now; None when nothing does."""
        try:
            serial, proof = sockets.ask(self._run / self._host.socket, "/in-force").body.decode().split()
            return InForce(int(serial), proof)
        except (OSError, ValueError):
            return None

    def connections(self) -> int:
        """How many clients are connected."""
        try:
            found = re.search(rb"Active connections: (\d+)", sockets.ask(self._run / self._host.socket, "/connections").body)
        except OSError:
            return 0
        return int(found[1]) - 1 if found else 0

    def ports(self) -> set[int]:
        """The ports of the configuration, if nginx runs: what it listens on, or is about to."""
        text = self.configuration.read_text() if self.running and self.configuration.is_file() else ""
        return {int(port) for port in _LISTEN.findall(text)}

    def apply(self, text: str, serial: int) -> bool:
        """Have nginx serve by a configuration; tells whether anything had to change.

        Returns when every new connection is served by it. Raises OperationFailed with nginx's own words; then all is as before.
        """
        text, wanted = self._with_proof(text, serial)
        former = self.configuration.read_text() if self.configuration.is_file() else None
        if former == text and self.running and self.in_force() == wanted:
            return False
        self._prepare()
        self.check(text)
        try:
            self._replace(text, wanted)
        except errors.ConPaaSError as error:
            self._put_back(former)
            raise errors.OperationFailed(f"nginx ({self.name}) does not take its new configuration: {error}") from error
        return True

    def check(self, text: str) -> None:
        """Have nginx read a configuration without using it. Raises OperationFailed with nginx's own words."""
        draft = self._run / f"{self.name}.draft"
        file.write_atomically(draft, text, mode=0o600)
        try:
            misc.run([self._program, "-t", "-q", "-c", draft], cwd=self._run, timeout=30.0)
        except errors.OperationFailed as error:
            said = emergencies(str(error).replace(str(draft), self.configuration.name))
            raise errors.OperationFailed(f"nginx refuses the configuration: {said[-1] if said else error}") from error
        finally:
            draft.unlink(missing_ok=True)

    def oldest_serial(self) -> int | None:
        """The oldest configuration that still has workers, whose requests are under way; None when nothing serves."""
        current = self.in_force()
        if current is None:
            return None
        known = {process: int(serial) for serial, workers in self._generations().items() for process in workers}
        serials = [serial for process, serial in known.items() if _is_alive(process)]
        # An old worker that nobody noted down may serve by anything.
        if any(process not in known for process in self._workers(exiting=True)):
            serials.append(0)
        return min([current.serial, *serials])

    def stop(self) -> None:
        """Let the requests under way end, `STOP_TIMEOUT` seconds at most, and nginx with them. It stays stopped."""
        self._watcher.stop(self.name)

    def reopen_logs(self) -> None:
        """Go on in new log files, after the old ones were renamed."""
        self._watcher.signal(self.name, "USR1")

    # Replacing

    def _with_proof(self, text: str, serial: int) -> tuple[str, InForce]:
        """The text with the digest of itself and of what the user added put in."""
        digest = hashlib.sha256(text.encode())
        for kind in ("server", "rootloc"):
            added = self._host.user_files / f"nginx-user-{kind}.conf"
            digest.update(added.read_bytes() if added.is_file() else b"")
        proof = digest.hexdigest()[:32]
        return text.replace(nginx_config.PROOF, proof), InForce(serial, proof)

    def _prepare(self) -> None:
        self._run.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._run.chmod(0o700)
        self._host.directory.mkdir(parents=True, exist_ok=True)

    def _replace(self, text: str, wanted: InForce) -> None:
        before = self._workers(exiting=False)
        current = self.in_force()
        if current is not None:
            self._remember(current.serial, before)
        said_before = _size(self._host.error_log)
        file.write_atomically(self.configuration, text)
        self._watcher.ensure(self._daemon())
        self._prove(wanted, before, said_before)

    def _prove(self, wanted: InForce, before: set[Process], said_before: int) -> None:
        """Wait until the wanted configuration serves all new connections; nginx is told to read it once it answers with another one.

        `said_before`: the size that the error log had. What is in it since then may be why nginx cannot.
        """
        told = False

        def serves() -> bool:
            nonlocal told
            found = self.in_force()
            if found is not None and found != wanted and not told:
                self._watcher.signal(self.name, "HUP")
                told = True
            if found == wanted:
                return not before & self._workers(exiting=False)
            self._hear_refusal(said_before)
            return False

        misc.wait_until(serves, timeout=RELOAD_TIMEOUT, what=f"The reload of nginx ({self.name})")

    def _put_back(self, former: str | None) -> None:
        if former is None:
            self._watcher.stop(self.name)
            self.configuration.unlink(missing_ok=True)
            return
        file.write_atomically(self.configuration, former)
        if self.in_force() is not None:
            self._watcher.signal(self.name, "HUP")

    def _daemon(self) -> supervisor.Daemon:
        nginx = (self._program, "-c", str(self.configuration))
        return supervisor.Daemon(
            name=self.name,
            argv=("sh", "-c", _RUN, self.name, self._host.socket, *nginx),
            env={"LC_ALL": "C", "TZ": "UTC"},
            cwd=self._run,
            stop_signal="QUIT",
            stop_timeout=STOP_TIMEOUT,
        )

    def _hear_refusal(self, said_before: int) -> None:
        """Raise OperationFailed when nginx said that it gives a configuration up. It tries for two seconds to listen on a port."""
        if _size(self._host.error_log) == said_before:
            return
        said = emergencies(file.read_bounded(self._host.error_log, offset=said_before, limit=64_000).text)
        if any("bind()" not in one or "still could not" in one for one in said):
            raise errors.OperationFailed(next((one for one in reversed(said) if "still could not" not in one), said[-1]))

    # Old workers

    def _remember(self, serial: int, workers: set[Process]) -> None:
        """Note down, before they are told to end, by which configuration workers serve."""
        generations = self._generations()
        generations.setdefault(str(serial), set()).update(workers)
        alive = {name: [one for one in found if _is_alive(one)] for name, found in generations.items()}
        noted = {name: [[one.pid, one.started] for one in found] for name, found in alive.items() if found}
        self._notes().set(generations=noted)

    def _generations(self) -> dict[str, set[Process]]:
        noted = self._notes().get("generations", {})
        return {serial: {Process(pid, started) for pid, started in workers} for serial, workers in noted.items()}

    def _notes(self) -> file.Notes:
        return file.Notes(self._notes_path)

    def _workers(self, *, exiting: bool) -> set[Process]:
        """The workers that take new connections, or those that only end what they have."""
        master = self._watcher.status(self.name).pid
        return {found for pid in _children(master) if (found := _process(pid)) and _is_worker(pid, exiting)} if master else set()


def _size(path: pathlib.Path) -> int:
    return path.stat().st_size if path.exists() else 0


def emergencies(text: str) -> list[str]:
    """Why an nginx does not start or go on, out of what it said."""
    return _EMERGENCY.findall(text)


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # a kernel without these lists, or no such process
        every = [int(entry.name) for entry in pathlib.Path("/proc").iterdir() if entry.name.isdigit()]
        return [one for one in every if (fields := _stat(one)) and fields[1] == str(pid)]


def _process(pid: int) -> Process | None:
    fields = _stat(pid)
    return Process(pid, int(fields[19])) if fields else None


def _is_alive(process: Process) -> bool:
    return _process(process.pid) == process


def _stat(pid: int) -> list[str]:
    """The fields of a process's record from its state on; empty when it has ended."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
    return [] if fields[0] in ("Z", "X") else fields


def _is_worker(pid: int, exiting: bool) -> bool:
    try:
        title = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return title.startswith(_WORKER) and title.startswith(_EXITING) == exiting
