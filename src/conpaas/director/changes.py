"""Whether anything of a user's changed: one cheap question about many users, which a front-end with many open pages asks.

A user's *watch* is a text that only a Director can make: who, until when, and a signature under both. Whoever holds it may ask for the
user's *version*, a digest of what the user's pages of this Director are made from; it tells that something changed, not what.
"""

from __future__ import annotations

import collections
import datetime
import hashlib
import hmac
from collections.abc import Iterable
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import orm

from conpaas.director import models

LIFETIME: Final = datetime.timedelta(minutes=10)
PURPOSE: Final = "watch"
MOST: Final = 1000
LONGEST: Final = 200


def watch(secret: bytes, uid: int, now: datetime.datetime) -> str:
    """The watch of a user, good for LIFETIME."""
    text = f"{uid}.{int((now + LIFETIME).timestamp())}"
    return f"{text}.{_signature(secret, text)}"


def user_of(secret: bytes, watch: str, now: datetime.datetime) -> int | None:
    """Whose watch it is; None if it is nobody's, or no longer."""
    text, _, signature = watch.rpartition(".")
    if not hmac.compare_digest(signature.encode(), _signature(secret, text).encode()):
        return None
    uid, _, end = text.partition(".")
    return int(uid) if int(end) > now.timestamp() else None


def _signature(secret: bytes, text: str) -> str:
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()


def versions(session: orm.Session, uids: Iterable[int]) -> dict[int, str]:
    """The version of each user, in a handful of queries however many there are; of one that is unknown it is that of nothing."""
    wanted = sorted(set(uids))
    if not wanted:
        return {}
    found: dict[int, list[Any]] = collections.defaultdict(list)
    for query in _queries(wanted):
        for uid, *values in session.execute(query):
            found[uid].append(values)
    return {uid: hashlib.sha256(repr(found[uid]).encode()).hexdigest()[:20] for uid in wanted}


def _queries(uids: list[int]) -> list[sa.Select[Any]]:
    """What pages are made from, the user's uid first; rows in an order that does not change by itself."""
    user, application, service, machine = models.User, models.Application, models.Service, models.Resource
    volume, operation, ledger = models.Volume, models.Operation, models.LedgerEntry
    owner = application.user_id
    mine = owner.in_(uids)
    last = sa.select(ledger.id).where(ledger.uid == user.uid).order_by(ledger.id.desc()).limit(1).scalar_subquery()
    of_application = sa.select(owner).where(mine).order_by(application.aid)
    history = of_application.join(operation, operation.target == application.aid).group_by(owner, application.aid)
    return [
        sa.select(user.uid, user.active, user.role, last).where(user.uid.in_(uids)),
        of_application.add_columns(
            *(application.aid, application.name, application.status, application.reason),
            *(application.cloud, application.manager_ip, application.manager_port),
        ),
        of_application.add_columns(application.aid, service.sid, service.name, service.type)
        .join(service, service.application_id == application.aid)
        .order_by(service.rec_id),
        of_application.add_columns(application.aid, machine.rid, machine.state, machine.vmid, machine.ip)
        .join(machine, machine.app_id == application.aid)
        .where(machine.ended.is_(None))
        .order_by(machine.rid),
        of_application.add_columns(application.aid, volume.id, volume.state, volume.vmid)
        .join(volume, volume.app_id == application.aid)
        .order_by(volume.id),
        history.add_columns(application.aid, sa.func.count(), sa.func.max(operation.started), sa.func.max(operation.finished)),
    ]
