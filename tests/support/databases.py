"""The database servers of a mysql service on a whole platform, asked directly, member by member."""

from __future__ import annotations

import contextlib
import pathlib
from typing import Any

from conpaas.services.mysql.workload import layout, sql
from tests.support import consistency
from tests.support import platform as platforms


def server_of(platform: platforms.Platform, address: str) -> int:
    """The process of mariadbd inside the VM that has this address; 0 if there is none."""
    found = (pid for pid in consistency.processes_of(platform, address) if consistency.command_of(pid)[0].endswith("/mariadbd"))
    return next(found, 0)


def socket_of(platform: platforms.Platform, address: str) -> pathlib.Path:
    """Where the server of that VM is reached without a password. Inside the VM, the way to the same directory may be a shorter one."""
    (run,) = consistency.vm_of(platform, address).glob("root/var/run/**/mysql")
    inside = run / layout.socket_in(pathlib.Path("/")).name
    return inside if inside.exists() else layout.socket_in(run)


def ask(platform: platforms.Platform, address: str, statement: str) -> tuple[tuple[Any, ...], ...]:
    """What one member answers, who first waits for what others have acknowledged until now."""
    with contextlib.closing(sql.connect(socket_of(platform, address), 20.0)) as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION wsrep_sync_wait = 1")
        cursor.execute(statement)
        return tuple(tuple(row) for row in cursor.fetchall())


def is_donor(platform: platforms.Platform, address: str) -> bool:
    """Whether that member is giving another one all its data at the moment."""
    with contextlib.closing(sql.connect(socket_of(platform, address), 5.0)) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW STATUS LIKE 'wsrep_local_state_comment'")
        return str(cursor.fetchone()[1]).startswith("Donor")
