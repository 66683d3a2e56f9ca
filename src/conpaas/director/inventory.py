"""What the Director believes to exist in its clouds: one row per VM and per volume, written before the cloud is asked.

Functions take the session of the caller's transaction, so that a change of the inventory, of an application's status and of the
ledger can be one. They never talk to a cloud. What leaves a transaction leaves as a frozen record, not as a row.

A VM's row goes `creating` → `running` → `deleting` → gone; `lost` is a VM that the cloud no longer has. A row disappears only
when the cloud has confirmed that the machine did.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy import orm

from conpaas.core import errors
from conpaas.director import models

AGENT = "agent"
MANAGER = "manager"


@dataclasses.dataclass(frozen=True)
class Machine:
    """A VM as it is recorded; `vmid` is None as long as the cloud has not answered."""

    rid: int
    vmid: str | None
    cloud: str
    app_id: int
    service_id: int
    role: str
    node_role: str
    ip: str
    private_ip: str
    request_key: str
    request_index: int
    state: str
    created: datetime.datetime

    @property
    def label(self) -> str:
        """How the machine is called in messages."""
        return f"{self.cloud}{self.vmid}" if self.vmid else f"node {self.request_index} of request {self.request_key}"

    @classmethod
    def of(cls, row: models.Resource) -> Machine:
        """The record of a row."""
        return cls(
            rid=row.rid,
            vmid=row.vmid,
            cloud=row.cloud,
            app_id=row.app_id,
            service_id=row.service_id,
            role=row.role,
            node_role=row.node_role or "node",
            ip=row.ip or "",
            private_ip=row.private_ip or "",
            request_key=row.request_key or "",
            request_index=row.request_index or 0,
            state=row.state,
            created=row.created,
        )


@dataclasses.dataclass(frozen=True)
class Disk:
    """A volume as it is recorded; `size` in MB."""

    id: int
    vol_id: str | None
    cloud: str
    name: str
    size: int
    app_id: int
    service_id: int
    vmid: str | None
    device: str | None
    request_key: str
    state: str
    created: datetime.datetime
    keep: bool

    @classmethod
    def of(cls, row: models.Volume) -> Disk:
        """The record of a row."""
        return cls(
            id=row.id,
            vol_id=row.vol_id,
            cloud=row.cloud,
            name=row.name,
            size=row.size,
            app_id=row.app_id,
            service_id=row.service_id,
            vmid=row.vmid,
            device=row.device,
            request_key=row.request_key or "",
            state=row.state,
            created=row.created,
            keep=row.keep,
        )

    def to_dict(self) -> dict[str, object]:
        """The volume as it appears inside a node dict."""
        return {
            "vol_name": self.name,
            "vol_size": self.size,
            "vol_id": self.vol_id,
            "vm_id": self.vmid,
            "dev_name": self.device,
            "cloud": self.cloud,
        }


# Applications


def lock_application(session: orm.Session, aid: int) -> models.Application:
    """The application, locked against other writers until the transaction ends; NotFound if there is none."""
    session.execute(sa.update(models.Application).where(models.Application.aid == aid).values(status=models.Application.status))
    row = session.get(models.Application, aid, populate_existing=True)
    if row is None:
        raise errors.NotFound("Application not found")
    return row


def lock_user(session: orm.Session, uid: int) -> models.User:
    """The user, locked: whoever checks a balance and then reserves machines does both under this lock."""
    session.execute(sa.update(models.User).where(models.User.uid == uid).values(active=models.User.active))
    row = session.get(models.User, uid, populate_existing=True)
    if row is None:
        raise errors.NotFound(f"User {uid} not found.")
    return row


def reserved(session: orm.Session, uid: int) -> int:
    """How many machines of a user are being created: each will cost one credit the moment it is ready."""
    query = (
        sa.select(sa.func.count())
        .select_from(models.Resource)
        .join(models.Application, models.Application.aid == models.Resource.app_id)
        .where(models.Application.user_id == uid, models.Resource.state == "creating")
    )
    return session.scalar(query) or 0


# Machines


def expect(session: orm.Session, machines: Sequence[models.Resource]) -> list[Machine]:
    """Write down machines about to be created; those of the same request and index already written are left alone."""
    keys = {row.request_key for row in machines}
    there = session.scalars(sa.select(models.Resource).where(models.Resource.request_key.in_(keys)))
    known = {(row.request_key, row.request_index) for row in there}
    session.add_all([row for row in machines if (row.request_key, row.request_index) not in known])
    session.flush()
    return [machine for key in sorted(key for key in keys if key) for machine in of_request(session, key)]


def of_request(session: orm.Session, key: str) -> list[Machine]:
    """The machines of one request, in the request's order."""
    query = sa.select(models.Resource).where(models.Resource.request_key == key)
    return [Machine.of(row) for row in session.scalars(query.order_by(models.Resource.request_index, models.Resource.rid))]


