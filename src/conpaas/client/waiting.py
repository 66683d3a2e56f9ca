"""Waiting for what the servers go on doing after they accepted a request: polling with back-off, bounded, with progress."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, Protocol, TypeVar

from conpaas.client import failures, output, replies
from conpaas.core import errors

T = TypeVar("T")
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 2.0
GROWTH = 1.5
UNREACHABLE_FOR = 60.0
QUIET_POLLS = 8
TRANSIENT = ("PROLOGUE", "ADAPTING", "EPILOGUE")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How something that was waited for ended; `reason` says why it failed."""

    ok: bool
    state: str = ""
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a poll saw: a state, why it is so, and the step under way if the server tells."""

    state: str
    reason: str = ""
    step: str = ""


class Report(Protocol):
    """Takes what is going on at the moment, for a person who watches."""

    def __call__(self, text: str) -> None: ...


class Clock:
    """Time, replaceable in tests."""

    def now(self) -> float:
        """Seconds on a clock that never goes back."""
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        """Do nothing for a while."""
        time.sleep(seconds)


def poll(probe: Callable[[], T | None], what: str, *, timeout: float | None, clock: Clock | None = None) -> T:
    """Call `probe` until it answers something other than None; pauses grow from 0.2 s to 2 s.

    A server that is out of reach is tried again for a minute before the failure counts; `timeout` is in seconds.
    """
    clock = clock or Clock()
    start = clock.now()
    pause = FIRST_PAUSE
    unreachable_since: float | None = None
    while True:
        try:
            answer = probe()
            unreachable_since = None
        except errors.Unreachable:
            answer = None
            unreachable_since = clock.now() if unreachable_since is None else unreachable_since
            if clock.now() - unreachable_since >= UNREACHABLE_FOR:
                raise
        if answer is not None:
            return answer
        left = None if timeout is None else timeout - (clock.now() - start)
        if left is not None and left <= 0:
            raise failures.TimedOut(f"Waited {timeout:g} s for {what}, without success.", hint="it goes on; --timeout 0 waits for ever")
        clock.pause(pause if left is None else min(pause, left))
        pause = min(pause * GROWTH, LONGEST_PAUSE)


class StateWatch:
    """Judges the states that polls of an application or service show, for servers that give no operation to follow.

    ERROR is failure, one of `wanted` is success, and a stable state that is not wanted is failure too (what was begun was
    undone), once something transient was seen or nothing has happened for a few polls.
    """

    def __init__(self, wanted: Collection[str]) -> None:
        self.wanted = frozenset(wanted)
        self.moved = False
        self.quiet = 0

    def judge(self, state: str, reason: str = "") -> Outcome | None:
        """How it ended, None while it goes on."""
        if state in TRANSIENT:
            self.moved = True
            return None
        if state == "ERROR":
            return Outcome(False, state, reason)
        if state in self.wanted:
            return Outcome(True, state)
        self.quiet += 1
        if self.moved or self.quiet >= QUIET_POLLS:
            return Outcome(False, state, reason or f"it is {state} again")
        return None


def operation_outcome(operation: replies.Operation) -> Outcome | None:
    """How an operation ended, None while it goes on."""
    if not operation.finished:
        return None
    return Outcome(operation.status == "DONE", operation.status, operation.error)


def describe(operation: replies.Operation) -> str:
    """What an operation is doing, for a person: its step (`push code`, `undoing: push code`), and the latest that it tells itself."""
    step = operation.step.replace("_", " ")
    if operation.note and operation.status != "UNDOING":
        return f"{step}: {operation.note}"
    return f"undoing: {step}" if operation.status == "UNDOING" else step


def operation_id(reply: Any) -> str | None:
    """The id of the operation that a manager's reply names, if it names one."""
    value = reply.get("operation") if isinstance(reply, dict) else None
    return str(value) if value else None


@contextlib.contextmanager
def progress(out: output.Output, sentence: str) -> Iterator[Report]:
    """Show `sentence` and what is going on, on a terminal only, while the body runs."""
    if out.form != "table" or not out.interactive:
        yield lambda text: None
        return
    import rich.console
    import rich.markup

    console = rich.console.Console(file=out.stderr, no_color=not out.error_colours, highlight=False)
    start = time.monotonic()
    shown = ""
    with console.status(rich.markup.escape(sentence)) as status:

        def report(text: str) -> None:
            nonlocal shown
            elapsed = int(time.monotonic() - start)
            if text and text != shown:
                if shown:
                    console.print(f"  {rich.markup.escape(shown)}", style="dim")
                shown = text
            status.update(rich.markup.escape(f"{sentence}  {text} ({elapsed} s)"))

        yield report
