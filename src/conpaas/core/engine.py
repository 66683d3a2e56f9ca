"""The engine of operations: runs their steps, undoes them when one fails, and continues after a crash what was under way.

A process that is killed at any instant and started again calls `OperationEngine.resume`. The engine knows neither managers nor the
Director: both give it their own `OperationStore`.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from conpaas.core import errors, faults, log, workers
from conpaas.core.operations import (
    LeaseLost,
    Operation,
    OperationKind,
    OperationStatus,
    OperationStore,
    Step,
    StepRecord,
    StepStatus,
    describe,
)

_log = logging.getLogger(__name__)

UNDO_ATTEMPTS, FINISH_ATTEMPTS = 4, 60
UNDO_DELAY = 2.0  # seconds before the second attempt to undo a step; doubles with each further one

Kinds = Callable[[Operation], OperationKind]
Owners = Callable[[Operation], object]


def kinds_by_name(kinds: Mapping[str, OperationKind]) -> Kinds:
    """A lookup for an engine whose kinds do not depend on the target."""

    def find(op: Operation) -> OperationKind:
        if op.kind not in kinds:
            raise errors.NotFound(f"There is no kind of operation '{op.kind}'.")
        return kinds[op.kind]

    return find


class OperationEngine:
    """Runs operations: one at a time per target (the store sees to that), different targets in parallel in a bounded pool of threads.

    `kind_of` finds the kind of a recorded operation (raises `errors.NotFound`: the operation is left alone until a later `resume`),
    `owner_of` the object whose methods its steps name. `component` is the name used at fault points. With `heartbeat_interval` (seconds)
    the store's `heartbeat` is called for every operation under way. `on_finish` is called after an outcome is recorded.
    """

    def __init__(
        self,
        store: OperationStore,
        *,
        kind_of: Kinds,
        owner_of: Owners | None = None,
        component: str = "manager",
        pool: workers.Executor | None = None,
        size: int = 8,
        undo_attempts: int = UNDO_ATTEMPTS,
        undo_delay: float = UNDO_DELAY,
        heartbeat_interval: float | None = None,
        on_finish: Callable[[Operation], None] | None = None,
    ) -> None:
        self._store = store
        self._kind_of = kind_of
        self._owner_of = owner_of
        self._component = component
        self._pool = pool or workers.WorkerPool("operations", size)
        self._undo_attempts = undo_attempts
        self._undo_delay = undo_delay
        self._on_finish = on_finish
        self._changed = threading.Condition()
        self._active: dict[str, Operation] = {}
        self._closing = threading.Event()
        if heartbeat_interval is not None:
            threading.Thread(target=self._beat, args=(heartbeat_interval,), name="operation-heartbeat", daemon=True).start()

    def submit(
        self,
        kind: OperationKind,
        target: int,
        args: Mapping[str, Any] | None = None,
        requester: str = "",
        *,
        operation_id: str | None = None,
    ) -> Operation:
        """Record an operation and run it in the background. Raises what the store's `begin` raises."""
        op = self._begin(kind, target, args, requester, operation_id)
        self._pool.submit(lambda: self._run(op, kind), f"{op.kind}-{op.id[:8]}")
        return op

    def run(self, kind: OperationKind, target: int, args: Mapping[str, Any] | None = None, requester: str = "") -> Operation:
        """Record an operation and run it in the caller's thread. Raises `errors.OperationFailed` when it fails."""
        op = self._begin(kind, target, args, requester, None)
        self._run(op, kind)
        if op.status is not OperationStatus.DONE:
            raise errors.OperationFailed(op.error or f"The operation {op.kind} failed.")
        return op

    def resume(self) -> list[Operation]:
        """Continue what is on record as under way and not run by this engine. Returns those operations."""
        resumed = []
        for op in self._store.unfinished():
            with self._changed:
                if op.id in self._active:
                    continue
            try:
                kind = self._kind_of(op)
            except errors.NotFound as error:
                _log.error("operation %s (%s of %s) cannot be continued: %s", op.id, op.kind, op.target, error)
                continue
            op.store = self._store
            self._adopt_steps(op, kind)
            with self._changed:
                self._active[op.id] = op
            _log.info("continuing operation %s: %s of %s, %s", op.id, op.kind, op.target, op.status)
            resumed.append(op)
            self._pool.submit(lambda op=op, kind=kind: self._run(op, kind), f"{op.kind}-{op.id[:8]}")  # type: ignore[misc]
        return resumed

    def wait(self, id: str, timeout: float | None = None) -> Operation:
        """Wait until an operation ends and return its record (still unfinished when `timeout` seconds were not enough)."""
        with self._changed:
            self._changed.wait_for(lambda: id not in self._active, timeout)
        return self._store.get(id)

    def active(self) -> list[Operation]:
        """The operations this engine is running or about to run."""
        with self._changed:
            return list(self._active.values())

    def close(self) -> None:
        """Begin nothing more. Steps under way are cut off when the process ends and continued at its next start."""
        self._closing.set()
        self._pool.close()

    def _begin(
        self, kind: OperationKind, target: int, args: Mapping[str, Any] | None, requester: str, operation_id: str | None
    ) -> Operation:
        if self._closing.is_set():
            raise errors.WrongState("This process is shutting down; try again in a moment.")
        op = Operation(
            id=operation_id or uuid.uuid4().hex,
            kind=kind.name,
            target=target,
            args=dict(args or {}),
            requester=requester,
            steps=[StepRecord(step.name) for step in kind.steps],
            store=self._store,
        )
        with self._changed:
            self._active[op.id] = op
        try:
            self._store.begin(op, kind)
        except BaseException:
            self._forget(op)
            raise
        _log.info("operation %s: %s of %s asked by %s", op.id, op.kind, op.target, op.requester or "the system")
        return op

    @staticmethod
    def _adopt_steps(op: Operation, kind: OperationKind) -> None:
        """Fit the record to the steps of today's code: a step unknown to the record is yet to be done."""
        known = {record.name: record for record in op.steps}
        op.steps = [known.get(step.name) or StepRecord(step.name) for step in kind.steps]

    def _forget(self, op: Operation) -> None:
        with self._changed:
            self._active.pop(op.id, None)
            self._changed.notify_all()

    def _run(self, op: Operation, kind: OperationKind) -> None:
        service = op.target if self._component == "manager" else None
        with log.context(operation=op.id, service=service):
            self._run_steps(op, kind)

    def _run_steps(self, op: Operation, kind: OperationKind) -> None:
        try:
            if op.status is OperationStatus.RUNNING:
                self._go_forward(op, kind)
            if op.status is OperationStatus.UNDOING:
                self._go_back(op, kind)
            self._finish(op, kind)
        except LeaseLost:
            _log.warning("operation %s now belongs to another process", op.id)
        except _Closing:
            _log.info("operation %s stays on record for the next start", op.id)
        finally:
            self._forget(op)

    def _go_forward(self, op: Operation, kind: OperationKind) -> None:
        for step in kind.steps:
            record = op.step(step.name)
            if record.status is StepStatus.DONE:
                continue
            self._stop_if_closing()
            try:
                self._do(op, kind, step, record)
            except LeaseLost:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a step raises, the operation is undone
                self._stop_if_closing()
                self._fail(op, kind, step, record, error)
                return
        op.status = OperationStatus.DONE

    def _stop_if_closing(self) -> None:
        """A step may fail only because the process ends; its operation is continued at the next start, not undone."""
        if self._closing.is_set():
            raise _Closing

    def _do(self, op: Operation, kind: OperationKind, step: Step, record: StepRecord) -> None:
        faults.point(self._component, kind.name, step.name, faults.BEFORE)
        if self._call(op, step.do) is False:
            raise errors.OperationFailed(f"The step '{step.name}' of {kind.name} failed.")
        faults.point(self._component, kind.name, step.name, faults.AFTER)
        self._store.step_done(op, step.name)
        record.status, record.at = StepStatus.DONE, time.time()
        faults.point(self._component, kind.name, step.name, faults.RECORDED)

    def _fail(self, op: Operation, kind: OperationKind, step: Step, record: StepRecord, error: Exception) -> None:
        op.error = describe(error)
        unexpected = not isinstance(error, errors.ConPaaSError)
        _log.error("operation %s: %s failed at '%s': %s", op.id, kind.name, step.name, op.error, exc_info=unexpected)
        record.status, record.at = StepStatus.FAILED, time.time()
        if any(other.irreversible and op.step(other.name).status is not StepStatus.PENDING for other in kind.steps):
            op.status = OperationStatus.FAILED
            return
        op.status = OperationStatus.UNDOING
        self._persistently(op, lambda: self._store.set_status(op, OperationStatus.UNDOING, step.name))

    def _go_back(self, op: Operation, kind: OperationKind) -> None:
        for step in reversed(kind.steps):
            record = op.step(step.name)
            if record.status not in (StepStatus.DONE, StepStatus.FAILED):
                continue
            if not self._undo(op, kind, step):
                op.status = OperationStatus.FAILED
                return
            record.status, record.at = StepStatus.UNDONE, time.time()
        op.status = OperationStatus.UNDONE

    def _undo(self, op: Operation, kind: OperationKind, step: Step) -> bool:
        """Undo one step, with a bounded number of attempts; whether it is undone."""
        delay = self._undo_delay
        for attempt in range(1, self._undo_attempts + 1):
            self._stop_if_closing()
            try:
                faults.point(self._component, kind.name, step.name, faults.UNDO)
                if step.undo is not None and self._call(op, step.undo) is False:
                    raise errors.OperationFailed(f"Undoing the step '{step.name}' of {kind.name} failed.")
                faults.point(self._component, kind.name, step.name, faults.UNDO_AFTER)
                self._store.step_undone(op, step.name)
                faults.point(self._component, kind.name, step.name, faults.UNDO_RECORDED)
                return True
            except LeaseLost:
                raise
            except Exception as error:  # noqa: BLE001 - an undo is tried again whatever went wrong
                _log.exception("operation %s: undoing '%s' failed, attempt %d of %d", op.id, step.name, attempt, self._undo_attempts)
                problem = f"'{step.name}' could not be undone: {describe(error)}"
            if attempt < self._undo_attempts:
                self._closing.wait(delay)
                delay *= 2
        self._stop_if_closing()
        op.error = f"{op.error} ({problem})"
        return False

    def _finish(self, op: Operation, kind: OperationKind) -> None:
        op.finished = time.time()
        self._persistently(op, lambda: self._store.finish(op, kind))
        _log.info("operation %s: %s of %s is %s%s", op.id, op.kind, op.target, op.status, f": {op.error}" if op.error else "")
        if self._on_finish is not None:
            self._on_finish(op)

    def _persistently(self, op: Operation, write: Callable[[], None]) -> None:
        """Write what must not be lost, again and again for about half an hour (a full disk, a database that is away); then leave it."""
        delay = 1.0
        for _ in range(FINISH_ATTEMPTS):
            try:
                write()
                return
            except LeaseLost:
                raise
            except Exception as error:  # noqa: BLE001 - it is tried again whatever went wrong
                _log.error("operation %s: its outcome cannot be written yet: %s", op.id, describe(error))
            if self._closing.wait(delay):
                break
            delay = min(delay * 2, 30.0)
        raise _Closing

    def _call(self, op: Operation, function: Callable[[Operation], Any] | str) -> Any:
        if not isinstance(function, str):
            return function(op)
        if self._owner_of is None:
            raise errors.ConfigurationError(f"The step '{function}' names a method, but this engine knows no owner of operations.")
        return getattr(self._owner_of(op), function)(op)

    def _beat(self, interval: float) -> None:
        heartbeat = getattr(self._store, "heartbeat", None)
        while heartbeat is not None and not self._closing.wait(interval):
            for op in self.active():
                try:
                    heartbeat(op)
                except LeaseLost:
                    _log.warning("the lease of operation %s was lost", op.id)
                except Exception:  # noqa: BLE001 - one store hiccup must not end all renewals
                    _log.exception("the lease of operation %s could not be renewed", op.id)


class _Closing(Exception):
    """The engine ends; what is on record is continued at the next start."""