def of_application(session: orm.Session, aid: int, *, states: Iterable[str] | None = None) -> list[Machine]:
    """The machines of an application, its manager included, oldest first."""
    query = sa.select(models.Resource).where(models.Resource.app_id == aid).order_by(models.Resource.rid)
    if states is not None:
        query = query.where(models.Resource.state.in_(list(states)))
    return [Machine.of(row) for row in session.scalars(query)]


def in_states(session: orm.Session, *states: str) -> list[Machine]:
    """Every machine of this Director in one of the states."""
    return [Machine.of(row) for row in session.scalars(sa.select(models.Resource).where(models.Resource.state.in_(states)))]


def find(session: orm.Session, cloud: str, vmid: str) -> Machine | None:
    """The machine that a cloud knows under this id."""
    row = session.scalar(sa.select(models.Resource).where(models.Resource.cloud == cloud, models.Resource.vmid == vmid))
    return Machine.of(row) if row else None


def identify(session: orm.Session, rid: int, *, vmid: str, ip: str, private_ip: str) -> None:
    """Record what the cloud told about a machine that was expected. Idempotent; addresses may come later than the id."""
    values: dict[str, str] = {"vmid": vmid}
    if ip:
        values["ip"] = ip
    if private_ip:
        values["private_ip"] = private_ip
    session.execute(sa.update(models.Resource).where(models.Resource.rid == rid).values(**values))


def set_state(session: orm.Session, rids: Iterable[int], state: str) -> None:
    """Move machines to a state, whatever theirs was."""
    session.execute(sa.update(models.Resource).where(models.Resource.rid.in_(list(rids))).values(state=state))


def forget(session: orm.Session, rids: Iterable[int]) -> None:
    """Drop machines that no longer exist."""
    session.execute(sa.delete(models.Resource).where(models.Resource.rid.in_(list(rids))))


# Volumes


def expect_volume(session: orm.Session, volume: models.Volume) -> Disk:
    """Write down a volume about to be created; the same request key, name and (if given) machine give the row already there."""
    query = sa.select(models.Volume).where(models.Volume.request_key == volume.request_key, models.Volume.name == volume.name)
    if volume.vmid is not None:
        query = query.where(models.Volume.vmid == volume.vmid)
    row = session.scalar(query)
    if row is None:
        row = volume
        session.add(row)
        session.flush()
    return Disk.of(row)


def find_volume(session: orm.Session, cloud: str, vol_id: str) -> Disk | None:
    """The volume that a cloud knows under this id."""
    row = session.scalar(sa.select(models.Volume).where(models.Volume.cloud == cloud, models.Volume.vol_id == vol_id))
    return Disk.of(row) if row else None


def volumes(
    session: orm.Session,
    *,
    aid: int | None = None,
    request_key: str | None = None,
    vms: Iterable[tuple[str, str]] | None = None,
    state: str | None = None,
) -> list[Disk]:
    """The volumes that fit all given conditions; `vms` are `(cloud, vmid)` pairs they are attached to."""
    query = sa.select(models.Volume).order_by(models.Volume.id)
    if aid is not None:
        query = query.where(models.Volume.app_id == aid)
    if request_key is not None:
        query = query.where(models.Volume.request_key == request_key)
    if state is not None:
        query = query.where(models.Volume.state == state)
    found = [Disk.of(row) for row in session.scalars(query)]
    if vms is None:
        return found
    wanted = set(vms)
    return [disk for disk in found if disk.vmid is not None and (disk.cloud, disk.vmid) in wanted]


def update_volume(session: orm.Session, volume_id: int, **values: str | None) -> None:
    """Set columns of one volume."""
    session.execute(sa.update(models.Volume).where(models.Volume.id == volume_id).values(**values))


def keep_no_more(session: orm.Session, vms: Iterable[tuple[str, str]]) -> None:
    """Let the volumes attached to these machines, `(cloud, vmid)` pairs, go with them, also those that were to outlive them."""
    kept = [disk.id for disk in volumes(session, vms=vms) if disk.keep]
    session.execute(sa.update(models.Volume).where(models.Volume.id.in_(kept)).values(keep=False))


def release_kept(session: orm.Session, cloud: str, vmids: Iterable[str]) -> None:
    """Note that machines are gone: the kept volumes attached to them are attached to nothing now."""
    row = models.Volume
    attached = sa.and_(row.cloud == cloud, row.vmid.in_(list(vmids)), row.keep.is_(True), row.state == "attached")
    session.execute(sa.update(row).where(attached).values(vmid=None, device=None, state="available"))


def forget_volumes(session: orm.Session, ids: Iterable[int]) -> None:
    """Drop volumes that no longer exist."""
    session.execute(sa.delete(models.Volume).where(models.Volume.id.in_(list(ids))))
