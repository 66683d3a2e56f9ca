"""How the server of this node does: counters as it tells them, and what they grew by a second between two looks."""

from __future__ import annotations

import contextlib
import pathlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import pymysql

from conpaas.core import errors, log_window
from conpaas.services.mysql.agent import statement_time
from conpaas.services.mysql.agent.statement_time import Sample
from conpaas.services.mysql.workload import sql

_TIMEOUT: Final = 5.0
_WINDOW: Final = 10.0
"""Rates are over at least so many seconds once the agent has looked for that long, so that a second caller does not shorten them."""
_KEPT: Final = 5
"""Samples in a window."""

RATES: Final[Mapping[str, str]] = {
    "queries": "Questions",
    "slow_queries": "Slow_queries",
    "selects": "Com_select",
    "inserts": "Com_insert",
    "updates": "Com_update",
    "deletes": "Com_delete",
    "commits": "Com_commit",
    "rollbacks": "Com_rollback",
    "connections": "Connections",
    "failed_connections": "Aborted_connects",
    "lost_connections": "Aborted_clients",
    "bytes_received": "Bytes_received",
    "bytes_sent": "Bytes_sent",
    "rows_read": "Innodb_rows_read",
    "disk_reads": "Innodb_buffer_pool_reads",
    "row_lock_waits": "Innodb_row_lock_waits",
    "temporary_disk_tables": "Created_tmp_disk_tables",
    "conflicts": "wsrep_local_bf_aborts",
    "failed_certifications": "wsrep_local_cert_failures",
    "replicated_bytes": "wsrep_replicated_bytes",
    "received_bytes": "wsrep_received_bytes",
}
"""Growth a second, by the name in our answers."""
VALUES: Final[Mapping[str, str]] = {
    "threads_connected": "Threads_connected",
    "threads_running": "Threads_running",
    "max_used_connections": "Max_used_connections",
    "uptime": "Uptime",
    "pool_pages_total": "Innodb_buffer_pool_pages_total",
    "pool_pages_free": "Innodb_buffer_pool_pages_free",
    "pool_pages_dirty": "Innodb_buffer_pool_pages_dirty",
    "receive_queue": "wsrep_local_recv_queue",
    "receive_queue_average": "wsrep_local_recv_queue_avg",
    "send_queue": "wsrep_local_send_queue",
    "send_queue_average": "wsrep_local_send_queue_avg",
    "apply_window": "wsrep_apply_window",
    "cluster_size": "wsrep_cluster_size",
}
"""What is told as it is at the moment."""
CLASSIC: Final[Mapping[str, str]] = {
    "load": "wsrep_local_recv_queue_avg",
    "select": "Com_select",
    "insert": "Com_insert",
    "delete": "Com_delete",
    "update": "Com_update",
}
"""What `getMeanLoad` is made of, as texts."""
_OTHERS: Final = ("Innodb_buffer_pool_read_requests", "wsrep_flow_control_paused_ns", "wsrep_flow_control_sent", "Busy_time")


class Figures:
    """Looks at one server with this configuration. Thread-safe."""

    def __init__(self, socket: pathlib.Path, configuration: pathlib.Path, now: Callable[[], float] = time.monotonic) -> None:
        self._socket = socket
        self._now = now
        self._time = statement_time.StatementTime(socket, configuration, now)
        self._lock = threading.Lock()
        self._samples: list[Sample] = []

    def get(self) -> dict[str, Any]:
        """`rates` (growth a second), `values` (now), `ratios` (0 to 1), `latency` (ms a statement, null while that is not known),
        `seconds` that rates are over, and `classic` counters."""
        with self._session() as cursor:
            sample = Sample(self._now(), _status(cursor))
            cursor.execute("SELECT @@GLOBAL.max_connections, @@GLOBAL.userstat")
            limit, counted = cursor.fetchone() or (0, 0)
            before = self._before(sample)
            if before is None:
                before = Sample(sample.when - sample.number("Uptime"), {})
            latency = self._time.look(cursor, before, sample, counted=bool(counted))
        return {**summary(before, sample), "latency": latency, "max_connections": int(limit)}

    def close(self) -> None:
        """Look no more."""
        self._time.close()

    def slow_log(self, offset: int | None, limit: int) -> dict[str, Any]:
        """A window on the log of slow statements, and whether it is written."""
        with self._session() as cursor:
            cursor.execute("SELECT @@GLOBAL.slow_query_log_file, @@datadir, @@GLOBAL.slow_query_log, @@GLOBAL.long_query_time")
            name, directory, on, seconds = cursor.fetchone() or ("", "", 0, 0)
        try:
            window = log_window.answer(pathlib.Path(directory) / name, offset, limit)
        except FileNotFoundError:
            window = {"log": "", "offset": 0, "size": 0}
        except OSError as error:
            raise errors.OperationFailed(f"The log of slow statements cannot be read: {error.strerror}.") from error
        return {**window, "on": bool(on), "seconds": float(seconds)}

    def _before(self, sample: Sample) -> Sample | None:
        """The sample to compare with: the youngest that is old enough, or the oldest of this run of the server."""
        with self._lock:
            if self._samples and self._samples[-1].number("Uptime") > sample.number("Uptime"):
                self._samples = []
            old = [one for one in self._samples if sample.when - one.when >= _WINDOW]
            before = old[-1] if old else self._samples[0] if self._samples else None
            kept = self._samples[max(0, len(old) - 1) :]
            due = not kept or sample.when - kept[-1].when >= _WINDOW / _KEPT
            self._samples = [*kept, sample] if due else kept
            return before

    @contextlib.contextmanager
    def _session(self) -> Iterator[pymysql.cursors.Cursor]:
        with contextlib.closing(sql.connect(self._socket, _TIMEOUT)) as connection, connection.cursor() as cursor:
            try:
                yield cursor
            except pymysql.MySQLError as error:
                raise sql.failure(error) from error


def summary(before: Sample, now: Sample) -> dict[str, Any]:
    """What two samples tell."""
    seconds = max(now.when - before.when, 0.001)

    def grown(name: str) -> float:
        return max(now.number(name) - before.number(name), 0.0)

    requests, paused = grown("Innodb_buffer_pool_read_requests"), grown("wsrep_flow_control_paused_ns") / 1e9
    return {
        "seconds": round(seconds, 3),
        "rates": {name: round(grown(counter) / seconds, 3) for name, counter in RATES.items()},
        "values": {name: now.number(counter) for name, counter in VALUES.items() if counter in now.status},
        "ratios": {
            "pool_hits": round(1 - min(grown("Innodb_buffer_pool_reads") / requests, 1), 6) if requests else 1.0,
            "flow_control_paused": round(min(paused / seconds, 1), 6),
        },
        "classic": {name: now.status.get(counter, "0") for name, counter in CLASSIC.items()},
    }


def _status(cursor: pymysql.cursors.Cursor) -> dict[str, str]:
    wanted = sorted({*RATES.values(), *VALUES.values(), *CLASSIC.values(), *_OTHERS})
    cursor.execute("SHOW GLOBAL STATUS WHERE Variable_name IN %s", (wanted,))
    return {str(name): str(value) for name, value in cursor.fetchall()}
