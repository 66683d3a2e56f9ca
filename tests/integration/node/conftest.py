"""A VM's supervisor for tests: a real runsvdir over a private directory, gone with all its services when the test ends."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conpaas.core import supervisor


def until(condition: Callable[[], Any], what: str, deadline: float = 30.0) -> Any:
    """Poll until `condition()` gives something true, and return that."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {deadline:g} s: {what}"
        time.sleep(0.005)


def start_runsvdir(services: pathlib.Path) -> subprocess.Popen[bytes]:
    """runsvdir as the boot of a VM starts it."""
    script = 'echo $$ >"$0/.runsvdir.pid"; touch -d @1000000000 "$0"; exec runsvdir -P "$0" "log: $(printf \'%0100d\' 0)"'
    return subprocess.Popen(["sh", "-c", script, str(services)], stdin=subprocess.DEVNULL, start_new_session=True)


def end_runsvdir(process: subprocess.Popen[bytes], services: pathlib.Path) -> None:
    """Stop every service, then runsvdir; nothing is left."""
    for name in [entry.name for entry in services.iterdir() if not entry.name.startswith(".")]:
        (services / name / "down").touch()
        with contextlib.suppress(OSError):
            pid = int((services / name / "supervise" / "pid").read_text() or "0")
            os.killpg(pid, signal.SIGKILL) if pid and os.getpgid(pid) == pid else None

    def ended() -> bool:
        """What a runsvdir is told before it listens is lost where the signal is ignored, as under nohup; so it is told again."""
        process.send_signal(signal.SIGHUP)
        return process.poll() is not None

    until(ended, "runsvdir has ended")
    until(lambda: not told_to_end(services), "every runsv of the test has ended")


def told_to_end(services: pathlib.Path) -> list[int]:
    """The runsv processes that are left, told to end once more: what runsvdir tells one that it is just starting is lost."""
    left = runsvs(services)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    return left


def runsvs(services: pathlib.Path) -> list[int]:
    """The runsv processes below a service directory."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "comm").read_text().strip() == "runsv" and (process / "cwd").readlink().is_relative_to(services):
                found.append(int(process.name))
    return found


@pytest.fixture
def services(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A service directory with a runsvdir over it."""
    directory = tmp_path / "service"
    directory.mkdir()
    process = start_runsvdir(directory)
    yield directory
    end_runsvdir(process, directory)


@pytest.fixture
def watcher(services: pathlib.Path, tmp_path: pathlib.Path) -> supervisor.Supervisor:
    return supervisor.Supervisor(services, tmp_path / "log")
