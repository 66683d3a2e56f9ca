"""Slowing down who guesses passwords or creates accounts in bulk; counted in the database, as several Directors may run.

A failed login counts in three buckets: this user from this address (few tries), this address (more, for any user), this user
from anywhere (many, so that a stranger cannot easily lock somebody out). Beyond a bucket's free failures each further one
doubles the time that it stays closed, up to a quarter of an hour; an hour without failures empties it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import math

import sqlalchemy as sa
from sqlalchemy import orm

from conpaas.core import errors
from conpaas.director import db, models

WINDOW = 3600.0
LONGEST_BLOCK = 900.0
MAX_ROWS = 50_000
SESSIONS_PER_HOUR = 300  # begun by one account; each leaves a certificate on record


@dataclasses.dataclass(frozen=True)
class Bucket:
    """One counter: its key in the table and how many failures are free."""

    key: str
    free: int


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:48]


def _network(address: str) -> str:
    """The address, or the /64 of an IPv6 address: one customer has all of it."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:60]
    return str(ipaddress.ip_network(f"{parsed}/64", strict=False)) if parsed.version == 6 else str(parsed)


def login_buckets(user_key: str, address: str, trusted_relay: bool) -> list[Bucket]:
    """The buckets of one login. A trusted relay (the front-end) is the address of many people and is not counted as one."""
    network = _network(address)
    buckets = [Bucket(f"pair:{_digest(f'{user_key} {network}')}", 5), Bucket(f"user:{_digest(user_key)}", 50)]
    if not trusted_relay:
        buckets.append(Bucket(f"address:{network}", 30))
    return buckets


def _wait(row: models.LoginAttempt, now: float) -> float:
    return max(0.0, min(row.blocked_until - now, LONGEST_BLOCK))


def check(session: orm.Session, buckets: list[Bucket], now: float) -> None:
    """Raise Unauthenticated while any of the buckets is closed. Only reads."""
    rows = session.scalars(sa.select(models.LoginAttempt).where(models.LoginAttempt.bucket.in_([bucket.key for bucket in buckets])))
    seconds = math.ceil(max((_wait(row, now) for row in rows), default=0.0))
    if seconds > 0:
        raise errors.Unauthenticated(f"Too many failed logins; try again in {seconds} seconds.")


def _locked(session: orm.Session, key: str, now: float) -> models.LoginAttempt:
    """The row of a bucket, made if need be, that no other transaction changes meanwhile."""
    row = session.get(models.LoginAttempt, key, with_for_update=True)
    if row is None:
        db.insert_if_absent(session, models.LoginAttempt(bucket=key, failures=0, last=now, blocked_until=0.0))
        row = session.get_one(models.LoginAttempt, key, with_for_update=True, populate_existing=True)
    return row


def failed(session: orm.Session, buckets: list[Bucket], now: float) -> None:
    """Count one failure in each bucket."""
    for bucket in buckets:
        row = _locked(session, bucket.key, now)
        if abs(now - row.last) > WINDOW:
            row.failures = 0
        row.failures += 1
        row.last = now
        excess = row.failures - bucket.free
        if excess > 0:
            row.blocked_until = now + min(2.0 ** min(excess, 20), LONGEST_BLOCK)


def succeeded(session: orm.Session, buckets: list[Bucket]) -> None:
    """Forget the failures of this user from this address; those of the others stay."""
    session.execute(sa.delete(models.LoginAttempt).where(models.LoginAttempt.bucket == buckets[0].key))


def has_failures(session: orm.Session, buckets: list[Bucket]) -> bool:
    """Whether `succeeded` would have anything to forget."""
    return session.get(models.LoginAttempt, buckets[0].key) is not None


def count(session: orm.Session, key: str, limit: int, now: float) -> bool:
    """Count one use of what may be done `limit` times an hour; False, and nothing counted, beyond that."""
    row = _locked(session, key, now)
    # Here `blocked_until` is the beginning of the hour that is counted. One that is far ahead is of a clock that was wrong.
    if abs(now - row.blocked_until) > WINDOW:
        row.failures, row.blocked_until = 0, now
    if row.failures >= limit:
        return False
    row.failures += 1
    row.last = now
    return True


def register_key(what: str, who: str) -> str:
    """The key of a counter of what somebody, by name or address, does."""
    return f"{what}:{_digest(_network(who))}"


def count_registration(session: orm.Session, address: str, limit: int, now: float) -> None:
    """Count a new account of this address; raises Forbidden beyond `limit` within an hour."""
    if not count(session, f"register:{_network(address)}", limit, now):
        raise errors.Forbidden(f"Too many new accounts from {address}; try again in an hour.")


def count_session(session: orm.Session, uid: int, now: float) -> None:
    """Count a session that a user begins; raises Forbidden beyond SESSIONS_PER_HOUR."""
    if not count(session, f"session:{uid}", SESSIONS_PER_HOUR, now):
        raise errors.Forbidden("Too many sessions of this account were begun; try again in an hour.")


def prune(session: orm.Session, now: float) -> None:
    """Delete what has no effect any more, and the oldest rows beyond MAX_ROWS."""
    row = models.LoginAttempt
    session.execute(sa.delete(row).where(row.last < now - 2 * WINDOW))
    oldest_kept = session.scalar(sa.select(row.last).order_by(row.last.desc()).offset(MAX_ROWS).limit(1))
    if oldest_kept is not None:
        session.execute(sa.delete(row).where(row.last <= oldest_kept))
