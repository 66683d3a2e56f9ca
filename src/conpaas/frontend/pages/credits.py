"""Credits: how many are left and for how long, and every entry of the ledger."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from starlette import responses

from conpaas.client import replies
from conpaas.core import errors
from conpaas.frontend import rendering, visits
from conpaas.frontend.routing import Page

PAGE: Final = 50
_FILE_PAGE: Final = 500
_FILE_ENTRIES: Final = 20_000
"""Entries that a downloaded ledger has at most."""
_COLUMNS: Final = ("id", "at", "amount", "kind", "vm", "note")
_KINDS: Final = {"hour": "An hour of a machine", "grant": "Opening balance", "adjust": "Credits changed"}


def show(visit: visits.Visit) -> responses.Response:
    """Balance, forecast and a page of the ledger, newest first."""
    before = visit.query("before")
    if before and not (before.isascii() and before.isdigit() and len(before) < 19):
        raise errors.NotFound("There is no such page of the ledger.")
    found = _read(visit, PAGE + 1, before or None)
    entries = _entries(found)
    hours = found.get("hours_left")
    return visit.render(
        "credits/credits.html",
        found=found,
        entries=entries[:PAGE],
        older=entries[PAGE - 1]["id"] if len(entries) > PAGE else None,
        paged=bool(before),
        ends=time.time() + float(hours) * 3600 if isinstance(hours, int | float) else None,
        kinds=_KINDS,
    )


def _read(visit: visits.Visit, limit: int, before: str | None) -> Mapping[str, Any]:
    asked: dict[str, Any] = {"limit": limit, **({"before": before} if before else {})}
    return replies.mapping(visit.director.get("/credits", **asked), "credits")


def _entries(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return replies.each(found.get("entries"), replies.mapping, "entries of the ledger")


def download(visit: visits.Visit) -> responses.Response:
    """The whole ledger as a table for spreadsheets."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(_COLUMNS)
    for entry in _all(visit):
        at = rendering.as_datetime(entry.get("at"))
        shown = {**entry, "at": at.isoformat() if at else ""}
        writer.writerow([_plain(shown.get(name)) for name in _COLUMNS])
    return visit.download(out.getvalue(), f"credits-{visit.user.username}.csv", "text/csv; charset=utf-8")


def _all(visit: visits.Visit) -> Iterator[Mapping[str, Any]]:
    before: str | None = None
    for _ in range(_FILE_ENTRIES // _FILE_PAGE):
        entries = _entries(_read(visit, _FILE_PAGE, before))
        yield from entries
        if len(entries) < _FILE_PAGE:
            return
        before = str(entries[-1]["id"])


def _plain(value: object) -> object:
    """A cell that no spreadsheet takes for a formula."""
    text = replies.text(value)
    return f"'{text}" if isinstance(value, str) and text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


ROUTES: Final = [
    Page("/credits", show),
    Page("/credits/ledger.csv", download),
]
