"""How long statements take, which the server counts (`userstat`) only while somebody wants to know: a lock and two calls of the kernel at
each statement cost a twentieth of its processor time under load.

Whoever looks has it counted for some seconds. A page that asks again meanwhile is told what was counted so far; who comes later is told
what the last seconds that were counted gave. Users of the service who choose `userstat` themselves have it as they want it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pathlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

import pymysql

from conpaas.core import errors
from conpaas.services.mysql.workload import mariadb_config, sql

log: Final = logging.getLogger(__name__)
VARIABLE: Final = "userstat"
COUNTED: Final = 5.0
"""Seconds that time is counted for after a look."""
FRESH: Final = 150.0
"""Seconds that what was counted is told for; the charts of the service's page look once a minute."""
_TIMEOUT: Final = 5.0
_COUNTERS: Final = ("Busy_time", "Questions", "Uptime")


@dataclasses.dataclass(frozen=True)
class Sample:
    """The counters at one moment (monotonic seconds)."""

    when: float
    status: Mapping[str, str]

    def number(self, name: str) -> float:
        try:
            return float(self.status.get(name, 0))
        except ValueError:
            return 0.0


def between(before: Sample, now: Sample) -> float | None:
    """Milliseconds that a statement took on average; None when there was none."""
    busy, statements = (max(now.number(name) - before.number(name), 0.0) for name in ("Busy_time", "Questions"))
    return round(1000 * busy / statements, 3) if statements else None


class StatementTime:
    """Of the server behind `socket`, whose configuration tells whether users chose whether time is counted. Thread-safe."""

    def __init__(self, socket: pathlib.Path, configuration: pathlib.Path, now: Callable[[], float] = time.monotonic) -> None:
        self._socket = socket
        self._configuration = configuration
        self._now = now
        self._lock = threading.Lock()
        self._begun: Sample | None = None
        self._last: tuple[float, float | None] = (-FRESH, None)
        self._until = 0.0
        self._end: threading.Timer | None = None
        self._closed = False

    def look(self, cursor: pymysql.cursors.Cursor, before: Sample, sample: Sample, *, counted: bool) -> float | None:
        """Milliseconds a statement, over the time since `before` as far as it was counted; None while that is not known. `counted`: whether
        the server counted time when `sample` was taken. Raises what the driver raises."""
        if self._is_chosen():
            return between(before, sample) if counted else None
        with self._lock:
            cursor.execute(f"SET GLOBAL {VARIABLE} = ON")  # also if it was on: since then, it may have been switched off
            if not counted or self._begun is None or self._begun.number("Uptime") > sample.number("Uptime"):
                self._begun = sample
            self._until = self._now() + COUNTED
            self._arm(COUNTED)
            found = between(max(self._begun, before, key=lambda one: one.when), sample)
            if found is not None:
                self._last = (sample.when, found)
            when, last = self._last
            return last if self._now() - when < FRESH else None

    def close(self) -> None:
        """Look no more. What is being counted goes on until somebody looks again."""
        with self._lock:
            self._closed = True
            if self._end is not None:
                self._end.cancel()

    def _arm(self, seconds: float) -> None:
        if self._end is None and not self._closed:
            self._end = threading.Timer(seconds, self._finish)
            self._end.daemon = True
            self._end.start()

    def _finish(self) -> None:
        """What the timer does: somebody may have looked again since it was set."""
        with self._lock:
            self._end = None
            left = self._until - self._now()
            if left > 0:
                self._arm(left)
                return
        self._stop()

    def _stop(self) -> None:
        """Have the server count no longer, and keep what it has counted."""
        try:
            with contextlib.closing(sql.connect(self._socket, _TIMEOUT)) as connection, connection.cursor() as cursor, self._lock:
                if self._end is not None or self._is_chosen():
                    return
                cursor.execute("SHOW GLOBAL STATUS WHERE Variable_name IN %s", (_COUNTERS,))
                sample = Sample(self._now(), {str(name): str(value) for name, value in cursor.fetchall()})
                cursor.execute(f"SET GLOBAL {VARIABLE} = OFF")
                begun, self._begun = self._begun, None
                if begun is not None and begun.number("Uptime") <= sample.number("Uptime"):
                    self._last = (sample.when, between(begun, sample))
        except (errors.ConPaaSError, pymysql.MySQLError) as error:
            log.info("the time of statements was not counted to the end: %s", error)

    def _is_chosen(self) -> bool:
        try:
            return VARIABLE in mariadb_config.options(self._configuration.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
