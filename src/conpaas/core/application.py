"""The application manager: service 0 of every application. It owns the life cycle of the services and all that is durable."""

from __future__ import annotations

import collections
import contextlib
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
    errors,
    expose,
    health,
    lifecycle,
    log,
    manager,
    metrics,
    node,
    params,
    paths,
    rpc,
    services,
    states,
    volumes,
    workers,
)
from conpaas.core import operations as ops
from conpaas.core.https import identity
from conpaas.core.state import records, store

_log = logging.getLogger(__name__)

NODES_LIMIT = 1000
"""Nodes that one request may add or remove."""

_SERVICE = params.Param("service_id", params.Integer(), help="the number of a service")
_CLOUD = params.Param("cloud", params.Text(max_length=64), default=node.DEFAULT_CLOUD, help="where to get nodes")
_NODES = params.Param("nodes", params.Mapping(params.Integer(), max_items=64), help="how many nodes of each role")

_OPERATIONS = metrics.Counter("conpaas_operations_total")
_CALLS = metrics.Counter("conpaas_calls_total")
_SECONDS = metrics.Counter("conpaas_call_seconds_total")

_KINDS = {kind.name: kind for kind in (*lifecycle.KINDS, *volumes.KINDS)}
_VOLUME_KINDS = frozenset(kind.name for kind in volumes.KINDS)


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
        undo_delay: float = ops.UNDO_DELAY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        where = paths.Paths.from_config(configuration)
        self.store = store.Store(where.lib / "state.db")
        context = manager.ManagerContext(
            service_id=store.APPLICATION,
            type="application",
            config=configuration,
            paths=where,
            store=self.store,
            agents=agent_caller,
            submit=self._submit_operation,
        )
        super().__init__(context)
        self._context = context
        self.callbacker = director
        self.registry = registry
        self.rpc = application or rpc.RpcApplication()
        self._managers: dict[int, manager.BaseManager] = {}
        self._guard = threading.RLock()
        self._turns: dict[int, threading.RLock] = collections.defaultdict(threading.RLock)
        self._lifecycle = lifecycle.Lifecycle(self)
        self._volume_steps = volumes.VolumeSteps(self, configuration.get(configuration.main, "DEV_TARGET", volumes.FIRST_DEVICE))
        self.engine = ops.OperationEngine(
            self.store.operations,
            kind_of=self._kind_of,
            owner_of=self._owner_of,
            pool=pool,
            undo_delay=undo_delay,
            on_finish=self._finished,
        )
        self.health = health.HealthMonitor(self, health.HealthSettings.from_config(configuration), pool=pool, clock=clock)
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

    def _make_manager(self, record: records.ServiceRecord) -> manager.BaseManager:
        context = manager.ManagerContext(
            service_id=record.id,
            type=record.type,
            config=self.config,
            paths=self.paths,
            store=self.store,
            agents=self.agents,
            submit=self._submit_operation,
        )
        try:
            made: manager.BaseManager = self.registry.get(record.type).load_manager()(context)
        except Exception as error:  # noqa: BLE001 - one service that cannot be loaded must not keep the others down
            _log.exception("service %d of type %s cannot be managed", record.id, record.type)
            stand_in = broken.BrokenService(context)
            stand_in.reason = f"Service {record.id} cannot be managed: {ops.describe(error)}"
            return stand_in
        return made

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
        service = self.find_manager(op.target)
        if service is None:
            raise errors.NotFound(f"There is no service {op.target} in this application.")
        return service.operation_kind(op.kind)

    def _owner_of(self, op: ops.Operation) -> object:
        if op.kind in _VOLUME_KINDS:
            return self._volume_steps
        if op.kind in _KINDS:
            return self._lifecycle
        service = self.find_manager(op.target)
        if service is None:
            raise errors.NotFound(f"There is no service {op.target} in this application.")
        service.operation = op
        return service

    def _submit_operation(self, kind: ops.OperationKind, target: int, args: Mapping[str, Any], requester: str) -> ops.Operation:
        return self.engine.submit(kind, target, args, requester)

    def _finished(self, op: ops.Operation) -> None:
        _OPERATIONS.add(kind=op.kind, status=str(op.status))
        service = self.find_manager(op.target)
        if service is not None:
            service.operation = None
        self.health.finished(op)

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

    @contextlib.contextmanager
    def turn(self, service_id: int) -> Iterator[manager.BaseManager]:
        """The manager of a service, while no other request may begin something on it."""
        params.must_be_one_of("service_id", service_id, [one.service_id for one in self.managers()])
        with self._turns[service_id]:
            service = self.find_manager(service_id)
            if service is None:
                raise errors.NotFound(f"There is no service {service_id} in this application.")
            yield service

    def begin(self, kind: ops.OperationKind, service: manager.BaseManager, args: dict[str, Any], caller: Any) -> dict[str, Any]:
        op = self.engine.submit(kind, service.service_id, args, str(caller or ""))
        return {"operation": op.id}

    # Calls: the application

    @property
    def nodes(self) -> list[node.ServiceNode]:
        """The nodes of all services."""
        return [one for service in self.managers() for one in service.nodes]

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
            "volumes": [record.name for record in self.store.volumes.all() if record.status == records.ATTACHED],
            "types": {str(service.service_id): service.type for service in self.managers()},
        }

    @expose.expose("GET", params.Param("limit", params.Integer(minimum=1, maximum=200), default=20, help="how many, newest first"))
    def list_operations(self, limit: int) -> dict[str, Any]:
        """List the operations on all services, newest first."""
        return {"operations": [op.to_dict() for op in self.store.operations.recent(limit)]}

    @expose.expose(
        "POST",
        params.Param("service_type", params.Text(max_length=64), help="one of the installed types"),
        params.Param("request", params.Text(max_length=100), default=None, help="a key; the same key adds the same service once"),
    )
    def add_service(self, service_type: str, request: str | None, caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """Add a service of a type; it has no nodes until it is started."""
        params.must_be_one_of("service_type", service_type, self.registry.available())
        self.registry.get(service_type).load_manager()
        with self._turns[store.APPLICATION]:
            known = self.store.services.find_request(request) if request else None
            if known is not None and self.find_manager(known) is not None:
                return {"service_id": known}
            for interrupted in self.engine.active():
                if interrupted.kind == lifecycle.CREATE.name:
                    self.engine.wait(interrupted.id, 60.0)
            op = self.engine.run(lifecycle.CREATE, store.APPLICATION, {"service_type": service_type, "request": request}, str(caller or ""))
        return {"service_id": op.data["service_id"], "operation": op.id}

    @expose.expose("POST", _SERVICE)
    def remove_service(self, service_id: int, caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """Remove a service with its nodes, volumes, settings and code."""
        with self.turn(service_id) as service:
            return self.begin(lifecycle.DELETE, service, {}, caller)

    # Calls: life cycle of a service

    @expose.expose("POST", _SERVICE, _CLOUD)
    def start_service(self, service_id: int, cloud: str, caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """Start a service on its first nodes."""
        with self.turn(service_id) as service:
            service.check_state(*map(states.State, lifecycle.START.allowed))
            self._check_credit()
            begun = self.begin(lifecycle.START, service, {"cloud": cloud or node.DEFAULT_CLOUD}, caller)
        return {"state": str(service.state), **begun}

    @expose.expose(
        "POST",
        _SERVICE,
        params.Param("force", params.Boolean(), default=False, help="give the nodes back even if the service cannot be shut down in order"),
    )
    def stop_service(self, service_id: int, force: bool, caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """Stop a service and give all its nodes back."""
        with self.turn(service_id) as service:
            forced = force or service.state is states.State.ERROR
            begun = self.begin(lifecycle.STOP, service, {"force": forced}, caller)
        return {"state": str(service.state), **begun}

    @expose.expose("POST", _SERVICE, _NODES, _CLOUD)
    def add_nodes(self, service_id: int, nodes: dict[str, int], cloud: str, caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """Add nodes to a running service."""
        with self.turn(service_id) as service:
            roles = _check_roles(service, nodes)
            service.check_state(states.State.RUNNING)
            self._check_credit()
            service.check_add_nodes(dict(roles))
            begun = self.begin(lifecycle.ADD, service, {"nodes": roles, "cloud": cloud or node.DEFAULT_CLOUD}, caller)
        return {"state": str(service.state), **begun}

    @expose.expose(
        "POST",
        _SERVICE,
        params.Param("nodes", params.Mapping(params.Integer(), max_items=64), default=None, help="how many nodes of each role"),
        params.Param("nodeIds", params.ListOf(params.Text(max_length=256)), default=None, help="exactly which nodes, instead of how many"),
    )
    def remove_nodes(
        self, service_id: int, nodes: dict[str, int] | None, node_ids: list[str] | None, caller: identity.PeerIdentity | None
    ) -> dict[str, Any]:
        """Remove nodes from a running service: the newest of each role, or those named."""
        with self.turn(service_id) as service:
            if node_ids:
                chosen = [service.get_node(one, "nodeIds") for one in dict.fromkeys(node_ids)]
                nodes = dict(collections.Counter(one.role for one in chosen))
                roles = nodes
            else:
                roles = _check_roles(service, nodes if nodes is not None else _missing("nodes"))
            service.check_state(states.State.RUNNING)
            service.check_remove_nodes(dict(roles))
            begun = self.begin(lifecycle.REMOVE, service, {"nodes": roles, "node_ids": node_ids}, caller)
        return {"state": str(service.state), **begun}

    @expose.expose("POST", _SERVICE)
    def recover_service(self, service_id: int, caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """Bring a service out of ERROR: keep the nodes that work, give back the others, start it on what is left."""
        with self.turn(service_id) as service:
            begun = self.begin(lifecycle.RECOVER, service, {}, caller)
        return {"state": str(service.state), **begun}

    @expose.expose("POST")
    def stopall(self, caller: identity.PeerIdentity | None) -> dict[str, Any]:
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

    def _check_credit(self) -> None:
        if self.callbacker.credit() <= 0:
            raise errors.InsufficientCredits

    @expose.expose("GET", *manager.AGENT_LOG_PARAMS)
    def get_agent_log(self, agent_id: str, filename: str | None, offset: int | None, limit: int) -> dict[str, Any]:
        """Read a log of any node of the application."""
        params.must_be_one_of("agentId", agent_id, self.store.nodes.ids())
        owner = self.find_manager(self.store.nodes.owner(agent_id) or store.APPLICATION)
        return owner.get_agent_log(agent_id, filename, offset, limit) if owner else super().get_agent_log(agent_id, filename, offset, limit)


def _missing(name: str) -> dict[str, int]:
    raise errors.InvalidArgument(f"Missing the mandatory parameter '{name}'.")


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
