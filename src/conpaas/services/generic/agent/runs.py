"""Runs of scripts as files, so that they outlive the agent: what was asked, who supervises it, and how it ended.

A run is a directory. `run.json` is written before anything starts; `lock` is held by the runner process for as long as
a process of the run lives, so whether a run is alive never depends on a process number; `started.json`, `main.json` (the
script ended) and `end.json` (its whole process tree ended) are written by the runner. `ending.json` says who asked for the end.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import logging
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from conpaas.core import errors, file, misc, processes
from conpaas.services.generic import scripts

_log = logging.getLogger(__name__)

STREAMS: Final = ("stdout", "stderr")
MARK: Final = "CONPAAS_RUN_DIR"
LOST: Final = "the runner of the script was killed or the node restarted"
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_LAUNCH_TIMEOUT = 20.0
_RUNNER = "conpaas.services.generic.agent.runner"


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """Everything the runner needs. Times in seconds (0: no limit), sizes in bytes.

    `shared` maps a stream to the log of all scripts; the runs named in `ends` are ended as soon as the script has ended.
    """

    id: str
    script: str
    argv: tuple[str, ...]
    environment: dict[str, str]
    directory: str
    parameters: str
    activation: str
    code_version: str
    requested: float
    time_limit: float
    grace: float
    output_limit: int
    shared: dict[str, str]
    shared_limit: int
    ends: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The specification as it is written to `run.json`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> RunSpec:
        """The reverse of `to_json`."""
        return cls(**{**value, "argv": tuple(value["argv"]), "ends": tuple(value["ends"])})


class Run:
    """One run of one script on this node; a view of its directory, nothing is cached."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.id = directory.name

    @property
    def spec(self) -> RunSpec:
        """What was asked for."""
        return RunSpec.from_json(json.loads((self.directory / "run.json").read_text(encoding="utf-8")))

    @property
    def script(self) -> scripts.Script:
        """Which of the five scripts this is."""
        return scripts.Script(self.spec.script)

    @property
    def queued(self) -> bool:
        """True while nobody has started it."""
        return not self.note("started") and not self.note("end") and not self._locked()

    @property
    def alive(self) -> bool:
        """True while a process of the run lives. Writes the end down if the runner could not."""
        if self.note("end"):
            return False
        if self._locked():
            return True
        if not self.note("started"):
            return False
        if self.orphans():
            return True
        self.write_note("end", at=time.time(), reason=self.note("ending").get("reason") or LOST)
        return False

    @property
    def running(self) -> bool:
        """True while the status of the script is RUNNING: daemons that init or notify left behind do not count."""
        return self.alive and not (self.script.leaves_daemons and self.note("main"))

    def processes(self) -> set[int]:
        """Every process of the run that lives now, the runner left out."""
        pid = self.note("started").get("pid")
        return (processes.descendants(int(pid)) if pid and self._locked() else set()) | self.orphans()

    def orphans(self) -> set[int]:
        """Processes of the run found by their environment: what remains when the runner itself was killed."""
        return processes.with_mark(MARK, str(self.directory))

    def note(self, name: str) -> dict[str, Any]:
        """The content of `<name>.json`, empty if it was not written."""
        try:
            return dict(json.loads((self.directory / f"{name}.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}

    def write_note(self, name: str, **content: Any) -> None:
        """Write `<name>.json` so that it is complete or absent after a crash."""
        file.write_atomically(self.directory / f"{name}.json", json.dumps(content), mode=0o600)

    def return_code(self) -> int:
        """The exit code of the script; negative: the signal that killed it; -9 if nobody could see its end."""
        return int(self.note("main").get("return_code", -signal.SIGKILL))

    def status(self) -> str:
        """The classic status text."""
        if self.queued:
            return scripts.NEVER_STARTED
        return scripts.RUNNING if self.running else scripts.stopped(self.return_code())

    def describe(self) -> dict[str, Any]:
        """The run as it goes over the wire. Times are seconds since the epoch, sizes bytes."""
        spec, started, main, end = self.spec, self.note("started"), self.note("main"), self.note("end")
        alive = self.alive
        code = main.get("return_code")
        if code is None and started and not alive:
            code = -int(signal.SIGKILL)
        return {
            "run_id": self.id,
            "script": self.script.filename,
            "parameters": spec.parameters,
            "codeVersionId": spec.code_version,
            "activation": spec.activation,
            "status": self.status(),
            "state": "QUEUED" if self.queued else "RUNNING" if self.running else "STOPPED",
            "return_code": code,
            "exit_code": code if code is not None and code >= 0 else None,
            "signal": signal_name(-code) if code is not None and code < 0 else None,
            "requested": spec.requested,
            "started": started.get("at"),
            "ended": main.get("at") or end.get("at"),
            "tree_ended": end.get("at"),
            "daemons": alive and bool(main),
            "ended_by": end.get("reason") or self.note("ending").get("reason"),
            "error": main.get("error") or (LOST if started and not alive and not main else None),
            "output": {stream: self.output_size(stream) for stream in STREAMS},
        }

    def output_size(self, stream: str) -> int:
        """Bytes kept of a stream."""
        try:
            return (self.directory / stream).stat().st_size
        except FileNotFoundError:
            return 0

    def end(self, reason: str, *, at_once: bool = False) -> None:
        """Ask for the end of every process of the run (TERM, grace, KILL; `at_once`: KILL).

        Returns before they have ended; repeating is harmless.
        """
        if not self.note("ending"):
            try:
                self.write_note("ending", reason=reason, at=time.time())
            except OSError as error:  # it may be this very run that has filled the disk
                _log.warning("run %s is ended, and that cannot be written down: %s", self.id, error)
        pid = self.note("started").get("pid")
        if pid and self._signal_runner(int(pid), signal.SIGUSR1 if at_once else signal.SIGTERM):
            return
        if self._locked() or not self.note("started"):
            return
        orphans = self.orphans()
        processes.send(orphans, signal.SIGKILL if at_once else signal.SIGTERM)
        if orphans and not at_once:
            threading.Thread(target=self._kill_orphans, name=f"end {self.id}", daemon=True).start()

    def cancel(self, reason: str) -> None:
        """Decide that a queued run will never start."""
        self.write_note("end", at=time.time(), reason=reason)

    def wait(self, timeout: float) -> bool:
        """Wait until every process of the run has ended; False if some are left after `timeout` seconds."""
        return wait_until(lambda: not self.alive, timeout)

    def _kill_orphans(self) -> None:
        if not self.wait(self.spec.grace):
            processes.send(self.orphans(), signal.SIGKILL)

    def _signal_runner(self, pid: int, signum: signal.Signals) -> bool:
        """Signal the runner; the lock, looked at after the process was pinned, tells that the number still means the runner."""
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            if not self._locked():
                return False
            signal.pidfd_send_signal(handle, signum)
        except (ProcessLookupError, PermissionError):
            return False
        finally:
            os.close(handle)
        return True

    def _locked(self) -> bool:
        try:
            handle = os.open(self.directory / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False


class RunStore:
    """The runs of this node, oldest first, at most `keep` ended ones."""

    def __init__(self, root: pathlib.Path, *, keep: int = 50) -> None:
        self._root = root
        self._keep = keep
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def exists(self) -> bool:
        """Whether the directory of the runs is still there."""
        return self._root.is_dir()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold while deciding whether something may start, so that two requests cannot both be the first."""
        handle = os.open(self._root / ".mutex", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def all(self) -> list[Run]:
        """Every run that was written down completely, in the order of the requests."""
        found = [Run(path.parent) for path in self._root.glob("*/run.json")]
        return sorted(found, key=lambda run: (run.spec.requested, run.id))

    def get(self, run_id: str) -> Run | None:
        """The run with this id, if it is known."""
        run = Run(self._directory(run_id))
        return run if (run.directory / "run.json").exists() else None

    def alive(self) -> list[Run]:
        """Runs with living processes."""
        return [run for run in self.all() if run.alive]

    def running(self) -> list[Run]:
        """Runs whose script has the status RUNNING."""
        return [run for run in self.all() if run.running]

    def queued(self) -> list[Run]:
        """Runs that were promised and not started yet."""
        return [run for run in self.all() if run.queued]

    def record(self, spec: RunSpec) -> Run:
        """Write a run down without starting it; one already known under this id is kept as it is."""
        directory = self._directory(spec.id)
        directory.mkdir(mode=0o700, exist_ok=True)
        run = Run(directory)
        if not (directory / "run.json").exists():
            run.write_note("run", **spec.to_json())
            self._prune()
        return run

    def launch(self, run: Run) -> None:
        """Start a recorded run unless that was done before; returns when its runner has taken over.

        The runner inherits the lock, so the run is never seen unattended. Raises OperationFailed when no runner comes up.
        """
        if run.note("started") or run.note("end"):
            return
        lock = os.open(run.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not wait_until(lambda: _lock(lock), _LAUNCH_TIMEOUT) or run.note("started") or run.note("end"):
                return
            runner = self._spawn(run, lock)
        finally:
            os.close(lock)
        wait_until(lambda: bool(run.note("started")) or runner.poll() is not None, _LAUNCH_TIMEOUT)
        threading.Thread(target=runner.wait, name=f"reap {run.id}", daemon=True).start()
        if not run.note("started"):
            said = file.tail(run.directory / "runner.log", 500).strip().rpartition("\n")[2] or "it printed nothing"
            run.write_note("end", at=time.time(), reason=f"the runner did not come up: {said}")
            raise errors.OperationFailed(f"{run.script.filename} cannot be run: its runner did not come up ({said})")

    @staticmethod
    def _spawn(run: Run, lock: int) -> subprocess.Popen[bytes]:
        with (run.directory / "runner.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", _RUNNER, str(run.directory), str(lock)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                pass_fds=(lock,),
                start_new_session=True,
            )

    def _directory(self, run_id: str) -> pathlib.Path:
        if not _RUN_ID.fullmatch(run_id):
            raise errors.InvalidArgument(f"Parameter 'run': {run_id!r} is not the id of a run.")
        return self._root / run_id

    def _prune(self) -> None:
        ended = [run for run in self.all() if not run.queued and not run.alive]
        for run in ended[: max(0, len(ended) - self._keep)]:
            shutil.rmtree(run.directory, ignore_errors=True)


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Wait until `condition()` holds, at most `timeout` seconds; tells whether it did."""
    try:
        misc.wait_until(condition, timeout=timeout, what="the end of a process")
    except errors.OperationFailed:
        return False
    return True


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def signal_name(number: int) -> str:
    """The name of a signal, or its number where it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
