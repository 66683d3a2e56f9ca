"""What a Director says of itself, to anybody: version, features, health, metrics, and the list of its endpoints."""

from __future__ import annotations

from typing import Any

import flask
import sqlalchemy as sa

import conpaas
from conpaas.core import metrics as core_metrics
from conpaas.core import services
from conpaas.director import config, endpoint, metrics, models, runtime

blueprint = flask.Blueprint("misc", __name__)


@endpoint.endpoint(blueprint, "/version", methods=["GET"], auth="none")
def version() -> endpoint.PlainText:
    """The version of this Director, as bare text."""
    return endpoint.PlainText(conpaas.__version__)


@endpoint.endpoint(blueprint, "/support_external_idp", methods=["GET"], auth="none")
def support_external_idp() -> endpoint.PlainText:
    """Always the text `False`: logins through identity providers are not offered, whatever the configuration says."""
    return endpoint.PlainText("False")


@endpoint.endpoint(blueprint, "/support_openid", methods=["GET"], auth="none")
def support_openid() -> endpoint.PlainText:
    """Always the text `False`: logins by OpenID are not offered, whatever the configuration says."""
    return endpoint.PlainText("False")


@endpoint.endpoint(blueprint, "/debug_level/<kind>", methods=["GET"], auth="none")
def debug_level(kind: str) -> endpoint.PlainText:
    """The debug level of one part of the classic front-end (`js`, `ajax`, `php`, `python`), as a bare number."""
    configured = runtime.current().config
    return endpoint.PlainText(str(getattr(configured, f"{kind}_debug_level")) if kind in config.DEBUG_LEVEL_TYPES else "0")


@endpoint.endpoint(blueprint, "/available_services", methods=["GET", "POST"], auth="none")
def available_services() -> list[str]:
    """The service types that can be added to an application."""
    return services.registry.available()


@endpoint.endpoint(blueprint, "/health", methods=["GET"], auth="none")
def health() -> dict[str, Any]:
    """`{"status": "ok"}` when this process answers and reaches its database."""
    director = runtime.current()
    with director.database.reader() as session:
        session.execute(sa.select(models.Lease.name).limit(1)).all()
    return {"status": "stopping" if director.stopping.is_set() else "ok", "version": conpaas.__version__}


@endpoint.endpoint(blueprint, "/metrics", methods=["GET"], auth="none")
def metrics_page() -> flask.Response:
    """Counts of requests, users, applications and VMs in the Prometheus text format; nothing that belongs to one user."""
    return flask.Response(metrics.page(runtime.current()), content_type=core_metrics.CONTENT_TYPE)


@endpoint.endpoint(blueprint, "/api", methods=["GET"], auth="none")
def api() -> list[dict[str, Any]]:
    """All endpoints as they are declared: address, methods, who may call, parameters."""
    return endpoint.describe()
