"""Settings of one service: a mapping whose every assignment is on disk when it returns."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, MutableMapping
from typing import Any

from conpaas.core.state import database

_ABSENT = object()


class Settings(MutableMapping[str, Any]):
    """JSON values by name, kept per service.

    Reading gives a copy: to change a list or a dict inside, assign it again. `with settings.together():` makes the assignments of the block
    (of this thread) one transaction: all or none of them survive.
    """

    def __init__(self, db: database.Database, service_id: int) -> None:
        self._db = db
        self._service_id = service_id
        self._texts: dict[str, str] | None = None
        self._local = threading.local()
        db.on_rollback(self._forget)

    def __getitem__(self, key: str) -> Any:
        return json.loads(self._all()[key])

    def __setitem__(self, key: str, value: Any) -> None:
        self._write({key: json.dumps(value)})

    def __delitem__(self, key: str) -> None:
        if key not in self._all():
            raise KeyError(key)
        self._write({key: None})

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Group the assignments of the block; if it raises, none is made."""
        if self._pending() is not None:
            yield
            return
        self._local.pending = {}
        try:
            yield
            changes = self._local.pending
        finally:
            self._local.pending = None
        self._write(changes)

    def _pending(self) -> dict[str, str | None] | None:
        return getattr(self._local, "pending", None)

    def _all(self) -> dict[str, str]:
        with self._db.lock:
            if self._texts is None:
                rows = self._db.rows("SELECT key, value FROM settings WHERE service_id = ?", self._service_id)
                self._texts = {row["key"]: row["value"] for row in rows}
            texts = self._texts
        pending = self._pending()
        if not pending:
            return texts
        merged = {**texts, **{key: text for key, text in pending.items() if text is not None}}
        return {key: text for key, text in merged.items() if pending.get(key, _ABSENT) is not None}

    def _write(self, changes: dict[str, str | None]) -> None:
        pending = self._pending()
        if pending is not None:
            pending.update(changes)
            return
        kept = [(self._service_id, key, text) for key, text in changes.items() if text is not None]
        dropped = [(self._service_id, key) for key, text in changes.items() if text is None]
        with self._db.transaction():
            self._db.execute_many("INSERT OR REPLACE INTO settings (service_id, key, value) VALUES (?, ?, ?)", kept)
            self._db.execute_many("DELETE FROM settings WHERE service_id = ? AND key = ?", dropped)
            self._texts = None

    def _forget(self) -> None:
        self._texts = None
