"""What the charts of services showed, so that a manager that starts again still knows: a day of rows, one a minute."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping

from conpaas.core.state import database

_log = logging.getLogger(__name__)

INTERVAL = 60.0
"""Seconds between two rows."""
KEPT = 1440
"""Rows of each chart that are kept; an older one gives its place to the newest."""

Numbers = Mapping[str, float | None]


class Measurements:
    """Rows of numbers by service and method. A row's place follows from its minute, so the table cannot grow beyond a day."""

    def __init__(self, db: database.Database) -> None:
        self._db = db

    def add(self, service_id: int, at: float, rows: Mapping[str, Numbers]) -> None:
        """Keep what each method told at that time (seconds since 1970). Ignored for a service that is gone."""
        place = int(at // INTERVAL) % KEPT
        with self._db.transaction():
            if self._db.row("SELECT 1 FROM services WHERE id = ?", service_id) is not None:
                self._db.execute_many(
                    "INSERT OR REPLACE INTO measurements (service_id, method, place, at, numbers) VALUES (?, ?, ?, ?, ?)",
                    [(service_id, method, place, at, json.dumps(dict(numbers))) for method, numbers in rows.items()],
                )

    def list(self, service_id: int, method: str, columns: Iterable[str]) -> list[tuple[float, tuple[float | None, ...]]]:
        """The rows of one method, oldest first, with the numbers in the order of `columns`.

        A row that cannot be read is left out and logged.
        """
        wanted = tuple(columns)
        found = []
        for row in self._db.rows(
            "SELECT at, numbers FROM measurements WHERE service_id = ? AND method = ? ORDER BY at", service_id, method
        ):
            try:
                numbers = json.loads(row["numbers"])
                found.append((float(row["at"]), tuple(_number(numbers.get(key)) for key in wanted)))
            except (AttributeError, TypeError, ValueError) as error:
                _log.warning("a row of the chart of %s of service %d cannot be read and is left out: %s", method, service_id, error)
        return found


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is no number")
    return float(value)
