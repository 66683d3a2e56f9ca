"""Endpoints about manifests: making an application from one, and writing one of an application."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any, Final

import flask
import sqlalchemy as sa
from sqlalchemy import exc

from conpaas.core import errors, params
from conpaas.director import auth, endpoint, models, quotas, runtime
from conpaas.director.api import applications
from conpaas.director.lifecycle import applications as lifecycle_applications
from conpaas.director.lifecycle import component, wanted
from conpaas.director.manifest import export, json_schema, ready_made, schema

blueprint = flask.Blueprint("manifests", __name__)

MISSING: Final = '"{name}" is a required argument'
NAMES_TRIED: Final = 98
HOLD: Final = 1800.0
"""Seconds that a caller without `thread` is kept."""
HOLDS: Final = 4
"""Callers who are kept that long at the same time; further ones are kept as long as any other."""
_held = threading.BoundedSemaphore(HOLDS)


@endpoint.endpoint(
    blueprint,
    "/upload_manifest",
    auth="user",
    params=[
        params.Param("manifest", params.Text(max_length=schema.MAX_TEXT, secret=True), help="The manifest, a JSON text."),
        params.Param("cloud", params.Text(max_length=64), default="default", help="Cloud of the manager, and of services that name none."),
        params.Param("thread", params.Text(max_length=64), default="", help="Anything: answer at once, `/listapp` tells how it goes."),
    ],
    missing=MISSING,
)
def upload_manifest(*, manifest: str, cloud: str, thread: str, caller: auth.Caller) -> dict[str, Any]:
    """Make an application as a manifest describes it. If any part fails, nothing of it is left running, and `/listapp` has the reason."""
    checked = schema.parse(manifest, known_cloud=_known_cloud)
    inside = wanted.cloud_name(cloud)
    lifecycle = component.current()
    lifecycle.parts.cloud(inside)
    aid = _create(checked.application, caller, machines=bool(checked.services))
    if not checked.services:
        return {"aid": aid}
    try:
        op = lifecycle.deploy(aid, inside, checked.services, caller.label)
    except errors.ConPaaSError:
        _forget(aid)
        raise
    return {"aid": aid} if thread else _wait(lifecycle, op.id, aid)


def _known_cloud(name: str) -> object:
    return component.current().parts.cloud(wanted.cloud_name(name))


def _create(name: str, caller: auth.Caller, *, machines: bool) -> int:
    """The id of a new application of this name, or of the first of `name (2)`, `name (3)` … that is free."""
    director = runtime.current()
    if machines:
        with director.database.session() as session:
            lifecycle_applications.require_credits(component.current().parts, session, caller.uid or 0, 1)
    for number in range(1, NAMES_TRIED + 1):
        row = models.Application(name=name if number == 1 else f"{name} ({number})", user_id=caller.uid, created=director.clock())
        try:
            with director.database.session() as session:
                quotas.require(session, row.user_id, applications=1)
                session.add(row)
                session.flush()
                return row.aid
        except exc.IntegrityError:
            continue
    raise errors.WrongState("Application cannot be created", hint=f"{NAMES_TRIED} applications have this name already.")


def _forget(aid: int) -> None:
    with runtime.current().database.session() as session:
        session.execute(sa.delete(models.Application).where(models.Application.aid == aid))


def _wait(lifecycle: component.Lifecycle, op_id: str, aid: int) -> dict[str, Any]:
    """Keep the caller until it is done; a caller who cannot be kept any longer learns that it is `pending`."""
    alone = _held.acquire(blocking=False)
    try:
        reply = lifecycle.result(op_id, HOLD if alone else component.LONGEST_HOLD)
    finally:
        if alone:
            _held.release()
    return {"aid": aid, "pending": True} if reply == component.PENDING else {"aid": aid}


@endpoint.endpoint(
    blueprint,
    "/check_manifest",
    auth="user",
    methods=("POST",),
    params=[params.Param("manifest", params.Text(max_length=schema.MAX_TEXT, secret=True), help="The manifest, a JSON text.")],
    missing=MISSING,
)
def check_manifest(*, manifest: str) -> dict[str, Any]:
    """What is wrong with a manifest (`problems`, at most ten, in the order of the text; none if it would be accepted); nothing is made."""
    try:
        checked = schema.parse(manifest, known_cloud=_known_cloud)
    except schema.Invalid as error:
        return {"application": None, "services": [], "problems": [dataclasses.asdict(one) for one in error.problems]}
    made = [{"type": one.type, "name": one.name, "start": one.start, "nodes": dict(one.nodes)} for one in checked.services]
    return {"application": checked.application, "services": made, "problems": []}


@endpoint.endpoint(blueprint, "/manifest_schema", auth="user", methods=("GET",))
def manifest_schema() -> dict[str, Any]:
    """The JSON Schema of manifests, with the fields of every installed service type."""
    return json_schema.document()


@endpoint.endpoint(blueprint, "/ready_made", auth="user", methods=("GET",))
def list_ready_made() -> list[dict[str, Any]]:
    """The ready-made applications: each with its manifest, and whether it can be deployed here (`missing` says why not)."""
    directory = runtime.current().config.state_dir / ready_made.DIRECTORY
    found = []
    for one in ready_made.catalogue():
        shown = {"name": one.name, "label": one.label, "description": one.description, "then": one.then}
        missing = one.missing(directory)
        found.append({**shown, "available": not missing, "missing": missing, "manifest": dict(one.manifest)})
    return found


@endpoint.endpoint(blueprint, "/download_manifest/<appid>", auth="user")
def download_manifest(*, appid: str, caller: auth.Caller) -> dict[str, Any]:
    """The manifest that would make an application like this one; code and scripts are in it as `data:` URLs."""
    director = runtime.current()
    unknown = errors.NotFound(f"The appid {params.shown(appid)} does not exist")
    if not appid.isdecimal() or len(appid) > 18:
        raise unknown
    with director.database.reader() as session:
        try:
            applications.own_application(session, int(appid), caller.uid)
        except errors.NotFound:
            raise unknown from None
    return export.export(director.database, component.current().managers, int(appid))
