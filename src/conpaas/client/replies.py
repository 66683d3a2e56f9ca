"""What the Director and the managers answer, as checked dataclasses: a reply of another shape is a plain error, never a traceback."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from conpaas.core import errors

T = TypeVar("T")
DEFAULT_MANAGER_PORT = 443
_INSIDE_DEFAULT_CLOUD = "iaas"


def malformed(what: str, value: object) -> errors.RemoteError:
    """The error for a reply whose shape makes no sense; the reply is quoted shortly."""
    shown = repr(value)
    return errors.RemoteError(f"The reply is not {what}: {shown if len(shown) <= 120 else shown[:117] + '...'}")


def mapping(value: object, what: str = "an object") -> Mapping[str, Any]:
    """Check that `value` is a JSON object."""
    if not isinstance(value, dict):
        raise malformed(what, value)
    return value


def sequence(value: object, what: str = "a list") -> list[Any]:
    """Check that `value` is a JSON list."""
    if not isinstance(value, list):
        raise malformed(what, value)
    return value


def each(value: object, read: Callable[[Any], T], what: str) -> list[T]:
    """Check that `value` is a list and read each of its items."""
    return [read(item) for item in sequence(value, what)]


def integer(value: object, what: str) -> int:
    """Check that `value` is a whole number (or the text of one)."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise malformed(what, value)
    try:
        return int(value)
    except ValueError as error:
        raise malformed(what, value) from error


def text(value: object, default: str = "") -> str:
    """The text of a JSON value; null is `default`."""
    return default if value is None else str(value)


def number(value: object) -> float:
    """A floating-point number, 0.0 for anything that is none."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return 0.0


def outside_cloud(name: object) -> str | None:
    """The name users know a cloud by: the first one is called `default`."""
    if name is None:
        return None
    return "default" if name == _INSIDE_DEFAULT_CLOUD else str(name)


@dataclasses.dataclass(frozen=True)
class Application:
    """One application of the user; `manager` is the address of its manager, None while there is none."""

    aid: int
    name: str
    status: str
    manager: str | None
    manager_port: int
    cloud: str | None
    reason: str
    operation: Operation | None = None

    @classmethod
    def read(cls, value: object) -> Application:
        reply = mapping(value, "an application")
        manager = reply.get("manager")
        return cls(
            aid=integer(reply.get("aid"), "an application (aid)"),
            name=text(reply.get("name")),
            status=text(reply.get("status")),
            manager=str(manager) if manager else None,
            manager_port=integer(reply.get("manager_port") or DEFAULT_MANAGER_PORT, "an application (manager_port)"),
            cloud=outside_cloud(reply.get("cloud")),
            reason=text(reply.get("reason")),
            operation=Operation.read(reply["operation"]) if isinstance(reply.get("operation"), dict) else None,
        )


@dataclasses.dataclass(frozen=True)
class Service:
    """One service; `sid` is unique inside its application only."""

    sid: int
    name: str
    type: str
    aid: int

    @classmethod
    def read(cls, value: object) -> Service:
        """Read an entry of /list (`{"service": …, "application": …}`) or the service object alone."""
        reply = mapping(value, "a service")
        reply = mapping(reply.get("service", reply), "a service")
        return cls(
            sid=integer(reply.get("sid"), "a service (sid)"),
            name=text(reply.get("name")),
            type=text(reply.get("type")),
            aid=integer(reply.get("application_id"), "a service (application_id)"),
        )


@dataclasses.dataclass(frozen=True)
class Resource:
    """One virtual machine in the Director's inventory."""

    rid: int
    aid: int | None
    vmid: str
    ip: str | None
    role: str
    cloud: str | None
    sid: int | None = None
    """The service that it works for; None for managers."""

    @classmethod
    def read(cls, value: object) -> Resource:
        reply = mapping(value, "a resource")
        aid, sid = reply.get("app_id"), reply.get("service_id")
        return cls(
            rid=integer(reply.get("rid"), "a resource (rid)"),
            aid=None if aid is None else integer(aid, "a resource (app_id)"),
            vmid=text(reply.get("vmid")),
            ip=None if reply.get("ip") is None else str(reply["ip"]),
            role=text(reply.get("role")),
            cloud=outside_cloud(reply.get("cloud")),
            sid=integer(sid, "a resource (service_id)") if sid else None,
        )


