"""Clients that write and keep a journal of what was acknowledged to them, as an application with a pool of connections would."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pymysql

from tests.support import platform as platforms

THREADS = 4
_PATIENCE = 5
"""Seconds that a client waits for the server before it takes another connection."""
_PAUSE = 0.01


class Journal:
    """Rows with unique tokens, written by some threads. A row whose commit was not acknowledged may be there or not; no token is written
    twice. Other things to write: see `change`.
    """

    table = "journal"
    """Where the tokens are."""

    def __init__(self, **login: Any) -> None:
        self._login = login
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._last = time.monotonic()
        self.acknowledged: set[str] = set()
        self.moments: dict[str, tuple[float, float]] = {}
        """When the transaction of an acknowledged row began, and when it was acknowledged."""
        self.refused: set[str] = set()
        """The tokens of transactions that certainly came to nothing: they failed before their commit, or it was refused."""
        self.longest = 0.0
        """Seconds in which nobody got an acknowledgement, at most."""
        self.errors: dict[str, int] = {}

    def create(self) -> None:
        """Make the table."""
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS journal (id BIGINT AUTO_INCREMENT PRIMARY KEY, token CHAR(32) NOT NULL)")

    def change(self, cursor: Any, token: str) -> None:
        """The statements of one transaction, which has this token."""
        cursor.execute("INSERT INTO journal (token) VALUES (%s)", (token,))

    @contextlib.contextmanager
    def written(self, threads: int = THREADS) -> Iterator[None]:
        """While this lasts, so many threads write."""
        self._ending.clear()
        self._last = time.monotonic()
        working = [threading.Thread(target=self._write) for _ in range(threads)]
        for one in working:
            one.start()
        try:
            yield
        finally:
            self._ending.set()
            for one in working:
                one.join()

    def count(self) -> int:
        with self._lock:
            return len(self.acknowledged)

    def goes_on(self, rows: int = 50) -> None:
        """Wait until so many more rows were acknowledged."""
        wanted = self.count() + rows
        platforms.until(lambda: self.count() >= wanted, f"rows go on being acknowledged; clients saw {self.errors}")

    def connect(self) -> pymysql.Connection[Any]:
        timeouts = {"connect_timeout": _PATIENCE, "read_timeout": _PATIENCE, "write_timeout": _PATIENCE}
        return pymysql.connect(**self._login, **timeouts, autocommit=False)  # type: ignore[arg-type]

    def _write(self) -> None:
        while not self._ending.is_set():
            try:
                with contextlib.closing(self.connect()) as connection:
                    while not self._ending.wait(_PAUSE):
                        self._write_one(connection)
            except (pymysql.MySQLError, OSError) as error:
                with self._lock:
                    what = str(error)[:80]
                    self.errors[what] = self.errors.get(what, 0) + 1
                self._ending.wait(_PAUSE)

    def _write_one(self, connection: pymysql.Connection[Any]) -> None:
        token, began, asked = uuid.uuid4().hex, time.time(), False
        try:
            with connection.cursor() as cursor:
                self.change(cursor, token)
            asked = True
            connection.commit()
        except (pymysql.MySQLError, OSError) as error:
            if not asked or error.args[:1] == (pymysql.constants.ER.LOCK_DEADLOCK,):
                with self._lock:
                    self.refused.add(token)
            raise
        with self._lock:
            now = time.monotonic()
            self.longest = max(self.longest, now - self._last)
            self._last = now
            self.acknowledged.add(token)
            self.moments[token] = (began, time.time())
