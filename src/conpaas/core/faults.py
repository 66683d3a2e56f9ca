"""Fault points: places where a test may kill the process, to prove that a restart continues or undoes what was under way.

In production `point` costs one comparison. Tests either name, in the environment variable `CONPAAS_FAULTS`, a file of lines
`component kind step when` (the matching line is removed and the process kills itself with SIGKILL; `*` matches anything), or install a
function of their own with `trigger`.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import tempfile
import threading
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

ENVIRONMENT = "CONPAAS_FAULTS"

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


class FaultFile:
    """Kills the process at the points that a file lists, each once."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def __call__(self, component: str, kind: str, step: str, when: str) -> None:
        with self._lock:
            if self._take((component, kind, step, when)):
                os.kill(os.getpid(), signal.SIGKILL)

    def _take(self, wanted: tuple[str, str, str, str]) -> bool:
        """Remove the first line that matches and tell whether there was one."""
        try:
            lines = self._path.read_text().splitlines()
        except FileNotFoundError:
            return False
        for number, line in enumerate(lines):
            words = line.split()
            if len(words) == len(wanted) and all(word in ("*", want) for word, want in zip(words, wanted, strict=True)):
                self._replace([*lines[:number], *lines[number + 1 :]])
                return True
        return False

    def _replace(self, lines: list[str]) -> None:
        handle, name = tempfile.mkstemp(dir=self._path.parent)
        with os.fdopen(handle, "w") as stream:
            stream.writelines(f"{line}\n" for line in lines)
            stream.flush()
            os.fsync(stream.fileno())
        pathlib.Path(name).replace(self._path)


def configure(path: str | None = None) -> None:
    """Arm the points from a fault file; without `path`, from the environment variable `CONPAAS_FAULTS`, else disarm."""
    global _trigger
    name = path or os.environ.get(ENVIRONMENT)
    _trigger = FaultFile(pathlib.Path(name)) if name else None


configure()
