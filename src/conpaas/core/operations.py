"""Operations: recorded changes made of named steps that survive a crash, and what a store of them must do.

An operation belongs to a *target* (a service, an application) and runs alone on it. Each of its steps is idempotent, is recorded when done
and may have an undo. When a step fails, that step (possibly partly done) and all before it are undone in reverse order; `engine` does that.
"""

from __future__ import annotations

import dataclasses
import enum
import time
from collections.abc import Callable
from typing import Any, Protocol

from conpaas.core import errors, states

State, STABLE, wrong_state = states.State, states.STABLE, states.wrong_state


class OperationStatus(enum.StrEnum):
    """How far an operation is. UNDONE: it failed and left no trace. FAILED: it failed and could not be undone."""

    RUNNING = "RUNNING"
    UNDOING = "UNDOING"
    DONE = "DONE"
    UNDONE = "UNDONE"
    FAILED = "FAILED"

    @property
    def finished(self) -> bool:
        return self not in (OperationStatus.RUNNING, OperationStatus.UNDOING)


class StepStatus(enum.StrEnum):
    """How far a step is. FAILED: its `do` failed and may have left something behind that its `undo` must remove."""

    PENDING = "PENDING"
    DONE = "DONE"
    FAILED = "FAILED"
    UNDONE = "UNDONE"


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of an operation.

    `do` and `undo` take the operation; a string names a method of the operation's owner. Both may be called again after a crash. A `do`
    fails by raising or by returning False. Without `undo` there is nothing to undo. Once the `do` of an `irreversible` step has begun there
    is no way back: a failure from then on leaves the operation FAILED instead of undone.
    """

    name: str
    do: Callable[[Operation], Any] | str
    undo: Callable[[Operation], Any] | str | None = None
    irreversible: bool = False


@dataclasses.dataclass(frozen=True)
class OperationKind:
    """A kind of operation.

    `allowed`: states of the target in which it may begin (empty: any). `transient`: the target's state meanwhile (None: unchanged).
    `final`: its state after success (None: the state before). A step may overrule `final` through `Operation.final`.
    `secrets`: names of arguments that a manager does not keep once the operation has ended.
    """

    name: str
    steps: tuple[Step, ...]
    allowed: tuple[str, ...] = ()
    transient: str | None = None
    final: str | None = None
    help: str = ""
    secrets: tuple[str, ...] = ()


@dataclasses.dataclass
class StepRecord:
    name: str
    status: StepStatus = StepStatus.PENDING
    at: float | None = None


@dataclasses.dataclass(frozen=True)
class Note:
    time: float
    text: str


@dataclasses.dataclass
class Operation:
    """One operation on record. `data` is scratch space of the steps, saved with every finished step and by `save`; it must be JSON."""

    id: str
    kind: str
    target: int
    args: dict[str, Any]
    requester: str = ""
    status: OperationStatus = OperationStatus.RUNNING
    data: dict[str, Any] = dataclasses.field(default_factory=dict)
    error: str | None = None
    started: float = dataclasses.field(default_factory=time.time)
    finished: float | None = None
    steps: list[StepRecord] = dataclasses.field(default_factory=list)
    notes: list[Note] = dataclasses.field(default_factory=list)
    store: OperationStore | None = dataclasses.field(default=None, repr=False, compare=False)

    def save(self) -> None:
        """Put `data` on disk now, before something outside is asked for that must not be forgotten."""
        if self.store is not None:
            self.store.save(self)

    def note(self, text: str) -> None:
        """Add a line to the operation's history, for the person who waits for it."""
        self.notes.append(Note(time.time(), text))
        if self.store is not None:
            self.store.note(self, text)

    @property
    def final(self) -> str | None:
        """The target's state after success, if a step chose it."""
        return self.data.get("_final")

    @final.setter
    def final(self, state: str) -> None:
        self.data["_final"] = str(state)

    def step(self, name: str) -> StepRecord:
        for record in self.steps:
            if record.name == name:
                return record
        raise errors.NotFound(f"The operation {self.id} has no step '{name}'.")

    def to_dict(self) -> dict[str, Any]:
        """The wire shape. Arguments and scratch data stay inside, they may hold secrets."""
        return {
            "operationId": self.id,
            "kind": self.kind,
            "service_id": self.target,
            "requester": self.requester,
            "status": str(self.status),
            "error": self.error,
            "started": self.started,
            "finished": self.finished,
            "steps": [{"name": step.name, "status": str(step.status), "at": step.at} for step in self.steps],
            "notes": [{"time": note.time, "text": note.text} for note in self.notes],
        }


class LeaseLost(Exception):
    """Another process has taken the operation over; this one must leave it alone at once."""


class OperationStore(Protocol):
    """Where operations are kept. Every method is durable when it returns and safe from several threads.

    A store shared by several processes keeps leases: it may have a method `heartbeat(op)` that renews one, and raises `LeaseLost` from any
    method called for an operation that now belongs to somebody else.
    """

    def begin(self, op: Operation, kind: OperationKind) -> None:
        """Record the operation and set the target's transient state, in one transaction.

        Raises `errors.WrongState` (see `wrong_state`) when the target is in a state not allowed or busy with another operation.
        """

    def step_done(self, op: Operation, name: str) -> None:
        """Record that a step is done, together with `op.data`."""

    def step_undone(self, op: Operation, name: str) -> None:
        """Record that a step is undone, together with `op.data`."""

    def set_status(self, op: Operation, status: OperationStatus, failed_step: str | None = None) -> None:
        """Record a status that is not final, `op.error`, `op.data` and which step failed."""

    def finish(self, op: Operation, kind: OperationKind) -> None:
        """Record the outcome (`op.status`, `op.error`, `op.finished`) and the target's state (`outcome`), in one transaction."""

    def save(self, op: Operation) -> None:
        """Record `op.data`."""

    def note(self, op: Operation, text: str) -> None:
        """Add a line to the operation's history; may drop it rather than fail."""

    def unfinished(self) -> list[Operation]:
        """Operations that this process should continue."""

    def list(self, target: int, limit: int) -> list[Operation]:
        """The operations of a target, newest first."""

    def get(self, id: str) -> Operation:
        """One operation. Raises `errors.NotFound`."""


def outcome(op: Operation, kind: OperationKind, before: str) -> str:
    """The target's state after a finished operation; `before` is the last stable state."""
    if op.status is OperationStatus.DONE:
        return str(op.final or kind.final or before)
    return str(before) if op.status is OperationStatus.UNDONE else str(State.ERROR)


def describe(error: BaseException) -> str:
    """The text of a failure for the history: what we raise on purpose as it is, anything else with its type."""
    if isinstance(error, OSError) and error.errno in errors.StorageFull.CODES:
        return "There is no room left on the disk" + (f" for {error.filename}." if error.filename else ".")
    text = str(error).strip()
    return text if isinstance(error, errors.ConPaaSError) and text else f"{type(error).__name__}: {text}".rstrip(": ")
