"""Making machines and volumes go away, and forgetting them only when their cloud confirms it.

Used by every operation that removes or undoes, and by the sweeper that finishes what a cloud could not do at first. All functions are
idempotent: what is gone already is not an error.
"""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping

from conpaas.core import errors
from conpaas.core.clouds import base
from conpaas.director import inventory
from conpaas.director.lifecycle import parts as lifecycle_parts

_log = logging.getLogger(__name__)

_GONE = "terminated"


def give_up(parts: lifecycle_parts.Parts, machines: Iterable[inventory.Machine]) -> None:
    """Mark machines as deleting: they cost nothing from now on, and the sweeper destroys them if nobody else does."""
    rids = [machine.rid for machine in machines]
    if not rids:
        return
    with parts.database.session() as session:
        parts.accounts.stop(session, rids)
        inventory.set_state(session, rids, "deleting")


def destroy(
    parts: lifecycle_parts.Parts, machines: Iterable[inventory.Machine], *, extra_tags: Mapping[str, str] | None = None
) -> list[str]:
    """Destroy machines with the volumes attached to them, except kept ones, and drop the rows of those that are gone.

    `extra_tags` names more machines by their tags (a request's or an application's), for those whose id never reached the
    database. Returns a sentence for everything that could not be destroyed now; an empty list means that all is gone.
    """
    wanted = list(machines)
    by_cloud: dict[str, list[inventory.Machine]] = defaultdict(list)
    for machine in wanted:
        by_cloud[machine.cloud].append(machine)
    if extra_tags is not None:
        for name in parts.clouds:
            by_cloud.setdefault(name, [])
    problems: list[str] = []
    outcomes = lifecycle_parts.each(by_cloud.items(), lambda item: _destroy_in(parts, item[0], item[1], extra_tags))
    for (name, here), found, error in outcomes:
        if error is None:
            problems += found or []
        elif here:
            problems.append(str(error))
        else:
            _log.warning("the cloud %s, where nothing is on record, could not be asked: %s", name, error)
    return problems


def _destroy_in(
    parts: lifecycle_parts.Parts, name: str, machines: list[inventory.Machine], extra_tags: Mapping[str, str] | None
) -> list[str]:
    cloud = parts.cloud(name)
    untold = {machine.request_key for machine in machines if machine.vmid is None}
    tags = [{lifecycle_parts.TAG_REQUEST: key} for key in sorted(untold)]
    if extra_tags is not None:
        tags.append(dict(extra_tags))
    vmids = {machine.vmid for machine in machines if machine.vmid is not None}
    for wanted in tags:
        vmids |= {node.vmid for node in list_ours(parts, cloud, wanted) if node.state != _GONE}
    with parts.database.reader() as session:
        disks = inventory.volumes(session, vms=[(name, vmid) for vmid in vmids])
    problems = []
    try:
        if vmids:
            cloud.destroy_nodes(sorted(vmids))
    except errors.CloudError as error:
        problems.append(f"The cloud {name} could not destroy {', '.join(sorted(vmids))}: {error}")
    left = {node.vmid for node in list_ours(parts, cloud, {}) if node.state != _GONE} & vmids
    gone = [machine for machine in machines if machine.vmid is None or machine.vmid not in left]
    problems += destroy_volumes(parts, [disk for disk in disks if disk.vmid not in left and not _outlives(disk)])
    with parts.database.session() as session:
        inventory.release_kept(session, name, vmids - left)
        inventory.forget(session, [machine.rid for machine in gone])
    if left and not problems:
        problems.append(f"The cloud {name} still has {', '.join(sorted(left))}.")
    for machine in gone:
        _log.info("machine %s of application %s is destroyed", machine.label, machine.app_id)
    return problems


def _outlives(disk: inventory.Disk) -> bool:
    """Whether a volume lives on when its machine is gone. Its cloud has detached it then (`base.Cloud.destroy_nodes`)."""
    return disk.keep and disk.state == "attached"


def destroy_volumes(parts: lifecycle_parts.Parts, disks: Iterable[inventory.Disk]) -> list[str]:
    """Detach and destroy volumes, dropping the rows of those that are gone; sentences for what failed are returned."""
    todo = list(disks)
    with parts.database.session() as session:
        for disk in todo:
            inventory.update_volume(session, disk.id, state="deleting")
    problems = []
    gone = []
    for disk, _, error in lifecycle_parts.each(todo, lambda disk: _destroy_volume(parts, disk)):
        if error is None:
            gone.append(disk.id)
        else:
            problems.append(f"The volume {disk.name} could not be destroyed: {error}")
    with parts.database.session() as session:
        inventory.forget_volumes(session, gone)
    return problems


def _destroy_volume(parts: lifecycle_parts.Parts, disk: inventory.Disk) -> None:
    cloud = parts.cloud(disk.cloud)
    ids = [disk.vol_id] if disk.vol_id else _untold_volumes(parts, cloud, disk)
    for vol_id in ids:
        with contextlib.suppress(errors.NotFound):  # destroyed behind our back
            cloud.detach_volume(vol_id)
        cloud.destroy_volume(vol_id)


def _untold_volumes(parts: lifecycle_parts.Parts, cloud: base.Cloud, disk: inventory.Disk) -> list[str]:
    """Ids of volumes that carry the request of a row whose cloud never answered."""
    tags = {lifecycle_parts.TAG_DEPLOYMENT: parts.settings.deployment, lifecycle_parts.TAG_REQUEST: disk.request_key}
    return [volume.vol_id for volume in cloud.list_volumes(tags) if volume.name == disk.name]


def list_ours(parts: lifecycle_parts.Parts, cloud: base.Cloud, tags: Mapping[str, str]) -> list[base.CloudNode]:
    """Machines of this deployment, and of no other, that carry all these tags."""
    return cloud.list_nodes({lifecycle_parts.TAG_DEPLOYMENT: parts.settings.deployment, **tags})
