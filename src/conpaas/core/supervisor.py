"""Daemons of a VM under runit: they outlive the agent that asked for them, come back when they die, and have rotated logs.

A daemon is a directory with a `run` script below the VM's service directory, which `runsvdir` watches. Directories are built aside and
moved in whole. State is read from runit's own status file and commands go through runit's own pipe, without a process being started.

runsvdir looks at its directory once a second at most, and only when its modification time changed; a change within the current second
costs it a further second. So a change here sets that time back, to a second never used before, and wakes runsvdir up. Where several
daemons are started one after another, a second for each is too long: an agent may reserve places, which are supervised already and become
a daemon's by being renamed (runsv and runsvdir know a service by its directory, whatever it is called).

runsv starts a daemon again at once when it dies, but waits a second when it had run for less than one. Each daemon leads a process
group and session of its own; when it ends, however it ends, what is left of its group is killed, so that nothing of it holds a port when
it starts again.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import enum
import os
import pathlib
import re
import secrets
import shlex
import signal
import stat
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from conpaas.core import errors, file, misc

START_TIMEOUT: Final = 15.0
"""Seconds until runsvdir must have taken a new service up."""
LOG_CONFIG: Final = "s1000000\nn5\n"
"""svlogd: 1 MB a file, five old ones."""

_STATUS: Final = struct.Struct(">QI")
_TAI_OFFSET: Final = (1 << 62) + 10
_BUILD_PREFIX: Final = ".new-"
_RESERVED: Final = "reserved-"
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z")
_LEADER: Final = "leader"
_ENDED: Final = "ended"
_FINISH: Final = f"""#!/bin/sh
echo "$1 $2" >{_ENDED}
read -r leader <{_LEADER} && kill -KILL "-$leader" 2>/dev/null
exit 0
"""
_IDLE: Final = "#!/bin/sh\nexit 0\n"


class DaemonState(enum.StrEnum):
    """What a daemon does. ABSENT: there is no such daemon; STARTING: runit has not taken it up yet."""

    ABSENT = "absent"
    STARTING = "starting"
    RUNNING = "running"
    FINISHING = "finishing"
    DOWN = "down"


@dataclasses.dataclass(frozen=True)
class Daemon:
    """How to run a daemon in the foreground. `user` counts only as root; `stop_timeout` in seconds, after it comes SIGKILL.

    `log` is the directory of its rotated output (default: `<log directory of the VM>/<name>`).
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cwd: pathlib.Path | None = None
    user: str | None = None
    stop_signal: str = "TERM"
    stop_timeout: float = 10.0
    log: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class DaemonStatus:
    """`seconds` is how long the daemon has been in this state."""

    state: DaemonState
    pid: int | None = None
    seconds: float = 0.0

    @property
    def running(self) -> bool:
        return self.state is DaemonState.RUNNING


