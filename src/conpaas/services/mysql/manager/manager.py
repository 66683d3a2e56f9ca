"""The manager of a mysql service: a cluster that starts, grows, shrinks, loses nodes, and comes back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from conpaas.core import errors, expose, lifecycle, node, params, service_parts
from conpaas.core.https import identity
from conpaas.core.operations import Operation, OperationKind, Step
from conpaas.core.states import State
from conpaas.services.mysql import spec
from conpaas.services.mysql.agent import client
from conpaas.services.mysql.manager import accounts, cluster, members, performance, restoring, variables

REPAIR: Final = OperationKind(
    "repair_cluster",
    (Step("repair", "repair"),),
    allowed=(State.RUNNING,),
    transient=State.ADAPTING,
    final=State.RUNNING,
    help="Repairing the cluster",
)

_DISK: Final = 1024
"""MB of a member's disk."""
_DRAIN: Final = 30.0
"""Seconds that sessions may go on while their member or load balancer is being removed."""
_UNWELL: Final = 15.0
"""Seconds that a cluster may be unwell before it is seen to; members that were killed come back by themselves in less."""
_UNWELL_ALONE: Final = 2.0
"""The same for an only member, which has nobody to find: it must be told to begin anew."""
_LONGEST_REST: Final = 600.0
"""Seconds between two repairs that failed, at most."""


