"""The Director's numbers in the Prometheus text format: requests of this process, counts from the database."""

from __future__ import annotations

import os
import pathlib
import threading
from collections import Counter
from collections.abc import Iterable

import sqlalchemy as sa

from conpaas.director import models, runtime


class RequestCounters:
    """Requests answered by this process, by endpoint and status; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[str, float] = {}

    def count(self, endpoint: str, status: int, seconds: float) -> None:
        with self._lock:
            self._requests[endpoint, status] += 1
            self._seconds[endpoint] = self._seconds.get(endpoint, 0.0) + seconds

    def lines(self) -> Iterable[str]:
        with self._lock:
            requests, seconds = sorted(self._requests.items()), sorted(self._seconds.items())
        yield "# TYPE conpaas_director_requests_total counter"
        for (endpoint, status), number in requests:
            yield f'conpaas_director_requests_total{{endpoint="{endpoint}",status="{status}"}} {number}'
        yield "# TYPE conpaas_director_request_seconds_total counter"
        for endpoint, spent in seconds:
            yield f'conpaas_director_request_seconds_total{{endpoint="{endpoint}"}} {spent:.6f}'


def _quoted(value: object) -> str:
    text = str(value).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'"{text}"'


def _table_lines(director: runtime.Director) -> Iterable[str]:
    resource, application = models.Resource, models.Application
    with director.database.reader() as session:
        users = session.scalar(sa.select(sa.func.count()).select_from(models.User))
        statuses = session.execute(sa.select(application.status, sa.func.count()).group_by(application.status)).all()
        vms = session.execute(
            sa.select(resource.cloud, resource.role, resource.state, sa.func.count()).group_by(
                resource.cloud, resource.role, resource.state
            )
        ).all()
        unfinished = session.scalar(sa.select(sa.func.count()).where(models.Operation.active_target.is_not(None)))
        hours = session.scalar(
            sa.select(sa.func.coalesce(-sa.func.sum(models.LedgerEntry.amount), 0)).where(models.LedgerEntry.kind == "hour")
        )
    yield "# TYPE conpaas_director_users gauge"
    yield f"conpaas_director_users {users}"
    yield "# TYPE conpaas_director_applications gauge"
    for status, number in statuses:
        yield f"conpaas_director_applications{{status={_quoted(status)}}} {number}"
    yield "# TYPE conpaas_director_vms gauge"
    for cloud, role, state, number in vms:
        yield f"conpaas_director_vms{{cloud={_quoted(cloud)},role={_quoted(role)},state={_quoted(state)}}} {number}"
    yield "# TYPE conpaas_director_unfinished_operations gauge"
    yield f"conpaas_director_unfinished_operations {unfinished}"
    yield "# TYPE conpaas_director_charged_hours_total counter"
    yield f"conpaas_director_charged_hours_total {hours}"


def _resident_bytes() -> int:
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _process_lines() -> Iterable[str]:
    yield "# TYPE process_resident_memory_bytes gauge"
    yield f"process_resident_memory_bytes {_resident_bytes()}"


def page(director: runtime.Director) -> str:
    """The whole page."""
    counters: RequestCounters = director.components["metrics"]
    return "\n".join([*_process_lines(), *counters.lines(), *_table_lines(director), ""])
