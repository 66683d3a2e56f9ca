"""Reading logs piece by piece: the end of one, or what is added to it; or several at once, each line with its origin."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from conpaas.client import api, output, replies, waiting
from conpaas.core import errors

PIECE = 256 * 1024


@dataclasses.dataclass
class Source:
    """One log of a manager or agent. Servers that only serve whole logs are read whole, and what is new is found by length."""

    manager: api.Manager
    service_id: int
    agent: str | None = None
    filename: str | None = None

    def read(self, offset: int | None) -> replies.LogPart:
        """At most a piece of the log from `offset` (bytes), or what the server gives without one: all, or the end."""
        limit = None if offset is None else PIECE
        return self.manager.log(self.service_id, agent=self.agent, filename=self.filename, offset=offset, limit=limit)


@dataclasses.dataclass
class _Reader:
    """One of several logs: where it is read on, and the line that is not complete yet."""

    label: str
    source: Source
    position: int = 0
    begun: str = ""

    def begin(self, lines: int | None) -> str:
        shown, self.position = _end(self.source, lines)
        return self._labelled(shown)

    def go_on(self) -> str:
        added, self.position = _added(self.source, self.position)
        return self._labelled(added)

    def rest(self) -> str:
        """The last line, which nobody has ended."""
        return f"{self.label}: {self.begun}\n" if self.begun else ""

    def _labelled(self, text: str) -> str:
        *lines, self.begun = (self.begun + text).split("\n")
        return "".join(f"{self.label}: {line}\n" for line in lines)


def show_several(
    sources: Sequence[tuple[str, Source]], out: output.Output, lines: int | None, *, following: bool, clock: waiting.Clock
) -> None:
    """Print several logs, each line after the label of its log. One that cannot be read any more is left out from then on."""
    readers = [_Reader(label, source) for label, source in sources]
    readers = [reader for reader in readers if _told(out, reader, lambda reader: reader.begin(lines)) is not None]
    if not following:
        out.text("".join(reader.rest() for reader in readers))
    pause = waiting.FIRST_PAUSE
    while following and readers:
        clock.pause(pause)
        told = [(reader, _told(out, reader, lambda reader: reader.go_on())) for reader in readers]
        readers = [reader for reader, text in told if text is not None]
        pause = waiting.FIRST_PAUSE if any(text for _, text in told) else min(pause * waiting.GROWTH, waiting.LONGEST_PAUSE)


def _told(out: output.Output, reader: _Reader, read: Callable[[_Reader], str]) -> str | None:
    """What was read and printed, None if the log cannot be read."""
    try:
        text = read(reader)
    except errors.ConPaaSError as error:
        out.warning(f"{reader.label}: {str(error).splitlines()[0]}")
        return None
    out.text(text)
    return text


def tail(source: Source, lines: int | None = None) -> str:
    """The last `lines` lines of a log, or all of it."""
    return _end(source, lines)[0]


def show(source: Source, out: output.Output, lines: int | None, *, following: bool, clock: waiting.Clock) -> None:
    """Print a log, and with `following` whatever is added to it until the user interrupts."""
    shown, position = _end(source, lines)
    out.text(shown if shown.endswith("\n") or not shown or following else shown + "\n")
    pause = waiting.FIRST_PAUSE
    while following:
        clock.pause(pause)
        added, position = _added(source, position)
        out.text(added)
        pause = waiting.FIRST_PAUSE if added else min(pause * waiting.GROWTH, waiting.LONGEST_PAUSE)


def _end(source: Source, lines: int | None) -> tuple[str, int]:
    """The last lines of a log (None: all) and the position after it: bytes, or characters if the server knows no positions."""
    part = source.read(None)
    if part.next is None:
        return _last_lines(part.text, lines), len(part.text)
    complete = part.size is None or len(part.text.encode()) >= part.size
    if complete or (lines is not None and part.text.count("\n") > lines):
        return _last_lines(part.text, lines), part.next
    text, position = _all(source)
    return _last_lines(text, lines), position


def _all(source: Source) -> tuple[str, int]:
    """A log too long for one answer, piece by piece, and the position after it."""
    pieces: list[str] = []
    position = 0
    while True:
        part = source.read(position)
        pieces.append(part.text)
        if part.next is None or part.next <= position or part.next >= (part.size or 0):
            return "".join(pieces), position if part.next is None else part.next
        position = part.next


def _added(source: Source, position: int) -> tuple[str, int]:
    """What was added after `position`; a log that became shorter was rotated and is read from its beginning."""
    part = source.read(position)
    if part.next is None:
        return part.text[position if len(part.text) >= position else 0 :], len(part.text)
    if part.size is not None and part.size < position:
        part = source.read(0)
    return part.text, part.next or 0


def _last_lines(text: str, lines: int | None) -> str:
    if lines is None:
        return text
    return "".join(text.splitlines(keepends=True)[-lines:]) if lines else ""