class MySQLManager(restoring.RestoreCalls, variables.VariableCalls, performance.PerformanceCalls):
    """A MariaDB cluster replicated by Galera, with load balancers before it."""

    operations: ClassVar[tuple[OperationKind, ...]] = (REPAIR, *variables.VariableCalls.operations, *restoring.RestoreCalls.operations)

    def __init__(self, context: service_parts.ManagerContext) -> None:
        super().__init__(context)
        self._unwell = self.config.get_float(self.config.main, "MYSQL_UNWELL", _UNWELL, minimum=0.0)
        self._unwell_since: float | None = None
        self._rest_until = 0.0
        self._rest = 5.0
        self.tidy_dumps()

    # What the service is made of

    def get_node_roles(self) -> list[str]:
        return list(spec.ROLES)

    def get_default_role(self) -> str:
        return spec.MYSQL

    def get_starting_nodes(self) -> dict[str, int]:
        """One member at first; after a stop, as many nodes as there were, which get their disks back."""
        known = {role: count for role, count in self.memory.shape.items() if count}
        return known if known.get(spec.MYSQL) else {spec.MYSQL: 1}

    def get_role_disk(self, role: str) -> int | None:
        return self.config.get_int(self.config.main, "MYSQL_DISK", _DISK, minimum=64) if role == spec.MYSQL else None

    def get_role_logs(self, role: str) -> list[dict[str, str]]:
        own = {
            spec.MYSQL: [("mysql.log", "MySQL log", "/var/cache/cpsagent/mysql.log"), ("mysql-slow.log", "MySQL slow queries", "")],
            spec.GLB: [("haproxy.log", "load balancer log", "")],
        }
        return [
            *super().get_role_logs(role),
            *({"filename": name, "description": what, "path": path or f"/var/log/{name}"} for name, what, path in own.get(role, [])),
        ]

    def choose_nodes(self, roles: Mapping[str, int]) -> list[node.ServiceNode]:
        if self.victims is not None:
            return super().choose_nodes(roles)
        nodes = self.nodes
        order = self.memory.in_order([one.id for one in members.of_role(nodes, spec.MYSQL)])
        return members.victims(nodes, roles, order)

    # Life cycle

    def on_start(self, nodes: list[node.ServiceNode]) -> None:
        with self.guard:
            self.cluster.converge(self.cluster.round(), nodes, self.note)
            self.provide_default_user()
            self.memory.shape = members.counts(nodes)

    def on_stop(self) -> list[node.ServiceNode]:
        nodes = self.nodes
        with self.guard:
            self.memory.incomplete = True  # should the service not stop after all, housekeeping brings everything back
            self.cluster.shut_down(nodes, _DRAIN if members.of_role(nodes, spec.GLB) else 0.0)
        return nodes

    def on_add_nodes(self, nodes: list[node.ServiceNode]) -> None:
        with self.guard:
            ids = set(node.ids_of(nodes))
            present = [one for one in self.nodes if one.id not in ids]
            try:
                self.cluster.converge(self.cluster.round(tolerated=present), self.nodes, self.note)
            except cluster.NoMajority as error:
                if not self._replacing:
                    raise
                # It has the disk of the lost node, which the others need: they begin when the rest of them is replaced, too.
                self.note(f"{', '.join(sorted(ids))} waits: {error}")
                self._rest_until = time.monotonic() + self._unwell  # first those are to be replaced, too
            self.memory.shape = members.counts(self.nodes)

    @property
    def _replacing(self) -> bool:
        """Whether what is under way is the replacement of a lost node."""
        return self.operation is not None and self.operation.kind == lifecycle.REPLACE.name

    def on_undo_add_nodes(self, nodes: list[node.ServiceNode]) -> None:
        with self.guard:
            staying = self.nodes
            if not self._replacing:
                self.memory.shape = members.counts(staying)
            self.cluster.shut_down(nodes, 0.0)
            if staying:
                self.cluster.converge(self.cluster.round(tolerated=staying, lenient=True), staying, self.note)

    def check_remove_nodes(self, roles: dict[str, int]) -> None:
        members.check_remove(self.nodes, roles)

    def on_remove_nodes(self, roles: dict[str, int]) -> list[node.ServiceNode]:
        leaving = self.choose_nodes(roles)
        gone = set(node.ids_of(leaving))
        with self.guard:
            staying = [one for one in self.nodes if one.id not in gone]
            go = self.cluster.round(tolerated=staying)
            self.cluster.leave(go, leaving, staying, _DRAIN, self.note)
            self.cluster.converge(self.cluster.round(tolerated=staying), staying, self.note)
            self.memory.shape = members.counts(staying)
        return leaving

    def on_undo_remove_nodes(self, nodes: list[node.ServiceNode]) -> None:
        with self.guard:
            everybody = self.nodes
            self.cluster.converge(self.cluster.round(tolerated=everybody, lenient=True), everybody, self.note)
            self.memory.shape = members.counts(everybody)

    def on_node_lost(self, lost: node.ServiceNode) -> bool:
        """Load balancers have noticed by themselves. The cluster is seen to when the lost VM is certain not to go on beside it."""
        self.note(f"The {lost.role} node {lost.id} is out of service")
        return True

    def on_recover(self, nodes: list[node.ServiceNode]) -> None:
        with self.guard:
            self.cluster.converge(self.cluster.round(), nodes, self.note)
            self.memory.shape = members.counts(nodes)

    def on_remove(self) -> None:
        self.forget_bindings()

    # Manifests

    def on_apply_manifest(self, fields: dict[str, Any], caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """`Dump` holds the reply to the dump's upload, by which it was run."""
        unknown = sorted(set(fields) - {"Variables", "Password", "Dump", "Bindings"})
        if unknown:
            raise errors.InvalidArgument(f"Services of type '{self.type}' have no field {unknown[0]} in a manifest.")
        if "Password" in fields:
            self.set_password(accounts.DEFAULT_USER, str(fields["Password"]))
        if "Bindings" in fields:
            self.bind_all(fields["Bindings"], caller)
        return self.change_variables(fields["Variables"], caller) if fields.get("Variables") else {}

    def on_export_manifest(self, limit: int) -> dict[str, Any]:
        """The variables and bindings. Data and passwords are not for a text; dumps are downloaded."""
        found = {"Variables": self.memory.variables, "Bindings": self.bindings_of_manifest()}
        return {name: value for name, value in found.items() if value}

    # Seeing to it that all is well

    def housekeeping(self) -> None:
        """Begin a repair when the cluster has been unwell for longer than it takes to come back by itself."""
        if not self.guard.acquire(blocking=False):
            return
        try:
            if not self.idle or self.state != State.RUNNING:
                return
            now = time.monotonic()
            if self._is_well():
                self._unwell_since, self._rest = None, 5.0
                if self.authority.grow_old(one.id for one in self.members_in_order()):
                    self.memory.incomplete = True  # a repair hands out new certificates; nothing else may happen for years
                self.tend_bindings()
                self.tend_backups()
                return
            self._unwell_since = self._unwell_since or now
            alone = len(members.of_role(self.nodes, spec.MYSQL)) == 1
            patience = min(self._unwell, _UNWELL_ALONE) if alone else self._unwell
            patient = not self.memory.incomplete and now - self._unwell_since < patience
            if patient or now < self._rest_until:
                return
            self._rest_until, self._rest = now + self._rest, min(self._rest * 2, _LONGEST_REST)
            self.submit(REPAIR.name, {}, "housekeeping")
        finally:
            self.guard.release()

    def _is_well(self) -> bool:
        own = self.members_in_order()
        looks = self.cluster.glance(own)
        answers = [look for look in looks.values() if not isinstance(look, errors.ConPaaSError)]
        outside = [look for look in answers if not members.is_at_work(look)]
        if len(outside) < len(answers):
            self.cluster.see_at_work(own)
        return not self.memory.incomplete and len(outside) < len(answers) and all(members.is_full(look) for look in outside)

    def repair(self, op: Operation) -> None:
        """The step of the operation `repair_cluster`."""
        with self.guard:
            nodes = self.nodes
            if nodes:
                self.cluster.converge(self.cluster.round(tolerated=nodes), nodes, self.note)

    # Calls

    @expose.expose("GET")
    def get_service_info(self) -> dict[str, Any]:
        """Tell the state, the type, the addresses for clients, and how the cluster is."""
        told: dict[str, Any] = {"state": str(self.state), "type": self.type}
        if self.state in (State.RUNNING, State.ADAPTING):
            told |= {"access": self.access(), "cluster": self.health()}
        return told

    def describe_node(self, one: node.ServiceNode) -> dict[str, Any]:
        known = self.memory.ports.get(one.id, {})
        return {
            **super().describe_node(one),
            "isNode": one.role == spec.MYSQL,
            "isGlb_node": one.role == spec.GLB,
            **({"port": known["port"]} if "port" in known else {}),
        }

    @expose.expose("GET")
    def get_access(self) -> dict[str, Any]:
        """Tell where clients connect, and the certificate of the CA that they can check servers with."""
        return {**self.access(), "ca": self.authority.certificate}

    @expose.expose("POST", params.Param("node", params.Text(max_length=256), help="The id of a node that is gone, whose disk is left."))
    def go_on_without(self, node: str) -> dict[str, Any]:
        """Give up the rows that only the disk of a lost node may hold, so that the cluster begins with what the others have."""
        with self.guard:
            unread = self.cluster.unread()
            if node not in unread:
                waits = f"it waits for {', '.join(unread)}" if unread else "it waits for none"
                raise errors.InvalidArgument(f"The cluster does not wait for the disk of '{params.shown(node)}': {waits}.")
            self.memory.holders = self.memory.holders - {node}
            self._rest_until = 0.0
        return {}

    @expose.expose("GET", params.Param("ip", params.Text(max_length=256), help="The address of a node."))
    def remove_specific_nodes(self, ip: str, caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """Remove the node with an address; the same as remove_nodes with its id."""
        self.check_state(State.RUNNING)
        chosen: Sequence[node.ServiceNode] = [one for one in self.nodes if one.ip == ip]
        if not chosen:
            raise errors.InvalidArgument("Sorry invalid ip !!!")
        roles = {chosen[0].role: 1}
        self.check_remove_nodes(roles)
        args = {"nodes": roles, "node_ids": [chosen[0].id]}
        return {"operation": self._submit(lifecycle.REMOVE, self.service_id, args, str(caller or "")).id}

    @expose.expose("GET", params.Param("serviceNodeId", params.Text(max_length=256), help="The id of a load balancer."))
    def get_balancer(self, service_node_id: str) -> dict[str, Any]:
        """Tell what one load balancer knows of the members, and how many sessions they have."""
        target = self.get_node(service_node_id)
        if target.role != spec.GLB:
            raise errors.InvalidArgument(f"The node {target.id} is no load balancer.")
        return dict(client.balancer_state(self.agents, target))
