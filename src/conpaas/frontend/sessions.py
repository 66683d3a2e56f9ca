"""Who is signed in: rows of a private SQLite file that opens nothing without the cookies.

The browser's cookie is a random secret. The row is found by its SHA-256, and the user's private key and certificate in it are encrypted
under a key that is derived from the same secret, so neither the file nor a backup of it is worth anything to a thief.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import json
import logging
import os
import pathlib
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import aead
from cryptography.hazmat.primitives.kdf import hkdf

from conpaas.core import errors

log = logging.getLogger(__name__)

FILE: Final = "sessions.db"
SECRET_BYTES: Final = 32
_NONCE: Final = 12
_TOUCH: Final = 60.0
"""Seconds within which a use of a session is not written down again."""

_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS session (id TEXT PRIMARY KEY, uid INTEGER, sealed BLOB, used REAL, expires REAL)"


@dataclasses.dataclass(frozen=True)
class Grant:
    """What the Director gave at sign-in. `expires` is in seconds since the epoch."""

    username: str
    uid: int
    operator: bool
    certificate: str = dataclasses.field(repr=False)
    key: str = dataclasses.field(repr=False)
    ca: str = dataclasses.field(repr=False)
    expires: float = 0.0


@dataclasses.dataclass(frozen=True)
class Session:
    """One signed-in browser. `id` names it in this process and in the file; it is not the cookie and opens nothing."""

    id: str
    grant: Grant
    csrf: str = dataclasses.field(repr=False)

    @property
    def username(self) -> str:
        return self.grant.username

    @property
    def operator(self) -> bool:
        return self.grant.operator


def new_secret() -> str:
    """A cookie's value: 256 random bits."""
    return secrets.token_urlsafe(SECRET_BYTES)


def csrf_token(secret: str) -> str:
    """The token that forms of the browser with this cookie carry."""
    return hmac.new(secret.encode(), b"csrf", hashlib.sha256).hexdigest()


def _row_id(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _cipher(secret: str) -> aead.AESGCM:
    derived = hkdf.HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"conpaas front-end session").derive(secret.encode())
    return aead.AESGCM(derived)


def _seal(secret: str, row: str, grant: Grant) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + _cipher(secret).encrypt(nonce, json.dumps(dataclasses.asdict(grant)).encode(), row.encode())


def _unseal(secret: str, row: str, sealed: bytes) -> Grant:
    fields: dict[str, Any] = json.loads(_cipher(secret).decrypt(sealed[:_NONCE], sealed[_NONCE:], row.encode()))
    return Grant(**fields)


def _try(database: sqlite3.Connection, statement: str, values: tuple[Any, ...]) -> None:
    """Change what may also stay as it is: on a full disk, nobody who is signed in is to be shut out for it."""
    try:
        database.execute(statement, values)
    except sqlite3.OperationalError as error:
        log.warning("the use of a session is not written down: %s", error)


class Store:
    """The sessions of one front-end. Thread-safe. `clock` gives seconds since the epoch."""

    def __init__(self, directory: pathlib.Path, idle: float, clock: Callable[[], float] = time.time) -> None:
        self._idle = idle
        self._clock = clock
        self._lock = threading.Lock()
        self._path = directory / FILE
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            self._path.chmod(0o600)
            self._database = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA secure_delete = ON")
            self._database.execute(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise errors.ConfigurationError(f"Cannot keep sessions in {self._path}: {error}.") from error

    def close(self) -> None:
        """Close the file; the sessions stay in it."""
        with self._lock:
            self._database.close()

    def begin(self, grant: Grant) -> tuple[str, Session]:
        """A new session, always under a new secret; returns the cookie's value and the session."""
        secret = new_secret()
        row = _row_id(secret)
        now = self._clock()
        with self._locked() as database:
            database.execute("DELETE FROM session WHERE expires <= ? OR used <= ?", (now, now - self._idle))
            values = (row, grant.uid, _seal(secret, row, grant), now, grant.expires)
            database.execute("INSERT INTO session (id, uid, sealed, used, expires) VALUES (?, ?, ?, ?, ?)", values)
        return secret, Session(row, grant, csrf_token(secret))

    def find(self, secret: str) -> Session | None:
        """The session of a cookie, or None if there is none, it ended, was idle for too long, or its row was tampered with."""
        if not secret or len(secret) > 200:
            return None
        row = _row_id(secret)
        now = self._clock()
        with self._locked() as database:
            found = database.execute("SELECT sealed, used, expires FROM session WHERE id = ?", (row,)).fetchone()
            if found is None:
                return None
            sealed, used, expires = found
            if expires <= now or used + self._idle <= now:
                _try(database, "DELETE FROM session WHERE id = ?", (row,))
                return None
            if now - used > _TOUCH:
                _try(database, "UPDATE session SET used = ? WHERE id = ?", (now, row))
        try:
            grant = _unseal(secret, row, sealed)
        except (InvalidTag, ValueError, TypeError):
            return None
        return Session(row, grant, csrf_token(secret)) if grant.expires > now else None

    def alive(self, session_id: str) -> bool:
        """Whether the session is still there; says nothing to whoever knows only the id."""
        now = self._clock()
        with self._locked() as database:
            found = database.execute("SELECT used, expires FROM session WHERE id = ?", (session_id,)).fetchone()
        return found is not None and found[1] > now and found[0] + self._idle > now

    def end(self, session_id: str) -> None:
        """Forget a session. Idempotent."""
        with self._locked() as database:
            database.execute("DELETE FROM session WHERE id = ?", (session_id,))

    def others_of(self, session: Session) -> int:
        """End all other sessions of the same user; how many there were."""
        with self._locked() as database:
            return database.execute("DELETE FROM session WHERE uid = ? AND id <> ?", (session.grant.uid, session.id)).rowcount

    @contextlib.contextmanager
    def _locked(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            yield self._database
