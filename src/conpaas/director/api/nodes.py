"""Endpoints that managers call for machines, and the code that machines download."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import flask

from conpaas.core import errors, params
from conpaas.core.operations import OperationKind
from conpaas.director import auth, endpoint, inventory, runtime
from conpaas.director.lifecycle import component, wanted
from conpaas.director.lifecycle import nodes as lifecycle_nodes

blueprint = flask.Blueprint("nodes", __name__)

MAX_NODES_TEXT = 512 * 1024
MAX_SCRIPT = 256 * 1024
# A manager without request keys can't ask again: it is held until the end, whatever that is.
BLOCKING_WAIT = 1800.0

REQUEST = params.Param("request", params.Text(max_length=100), default=None, help="Key of the request: the same key gets the same answer.")
WAIT = params.Param(
    "wait",
    params.Integer(minimum=0, maximum=600),
    default=int(component.LONGEST_HOLD),
    help="Seconds the call may be held; then it answers `pending`.",
)
APP_ID = params.Param("app_id", params.Text(max_length=20), default=None, help="The manager's own application.")


def own_application(given: str | None, caller: auth.Caller) -> int:
    """The application of the calling manager's certificate, which the request may repeat but not change."""
    if caller.aid is None or (given not in (None, "", "None") and given != str(caller.aid)):
        raise errors.Forbidden(f"A manager may ask for its own application only, which is {caller.aid}, not {given}.")
    return caller.aid


def keyed(kind: OperationKind, aid: int, request: str | None, wait: int, args: Mapping[str, Any], caller: auth.Caller) -> Any:
    """Begin or find the operation that a request is, and hold the call for its result."""
    lifecycle = component.current()
    key = wanted.request_key(request) if request else uuid.uuid4().hex
    op_id = lifecycle.request(kind, aid, key, args, caller.label)
    return lifecycle.result(op_id, min(wait, component.LONGEST_HOLD) if request else BLOCKING_WAIT)


@endpoint.endpoint(
    blueprint,
    "/create_nodes",
    auth="manager",
    params=[
        params.Param(
            "nodes_info", params.Text(max_length=MAX_NODES_TEXT), help="List of dicts with `role`, `cloud`, `volumes`, `inst_type`."
        ),
        params.Param("service_type", params.Text(max_length=64), help="Type of the agents."),
        params.Param("service_id", params.Integer(minimum=0), help="The service that the nodes are for."),
        params.Param("manager_ip", params.Text(max_length=80), default="", help="Address under which agents find the manager."),
        params.Param("context", params.Text(max_length=MAX_NODES_TEXT), default="", help="Values for the agents' configuration."),
        params.Param("startup_script", params.Text(max_length=MAX_SCRIPT), default="", help="The user's script, run at boot."),
        APP_ID,
        REQUEST,
        WAIT,
    ],
)
def create_nodes(
    *,
    nodes_info: str,
    service_type: str,
    service_id: int,
    manager_ip: str,
    context: str,
    startup_script: str,
    app_id: str | None,
    request: str | None,
    wait: int,
    caller: auth.Caller,
) -> Any:
    """Create machines and wait until their agents answer: all of them, or an error naming what failed and none is left."""
    aid = own_application(app_id, caller)
    asked = wanted.parse_nodes(nodes_info)
    for name in {item.cloud for item in asked}:
        component.current().parts.cloud(name)
    args = {
        "nodes": [item.to_dict() for item in asked],
        "service_type": wanted.service_type(service_type),
        "service_id": service_id,
        "manager_ip": manager_ip or _manager_ip(aid),
        "context": wanted.parse_context(context),
        "startup_script": startup_script,
    }
    return keyed(lifecycle_nodes.CREATE, aid, request, wait, args, caller)


def _manager_ip(aid: int) -> str:
    with runtime.current().database.reader() as session:
        machines = inventory.of_application(session, aid)
    return next((machine.ip for machine in machines if machine.role == inventory.MANAGER), "")


@endpoint.endpoint(
    blueprint,
    "/remove_nodes",
    auth="manager",
    params=[
        params.Param("nodes", params.Text(max_length=MAX_NODES_TEXT), help="JSON list of node dicts."),
        params.Param("service_id", params.Integer(minimum=0), default=None, help="Ignored; classic clients send it."),
        params.Param("disks", params.Boolean(), default=False, help="Destroy kept volumes attached to them, too."),
        APP_ID,
        REQUEST,
        WAIT,
    ],
)
def remove_nodes(
    *, nodes: str, disks: bool, app_id: str | None, request: str | None, wait: int, caller: auth.Caller, **_ignored: Any
) -> Any:
    """Destroy machines with their volumes, except kept ones. Removed already is fine; one of another application, and nothing goes."""
    aid = own_application(app_id, caller)
    vms = wanted.parse_vms(nodes)
    known = component.current().known(aid, wanted.request_key(request)) if request else None
    if known is None:
        with runtime.current().database.reader() as session:
            lifecycle_nodes.own_machines(session, aid, vms)
    return keyed(lifecycle_nodes.REMOVE, aid, request, wait, {"vms": [list(pair) for pair in vms], "disks": disks}, caller)


@endpoint.endpoint(blueprint, "/list_nodes", auth="manager", params=[APP_ID])
def list_nodes(*, app_id: str | None, caller: auth.Caller) -> list[dict[str, Any]]:
    """The machines that the Director has on record for the manager's application: node dicts with `service_id` and `state`."""
    aid = own_application(app_id, caller)
    with runtime.current().database.reader() as session:
        machines = [m for m in inventory.of_application(session, aid) if m.role == inventory.AGENT and m.vmid]
        dicts = lifecycle_nodes.node_dicts(session, machines)
    return [{**values, "service_id": machine.service_id, "state": machine.state} for values, machine in zip(dicts, machines, strict=True)]


@endpoint.endpoint(blueprint, "/download/ConPaaS.tar.gz", methods=["GET"], auth="none")
def download() -> flask.Response:
    """The code that VMs run. Its ETag is the SHA-256 that a VM was told to expect."""
    archives = component.current().archives
    if archives is None:
        raise errors.NotFound("This Director offers no code.")
    code = archives.current()
    return flask.send_file(code.path, mimetype="application/x-tar", etag=code.sha256, conditional=True, download_name="ConPaaS.tar.gz")
