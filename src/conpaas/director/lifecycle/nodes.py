"""Nodes that managers ask for and give back, as operations known by the manager's request key.

create_nodes   record → create → wait → volumes → publish   all or nothing: a failure destroys every machine of this request
remove_nodes   give_up → destroy                            what the cloud can't destroy now stays recorded, and the sweeper tries on
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import orm

from conpaas.core import errors, node, operations
from conpaas.core.clouds import base
from conpaas.core.operations import OperationKind, State, Step
from conpaas.director import inventory, models, opstore, quotas
from conpaas.director.lifecycle import applications, boot, removal
from conpaas.director.lifecycle import parts as lifecycle_parts
from conpaas.director.lifecycle import wanted as lifecycle_wanted

_log = logging.getLogger(__name__)

CREATE: Final = OperationKind(
    "create_nodes",
    (
        Step("record", "record_nodes", "destroy_nodes"),
        Step("create", "create_nodes"),
        Step("wait", "wait_for_nodes"),
        Step("volumes", "attach_volumes"),
        Step("publish", "publish_nodes"),
    ),
    allowed=(State.RUNNING, State.ADAPTING),
    help="Create machines for a service.",
)
REMOVE: Final = OperationKind(
    "remove_nodes",
    (Step("give_up", "give_up_nodes", irreversible=True), Step("destroy", "destroy_given_up", irreversible=True)),
    help="Destroy machines of a service.",
)
POLICIES: Final = {
    CREATE.name: opstore.Policy(opstore.Mode.SHARED, secrets=("context", "startup_script")),
    REMOVE.name: opstore.Policy(opstore.Mode.SHARED),
}


def operation_id(aid: int, key: str) -> str:
    """The id of the operation that a manager's request is: the same key of the same application is the same operation."""
    return hashlib.sha256(f"{aid}:{key}".encode()).hexdigest()[:32]


class Nodes:
    """The steps of operations on nodes. Every step may run again after a crash."""

    def __init__(self, parts: lifecycle_parts.Parts) -> None:
        self._parts = parts

    # Creating

    def record_nodes(self, op: operations.Operation) -> None:
        wanted = self._wanted(op)
        for name in {item.cloud for item in wanted}:
            self._parts.cloud(name)
        key = applications.request_key(op)
        rows = [
            models.Resource(
                cloud=item.cloud,
                app_id=op.target,
                service_id=op.args["service_id"],
                role=inventory.AGENT,
                node_role=item.role,
                request_key=key,
                request_index=item.index,
            )
            for item in wanted
        ]
        with self._parts.database.session() as session:
            application = inventory.lock_application(session, op.target)
            applications.refuse_if_interrupted(session, op)
            if not inventory.of_request(session, key):
                applications.require_credits(self._parts, session, application.user_id, len(rows))
                room = sum(volume.vol_size for item in wanted for volume in item.volumes)
                quotas.require(session, application.user_id, vms=len(rows), volumes_mb=room)
            inventory.expect(session, rows)

    def create_nodes(self, op: operations.Operation) -> None:
        uid = applications.owner_of(self._parts, op.target)
        wanted = {item.index: item for item in self._wanted(op)}

        def specify(machine: inventory.Machine) -> base.NodeSpec:
            return self._specification(op, machine, wanted[machine.request_index], uid)

        boot.create(self._parts, applications.request_key(op), specify, lambda: self._check(op))

    def _specification(
        self, op: operations.Operation, machine: inventory.Machine, wanted: lifecycle_wanted.WantedNode, uid: int
    ) -> base.NodeSpec:
        parts, args = self._parts, op.args
        name = f"{parts.settings.deployment}-u{uid}-a{op.target}-s{args['service_id']}-{args['service_type']}"
        token = parts.tokens(role=inventory.AGENT, uid=uid, aid=op.target, vm=f"{name}-{machine.request_index}")
        user_data = parts.composer.agent(
            driver=parts.cloud(machine.cloud).driver,
            user_id=uid,
            app_id=op.target,
            service_id=args["service_id"],
            agent_type=args["service_type"],
            manager_ip=args["manager_ip"],
            token=token,
            values=args["context"],
            startup_script=args["startup_script"],
        )
        return base.NodeSpec(
            index=machine.request_index,
            name=name,
            role=wanted.role,
            inst_type=wanted.inst_type,
            user_data=user_data,
            tags=lifecycle_parts.machine_tags(parts.settings, machine, uid),
        )

    def wait_for_nodes(self, op: operations.Operation) -> None:
        uid = applications.owner_of(self._parts, op.target)
        boot.wait(self._parts, applications.request_key(op), uid, lambda: self._check(op))

    def attach_volumes(self, op: operations.Operation) -> None:
        wanted = {item.index: item for item in self._wanted(op)}
        if not any(item.volumes for item in wanted.values()):
            return
        self._check(op)
        uid = applications.owner_of(self._parts, op.target)
        key = applications.request_key(op)
        boot.attach_volumes(self._parts, key, uid, lambda machine: _volumes_of(machine, wanted[machine.request_index]))

    def publish_nodes(self, op: operations.Operation) -> None:
        with self._parts.database.session() as session:
            inventory.lock_application(session, op.target)
            applications.refuse_if_interrupted(session, op)
            machines = inventory.of_request(session, applications.request_key(op))
            rids = [machine.rid for machine in machines]
            self._parts.accounts.start(session, rids)
            inventory.set_state(session, rids, "running")
            op.data["result"] = node_dicts(session, machines)

    def destroy_nodes(self, op: operations.Operation) -> None:
        """Undo: whatever this request made goes away, known to the database or not."""
        key = applications.request_key(op)
        with self._parts.database.reader() as session:
            machines = inventory.of_request(session, key)
        removal.give_up(self._parts, machines)
        problems = removal.destroy(self._parts, machines)
        with self._parts.database.reader() as session:
            disks = inventory.volumes(session, request_key=key)
        problems += removal.destroy_volumes(self._parts, disks)
        if problems:
            raise errors.OperationFailed(" ".join(problems))

    def _wanted(self, op: operations.Operation) -> list[lifecycle_wanted.WantedNode]:
        return [lifecycle_wanted.WantedNode.from_dict(raw) for raw in op.args["nodes"]]

    def _check(self, op: operations.Operation) -> None:
        with self._parts.database.reader() as session:
            applications.refuse_if_interrupted(session, op)

    # Removing

    def give_up_nodes(self, op: operations.Operation) -> None:
        given = self._given(op)
        if op.args.get("disks"):
            with self._parts.database.session() as session:
                inventory.keep_no_more(session, [(machine.cloud, machine.vmid) for machine in given if machine.vmid])
        removal.give_up(self._parts, given)

    def destroy_given_up(self, op: operations.Operation) -> None:
        for problem in removal.destroy(self._parts, self._given(op)):
            _log.error("application %s: %s It is tried again.", op.target, problem)
            op.note(f"{problem} It is tried again.")

    def _given(self, op: operations.Operation) -> list[inventory.Machine]:
        with self._parts.database.reader() as session:
            found = [inventory.find(session, cloud, vmid) for cloud, vmid in op.args["vms"]]
        return [machine for machine in found if machine is not None and machine.app_id == op.target]


