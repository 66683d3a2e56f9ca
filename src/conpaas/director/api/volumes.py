"""Endpoints that managers call for volumes. Every volume belongs to one application and is touched by its manager only."""

from __future__ import annotations

import uuid
from typing import Any

import flask
from sqlalchemy import orm

from conpaas.core import errors, params
from conpaas.core.operations import OperationKind
from conpaas.director import auth, endpoint, inventory, runtime
from conpaas.director.api import nodes
from conpaas.director.lifecycle import component, volumes, wanted

blueprint = flask.Blueprint("volumes", __name__)

_CLOUD = params.Param("cloud", params.Text(max_length=64), default=None, help="Name of the cloud; default: the first configured one.")
_VOLUME_ID = params.Param("volume_id", params.Text(max_length=128, non_empty=True), help="Id that /create_volume answered.")
_VM_ID = params.Param("vm_id", params.Text(max_length=200, non_empty=True), help="The cloud's id of a VM of the application.")
_SERVICE_ID = params.Param("service_id", params.Integer(minimum=0), default=0, help="The service that the volume is for.")
_COMMON = (nodes.APP_ID, nodes.REQUEST, nodes.WAIT)


def _vm(session: orm.Session, aid: int, cloud: str, given: str) -> inventory.Machine:
    """The VM that a manager means: by its id in the cloud, or by node id (cloud name and VM id joined)."""
    try:
        return volumes.own_machine(session, aid, cloud, given)
    except errors.NotFound:
        if not given.startswith(cloud):
            raise
        return volumes.own_machine(session, aid, cloud, given.removeprefix(cloud))


@endpoint.endpoint(
    blueprint,
    "/create_volume",
    auth="manager",
    params=[
        params.Param("size", params.Text(max_length=20), help="Size in MB."),
        params.Param("name", params.Text(max_length=128, non_empty=True), help="Name of the volume."),
        params.Param("vm_id", params.Text(max_length=200), default=None, help="The VM that it is meant for."),
        _CLOUD,
        _SERVICE_ID,
        params.Param("keep", params.Boolean(), default=False, help="Whether it outlives the machines that it is attached to."),
        *_COMMON,
    ],
)
def create_volume(
    *,
    size: str,
    name: str,
    vm_id: str | None,
    cloud: str | None,
    service_id: int,
    keep: bool,
    app_id: str | None,
    request: str | None,
    wait: int,
    caller: auth.Caller,
) -> Any:
    """Create a volume; answers `{"volume_id": id}`. A kept one lives until it is destroyed, or the application is stopped."""
    aid = nodes.own_application(app_id, caller)
    inside = wanted.cloud_name(cloud)
    component.current().parts.cloud(inside)
    vmid = None
    known = component.current().known(aid, wanted.request_key(request)) if request else None
    if known is None and vm_id not in (None, "", "None"):
        with runtime.current().database.reader() as session:
            vmid = _vm(session, aid, inside, str(vm_id)).vmid
    args = {
        "size": wanted.volume_size(size),
        "name": wanted.volume_name(name),
        "vmid": vmid,
        "cloud": inside,
        "service_id": service_id,
        "keep": keep,
    }
    return nodes.keyed(volumes.CREATE, aid, request, wait, args, caller)


@endpoint.endpoint(
    blueprint,
    "/attach_volume",
    auth="manager",
    params=[
        _VM_ID,
        _VOLUME_ID,
        params.Param("device_name", params.Text(max_length=32, non_empty=True), help="Device in the VM, such as `sdb`."),
        _CLOUD,
        *_COMMON,
    ],
)
def attach_volume(
    *,
    vm_id: str,
    volume_id: str,
    device_name: str,
    cloud: str | None,
    app_id: str | None,
    request: str | None,
    wait: int,
    caller: auth.Caller,
) -> Any:
    """Attach a volume of the application to one of its VMs; attached there already is fine."""
    aid, inside = nodes.own_application(app_id, caller), wanted.cloud_name(cloud)
    device = wanted.device_name(device_name)
    with runtime.current().database.reader() as session:
        machine = _vm(session, aid, inside, vm_id)
        disk = volumes.own_volume(session, aid, inside, volume_id)
    if disk.vmid not in (None, machine.vmid):
        raise errors.WrongState(f"Volume {volume_id} is attached to VM {disk.vmid}; detach it first.")
    args = {"vol_id": volume_id, "vmid": machine.vmid, "device": device, "cloud": inside}
    return nodes.keyed(volumes.ATTACH, aid, request, wait, args, caller)


@endpoint.endpoint(blueprint, "/detach_volume", auth="manager", params=[_VOLUME_ID, _CLOUD, *_COMMON])
def detach_volume(*, volume_id: str, cloud: str | None, app_id: str | None, request: str | None, wait: int, caller: auth.Caller) -> Any:
    """Detach a volume of the application from its VM; detached already is fine."""
    return _existing(volumes.DETACH, volume_id, cloud, app_id, request, wait, caller)


@endpoint.endpoint(blueprint, "/destroy_volume", auth="manager", params=[_VOLUME_ID, _CLOUD, *_COMMON])
def destroy_volume(*, volume_id: str, cloud: str | None, app_id: str | None, request: str | None, wait: int, caller: auth.Caller) -> Any:
    """Destroy a volume of the application and its data; it must be detached first."""
    return _existing(volumes.DESTROY, volume_id, cloud, app_id, request, wait, caller)


def _existing(
    kind: OperationKind, volume_id: str, cloud: str | None, app_id: str | None, request: str | None, wait: int, caller: auth.Caller
) -> Any:
    aid, inside = nodes.own_application(app_id, caller), wanted.cloud_name(cloud)
    with runtime.current().database.reader() as session:
        disk = inventory.find_volume(session, inside, volume_id)
        if disk is None and volumes.was_there(session, aid, inside, volume_id):
            return {}
    if disk is None or disk.app_id != aid:
        raise errors.NotFound(f"Volume {volume_id} does not belong to application {aid}.")
    if kind is volumes.DESTROY and disk.vmid is not None:
        raise errors.WrongState(f"Volume {volume_id} is attached to VM {disk.vmid}; detach it first.")
    return nodes.keyed(kind, aid, request or uuid.uuid4().hex, wait, {"vol_id": volume_id, "cloud": inside}, caller)
