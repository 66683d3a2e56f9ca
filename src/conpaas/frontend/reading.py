"""What an application is and does right now, read from the Director and its manager with as few calls as can be.

Most readings are one cheap call of the manager (`get_app_info`: states and ids). Names, nodes, volumes, operations and the bill are read
anew only when that changed, while something is under way, and now and then.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any, Final

from conpaas.client import api, replies
from conpaas.core import errors
from conpaas.frontend import rendering, upstream

OPERATIONS: Final = 30
DIRECTOR_ROUNDS: Final = 3
"""While all is calm, the Director is asked in every so manieth round only, unless it tells when something changed."""

DETAIL_ROUNDS: Final = 10
SURE_ROUNDS: Final = 30
"""The same for an application without a manager where the Director tells that nothing changed."""
FINISHED: Final = frozenset({"DONE", "UNDONE", "FAILED"})


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of an operation."""

    name: str
    status: str

    @property
    def done(self) -> bool:
        return self.status in ("DONE", "UNDONE")


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation of the Director (`sid` None) or of the manager. Times in seconds since the epoch, 0: not yet."""

    id: str
    kind: str
    sid: int | None
    status: str
    requester: str
    error: str
    note: str
    started: float
    finished_at: float
    steps: tuple[Step, ...]

    @classmethod
    def read(cls, value: object, *, ours: bool = False) -> Operation:
        """Read a record; `ours`: of the Director, where the operation is on the application as a whole."""
        reply = replies.mapping(value, "an operation")
        steps = [replies.mapping(step, "a step") for step in reply.get("steps") or ()]
        notes = [replies.mapping(note, "a note") for note in reply.get("notes") or ()]
        return cls(
            id=replies.text(reply.get("operationId")),
            kind=replies.text(reply.get("kind")),
            sid=None if ours else int(reply.get("service_id") or 0),
            status=replies.text(reply.get("status")).upper(),
            requester=replies.text(reply.get("requester")),
            error=replies.text(reply.get("error") or reply.get("reason")),
            note=replies.text(notes[-1].get("text")) if notes else "",
            started=replies.number(reply.get("started")),
            finished_at=replies.number(reply.get("finished")),
            steps=tuple(Step(replies.text(step.get("name")), replies.text(step.get("status")).upper()) for step in steps),
        )

    @property
    def finished(self) -> bool:
        return self.status in FINISHED

    @property
    def seconds(self) -> float:
        """How long it took."""
        return max(0.0, self.finished_at - self.started) if self.finished_at else 0.0

    @property
    def done_steps(self) -> int:
        return sum(step.done for step in self.steps)

    @property
    def step(self) -> str:
        """The step under way, or the last."""
        return next((step.name for step in self.steps if not step.done), self.steps[-1].name if self.steps else "")


@dataclasses.dataclass(frozen=True)
class Service:
    """A service with its state and its nodes."""

    sid: int
    name: str
    type: str
    state: str
    nodes: tuple[replies.Node, ...] = ()

    @property
    def machines(self) -> int:
        """How many nodes; one with two roles is one."""
        return len({node.id for node in self.nodes})

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of its nodes, each once."""
        return tuple(dict.fromkeys(node.ip for node in self.nodes if node.ip))


@dataclasses.dataclass(frozen=True)
class Seen:
    """An application as it was at `at` (seconds since the epoch); `version` is what the Director called all of its owner's then."""

    application: replies.Application
    services: tuple[Service, ...] = ()
    volumes: tuple[replies.Volume, ...] = ()
    operations: tuple[Operation, ...] = ()
    machines: tuple[replies.Resource, ...] = ()
    manager_trouble: str = ""
    at: float = 0.0
    rounds: int = 0
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    version: str = ""

    @property
    def status(self) -> str:
        return self.application.status

    @property
    def running(self) -> bool:
        """Whether there is a manager to talk to."""
        return _has_manager(self.application)

    @property
    def lost(self) -> bool:
        """Whether what the manager knows cannot be had: it is silent, or gone for good."""
        return bool(self.manager_trouble) or _has_lost_manager(self.application)

    @property
    def per_hour(self) -> int:
        """Credits for each hour: one for each machine."""
        return len(self.machines)

    @property
    def under_way(self) -> tuple[Operation, ...]:
        return tuple(one for one in self.operations if not one.finished)

    @property
    def changing(self) -> bool:
        """Whether something is under way."""
        states = [self.status, *(service.state for service in self.services)]
        return bool(self.under_way) or any(state in rendering.TRANSIENT for state in states)

    def service(self, sid: int) -> Service:
        """One of its services. Raises NotFound."""
        for service in self.services:
            if service.sid == sid:
                return service
        raise errors.NotFound(f"There is no service {sid} in the application '{self.application.name}'.")

    def service_name(self, sid: int | None) -> str:
        """What a service is called; the text is empty for the application and for what is gone."""
        return next((service.name for service in self.services if service.sid == sid), "")


