"""Clients that write and keep a journal of what was acknowledged to them, as an application with a pool of connections would."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pymysql

THREADS = 4
_PATIENCE = 5
"""Seconds that a client waits for the server before it takes another connection."""
_PAUSE = 0.01


class Journal:
    """Rows with unique tokens, written by some threads. A row whose commit was not acknowledged may be there or not; no token is written
    twice.
    """

    def __init__(self, **login: Any) -> None:
        self._login = login
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._last = time.monotonic()
        self.acknowledged: set[str] = set()
        self.longest = 0.0
        """Seconds in which nobody got an acknowledgement, at most."""
        self.errors: dict[str, int] = {}

    def create(self) -> None:
        """Make the table."""
        with contextlib.closing(self._connect()) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS journal (id BIGINT AUTO_INCREMENT PRIMARY KEY, token CHAR(32) NOT NULL)")

    @contextlib.contextmanager
    def written(self) -> Iterator[None]:
        """While this lasts, the threads write."""
        self._ending.clear()
        self._last = time.monotonic()
        threads = [threading.Thread(target=self._write) for _ in range(THREADS)]
        for one in threads:
            one.start()
        try:
            yield
        finally:
            self._ending.set()
            for one in threads:
                one.join()

    def count(self) -> int:
        with self._lock:
            return len(self.acknowledged)

    def _connect(self) -> pymysql.Connection[Any]:
        timeouts = {"connect_timeout": _PATIENCE, "read_timeout": _PATIENCE, "write_timeout": _PATIENCE}
        return pymysql.connect(**self._login, **timeouts, autocommit=False)  # type: ignore[arg-type]

    def _write(self) -> None:
        while not self._ending.is_set():
            try:
                with contextlib.closing(self._connect()) as connection:
                    while not self._ending.wait(_PAUSE):
                        self._write_one(connection)
            except (pymysql.MySQLError, OSError) as error:
                with self._lock:
                    what = str(error)[:80]
                    self.errors[what] = self.errors.get(what, 0) + 1
                self._ending.wait(_PAUSE)

    def _write_one(self, connection: pymysql.Connection[Any]) -> None:
        token = uuid.uuid4().hex
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO journal (token) VALUES (%s)", (token,))
        connection.commit()
        with self._lock:
            now = time.monotonic()
            self.longest = max(self.longest, now - self._last)
            self._last = now
            self.acknowledged.add(token)
