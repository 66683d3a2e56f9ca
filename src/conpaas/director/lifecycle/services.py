"""Keeping the Director's list of services and the managers' in agreement.

A service exists when its manager knows it. The Director's row follows: it is written after the manager has made the service, and goes
after the manager no longer knows it. A Director that dies in between leaves a difference, which `repair` settles.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import sqlalchemy as sa

from conpaas.core import errors, operations
from conpaas.core.operations import OperationKind, Step
from conpaas.director import db, inventory, managers, models, opstore
from conpaas.director.lifecycle import applications
from conpaas.director.lifecycle import parts as lifecycle_parts

_log = logging.getLogger(__name__)

REMOVE: Final = OperationKind(
    "remove_service",
    (
        Step("ask", "ask_manager", irreversible=True),
        Step("wait", "wait_for_manager", irreversible=True),
        Step("forget", "forget_service", irreversible=True),
    ),
    help="Remove a service and its machines.",
)
POLICIES: Final = {REMOVE.name: opstore.Policy(opstore.Mode.SHARED)}
RPC_TIMEOUT = 20.0


class Services:
    """The steps of operations on services, and the repair of differences."""

    def __init__(self, parts: lifecycle_parts.Parts, rpc: managers.Managers) -> None:
        self._parts = parts
        self._managers = rpc

    def add(self, aid: int, service_type: str) -> models.Service:
        """Have the manager make a service, and record it. A crash between the two is repaired later."""
        reply = self._managers.post(aid, "add_service", params={"service_type": service_type}, timeout=60.0)
        return record(self._parts.database, aid, int(reply["service_id"]), service_type)

    def ask_manager(self, op: operations.Operation) -> None:
        sid = op.args["service_id"]
        if sid not in self._known(op):
            return
        try:
            reply = self._managers.post(op.target, "remove_service", params={"service_id": sid}, timeout=RPC_TIMEOUT)
        except errors.Unreachable:
            raise
        except errors.RemoteError as error:
            if not self._is_being_removed(op.target, sid):
                raise errors.OperationFailed(str(error)) from error
            return
        op.data["operation"] = reply.get("operation")

    def wait_for_manager(self, op: operations.Operation) -> None:
        """Until the manager no longer knows the service, or says that it could not remove it."""
        sid = op.args["service_id"]
        deadline = self._parts.clock() + self._parts.settings.settle_timeout
        while sid in self._known(op):
            self._raise_failure(op)
            if self._parts.clock() >= deadline:
                raise errors.OperationFailed(f"The manager is still removing service {sid}; its list of services is repaired later.")
            self._parts.pause(self._parts.settings.probe_interval)

    def _raise_failure(self, op: operations.Operation) -> None:
        if not op.data.get("operation"):
            return
        try:
            found = self._managers.get(op.target, "get_operation", params={"operationId": op.data["operation"]}, timeout=RPC_TIMEOUT)
        except errors.Unreachable:
            return
        except errors.RemoteError as error:
            _log.debug("the manager of application %s does not tell about operation %s: %s", op.target, op.data["operation"], error)
            return
        record = found.get("operation", found)
        if record.get("status") in ("UNDONE", "FAILED"):
            raise errors.OperationFailed(record.get("error") or "The manager could not remove the service.")

    def forget_service(self, op: operations.Operation) -> None:
        with self._parts.database.session() as session:
            session.execute(_row(op.target, op.args["service_id"]))

    def _known(self, op: operations.Operation) -> set[int]:
        """The services that the manager knows; none when the application has no manager any more. Bounded patience with a silent one."""
        deadline = self._parts.clock() + self._parts.settings.settle_timeout
        while True:
            with self._parts.database.reader() as session:
                applications.refuse_if_interrupted(session, op)
            try:
                return self.known_to_manager(op.target)
            except errors.Unreachable:
                if self._parts.clock() >= deadline:
                    raise
            except (errors.WrongState, errors.NotFound):
                return set()
            self._parts.pause(self._parts.settings.probe_interval)

    def known_to_manager(self, aid: int) -> set[int]:
        """Ids of the services that a running manager has."""
        info = self._managers.get(aid, "get_app_info", timeout=RPC_TIMEOUT)
        return {int(sid) for sid in info["states"] if int(sid) != 0}

    def _is_being_removed(self, aid: int, sid: int) -> bool:
        info = self._managers.get(aid, "get_app_info", timeout=RPC_TIMEOUT)
        return info["states"].get(str(sid)) in (None, "EPILOGUE", "ADAPTING")

    def repair(self, aid: int) -> list[str]:
        """Make the rows of a running application agree with its manager; tells what was different."""
        with self._parts.database.reader() as session:
            vmid = managers.require_started(session, aid).manager_vmid
            rows = {row.sid for row in session.scalars(sa.select(models.Service).where(models.Service.application_id == aid))}
        known = self.known_to_manager(aid)
        findings: list[str] = []
        for sid in sorted(known - rows):
            info: dict[str, Any] = self._managers.get(aid, "get_service_info", sid, timeout=RPC_TIMEOUT)
            try:
                record(self._parts.database, aid, sid, str(info.get("type") or "unknown"), vmid=vmid)
            except errors.WrongState:
                return findings
            findings.append(f"Service {sid} of application {aid} was known to its manager only; it is recorded now.")
        for sid in sorted(rows - known):
            with self._parts.database.session() as session:
                application = session.get(models.Application, aid)
                if application is None or application.manager_vmid != vmid:
                    return findings
                session.execute(_row(aid, sid))
            findings.append(f"Service {sid} of application {aid} is unknown to its manager; its record is dropped.")
        return findings


def _row(aid: int, sid: int) -> sa.Delete:
    return sa.delete(models.Service).where(models.Service.application_id == aid, models.Service.sid == sid)


def record(database: db.Database, aid: int, sid: int, service_type: str, *, vmid: str | None = None) -> models.Service:
    """The row of a service, made unless it is there. WrongState if `vmid` is given and no longer the application's manager."""
    query = sa.select(models.Service).where(models.Service.application_id == aid, models.Service.sid == sid)
    with database.session() as session:
        application = inventory.lock_application(session, aid)
        if vmid is not None and application.manager_vmid != vmid:
            raise errors.WrongState(f"Application {aid} was restarted meanwhile.")
        row = session.scalar(query)
        if row is None:
            row = models.Service(sid=sid, application_id=aid, name=f"New {service_type} service", type=service_type)
            session.add(row)
            session.flush()
        return row
