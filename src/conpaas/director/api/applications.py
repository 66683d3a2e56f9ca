"""Endpoints about applications: creating, starting, stopping, naming and deleting them, and what happened to them."""

from __future__ import annotations

from typing import Any

import flask
import sqlalchemy as sa
from sqlalchemy import exc, orm

from conpaas.core import errors, operations, params
from conpaas.director import auth, endpoint, inventory, models, opstore, quotas, runtime
from conpaas.director.lifecycle import component, wanted

blueprint = flask.Blueprint("applications", __name__)

NAME_MISSING = '"name" is a required argument'
_NAME = params.Param(
    "name", params.Text(max_length=256, non_empty=True, name=True), help="Name of the application, unique among the user's."
)
_LIMIT = params.Param("limit", params.Integer(minimum=1, maximum=200), default=20, help="How many, newest first.")
_CONSOLE_LIMIT = 64 * 1024
STOP_HOLD = 20.0


def own_application(session: orm.Session, aid: int, uid: int | None) -> models.Application:
    """The application, if it belongs to the user; otherwise it does not exist for them."""
    application = session.get(models.Application, aid)
    if application is None or application.user_id != uid:
        raise errors.NotFound("Application not found")
    return application


def as_dict(application: models.Application, under_way: operations.Operation | None = None) -> dict[str, Any]:
    """The classic shape, and what classic clients do not look at: `manager_port`, `reason`, `created`, `operation`."""
    return {
        "aid": application.aid,
        "name": application.name,
        "uid": application.user_id,
        "status": application.status,
        "manager": application.manager_ip or _no_manager(application),
        "vmid": application.manager_vmid,
        "cloud": application.cloud,
        "manager_port": application.manager_port,
        "reason": application.reason,
        "created": application.created.isoformat(),
        "operation": under_way.to_dict() if under_way else None,
    }


def _no_manager(application: models.Application) -> str | None:
    """The address of a manager that is not there: null, by which classic command lines know. The classic front-end, which asks by POST,
    cannot show an application in ERROR with that, and so the person could not stop it to start it again; it gets an empty text."""
    wanted = application.status == operations.State.ERROR and flask.request.method == "POST"
    return "" if wanted else None


