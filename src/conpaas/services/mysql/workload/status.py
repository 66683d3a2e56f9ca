"""What a running server tells of itself and of its cluster."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any, Final

import pymysql

from conpaas.services.mysql.workload import sql

_NAMES: Final = (
    *("wsrep_ready", "wsrep_local_state_comment", "wsrep_cluster_status", "wsrep_cluster_size", "wsrep_cluster_state_uuid"),
    *("wsrep_last_committed", "wsrep_incoming_addresses", "wsrep_local_recv_queue_avg"),
)
_NOBODY: Final = "AUTO"
# Threads of the server itself have no client; a session counts while it has a transaction or a statement under way.
_BUSY: Final = """
SELECT COUNT(DISTINCT p.id) FROM information_schema.processlist p LEFT JOIN information_schema.innodb_trx t ON t.trx_mysql_thread_id = p.id
WHERE p.id <> CONNECTION_ID() AND p.user NOT IN ('system user', 'event_scheduler', 'root', %s)
AND (t.trx_id IS NOT NULL OR p.command NOT IN ('Sleep', 'Daemon', 'Binlog Dump'))
"""


def ask(socket: pathlib.Path, timeout: float) -> Mapping[str, str]:
    """The server's own figures by their names. Raises ConPaaSError when it gives no answer within `timeout` seconds."""
    with sql.connect(socket, timeout) as connection:
        return {name: str(value) for name, value in rows(connection, "SHOW GLOBAL STATUS WHERE Variable_name IN %s", (_NAMES,))}


def seen(values: Mapping[str, str]) -> dict[str, Any]:
    """The part of a node's state that only Galera knows."""
    addresses = values.get("wsrep_incoming_addresses", "").split(",")
    return {
        "ready": values.get("wsrep_ready") == "ON" and values.get("wsrep_cluster_status") == "Primary",
        "state": values.get("wsrep_local_state_comment"),
        "cluster_status": values.get("wsrep_cluster_status"),
        "cluster_size": int(values.get("wsrep_cluster_size", 0)),
        "cluster_uuid": values.get("wsrep_cluster_state_uuid"),
        "seqno": int(values.get("wsrep_last_committed", -1)),
        "incoming": [one for one in addresses if one and one != _NOBODY],
    }


def unseen() -> dict[str, Any]:
    """The same part while Galera does not speak."""
    return seen({}) | {"cluster_uuid": None}


def busy_sessions(connection: pymysql.Connection[Any], account: str) -> int:
    """How many clients have a transaction or a statement under way; `account` is that of the server itself."""
    return int(rows(connection, _BUSY, (account,))[0][0])


def fixed_variables(connection: pymysql.Connection[Any]) -> set[str]:
    """The names of variables that cannot be changed while the server runs."""
    found = rows(connection, "SELECT LOWER(variable_name) FROM information_schema.system_variables WHERE read_only = 'YES'")
    return {str(name) for (name,) in found}


def rows(connection: pymysql.Connection[Any], statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The rows that a statement answers. Raises what `sql.failure` makes of the driver's errors."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())
    except pymysql.MySQLError as error:
        raise sql.failure(error) from error
