"""What all services have: state, nodes, operations, history. How it is read, and how a page follows it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent import futures
from typing import Any, Final

from conpaas.client import api, replies
from conpaas.core import errors
from conpaas.frontend import declared, live, panels, problems, reading, rendering, upstream

UNREACHABLE: Final = "UNREACHABLE"
OPERATIONS: Final = 10
HISTORY: Final = 30
READERS: Final = 6
NAME_AGE: Final = 10.0
"""Seconds after which it is looked up again what a service is called."""


@dataclasses.dataclass(frozen=True)
class Node:
    """A node with what `get_node_info` tells; `more` is what the type declares to be shown. `problem`: it cannot be told."""

    id: str
    roles: tuple[str, ...]
    ip: str = ""
    cloud: str = ""
    vmid: str = ""
    logs: tuple[tuple[str, str], ...] = ()
    more: tuple[panels.Cell, ...] = ()
    leaves_at: float | None = None
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class Seen:
    """What there is to see of a service. `problem`: its manager does not tell it now."""

    state: str
    nodes: tuple[Node, ...] = ()
    nodes_problem: str = ""
    operations: tuple[reading.Operation, ...] = ()
    history: tuple[replies.StateChange, ...] = ()
    problem: str = ""
    hint: str = ""
    signature: str = ""

    @property
    def reason(self) -> str:
        """Why the service is in its state."""
        return self.history[-1].reason if self.history else ""

    @property
    def since(self) -> float | None:
        return self.history[-1].time if self.history else None

    @property
    def failed(self) -> reading.Operation | None:
        """The latest operation, if it failed: what a person wants to know first."""
        latest = self.operations[0] if self.operations else None
        return latest if latest is not None and latest.finished and latest.error else None

    @property
    def current(self) -> reading.Operation | None:
        """The operation under way."""
        latest = self.operations[0] if self.operations else None
        return latest if latest is not None and not latest.finished else None

    def count(self, role: str) -> int:
        return sum(1 for node in self.nodes if role in node.roles)

    @property
    def pulse(self) -> str:
        """Changes when what the panels show may have changed: when a state or an operation ended."""
        ended = [(one.id, one.status) for one in self.operations if one.finished]
        return hashlib.sha256(json.dumps([self.state, ended, [node.id for node in self.nodes], bool(self.problem)]).encode()).hexdigest()[
            :12
        ]


def read(manager: api.Manager, sid: int, declaration: declared.Declaration, before: Seen | None = None) -> Seen:
    """Ask the manager: as long as nothing happened since `before`, two small questions. Raises ConPaaSError."""
    info = manager.application_info()
    states = replies.mapping(info.get("states"), "the states of an application")
    if str(sid) not in states:
        raise errors.NotFound(f"There is no service {sid} in application {manager.application.aid}.")
    state = replies.text(states[str(sid)])
    latest = _operations(manager, sid, 1)
    marks = [state, [(one.id, one.status) for one in latest], sorted(map(str, info.get("nodes") or []))]
    signature = json.dumps(marks)
    if before is not None and before.signature == signature and not before.nodes_problem:
        return dataclasses.replace(before, state=state, operations=(*latest, *before.operations[len(latest) :]), problem="", hint="")
    history = tuple(manager.history(sid)[-HISTORY:])
    nodes, trouble = _nodes(manager, sid, declaration)
    return Seen(state, nodes, trouble, _operations(manager, sid, OPERATIONS), history, signature=signature)


def _operations(manager: api.Manager, sid: int, limit: int) -> tuple[reading.Operation, ...]:
    told = replies.mapping(manager.get("list_operations", sid, {"limit": limit}), "a list of operations")
    return tuple(replies.each(told.get("operations") or [], reading.Operation.read, "a list of operations"))


def _kept(trouble: Seen, known: Seen | None) -> Seen:
    """What was known last, under the trouble of now."""
    return trouble if known is None else dataclasses.replace(trouble, nodes=known.nodes, operations=known.operations, history=known.history)


def unreachable(error: errors.ConPaaSError) -> Seen:
    """What there is to see while the manager does not answer."""
    described = problems.describe(error)
    return Seen(UNREACHABLE, problem=described.text, hint=described.hint)


def _nodes(manager: api.Manager, sid: int, declaration: declared.Declaration) -> tuple[tuple[Node, ...], str]:
    """The nodes with their roles, in order; what is wrong when they cannot be listed."""
    try:
        roles: dict[str, list[str]] = {}
        for role, node_id in manager.node_ids(sid):
            roles.setdefault(node_id, []).append(role)
    except errors.ConPaaSError as error:
        return (), problems.describe(error).text

    def describe(node_id: str) -> Node:
        try:
            reply = replies.mapping(manager.get("get_node_info", sid, {"serviceNodeId": node_id}), "a node")
            return _node(replies.mapping(reply.get("serviceNode"), "a node"), node_id, roles[node_id], declaration)
        except errors.ConPaaSError as error:
            return Node(node_id, tuple(roles[node_id]), problem=problems.describe(error).text)

    with futures.ThreadPoolExecutor(READERS, thread_name_prefix="nodes") as pool:
        return tuple(pool.map(describe, roles)), ""


def _node(told: Mapping[str, Any], node_id: str, roles: Sequence[str], declaration: declared.Declaration) -> Node:
    logs = [replies.LogFile.read(one) for one in told.get("logs") or []]
    known = [role for role in roles if role in {one.name for one in declaration.roles}]
    leaves = told.get("leavesAt")
    return Node(
        node_id,
        tuple(known or [replies.text(told.get("role"))]),  # some types list their nodes under other names
        ip=replies.text(told.get("ip")),
        cloud=replies.outside_cloud(told.get("cloud")) or "",
        vmid=replies.text(told.get("vmid")),
        logs=tuple((one.filename, one.description) for one in logs),
        more=tuple(panels.cell(one, told) for one in declaration.node),
        leaves_at=float(leaves) if isinstance(leaves, int | float) else None,
    )


def around(seen: Seen, service: replies.Service, others: Iterable[replies.Service], manager: str) -> panels.Around:
    """What panels need to know of the service."""
    return panels.Around(
        service.aid,
        service.sid,
        service.name,
        seen.state,
        manager,
        tuple(panels.Node(one.id, role, one.ip) for one in seen.nodes for role in one.roles),
        tuple((one.sid, one.name) for one in others if one.sid != service.sid),
    )


@dataclasses.dataclass
class ServiceTopic:
    """A service as pages follow it (`live.Topic`)."""

    renderer: rendering.Renderer
    uid: int
    application: replies.Application
    service: replies.Service
    declaration: declared.Declaration
    clouds: Sequence[str] = ()
    named_at: float = dataclasses.field(default_factory=time.monotonic, compare=False)
    """When the service's name was learned."""

    @property
    def key(self) -> Hashable:
        return (self.uid, "service", self.service.aid, self.service.sid)

    def read(self, way: upstream.Upstream, before: Any) -> Seen:
        """What there is to see now. A manager that does not answer may have another address by now."""
        known = before if isinstance(before, Seen) else None
        self._learn_name(way)
        try:
            return read(way.manager(self.application), self.service.sid, self.declaration, known)
        except errors.Unreachable as error:
            self.application = way.application(self.service.aid)
            return _kept(unreachable(error), known)
        except errors.WrongState as error:
            self.application = way.application(self.service.aid)
            return unreachable(error)

    def _learn_name(self, way: upstream.Upstream) -> None:
        """Somebody may have renamed the service; a Director that is silent now knows no other name than before."""
        if time.monotonic() - self.named_at <= NAME_AGE:
            return
        self.named_at = time.monotonic()
        with contextlib.suppress(errors.Unreachable):
            self.service = way.service(self.service.aid, self.service.sid)

    def values(self, seen: Seen) -> dict[str, Any]:
        """What the templates of the common part need."""
        return {
            "seen": seen,
            "application": self.application,
            "service": self.service,
            "declaration": self.declaration,
            "clouds": self.clouds,
            "here": f"/apps/{self.service.aid}/services/{self.service.sid}",
        }

    def parts(self, seen: Seen) -> Mapping[str, str]:
        values = {**self.values(seen), "csrf": live.CSRF_PLACE}
        return {f"service-{name}": self.renderer.render(f"service/part-{name}.html", **values) for name in PARTS}

    def changing(self, seen: Seen) -> bool:
        return seen.state in rendering.TRANSIENT or seen.current is not None

    def news(self, before: Seen, seen: Seen) -> Sequence[str]:
        said = []
        if before.state != seen.state:
            said.append(f"{self.service.name}: {rendering.state_label(seen.state)}.")
        if seen.failed is not None and (before.failed is None or before.failed.id != seen.failed.id):
            said.append(f"{rendering.words(seen.failed.kind)} failed: {seen.failed.error}")
        return said


PARTS: Final = ("state", "nodes", "scale", "operations", "history", "pulse")
"""The live parts of the page: each is a template `part-NAME.html`, and the element that has `data-live="service-NAME"`."""
