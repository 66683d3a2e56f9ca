"""What a node's nginx measured: rates and times out of the last lines of its timed log.

A line of a proxy is `<kind> <status> <bytes> <upstreams> <when> <seconds>`; `kind` is `static` or `dynamic`, `<upstreams>` may have spaces.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

LIMIT: Final = 4 << 20
"""At most so many bytes of the log are read."""
KINDS: Final = ("static", "dynamic")
FLUSHED: Final = 1.0
"""Seconds after which a request is in the log at the latest."""


@dataclasses.dataclass(frozen=True)
class Request:
    """One request: what served it, the status, bytes sent, when it ended (seconds since 1970) and how long it took (seconds)."""

    kind: str
    status: int
    size: int
    ended: float
    seconds: float


def performance(log: pathlib.Path, window: float, now: float | None = None) -> dict[str, Any]:
    """Figures of the last `window` seconds, as a dict.

    `requests`: how many; `request_rate` and `error_rate` (of answers with a status from 500 on) in 1/s; `throughput` in KB/s;
    `response_time` (the mean), `p50`, `p95`, `p99` in ms; `static` and `dynamic`: the same for requests answered with files or by backends.
    `window`: the seconds that the figures stand for; fewer than were asked for when there were more requests than 4 MB of log hold.
    """
    now = time.time() if now is None else now
    text, whole = _tail(log)
    requests = [one for line in text.split(b"\n") if (one := parse(line))]
    if not whole and requests:
        window = min(window, max(FLUSHED, now - min(one.ended for one in requests)))
    counted = [one for one in requests if now - window <= one.ended <= now + FLUSHED]
    figures: dict[str, Any] = {"window": round(window, 3), **_figures(counted, window)}
    for kind in KINDS:
        figures[kind] = _figures([one for one in counted if one.kind == kind], window)
    return figures


def parse(line: bytes) -> Request | None:
    """A line of a timed log; None if it is none."""
    words = line.split()
    if len(words) < 6:
        return None
    try:
        kind = words[0].decode("ascii")
        status, size = int(words[1]), int(words[2])
        ended, seconds = float(words[-2]), float(words[-1])
    except ValueError:
        return None
    sound = kind in KINDS and 100 <= status < 600 and size >= 0 and math.isfinite(ended) and math.isfinite(seconds) and seconds >= 0
    return Request(kind, status, size, ended, seconds) if sound else None


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all values do not exceed (nearest rank); 0 when there is none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def _figures(requests: Sequence[Request], window: float) -> dict[str, Any]:
    times = sorted(1000 * one.seconds for one in requests)
    figures = {
        "request_rate": len(requests) / window,
        "error_rate": sum(1 for one in requests if one.status >= 500) / window,
        "throughput": sum(one.size for one in requests) / 1024 / window,
        "response_time": sum(times) / len(times) if times else 0.0,
        "p50": percentile(times, 0.50),
        "p95": percentile(times, 0.95),
        "p99": percentile(times, 0.99),
    }
    return {"requests": len(requests), **{name: round(value, 3) for name, value in figures.items()}}


def _tail(log: pathlib.Path) -> tuple[bytes, bool]:
    """The end of a log, going back into the file it was before its rotation; and whether that is all there is."""
    parts: list[bytes] = []
    left = LIMIT
    for content, size in _newest_first(log, LIMIT):
        parts.insert(0, content[-left:])
        if size > left:
            return b"".join(parts).partition(b"\n")[2], False
        left -= size
    return b"".join(parts), True


def _newest_first(log: pathlib.Path, limit: int) -> Iterator[tuple[bytes, int]]:
    for path in (log, log.with_name(f"{log.name}.1")):
        try:
            with path.open("rb") as stream:
                size = stream.seek(0, 2)
                stream.seek(max(0, size - limit))
                yield stream.read(limit), size
        except OSError:
            continue
