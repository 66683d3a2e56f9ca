"""Credits: one credit is one VM for one started hour, written as one ledger entry per VM and hour.

The balance of a user is the sum of the entries; hours already written are never written again (the table forbids it), so it
makes no difference how often or when a pass runs. An hour is charged only while the user has credits. A user who owes the
next hour and has none is *exhausted*: the rooms registered with `runtime.Director.on_exhausted` stop the applications, and the hour
that nobody paid is waived when the VM's account is settled. So a user with one credit gets one hour of one VM.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging

import sqlalchemy as sa
from sqlalchemy import orm

from conpaas.core import errors
from conpaas.director import models, runtime

HOUR = datetime.timedelta(hours=1)
WAIVED = "waived: no credits"
KIND_GRANT, KIND_HOUR, KIND_ADJUST = "grant", "hour", "adjust"
log = logging.getLogger(__name__)


@dataclasses.dataclass
class Charged:
    """What a pass did: entries written, and the users who could not pay an hour that has started."""

    entries: int = 0
    exhausted: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class _Account:
    """A VM with its owner and the number of hours already written."""

    resource: models.Resource
    uid: int
    written: int

    def due(self, until: datetime.datetime) -> range:
        """Indices of the hours started before or at `until` that are not written yet."""
        vm = self.resource
        lived = min(until, vm.paused or until) - vm.created - datetime.timedelta(seconds=vm.unbilled)
        return range(self.written, lived // HOUR + 1 if lived >= datetime.timedelta() else 0)

    @property
    def next_hour(self) -> datetime.datetime:
        """When the first hour begins that is not written yet."""
        vm = self.resource
        return vm.created + datetime.timedelta(seconds=vm.unbilled) + self.written * HOUR

    def entry(self, hour: int, now: datetime.datetime, *, amount: int = -1, note: str | None = None) -> models.LedgerEntry:
        resource = self.resource
        label = f"{resource.role} {resource.cloud}{resource.vmid or ''} of application {resource.app_id}"
        return models.LedgerEntry(
            uid=self.uid, amount=amount, kind=KIND_HOUR, rid=resource.rid, vm=label[:300], hour_index=hour, at=now, note=note
        )


def balance(session: orm.Session, uid: int) -> int:
    """The credits that a user has."""
    total = session.scalar(sa.select(sa.func.coalesce(sa.func.sum(models.LedgerEntry.amount), 0)).where(models.LedgerEntry.uid == uid))
    return int(total or 0)


def require(session: orm.Session, uid: int, hours: int = 1) -> None:
    """Raise InsufficientCredits unless the user can pay `hours` more VM-hours."""
    if balance(session, uid) < hours:
        raise errors.InsufficientCredits


def grant(session: orm.Session, uid: int, amount: int, now: datetime.datetime) -> None:
    """The credits that a new account starts with."""
    if amount:
        session.add(models.LedgerEntry(uid=uid, amount=amount, kind=KIND_GRANT, at=now))


def adjust(session: orm.Session, uid: int, delta: int, now: datetime.datetime, note: str) -> int:
    """Add (or with a negative delta take) credits by one entry, never below 0; returns the new balance.

    Hours that began while the user was without credits are not paid with those that come now.
    """
    _lock_user(session, uid)
    present = balance(session, uid)
    if delta > 0 and session.scalar(sa.select(models.User.exhausted).where(models.User.uid == uid)) is not None:
        waive(session, uid, now)
    amount = max(delta, -max(present, 0))
    if amount:
        session.add(models.LedgerEntry(uid=uid, amount=amount, kind=KIND_ADJUST, at=now, note=note[:512]))
        session.flush()
    return present + amount


def take(session: orm.Session, uid: int, amount: int, now: datetime.datetime, note: str) -> bool:
    """Take exactly `amount` credits, or none if there are fewer; whether they were taken."""
    _lock_user(session, uid)
    if balance(session, uid) < amount:
        return False
    adjust(session, uid, -amount, now, note)
    return True


def charge_started_hours(session: orm.Session, now: datetime.datetime, uid: int | None = None) -> Charged:
    """Write every hour that has started and is not written, of all users or of one; as far as each user's credits reach.

    Call it in the transaction that records new VMs as running, so that the first hour is charged at creation.
    """
    session.flush()
    owing = sorted({account.uid for account in _accounts(session, uid) if account.due(now)})
    charged = Charged()
    for owner in owing:
        _charge_user(session, owner, now, charged)
    session.flush()
    return charged


def settle(session: orm.Session, resource: models.Resource, now: datetime.datetime) -> None:
    """Close the account of a VM that goes away: write its last hours and set `ended`; harmless when repeated.

    Call it when the VM is given up (state `deleting` or `lost`), before its row may be deleted. Hours beyond the user's credits
    are written with amount 0.
    """
    if resource.ended is not None:
        return
    session.flush()
    owner = session.scalar(sa.select(models.Application.user_id).where(models.Application.aid == resource.app_id))
    if owner is not None:
        _lock_user(session, owner)
        left = balance(session, owner)
        for account in _accounts(session, owner, resource.rid):
            for hour in _bounded(account.due(now)):
                payable = left > 0
                session.add(account.entry(hour, now, amount=-1 if payable else 0, note=None if payable else WAIVED))
                left -= int(payable)
    resource.ended = now
    session.flush()


def pause(session: orm.Session, cloud: str, now: datetime.datetime) -> None:
    """Count no more time of a cloud's VMs until `unpause`: they were all switched off on purpose. Harmless when repeated."""
    vm = models.Resource
    counted = (vm.cloud == cloud) & vm.paused.is_(None) & vm.ended.is_(None) & (vm.state != "creating")
    session.execute(sa.update(vm).where(counted).values(paused=now))


