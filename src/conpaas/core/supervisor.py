"""Daemons of a VM under runit: they outlive the agent that asked for them, come back when they die, and have rotated logs.

A daemon is a directory with a `run` script below the VM's service directory, which `runsvdir` watches. Directories are built aside and
moved in whole. State is read from runit's own status file, without a process being started.

runsvdir looks at its directory once a second at most, and only when its modification time changed; a change within the current second
costs it a further second. So a change here sets that time back, to a second never used before, and wakes runsvdir up.

runsv starts a daemon again at once when it dies, but waits a second when it had run for less than one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import hashlib
import os
import pathlib
import shlex
import shutil
import signal
import struct
import time
from collections.abc import Mapping
from typing import Final

from conpaas.core import errors, misc

START_TIMEOUT: Final = 15.0
"""Seconds until runsvdir must have taken a new service up."""
LOG_CONFIG: Final = "s1000000\nn5\n"
"""svlogd: 1 MB a file, five old ones."""

_STATUS: Final = struct.Struct(">QI")
_TAI_OFFSET: Final = 4611686018427387914
_BUILD_PREFIX: Final = ".new-"


class DaemonState(enum.StrEnum):
    """What a daemon does. ABSENT: there is no such daemon; STARTING: runit has not taken it up yet."""

    ABSENT = "absent"
    STARTING = "starting"
    RUNNING = "running"
    FINISHING = "finishing"
    DOWN = "down"


@dataclasses.dataclass(frozen=True)
class Daemon:
    """How to run a daemon in the foreground. `user` counts only as root; `stop_timeout` in seconds, after it comes SIGKILL."""

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
    """The daemons below one service directory. Every method is idempotent."""

    def __init__(self, service_dir: pathlib.Path, log_dir: pathlib.Path) -> None:
        self._services = service_dir
        self._logs = log_dir

    def ensure(self, daemon: Daemon) -> None:
        """Have the daemon run as defined: start it, or start it again if its definition changed. Returns when runit runs it.

        Raises OperationFailed when runit does not take it up in time.
        """
        directory = self._directory(daemon.name)
        files = self._files(daemon)
        fingerprint = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
        if self._fingerprint(directory) != fingerprint:
            self.remove(daemon.name)
            self._put(directory, {**files, ".definition": fingerprint, ".stop": f"{daemon.stop_signal} {daemon.stop_timeout:g}"})
        with contextlib.suppress(FileNotFoundError):
            (directory / "down").unlink()
        misc.wait_until(lambda: self._taken_up(directory), timeout=START_TIMEOUT, what=f"the supervisor takes up '{daemon.name}'")
        if self.status(daemon.name).state is not DaemonState.RUNNING:
            self._control(directory, "u")

    def stop(self, name: str) -> None:
        """Stop the daemon and all processes of its group; it stays defined and stays down, also after a reboot."""
        directory = self._directory(name)
        if not directory.is_dir():
            return
        (directory / "down").touch()
        signal_name, timeout = self._stop_rule(directory)
        pid = self.status(name).pid
        if self._supervised(directory):
            self._control(directory, "d" if signal_name == "TERM" else "o")
            if signal_name != "TERM":
                _signal_group(pid, signal_name)
        if not _eventually(lambda: self.status(name).pid is None, timeout):
            _signal_group(self.status(name).pid, "KILL")
        misc.wait_until(lambda: self.status(name).pid is None, timeout=START_TIMEOUT, what=f"the daemon '{name}' ends")
        _signal_group(pid, "KILL")
        if self._supervised(directory):
            self._control(directory, "d")

    def remove(self, name: str) -> None:
        """Stop the daemon and forget it; its log stays."""
        directory = self._directory(name)
        if not directory.is_dir():
            return
        self.stop(name)
        aside = self._aside(name)
        directory.rename(aside)
        for part in (aside, aside / "log"):
            if self._supervised(part):
                self._control(part, "x")
        misc.wait_until(
            lambda: not any(self._supervised(part) for part in (aside, aside / "log")),
            timeout=START_TIMEOUT,
            what=f"the supervisor lets go of '{name}'",
        )
        shutil.rmtree(aside)

    def restart(self, name: str) -> None:
        """Stop the daemon in order and start it again. Raises NotFound."""
        directory = self._known(name)
        self.stop(name)
        (directory / "down").unlink(missing_ok=True)
        self._control(directory, "u")

    def signal(self, name: str, signal_name: str) -> None:
        """Send the daemon's main process a signal, such as HUP. Raises NotFound when it does not run."""
        self._known(name)
        pid = self.status(name).pid
        if pid is None:
            raise errors.NotFound(f"The daemon '{name}' does not run, so it cannot be told {signal_name}.")
        os.kill(pid, signal.Signals[f"SIG{signal_name}"])

    def status(self, name: str) -> DaemonStatus:
        directory = self._directory(name)
        if not directory.is_dir():
            return DaemonStatus(DaemonState.ABSENT)
        if not self._supervised(directory):
            return DaemonStatus(DaemonState.STARTING)
        try:
            content = (directory / "supervise" / "status").read_bytes()
        except FileNotFoundError:
            content = b""
        if len(content) != 20:
            return DaemonStatus(DaemonState.STARTING)
        seconds, _ = _STATUS.unpack_from(content)
        pid = int.from_bytes(content[12:16], "little")
        state = {1: DaemonState.RUNNING, 2: DaemonState.FINISHING}.get(content[19], DaemonState.DOWN)
        return DaemonStatus(state, pid or None, max(0.0, time.time() + 10 - (seconds - _TAI_OFFSET)))

    def list(self) -> list[str]:
        """The names of all daemons, sorted."""
        return sorted(entry.name for entry in self._services.iterdir() if entry.is_dir() and not entry.name.startswith("."))

    # Files

    def _files(self, daemon: Daemon) -> dict[str, str]:
        lines = ["#!/bin/sh", "exec 2>&1"]
        lines += [f"export {name}={shlex.quote(value)}" for name, value in sorted(daemon.env.items())]
        if daemon.cwd is not None:
            lines.append(f"cd {shlex.quote(str(daemon.cwd))} || exit 1")
        as_user = ["-u", daemon.user] if daemon.user and os.geteuid() == 0 else []
        lines.append("exec " + shlex.join(["chpst", "-P", *as_user, *daemon.argv]))
        log = daemon.log or self._logs / daemon.name
        return {"run": "\n".join(lines) + "\n", "log/run": f"#!/bin/sh\nexec svlogd -tt {shlex.quote(str(log))}\n", ".log": str(log)}

    def _put(self, directory: pathlib.Path, files: Mapping[str, str]) -> None:
        """Build the service aside and move it in, with everything in it."""
        new = self._aside(directory.name)
        shutil.rmtree(new, ignore_errors=True)
        (new / "log").mkdir(parents=True)
        log = pathlib.Path(files[".log"])
        log.mkdir(parents=True, exist_ok=True)
        (log / "config").write_text(LOG_CONFIG)
        for name, text in files.items():
            (new / name).write_text(text)
            (new / name).chmod(0o755 if name.endswith("run") else 0o644)
        new.rename(directory)
        self._wake()

    def _aside(self, name: str) -> pathlib.Path:
        """A place that runsvdir never looks at: it skips names that begin with a dot."""
        return self._services / f"{_BUILD_PREFIX}{name}"

    def _wake(self) -> None:
        newest = int(self._services.stat().st_mtime)
        past = newest + 1 if newest < time.time() - 100 * 86400 else 1_000_000_000
        os.utime(self._services, (past, past))
        with contextlib.suppress(OSError):
            _poke(self._services)

    @staticmethod
    def _fingerprint(directory: pathlib.Path) -> str:
        try:
            return (directory / ".definition").read_text()
        except FileNotFoundError:
            return ""

    @staticmethod
    def _stop_rule(directory: pathlib.Path) -> tuple[str, float]:
        try:
            name, timeout = (directory / ".stop").read_text().split()
        except (FileNotFoundError, ValueError):
            return "TERM", 10.0
        return name, float(timeout)

    def _directory(self, name: str) -> pathlib.Path:
        if not name or name.startswith(".") or "/" in name:
            raise errors.InvalidArgument(f"'{name}' cannot be the name of a daemon.")
        return self._services / name

    def _known(self, name: str) -> pathlib.Path:
        directory = self._directory(name)
        if not directory.is_dir():
            raise errors.NotFound(f"There is no daemon '{name}' on this node.")
        return directory

    # Talking to runsv

    def _taken_up(self, directory: pathlib.Path) -> bool:
        if self._supervised(directory):
            return True
        with contextlib.suppress(OSError):
            _poke(self._services)
        return False

    @staticmethod
    def _supervised(directory: pathlib.Path) -> bool:
        """Whether a runsv reads the control pipe of this directory."""
        try:
            os.close(os.open(directory / "supervise" / "control", os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True

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


def _poke(services: pathlib.Path) -> None:
    """Wake the runsvdir of this directory: it waits for input on the pipe that is its own standard error."""
    pid = int((services / ".runsvdir.pid").read_text())
    if b"runsvdir" not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
        return
    pipe = os.open(f"/proc/{pid}/fd/2", os.O_WRONLY | os.O_NONBLOCK)
    try:
        os.write(pipe, b".")
    finally:
        os.close(pipe)


def _signal_group(pid: int | None, signal_name: str) -> None:
    """Signal a daemon's process group (its leader is the daemon), if there is anything left of it."""
    if pid:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.Signals[f"SIG{signal_name}"])


def _eventually(condition: object, timeout: float) -> bool:
    """Whether the condition becomes true within `timeout` seconds."""
    try:
        misc.wait_until(condition, timeout=timeout, what="")  # type: ignore[arg-type]
    except errors.OperationFailed:
        return False
    return True
