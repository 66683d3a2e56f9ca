"""The parent of every service manager: the hooks it may override, and the calls every service answers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from conpaas.core import (
    errors,
    expose,
    log_window,
    machine,
    migration,
    node,
    params,
    service_parts,
    states,
)
from conpaas.core.https import identity
from conpaas.core.state import store

AGENT_LOG = "cpsagent.log"
LOG_LIMIT = log_window.LIMIT
"""Bytes of a log in one answer."""
_SOURCE = "service "

_MACHINE_TIMEOUT = 5.0

HOW_MANY = params.Param("limit", params.Integer(minimum=1, maximum=200), default=20, help="how many, newest first")

AGENT_LOG_PARAMS = (
    params.Param("agentId", params.Text(), help="the id of a node"),
    params.Param("filename", params.Text(), default=None, help="which of the node's logs; without it, the agent's own"),
    *log_window.PARAMS,
)


class BaseManager(service_parts.ServiceParts):
    """A service manager: decides what runs where, and calls agents. It keeps nothing in memory that a restart may not lose.

    Hooks are plain blocking functions that may be called again after a crash. A hook fails by raising `errors.ConPaaSError` or by returning
    False; what was done before it is undone then.
    """

    def migrate(
        self, name: str, plan: Sequence[Mapping[str, Any]], delay: int, caller: identity.PeerIdentity | str | None
    ) -> dict[str, Any]:
        """Have nodes move as a plan says, which came as the parameter `name`; the reply of `migrate_nodes`."""
        self.check_state(*migration.MIGRATE.allowed)
        moves = migration.moves_in(name, plan, self.nodes, self.unknown_node)
        self.refuse_while_moving()
        self.check_migrate([self.get_node(move.node_id, name) for move in moves])
        if self.director.credit() <= 0:
            raise errors.InsufficientCredits
        args = {"moves": [move.to_dict() for move in moves], "delay": delay}
        return {"operation": self._submit(migration.MIGRATE, self.service_id, args, str(caller or "")).id}

    # Hooks: what the service is made of

    def get_service_type(self) -> str:
        """The type of this service's agents."""
        return self.type

    def get_node_roles(self) -> list[str]:
        """The roles nodes may have."""
        return [node.ROLE_REGULAR]

    def get_default_role(self) -> str:
        """The role meant when a request gives none."""
        return node.ROLE_REGULAR

    def get_starting_nodes(self) -> dict[str, int]:
        """How many nodes of each role a start asks for."""
        return {self.get_default_role(): 1}

    def get_role_sninfo(self, role: str, cloud: str) -> dict[str, Any]:
        """What to ask the Director for, for one node of this role."""
        return self.get_standard_sninfo(role, cloud)

    def get_role_disk(self, role: str) -> int | None:
        """The size, in MB, of the disk of a node of this role whose data outlive the node's VM; None: it has none.

        Hooks find it with `kept_disk`. Before the first use it is empty; on later nodes of the role it holds what the former node left.
        """
        return None

    def get_heir_role(self, moving: node.ServiceNode) -> str:
        """The role that the node plays at first which takes the place of one that moves."""
        return moving.role

    def get_standard_sninfo(self, role: str, cloud: str) -> dict[str, Any]:
        return {"role": role, "cloud": cloud}

    def get_standard_sninfo_with_volume(self, role: str, cloud: str, name: str, size: int) -> dict[str, Any]:
        """A node with a disk of `size` MB; `name` may hold `%(vm_id)s`."""
        volume = {"vol_name": name, "vol_size": size, "dev_name": self.config.get(self.config.main, "DEV_TARGET", "sdb")}
        return {"role": role, "cloud": cloud, "volumes": [volume]}

    def get_role_logs(self, role: str) -> list[dict[str, str]]:
        """The logs a node of this role shows: `filename`, `description` and `path` on the node."""
        return [{"filename": AGENT_LOG, "description": "agent log", "path": f"/var/log/{AGENT_LOG}"}]

    def get_context_replacement(self) -> dict[str, str]:
        """Values for the variables of the service's agent configuration."""
        return {}

    # Hooks: life cycle

    def on_create(self) -> None:
        """The service was added to the application; it has no nodes yet."""

    def on_start(self, nodes: list[node.ServiceNode]) -> Any:
        """Bring the service up on its first nodes."""

    def on_stop(self) -> list[node.ServiceNode]:
        """Shut the service down; returns the nodes to give back (all of them are, in the end)."""
        return self.nodes

    def check_add_nodes(self, roles: dict[str, int]) -> None:
        """Raise to refuse an addition of nodes."""

    def on_add_nodes(self, nodes: list[node.ServiceNode]) -> Any:
        """Take nodes into service; `self.nodes` has them already."""

    def on_undo_add_nodes(self, nodes: list[node.ServiceNode]) -> None:
        """Nodes whose addition failed go away again; `self.nodes` no longer has them."""

    def check_remove_nodes(self, roles: dict[str, int]) -> None:
        """Raise to refuse a removal of nodes. By default at least one node must stay."""
        nodes = self.nodes
        for role, count in roles.items():
            present = sum(1 for one in nodes if one.role == role)
            if count > present:
                raise _too_many(f"{count} {role} nodes", present)
        total = sum(roles.values())
        if total > len(nodes) - 1:
            raise _too_many(f"{total} nodes", len(nodes) - 1)

    def check_victims(self, nodes: list[node.ServiceNode]) -> None:
        """Raise to refuse the removal of exactly these nodes, which a request names; `check_remove_nodes` is asked as well."""

    def check_migrate(self, nodes: list[node.ServiceNode]) -> None:
        """Raise to refuse that these nodes move. By default those with volumes stay, because what is on these would not move along.

        A move is `on_add_nodes` with the new nodes, then `on_remove_nodes`, for which `choose_nodes` tells the former ones; `heirs` tells
        who takes whose place.
        """
        moving = set(node.ids_of(nodes))
        for volume in self._store.volumes.all(self.service_id):
            if volume.node_id in moving:
                raise errors.InvalidArgument(
                    f"The node {volume.node_id} cannot move: what is on its volume '{volume.name}' would be lost.",
                    hint="copy it to another node and delete the volume first",
                )

    def unknown_node(self, cloud: str, vmid: str) -> errors.ConPaaSError:
        """The error for a node that is to move and that the service does not have."""
        return migration.unknown_node(self.nodes, cloud, vmid)

    def on_remove_nodes(self, roles: dict[str, int]) -> list[node.ServiceNode]:
        """Take nodes out of service and return them; `self.choose_nodes(roles)` tells which."""
        return self.choose_nodes(roles)

    def on_undo_remove_nodes(self, nodes: list[node.ServiceNode]) -> None:
        """The removal of these nodes failed; they stay in service."""

    def on_node_lost(self, lost: node.ServiceNode) -> bool:
        """A node was lost; `self.nodes` no longer has it. Returns whether it is to be replaced by one of the same role."""
        return True

    def housekeeping(self) -> None:
        """Called every few seconds while the service is RUNNING and no operation on it is under way: finish what may take its time.

        One call at a time per service. It must be short, may be repeated, and an operation may begin while it is at work.
        """

    def on_recover(self, nodes: list[node.ServiceNode]) -> Any:
        """Bring the service back from ERROR with the nodes that are left and answer."""
        return self.on_start(nodes)

    def on_remove(self) -> None:
        """The service, already without nodes, is about to be removed; its directories are deleted afterwards."""

    def measure(self, now: float) -> None:
        """Keep what the charts of the service's page show now, if it is time to. Called as `housekeeping` is."""
        self.figures.measure(lambda method: expose.exposed_methods(self)["GET", method].call({}, None), now)

    # Hooks: volumes and code

    def check_create_volume(self, name: str, size: int, agent_id: str) -> None:
        """Raise to refuse a volume of `size` MB. Services that can use volumes override this."""
        raise errors.InvalidArgument("create_volume method not currently supported for this service")

    def on_create_volume(self, target: node.ServiceNode, volume: node.ServiceVolume) -> Any:
        """Take an attached volume into use on its node."""

    def on_undo_create_volume(self, target: node.ServiceNode, volume: node.ServiceVolume) -> None:
        """A volume that could not be taken into use goes away again."""
        self.on_delete_volume(target, volume)

    def check_delete_volume(self, target: node.ServiceNode, volume: node.ServiceVolume) -> None:
        """Raise to refuse the deletion of a volume."""
        raise errors.InvalidArgument("delete_volume method not currently supported for this service")

    def on_delete_volume(self, target: node.ServiceNode, volume: node.ServiceVolume) -> Any:
        """Take a volume out of use before it is detached; if this fails it stays attached."""

    def on_git_push(self) -> str | None:
        """Code was pushed to the application's repository. Returns the name of the new code version, if this service made one."""
        return None

    # Hooks: other services of the application

    accepts_variables: ClassVar[bool] = False
    """Whether services of this type can be given environment variables by other services (`take_variables`)."""

    @staticmethod
    def source_of(service_id: int) -> str:
        """The name that a service has as a source of variables."""
        return f"{_SOURCE}{service_id}"

    def sources(self) -> list[str]:
        """Everybody who gave this service variables that it has."""
        return []

    def given_addresses(self) -> dict[str, str]:
        """The addresses that this service was given (`MYSQL_IP` and the like): what startup scripts find, which never get a secret."""
        given = {name: value for source in self.sources() for name, value in self.variables_from(source).items()}
        return {name: value for name, value in given.items() if name.endswith("_IP")}

    def forget_gone_sources(self) -> None:
        """Take away what services gave that are no longer there: they were removed while this one was busy. One source at a time."""
        for source in self.sources():
            number = source.removeprefix(_SOURCE)
            if number.isdecimal() and self.peers(int(number)) is None:
                self.log.info("the variables of %s, which is gone, are taken away", source)
                self.take_variables(source, {}, "housekeeping")
                return

    def variables_from(self, source: str) -> dict[str, str]:
        """The variables that this service was given by a source and works with, or is about to; empty if there are none."""
        return {}

    def take_variables(self, source: str, variables: Mapping[str, str], caller: str) -> dict[str, Any]:
        """Have the service's programs find these variables in their environment, instead of all that the source gave before; none: remove.

        What takes time is an operation, whose id is returned as `operation`. Idempotent. Raises `errors.WrongState` while the service is
        busy.
        """
        raise errors.InvalidArgument(f"Services of type '{self.type}' take no variables from other services.")

    # Hooks: manifests

    def on_apply_manifest(self, fields: dict[str, Any], caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """Set what the type's own fields of a manifest say (`services.ManifestField`); must be idempotent.

        What takes time is an operation, whose id is returned as `operation`.
        """
        raise errors.InvalidArgument(f"Services of type '{self.type}' have no field {', '.join(fields)} in a manifest.")

    def on_export_manifest(self, limit: int) -> dict[str, Any]:
        """The type's own fields that would make a service like this one; files as `data:` URLs of at most `limit` bytes of content."""
        return {}

    # Helpers of hooks

    def choose_nodes(self, roles: Mapping[str, int]) -> list[node.ServiceNode]:
        """The nodes that a removal takes: those named in the request, else the newest of each role.

        Within one operation the answer is always the same.
        """
        nodes = self.nodes
        if self.victims is not None:
            return [one for one in nodes if one.id in self.victims]
        chosen = []
        for role, count in roles.items():
            chosen += [one for one in reversed(nodes) if one.role == role][:count]
        return chosen

    # Calls every service answers

    @expose.expose("GET")
    def get_service_info(self) -> dict[str, Any]:
        """Tell the state and the type of the service."""
        return {"state": str(self.state), "type": self.type}

    @expose.expose("GET")
    def list_nodes(self) -> dict[str, list[str]]:
        """List the ids of the nodes by role; empty unless the service is running."""
        if self.state not in (states.State.RUNNING, states.State.ADAPTING):
            return {}
        by_role: dict[str, list[str]] = {role: [] for role in self.get_node_roles()}
        for one in self.nodes:
            by_role.setdefault(one.role, []).append(one.id)
        return by_role

    @expose.expose("GET", params.Param("serviceNodeId", params.Text(), help="the id of a node"))
    def get_node_info(self, service_node_id: str) -> dict[str, Any]:
        """Describe one node."""
        return {"serviceNode": self.describe_node(self.get_node(service_node_id))}

    def describe_node(self, one: node.ServiceNode) -> dict[str, Any]:
        """What `get_node_info` tells of a node."""
        leaves = {leaving.node_id: leaving.at for leaving in self.departures}
        return {
            "id": one.id,
            "ip": one.ip,
            "vmid": one.vmid,
            "cloud": one.cloud_name,
            "role": one.role,
            "logs": self.get_role_logs(one.role),
            **({"leavesAt": leaves[one.id]} if one.id in leaves else {}),
        }

    @expose.expose("GET")
    def get_machines(self) -> dict[str, Any]:
        """Tell what the nodes' machines do: processors, memory and disk in use (means, in percent), the network (sums, KB/s), and the
        figures of each (`nodes`, by id).
        """
        found = self.machine_figures()
        return {**machine.together(list(found.values())), "nodes": found}

    def machine_figures(self) -> dict[str, dict[str, Any]]:
        """What the machines of those nodes have and do that answer, by node id (see `machine.Machine.figures`)."""
        own = self.nodes if self.state in (states.State.RUNNING, states.State.ADAPTING) else []
        answers = self.agents.each(own, lambda one: dict(self.agents.get(one, "get_machine", _timeout=_MACHINE_TIMEOUT)))
        return {key: answer for key, answer in answers.items() if not isinstance(answer, errors.ConPaaSError)}

    @expose.expose("GET")
    def get_service_history(self) -> dict[str, Any]:
        """List the states the service has been in, oldest first."""
        return {"state_log": [entry.to_dict() for entry in self._store.services.history(self.service_id)]}

    @expose.expose(
        "GET",
        params.Param("method", params.Text(max_length=128), help="the method that a chart of the service's page asks"),
        params.Param("seconds", params.Integer(minimum=60, maximum=86_400), default=86_400, help="how far back"),
        params.Param("points", params.Integer(minimum=2, maximum=500), default=200, help="how many rows at most; they are means then"),
    )
    def get_figures(self, method: str, seconds: int, points: int) -> dict[str, Any]:
        """Tell what a chart has shown until now: `columns`, and `rows` of a time and a number for each column, oldest first.

        Measured once a minute while the service runs and kept for a day.
        """
        params.must_be_one_of("method", method, self.figures.methods)
        return self.figures.tell(method, seconds, points, time.time())

    @expose.expose("GET", HOW_MANY)
    def list_operations(self, limit: int) -> dict[str, Any]:
        """List the operations on this service, newest first."""
        return {"operations": [op.to_dict() for op in self._store.operations.list(self.service_id, limit)]}

    @expose.expose("GET", params.Param("operationId", params.Text(max_length=64), help="the id a request answered with"))
    def get_operation(self, operation_id: str) -> dict[str, Any]:
        """Tell how far one operation is, step by step."""
        op = self._store.operations.get(operation_id)
        if self.service_id not in (store.APPLICATION, op.target):
            raise errors.NotFound(f"There is no operation '{operation_id}' on record.")
        return {"operation": op.to_dict()}

    @expose.expose("POST", *migration.PARAMS)
    def migrate_nodes(
        self,
        nodes: list[dict[str, Any]] | None,
        migration_plan: list[dict[str, Any]] | None,
        delay: int,
        caller: identity.PeerIdentity | None,
    ) -> dict[str, Any]:
        """Move nodes to another cloud, or to new VMs of the same one: new nodes take over the roles, then the former ones leave."""
        name = "migration_plan" if migration_plan else "nodes"
        return self.migrate(name, migration_plan or nodes or [], delay, caller)

    @expose.expose("POST", params.Param("fields", params.Mapping(), help="by name, as the type declares them"))
    def apply_manifest(self, fields: dict[str, Any], caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """Set what a manifest says about this service beyond what all services have."""
        return self.on_apply_manifest(fields, caller) if fields else {}

    @expose.expose("GET", params.Param("limit", params.Integer(minimum=0), default=0, help="bytes that a file in it may have"))
    def export_manifest(self, limit: int) -> dict[str, Any]:
        """Tell the fields of a manifest, beyond those that all services have, that would make a service like this one."""
        return {"fields": self.on_export_manifest(limit)}

    @expose.expose("GET", *log_window.PARAMS)
    def get_manager_log(self, offset: int | None, limit: int) -> dict[str, Any]:
        """Read the log of the service's manager."""
        try:
            return log_window.answer(self.log_file, offset, limit)
        except OSError as error:
            raise errors.NotFound("Failed to read log") from error

    @expose.expose("GET", *AGENT_LOG_PARAMS)
    def get_agent_log(self, agent_id: str, filename: str | None, offset: int | None, limit: int) -> dict[str, Any]:
        """Read a log of one node."""
        target = self.get_node(agent_id, "agentId")
        arguments: dict[str, Any] = {}
        if filename is not None:
            params.must_be_one_of("filename", filename, [entry["filename"] for entry in self.get_role_logs(target.role)])
            arguments["filename"] = filename
        if offset is not None or limit != LOG_LIMIT:
            arguments |= {"limit": limit} | ({"offset": offset} if offset is not None else {})
        found: dict[str, Any] = self.agents.get(target, "get_log", **arguments)
        return found


def _too_many(what: str, removable: int) -> errors.InvalidArgument:
    available = f"only {removable}" if removable > 0 else "none"
    return errors.InvalidArgument(f"Requesting to delete {what} while {available} can be removed")
