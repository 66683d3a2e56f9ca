"""The daemon that runs the cron entries of a backend: `python -m … <directory>`.

HUP: read the plan again. TERM: end the commands that run, and end. A command runs in the document root of the newest release, with its
environment, as the user that serves. It holds the lock of its entry, and so do all processes it starts: while one of them lives, the
entry is not started again, not even by another daemon after a crash of this one.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import logging
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from typing import IO, Final

from conpaas.core import errors, file
from conpaas.services.webservers import schedules, spec
from conpaas.services.webservers.agent import cron, releases
from conpaas.services.webservers.workload import launch

log: Final = logging.getLogger(__name__)
OUTPUT_LIMIT: Final = 1_000_000
"""Bytes that one run may write to the log; what comes after is dropped."""
_GRACE: Final = 10.0
_LONGEST_SLEEP: Final = 30.0
"""Seconds; the clock of the node may be set meanwhile."""


class Daemon:
    """Starts commands when their time comes."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._plan = cron.Plan.read(directory / "plan.json")
        self._wake = threading.Event()
        self._ending = False
        self._read_again = False
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._writing = threading.Lock()
        self._silenced = False

    def run(self) -> None:
        """Work until TERM."""
        signal.signal(signal.SIGHUP, lambda *_: self._told(read=True))
        signal.signal(signal.SIGTERM, lambda *_: self._told(read=False))
        done = _now()
        while not self._ending:
            if self._read_again:
                self._read_again = False
                self._plan = cron.Plan.read(self._directory / "plan.json")
            now = _now()
            done = min(done, now)  # the clock was set back
            for entry in self._plan.entries:
                if schedules.following(entry.schedule, done) <= now:
                    self.start(entry)
            done = now
            self._sleep(now)
        self._end_all()

    def _told(self, *, read: bool) -> None:
        self._read_again = self._read_again or read
        self._ending = self._ending or not read
        self._wake.set()

    def _sleep(self, now: datetime.datetime) -> None:
        due = min(schedules.following(entry.schedule, now) for entry in self._plan.entries)
        deadline = time.monotonic() + min(_LONGEST_SLEEP, max(0.05, (due - _now()).total_seconds()))
        while not self._wake.is_set() and time.monotonic() < deadline:
            self._wake.wait(min(1.0, max(0.0, deadline - time.monotonic())))
        self._wake.clear()

    @property
    def busy(self) -> bool:
        """Whether a command runs."""
        return bool(self._running)

    def start(self, entry: spec.CronEntry) -> None:
        """Run a command now, unless it still runs."""
        name = hashlib.sha256(f"{entry.schedule}\n{entry.command}".encode()).hexdigest()[:16]
        lock = os.open(self._directory / f"lock-{name}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._launch(entry, lock)
        except BlockingIOError:
            self._say(entry, "is left out this time, as it still runs")
        except (errors.ConPaaSError, OSError) as error:
            self._say(entry, f"cannot be started: {error}")
        finally:
            os.close(lock)

    def _launch(self, entry: spec.CronEntry, lock: int) -> None:
        newest = releases.Records(file.Notes(pathlib.Path(self._plan.notes))).newest()
        if newest is None:
            raise errors.NotFound("no code runs on this node")
        as_other = {"user": self._plan.user, "group": self._plan.user, "extra_groups": []} if self._plan.user else {}
        process = subprocess.Popen(
            ["/bin/sh", "-c", entry.command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=pathlib.Path(self._plan.code) / newest.version / newest.settings.document_root,
            env={**launch.BASE, **newest.settings.environment},
            pass_fds=(lock,),
            start_new_session=True,
            **as_other,  # type: ignore[call-overload]
        )
        self._running[process.pid] = process
        self._say(entry, "starts")
        threading.Thread(target=self._attend, args=(entry, process, time.monotonic()), daemon=True).start()

    def _attend(self, entry: spec.CronEntry, process: subprocess.Popen[bytes], began: float) -> None:
        """Write what a command says to the log, hold it to its time limit, and tell how it ended."""
        limit = threading.Timer(self._plan.time_limit, self._end, (process, f"took longer than {self._plan.time_limit} s", entry))
        limit.daemon = True
        limit.start()
        assert process.stdout is not None
        pump = threading.Thread(target=self._pump, args=(process.stdout,), daemon=True)
        pump.start()
        code = process.wait()
        pump.join(1.0)  # a process it left in the background may go on writing
        limit.cancel()
        self._running.pop(process.pid, None)
        how = f"ended with code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
        self._say(entry, f"{how} after {time.monotonic() - began:.1f} s")

    def _pump(self, stream: IO[bytes]) -> None:
        left = OUTPUT_LIMIT
        for line in iter(lambda: stream.readline(65_536), b""):
            if left > 0:
                left -= len(line)
                self._write(line if line.endswith(b"\n") else line + b"\n")
                if left <= 0:
                    self._write(b"(what this command says from here on is dropped)\n")

    def _end(self, process: subprocess.Popen[bytes], reason: str, entry: spec.CronEntry) -> None:
        self._say(entry, f"{reason} and is ended")
        _signal(process, signal.SIGTERM)
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            log.warning("a command does not end by TERM")
        _signal(process, signal.SIGKILL)

    def _end_all(self) -> None:
        for process in list(self._running.values()):
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE
        while self._running and time.monotonic() < deadline:
            self._wake.wait(0.05)
        for process in list(self._running.values()):
            _signal(process, signal.SIGKILL)

    def _say(self, entry: spec.CronEntry, what: str) -> None:
        command = entry.command if len(entry.command) <= 80 else f"{entry.command[:80]}…"
        self._write(f"{_now():%Y-%m-%d %H:%M:%S} [{command}] {what}\n".encode())

    def _write(self, line: bytes) -> None:
        """Add to the log. On a full disk lines are dropped: commands must be run, and listened to, all the same."""
        with self._writing:
            try:
                with pathlib.Path(self._plan.log).open("ab") as stream:
                    stream.write(line)
            except OSError as error:
                if not self._silenced:
                    log.error("what commands say cannot be written to %s, and is dropped: %s", self._plan.log, error.strerror)
                self._silenced = True
            else:
                self._silenced = False


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


if __name__ == "__main__":
    Daemon(pathlib.Path(sys.argv[1])).run()
