"""Volumes of the application: made, attached to a node, taken into use by its agent; and the way back."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from conpaas.core import callbacker, devices, errors, lifecycle, node, operations
from conpaas.core.operations import OperationKind, State, Step
from conpaas.core.state import records

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_SIZE = 64 * 1024 * 1024
"""Largest volume, in MB."""

CREATE = OperationKind(
    "create_volume",
    (
        Step("reserve", "reserve", "unreserve"),
        Step("create", "create", "destroy_created"),
        Step("attach", "attach", "detach_created"),
        Step("mount", "mount", "unmount_created"),
        Step("record", "record"),
    ),
    allowed=(State.RUNNING,),
    transient=State.ADAPTING,
    final=State.RUNNING,
    help="Creating a volume",
)
DELETE = OperationKind(
    "delete_volume",
    (
        Step("unmount", "unmount"),
        Step("detach", "detach"),
        Step("destroy", "destroy"),
        Step("forget", "forget"),
    ),
    allowed=(State.RUNNING,),
    transient=State.ADAPTING,
    final=State.RUNNING,
    help="Deleting a volume",
)

KINDS: tuple[OperationKind, ...] = (CREATE, DELETE)


@dataclasses.dataclass
class VolumeSteps:
    """The steps; each may be called again after a crash. A deletion that fails can be asked for again."""

    host: lifecycle.Host
    first_device: str = devices.FIRST

    def reserve(self, op: operations.Operation) -> None:
        """Take the name and a device, so that nobody else does."""
        name, target = op.args["name"], self._node(op)
        if self._reserved(op):
            return
        on_node = [record.dev_name for record in self.host.store.volumes.all() if record.node_id == target.id]
        device = devices.free(self.first_device, [*on_node, *(volume.dev_name for volume in target.volumes)])
        self.host.store.volumes.add(
            records.VolumeRecord(
                name=name,
                service_id=op.target,
                node_id=target.id,
                vol_id=None,
                size=op.args["size"],
                dev_name=device,
                cloud=target.cloud_name,
                status=records.VolumeStatus.CREATING,
                operation=op.id,
            )
        )

    def unreserve(self, op: operations.Operation) -> None:
        if self._reserved(op):
            self.host.store.volumes.remove(op.args["name"])

    def _reserved(self, op: operations.Operation) -> bool:
        record = self.host.store.volumes.find(op.args["name"])
        return record is not None and record.operation == op.id

    def create(self, op: operations.Operation) -> None:
        op.data["asked"] = True
        op.save()
        op.note(f"Creating a volume of {op.args['size']} MB")
        try:
            op.data["vol_id"] = self._create(op)
        except errors.ConPaaSError as error:
            op.data["refused"] = callbacker.was_refused(error)
            raise
        self.host.store.volumes.update(op.args["name"], vol_id=op.data["vol_id"])

    def _create(self, op: operations.Operation) -> str:
        target = self._node(op)
        name = f"vol-{op.args['name']}"
        return self.host.callbacker.create_volume(f"{op.id}-volume", op.args["size"], name, target.vmid, target.cloud_name, op.target)

    def destroy_created(self, op: operations.Operation) -> None:
        """Undo; if the answer never arrived, the same request is sent again to learn the volume's id."""
        if not op.data.get("asked") or op.data.get("refused"):
            return
        if "vol_id" not in op.data:
            try:
                op.data["vol_id"] = self._create(op)
            except errors.ConPaaSError as error:
                if not callbacker.was_refused(error):
                    raise
                return
        self.host.callbacker.destroy_volume(op.data["vol_id"], self._node(op).cloud_name)

    def attach(self, op: operations.Operation) -> None:
        target, device = self._node(op), self._volume(op).dev_name or self.first_device
        op.note(f"Attaching it to {target.id} as {device}")
        self.host.callbacker.attach_volume(op.data["vol_id"], target.vmid, device, target.cloud_name)

    def detach_created(self, op: operations.Operation) -> None:
        self.host.callbacker.detach_volume(op.data["vol_id"], self._node(op).cloud_name)

    def mount(self, op: operations.Operation) -> Any:
        return self.host.manager_of(op).on_create_volume(self._node(op), self._volume(op))

    def unmount_created(self, op: operations.Operation) -> None:
        self.host.manager_of(op).on_undo_create_volume(self._node(op), self._volume(op))

    def record(self, op: operations.Operation) -> None:
        self.host.store.volumes.update(op.args["name"], status=records.VolumeStatus.ATTACHED)

    def unmount(self, op: operations.Operation) -> Any:
        """Take the volume out of use. If that fails it stays attached: pulling a disk in use would damage what is on it."""
        if self.host.store.volumes.find(op.args["name"]) is None:
            return None
        return self.host.manager_of(op).on_delete_volume(self._node(op), self._volume(op))

    def detach(self, op: operations.Operation) -> None:
        self.host.store.volumes.update(op.args["name"], status=records.VolumeStatus.DELETING)
        volume = self._volume(op)
        if volume.vol_id is not None:
            self.host.callbacker.detach_volume(volume.vol_id, volume.cloud or "")

    def destroy(self, op: operations.Operation) -> None:
        volume = self._volume(op)
        if volume.vol_id is not None:
            self.host.callbacker.destroy_volume(volume.vol_id, volume.cloud or "")

    def forget(self, op: operations.Operation) -> None:
        self.host.store.volumes.remove(op.args["name"])

    def _node(self, op: operations.Operation) -> node.ServiceNode:
        return node.ServiceNode.from_dict(op.args["node"])

    def _volume(self, op: operations.Operation) -> node.ServiceVolume:
        record = self.host.store.volumes.find(op.args["name"])
        if record is None:
            raise errors.NotFound(f"There is no volume '{op.args['name']}' in this application.")
        return record.as_volume()