def _volumes_of(machine: inventory.Machine, wanted: lifecycle_wanted.WantedNode) -> list[tuple[str, int, str]]:
    spare = (f"sd{chr(letter)}" for letter in range(ord("b"), ord("z") + 1))
    taken = {volume.dev_name for volume in wanted.volumes}
    free = (device for device in spare if device not in taken)
    return [(volume.name_for(machine.vmid or ""), volume.vol_size, volume.dev_name or next(free)) for volume in wanted.volumes]


def node_dicts(session: orm.Session, machines: Sequence[inventory.Machine]) -> list[dict[str, Any]]:
    """Machines as node dicts, with the volumes that were made for them."""
    disks = inventory.volumes(session, vms=[(machine.cloud, machine.vmid) for machine in machines if machine.vmid])
    result = []
    for machine in machines:
        own = [disk for disk in disks if (disk.cloud, disk.vmid) == (machine.cloud, machine.vmid)]
        service_node = node.ServiceNode(
            vmid=machine.vmid or "", ip=machine.ip, private_ip=machine.private_ip, cloud_name=machine.cloud, role=machine.node_role
        )
        result.append({**service_node.to_dict(), "volumes": [disk.to_dict() for disk in own]})
    return result


def own_machines(session: orm.Session, aid: int, vms: Sequence[tuple[str, str]]) -> None:
    """Raise Forbidden or NotFound, naming it, for the first VM that is not and never was a node of this application."""
    for cloud, vmid in vms:
        machine = inventory.find(session, cloud, vmid)
        if machine is not None and machine.app_id == aid and machine.role == inventory.AGENT:
            continue
        if machine is not None and machine.app_id == aid:
            raise errors.Forbidden(f"{cloud}{vmid} is the application's manager; stop the application instead.")
        if machine is None and (cloud, vmid) in _former(session, aid):
            continue
        raise errors.NotFound(f"{cloud}{vmid} is not a node of application {aid}; nothing was removed.")


def _former(session: orm.Session, aid: int) -> set[tuple[str, str]]:
    """VMs that this application's requests ever got."""
    row = models.Operation
    query = sa.select(row.data).where(row.target == aid, row.kind == CREATE.name, row.status == str(operations.OperationStatus.DONE))
    return {(item["cloud_name"], item["vmid"]) for data in session.scalars(query) for item in data.get("result", ())}
