"""Operations on applications, kept in the Director's database so that any of several Director processes can continue them.

Every unfinished operation is leased to one process, which renews the lease while it works. A process that is killed and started
again has the same identity (a numbered lock file in the state directory) and takes its operations over at once; any other process
takes them over when the lease has run out. A process that finds its lease gone stops touching the operation (`LeaseLost`).

How operations on one application get along is a matter of their mode: see `Mode`.
"""

from __future__ import annotations

import dataclasses
import enum
import fcntl
import pathlib
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import exc, orm

from conpaas.core import errors, operations
from conpaas.director import db, inventory, models

LEASE_SECONDS = 60.0
HEARTBEAT_SECONDS = 15.0
MAX_SLOTS = 64
PRUNED_AT_ONCE = 500

_UNFINISHED = (str(operations.OperationStatus.RUNNING), str(operations.OperationStatus.UNDOING))
_BEFORE = "_before"

Operations = list[operations.Operation]


class Mode(enum.Enum):
    """How an operation treats others on the same application."""

    EXCLUSIVE = "exclusive"
    """Alone of its mode: refused while another exclusive or preemptive operation is under way."""
    PREEMPTIVE = "preemptive"
    """Takes the application from whatever is under way: that is refused its next step, undoes itself, and no longer sets the status."""
    SHARED = "shared"
    """Runs beside others and never touches the application's status; refused while a preemptive operation is under way."""


@dataclasses.dataclass(frozen=True)
class Policy:
    """What the store must know about a kind.

    `undone` is the application's status when an operation failed and left no trace; `secrets` names arguments that are
    dropped from the record as soon as the operation has ended.
    """

    mode: Mode = Mode.EXCLUSIVE
    undone: str | None = None
    secrets: tuple[str, ...] = ()


class AlreadyThere(errors.WrongState):
    """An operation of this id is on record already; ask for that one."""


@dataclasses.dataclass(frozen=True)
class Owner:
    """The identity of one Director process, the same again after a restart. Held as long as the object lives."""

    name: str
    lock: Any = dataclasses.field(default=None, repr=False, compare=False)

    @classmethod
    def claim(cls, state_dir: pathlib.Path) -> Owner:
        """The first identity of this state directory that no living process holds."""
        directory = state_dir / "owners"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for slot in range(MAX_SLOTS):
            lock = (directory / f"{slot}.lock").open("a+", encoding="ascii")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                continue
            lock.seek(0)
            name = lock.read().strip()
            if not name:
                name = uuid.uuid4().hex
                lock.write(name)
                lock.flush()
            return cls(name=name, lock=lock)
        raise errors.ConfigurationError(f"{MAX_SLOTS} Directors use the state directory {state_dir} already.")

    def release(self) -> None:
        """Let another process have the identity."""
        if self.lock is not None:
            self.lock.close()