def _has_manager(application: replies.Application) -> bool:
    return application.manager is not None and application.status in ("RUNNING", "ADAPTING")


def _has_lost_manager(application: replies.Application) -> bool:
    return application.manager is not None and application.status == "ERROR"


def read(way: upstream.Upstream, aid: int, before: Seen | None = None) -> Seen:
    """The application now. Raises NotFound, and Unreachable when the Director does not answer; a silent manager is told in the result."""
    rounds = before.rounds + 1 if before else 0
    version = way.version()
    application = way.application(aid) if before is None or _ask_director(before, version, rounds) else before.application
    info: Mapping[str, Any] = {}
    trouble = ""
    if _has_manager(application):
        try:
            info = way.manager(application).application_info()
        except errors.RemoteError as error:
            application = way.application(aid)  # a manager that is silent may have been stopped
            trouble = str(error) if _has_manager(application) else ""
    same = (
        before is not None and before.info == info and before.application == application and bool(trouble) == bool(before.manager_trouble)
    )
    same = same and before is not None and version == before.version
    often = SURE_ROUNDS if version and not info and not trouble else DETAIL_ROUNDS
    if before is not None and same and not before.changing and rounds % often:
        return dataclasses.replace(before, rounds=rounds, at=time.time())
    return dataclasses.replace(_details(way, application, info, trouble, before), rounds=rounds, version=version)


def _ask_director(before: Seen, version: str, rounds: int) -> bool:
    """Whether an application may be another one than it was."""
    if before.changing or before.manager_trouble:
        return True
    return version != before.version if version else not before.running or rounds % DIRECTOR_ROUNDS == 0


def _details(way: upstream.Upstream, application: replies.Application, info: Mapping[str, Any], trouble: str, before: Seen | None) -> Seen:
    manager = way.manager(application) if info else None
    declared = way.director.services(application.aid)
    services: tuple[Service, ...] = ()
    volumes: tuple[replies.Volume, ...] = ()
    lost = bool(trouble) or _has_lost_manager(application)
    if manager is not None:
        known = {node.id: node for service in (before.services if before else ()) for node in service.nodes}
        states = replies.mapping(info.get("states") or {}, "the states of an application")
        services = tuple(_service(manager, one, str(states.get(str(one.sid), "INIT")), known) for one in declared)
        volumes = tuple(manager.volumes())
    elif before is not None and lost:
        services = tuple(dataclasses.replace(service, state="UNREACHABLE") for service in before.services)
        volumes = before.volumes
    else:
        services = tuple(Service(one.sid, one.name, one.type, "UNREACHABLE" if lost else "INIT") for one in declared)
    return Seen(
        application=application,
        services=services,
        volumes=volumes,
        operations=operations(way, application.aid, manager),
        machines=tuple(one for one in way.director.resources() if one.aid == application.aid),
        manager_trouble=trouble,
        at=time.time(),
        info=info,
    )


def _service(manager: api.Manager, declared: replies.Service, state: str, known: Mapping[str, replies.Node]) -> Service:
    nodes: list[replies.Node] = []
    if state in ("RUNNING", "ADAPTING"):
        try:
            for role, node_id in manager.node_ids(declared.sid):
                found = known.get(node_id) or manager.node(declared.sid, node_id, role)
                nodes.append(dataclasses.replace(found, role=role))
        except errors.RemoteError:
            nodes = []  # a node may leave between two calls; the next reading tells
    return Service(declared.sid, declared.name, declared.type, state, tuple(nodes))


def operations(way: upstream.Upstream, aid: int, manager: api.Manager | None) -> tuple[Operation, ...]:
    """What was done to the application and its services, newest first."""
    reply = replies.sequence(way.director.get(f"/app_history/{aid}", limit=OPERATIONS), "a list of operations")
    found = [Operation.read(value, ours=True) for value in reply]
    if manager is not None:
        try:
            mine = replies.mapping(manager.get("list_operations", params={"limit": OPERATIONS}), "a list of operations")
            found += [Operation.read(value) for value in replies.sequence(mine.get("operations") or [], "a list of operations")]
        except errors.RemoteError:
            pass  # the manager is busy ending or starting; the Director's part is shown
    return tuple(sorted(found, key=lambda one: one.started, reverse=True)[:OPERATIONS])
