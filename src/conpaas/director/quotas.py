"""How much each user may have at the same time: VMs, applications, MB of volumes. A quota that is None is none.

`require` is called in the transaction that records what was asked for, and holds the user locked until that ends, so that requests
side by side cannot both take what is left.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from conpaas.core import errors
from conpaas.director import inventory, models

COUNTED_STATES = ("creating", "running")
MOST = 10**9


@dataclasses.dataclass(frozen=True)
class Amounts:
    """VMs, applications, and MB of volumes; in a limit, None is no limit."""

    vms: int | None = 0
    applications: int | None = 0
    volumes_mb: int | None = 0


_WORDS = {"vms": "VMs", "applications": "applications", "volumes_mb": "MB of volumes"}


def limits(user: models.User) -> Amounts:
    """What a user may have."""
    return Amounts(user.quota_vms, user.quota_applications, user.quota_volumes_mb)


def used(session: orm.Session, uid: int) -> Amounts:
    """What a user has, with what is being made."""
    application, vm, volume = models.Application, models.Resource, models.Volume
    mine = sa.select(application.aid).where(application.user_id == uid).scalar_subquery()
    vms = session.scalar(sa.select(sa.func.count()).select_from(vm).where(vm.app_id.in_(mine), vm.state.in_(COUNTED_STATES)))
    applications = session.scalar(sa.select(sa.func.count()).select_from(application).where(application.user_id == uid))
    stored = session.scalar(sa.select(sa.func.coalesce(sa.func.sum(volume.size), 0)).where(volume.app_id.in_(mine)))
    return Amounts(int(vms or 0), int(applications or 0), int(stored or 0))


def require(session: orm.Session, uid: int, **more: int) -> None:
    """Raise QuotaExceeded unless the user may have so many more `vms`, `applications` or `volumes_mb`; locks the user."""
    user = inventory.lock_user(session, uid)
    allowed = limits(user)
    wanted = {name: amount for name, amount in more.items() if amount > 0 and getattr(allowed, name) is not None}
    if not wanted:
        return
    present = used(session, uid)
    for name, amount in wanted.items():
        limit, have = getattr(allowed, name), getattr(present, name)
        if have + amount > limit:
            raise errors.QuotaExceeded(
                f"The quota of {limit} {_WORDS[name]} does not allow {amount} more: {have} {'is' if have == 1 else 'are'} in use.",
                hint="Give back what is not needed, or ask the operator for a larger quota.",
            )


def as_dict(session: orm.Session, uid: int) -> dict[str, dict[str, int | None]]:
    """What is used and allowed, by name."""
    allowed, present = limits(session.get_one(models.User, uid)), used(session, uid)
    return {name: {"used": getattr(present, name), "limit": getattr(allowed, name)} for name in _WORDS}


def set_limits(user: models.User, allowed: Amounts) -> None:
    """Give a user other quotas; what they have already, they keep."""
    user.quota_vms, user.quota_applications, user.quota_volumes_mb = dataclasses.astuple(allowed)


def all_used(session: orm.Session) -> dict[int, dict[str, Any]]:
    """What every user has, by uid, in three queries whatever their number."""
    application, vm, volume = models.Application, models.Resource, models.Volume
    owner = application.user_id
    queries = {
        "applications": sa.select(owner, sa.func.count()).group_by(owner),
        "vms": sa.select(owner, sa.func.count()).join(vm, vm.app_id == application.aid).where(vm.state.in_(COUNTED_STATES)).group_by(owner),
        "volumes_mb": sa.select(owner, sa.func.sum(volume.size)).join(volume, volume.app_id == application.aid).group_by(owner),
    }
    found: dict[int, dict[str, Any]] = {}
    for name, query in queries.items():
        for uid, amount in session.execute(query):
            found.setdefault(uid, dict.fromkeys(_WORDS, 0))[name] = int(amount)
    return found