class DirectorStore:
    """`operations.OperationStore` over the tables `operation` and `operation_step`; the target is an application's id."""

    def __init__(
        self,
        database: db.Database,
        owner: str,
        policies: Mapping[str, Policy],
        *,
        lease_seconds: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._owner = owner
        self._policies = policies
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._handed: set[str] = set()  # operations that this process's engine has been given

    # What the engine calls

    def begin(self, op: operations.Operation, kind: operations.OperationKind) -> None:
        policy = self._policies.get(kind.name, Policy())
        with self._lock:
            self._handed.add(op.id)
        try:
            with self._database.session() as session:
                application = inventory.lock_application(session, op.target)
                if session.get(models.Operation, op.id) is not None:
                    raise AlreadyThere(f"The operation {op.id} is on record already.")
                self._make_room(session, op, policy)
                if kind.allowed and application.status not in kind.allowed:
                    raise operations.wrong_state(kind.allowed, application.status)
                op.data[_BEFORE] = application.status
                if kind.transient is not None:
                    application.status = str(kind.transient)
                    application.reason = None
                session.add(self._row(op, None if policy.mode is Mode.SHARED else op.target))
                session.flush()
                session.add_all(
                    models.OperationStep(operation_id=op.id, position=position, name=record.name, status=str(record.status), at=op.started)
                    for position, record in enumerate(op.steps)
                )
        except exc.IntegrityError as error:
            raise errors.WrongState(f"Another operation on application {op.target} is under way.") from error

    def step_done(self, op: operations.Operation, name: str) -> None:
        self._record_step(op, name, operations.StepStatus.DONE)

    def step_undone(self, op: operations.Operation, name: str) -> None:
        self._record_step(op, name, operations.StepStatus.UNDONE)

    def set_status(self, op: operations.Operation, status: operations.OperationStatus, failed_step: str | None = None) -> None:
        with self._database.session() as session:
            self._update(session, op, status=str(status), error=op.error, data=op.data)
            if failed_step is not None:
                self._set_step(session, op, failed_step, operations.StepStatus.FAILED)

    def finish(self, op: operations.Operation, kind: operations.OperationKind) -> None:
        with self._database.session() as session:
            held = session.scalar(sa.select(models.Operation.active_target).where(models.Operation.id == op.id))
            secrets = self._policies.get(kind.name, Policy()).secrets
            args = {name: value for name, value in op.args.items() if name not in secrets}
            outcome = {"status": str(op.status), "error": op.error, "data": op.data, "finished": op.finished}
            self._update(session, op, **outcome, args=args, active_target=None, lease_owner=None, lease_until=None)
            for record in op.steps:
                if record.status is operations.StepStatus.FAILED:
                    self._set_step(session, op, record.name, record.status)
            if held is not None:
                self._set_outcome(session, op, kind)
        with self._lock:
            self._handed.discard(op.id)

    def save(self, op: operations.Operation) -> None:
        with self._database.session() as session:
            self._update(session, op, data=op.data)

    def note(self, op: operations.Operation, text: str) -> None:
        with self._database.session() as session:
            self._update(session, op, notes=[{"time": note.time, "text": note.text} for note in op.notes])

    def heartbeat(self, op: operations.Operation) -> None:
        """Renew the lease of an operation under way."""
        with self._database.session() as session:
            self._update(session, op, lease_until=self._clock() + self._lease_seconds)

    def unfinished(self) -> list[operations.Operation]:
        """Operations left by an earlier life of this process, and those whose lease ran out, now leased to this process.

        What this process's engine is running has its lease renewed, so it is never among them.
        """
        now = self._clock()
        row = models.Operation
        with self._lock, self._database.session() as session:
            ours = sa.and_(row.lease_owner == self._owner, row.id.not_in(self._handed))
            free = sa.or_(ours, db.ran_out(row.lease_until, now, self._lease_seconds), row.lease_owner.is_(None))
            query = sa.select(row).where(row.status.in_(_UNFINISHED), free).order_by(row.started).with_for_update(skip_locked=True)
            rows = session.scalars(query).all()
            for found in rows:
                found.lease_owner, found.lease_until = self._owner, now + self._lease_seconds
            session.flush()
            self._handed.update(found.id for found in rows)
            return self._operations(session, rows)

    def list(self, target: int, limit: int) -> Operations:
        query = sa.select(models.Operation).where(models.Operation.target == target)
        with self._database.reader() as session:
            rows = session.scalars(query.order_by(models.Operation.started.desc(), models.Operation.id).limit(limit)).all()
            return self._operations(session, rows)

    def get(self, id: str) -> operations.Operation:
        with self._database.reader() as session:
            row = session.get(models.Operation, id)
            if row is None:
                raise errors.NotFound(f"There is no operation {id}.")
            return self._operations(session, [row])[0]

    # What the lifecycle asks

    def under_way(self, target: int | None = None, *, modes: Iterable[Mode] = tuple(Mode)) -> Operations:
        """Unfinished operations of an application (or of all), whichever process runs them, oldest first."""
        with self._database.reader() as session:
            query = sa.select(models.Operation).where(models.Operation.status.in_(_UNFINISHED)).order_by(models.Operation.started)
            if target is not None:
                query = query.where(models.Operation.target == target)
            found = self._operations(session, session.scalars(query).all())
        wanted = set(modes)
        return [op for op in found if self._policies.get(op.kind, Policy()).mode in wanted]

    def prune(self, before: float) -> None:
        """Forget operations that ended before a time (seconds since the epoch); their request keys are free again."""
        with self._database.session() as session:
            old = sa.select(models.Operation.id).where(models.Operation.finished < before).limit(PRUNED_AT_ONCE)
            ids = session.scalars(old).all()
            session.execute(sa.delete(models.OperationStep).where(models.OperationStep.operation_id.in_(ids)))
            session.execute(sa.delete(models.Operation).where(models.Operation.id.in_(ids)))

    # Inside

    def _make_room(self, session: orm.Session, op: operations.Operation, policy: Policy) -> None:
        others = session.scalars(
            sa.select(models.Operation).where(models.Operation.target == op.target, models.Operation.status.in_(_UNFINISHED))
        ).all()
        preemptive = [row for row in others if self._policies.get(row.kind, Policy()).mode is Mode.PREEMPTIVE]
        if preemptive:
            raise errors.WrongState(f"Application {op.target} is busy: {preemptive[0].kind.replace('_', ' ')} is under way.")
        holder = next((row for row in others if row.active_target is not None), None)
        if holder is None or policy.mode is Mode.SHARED:
            return
        if policy.mode is Mode.EXCLUSIVE:
            raise errors.WrongState(f"Application {op.target} is busy: {holder.kind.replace('_', ' ')} is under way.")
        holder.active_target = None
        session.flush()

    def _row(self, op: operations.Operation, active_target: int | None) -> models.Operation:
        return models.Operation(
            id=op.id,
            kind=op.kind,
            target=op.target,
            active_target=active_target,
            args=op.args,
            requester=op.requester,
            status=str(op.status),
            data=op.data,
            started=op.started,
            lease_owner=self._owner,
            lease_until=self._clock() + self._lease_seconds,
        )

    def _set_outcome(self, session: orm.Session, op: operations.Operation, kind: operations.OperationKind) -> None:
        application = session.get(models.Application, op.target)
        if application is None or (kind.transient is None and kind.final is None and op.final is None):
            return
        before = self._policies.get(kind.name, Policy()).undone or op.data.get(_BEFORE, str(operations.State.ERROR))
        application.status = operations.outcome(op, kind, before)
        application.reason = op.error if application.status == operations.State.ERROR else None

    def _record_step(self, op: operations.Operation, name: str, status: operations.StepStatus) -> None:
        with self._database.session() as session:
            self._update(session, op, data=op.data)
            self._set_step(session, op, name, status)

    def _update(self, session: orm.Session, op: operations.Operation, **values: Any) -> None:
        mine = sa.and_(models.Operation.id == op.id, models.Operation.lease_owner == self._owner)
        done = session.execute(sa.update(models.Operation).where(mine).values(**values))
        if cast(sa.CursorResult[Any], done).rowcount == 0:
            raise operations.LeaseLost(op.id)

    def _set_step(self, session: orm.Session, op: operations.Operation, name: str, status: operations.StepStatus) -> None:
        changed = cast(
            sa.CursorResult[Any],
            session.execute(
                sa.update(models.OperationStep)
                .where(models.OperationStep.operation_id == op.id, models.OperationStep.name == name)
                .values(status=str(status), at=self._clock())
            ),
        )
        if changed.rowcount == 0:
            position = [record.name for record in op.steps].index(name)
            taken = session.scalar(sa.select(sa.func.max(models.OperationStep.position)).where(models.OperationStep.operation_id == op.id))
            place = max(position, -1 if taken is None else taken + 1)
            session.add(models.OperationStep(operation_id=op.id, position=place, name=name, status=str(status), at=self._clock()))

    def _operations(self, session: orm.Session, rows: Iterable[models.Operation]) -> Operations:
        found = list(rows)
        steps: dict[str, list[operations.StepRecord]] = {row.id: [] for row in found}
        query = sa.select(models.OperationStep).where(models.OperationStep.operation_id.in_(steps.keys()))
        for step in session.scalars(query.order_by(models.OperationStep.position)):
            status = operations.StepStatus(step.status)
            at = None if status is operations.StepStatus.PENDING else step.at
            steps[step.operation_id].append(operations.StepRecord(step.name, status, at))
        return [self._operation(row, steps[row.id]) for row in found]

    def _operation(self, row: models.Operation, steps: Sequence[operations.StepRecord]) -> operations.Operation:
        return operations.Operation(
            id=row.id,
            kind=row.kind,
            target=row.target,
            args=dict(row.args),
            requester=row.requester,
            status=operations.OperationStatus(row.status),
            data=dict(row.data),
            error=row.error,
            started=row.started,
            finished=row.finished,
            steps=[*steps],
            notes=[operations.Note(note["time"], note["text"]) for note in row.notes],
            store=self,
        )