def unpause(session: orm.Session, cloud: str, now: datetime.datetime) -> None:
    """Count the time of a cloud's VMs again, from now on."""
    for vm in session.scalars(sa.select(models.Resource).where(models.Resource.cloud == cloud, models.Resource.paused.is_not(None))):
        assert vm.paused is not None
        vm.unbilled += max(0.0, (now - vm.paused).total_seconds())
        vm.paused = None


def next_hours(session: orm.Session, uid: int) -> list[datetime.datetime]:
    """When the next hour begins that is not written yet, of each VM of a user that costs credits now."""
    return next_hours_of_all(session, uid).get(uid, [])


def next_hours_of_all(session: orm.Session, uid: int | None = None) -> dict[int, list[datetime.datetime]]:
    """As `next_hours`, for every user who has such VMs (or one), by uid."""
    found: dict[int, list[datetime.datetime]] = {}
    for account in _accounts(session, uid):
        if account.resource.paused is None:
            found.setdefault(account.uid, []).append(account.next_hour)
    return found


def waive(session: orm.Session, uid: int, now: datetime.datetime) -> int:
    """Write the hours that have begun, and that a user without credits cannot pay, with amount 0; returns their number."""
    _lock_user(session, uid)
    if balance(session, uid) > 0:
        return 0
    accounts = _accounts(session, uid)
    hours = [account.entry(hour, now, amount=0, note=WAIVED) for account in accounts for hour in _bounded(account.due(now))]
    session.add_all(hours)
    session.flush()
    return len(hours)


def _bounded(due: range) -> range:
    """At most a year of hours at once: a clock that jumped must not fill the table."""
    return due[: 366 * 24]


def _accounts(session: orm.Session, uid: int | None, rid: int | None = None) -> list[_Account]:
    entry, resource = models.LedgerEntry, models.Resource
    written = sa.select(entry.rid, (sa.func.max(entry.hour_index) + 1).label("hours")).where(entry.rid.is_not(None)).group_by(entry.rid)
    hours = written.subquery()
    query = (
        sa.select(resource, models.Application.user_id, sa.func.coalesce(hours.c.hours, 0))
        .join(models.Application, models.Application.aid == resource.app_id)
        .outerjoin(hours, hours.c.rid == resource.rid)
        .where(resource.state != "creating", resource.ended.is_(None))
        .order_by(resource.rid)
    )
    if uid is not None:
        query = query.where(models.Application.user_id == uid)
    if rid is not None:
        query = query.where(resource.rid == rid)
    return [_Account(found, owner, int(count)) for found, owner, count in session.execute(query)]


def _charge_user(session: orm.Session, uid: int, now: datetime.datetime, charged: Charged) -> None:
    _lock_user(session, uid)
    left = max(balance(session, uid), 0)
    accounts = _accounts(session, uid)  # read again: another process may have charged until the lock was ours
    # Oldest hour first, whichever VM it belongs to; a range may be long after an outage, so never more than can be paid.
    wanted = [
        (account.resource.created + hour * HOUR, account, hour) for account in accounts for hour in account.due(now)[: max(left, 0) + 1]
    ]
    wanted.sort(key=lambda item: (item[0], item[1].resource.rid))
    for _, account, hour in wanted[:left]:
        session.add(account.entry(hour, now))
        charged.entries += 1
    if len(wanted) > left:
        charged.exhausted.append(uid)


def _lock_user(session: orm.Session, uid: int) -> None:
    """Let no other transaction charge this user meanwhile (SQLite has a single writer anyway)."""
    session.execute(sa.select(models.User.uid).where(models.User.uid == uid).with_for_update())


def tick(director: runtime.Director) -> Charged:
    """One pass of the background task: charge, then have the applications of users without credits looked after (`Director.on_exhausted`).

    That goes on for users who are noted as exhausted until they no longer are.
    """
    now = director.clock()
    with director.database.session() as session:
        charged = charge_started_hours(session, now)
        before = session.scalars(sa.select(models.User.uid).where(models.User.exhausted.is_not(None))).all()
    for uid in charged.exhausted:
        log.info("user %s has no credits left for the hours that started", uid)
    for uid in dict.fromkeys([*charged.exhausted, *before]):
        for act in director.exhausted:
            try:
                act(uid)
            except Exception:  # one user's trouble must not keep the others from being handled
                log.exception("stopping the applications of user %s failed and will be tried again", uid)
    return charged
