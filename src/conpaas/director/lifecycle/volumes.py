"""Volumes that managers ask for, attach, detach and give back; each call is an operation, creation is known by a request key.

create_volume    record → create     a failure leaves no volume
attach_volume    attach
detach_volume    detach
destroy_volume   destroy
"""

from __future__ import annotations

import contextlib
from typing import Final

import sqlalchemy as sa
from sqlalchemy import orm

from conpaas.core import errors, operations
from conpaas.core.clouds import base
from conpaas.core.operations import OperationKind, State, Step
from conpaas.director import inventory, models, opstore, quotas
from conpaas.director.lifecycle import applications, removal
from conpaas.director.lifecycle import parts as lifecycle_parts

CREATE: Final = OperationKind(
    "create_volume",
    (Step("record", "record_volume", "discard_volume"), Step("create", "create_volume")),
    allowed=(State.RUNNING, State.ADAPTING),
    help="Create a volume.",
)
ATTACH: Final = OperationKind("attach_volume", (Step("attach", "attach_volume", "unattach_volume"),), help="Attach a volume to a machine.")
DETACH: Final = OperationKind("detach_volume", (Step("detach", "detach_volume"),), help="Detach a volume from its machine.")
DESTROY: Final = OperationKind("destroy_volume", (Step("destroy", "destroy_volume", irreversible=True),), help="Destroy a volume.")
KINDS: Final = (CREATE, ATTACH, DETACH, DESTROY)
POLICIES: Final = {kind.name: opstore.Policy(opstore.Mode.SHARED) for kind in KINDS}


class Volumes:
    """The steps of operations on volumes. Every step may run again after a crash."""

    def __init__(self, parts: lifecycle_parts.Parts) -> None:
        self._parts = parts

    def record_volume(self, op: operations.Operation) -> None:
        args = op.args
        self._parts.cloud(args["cloud"])
        row = models.Volume(
            cloud=args["cloud"],
            name=args["name"],
            size=args["size"],
            app_id=op.target,
            service_id=args["service_id"],
            request_key=applications.request_key(op),
            keep=args.get("keep", False),
        )
        with self._parts.database.session() as session:
            application = inventory.lock_application(session, op.target)
            applications.refuse_if_interrupted(session, op)
            if not inventory.volumes(session, request_key=row.request_key):
                quotas.require(session, application.user_id, volumes_mb=row.size)
            inventory.expect_volume(session, row)

    def create_volume(self, op: operations.Operation) -> None:
        key = applications.request_key(op)
        tags = {
            lifecycle_parts.TAG_DEPLOYMENT: self._parts.settings.deployment,
            lifecycle_parts.TAG_USER: str(applications.owner_of(self._parts, op.target)),
            lifecycle_parts.TAG_APPLICATION: str(op.target),
            lifecycle_parts.TAG_SERVICE: str(op.args["service_id"]),
            lifecycle_parts.TAG_REQUEST: key,
        }
        request = base.VolumeRequest(key=key, name=op.args["name"], size=op.args["size"], vmid=op.args["vmid"], tags=tags)
        volume = self._parts.cloud(op.args["cloud"]).create_volume(request)
        with self._parts.database.session() as session:
            (disk,) = inventory.volumes(session, request_key=key)
            inventory.update_volume(session, disk.id, vol_id=volume.vol_id, state="available")
        op.data["result"] = {"volume_id": volume.vol_id}

    def discard_volume(self, op: operations.Operation) -> None:
        """Undo: the volume goes away, even if its id was never recorded."""
        with self._parts.database.reader() as session:
            disks = inventory.volumes(session, request_key=applications.request_key(op))
        problems = removal.destroy_volumes(self._parts, disks)
        if problems:
            raise errors.OperationFailed(" ".join(problems))

    def attach_volume(self, op: operations.Operation) -> None:
        args = op.args
        attached = self._parts.cloud(args["cloud"]).attach_volume(args["vol_id"], args["vmid"], args["device"])
        device = attached.device or args["device"]
        with self._parts.database.session() as session:
            disk = own_volume(session, op.target, args["cloud"], args["vol_id"])
            inventory.update_volume(session, disk.id, vmid=args["vmid"], device=device, state="attached")
        op.data["result"] = {}

    def unattach_volume(self, op: operations.Operation) -> None:
        """Undo: detach it, unless it is attached to something else (which is why attaching failed)."""
        args = op.args
        cloud = self._parts.cloud(args["cloud"])
        ours = {lifecycle_parts.TAG_DEPLOYMENT: self._parts.settings.deployment}
        if any(volume.vol_id == args["vol_id"] and volume.vmid == args["vmid"] for volume in cloud.list_volumes(ours)):
            self.detach_volume(op)

    def detach_volume(self, op: operations.Operation) -> None:
        args = op.args
        self._end_machine(op)
        with contextlib.suppress(errors.NotFound):  # destroyed behind our back: attached to nothing
            self._parts.cloud(args["cloud"]).detach_volume(args["vol_id"])
        with self._parts.database.session() as session:
            disk = own_volume(session, op.target, args["cloud"], args["vol_id"])
            inventory.update_volume(session, disk.id, vmid=None, device=None, state="available")
        op.data["result"] = {}

    def _end_machine(self, op: operations.Operation) -> None:
        """A kept volume is not taken from a machine that was given up until that is gone: cut off, it may still write."""
        with self._parts.database.reader() as session:
            disk = inventory.find_volume(session, op.args["cloud"], op.args["vol_id"])
            machine = inventory.find(session, disk.cloud, disk.vmid) if disk is not None and disk.keep and disk.vmid else None
        if machine is None or machine.state != "deleting":
            return
        removal.destroy(self._parts, [machine])
        with self._parts.database.reader() as session:
            left = inventory.find(session, machine.cloud, machine.vmid or "")
        if left is not None:
            raise errors.OperationFailed(f"The cloud {machine.cloud} still has {machine.label}, to which the volume is attached.")

    def destroy_volume(self, op: operations.Operation) -> None:
        with self._parts.database.reader() as session:
            disk = inventory.find_volume(session, op.args["cloud"], op.args["vol_id"])
        problems = removal.destroy_volumes(self._parts, [disk] if disk else [])
        if problems:
            raise errors.OperationFailed(" ".join(problems))
        op.data["result"] = {}


def own_volume(session: orm.Session, aid: int, cloud: str, vol_id: str) -> inventory.Disk:
    """The volume, if it belongs to this application, else NotFound."""
    disk = inventory.find_volume(session, cloud, vol_id)
    if disk is None or disk.app_id != aid:
        raise errors.NotFound(f"Volume {vol_id} does not belong to application {aid}.")
    return disk


def own_machine(session: orm.Session, aid: int, cloud: str, vmid: str) -> inventory.Machine:
    """The machine, if it is a running node of this application, else NotFound."""
    machine = inventory.find(session, cloud, vmid)
    if machine is None or machine.app_id != aid or machine.state != "running":
        raise errors.NotFound(f"VM {vmid} does not belong to application {aid}.")
    return machine


def was_there(session: orm.Session, aid: int, cloud: str, vol_id: str) -> bool:
    """Whether this application once had the volume: asking again to destroy what is gone is no mistake."""
    row = models.Operation
    query = sa.select(row.args, row.data).where(
        row.target == aid, row.kind == CREATE.name, row.status == str(operations.OperationStatus.DONE)
    )
    return any(args["cloud"] == cloud and data.get("result") == {"volume_id": vol_id} for args, data in session.execute(query))
