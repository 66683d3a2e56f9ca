"""Calling application managers, and asking any machine of an application whether its daemon is ready.

All calls present the Director's certificate of role `director`, and are made only after the peer has shown that it is the manager
(or an agent) of the right application of the right user.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import orm

from conpaas.core import errors
from conpaas.core.https import client, identity
from conpaas.director import db, inventory, models

MAX_CLIENTS = 64
PROBE_CONNECT_TIMEOUT = 3.0
PROBE_TIMEOUT = 5.0


class Callers:
    """Clients by the role, user and application of the server they expect; the least recently made are closed.

    Connections to managers are kept; an agent is asked once whether it is there, and a connection kept to each would only cost memory.
    When the Director's certificate was renewed they are made anew, as the one that they began with ends some day.
    """

    def __init__(self, credentials: Callable[[], identity.Credentials], *, connect_timeout: float = PROBE_CONNECT_TIMEOUT) -> None:
        self._credentials = credentials
        self._connect_timeout = connect_timeout
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, int, int], client.RpcClient] = {}
        self._written = 0

    def get(self, role: str, uid: int, aid: int) -> client.RpcClient:
        """The client for the machines of one role of one application."""
        key = (role, uid, aid)
        credentials = self._credentials()
        with self._lock:
            self._present(credentials)
            found = self._clients.get(key)
            if found is None:
                kept = role == inventory.MANAGER
                expect = identity.expect_manager(uid, aid) if kept else identity.expect_agent(uid, aid)
                found = client.RpcClient(credentials, expect, connect_timeout=self._connect_timeout, keep_alive=kept)
                self._clients[key] = found
                if len(self._clients) > MAX_CLIENTS:
                    self._clients.pop(next(iter(self._clients))).close()
            return found

    def _present(self, credentials: identity.Credentials) -> None:
        """Have clients begin new connections, which present what is on the disk now, if that was written since the last call."""
        written = credentials.certificate.stat().st_mtime_ns
        if written != self._written:
            for known in self._clients.values():
                known.close()
        self._written = written

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for found in self._clients.values():
                found.close()
            self._clients.clear()


class Probe:
    """Asks `check_process` of a machine's daemon."""

    def __init__(self, callers: Callers, ports: Mapping[str, int]) -> None:
        self._callers = callers
        self._ports = ports

    def __call__(self, machine: inventory.Machine, uid: int) -> None:
        """Return if the daemon is ready; raise what is wrong."""
        caller = self._callers.get(machine.role, uid, machine.app_id)
        caller.get((machine.ip, self._ports[machine.role]), "check_process", timeout=PROBE_TIMEOUT)


class Managers:
    """RPC to the managers of running applications, by application id."""

    def __init__(self, database: db.Database, callers: Callers) -> None:
        self._database = database
        self._callers = callers

    def get(self, aid: int, method: str, service_id: int = 0, params: Mapping[str, Any] | None = None, timeout: float | None = None) -> Any:
        """Call a GET method; the classic texts when the application is unknown or has no manager."""
        caller, address = self._reach(aid)
        return caller.get(address, method, service_id, dict(params or {}), timeout=timeout)

    def post(
        self, aid: int, method: str, service_id: int = 0, params: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> Any:
        """Call a POST method; the classic texts when the application is unknown or has no manager."""
        caller, address = self._reach(aid)
        return caller.post(address, method, service_id, dict(params or {}), timeout=timeout)

    def upload(self, aid: int, method: str, service_id: int, fields: Mapping[str, Any], files: Mapping[str, Any]) -> Any:
        """Send files to an UPLOAD method."""
        caller, address = self._reach(aid)
        return caller.upload(address, method, service_id, fields=dict(fields), files=dict(files))

    def require_started(self, aid: int) -> str:
        """The id of the VM that is the application's manager, or the classic refusal."""
        with self._database.reader() as session:
            return require_started(session, aid).manager_vmid or ""

    def _reach(self, aid: int) -> tuple[client.RpcClient, tuple[str, int]]:
        with self._database.reader() as session:
            application = require_started(session, aid)
            uid, host, port = application.user_id, str(application.manager_ip), application.manager_port or 443
        return self._callers.get(inventory.MANAGER, uid, aid), (host, port)


def require_started(session: orm.Session, aid: int) -> models.Application:
    """The application, if it has a manager; else the classic texts."""
    application = session.get(models.Application, aid)
    if application is None:
        raise errors.NotFound(f"Application {aid} not found.")
    if application.manager_ip is None:
        raise errors.WrongState(f"Application {aid} has not started. Try to start it first.")
    return application
