"""Reading logs piece by piece: the end of one, or what is added to it."""

from __future__ import annotations

import dataclasses

from conpaas.client import api, output, replies, waiting

PIECE = 256 * 1024


@dataclasses.dataclass
class Source:
    """One log of a manager or agent. Servers that only serve whole logs are read whole, and what is new is found by length."""

    manager: api.Manager
    service_id: int
    agent: str | None = None
    filename: str | None = None

    def read(self, offset: int | None) -> replies.LogPart:
        """The log from `offset` (bytes), or as the server sends it."""
        limit = None if offset is None else PIECE
        return self.manager.log(self.service_id, agent=self.agent, filename=self.filename, offset=offset, limit=limit)


def tail(source: Source, lines: int | None) -> str:
    """The last `lines` lines, or all."""
    return _last_lines(_whole(source)[0], lines)


def show(source: Source, out: output.Output, lines: int | None, *, following: bool, clock: waiting.Clock) -> None:
    """Print a log, and with `following` whatever is added to it until the user interrupts."""
    text, position = _whole(source)
    shown = _last_lines(text, lines)
    out.text(shown if shown.endswith("\n") or not shown or following else shown + "\n")
    pause = waiting.FIRST_PAUSE
    while following:
        clock.pause(pause)
        added, position = _added(source, position)
        out.text(added)
        pause = waiting.FIRST_PAUSE if added else min(pause * waiting.GROWTH, waiting.LONGEST_PAUSE)


def _whole(source: Source) -> tuple[str, int | None]:
    """All of a log and the position after it; None if the server does not know positions (then it is the length in text)."""
    pieces: list[str] = []
    part = source.read(0)
    pieces.append(part.text)
    while part.next is not None and part.text and (part.size is None or part.next < part.size):
        part = source.read(part.next)
        pieces.append(part.text)
    return "".join(pieces), part.next if part.next is not None else len("".join(pieces))


def _added(source: Source, position: int | None) -> tuple[str, int | None]:
    """What was added after `position`; a log that became shorter was rotated and is read from its beginning."""
    part = source.read(position)
    if part.next is None:
        start = position or 0
        return (part.text[start:], len(part.text)) if len(part.text) >= start else (part.text, len(part.text))
    if part.size is not None and position is not None and part.size < position:
        part = source.read(0)
    return part.text, part.next


def _last_lines(text: str, lines: int | None) -> str:
    if lines is None:
        return text
    return "".join(text.splitlines(keepends=True)[-lines:]) if lines else ""
