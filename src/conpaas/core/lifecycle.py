"""The kinds of operation every service has, and their steps: start, stop, add and remove nodes, replace a lost node, recover, remove."""

from __future__ import annotations

import dataclasses
import logging
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from conpaas.core import callbacker, disks, errors, file, manager, node, operations
from conpaas.core.operations import OperationKind, State, Step
from conpaas.core.state import records, store

_log = logging.getLogger(__name__)

START = OperationKind(
    "start_service",
    (
        Step("request", "request_starting_nodes", "give_back_nodes"),
        Step("record", "record_nodes", "forget_new_nodes"),
        Step("disks", "attach_disks", "give_back_disks"),
        Step("start", "start"),
    ),
    allowed=(State.INIT, State.STOPPED),
    transient=State.PROLOGUE,
    final=State.RUNNING,
    help="Starting",
)
STOP = OperationKind(
    "stop_service",
    (
        Step("shut_down", "shut_down"),
        Step("release", "release_all_nodes", irreversible=True),
        Step("disks", "keep_all_disks", irreversible=True),
        Step("forget", "forget_all_nodes", irreversible=True),
    ),
    allowed=(State.RUNNING, State.ERROR),
    transient=State.EPILOGUE,
    final=State.STOPPED,
    help="Stopping",
)
ADD = OperationKind(
    "add_nodes",
    (
        Step("request", "request_more_nodes", "give_back_nodes"),
        Step("record", "record_nodes", "forget_new_nodes"),
        Step("disks", "attach_disks", "give_back_disks"),
        Step("join", "join", "undo_join"),
    ),
    allowed=(State.RUNNING,),
    transient=State.ADAPTING,
    final=State.RUNNING,
    help="Adding nodes",
)
REMOVE = OperationKind(
    "remove_nodes",
    (
        Step("choose", "choose_victims"),
        Step("leave", "leave", "undo_leave"),
        Step("release", "release_victims", irreversible=True),
        Step("forget", "forget_victims", irreversible=True),
    ),
    allowed=(State.RUNNING,),
    transient=State.ADAPTING,
    final=State.RUNNING,
    help="Removing nodes",
)
REPLACE = OperationKind(
    "replace_node",
    (
        Step("take_out", "take_out_lost"),
        Step("release", "release_lost"),
        Step("request", "request_replacement", "give_back_nodes"),
        Step("record", "record_nodes", "forget_new_nodes"),
        Step("disks", "attach_disks", "give_back_disks"),
        Step("join", "join", "undo_join"),
        Step("forget", "forget_lost"),
    ),
    allowed=(State.RUNNING,),
    transient=State.ADAPTING,
    final=State.RUNNING,
    help="Replacing a lost node",
)
RECOVER = OperationKind(
    "recover_service",
    (
        Step("compare", "compare_with_director"),
        Step("release", "release_unusable"),
        Step("disks", "put_disks_in_order"),
        Step("volumes", "tidy_volumes"),
        Step("recover", "recover"),
    ),
    allowed=(State.ERROR,),
    transient=State.ADAPTING,
    help="Recovering",
)
DELETE = OperationKind(
    "remove_service",
    (
        Step("shut_down", "shut_down_for_good"),
        Step("release", "release_for_good", irreversible=True),
        Step("disks", "destroy_disks", irreversible=True),
        Step("forget", "forget_all_nodes", irreversible=True),
        Step("delete", "delete_service", irreversible=True),
    ),
    allowed=(State.INIT, State.STOPPED, State.RUNNING, State.ERROR),
    transient=State.EPILOGUE,
    help="Removing",
)
CREATE = OperationKind(
    "add_service",
    (
        Step("record", "record_service", "forget_service"),
        Step("build", "build_service", "drop_service"),
    ),
    allowed=(State.RUNNING,),
    transient=State.ADAPTING,
    final=State.RUNNING,
    help="Adding a service",
)