def _taken(name: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(f'Application name "{name}" is already taken')


@endpoint.endpoint(blueprint, "/createapp", auth="user", params=[_NAME], missing=NAME_MISSING)
def createapp(*, name: str, caller: auth.Caller) -> dict[str, Any]:
    """Create an application; nothing runs and nothing is charged before it is started."""
    assert caller.uid is not None
    application = models.Application(name=name.strip(), user_id=caller.uid, created=runtime.current().clock())
    try:
        with runtime.current().database.session() as session:
            quotas.require(session, application.user_id, applications=1)
            session.add(application)
            session.flush()
    except exc.IntegrityError as error:
        raise _taken(name) from error
    return as_dict(application)


@endpoint.endpoint(blueprint, "/listapp", methods=["GET", "POST"], auth="user")
def listapp(*, caller: auth.Caller) -> list[dict[str, Any]]:
    """The user's applications, oldest first."""
    with runtime.current().database.reader() as session:
        query = sa.select(models.Application).where(models.Application.user_id == caller.uid).order_by(models.Application.aid)
        found = session.scalars(query).all()
    store = component.current().store
    # What the whole application is doing counts more than what its services ask for meanwhile.
    running = [*store.under_way(modes=[opstore.Mode.SHARED]), *store.under_way(modes=[opstore.Mode.EXCLUSIVE, opstore.Mode.PREEMPTIVE])]
    under_way = {op.target: op for op in running}
    return [as_dict(application, under_way.get(application.aid)) for application in found]


@endpoint.endpoint(blueprint, "/renameapp/<int:aid>", auth="user", params=[_NAME], missing=NAME_MISSING)
def renameapp(*, aid: int, name: str, caller: auth.Caller) -> dict[str, Any]:
    """Give an application another name."""
    try:
        with runtime.current().database.session() as session:
            own_application(session, aid, caller.uid).name = name.strip()
    except exc.IntegrityError as error:
        raise _taken(name) from error
    return {}


def _require_own(aid: int, caller: auth.Caller) -> None:
    with runtime.current().database.reader() as session:
        own_application(session, aid, caller.uid)


@endpoint.endpoint(blueprint, "/startapp/<int:aid>", auth="user")
def startapp(*, aid: int, caller: auth.Caller) -> dict[str, Any]:
    """Start an application's manager on the default cloud; answers at once, `/listapp` tells when it is RUNNING (or ERROR, and why)."""
    return startapp_on(aid, "default", caller)


@endpoint.endpoint(blueprint, "/startapp/<int:aid>/<cloud>", auth="user")
def startapp_cloud(*, aid: int, cloud: str, caller: auth.Caller) -> dict[str, Any]:
    """As `/startapp/<aid>`, on the cloud of that name."""
    return startapp_on(aid, cloud, caller)


def startapp_on(aid: int, cloud: str, caller: auth.Caller) -> dict[str, Any]:
    """Begin the start. The reply is the classic empty one; `/listapp` tells the operation."""
    _require_own(aid, caller)
    component.current().start(aid, wanted.cloud_name(cloud), caller.label)
    return {}


@endpoint.endpoint(blueprint, "/stopapp/<int:aid>", auth="user")
def stopapp(*, aid: int, caller: auth.Caller) -> dict[str, Any]:
    """Destroy an application's manager, machines, volumes and services, whatever it is doing; a later start gives an empty one."""
    _require_own(aid, caller)
    _hold(component.current().stop(aid, caller.label))
    return {}


@endpoint.endpoint(blueprint, "/deleteapp/<int:aid>", auth="user")
def deleteapp(*, aid: int, caller: auth.Caller) -> dict[str, Any]:
    """Stop an application and forget it."""
    _require_own(aid, caller)
    _hold(component.current().delete(aid, caller.label))
    return {}


def _hold(op_id: str) -> None:
    """Keep the caller until the application has stopped: classic clients take it for stopped when the reply comes. What takes
    longer goes on after the reply, with status EPILOGUE; a failure that is known by then is the reply."""
    component.current().result(op_id, STOP_HOLD)


@endpoint.endpoint(blueprint, "/app_history/<int:aid>", methods=["GET", "POST"], auth="user", params=[_LIMIT])
def app_history(*, aid: int, limit: int, caller: auth.Caller) -> list[dict[str, Any]]:
    """What was done to an application, newest first: every operation with its steps, times, notes and the reason of a failure."""
    _require_own(aid, caller)
    return [_operation(op) for op in component.current().history(aid, limit)]


def _operation(op: operations.Operation) -> dict[str, Any]:
    record = op.to_dict()
    record["aid"] = record.pop("service_id")
    # A top-level key `error` would make classic clients take a reply for a failure; inside a list it is safe, but be consistent.
    record["reason"] = record.pop("error")
    return record


@endpoint.endpoint(
    blueprint,
    "/console_log",
    methods=["GET", "POST"],
    auth="user",
    params=[
        params.Param("vmid", params.Text(max_length=128, non_empty=True), help="Id of one of the user's VMs, as /list_resources names it."),
        params.Param("cloud", params.Text(max_length=128), default="default", help="The VM's cloud."),
    ],
)
def console_log(*, vmid: str, cloud: str, caller: auth.Caller) -> dict[str, Any]:
    """The end of what a VM wrote to its console."""
    inside = wanted.cloud_name(cloud)
    with runtime.current().database.reader() as session:
        machine = inventory.find(session, inside, vmid)
        if machine is None:
            raise errors.NotFound(f"There is no VM {vmid} on cloud {cloud}.")
        try:
            own_application(session, machine.app_id, caller.uid)
        except errors.NotFound as error:
            raise errors.NotFound(f"There is no VM {vmid} on cloud {cloud}.") from error
    return {"vmid": vmid, "cloud": cloud, "log": component.current().parts.cloud(inside).console_log(vmid)[-_CONSOLE_LIMIT:]}


@endpoint.endpoint(blueprint, "/sweeper", methods=["GET"], auth="operator")
def sweeper() -> dict[str, Any]:
    """What the comparison of clouds and inventory found lately, and how many VMs are in which state."""
    return component.current().sweeper.to_dict()


@endpoint.endpoint(blueprint, "/sweeper/run", auth="operator")
def run_sweeper() -> list[str]:
    """Compare clouds and inventory now; answers what was found."""
    return [finding.text for finding in component.current().sweeper.sweep()]
