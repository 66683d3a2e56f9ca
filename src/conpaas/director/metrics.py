"""The Director's numbers in the Prometheus text format: those of this process, and counts from the database."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from conpaas.core import metrics
from conpaas.director import models, runtime

_requests = metrics.Counter("conpaas_director_requests_total")
_seconds = metrics.Counter("conpaas_director_request_seconds_total")


def count_request(endpoint: str, status: int, seconds: float) -> None:
    """Count an answered request by the endpoint's declared address, never by the path that was asked for."""
    _requests.add(endpoint=endpoint, status=str(status))
    _seconds.add(seconds, endpoint=endpoint)


def _gauge(name: str, kind: str, counts: Iterable[tuple[dict[str, str], int]]) -> Iterable[str]:
    yield f"# TYPE {name} {kind}"
    for labels, number in counts:
        shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        yield f"{name}{{{shown}}} {number}" if shown else f"{name} {number}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _table_lines(director: runtime.Director) -> Iterable[str]:
    resource, application, entry = models.Resource, models.Application, models.LedgerEntry
    with director.database.reader() as session:
        users = session.scalar(sa.select(sa.func.count()).select_from(models.User)) or 0
        statuses = session.execute(sa.select(application.status, sa.func.count()).group_by(application.status)).all()
        by = (resource.cloud, resource.role, resource.state)
        vms = session.execute(sa.select(*by, sa.func.count()).group_by(*by)).all()
        unfinished = session.scalar(sa.select(sa.func.count()).where(models.Operation.status.in_(("RUNNING", "UNDOING")))) or 0
        hours = session.scalar(sa.select(sa.func.coalesce(-sa.func.sum(entry.amount), 0)).where(entry.kind == "hour")) or 0
    yield from _gauge("conpaas_director_users", "gauge", [({}, users)])
    yield from _gauge("conpaas_director_applications", "gauge", [({"status": status}, number) for status, number in statuses])
    labelled = [({"cloud": cloud, "role": role, "state": state}, number) for cloud, role, state, number in vms]
    yield from _gauge("conpaas_director_vms", "gauge", labelled)
    yield from _gauge("conpaas_director_unfinished_operations", "gauge", [({}, unfinished)])
    yield from _gauge("conpaas_director_charged_hours_total", "counter", [({}, int(hours))])


def page(director: runtime.Director) -> str:
    """The whole page."""
    return metrics.render() + "\n".join([*_table_lines(director), ""])