KINDS: tuple[OperationKind, ...] = (START, STOP, ADD, REMOVE, REPLACE, RECOVER, DELETE, CREATE)


class Host(Protocol):
    """What the steps need of the application manager."""

    store: store.Store
    callbacker: callbacker.Callbacker

    def find_manager(self, service_id: int) -> manager.BaseManager | None:
        """The manager of a service, or None when it is gone."""

    def manager_of(self, op: operations.Operation) -> manager.BaseManager:
        """The manager of the operation's service, whose notes go to that operation from now on. Raises `errors.NotFound`."""

    def build_manager(self, service_id: int) -> manager.BaseManager:
        """Make the manager of a recorded service and serve its calls. Idempotent."""

    def drop_manager(self, service_id: int) -> None:
        """Serve it no more. Idempotent."""

    def startup_script(self, service_id: int) -> str:
        """The user's script for new nodes, empty if there is none."""


@dataclasses.dataclass
class Lifecycle(disks.DiskSteps):
    """The steps. Each may be called again after a crash; what they learn is in `op.data` or in the store."""

    # Getting nodes

    def request_starting_nodes(self, op: operations.Operation) -> None:
        self.host.store.services.set_cloud(op.target, op.args["cloud"])
        self._request(op, self.host.manager_of(op).get_starting_nodes(), op.args["cloud"])

    def request_more_nodes(self, op: operations.Operation) -> None:
        self._request(op, op.args["nodes"], op.args["cloud"])

    def _request(self, op: operations.Operation, roles: Mapping[str, int], cloud: str) -> None:
        service = self.host.manager_of(op)
        self._request_nodes(op, lambda: [service.get_role_sninfo(role, cloud) for role, count in roles.items() for _ in range(count)])

    def _request_nodes(self, op: operations.Operation, describe: Callable[[], list[dict[str, Any]]]) -> None:
        """Ask the Director for nodes. What is asked for is written down first; the key follows from the operation."""
        if "nodes_info" not in op.data:
            op.data["nodes_info"] = describe()
            op.save()
        wanted = op.data["nodes_info"]
        op.note(f"Asking for {len(wanted)} node{'s' if len(wanted) != 1 else ''} ({_in_words(wanted)})")
        try:
            nodes = self._create_nodes(op)
        except errors.ConPaaSError as error:
            op.data["refused"] = callbacker.was_refused(error)
            raise
        op.data["nodes"] = [one.to_dict() for one in nodes]
        if len(nodes) != len(wanted):
            raise errors.OperationFailed(f"The Director gave {len(nodes)} of {len(wanted)} nodes asked for.")
        op.note(f"Got {', '.join(node.ids_of(nodes))}")

    def _create_nodes(self, op: operations.Operation) -> list[node.ServiceNode]:
        service = self.host.manager_of(op)
        return self.host.callbacker.create_nodes(
            f"{op.id}-create",
            op.data["nodes_info"],
            op.target,
            service.get_service_type(),
            service.get_context_replacement(),
            with_addresses(self.host.startup_script(op.target), service.given_addresses()),
        )

    def give_back_nodes(self, op: operations.Operation) -> None:
        """Undo a request. If its answer never arrived, the same request is sent again to learn which nodes it got."""
        if "nodes_info" not in op.data or op.data.get("refused"):
            return
        if "nodes" not in op.data:
            try:
                op.data["nodes"] = [one.to_dict() for one in self._create_nodes(op)]
            except errors.ConPaaSError as error:
                if not callbacker.was_refused(error):
                    raise
                _log.info("the request %s got no nodes: %s", op.id, error)
                return
        self._release(op, nodes_in(op, "nodes"), "undo")

    def record_nodes(self, op: operations.Operation) -> None:
        self.host.store.nodes.add(op.target, nodes_in(op, "nodes"))

    def forget_new_nodes(self, op: operations.Operation) -> None:
        self.host.store.nodes.remove(op.target, node.ids_of(nodes_in(op, "nodes")))

    # Start and growth

    def start(self, op: operations.Operation) -> Any:
        return self.host.manager_of(op).on_start(nodes_in(op, "nodes"))

    def join(self, op: operations.Operation) -> Any:
        nodes = nodes_in(op, "nodes")
        return self.host.manager_of(op).on_add_nodes(nodes) if nodes else None

    def undo_join(self, op: operations.Operation) -> None:
        nodes = nodes_in(op, "nodes")
        self.host.store.nodes.set_status(op.target, node.ids_of(nodes), records.NodeStatus.LEAVING)
        self.host.manager_of(op).on_undo_add_nodes(nodes)

    # Shrinking

    def choose_victims(self, op: operations.Operation) -> None:
        service = self.host.manager_of(op)
        roles = dict(op.args["nodes"])
        wanted = op.args.get("node_ids")
        service.victims = tuple(wanted) if wanted else None
        try:
            op.data["victims"] = node.ids_of(service.choose_nodes(roles))
        finally:
            service.victims = None
        if len(op.data["victims"]) != sum(roles.values()):
            raise errors.OperationFailed("The nodes of the service changed meanwhile; ask again.")

    def leave(self, op: operations.Operation) -> Any:
        return self._take_out(op, dict(op.args["nodes"]))

    def _take_out(self, op: operations.Operation, roles: dict[str, int]) -> Any:
        """Have the service part with the chosen nodes, which are so many of each role."""
        service = self.host.manager_of(op)
        service.victims = tuple(op.data["victims"])
        try:
            removed = service.on_remove_nodes(roles)
        finally:
            service.victims = None
        if not isinstance(removed, list):
            return False
        op.data["removed"] = [one.to_dict() for one in removed]
        op.note(f"Out of service: {', '.join(node.ids_of(removed)) or 'no node'}")
        return None

    def undo_leave(self, op: operations.Operation) -> None:
        victims = set(op.data.get("victims", ()))
        service = self.host.manager_of(op)
        service.on_undo_remove_nodes([one for one in service.nodes if one.id in victims])

    def release_victims(self, op: operations.Operation) -> None:
        """Give the nodes back with their disks, whose data are with the others."""
        self._release(op, nodes_in(op, "removed"), "remove", disks=True)
        self.forget_disks(op, nodes_in(op, "removed"))

    def forget_victims(self, op: operations.Operation) -> None:
        self.host.store.nodes.remove(op.target, node.ids_of(nodes_in(op, "removed")))
        if not self.host.store.nodes.members(op.target):
            op.final = State.STOPPED

    # Stop and removal

    def shut_down(self, op: operations.Operation) -> Any:
        forced = bool(op.args.get("force"))
        return self._shut_down(op, forced=forced)

    def shut_down_for_good(self, op: operations.Operation) -> None:
        self._shut_down(op, forced=True)

    def _shut_down(self, op: operations.Operation, *, forced: bool) -> Any:
        """Call the hook; when forced, its failure is only noted, for the nodes go away anyhow."""
        service = self.host.find_manager(op.target)
        if service is None or not service.nodes:
            return None
        try:
            return service.on_stop()
        except errors.ConPaaSError as error:
            if not forced:
                raise
            op.note(f"The service could not be shut down in order: {error}")
        return None

    def release_all_nodes(self, op: operations.Operation) -> None:
        self._release(op, self.host.store.nodes.with_status(op.target), "stop")

    def release_for_good(self, op: operations.Operation) -> None:
        nodes = self.host.store.nodes.with_status(op.target)
        self._release(op, nodes, "stop", disks=True)
        self.forget_disks(op, nodes)

    def forget_all_nodes(self, op: operations.Operation) -> None:
        self.host.store.nodes.remove_all(op.target)

    def delete_service(self, op: operations.Operation) -> None:
        service = self.host.find_manager(op.target)
        if service is not None:
            try:
                service.on_remove()
            except errors.ConPaaSError as error:
                op.note(f"The service did not clean up behind itself: {error}")
            for directory in (service.data_dir, service.code_dir):
                file.remove_tree(directory)
        self.host.drop_manager(op.target)
        self.host.store.services.remove(op.target)

    # Lost nodes

    def take_out_lost(self, op: operations.Operation) -> None:
        """Take lost nodes out of service; whether to replace them is the service's decision, unless they were to leave anyhow."""
        service = self.host.manager_of(op)
        nodes = self.host.store.nodes
        lost = [
            one
            for one in _nodes_in_args(op)
            if nodes.find_status(op.target, one.id) in (records.NodeStatus.MEMBER, records.NodeStatus.LOST)
        ]
        nodes.set_status(op.target, node.ids_of(lost), records.NodeStatus.LOST)
        if "reason" not in op.data:
            names = node.ids_of(_nodes_in_args(op))
            verb = "was" if len(names) == 1 else "were"
            op.data["reason"] = f"{', '.join(names)} {verb} lost: {op.args.get('reason', 'no answer')}"
            op.note(op.data["reason"])
        leaving = {one.node_id: one.heir for one in nodes.departures().get(op.target, ())}
        op.data["heirs"] = {one.id: leaving[one.id] for one in lost if one.id in leaving}
        unwanted = set(op.data.get("unwanted", ())) | op.data["heirs"].keys()
        for one in lost:
            try:
                if service.on_node_lost(one) is False:
                    unwanted.add(one.id)
            except errors.ConPaaSError as error:
                op.note(f"The service could not adapt to the loss of {one.id}: {error}")
        op.data["unwanted"] = sorted(unwanted)

    def release_lost(self, op: operations.Operation) -> None:
        """Give lost VMs back before their replacements come: a node that is only cut off must not go on working beside them."""
        nodes = self.host.store.nodes
        lost = [one for one in _nodes_in_args(op) if nodes.find_status(op.target, one.id) == records.NodeStatus.LOST]
        self._release(op, lost, "lost")
        nodes.set_status(op.target, node.ids_of(lost), records.NodeStatus.GONE)
        for one in lost:
            self.host.store.volumes.remove_on_node(one.id)
        self.keep_disks(op, _nodes_in_args(op))

    def request_replacement(self, op: operations.Operation) -> None:
        service = self.host.manager_of(op)
        store_nodes = self.host.store.nodes
        wanted = [
            one
            for one in _nodes_in_args(op)
            if one.id not in op.data["unwanted"] and store_nodes.find_status(op.target, one.id) == records.NodeStatus.GONE
        ]
        if not wanted and "nodes_info" not in op.data:
            op.data["nodes"] = []
            return
        op.data.setdefault("replaced", node.ids_of(wanted))
        self._request_nodes(op, lambda: [service.get_role_sninfo(one.role, one.cloud_name) for one in wanted])
        op.data["reason"] += f"; replaced by {', '.join(node.ids_of(nodes_in(op, 'nodes')))}"

    def forget_lost(self, op: operations.Operation) -> None:
        replaced, replacements = op.data.get("replaced", ()), node.ids_of(nodes_in(op, "nodes"))
        self.host.store.nodes.set_heirs(op.target, dict(zip(replaced, replacements, strict=False)))
        self.host.store.nodes.remove(op.target, node.ids_of(_nodes_in_args(op)))
        if not self.host.store.nodes.members(op.target):
            op.final = State.STOPPED

    # Recovery from ERROR

    def compare_with_director(self, op: operations.Operation) -> None:
        """Find the nodes to keep: in service here, running according to the Director, and answering."""
        service = self.host.manager_of(op)
        recorded = {one.id: one for one in self.host.store.nodes.with_status(op.target)}
        inventory = [entry for entry in self.host.callbacker.list_nodes() if entry.service_id == op.target and entry.running]
        known = {entry.node.id: entry.node for entry in inventory}
        present = [one for one in service.nodes if one.id in known]
        answers = service.agents.each(present, lambda one: service.agents.get(one, "check_process", _timeout=5.0))
        kept = [key for key, answer in answers.items() if not isinstance(answer, errors.ConPaaSError)]
        op.data["unusable"] = [one.to_dict() for key, one in (known | recorded).items() if key not in kept]
        op.note(f"Usable nodes: {', '.join(kept) or 'none'}; to give back: {len(op.data['unusable'])}")

    def release_unusable(self, op: operations.Operation) -> None:
        unusable = nodes_in(op, "unusable")
        self._release(op, unusable, "recover")
        self.leave_disks(op, unusable)
        self.host.store.nodes.remove(op.target, node.ids_of(unusable))

    def tidy_volumes(self, op: operations.Operation) -> None:
        """Destroy volumes that were half made or half destroyed."""
        for record in self.host.store.volumes.all(op.target):
            if record.status != records.VolumeStatus.ATTACHED:
                if record.vol_id is not None:
                    self.host.callbacker.detach_volume(record.vol_id, record.cloud)
                    self.host.callbacker.destroy_volume(record.vol_id, record.cloud)
                self.host.store.volumes.remove(record.name)

    def recover(self, op: operations.Operation) -> Any:
        service = self.host.manager_of(op)
        nodes = service.nodes
        if not nodes:
            op.final = State.STOPPED
            return None
        op.final = State.RUNNING
        return service.on_recover(nodes)

    # A new service

    def record_service(self, op: operations.Operation) -> None:
        op.data["service_id"] = self.host.store.services.create(op.args["service_type"], op.args.get("request") or op.id)
        op.data["reason"] = f"Service {op.data['service_id']} of type {op.args['service_type']} added"

    def forget_service(self, op: operations.Operation) -> None:
        service_id = op.data.get("service_id") or self.host.store.services.find_request(op.args.get("request") or op.id)
        if service_id is not None:
            self.host.store.services.remove(service_id)

    def build_service(self, op: operations.Operation) -> None:
        self.host.build_manager(op.data["service_id"]).on_create()

    def drop_service(self, op: operations.Operation) -> None:
        service = self.host.find_manager(op.data["service_id"])
        self.host.drop_manager(op.data["service_id"])
        if service is not None:
            for directory in (service.data_dir, service.code_dir):
                file.remove_tree(directory)

    # Helpers

    def _release(self, op: operations.Operation, nodes: Iterable[node.ServiceNode], purpose: str, *, disks: bool = False) -> None:
        """Give nodes back, if told so with their kept disks; returns when the Director has acknowledged."""
        given = list(nodes)
        if given:
            op.note(f"Giving back {', '.join(node.ids_of(given))}")
            self.host.callbacker.remove_nodes(given, f"{op.id}-{purpose}", disks=disks)


def nodes_in(op: operations.Operation, key: str) -> list[node.ServiceNode]:
    """Nodes that a step has put into the operation's data; none if it did not get there."""
    return [node.ServiceNode.from_dict(values) for values in op.data.get(key, ())]


def _nodes_in_args(op: operations.Operation) -> list[node.ServiceNode]:
    return [node.ServiceNode.from_dict(values) for values in op.args["nodes"]]


def _in_words(wanted: Iterable[Mapping[str, Any]]) -> str:
    counts: dict[str, int] = {}
    for info in wanted:
        role = str(info.get("role", node.ROLE_REGULAR))
        counts[role] = counts.get(role, 0) + 1
    return ", ".join(f"{count} {role}" for role, count in counts.items())


def with_addresses(script: str, addresses: Mapping[str, str]) -> str:
    """A startup script that finds these variables, as it did in ConPaaS 2; none stays none."""
    if not script:
        return ""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(addresses.items())) + script
