"""The logs of a service: of its manager and of every node, followed, searched, downloaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Final

from starlette import responses

from conpaas.client import replies
from conpaas.core import errors
from conpaas.frontend import visits
from conpaas.frontend.pages import service
from conpaas.frontend.routing import Page, Stream

SHOWN: Final = 64_000
"""Bytes of a log that a page begins with."""
SEARCHED: Final = 4_000_000
STEP: Final = 256_000
"""Bytes of one step of following."""
MAX_LINES: Final = 2000


@dataclasses.dataclass(frozen=True)
class Place:
    """Which log: of a node, or (without one) of the manager."""

    node: str | None = None
    filename: str | None = None

    def read(self, subject: service.Subject, offset: int | None, limit: int) -> replies.LogPart:
        """A stretch of it; a log of a node that nothing was written to yet is empty."""
        try:
            return subject.manager.log(subject.service.sid, agent=self.node, filename=self.filename, offset=offset, limit=limit)
        except errors.Unreachable:
            raise
        except errors.RemoteError as error:
            if self.node and str(error).startswith("Failed to read log"):
                return replies.LogPart("", 0, 0)
            raise

    def whole(self, subject: service.Subject, first: replies.LogPart) -> Iterator[str]:
        """All of it, piece by piece, as long as it was when it was begun."""
        part, end = first, first.size or 0
        while part.text:
            yield part.text
            if part.next is None or part.next >= end:
                return
            part = self.read(subject, part.next, SEARCHED)

    @property
    def name(self) -> str:
        return f"{self.node}-{self.filename}" if self.node else "manager.log"


def of_manager(visit: visits.Visit) -> responses.Response:
    return _answer(visit, Place())


def of_node(visit: visits.Visit) -> responses.Response:
    return _answer(visit, Place(str(visit.request.path_params["node"]), str(visit.request.path_params["file"])))


def _answer(visit: visits.Visit, place: Place) -> responses.Response:
    subject = service.Subject.of(visit)
    if visit.scripted:
        return visit.json(dataclasses.asdict(_step(subject, place, visit.query("offset"))))
    if visit.query("download"):
        pieces = place.whole(subject, place.read(subject, 0, SEARCHED))
        headers = {"Content-Disposition": visits.disposition(f"{subject.service.name}-{place.name}"), "Cache-Control": "no-store"}
        return responses.StreamingResponse(pieces, media_type="text/plain; charset=utf-8", headers=headers)
    words = visit.query("find")[:200]
    found = place.read(subject, None, SEARCHED if words else SHOWN)
    lines = found.text.splitlines()
    if words:
        lines = [line for line in lines if words.lower() in line.lower()][-MAX_LINES:]
    seen = subject.look()
    return visit.render(
        "service/log.html",
        place=place,
        lines=lines,
        text="\n".join(lines) if words else found.text,
        words=words,
        offset=found.next,
        size=found.size,
        partial=not words and found.size is not None and found.size > SHOWN,
        **subject.topic.values(seen),
    )


def _step(subject: service.Subject, place: Place, offset: str) -> replies.LogPart:
    """What was written since an offset. A log that became shorter was begun anew, and is read from its begin."""
    if not (offset.isascii() and offset.isdigit() and len(offset) < 18):
        raise errors.InvalidArgument("The offset must be a whole number.")
    begin = int(offset)
    part = place.read(subject, begin, STEP)
    return place.read(subject, 0, STEP) if part.size is not None and part.size < begin else part


_BASE: Final = "/apps/{aid:int}/services/{sid:int}/log"

ROUTES: list[Page | Stream] = [
    Page(_BASE, of_manager),
    Page(f"{_BASE}/{{node}}/{{file}}", of_node),
]
