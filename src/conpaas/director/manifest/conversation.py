"""What the deployment of a manifest says to the application's manager, and how long it listens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from conpaas.core import errors, operations
from conpaas.core.operations import OperationStatus
from conpaas.core.states import State
from conpaas.director import managers
from conpaas.director.lifecycle import applications
from conpaas.director.lifecycle import parts as lifecycle_parts

T = TypeVar("T")

RPC_TIMEOUT: Final = 60.0
SILENCE: Final = 300.0
"""Seconds that a manager may be out of reach."""
PATIENCE: Final = 3600.0
"""Seconds that one operation of a service may take."""
_TRANSIENT: Final = frozenset({State.PROLOGUE, State.ADAPTING, State.EPILOGUE})


class Conversation:
    """Calls to the manager of one operation's application. Every call ends as soon as the application is stopped or deleted."""

    def __init__(self, parts: lifecycle_parts.Parts, rpc: managers.Managers, op: operations.Operation) -> None:
        self._parts = parts
        self._rpc = rpc
        self._op = op

    def check(self) -> None:
        """Raise OperationFailed if the application is being stopped or deleted."""
        with self._parts.database.reader() as session:
            applications.refuse_if_interrupted(session, self._op)

    def patiently(self, call: Callable[[], T]) -> T:
        """Call, and again while the manager is out of reach (it may be restarting); so only for what may be said twice."""
        deadline = self._parts.clock() + SILENCE
        while True:
            self.check()
            try:
                return call()
            except errors.Unreachable:
                if self._parts.clock() >= deadline:
                    raise
            self._parts.pause(self._parts.settings.probe_interval)

    def get(self, method: str, sid: int = 0, **params: Any) -> Any:
        """Call a GET method, patiently."""
        return self.patiently(lambda: self._rpc.get(self._op.target, method, sid, params, timeout=RPC_TIMEOUT))

    def post(self, method: str, sid: int = 0, **params: Any) -> Any:
        """Call a POST method that may be called twice, patiently."""
        return self.patiently(lambda: self._rpc.post(self._op.target, method, sid, params, timeout=RPC_TIMEOUT))

    def upload(self, method: str, sid: int, fields: Mapping[str, Any], part: str, open_file: Callable[[], Any]) -> Any:
        """Call an UPLOAD method that may be called twice, patiently; `open_file` gives the file's name and content anew each time."""

        def send() -> Any:
            name, file = open_file()
            with file:
                return self._rpc.upload(self._op.target, method, sid, fields, {part: (name, file)})

        return self.patiently(send)

    def ask(self, method: str, **params: Any) -> str | None:
        """Begin an operation of the manager's, once: its id, or None if it is unknown whether the manager heard."""
        self.check()
        try:
            reply = self._rpc.post(self._op.target, method, 0, params, timeout=RPC_TIMEOUT)
        except errors.Unreachable:
            return None
        return str(reply["operation"])

    def settled(self, sid: int) -> State:
        """The state of a service, once nothing is under way on it."""
        deadline = self._parts.clock() + PATIENCE
        while True:
            state = State(self.get("get_service_info", sid)["state"])
            if state not in _TRANSIENT:
                return state
            if self._parts.clock() >= deadline:
                raise errors.OperationFailed(f"It is still in state {state} after {PATIENCE:.0f} seconds.")
            self._parts.pause(self._parts.settings.probe_interval)

    def follow(self, operation_id: str) -> None:
        """Wait until an operation of the manager's ends. Raises OperationFailed with its reason if it failed."""
        deadline = self._parts.clock() + PATIENCE
        while True:
            record = self.get("get_operation", operationId=operation_id)["operation"]
            status = OperationStatus(record["status"])
            if status is OperationStatus.DONE:
                return
            if status.finished:
                raise errors.OperationFailed(record.get("error") or f"The operation {record['kind']} failed.")
            if self._parts.clock() >= deadline:
                raise errors.OperationFailed(f"The operation {record['kind']} is still under way after {PATIENCE:.0f} seconds.")
            self._parts.pause(self._parts.settings.probe_interval)

    def reason(self, sid: int) -> str:
        """Why a service is in its present state, as its manager tells it."""
        log = self.get("get_service_history", sid)["state_log"]
        return str(log[-1].get("reason") or "it gives no reason") if log else "it gives no reason"
