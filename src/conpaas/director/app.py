"""The Director as a WSGI application: everything mounted, nothing started.

`create_app(config)` makes the `runtime.Director` (database opened and migrated, CA prepared), lets the other rooms install
themselves and mounts their endpoints. `serve` puts a server around it and starts the background work.
"""

from __future__ import annotations

import datetime
import importlib
import logging
import time
from collections.abc import Callable

import flask
from werkzeug import exceptions

from conpaas.core import errors
from conpaas.core.clouds import factory
from conpaas.director import (
    ca,
    certificates,
    config,
    credits,
    db,
    endpoint,
    invitations,
    metrics,
    models,
    notices,
    outlook,
    registration,
    runtime,
    throttle,
)
from conpaas.director.oidc import logins

log = logging.getLogger(__name__)

# Packages with `install(director)`, called in this order.
COMPONENTS = ("conpaas.director.lifecycle",)
API_MODULES = (
    *("misc", "users", "accounts", "sessions", "certificates", "clouds", "operator", "oidc", "changes"),
    *("applications", "services", "nodes", "volumes", "domains", "manifests"),
)
MAX_BODY = 4 * 1024 * 1024
MAX_FORM_PARTS = 200
PATH_IN_LOG = 200
"""Characters: anybody may ask for a path of any length."""
ROUTINE = frozenset({"/callback/revoked_certificates", "/changes", "/watch"})
"""What managers and front-ends ask all the time: only trouble with it is worth a line in the log."""

PRUNE_INTERVAL = 300.0


def make_director(
    configuration: config.DirectorConfig, clock: Callable[[], datetime.datetime] = models.utcnow, *, components: bool = True
) -> runtime.Director:
    """Open the database, prepare the CA and let the rooms install themselves; starts nothing.

    `components=False` leaves out the rooms that talk to clouds: for administration of users. Raises ConfigurationError.
    """
    authority = ca.Authority(configuration.cert_dir)
    try:
        configuration.state_dir.mkdir(parents=True, exist_ok=True)
        authority.prepare(configuration.certificate_hosts)
    except OSError as error:
        raise errors.ConfigurationError(
            f"The Director cannot use {error.filename or configuration.state_dir}: {error.strerror}.",
            hint=f"Run it as the owner of {configuration.state_dir}, or name another directory with --state.",
        ) from error
    director = runtime.Director(config=configuration, database=db.open(configuration.database_uri), authority=authority, clock=clock)
    director.add_loop("credits", configuration.credit_interval, lambda: _charge(director))
    director.add_loop("notices", notices.INTERVAL, lambda: notices.send_due(director))
    director.add_loop("throttle", PRUNE_INTERVAL, lambda: _prune(director))
    if components:
        director.add_startup(lambda: _wake_local_vms(director))
        for name in COMPONENTS:
            importlib.import_module(name).install(director)
    return director


def _wake_local_vms(director: runtime.Director) -> None:
    """Switch on the VMs of this machine that were halted, or went down with it. One that does not come up is the sweeper's to find."""
    for cloud in factory.open_clouds(director.config.sections).local():
        try:
            woken = cloud.resume()
        except errors.ConPaaSError as error:
            log.warning("on cloud %s: %s", cloud.name, error)
        else:
            with director.database.session() as session:
                credits.unpause(session, cloud.name, director.clock())
            if woken:
                log.info("on cloud %s, switched on again: %s", cloud.name, ", ".join(woken))


def _charge(director: runtime.Director) -> None:
    credits.tick(director)
    outlook.warn(director)


def _prune(director: runtime.Director) -> None:
    with director.database.session() as session:
        throttle.prune(session, director.clock().timestamp())
        for module in (certificates, invitations, registration, logins):
            module.prune(session, director.clock())


def create_app(configuration: config.DirectorConfig, director: runtime.Director | None = None) -> flask.Flask:
    """The WSGI application of one Director. Everything that has no address gets a JSON error, never HTML."""
    director = director or make_director(configuration)
    app = flask.Flask("conpaas.director", static_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=MAX_BODY, MAX_FORM_MEMORY_SIZE=MAX_BODY, MAX_FORM_PARTS=MAX_FORM_PARTS)
    app.extensions[runtime.EXTENSION] = director
    for name in API_MODULES:
        app.register_blueprint(importlib.import_module(f"conpaas.director.api.{name}").blueprint)
    app.before_request(_begin)
    app.after_request(_end)
    app.register_error_handler(exceptions.HTTPException, _http_error)
    app.register_error_handler(Exception, endpoint.incident_reply)
    return app


def _begin() -> None:
    flask.g.began = time.monotonic()


def _end(response: flask.Response) -> flask.Response:
    seconds = time.monotonic() - flask.g.get("began", time.monotonic())
    rule = flask.request.url_rule.rule if flask.request.url_rule else "unknown"
    metrics.count_request(rule, response.status_code, seconds)
    who = flask.g.get("caller", flask.request.remote_addr)
    # The path without its query: queries of classic clients may carry what nobody should read in a log.
    path = flask.request.path[:PATH_IN_LOG]
    level = logging.DEBUG if rule in ROUTINE and response.status_code < 400 else logging.INFO
    log.log(level, "%s %s by %s: %s in %.0f ms", flask.request.method, path, who, response.status_code, seconds * 1000)
    return response


def _http_error(error: exceptions.HTTPException) -> flask.Response:
    response = endpoint.json_reply({"error": f"{error.name}: {flask.request.method} {flask.request.path[:200]}"}, error.code or 500)
    if isinstance(error, exceptions.MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(error.valid_methods)
    return response
