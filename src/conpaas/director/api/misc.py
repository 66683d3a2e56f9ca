"""What a Director says of itself, to anybody: version, features, health, metrics, and the list of its endpoints."""

from __future__ import annotations

import logging
from typing import Any

import flask
import sqlalchemy as sa

import conpaas
from conpaas.core import metrics as core_metrics
from conpaas.core import pages, services
from conpaas.director import config, endpoint, metrics, models, runtime

blueprint = flask.Blueprint("misc", __name__)
log = logging.getLogger(__name__)


@endpoint.endpoint(blueprint, "/version", methods=["GET"], auth="none")
def version() -> endpoint.PlainText:
    """The version of this Director, as bare text."""
    return endpoint.PlainText(conpaas.__version__)


@endpoint.endpoint(blueprint, "/support_external_idp", methods=["GET"], auth="none")
def support_external_idp() -> endpoint.PlainText:
    """Always the text `False`: classic front-ends cannot sign in through identity providers; /registration names those for others."""
    return endpoint.PlainText("False")


@endpoint.endpoint(blueprint, "/support_openid", methods=["GET"], auth="none")
def support_openid() -> endpoint.PlainText:
    """Always the text `False`: as /support_external_idp."""
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


@endpoint.endpoint(blueprint, "/service_types", methods=["GET"], auth="user")
def service_types() -> list[dict[str, Any]]:
    """The service types that can be added, each with its roles and the declaration of its page in a web front-end.

    One that cannot be loaded is left out, and one whose page cannot be loaded has an empty page.
    """
    return [described for name in services.registry.available() if (described := _described(name)) is not None]


def _described(name: str) -> dict[str, Any] | None:
    try:
        service = services.registry.get(name)
    except Exception as error:  # noqa: BLE001 — logged; a broken package of somebody else must not hide the others
        log.warning("the service type %s is left out: %s", name, error)
        return None
    try:
        page = service.load_page()
    except Exception as error:  # noqa: BLE001 — logged; as above
        log.warning("the page of the service type %s is left out: %s", name, error)
        page = pages.Page()
    described = {"name": service.name, "label": service.label or service.name, "description": service.description}
    return {**described, "roles": list(service.roles), "page": page.to_dict()}


@endpoint.endpoint(blueprint, "/registration", methods=["GET"], auth="none")
def registration() -> dict[str, Any]:
    """How people get an account here: `mode` is open, invitation or closed; what a front-end must know before anybody signed in."""
    configured = runtime.current().config
    return {
        "mode": configured.registration,
        "confirmation": configured.confirm_email,
        "oidc": [{"name": one.name, "label": one.label} for one in configured.oidc],
        "max_credit": configured.max_credit,
        "mail": configured.sends_mail,
        "version": conpaas.__version__,
    }


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