class Supervisor:
    """The daemons below one service directory. Every method is idempotent and may be called from several threads."""

    def __init__(self, service_dir: pathlib.Path, log_dir: pathlib.Path) -> None:
        self._services = service_dir
        self._logs = log_dir
        self._guards: dict[str, threading.RLock] = collections.defaultdict(threading.RLock)
        self._reserving = threading.RLock()
        self._reserve = 0

    def reserve(self, places: int) -> None:
        """From now on keep so many places ready in which a daemon starts without runsvdir having to find it first. Returns at once."""
        with self._reserving:
            self._reserve = places
            missing = places - len(self._reserved())
            for _ in range(missing):
                draft = self._draft(_RESERVED + secrets.token_hex(4))
                (draft / "service" / "log").mkdir(parents=True)
                for part in ("service", "service/log"):
                    (draft / part / "down").touch()
                    file.write_atomically(draft / part / "run", _IDLE, mode=0o755)
                (draft / "service").rename(self._services / draft.name.removeprefix(_BUILD_PREFIX).partition(".")[0])
                draft.rmdir()
            if missing > 0:
                self._wake()

    def ensure(self, daemon: Daemon) -> None:
        """Have the daemon run as defined: start it, or start it again if its definition changed. Returns when runit runs it.

        Whether it is ready to serve is for the caller to find out. Raises OperationFailed, with the end of the daemon's log, when it ends
        at once, and when runit does not take it up in time.
        """
        directory = self._directory(daemon.name)
        with self._guards[daemon.name]:
            files = self._files(daemon)
            if not self._is_as(directory, files):
                self._define(directory, files)
            self._start(directory)

    def stop(self, name: str, timeout: float | None = None) -> None:
        """Stop the daemon and all processes of its session; it stays defined and stays down, also after a reboot.

        `timeout` (seconds) stands for the daemon's own `stop_timeout`, this once.
        """
        directory = self._directory(name)
        with self._guards[name]:
            if not directory.is_dir():
                return
            (directory / "down").touch()
            if not self._supervised(directory):
                return
            pid = self.status(name).pid
            self._control(directory, "d")
            patience = self._stop_timeout(directory) if timeout is None else timeout
            if not _eventually(lambda: self._is_down(directory), patience):
                _kill(self.status(name).pid)
                misc.wait_until(lambda: self._is_down(directory), timeout=START_TIMEOUT, what=f"The end of the daemon '{name}'")
            _kill_session(pid)

    def remove(self, name: str) -> None:
        """Stop the daemon and forget it; its log stays."""
        directory = self._directory(name)
        with self._guards[name]:
            if not directory.is_dir():
                return
            self.stop(name)
            aside = self._draft(name)
            directory.rename(aside / "service")
            self._wake()
            if self._supervised(aside / "service"):
                self._control(aside / "service", "x")
            misc.wait_until(
                lambda: not any(self._supervised(aside / part) for part in ("service", "service/log")),
                timeout=START_TIMEOUT,
                what=f"The removal of the daemon '{name}'",
            )
            file.remove_tree(aside)

    def restart(self, name: str) -> None:
        """Stop the daemon in order and start it again. Raises NotFound, and what `ensure` raises."""
        with self._guards[self._directory(name).name]:
            directory = self._known(name)
            self.stop(name)
            self._start(directory)

    def signal(self, name: str, signal_name: str) -> None:
        """Send the daemon's main process a signal, such as HUP. Raises NotFound when it does not run."""
        self._known(name)
        pid = self.status(name).pid
        if pid is None:
            raise errors.NotFound(f"The daemon '{name}' does not run, so it cannot be told {signal_name}.")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.Signals[f"SIG{signal_name}"])

    def status(self, name: str) -> DaemonStatus:
        directory = self._directory(name)
        if not directory.is_dir():
            return DaemonStatus(DaemonState.ABSENT)
        if not self._supervised(directory):
            return DaemonStatus(DaemonState.STARTING)
        content = _status_of(directory)
        if content is None:
            return DaemonStatus(DaemonState.STARTING)
        seconds, nanoseconds = _STATUS.unpack_from(content)
        since = seconds - _TAI_OFFSET + nanoseconds / 1e9
        pid = int.from_bytes(content[12:16], "little")
        state = {1: DaemonState.RUNNING, 2: DaemonState.FINISHING}.get(content[19], DaemonState.DOWN)
        return DaemonStatus(state, pid or None, max(0.0, time.time() - since))

    def list(self) -> list[str]:
        """The names of all daemons, sorted."""
        return sorted(entry.name for entry in self._services.iterdir() if entry.is_dir() and not entry.name.startswith((".", _RESERVED)))

    # Definitions

    def _files(self, daemon: Daemon) -> dict[str, str]:
        lines = ["#!/bin/sh", "exec 2>&1", f"echo $$ >{_LEADER}"]
        for name, value in sorted(daemon.env.items()):
            if not _ENV_NAME.match(name):
                raise errors.InvalidArgument(f"'{name}' cannot be the name of an environment variable.")
            lines.append(f"export {name}={shlex.quote(value)}")
        if daemon.cwd is not None:
            lines.append(f"cd {shlex.quote(str(daemon.cwd))} || exit 1")
        as_user = ["-u", daemon.user] if daemon.user and os.geteuid() == 0 else []
        lines.append("exec " + shlex.join(["chpst", "-P", *as_user, *daemon.argv]))
        log = daemon.log or self._logs / daemon.name
        files = {
            "run": "\n".join(lines) + "\n",
            "finish": _FINISH,
            "log/run": f"#!/bin/sh\nexec svlogd -tt {shlex.quote(str(log))}\n",
            ".log": str(log),
            ".stop_timeout": f"{daemon.stop_timeout:g}",
        }
        if daemon.stop_signal != "TERM":
            number = signal.Signals[f"SIG{daemon.stop_signal}"].value
            files["control/t"] = f'#!/bin/sh\nread -r leader <{_LEADER} && kill -{number} "$leader"\nexit 0\n'
        return files

    @staticmethod
    def _is_as(directory: pathlib.Path, files: Mapping[str, str]) -> bool:
        """Whether the definition on disk is this one. Contents are compared, so a file that a power failure emptied is noticed."""
        if (directory / "control" / "t").exists() != ("control/t" in files):
            return False
        return all(_read(directory / name) == text for name, text in files.items())

    def _define(self, directory: pathlib.Path, files: Mapping[str, str]) -> None:
        """Put a definition in place: into the running service when only the daemon's own part changed, else as a new service."""
        if directory.is_dir() and self._supervised(directory) and _read(directory / "log/run") == files["log/run"]:
            self.stop(directory.name)
            _write_files(directory, files)
            return
        self.remove(directory.name)
        log = pathlib.Path(files[".log"])
        log.mkdir(parents=True, exist_ok=True)
        file.write_atomically(log / "config", LOG_CONFIG)
        if self._define_in_reserved(directory, files):
            return
        draft = self._draft(directory.name)
        (draft / "service").mkdir()
        _write_files(draft / "service", files)
        (draft / "service").rename(directory)
        file.sync_directory(self._services)
        draft.rmdir()
        self._wake()

    def _define_in_reserved(self, directory: pathlib.Path, files: Mapping[str, str]) -> bool:
        """Make a reserved place the daemon's, if there is one that is supervised already; it stays down until it is started."""
        with self._reserving:
            ready = (one for one in self._reserved() if self._supervised(one) and self._supervised(one / "log"))
            place = next(ready, None)
            if place is None:
                return False
            _write_files(place, files)
            (place / "log" / "down").unlink(missing_ok=True)
            place.rename(directory)
            file.sync_directory(self._services)
            self._control(directory / "log", "u")
            self.reserve(self._reserve)
        return True

    def _reserved(self) -> Sequence[pathlib.Path]:
        return sorted(self._services.glob(f"{_RESERVED}*"))

    def _draft(self, name: str) -> pathlib.Path:
        """A new directory that runsvdir never looks at (it skips names that begin with a dot), without those a crash left."""
        prefix = f"{_BUILD_PREFIX}{name}."
        for left in self._services.glob(f"{prefix}*"):
            file.remove_tree(left)
        return pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=self._services))

    @staticmethod
    def _stop_timeout(directory: pathlib.Path) -> float:
        try:
            return float(_read(directory / ".stop_timeout"))
        except ValueError:
            return 10.0

    def _directory(self, name: str) -> pathlib.Path:
        if not _NAME.match(name):
            raise errors.InvalidArgument(f"'{name}' cannot be the name of a daemon.")
        return self._services / name

    def _known(self, name: str) -> pathlib.Path:
        directory = self._directory(name)
        if not directory.is_dir():
            raise errors.NotFound(f"There is no daemon '{name}' on this node.")
        return directory

    # Talking to runsv and runsvdir

    def _start(self, directory: pathlib.Path) -> None:
        (directory / "down").unlink(missing_ok=True)
        name = directory.name
        if self.status(name).running:
            return
        for mark in (_LEADER, _ENDED):
            (directory / mark).unlink(missing_ok=True)
        misc.wait_until(lambda: self._taken_up(directory), timeout=START_TIMEOUT, what=f"The start of the daemon '{name}'")
        self._control(directory, "u")
        misc.wait_until(
            lambda: self.status(name).running or (directory / _ENDED).exists(),
            timeout=START_TIMEOUT,
            what=f"The start of the daemon '{name}'",
        )
        if (directory / _ENDED).exists():
            said = file.tail(pathlib.Path(_read(directory / ".log")) / "current", 1000).strip()
            raise errors.OperationFailed(f"The daemon '{name}' ends as soon as it is started: {said or 'it says nothing'}")

    def _taken_up(self, directory: pathlib.Path) -> bool:
        if self._supervised(directory):
            return True
        self._wake()
        return False

    def _wake(self) -> None:
        """Let runsvdir see a change at once: by a modification time in the past (2001 to 2017) that it has not seen before."""
        past = 1_000_000_000 + time.time_ns() // 1_000_000 % 500_000_000
        os.utime(self._services, (past, past))
        _poke(self._services)

    @staticmethod
    def _supervised(directory: pathlib.Path) -> bool:
        """Whether a runsv reads the control pipe of this directory."""
        try:
            os.close(os.open(directory / "supervise" / "control", os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    def _is_down(self, directory: pathlib.Path) -> bool:
        """Whether the daemon has ended, its `finish` script too, and runsv knows that it is not to be started again."""
        content = _status_of(directory)
        return not self._supervised(directory) or (content is not None and content[17:18] == b"d" and content[19] == 0)

    @staticmethod
    def _control(directory: pathlib.Path, command: str) -> None:
        try:
            pipe = os.open(directory / "supervise" / "control", os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            raise errors.OperationFailed(f"The supervisor of '{directory.name}' does not listen: {error.strerror}.") from error
        try:
            os.write(pipe, command.encode())
        finally:
            os.close(pipe)


def _read(path: pathlib.Path) -> str:
    """The text of a small file; empty when there is none."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _status_of(directory: pathlib.Path) -> bytes | None:
    """runit's own record of a daemon, if there is one yet. Bytes 0 to 11: since when; 12 to 15: process id; 17: `u` or `d`, what is
    wanted; 19: 0 down, 1 running, 2 finishing."""
    try:
        content = (directory / "supervise" / "status").read_bytes()
    except OSError:
        return None
    return content if len(content) == 20 else None


def _write_files(directory: pathlib.Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        file.write_atomically(path, text, mode=0o755 if text.startswith("#!") else 0o644)
    if "control/t" not in files:
        (directory / "control" / "t").unlink(missing_ok=True)


def _poke(services: pathlib.Path) -> None:
    """Wake the runsvdir of this directory, if it is one that can be woken: it waits for input on the pipe that is its own standard error.

    The process that became runsvdir left its id in `.runsvdir.pid`. One that cannot be woken looks by itself every five seconds.
    """
    with contextlib.suppress(OSError, ValueError):
        pid = int((services / ".runsvdir.pid").read_text())
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if pathlib.PurePath(os.fsdecode(words[0])).name != "runsvdir" or os.fsencode(services) not in words:
            return
        pipe = os.open(f"/proc/{pid}/fd/2", os.O_WRONLY | os.O_NONBLOCK)
        try:
            if stat.S_ISFIFO(os.fstat(pipe).st_mode):
                os.write(pipe, b".")
        finally:
            os.close(pipe)


def _kill(leader: int | None) -> None:
    """End a daemon's process group (its leader is the daemon)."""
    if leader:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)


def _kill_session(leader: int | None) -> None:
    """End what is left of a daemon's session, in whatever process group it is. A daemon's session never becomes another's meanwhile: the
    kernel gives its number to nobody while a member lives."""
    for process in pathlib.Path("/proc").iterdir() if leader else ():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader and fields[0] != "Z":
                    os.kill(int(process.name), signal.SIGKILL)


def _eventually(condition: Callable[[], object], timeout: float) -> bool:
    """Whether the condition becomes true within `timeout` seconds."""
    try:
        misc.wait_until(condition, timeout=timeout, what="it")
    except errors.OperationFailed:
        return False
    return True
