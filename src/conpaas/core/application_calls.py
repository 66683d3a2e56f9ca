"""What the application manager answers as service 0: calls about services, their nodes, volumes, startup scripts and pushed code.

A call checks what it was given and begins an operation; the operation's steps are in `lifecycle` and `volumes`.
"""

from __future__ import annotations

import abc
import collections
import contextlib
from collections.abc import Mapping
from typing import Any

from conpaas.core import callbacker, errors, expose, health, lifecycle, manager, migration, node, params, services, states, volumes
from conpaas.core import operations as ops
from conpaas.core.engine import OperationEngine
from conpaas.core.https import identity
from conpaas.core.state import records, store

NODES_LIMIT = 1000
"""Nodes that one request may add or remove."""

SCRIPT_LIMIT = 64 * 1024
"""Bytes of a startup script."""

Caller = identity.PeerIdentity | None

_SERVICE = params.Param("service_id", params.Integer(), help="the number of a service")
_CLOUD = params.Param("cloud", params.Text(max_length=64), default=node.DEFAULT_CLOUD, help="where to get nodes")
_NODES = params.Param("nodes", params.Mapping(params.Integer(), max_items=64), help="how many nodes of each role")


class ApplicationCalls(manager.BaseManager, abc.ABC):
    """The calls of service 0. What they need besides is the application manager's (`application.ApplicationManager`)."""

    store: store.Store
    registry: services.Registry
    engine: OperationEngine
    callbacker: callbacker.Callbacker
    health: health.HealthMonitor

    @abc.abstractmethod
    def managers(self) -> list[manager.BaseManager]:
        """The managers of all services, by id."""

    @abc.abstractmethod
    def find_manager(self, service_id: int) -> manager.BaseManager | None:
        """The manager of a service, or None when it is gone."""

    @abc.abstractmethod
    def turn(self, service_id: int) -> contextlib.AbstractContextManager[manager.BaseManager]:
        """The manager of a service, while no other request may begin something on it."""

    @abc.abstractmethod
    def begin(self, kind: ops.OperationKind, service: manager.BaseManager, args: dict[str, Any], requester: str) -> str:
        """Begin an operation in the background and return its id. Raises `errors.WrongState` at once if it may not begin now."""

    @abc.abstractmethod
    def create_service(self, service_type: str, request: str | None, requester: str) -> dict[str, Any]:
        """Add a service, one at a time; or answer the one that the same `request` added before. The reply of `add_service`."""

    # Calls: the application

    @expose.expose("GET")
    def check_process(self) -> None:
        """Answer, to show that the manager works."""

    @expose.expose("GET")
    def get_app_info(self) -> dict[str, Any]:
        """Tell the states of the services (0 is the application), their nodes and volumes."""
        busy = any(op.kind in (lifecycle.DELETE.name, lifecycle.CREATE.name) for op in self.engine.active())
        found = {"0": str(states.State.ADAPTING if busy else self.state)}
        for service in self.managers():
            found[str(service.service_id)] = str(service.state)
        return {
            "states": found,
            "nodes": self.store.nodes.ids(),
            "volumes": [record.name for record in self.store.volumes.all() if record.status == records.VolumeStatus.ATTACHED],
            "types": {str(service.service_id): service.type for service in self.managers()},
        }

    @expose.expose("GET", manager.HOW_MANY)
    def list_operations(self, limit: int) -> dict[str, Any]:
        """List the operations on all services, newest first."""
        return {"operations": [op.to_dict() for op in self.store.operations.recent(limit)]}

    @expose.expose(
        "POST",
        params.Param("service_type", params.Text(max_length=64), help="one of the installed types"),
        params.Param("request", params.Text(max_length=100), default=None, help="a key; the same key adds the same service once"),
    )
    def add_service(self, service_type: str, request: str | None, caller: Caller) -> dict[str, Any]:
        """Add a service of a type; it has no nodes until it is started."""
        params.must_be_one_of("service_type", service_type, self.registry.available())
        self.registry.get(service_type).load_manager()
        return self.create_service(service_type, request, _requester(caller))

    @expose.expose("POST", _SERVICE)
    def remove_service(self, service_id: int, caller: Caller) -> dict[str, Any]:
        """Remove a service with its nodes, volumes, settings and code."""
        with self.turn(service_id) as service:
            return {"operation": self.begin(lifecycle.DELETE, service, {}, _requester(caller))}

    # Calls: life cycle of a service

    @expose.expose("POST", _SERVICE, _CLOUD)
    def start_service(self, service_id: int, cloud: str, caller: Caller) -> dict[str, Any]:
        """Start a service on its first nodes."""
        with self.turn(service_id) as service:
            service.check_state(*lifecycle.START.allowed)
            self._check_credit()
            return self._begun(lifecycle.START, service, {"cloud": cloud or node.DEFAULT_CLOUD}, caller)

    @expose.expose(
        "POST",
        _SERVICE,
        params.Param("force", params.Boolean(), default=False, help="give the nodes back even if the service cannot be shut down in order"),
    )
    def stop_service(self, service_id: int, force: bool, caller: Caller) -> dict[str, Any]:
        """Stop a service and give all its nodes back."""
        with self.turn(service_id) as service:
            forced = force or service.state is states.State.ERROR
            return self._begun(lifecycle.STOP, service, {"force": forced}, caller)

    @expose.expose("POST", _SERVICE, _NODES, _CLOUD)
    def add_nodes(self, service_id: int, nodes: dict[str, int], cloud: str, caller: Caller) -> dict[str, Any]:
        """Add nodes to a running service."""
        with self.turn(service_id) as service:
            roles = _check_roles(service, nodes)
            service.check_state(*lifecycle.ADD.allowed)
            self._check_credit()
            service.check_add_nodes(dict(roles))
            return self._begun(lifecycle.ADD, service, {"nodes": roles, "cloud": cloud or node.DEFAULT_CLOUD}, caller)

    @expose.expose(
        "POST",
        _SERVICE,
        params.Param("nodes", params.Mapping(params.Integer(), max_items=64), default=None, help="how many nodes of each role"),
        params.Param("nodeIds", params.ListOf(params.Text(max_length=256)), default=None, help="exactly which nodes, instead of how many"),
    )
    def remove_nodes(self, service_id: int, nodes: dict[str, int] | None, node_ids: list[str] | None, caller: Caller) -> dict[str, Any]:
        """Remove nodes from a running service: the newest of each role, or those named."""
        with self.turn(service_id) as service:
            moved = {one.node_id: one.heir for one in service.departures}
            if node_ids and moved.keys() >= set(node_ids):
                return self._begun(migration.RETIRE, service, {"heirs": {key: moved[key] for key in node_ids}}, caller)
            if node_ids:
                chosen = [service.get_node(one, "nodeIds") for one in dict.fromkeys(node_ids)]
                roles = dict(collections.Counter(one.role for one in chosen))
                service.check_victims(chosen)
            elif nodes is not None:
                roles = _check_roles(service, nodes)
            else:
                raise errors.InvalidArgument("Missing the mandatory parameter 'nodes'.")
            service.check_state(*lifecycle.REMOVE.allowed)
            service.refuse_while_moving()
            service.check_remove_nodes(dict(roles))
            return self._begun(lifecycle.REMOVE, service, {"nodes": roles, "node_ids": node_ids}, caller)

    @expose.expose("POST", _SERVICE, *migration.PARAMS)
    def migrate_nodes(
        self,
        nodes: list[dict[str, Any]] | None,
        migration_plan: list[dict[str, Any]] | None,
        delay: int,
        caller: Caller,
        service_id: int = 0,
    ) -> dict[str, Any]:
        """Move nodes of a running service to another cloud, or to new VMs of the same one; the same as the service's own call."""
        with self.turn(service_id) as service:
            begun = service.migrate_nodes(nodes, migration_plan, delay, caller)
            return {"state": str(service.state), **begun}

    @expose.expose("POST", _SERVICE)
    def recover_service(self, service_id: int, caller: Caller) -> dict[str, Any]:
        """Bring a service out of ERROR: keep the nodes that work, give back the others, start it on what is left."""
        with self.turn(service_id) as service:
            return self._begun(lifecycle.RECOVER, service, {}, caller)

    @expose.expose("POST")
    def stopall(self, caller: Caller) -> dict[str, Any]:
        """Stop all services that are running."""
        begun = {}
        for service in self.managers():
            if service.state in lifecycle.STOP.allowed:
                begun[str(service.service_id)] = self.stop_service(service.service_id, False, caller)["operation"]
        return {"operations": begun}

    @expose.expose(
        "POST",
        params.Param("nodeId", params.Text(max_length=256), help="the id of a node"),
        params.Param("reason", params.Text(max_length=500), default="reported as lost", help="for the history"),
    )
    def node_lost(self, node_id: str, reason: str) -> dict[str, Any]:
        """Report a node that is gone or useless; it is taken out of service and replaced. A node that is not in service is ignored."""
        return {"known": self.health.report_lost(node_id, reason)}

    def _begun(self, kind: ops.OperationKind, service: manager.BaseManager, args: dict[str, Any], caller: Caller) -> dict[str, Any]:
        """Begin an operation; the reply tells the state that the service is in now."""
        begun = self.begin(kind, service, args, _requester(caller))
        return {"state": str(service.state), "operation": begun}

    def _check_credit(self) -> None:
        if self.callbacker.credit() <= 0:
            raise errors.InsufficientCredits

    # Calls: volumes

    @expose.expose(
        "POST",
        params.Param("volumeName", params.Text(max_length=1000), help="letters, digits, - and _, at most 64"),
        params.Param("volumeSize", params.Integer(minimum=1), help="in MB"),
        params.Param("agentId", params.Text(max_length=256), help="the id of the node that gets it"),
    )
    def create_volume(self, volume_name: str, volume_size: int, agent_id: str, caller: Caller) -> dict[str, Any]:
        """Create a volume and attach it to a node."""
        if not volumes.NAME.fullmatch(volume_name):
            raise errors.InvalidArgument("Volume name contains invalid characters")
        if volume_size > volumes.MAX_SIZE:
            raise errors.InvalidArgument(f"Parameter 'volumeSize': {volume_size} is more than {volumes.MAX_SIZE}.")
        params.must_not_be_one_of("volumeName", volume_name, self.store.volumes.names())
        params.must_be_one_of("agentId", agent_id, self.store.nodes.ids())
        owner = self.store.nodes.owner(agent_id)
        with self.turn(owner or store.APPLICATION) as service:
            service.check_state(*volumes.CREATE.allowed)
            service.check_create_volume(volume_name, volume_size, agent_id)
            target = service.get_node(agent_id, "agentId")
            args = {"name": volume_name, "size": volume_size, "node": target.to_dict()}
            return {"service_id": owner, "operation": self.begin(volumes.CREATE, service, args, _requester(caller))}

    @expose.expose("POST", params.Param("volumeName", params.Text(max_length=1000), help="the name of a volume"))
    def delete_volume(self, volume_name: str, caller: Caller) -> dict[str, Any]:
        """Take a volume off its node and destroy it with all that is on it."""
        params.must_be_one_of("volumeName", volume_name, self.store.volumes.names())
        record = self.store.volumes.find(volume_name)
        if record is None:
            raise errors.NotFound(f"There is no volume '{volume_name}' in this application.")
        with self.turn(record.service_id) as service:
            service.check_state(*volumes.DELETE.allowed)
            target = service.get_node(record.node_id, "agentId")
            service.check_delete_volume(target, record.as_volume())
            args = {"name": volume_name, "node": target.to_dict()}
            return {"service_id": record.service_id, "operation": self.begin(volumes.DELETE, service, args, _requester(caller))}

    @expose.expose("POST", params.Param("service_id", params.Integer(minimum=0), default=0, help="of one service; 0 for all"))
    def list_volumes(self, service_id: int) -> dict[str, Any]:
        """List the volumes: made for nodes, made together with nodes, and kept disks, which outlive nodes and have none while spare."""
        if service_id != store.APPLICATION:
            params.must_be_one_of("service_id", service_id, [one.service_id for one in self.managers()])
        found = []
        for service in self.managers():
            if service_id in (store.APPLICATION, service.service_id):
                owned = {"service_id": service.service_id, "service_name": service.type}
                disks = self.store.disks.all(service.service_id)
                kept = {record.vol_id for record in disks}
                with_nodes = [(one.id, volume) for one in service.nodes for volume in one.volumes if volume.vol_id not in kept]
                found += [{**volume.to_dict(), "vm_id": node_id, "kept": False, **owned} for node_id, volume in with_nodes]
                found += [{**volume.to_dict(), "kept": False, **owned} for volume in service.volumes]
                found += [{**record.as_volume().to_dict(), "kept": True, **owned} for record in disks]
        return {"volumes": found}

    # Calls: logs, scripts and code

    @expose.expose("GET", *manager.AGENT_LOG_PARAMS)
    def get_agent_log(self, agent_id: str, filename: str | None, offset: int | None, limit: int) -> dict[str, Any]:
        """Read a log of any node of the application."""
        params.must_be_one_of("agentId", agent_id, self.store.nodes.ids())
        owner = self.find_manager(self.store.nodes.owner(agent_id) or store.APPLICATION)
        return owner.get_agent_log(agent_id, filename, offset, limit) if owner else super().get_agent_log(agent_id, filename, offset, limit)

    @expose.expose(
        "UPLOAD",
        params.Param("script", params.Upload(), help="run on every new node before its agent starts"),
        params.Param("sid", params.Integer(), help="the number of a service"),
    )
    def upload_startup_script(self, script: params.UploadedFile, sid: int) -> dict[str, Any]:
        """Set the startup script of a service, for nodes created from now on."""
        params.must_be_one_of("sid", sid, [one.service_id for one in self.managers()])
        if script.size > SCRIPT_LIMIT:
            raise errors.TooLarge(f"The startup script has {script.size} bytes, at most {SCRIPT_LIMIT} are allowed.")
        try:
            text = script.path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise errors.InvalidArgument("The startup script is not a text in UTF-8.") from error
        self.store.scripts.set(sid, text)
        return {"filename": script.filename}

    @expose.expose("GET", params.Param("sid", params.Integer(), help="the number of a service"))
    def get_startup_script(self, sid: int) -> str:
        """Read the startup script of a service."""
        params.must_be_one_of("sid", sid, [one.service_id for one in self.managers()])
        text = self.store.scripts.get(sid)
        if text is None:
            raise errors.NotFound("No startup script")
        return text

    @expose.expose("POST")
    def git_push_hook(self) -> str:
        """Tell all services that code was pushed to the application's repository."""
        versions, failures = [], []
        for service in self.managers():
            try:
                version = service.on_git_push()
            except errors.ConPaaSError as error:
                failures.append(f"service {service.service_id}: {error}")
                continue
            if version:
                versions.append(version)
        if failures:
            raise errors.OperationFailed("The pushed code could not be registered: " + "; ".join(failures))
        if not versions:
            return "no service of this application takes code from git"
        return f"code version: {versions[0]}"


def _requester(caller: Caller) -> str:
    """Who asked, for the operation's record."""
    return str(caller or "")


def _check_roles(service: manager.BaseManager, nodes: Mapping[str, int]) -> dict[str, int]:
    """Counts by role as the service understands them; raises the classic texts."""
    known = service.get_node_roles()
    roles: dict[str, int] = {}
    for name, count in nodes.items():
        role = service.get_default_role() if name == node.ROLE_DEFAULT else name
        if role not in known:
            raise errors.InvalidArgument(f"Wrong node type '{params.shown(role)}' for service type '{service.get_service_type()}'.")
        if count < 0:
            raise errors.InvalidArgument(f"Invalid number of nodes {count}")
        if count:
            roles[role] = roles.get(role, 0) + count
    if not roles:
        raise errors.InvalidArgument("Need a positive value for at least one role")
    if sum(roles.values()) > NODES_LIMIT:
        raise errors.InvalidArgument(f"Invalid number of nodes {sum(roles.values())}, at most {NODES_LIMIT} can be asked for at once")
    return roles
