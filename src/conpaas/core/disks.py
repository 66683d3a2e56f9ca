"""Kept disks: a node of a role may have a disk whose data outlive its VM (`BaseManager.get_role_disk`).

A disk is on record before the Director is asked for it, and stays there until it is destroyed. When its node is given up it becomes spare:
it waits for the next node of its role on its cloud. It is destroyed when its node is removed on purpose, for then the data are with the
other nodes, or with the service.

    disks      every new node of such a role gets a disk: that of the lost node it replaces, or a spare one, or a new one
    (undo)     the VMs go first, because they may have their disks in use; then new disks are destroyed, spare ones are spare again
"""

from __future__ import annotations

import abc
import dataclasses
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from conpaas.core import callbacker, devices, errors, node, operations
from conpaas.core.state import disks, records

if TYPE_CHECKING:
    from conpaas.core import lifecycle

_log = logging.getLogger(__name__)

AT_ONCE = 8
"""Disks that are made and attached at the same time."""


@dataclasses.dataclass
class DiskSteps(abc.ABC):
    """The steps about disks. Each may be called again after a crash; what they learn is in the store."""

    host: lifecycle.Host
    first_device: str = devices.FIRST

    @abc.abstractmethod
    def give_back_nodes(self, op: operations.Operation) -> None:
        """Give back the nodes that the operation got. Idempotent."""

    # New nodes

    def attach_disks(self, op: operations.Operation) -> None:
        """Attach a disk to every new node (`op.data["nodes"]`) whose role has one; the nodes know it among their volumes afterwards.

        With `op.data["replaced"]`, ids of lost nodes in the order of the new ones, each gets the disk of the one it replaces.
        """
        nodes = [node.ServiceNode.from_dict(values) for values in op.data["nodes"]]
        self._reserve_disks(op, nodes)
        by_node = {record.node_id: record for record in self.host.store.disks.on(op.target, (one.id for one in nodes))}
        served = [one for one in self._as_recorded(op, nodes) if one.id in by_node]
        agents = self.host.manager_of(op).agents
        for start in range(0, len(served), AT_ONCE):
            agents.all(served[start : start + AT_ONCE], lambda one: self._attach_disk(op, one, by_node[one.id]))
        op.data["nodes"] = [one.to_dict() for one in self._as_recorded(op, nodes)]

    def _as_recorded(self, op: operations.Operation, nodes: Iterable[node.ServiceNode]) -> list[node.ServiceNode]:
        known = {one.id: one for one in self.host.store.nodes.with_status(op.target)}
        return [known.get(one.id, one) for one in nodes]

    def _reserve_disks(self, op: operations.Operation, nodes: list[node.ServiceNode]) -> None:
        """Decide, all at once and for good, which node gets which disk."""
        service, store = self.host.manager_of(op), self.host.store
        wanted = [(one, size) for one in nodes if (size := service.get_role_disk(one.role)) is not None]
        former = dict(zip((one.id for one in nodes), op.data.get("replaced", ()), strict=False))
        awaited = {one.id for one in store.nodes.missing().get(op.target, ())}
        with store.db.transaction():
            served = {record.node_id for record in store.disks.all(op.target)}
            spare = store.disks.spare(op.target)
            for one, size in wanted:
                if one.id in served:
                    continue
                device = devices.free(self.first_device, (volume.dev_name for volume in one.volumes))
                record = _choose(spare, one, former.get(one.id), awaited)
                if record is None:
                    store.disks.reserve(op.target, op.id, one, size, device)
                else:
                    spare.remove(record)
                    store.disks.take(record.number, one, device)

    def _attach_disk(self, op: operations.Operation, one: node.ServiceNode, record: disks.DiskRecord) -> None:
        if record.as_volume() in one.volumes:
            return
        if record.vol_id is None:
            op.note(f"Creating {record.name} of {record.size} MB for {one.id}")
            record = dataclasses.replace(record, vol_id=self._create_disk(record))
        else:
            op.note(f"Taking {record.name}" + (f", which {record.former} had, for {one.id}" if record.former else f" for {one.id}"))
            if record.operation != op.id:
                self._detach_disk(record, record.former)
        volume = record.as_volume()
        self.host.callbacker.attach_volume(str(volume.vol_id), one.vmid, str(volume.dev_name), record.cloud)
        others = [other for other in one.volumes if other.vol_id != volume.vol_id]
        self.host.store.nodes.set_volumes(op.target, one.id, [*others, volume])

    def _create_disk(self, record: disks.DiskRecord) -> str:
        """Ask the Director for a disk; the same record always gives the same one."""
        self.host.store.disks.set_asked(record.number)
        vol_id = self.host.callbacker.create_volume(
            record.key, record.size, record.name, record.vmid, record.cloud, record.service_id, keep=True
        )
        self.host.store.disks.set_vol_id(record.number, vol_id)
        return vol_id

    def _detach_disk(self, record: disks.DiskRecord, holder: str | None) -> None:
        """Make sure that nobody has a disk any more; the Director refuses until the VM that had it is gone."""
        try:
            self.host.callbacker.detach_volume(str(record.vol_id), record.cloud)
        except errors.ConPaaSError as error:
            raise errors.OperationFailed(f"{record.name} cannot be taken from {holder}: {error}") from error

    def give_back_disks(self, op: operations.Operation) -> None:
        """Undo `attach_disks`."""
        ids = [node.ServiceNode.from_dict(values).id for values in op.data.get("nodes", ())]
        taken = self.host.store.disks.on(op.target, ids)
        if not taken:
            return
        self.host.store.nodes.set_status(op.target, ids, records.NodeStatus.LEAVING)
        self.give_back_nodes(op)
        for record in taken:
            if record.operation == op.id:
                self._destroy_disk(record)
            else:
                self.host.store.disks.put_back(record.number)

    # Nodes that are gone

    def keep_disks(self, op: operations.Operation, nodes: Iterable[node.ServiceNode]) -> None:
        """The disks of nodes whose VMs were given back become spare, once the Director has confirmed that the VMs are gone."""
        given = list(nodes)
        for record in self.host.store.disks.on(op.target, (one.id for one in given)):
            if record.vol_id is not None:
                self._detach_disk(record, record.node_id)
        self.leave_disks(op, given)

    def leave_disks(self, op: operations.Operation, nodes: Iterable[node.ServiceNode]) -> None:
        """The disks of nodes whose VMs were given back become spare; whether the VMs are gone is asked before they are used again."""
        for record in self.host.store.disks.on(op.target, (one.id for one in nodes)):
            self._settle_disk(record, op.started)

    def keep_all_disks(self, op: operations.Operation) -> None:
        """All disks of the service become spare; the next start prefers those of nodes that were in service to the end."""
        members = {one.id for one in self.host.store.nodes.members(op.target)}
        for record in self.host.store.disks.all(op.target):
            if record.node_id is not None:
                self._settle_disk(record, op.started if record.node_id in members else op.started - 1.0)

    def put_disks_in_order(self, op: operations.Operation) -> None:
        """Disks of nodes that are no longer on record become spare; the others are attached, should that have been left undone."""
        known = {one.id: one for one in self.host.store.nodes.with_status(op.target)}
        for record in self.host.store.disks.all(op.target):
            if record.node_id in known:
                self._attach_disk(op, known[record.node_id], record)
            elif record.node_id is not None:
                self._settle_disk(record, op.started)

    def _settle_disk(self, record: disks.DiskRecord, at: float) -> None:
        """A disk becomes spare; one that was half made goes away."""
        if record.vol_id is None:
            self._destroy_disk(record)
        else:
            self.host.store.disks.give_up(record.number, at)

    def forget_disks(self, op: operations.Operation, nodes: Iterable[node.ServiceNode]) -> None:
        """Forget the disks that the Director has destroyed, or will destroy, with their nodes' VMs (`remove_nodes` with `disks`)."""
        given = list(nodes)
        gone = {volume.vol_id for one in given for volume in one.volumes}
        for record in self.host.store.disks.on(op.target, (one.id for one in given)):
            if record.vol_id in gone:
                self.host.store.disks.remove(record.number)

    def destroy_disks(self, op: operations.Operation) -> None:
        """Destroy all disks of the service."""
        for record in self.host.store.disks.all(op.target):
            op.note(f"Destroying {record.name}")
            self._destroy_disk(record)

    def _destroy_disk(self, record: disks.DiskRecord) -> None:
        """Destroy a disk; if the answer to its request never arrived, the same request is sent again to learn its id."""
        vol_id = record.vol_id
        if vol_id is None and record.asked:
            try:
                vol_id = self._create_disk(record)
            except errors.ConPaaSError as error:
                if not callbacker.was_refused(error):
                    raise
                _log.info("the request %s got no disk: %s", record.key, error)
        if vol_id is not None:
            self.host.callbacker.detach_volume(vol_id, record.cloud)
            self.host.callbacker.destroy_volume(vol_id, record.cloud)
        self.host.store.disks.remove(record.number)


def _choose(spare: list[disks.DiskRecord], one: node.ServiceNode, replaced: str | None, awaited: set[str]) -> disks.DiskRecord | None:
    """The spare disk for a new node: that of the node it replaces, else one that is not waiting for the replacement of another node."""
    here = [record for record in spare if (record.role, record.cloud) == (one.role, one.cloud_name)]
    own = [record for record in here if replaced is not None and record.former == replaced]
    return next(iter(own or [record for record in here if record.former not in awaited]), None)
