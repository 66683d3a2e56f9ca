"""Endpoints that managers call for domain names, which are unique among all users of a Director."""

from __future__ import annotations

from typing import Any

import flask

from conpaas.core import params
from conpaas.director import auth, domains, endpoint, runtime
from conpaas.director.api import nodes

blueprint = flask.Blueprint("domains", __name__)

_FIELDS = (
    params.Param("domain", params.Text(max_length=300, non_empty=True), help="The name, such as `www.example.org`."),
    params.Param("service_id", params.Integer(minimum=1), help="The service that answers to it."),
    nodes.APP_ID,
)


@endpoint.endpoint(blueprint, "/callback/claim_domain", auth="manager", params=_FIELDS)
def claim_domain(*, domain: str, service_id: int, app_id: str | None, caller: auth.Caller) -> dict[str, Any]:
    """Reserve a domain name for a service until it is released or the service is removed. Again is fine; an error if it is taken."""
    aid = nodes.own_application(app_id, caller)
    with runtime.current().database.session() as session:
        domains.claim(session, aid, service_id, domain, runtime.current().clock())
    return {}


@endpoint.endpoint(blueprint, "/callback/release_domain", auth="manager", params=_FIELDS)
def release_domain(*, domain: str, service_id: int, app_id: str | None, caller: auth.Caller) -> dict[str, Any]:
    """Give a domain name back; one that the service does not hold is fine."""
    aid = nodes.own_application(app_id, caller)
    with runtime.current().database.session() as session:
        domains.release(session, aid, service_id, domain)
    return {}
