"""What the sweepers of all Director processes found lately: a bounded table."""

from __future__ import annotations

import datetime

import sqlalchemy as sa
from sqlalchemy import orm

from conpaas.director import models

KEPT = 500
SPARE = 50
"""So many more may gather before the oldest go, lest each finding be followed by a search for the oldest."""


def record(session: orm.Session, at: float, kind: str, text: str, cloud: str | None, vmid: str | None) -> None:
    """Write down a finding. What was found before, as in the last pass, only gets the present time."""
    row = models.SweepFinding
    same = sa.and_(row.kind == kind, row.cloud.is_not_distinct_from(cloud), row.vmid.is_not_distinct_from(vmid))
    newest = session.scalar(sa.select(row).where(same).order_by(row.id.desc()).limit(1))
    if newest is not None and newest.text == text:
        newest.at = at
        return
    session.add(row(at=at, kind=kind, text=text, cloud=cloud, vmid=vmid))
    session.flush()
    if (session.scalar(sa.select(sa.func.count()).select_from(row)) or 0) > KEPT + SPARE:
        oldest = session.scalar(sa.select(row.id).order_by(row.id.desc()).offset(KEPT - 1).limit(1))
        session.execute(sa.delete(row).where(row.id < oldest))


def listing(session: orm.Session, limit: int) -> list[dict[str, object]]:
    """The latest findings, newest first; `at` in ISO 8601, UTC."""
    row = models.SweepFinding
    found = session.scalars(sa.select(row).order_by(row.at.desc(), row.id.desc()).limit(limit)).all()
    return [
        {
            "at": datetime.datetime.fromtimestamp(one.at, datetime.UTC).isoformat(),
            "cloud": one.cloud,
            "vmid": one.vmid,
            "kind": one.kind,
            "text": one.text,
        }
        for one in found
    ]