@dataclasses.dataclass(frozen=True)
class LogFile:
    """A log that an agent serves under `filename`."""

    filename: str
    description: str

    @classmethod
    def read(cls, value: object) -> LogFile:
        reply = mapping(value, "a log")
        return cls(text(reply.get("filename")), text(reply.get("description")))


@dataclasses.dataclass(frozen=True)
class Node:
    """One node of a service, in one of its roles."""

    id: str
    role: str
    ip: str | None
    cloud: str | None
    vmid: str = ""
    logs: tuple[LogFile, ...] = ()

    @classmethod
    def read(cls, value: object, node_id: str, role: str) -> Node:
        reply = mapping(mapping(value, "a node").get("serviceNode"), "a node")
        return cls(
            id=node_id,
            role=role,
            ip=None if reply.get("ip") is None else str(reply["ip"]),
            cloud=outside_cloud(reply.get("cloud")),
            vmid=text(reply.get("vmid")),
            logs=tuple(each(reply.get("logs") or [], LogFile.read, "a list of logs")),
        )


@dataclasses.dataclass(frozen=True)
class Volume:
    """One storage volume; `size` in MB, `agent` the node it is attached to; empty: it waits for one."""

    name: str
    size: int
    agent: str
    cloud: str | None
    sid: int

    @classmethod
    def read(cls, value: object) -> Volume:
        reply = mapping(value, "a volume")
        return cls(
            name=text(reply.get("vol_name")),
            size=integer(reply.get("vol_size"), "a volume (vol_size)"),
            agent=text(reply.get("vm_id")),
            cloud=outside_cloud(reply.get("cloud")),
            sid=integer(reply.get("service_id"), "a volume (service_id)"),
        )


@dataclasses.dataclass(frozen=True)
class CodeVersion:
    """One uploaded or pushed code version; exactly one is `current` once code is active."""

    id: str
    filename: str
    description: str
    current: bool

    @classmethod
    def read(cls, value: object) -> CodeVersion:
        reply = mapping(value, "a code version")
        return cls(text(reply.get("codeVersionId")), text(reply.get("filename")), text(reply.get("description")), "current" in reply)


@dataclasses.dataclass(frozen=True)
class StateChange:
    """One entry of a service's history; `time` in seconds since the epoch."""

    time: float
    state: str
    reason: str

    @classmethod
    def read(cls, value: object) -> StateChange:
        reply = mapping(value, "a state change")
        return cls(number(reply.get("time")), text(reply.get("state")), text(reply.get("reason")))


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation of a manager. `step` is the one under way: the first not done yet, or the last recorded; `note` the latest note."""

    id: str
    kind: str
    status: str
    step: str
    error: str
    started: float = 0.0
    note: str = ""

    @classmethod
    def read(cls, value: object) -> Operation:
        reply = mapping(value, "an operation")
        reply = mapping(reply.get("operation", reply), "an operation")
        steps = [mapping(step, "a step") for step in sequence(reply.get("steps") or [], "a list of steps")]
        unfinished = [step for step in steps if text(step.get("status")).lower() not in ("done", "undone")]
        current = unfinished[0] if unfinished else (steps[-1] if steps else {})
        notes = [mapping(note, "a note") for note in sequence(reply.get("notes") or [], "a list of notes")]
        return cls(
            id=text(reply.get("operationId", reply.get("id"))),
            kind=text(reply.get("kind")),
            status=text(reply.get("status")).upper(),
            step=text(current.get("name")),
            error=text(reply.get("error", reply.get("reason"))),
            started=number(reply.get("started")),
            note=text(notes[-1].get("text")) if notes else "",
        )

    @property
    def finished(self) -> bool:
        return self.status in ("DONE", "UNDONE", "FAILED")


@dataclasses.dataclass(frozen=True)
class LogPart:
    """A stretch of a log; `next` is the offset (bytes) to go on from, None if the server only serves whole logs."""

    text: str
    next: int | None
    size: int | None

    @classmethod
    def read(cls, value: object) -> LogPart:
        reply = mapping(value, "a log")
        following, size = reply.get("offset"), reply.get("size")
        return cls(
            text(reply.get("log")),
            None if following is None else integer(following, "a log (offset)"),
            None if size is None else integer(size, "a log (size)"),
        )
