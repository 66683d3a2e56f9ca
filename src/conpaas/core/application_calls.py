"""Calls of service 0 about what belongs to the application: volumes, startup scripts, pushed code."""

from __future__ import annotations

import abc
import contextlib
from typing import Any

from conpaas.core import errors, expose, manager, params, states, volumes
from conpaas.core import operations as ops
from conpaas.core.https import identity
from conpaas.core.state import store

SCRIPT_LIMIT = 64 * 1024
"""Bytes of a startup script."""


class ApplicationCalls(manager.BaseManager, abc.ABC):
    """The part of the application manager that answers these calls."""

    store: store.Store

    @abc.abstractmethod
    def managers(self) -> list[manager.BaseManager]:
        """The managers of all services, by id."""

    @abc.abstractmethod
    def turn(self, service_id: int) -> contextlib.AbstractContextManager[manager.BaseManager]:
        """The manager of a service, while no other request may begin something on it."""

    @abc.abstractmethod
    def begin(self, kind: ops.OperationKind, service: manager.BaseManager, args: dict[str, Any], caller: Any) -> dict[str, Any]:
        """Begin an operation; the part of the reply that names it."""

    # Calls: volumes

    @expose.expose(
        "POST",
        params.Param("volumeName", params.Text(max_length=1000), help="letters, digits, - and _, at most 64"),
        params.Param("volumeSize", params.Integer(minimum=1), help="in MB"),
        params.Param("agentId", params.Text(max_length=256), help="the id of the node that gets it"),
    )
    def create_volume(self, volume_name: str, volume_size: int, agent_id: str, caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """Create a volume and attach it to a node."""
        if not volumes.NAME.fullmatch(volume_name):
            raise errors.InvalidArgument("Volume name contains invalid characters")
        if volume_size > volumes.MAX_SIZE:
            raise errors.InvalidArgument(f"Parameter 'volumeSize': {volume_size} is more than {volumes.MAX_SIZE}.")
        params.must_not_be_one_of("volumeName", volume_name, self.store.volumes.names())
        params.must_be_one_of("agentId", agent_id, self.store.nodes.ids())
        owner = self.store.nodes.owner(agent_id)
        with self.turn(owner or store.APPLICATION) as service:
            service.check_state(states.State.RUNNING)
            service.check_create_volume(volume_name, volume_size, agent_id)
            target = service.get_node(agent_id, "agentId")
            args = {"name": volume_name, "size": volume_size, "node": target.to_dict()}
            return {"service_id": owner, **self.begin(volumes.CREATE, service, args, caller)}

    @expose.expose("POST", params.Param("volumeName", params.Text(max_length=1000), help="the name of a volume"))
    def delete_volume(self, volume_name: str, caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """Take a volume off its node and destroy it with all that is on it."""
        params.must_be_one_of("volumeName", volume_name, self.store.volumes.names())
        record = self.store.volumes.find(volume_name)
        if record is None:
            raise errors.NotFound(f"There is no volume '{volume_name}' in this application.")
        with self.turn(record.service_id) as service:
            service.check_state(states.State.RUNNING)
            target = service.get_node(record.node_id, "agentId")
            service.check_delete_volume(target, record.as_volume())
            args = {"name": volume_name, "node": target.to_dict()}
            return {"service_id": record.service_id, **self.begin(volumes.DELETE, service, args, caller)}

    @expose.expose("POST", params.Param("service_id", params.Integer(minimum=0), default=0, help="of one service; 0 for all"))
    def list_volumes(self, service_id: int) -> dict[str, Any]:
        """List the volumes, those made together with nodes included."""
        if service_id != store.APPLICATION:
            params.must_be_one_of("service_id", service_id, [one.service_id for one in self.managers()])
        found = []
        for service in self.managers():
            if service_id in (store.APPLICATION, service.service_id):
                owned = {"service_id": service.service_id, "service_name": service.type}
                with_nodes = [(one.id, volume) for one in service.nodes for volume in one.volumes]
                found += [{**volume.to_dict(), "vm_id": node_id, **owned} for node_id, volume in with_nodes]
                found += [{**volume.to_dict(), **owned} for volume in service.volumes]
        return {"volumes": found}

    # Calls: scripts and code

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
