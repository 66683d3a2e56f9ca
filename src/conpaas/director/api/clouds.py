"""Endpoints about clouds and the VMs that a user has there."""

from __future__ import annotations

from typing import Any

import flask
import sqlalchemy as sa

from conpaas.core import node
from conpaas.director import auth, endpoint, models, runtime

blueprint = flask.Blueprint("clouds", __name__)


@endpoint.endpoint(blueprint, "/available_clouds", methods=["GET", "POST"], auth="none")
def available_clouds() -> list[str]:
    """The names of the configured clouds, `default` first."""
    return [node.outer_cloud(name) for name in runtime.current().config.cloud_names]


@endpoint.endpoint(blueprint, "/list_resources", methods=["GET", "POST"], auth="user")
def list_resources(caller: auth.Caller) -> list[dict[str, Any]]:
    """The VMs of the calling user's applications. `charged` is the number of hours paid so far."""
    resource, entry = models.Resource, models.LedgerEntry
    hours = sa.select(sa.func.count()).where(entry.rid == resource.rid).scalar_subquery()
    query = (
        sa.select(resource, models.Application.name, hours)
        .join(models.Application, models.Application.aid == resource.app_id)
        .where(models.Application.user_id == caller.uid, resource.vmid.is_not(None))
        .order_by(resource.rid)
    )
    with runtime.current().database.reader() as session:
        return [as_dict(found, name, charged) for found, name, charged in session.execute(query)]


def as_dict(resource: models.Resource, app_name: str, charged: int) -> dict[str, Any]:
    """A VM as its owner sees it."""
    return {
        "rid": resource.rid,
        "vmid": resource.vmid,
        "app_id": resource.app_id,
        "app_name": app_name,
        "service_id": resource.service_id,
        "charged": charged,
        "ip": resource.ip,
        "role": resource.role,
        "cloud": node.outer_cloud(resource.cloud),
        "created": str(resource.created.replace(tzinfo=None)),
        "state": resource.state,
    }
