"""Endpoints about the services of applications. A service lives in its application's manager; here are its name and that it exists."""

from __future__ import annotations

from typing import Any

import flask
import sqlalchemy as sa
from sqlalchemy import orm

from conpaas.core import errors, params
from conpaas.core import services as registry
from conpaas.director import auth, endpoint, managers, models, runtime
from conpaas.director.api import applications
from conpaas.director.lifecycle import component
from conpaas.director.lifecycle import services as lifecycle_services

blueprint = flask.Blueprint("services", __name__)

BAD_IDS = "Bad specification of application or service IDs"
REMOVE_WAIT = 20.0
_APP_ID = params.Param("app_id", params.Text(max_length=20), default=None, help="Id of the application.")
_SERVICE_ID = params.Param("service_id", params.Text(max_length=20), default=None, help="Id of the service inside it.")


def as_dict(service: models.Service) -> dict[str, Any]:
    """The classic shape; `state` is always INIT, the live state is the manager's to tell (`get_service_info`)."""
    return {
        "rec_id": service.rec_id,
        "sid": service.sid,
        "name": service.name,
        "type": service.type,
        "state": "INIT",
        "created": service.created.isoformat(),
        "cloud": None,
        "subnet": None,
        "application_id": service.application_id,
    }


def _with_application(service: models.Service, application: models.Application) -> dict[str, Any]:
    return {"service": as_dict(service), "application": applications.as_dict(application)}


def _ids(app_id: Any, service_id: Any) -> tuple[int, int]:
    try:
        number = params.Integer()
        return number.check(app_id), number.check(service_id)
    except errors.InvalidArgument:
        raise errors.InvalidArgument(BAD_IDS) from None


@endpoint.endpoint(
    blueprint,
    "/add/<service_type>",
    auth="user",
    params=[params.Param("appid", params.Integer(minimum=1), default=None, help="The application; default: the user's oldest one.")],
)
def add(*, service_type: str, appid: int | None, caller: auth.Caller) -> dict[str, Any]:
    """Add a service of a type to a running application; it is there, but not started, when the reply comes."""
    with runtime.current().database.reader() as session:
        aid = appid if appid is not None else _oldest(session, caller.uid)
        if service_type not in registry.registry.available():
            raise errors.InvalidArgument(f"Unknown service type '{service_type}'")
        _require_running(session, aid, caller)
    service = component.current().services.add(aid, service_type)
    with runtime.current().database.reader() as session:
        return _with_application(service, applications.own_application(session, aid, caller.uid))


def _oldest(session: orm.Session, uid: int | None) -> int:
    aid = session.scalar(sa.select(sa.func.min(models.Application.aid)).where(models.Application.user_id == uid))
    if aid is None:
        raise errors.NotFound("No existing applications")
    return aid


def _require_running(session: orm.Session, aid: int, caller: auth.Caller) -> None:
    application = session.get(models.Application, aid)
    if application is None or application.user_id != caller.uid:
        raise errors.NotFound(f"Application {aid} not found.")
    managers.require_started(session, aid)


@endpoint.endpoint(blueprint, "/list", methods=["GET", "POST"], auth="user")
def list_all(*, caller: auth.Caller) -> list[dict[str, Any]]:
    """The services of all the user's applications."""
    return _list(models.Application.user_id == caller.uid)


@endpoint.endpoint(blueprint, "/list/<int:aid>", methods=["GET", "POST"], auth="user")
def list_of(*, aid: int, caller: auth.Caller) -> list[dict[str, Any]]:
    """The services of one of the user's applications; of an application of somebody else, none."""
    return _list(sa.and_(models.Application.user_id == caller.uid, models.Application.aid == aid))


def _list(condition: sa.ColumnElement[bool]) -> list[dict[str, Any]]:
    query = (
        sa.select(models.Service, models.Application)
        .join(models.Application, models.Application.aid == models.Service.application_id)
        .where(condition)
        .order_by(models.Application.aid, models.Service.sid)
    )
    with runtime.current().database.reader() as session:
        return [_with_application(service, application) for service, application in session.execute(query)]


@endpoint.endpoint(
    blueprint,
    "/rename",
    auth="user",
    params=[_APP_ID, _SERVICE_ID, params.Param("name", params.Text(max_length=256, name=True), default="", help="The new name.")],
)
def rename(*, app_id: str | None, service_id: str | None, name: str, caller: auth.Caller) -> bool:
    """Give a service another name."""
    aid, sid = _ids(app_id, service_id)
    if not name.strip():
        raise errors.InvalidArgument(applications.NAME_MISSING)
    with runtime.current().database.session() as session:
        _own_service(session, aid, sid, caller).name = name.strip()
    return True


def _own_service(session: orm.Session, aid: int, sid: int, caller: auth.Caller) -> models.Service:
    query = (
        sa.select(models.Service)
        .join(models.Application, models.Application.aid == models.Service.application_id)
        .where(models.Application.user_id == caller.uid, models.Service.application_id == aid, models.Service.sid == sid)
    )
    service = session.scalar(query)
    if service is None:
        raise errors.NotFound("Invalid service_id")
    return service


@endpoint.endpoint(blueprint, "/remove", auth="user", params=[_APP_ID, _SERVICE_ID])
def remove(*, app_id: str | None, service_id: str | None, caller: auth.Caller) -> dict[str, Any]:
    """Remove a service with its machines. What takes longer than some seconds goes on after the reply, which then has `pending`."""
    aid, sid = _ids(app_id, service_id)
    with runtime.current().database.reader() as session:
        _require_running(session, aid, caller)
        _own_service(session, aid, sid, caller)
    lifecycle = component.current()
    op = lifecycle.engine.submit(lifecycle_services.REMOVE, aid, {"service_id": sid}, caller.label)
    result: dict[str, Any] = lifecycle.result(op.id, REMOVE_WAIT)
    return result
