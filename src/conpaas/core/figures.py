"""What the charts of a service's page showed: a row of numbers a minute, for a day.

So whoever opens the page sees what was before, and a chart costs one question a minute whether anybody looks or not. The rows are in the
manager's store as well: one that starts again knows them.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from conpaas.core import errors, pages
from conpaas.core.state import measurements

_log = logging.getLogger(__name__)

INTERVAL: Final = measurements.INTERVAL
KEPT: Final = measurements.KEPT
GAP: Final = 3.0
"""Rows that are missing one after the other before a chart shows a gap."""

Numbers = tuple[float | None, ...]
Row = tuple[float, Numbers]
"""When it was measured (seconds since 1970), and a number for each column."""


@dataclasses.dataclass(frozen=True)
class _Measured:
    columns: tuple[str, ...]
    rows: collections.deque[Row]


class Figures:
    """The figures of one service, by the methods that tell them. Thread-safe."""

    def __init__(self, page: pages.Page, kept: measurements.Measurements, service_id: int) -> None:
        columns: dict[str, dict[str, None]] = {}
        for panel in page.panels:
            for part in panel.parts:
                if isinstance(part, pages.Chart):
                    columns.setdefault(part.method, {}).update(dict.fromkeys(value.key for value in part.series))
        self._kept = kept
        self._service_id = service_id
        self._measured = {method: _Measured(tuple(keys), self._known(method, keys)) for method, keys in columns.items()}
        self._lock = threading.Lock()
        self._due = INTERVAL + max((measured.rows[-1][0] for measured in self._measured.values() if measured.rows), default=-INTERVAL)

    def _known(self, method: str, columns: Iterable[str]) -> collections.deque[Row]:
        try:
            return collections.deque(self._kept.list(self._service_id, method, columns), maxlen=KEPT)
        except errors.ConPaaSError as error:
            _log.warning("what the chart of %s of service %d showed before cannot be read: %s", method, self._service_id, error)
            return collections.deque(maxlen=KEPT)

    @property
    def methods(self) -> list[str]:
        """The methods whose figures are kept."""
        return list(self._measured)

    def measure(self, ask: Callable[[str], Any], now: float) -> None:
        """Add a row to each chart if it is time to; `ask` calls a method. What cannot be told now is left out."""
        if now < self._due and self._due - now <= INTERVAL:  # a clock that was put back does not stop it
            return
        self._due = now + INTERVAL
        told: dict[str, dict[str, float | None]] = {}
        for method, measured in self._measured.items():
            try:
                reply = ask(method)
            except errors.ConPaaSError as error:
                _log.info("%s could not be measured: %s", method, error)
                continue
            numbers = tuple(_number(pages.pick(reply, key)) for key in measured.columns)
            with self._lock:
                measured.rows.append((now, numbers))
            told[method] = dict(zip(measured.columns, numbers, strict=True))
        self._keep(now, told)

    def _keep(self, now: float, told: dict[str, dict[str, float | None]]) -> None:
        """A chart is not worth an error: what cannot be kept is known until the manager ends."""
        try:
            self._kept.add(self._service_id, now, told)
        except errors.ConPaaSError as error:
            _log.warning("the charts of service %d could not be kept: %s", self._service_id, error)

    def tell(self, method: str, seconds: float, points: int, now: float) -> dict[str, Any]:
        """The rows of the last `seconds`, as means if there are more than `points`; a row of nulls stands where nothing was measured."""
        measured = self._measured[method]
        with self._lock:
            rows = [row for row in measured.rows if now - seconds <= row[0] <= now]
        span = max(INTERVAL, seconds / points)
        told = _with_gaps(_means(rows, now - seconds, span), span)
        return {"interval": INTERVAL, "columns": list(measured.columns), "rows": [[round(at), *numbers] for at, numbers in told]}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _means(rows: Iterable[Row], begin: float, span: float) -> list[Row]:
    """One row for each `span` seconds in which there are any."""
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(int((row[0] - begin) // span), []).append(row)
    return [_mean(group) for group in groups.values()]


def _mean(rows: Sequence[Row]) -> Row:
    if len(rows) == 1:
        return rows[0]
    columns = [[number for number in column if number is not None] for column in zip(*(numbers for _, numbers in rows), strict=True)]
    means = tuple(round(sum(column) / len(column), 3) if column else None for column in columns)
    return sum(at for at, _ in rows) / len(rows), means


def _with_gaps(rows: Sequence[Row], span: float) -> list[Row]:
    found: list[Row] = []
    for row in rows:
        if found and row[0] - found[-1][0] > GAP * span:
            found.append(((row[0] + found[-1][0]) / 2, (None,) * len(row[1])))
        found.append(row)
    return found
