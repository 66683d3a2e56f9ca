"""How long a user's credits last, and telling users before they end."""

from __future__ import annotations

import dataclasses
import datetime
import logging
from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy import orm

from conpaas.director import credits, models, notices, runtime

log = logging.getLogger(__name__)

CALM_AGAIN = 1.25
"""A warning is given anew only after the credits lasted this many times longer than its threshold: changes to and fro warn once."""


@dataclasses.dataclass(frozen=True)
class Outlook:
    """Credits now, what the VMs that run now cost per hour, and the hours until one that began cannot be paid (None: never)."""

    balance: int
    per_hour: int
    hours_left: float | None

    def warning(self, thresholds: Sequence[int]) -> str | None:
        """What to tell the user, if there is anything to tell."""
        if self.balance <= 0 and self.per_hour:
            return "The credits are used up: services are stopped. Add credits, and start them again."
        if self.balance <= 0:
            return "There are no credits left: nothing can be started."
        if self.hours_left is None or not thresholds or self.hours_left > max(thresholds):
            return None
        return f"At {self.per_hour} credits per hour, the credits last {self.hours_left:.1f} more hours. Then services are stopped."


def of(session: orm.Session, uid: int, now: datetime.datetime) -> Outlook:
    """The outlook of one user."""
    return _outlook(credits.balance(session, uid), credits.next_hours(session, uid), now)


def _outlook(balance: int, starts: Sequence[datetime.datetime], now: datetime.datetime) -> Outlook:
    """`starts` are when the next hour of each VM begins. Credits go to the hour that begins first, so with n VMs and b credits it is
    the hour b + 1 that cannot be paid: all VMs get b // n hours, and after them the first b % n one more."""
    if not starts:
        return Outlook(balance, 0, None)
    rounds, more = divmod(max(balance, 0), len(starts))
    waits = sorted(max(0.0, (start - now).total_seconds() / 3600) for start in starts)
    return Outlook(balance, len(starts), rounds + waits[more])


def threshold(hours_left: float | None, thresholds: Iterable[int]) -> int | None:
    """The least of the thresholds that the hours do not exceed."""
    return min((hours for hours in thresholds if hours_left is not None and hours_left <= hours), default=None)


def warn(director: runtime.Director) -> list[int]:
    """One pass: a notice to everybody whose credits have come to last no longer than a threshold. Each crossing is told once, whichever
    Director process sees it. Returns the users who are told."""
    thresholds = director.config.credit_warning_hours
    if not thresholds:
        return []
    now = director.clock()
    with director.database.reader() as session:
        starts = credits.next_hours_of_all(session)
        users = session.scalars(sa.select(models.User).where(models.User.uid.in_(starts))).all()
        outlooks = {user: _outlook(credits.balance(session, user.uid), starts[user.uid], now) for user in users}
    return [user.uid for user, outlook in outlooks.items() if _warn(director, user, outlook, thresholds)]


def _warn(director: runtime.Director, user: models.User, outlook: Outlook, thresholds: Sequence[int]) -> bool:
    crossed, warned = threshold(outlook.hours_left, thresholds), user.warned_at_hours
    row = models.User
    if crossed is not None and (warned is None or crossed < warned):
        fresh = sa.and_(row.uid == user.uid, sa.or_(row.warned_at_hours.is_(None), row.warned_at_hours > crossed))
        with director.database.session() as session:
            told = session.execute(sa.update(row).where(fresh).values(warned_at_hours=crossed)).rowcount  # type: ignore[attr-defined]
            if told:
                data = {"hours": round(outlook.hours_left or 0.0, 1), "balance": outlook.balance, "per_hour": outlook.per_hour}
                notices.add(session, user.uid, notices.CREDITS_LOW, data, director.clock())
        return bool(told)
    if warned is not None and outlook.hours_left is not None and outlook.hours_left > warned * CALM_AGAIN:
        same = sa.and_(row.uid == user.uid, row.warned_at_hours == warned)
        calm = min((hours for hours in thresholds if outlook.hours_left <= hours * CALM_AGAIN), default=None)
        with director.database.session() as session:
            session.execute(sa.update(row).where(same).values(warned_at_hours=calm))
    return False
