"""Operations of a manager in its SQLite store."""

from __future__ import annotations

import builtins
import json
import logging
import sqlite3
import time

from conpaas.core import errors, operations
from conpaas.core.state import database, records

HISTORY_LIMIT = 200
"""Finished operations kept per service."""

_log = logging.getLogger(__name__)

_UNFINISHED = "status IN ('RUNNING', 'UNDOING')"


class SqliteOperationStore:
    """An `operations.OperationStore` whose targets are the services of one application."""

    def __init__(self, db: database.Database, services: records.Services) -> None:
        self._db = db
        self._services = services

    def begin(self, op: operations.Operation, kind: operations.OperationKind) -> None:
        self._db.keep_reserve()
        with self._db.transaction():
            service = self._services.get(op.target)
            if kind.allowed and service.state not in kind.allowed:
                raise operations.wrong_state(kind.allowed, service.state)
            busy = self._db.row(f"SELECT kind FROM operations WHERE target = ? AND {_UNFINISHED}", op.target)  # noqa: S608 - constant text
            if busy is not None:
                raise errors.WrongState(f"Service {op.target} is busy with '{busy['kind']}'; try again when that has finished.")
            self._db.execute(
                "INSERT INTO operations (id, kind, target, args, data, requester, status, started) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                *(op.id, op.kind, op.target, json.dumps(op.args), json.dumps(op.data), op.requester, str(op.status), op.started),
            )
            self._db.execute_many(
                "INSERT INTO operation_steps (operation_id, position, name, status) VALUES (?, ?, ?, ?)",
                [(op.id, position, step.name, str(step.status)) for position, step in enumerate(op.steps)],
            )
            if kind.transient is not None:
                self._services.set_state(op.target, kind.transient, kind.help or kind.name)

    def step_done(self, op: operations.Operation, name: str) -> None:
        self._record_step(op, name, operations.StepStatus.DONE)

    def step_undone(self, op: operations.Operation, name: str) -> None:
        self._db.with_reserve(lambda: self._record_step(op, name, operations.StepStatus.UNDONE))

    def set_status(self, op: operations.Operation, status: operations.OperationStatus, failed_step: str | None = None) -> None:
        def write() -> None:
            with self._db.transaction():
                if failed_step is not None:
                    self._set_step(op, failed_step, operations.StepStatus.FAILED)
                self._db.execute(
                    "UPDATE operations SET status = ?, error = ?, data = ? WHERE id = ?", str(status), op.error, json.dumps(op.data), op.id
                )

        self._db.with_reserve(write)

    def finish(self, op: operations.Operation, kind: operations.OperationKind) -> None:
        args = {name: value for name, value in op.args.items() if name not in kind.secrets}

        def write() -> None:
            with self._db.transaction():
                self._db.execute(
                    "UPDATE operations SET status = ?, error = ?, args = ?, data = ?, finished = ? WHERE id = ?",
                    *(str(op.status), op.error, json.dumps(args), json.dumps(op.data), op.finished, op.id),
                )
                self._settle(op, kind)
                self._forget_old(op.target)

        self._db.with_reserve(write)

    def _settle(self, op: operations.Operation, kind: operations.OperationKind) -> None:
        """Put the service into the state that follows from the operation."""
        service = self._services.find(op.target)
        if service is None:
            return
        state = operations.outcome(op, kind, service.stable_state)
        if state != service.state or op.error:
            reason = f"{op.kind} failed: {op.error}" if op.error else str(op.data.get("reason", ""))
            if op.status is operations.OperationStatus.FAILED:
                reason += " (recover_service brings it back)"
            self._services.set_state(op.target, state, reason)

    def _forget_old(self, target: int) -> None:
        self._db.execute(
            "DELETE FROM operations WHERE target = ?1 AND finished IS NOT NULL AND seq <= "
            "(SELECT seq FROM operations WHERE target = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
            *(target, HISTORY_LIMIT),
        )

    def save(self, op: operations.Operation) -> None:
        self._db.execute("UPDATE operations SET data = ? WHERE id = ?", json.dumps(op.data), op.id)

    def note(self, op: operations.Operation, text: str) -> None:
        try:
            self._db.execute("INSERT INTO operation_notes (operation_id, time, text) VALUES (?, ?, ?)", op.id, time.time(), text)
        except errors.StorageFull as error:
            _log.warning("a note of operation %s is lost: %s", op.id, error)

    def unfinished(self) -> list[operations.Operation]:
        rows = self._db.rows(f"SELECT * FROM operations WHERE {_UNFINISHED} ORDER BY seq")  # noqa: S608 - constant text
        return [self._operation(row) for row in rows]

    def list(self, target: int, limit: int) -> builtins.list[operations.Operation]:
        rows = self._db.rows("SELECT * FROM operations WHERE target = ? ORDER BY seq DESC LIMIT ?", target, limit)
        return [self._operation(row) for row in rows]

    def recent(self, limit: int) -> builtins.list[operations.Operation]:
        """The operations of all targets, newest first."""
        return [self._operation(row) for row in self._db.rows("SELECT * FROM operations ORDER BY seq DESC LIMIT ?", limit)]

    def get(self, id: str) -> operations.Operation:
        row = self._db.row("SELECT * FROM operations WHERE id = ?", id)
        if row is None:
            raise errors.NotFound(f"There is no operation '{id}' on record.")
        return self._operation(row)

    def _record_step(self, op: operations.Operation, name: str, status: operations.StepStatus) -> None:
        with self._db.transaction():
            self._set_step(op, name, status)
            self.save(op)

    def _set_step(self, op: operations.Operation, name: str, status: operations.StepStatus) -> None:
        changed = self._db.execute(
            "UPDATE operation_steps SET status = ?, at = ? WHERE operation_id = ? AND name = ?", str(status), time.time(), op.id, name
        )
        if not changed:
            self._db.execute(
                "INSERT INTO operation_steps (operation_id, position, name, status, at)"
                " SELECT ?1, coalesce(max(position), -1) + 1, ?2, ?3, ?4 FROM operation_steps WHERE operation_id = ?1",
                *(op.id, name, str(status), time.time()),
            )

    def _operation(self, row: sqlite3.Row) -> operations.Operation:
        steps = self._db.rows("SELECT name, status, at FROM operation_steps WHERE operation_id = ? ORDER BY position", row["id"])
        notes = self._db.rows("SELECT time, text FROM operation_notes WHERE operation_id = ? ORDER BY seq", row["id"])
        return operations.Operation(
            id=row["id"],
            kind=row["kind"],
            target=row["target"],
            args=json.loads(row["args"]),
            requester=row["requester"],
            status=operations.OperationStatus(row["status"]),
            data=json.loads(row["data"]),
            error=row["error"],
            started=row["started"],
            finished=row["finished"],
            steps=[operations.StepRecord(step["name"], operations.StepStatus(step["status"]), step["at"]) for step in steps],
            notes=[operations.Note(note["time"], note["text"]) for note in notes],
            store=self,
        )
