"""One SQLite file: transactions, forward migrations, and what happens when the disk is full."""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from conpaas.core import errors
from conpaas.core.state import schema

_log = logging.getLogger(__name__)

RESERVE_BYTES = 2 * 1024 * 1024
"""Disk kept back so that the end of every operation that was accepted can be written on a full disk."""

_PRIMARY_CODE = 0xFF


class Database:
    """A transactional SQLite file owned by one process; safe to use from several threads.

    WAL with full sync: what a committed transaction wrote survives a power failure. The file is locked for this process; opening it twice
    raises `errors.WrongState`.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._reserve = path.with_name(path.name + ".reserve")
        self.lock = threading.RLock()
        self._depth = 0
        self._on_rollback: list[Callable[[], None]] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, timeout=2.0, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        try:
            with self._translated():
                self._open()
        except BaseException:
            self._connection.close()
            raise

    def _open(self) -> None:
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self._connection.execute(f"PRAGMA {pragma}").fetchall()
        self._connection.execute("PRAGMA cache_size = -1024")
        self._migrate()

    def _migrate(self) -> None:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(schema.MIGRATIONS):
            raise errors.ConfigurationError(
                f"The store {self.path} was written by a newer ConPaaS (version {version}, this one knows {len(schema.MIGRATIONS)}).",
                hint="Start the newer version of the manager.",
            )
        with self.transaction():
            for number in range(version, len(schema.MIGRATIONS)):
                for statement in filter(str.strip, schema.MIGRATIONS[number].split(";")):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {number + 1}")

    def on_rollback(self, function: Callable[[], None]) -> None:
        """Call `function` after every transaction that was rolled back (caches forget what they saw)."""
        self._on_rollback.append(function)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Database]:
        """All or nothing; on disk when the block ends. A block inside another belongs to the outer one.

        Raises `errors.StorageFull` when there is no room; nothing was changed then.
        """
        with self.lock, self._translated():
            if self._depth:
                yield self
                return
            self._connection.execute("BEGIN IMMEDIATE")
            self._depth = 1
            try:
                yield self
                self._connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
            finally:
                self._depth = 0

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        for function in self._on_rollback:
            function()

    def execute(self, statement: str, *values: Any) -> int:
        """Run one statement (in a transaction of its own unless inside one); the number of rows it changed."""
        with self.transaction():
            return self._connection.execute(statement, values).rowcount

    def execute_many(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with self.transaction():
            self._connection.executemany(statement, rows)

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self.lock, self._translated():
            return self._connection.execute(query, values).fetchall()

    def row(self, query: str, *values: Any) -> sqlite3.Row | None:
        with self.lock, self._translated():
            found: sqlite3.Row | None = self._connection.execute(query, values).fetchone()
            return found

    def close(self) -> None:
        with self.lock:
            self._connection.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what SQLite says into errors a person understands."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE
            if code == sqlite3.SQLITE_FULL:
                raise storage_full(self.path) from error
            if code == sqlite3.SQLITE_BUSY:
                raise errors.WrongState(f"Another manager is using the store {self.path}; stop it first.") from error
            if code in (
                sqlite3.SQLITE_IOERR,
                sqlite3.SQLITE_CORRUPT,
                sqlite3.SQLITE_NOTADB,
                sqlite3.SQLITE_CANTOPEN,
                sqlite3.SQLITE_READONLY,
            ):
                raise errors.ConfigurationError(f"The store {self.path} cannot be used: {error}.") from error
            raise

    def keep_reserve(self) -> None:
        """Make sure the reserve exists. Raises `errors.StorageFull` when there is no room for it."""
        try:
            if self._reserve.stat().st_size >= RESERVE_BYTES:
                return
        except FileNotFoundError:
            _log.info("setting %d bytes of disk aside in %s", RESERVE_BYTES, self._reserve)
        try:
            with self._reserve.open("wb") as stream:
                os.posix_fallocate(stream.fileno(), 0, RESERVE_BYTES)
        except OSError as error:
            self._reserve.unlink(missing_ok=True)
            if error.errno in errors.StorageFull.CODES:
                raise storage_full(self.path) from error
            raise errors.ConfigurationError(f"The file {self._reserve} cannot be written: {error.strerror}.") from error

    def with_reserve(self, write: Callable[[], None]) -> None:
        """Run a write that must succeed: on a full disk the reserve is given up for it."""
        try:
            write()
        except errors.StorageFull:
            if not self._reserve.exists():
                raise
            _log.warning("the disk of %s is full, using the room set aside", self.path)
            self._reserve.unlink(missing_ok=True)
            write()


def storage_full(path: pathlib.Path) -> errors.StorageFull:
    return errors.StorageFull(
        f"There is no room left on the manager's disk for {path}; nothing was changed.",
        hint="Free some space on the manager's VM (old code versions, logs) and try again.",
    )
