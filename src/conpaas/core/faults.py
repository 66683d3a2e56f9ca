"""Fault points: places where a test may kill the process, to prove that a restart continues or undoes what was under way.

In production `point` costs one comparison. Tests either name, in the environment variable `CONPAAS_FAULTS`, a file of lines
`component kind step when` (the matching line is removed and the process kills itself with SIGKILL; `*` matches anything), or install a
function of their own with `trigger`. A line may end in a fifth word, `hold`: then the process lives, and only the thread that got there
waits while somebody else, such as an agent, is killed. It writes the point into the file `<file>.held` and goes on when that is removed.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

BEFORE = "before"
"""Before a step's `do`."""
AFTER = "after"
"""The step's `do` returned, nothing is recorded yet."""
RECORDED = "recorded"
"""The step is recorded as done."""
UNDO = "undo"
"""Before a step's `undo`."""
UNDO_AFTER = "undo-after"
"""The step's `undo` returned, nothing is recorded yet."""
UNDO_RECORDED = "undo-recorded"
"""The step is recorded as undone."""

WHENS = (BEFORE, AFTER, RECORDED, UNDO, UNDO_AFTER, UNDO_RECORDED)

HOLD = "hold"
"""The last word of a line at whose point the thread is held instead of the process killed."""

ENVIRONMENT = "CONPAAS_FAULTS"
_HELD_INTERVAL = 0.01

Trigger = Callable[[str, str, str, str], None]

_trigger: Trigger | None = None


def point(component: str, kind: str, step: str, when: str) -> None:
    """Die here if a test asked for it. `component` is `manager` or `director`, `when` one of `WHENS`."""
    if _trigger is not None:
        _trigger(component, kind, step, when)


@contextlib.contextmanager
def trigger(function: Trigger) -> Iterator[None]:
    """Call `function(component, kind, step, when)` at every point while the context lasts."""
    global _trigger
    previous = _trigger
    _trigger = function
    try:
        yield
    finally:
        _trigger = previous


def held_file(path: pathlib.Path) -> pathlib.Path:
    """Where the point is written that a process with this fault file is held at."""
    return path.with_name(f"{path.name}.held")


class FaultFile:
    """Kills the process, or holds the thread, at the points that a file lists, each once. One thread is held at a time."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._holding = threading.Lock()

    def __call__(self, component: str, kind: str, step: str, when: str) -> None:
        point = (component, kind, step, when)
        with self._lock:
            taken = self._take(point)
            if taken == []:
                os.kill(os.getpid(), signal.SIGKILL)
        if taken == [HOLD]:
            self._hold(point)

    def _take(self, wanted: tuple[str, str, str, str]) -> list[str] | None:
        """Remove the first line that matches. Returns the words after the point, None if there was no such line."""
        try:
            lines = self._path.read_text().splitlines()
        except FileNotFoundError:
            return None
        for number, line in enumerate(lines):
            words, rest = line.split()[: len(wanted)], line.split()[len(wanted) :]
            matches = len(words) == len(wanted) and all(word in ("*", want) for word, want in zip(words, wanted, strict=True))
            if matches and rest in ([], [HOLD]):
                _write_durably(self._path, [*lines[:number], *lines[number + 1 :]])
                return rest
        return None

    def _hold(self, point: tuple[str, str, str, str]) -> None:
        """Wait, as long as it takes, until somebody removes the file that tells of it."""
        held = held_file(self._path)
        with self._holding:
            _write_durably(held, [" ".join(point)])
            while held.exists():
                time.sleep(_HELD_INTERVAL)


def _write_durably(path: pathlib.Path, lines: list[str]) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "w") as stream:
        stream.writelines(f"{line}\n" for line in lines)
        stream.flush()
        os.fsync(stream.fileno())
    pathlib.Path(name).replace(path)


def configure(path: str | None = None) -> None:
    """Arm the points from a fault file; without `path`, from the environment variable `CONPAAS_FAULTS`, else disarm."""
    global _trigger
    name = path or os.environ.get(ENVIRONMENT)
    _trigger = FaultFile(pathlib.Path(name)) if name else None


configure()
