"""What a service manager is given, and what it knows and does by that: its nodes, disks, codes, settings, state and operations."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from conpaas.core import agents, callbacker, config, errors, figures, log, migration, node, pages, params, paths, states
from conpaas.core import operations as ops
from conpaas.core.https import identity
from conpaas.core.state import records, settings, store

if TYPE_CHECKING:
    from conpaas.core import manager

Submit = Callable[[ops.OperationKind, int, Mapping[str, Any], str], ops.Operation]
Peers = Callable[[int], "manager.BaseManager | None"]
"""Finds the manager of another service of the application."""


@dataclasses.dataclass(frozen=True)
class ManagerContext:
    """What a service manager is built from. `director` is for what only the Director knows; nodes and volumes come by operations.

    `peers` finds the other services of the application, for what `BaseManager` offers to them; `page` is what a web front-end shows.
    """

    service_id: int
    type: str
    config: config.Config
    paths: paths.Paths
    store: store.Store
    agents: agents.AgentCaller
    director: callbacker.Callbacker
    submit: Submit
    peers: Peers = lambda _: None
    page: pages.Page = dataclasses.field(default_factory=pages.Page)


class ServiceCodes:
    """The code versions of one service, on disk (`records.CodeRecord`)."""

    def __init__(self, codes: records.Codes, service_id: int) -> None:
        self._codes = codes
        self._service_id = service_id

    def add(self, record: records.CodeRecord) -> None:
        """Record a version; one with the same id is replaced."""
        self._codes.add(self._service_id, record)

    def list(self) -> Sequence[records.CodeRecord]:
        """All versions, newest first."""
        return self._codes.list(self._service_id)

    def get(self, version_id: str) -> records.CodeRecord:
        """One version. Raises `errors.NotFound`."""
        record = self._codes.find(self._service_id, version_id)
        if record is None:
            raise errors.NotFound(f"There is no code version '{version_id}'.")
        return record

    def delete(self, version_id: str) -> None:
        """Forget a version. Idempotent."""
        self._codes.delete(self._service_id, version_id)

    def current(self) -> records.CodeRecord | None:
        """The version in use, if any."""
        return self._codes.current(self._service_id)

    def set_current(self, version_id: str) -> None:
        """Make a version the one in use. Raises `errors.NotFound`."""
        self._codes.set_current(self._service_id, version_id)


class ServiceParts:
    """The ground that `manager.BaseManager` stands on; nothing of it is to be overridden."""

    operations: ClassVar[tuple[ops.OperationKind, ...]] = ()
    """Kinds of operation of this service type; their steps name methods `def _step(self, op)`."""

    def __init__(self, context: ManagerContext) -> None:
        self.service_id = context.service_id
        self.type = context.type
        self.config = context.config
        self.paths = context.paths
        self.agents = context.agents
        self.director = context.director
        self.peers = context.peers
        self.settings: settings.Settings = context.store.settings(context.service_id)
        self.code_versions = ServiceCodes(context.store.codes, context.service_id)
        self.operation: ops.Operation | None = None
        self.victims: tuple[str, ...] | None = None
        self.figures = figures.Figures(context.page, context.store.measurements, context.service_id)
        self._store = context.store
        self._submit = context.submit
        self.log: logging.Logger = self._open_log()

    def _open_log(self) -> logging.Logger:
        return log.open_service(self.service_id, self.log_file)

    @property
    def log_file(self) -> pathlib.Path:
        """This service's own log."""
        own = self.paths.log_file
        return own.with_name(f"{own.stem}{self.service_id or ''}{own.suffix}")

    @property
    def data_dir(self) -> pathlib.Path:
        """A directory for durable files of this service, removed with the service."""
        return self._made(self.paths.lib / "services" / str(self.service_id))

    @property
    def code_dir(self) -> pathlib.Path:
        """Where this service keeps uploaded code, removed with the service."""
        return self._made(self.paths.cache / "code_repo" / str(self.service_id))

    @staticmethod
    def _made(directory: pathlib.Path) -> pathlib.Path:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return directory

    @property
    def nodes(self) -> list[node.ServiceNode]:
        """The nodes in service, in order of addition, as they are at this moment."""
        return list(self._store.nodes.members(self.service_id))

    @property
    def volumes(self) -> list[node.ServiceVolume]:
        """The volumes of this service made by `create_volume`."""
        return [record.as_volume() for record in self._store.volumes.all(self.service_id) if record.status == records.VolumeStatus.ATTACHED]

    def kept_disk(self, one: node.ServiceNode) -> node.ServiceVolume | None:
        """The disk of a node whose data outlive the node's VM, if it has one (`get_role_disk`)."""
        return next((record.as_volume() for record in self._store.disks.on(self.service_id, [one.id])), None)

    def spare_disks(self, role: str) -> dict[str, node.ServiceVolume]:
        """The disks that wait for the next node of a role, by the nodes that had them last."""
        spare = self._store.disks.spare(self.service_id)
        return {record.former: record.as_volume() for record in spare if record.role == role and record.former}

    @property
    def state(self) -> states.State:
        record = self._store.services.find(self.service_id)
        return record.state if record else states.State.STOPPED

    def check_state(self, *allowed: str) -> None:
        """Raise the classic `errors.WrongState` unless the service is in one of these states."""
        if self.state not in allowed:
            raise ops.wrong_state(allowed, self.state)

    def submit(self, kind: str, args: Mapping[str, Any] | None = None, caller: identity.PeerIdentity | str | None = None) -> ops.Operation:
        """Begin one of this service's own operations in the background. Raises `errors.WrongState` at once if it may not begin now."""
        return self._submit(self.operation_kind(kind), self.service_id, args or {}, str(caller or ""))

    def operation_kind(self, name: str) -> ops.OperationKind:
        for kind in self.operations:
            if kind.name == name:
                return kind
        raise errors.NotFound(f"Services of type '{self.type}' have no operation '{name}'.")

    def note(self, text: str) -> None:
        """Tell whoever waits for the operation under way what is being done."""
        self.log.info("%s", text)
        if self.operation is not None:
            self.operation.note(text)

    def get_node(self, node_id: str, name: str = "serviceNodeId") -> node.ServiceNode:
        """A node in service by its id. Raises the classic `errors.InvalidArgument` naming the parameter `name`."""
        by_id = {one.id: one for one in self.nodes}
        params.must_be_one_of(name, node_id, list(by_id))
        return by_id[node_id]

    def set_role(self, node_id: str, role: str) -> None:
        """Note that a node in service plays another role from now on. Idempotent."""
        self._store.nodes.set_role(self.service_id, node_id, role)

    @property
    def idle(self) -> bool:
        """Whether no operation on the service is under way."""
        latest = self._store.operations.list(self.service_id, 1)
        return not latest or latest[0].status.finished

    @property
    def heirs(self) -> dict[str, str]:
        """In an operation by which nodes that move leave, or are lost before: each with the one that takes its place. Otherwise empty."""
        return migration.heirs_in(self.operation) if self.operation is not None else {}

    @property
    def departures(self) -> list[records.Departure]:
        """The nodes in service that are to leave because they have moved."""
        present = set(node.ids_of(self.nodes))
        return [one for one in self._store.nodes.departures().get(self.service_id, ()) if one.node_id in present]

    def refuse_while_moving(self) -> None:
        """Raise while nodes that have moved are still to leave."""
        leaving = ", ".join(one.node_id for one in self.departures)
        if leaving:
            raise errors.WrongState(
                f"The service still has nodes that have moved and are about to leave: {leaving}.",
                hint="wait until they are gone, or remove them by their ids to let them go now",
            )
