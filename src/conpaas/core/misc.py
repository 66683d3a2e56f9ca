"""Small helpers shared by daemons: running a program, waiting for a condition."""

from __future__ import annotations

import logging
import pathlib
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from conpaas.core import errors

T = TypeVar("T")
log = logging.getLogger(__name__)


def run(
    argv: Sequence[str | pathlib.Path],
    *,
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
    cwd: pathlib.Path | None = None,
    stdin: bytes = b"",
    accepted: tuple[int, ...] = (0,),
) -> str:
    """Runs a program (never through a shell) and returns its standard output.

    Raises OperationFailed, naming the program and the end of what it printed, when it cannot be started, takes
    more than `timeout` seconds (it is killed then) or ends with a code that is not `accepted`. The exact command
    goes to the log, ready to be pasted into a shell.
    """
    words = [str(word) for word in argv]
    name = pathlib.Path(words[0]).name
    try:
        done = subprocess.run(words, input=stdin, capture_output=True, timeout=timeout, env=env, cwd=cwd, check=False)
    except FileNotFoundError as error:
        raise errors.OperationFailed(f"The program {words[0]} is not installed here") from error
    except subprocess.TimeoutExpired as error:
        log.error("no end after %g s: %s", timeout, shlex.join(words))
        raise errors.OperationFailed(f"{name} did not end within {timeout:g} seconds") from error
    if done.returncode not in accepted:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        log.error("exit code %d: %s: %s", done.returncode, shlex.join(words), said[-2000:])
        raise errors.OperationFailed(f"{name} failed with code {done.returncode}: {said[-500:] or 'it printed nothing'}")
    return done.stdout.decode(errors="replace")


def wait_until(condition: Callable[[], T | None], *, timeout: float, what: str, interval: float = 0.02) -> T:
    """Polls `condition` until it gives something true and returns that; raises OperationFailed after `timeout` seconds.

    The pause between polls starts at a fraction of `interval` and grows to ten times it.
    """
    deadline = time.monotonic() + timeout
    pause = interval / 8
    while True:
        result = condition()
        if result:
            return result
        left = deadline - time.monotonic()
        if left <= 0:
            raise errors.OperationFailed(f"{what} did not happen within {timeout:g} seconds")
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, interval * 10)
