"""The application manager: service 0 of every application. It owns the life cycle of the services and all that is durable.

Here is what it is made of and who may do what when; what it answers to callers is in `application_calls`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from conpaas.core import (
    agents,
    application_calls,
    broken,
    callbacker,
    config,
    devices,
    engine,
    errors,
    health,
    lifecycle,
    log,
    manager,
    metrics,
    migration,
    migration_steps,
    node,
    pages,
    params,
    paths,
    rpc,
    service_parts,
    services,
    volumes,
    workers,
)
from conpaas.core import operations as ops
from conpaas.core.https import identity
from conpaas.core.state import records, store

_log = logging.getLogger(__name__)

CREATE_PATIENCE = 60.0
"""Seconds to wait for the addition of a service that a crash interrupted, before another one begins."""

_OPERATIONS = metrics.Counter("conpaas_operations_total")
_CALLS = metrics.Counter("conpaas_calls_total")
_SECONDS = metrics.Counter("conpaas_call_seconds_total")

_KINDS = {kind.name: kind for kind in (*lifecycle.KINDS, *migration.KINDS, *volumes.KINDS)}


class ApplicationManager(application_calls.ApplicationCalls):
    """Serves the calls of service 0, runs operations, and keeps one manager object per service.

    `start` brings back the services on record, continues what was under way and begins to watch the nodes; `rpc` answers calls from the
    moment the object exists.
    """

    def __init__(
        self,
        configuration: config.Config,
        director: callbacker.Callbacker,
        agent_caller: agents.AgentCaller,
        *,
        registry: services.Registry = services.registry,
        application: rpc.RpcApplication | None = None,
        pool: workers.Executor | None = None,
        undo_delay: float = engine.UNDO_DELAY,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        where = paths.Paths.from_config(configuration)
        self.store = store.Store(where.lib / "state.db")
        context = service_parts.ManagerContext(
            service_id=store.APPLICATION,
            type="application",
            config=configuration,
            paths=where,
            store=self.store,
            agents=agent_caller,
            director=director,
            submit=self._submit_operation,
            peers=self.find_manager,
        )
        super().__init__(context)
        self._context = context
        self.callbacker = director
        self.registry = registry
        self.rpc = application or rpc.RpcApplication()
        self._managers: dict[int, manager.BaseManager] = {}
        self._guard = threading.RLock()
        self._turns: dict[int, threading.RLock] = {}
        self._owners: dict[str, object] = self._make_owners(wall_clock)
        self.engine = engine.OperationEngine(
            self.store.operations,
            kind_of=self._kind_of,
            owner_of=self._owner_of,
            pool=pool,
            undo_delay=undo_delay,
            on_finish=self._finished,
        )
        settings = health.HealthSettings.from_config(configuration)
        self.health = health.HealthMonitor(self, settings, pool=pool, clock=clock, wall_clock=wall_clock)
        self.rpc.register(store.APPLICATION, self)

    def _open_log(self) -> logging.Logger:
        return log.get(f"{log.SERVICE_LOGGER}{store.APPLICATION}")

    def start(self, *, watch: bool = True) -> None:
        """Bring the services back, continue interrupted operations, watch the nodes."""
        for record in self.store.services.all():
            self.build_manager(record.id)
        resumed = self.engine.resume()
        _log.info("%d services on record, %d operations continued", len(self._managers), len(resumed))
        if watch:
            self.health.start()

    def close(self) -> None:
        """Stop; what is under way is continued at the next start."""
        self.health.close()
        self.engine.close()
        self.callbacker.close()
        self.agents.close()
        self.store.close()

    # What the steps of operations need (`lifecycle.Host`)

    def find_manager(self, service_id: int) -> manager.BaseManager | None:
        with self._guard:
            return self._managers.get(service_id)

    def build_manager(self, service_id: int) -> manager.BaseManager:
        with self._guard:
            known = self._managers.get(service_id)
            if known is None:
                known = self._make_manager(self.store.services.get(service_id))
                self._managers[service_id] = known
                self.rpc.register(service_id, known)
            return known

    def manager_of(self, op: ops.Operation) -> manager.BaseManager:
        service = self._get_manager(op.target)
        service.operation = op
        return service

    def _get_manager(self, service_id: int) -> manager.BaseManager:
        service = self.find_manager(service_id)
        if service is None:
            raise errors.NotFound(f"There is no service {service_id} in this application.")
        return service

    def _make_manager(self, record: records.ServiceRecord) -> manager.BaseManager:
        context = dataclasses.replace(self._context, service_id=record.id, type=record.type, page=self._page_of(record))
        try:
            made: manager.BaseManager = self.registry.get(record.type).load_manager()(context)
        except Exception as error:  # noqa: BLE001 - one service that cannot be loaded must not keep the others down
            _log.exception("service %d of type %s cannot be managed", record.id, record.type)
            stand_in = broken.BrokenService(context)
            stand_in.reason = f"Service {record.id} cannot be managed: {ops.describe(error)}"
            return stand_in
        return made

    def _page_of(self, record: records.ServiceRecord) -> pages.Page:
        """What the type's page shows; nothing if it cannot be loaded, as a service works without."""
        try:
            return self.registry.get(record.type).load_page()
        except errors.NotFound as error:
            _log.warning("service %d has no charts: %s", record.id, error)
            return pages.Page()

    def drop_manager(self, service_id: int) -> None:
        with self._guard:
            self._managers.pop(service_id, None)
        self.rpc.unregister(service_id)
        log.close_service(service_id)

    def managers(self) -> list[manager.BaseManager]:
        """The managers of all services, by id."""
        with self._guard:
            return [self._managers[key] for key in sorted(self._managers)]

    def startup_script(self, service_id: int) -> str:
        return self.store.scripts.get(service_id) or ""

    # Operations

    def _kind_of(self, op: ops.Operation) -> ops.OperationKind:
        if op.kind in _KINDS:
            return _KINDS[op.kind]
        return self._get_manager(op.target).operation_kind(op.kind)

    def _make_owners(self, wall_clock: Callable[[], float]) -> dict[str, object]:
        """Whose methods the steps of the kinds are that all services have."""
        device = self.config.get(self.config.main, "DEV_TARGET", devices.FIRST)
        rooms: tuple[tuple[tuple[ops.OperationKind, ...], object], ...] = (
            (lifecycle.KINDS, lifecycle.Lifecycle(self, device)),
            (migration.KINDS, migration_steps.MigrationSteps(self, device, wall_clock)),
            (volumes.KINDS, volumes.VolumeSteps(self, device)),
        )
        return {kind.name: owner for kinds, owner in rooms for kind in kinds}

    def _owner_of(self, op: ops.Operation) -> object:
        return self._owners[op.kind] if op.kind in self._owners else self.manager_of(op)

    def _submit_operation(self, kind: ops.OperationKind, target: int, args: Mapping[str, Any], requester: str) -> ops.Operation:
        return self.engine.submit(kind, target, args, requester)

    def _finished(self, op: ops.Operation) -> None:
        _OPERATIONS.add(kind=op.kind, status=str(op.status))
        service = self.find_manager(op.target)
        if service is not None:
            service.operation = None
        self.health.finished(op)

    @property
    def nodes(self) -> list[node.ServiceNode]:
        """The nodes of all services."""
        return [one for service in self.managers() for one in service.nodes]

    def samples(self) -> list[metrics.Sample]:
        """What `/metrics` tells of the application."""
        found: list[metrics.Sample] = [
            ("conpaas_operations_active", (), float(len(self.engine.active()))),
            ("conpaas_nodes_unanswering", (), float(len(self.health.unanswering()))),
            ("conpaas_volumes", (), float(len(self.store.volumes.names()))),
        ]
        for service in self.managers():
            labels = (("service", str(service.service_id)), ("type", service.type))
            found.append(("conpaas_nodes", labels, float(len(service.nodes))))
            found.append(("conpaas_service_state", (*labels, ("state", str(service.state))), 1.0))
        return found

    # What the calls need (`application_calls.ApplicationCalls`)

    @contextlib.contextmanager
    def turn(self, service_id: int) -> Iterator[manager.BaseManager]:
        params.must_be_one_of("service_id", service_id, [one.service_id for one in self.managers()])
        with self._turn(service_id):
            yield self._get_manager(service_id)

    def _turn(self, service_id: int) -> threading.RLock:
        """The one lock of a service; `setdefault` is atomic, so that two requests at once get the same."""
        return self._turns.setdefault(service_id, threading.RLock())

    def begin(self, kind: ops.OperationKind, service: manager.BaseManager, args: dict[str, Any], requester: str) -> str:
        return self.engine.submit(kind, service.service_id, args, requester).id

    def create_service(self, service_type: str, request: str | None, requester: str) -> dict[str, Any]:
        with self._turn(store.APPLICATION):
            known = self.store.services.find_request(request) if request else None
            if known is not None and self.find_manager(known) is not None:
                return {"service_id": known}
            for interrupted in self.engine.active():
                if interrupted.kind == lifecycle.CREATE.name:
                    self.engine.wait(interrupted.id, CREATE_PATIENCE)
            op = self.engine.run(lifecycle.CREATE, store.APPLICATION, {"service_type": service_type, "request": request}, requester)
        return {"service_id": op.data["service_id"], "operation": op.id}


def create(configuration: config.Config, credentials: identity.Credentials) -> ApplicationManager:
    """The manager of the application that a configuration describes, with real agents and a real Director."""
    main = configuration.main
    uid, aid = configuration.get_int(main, "USER_ID"), configuration.get_int(main, "APP_ID")
    director = callbacker.DirectorCallbacker.connect(
        configuration.get(main, "DIRECTOR_URL"),
        credentials,
        aid,
        configuration.get(main, "MY_IP"),
        unreachable_for=configuration.get_float(main, "DIRECTOR_TIMEOUT", callbacker.UNREACHABLE_FOR, minimum=0.0),
    )
    caller = agents.HttpsAgentCaller.connect(credentials, uid, aid, configuration.get_int(main, "AGENT_PORT", node.AGENT_PORT))
    made = ApplicationManager(configuration, director, caller, application=rpc.RpcApplication(_observe))
    metrics.collect(made.samples)
    return made


def _observe(method: str, seconds: float, outcome: str) -> None:
    _CALLS.add(method=method, outcome=outcome)
    _SECONDS.add(seconds, method=method)
