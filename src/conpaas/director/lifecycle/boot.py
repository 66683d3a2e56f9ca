"""Bringing recorded machines to life: asking the clouds, finding again what they made before a crash, and waiting until daemons answer."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from conpaas.core import errors
from conpaas.core.clouds import base
from conpaas.director import inventory, models, quotas
from conpaas.director.lifecycle import parts as lifecycle_parts
from conpaas.director.lifecycle import removal

_log = logging.getLogger(__name__)

REFRESH_SECONDS = 3.0
LONGEST_PAUSE = 2.0
ABSENT_ROUNDS = 5
CONSOLE_LINES_IN_REASON = 5
CONSOLE_CHARACTERS_IN_LOG = 8000

Specify = Callable[[inventory.Machine], base.NodeSpec]
Check = Callable[[], None]
"""Raises OperationFailed when the operation is no longer wanted."""


def create(parts: lifecycle_parts.Parts, key: str, specify: Specify, wanted: Check) -> list[inventory.Machine]:
    """Have every recorded machine of a request exist in its cloud; clouds work in parallel, and a second call makes nothing twice.

    `specify` is called only for machines that the cloud does not have yet. Raises OperationFailed naming every machine that failed;
    what exists then is recorded, so that it can be destroyed.
    """
    with parts.database.reader() as session:
        machines = inventory.of_request(session, key)
    by_cloud: dict[str, list[inventory.Machine]] = defaultdict(list)
    for machine in machines:
        by_cloud[machine.cloud].append(machine)
    wanted()
    outcomes = lifecycle_parts.each(by_cloud.items(), lambda item: _create_in(parts, parts.cloud(item[0]), key, item[1], specify))
    failures = dict.fromkeys(str(error) for _, _, error in outcomes if error is not None)
    if failures:
        raise errors.OperationFailed(" ".join(failures))
    with parts.database.reader() as session:
        return inventory.of_request(session, key)


def _create_in(parts: lifecycle_parts.Parts, cloud: base.Cloud, key: str, machines: Sequence[inventory.Machine], specify: Specify) -> None:
    there = {node.index: node for node in _of_request(parts, cloud, key)}
    _identify(parts, machines, there.values())
    missing = [machine for machine in machines if machine.request_index not in there]
    if not missing:
        return
    try:
        created = cloud.create_nodes(base.NodeRequest(key=key, specs=tuple(specify(machine) for machine in missing)))
    except base.NodesNotCreated as error:
        _identify(parts, machines, error.created)
        raise
    _identify(parts, machines, created)


def _of_request(parts: lifecycle_parts.Parts, cloud: base.Cloud, key: str) -> list[base.CloudNode]:
    found = removal.list_ours(parts, cloud, {lifecycle_parts.TAG_REQUEST: key})
    return [node for node in found if node.state is not base.NodeState.TERMINATED]


def _identify(parts: lifecycle_parts.Parts, machines: Iterable[inventory.Machine], nodes: Iterable[base.CloudNode]) -> None:
    by_index = {machine.request_index: machine for machine in machines}
    with parts.database.session() as session:
        for node in nodes:
            machine = by_index.get(node.index)
            if machine is not None:
                inventory.identify(session, machine.rid, vmid=node.vmid, ip=node.ip, private_ip=node.private_ip)


def wait(parts: lifecycle_parts.Parts, key: str, uid: int, wanted: Check) -> list[inventory.Machine]:
    """Wait until the daemon of every machine of a request answers, at most `node_boot_timeout` seconds.

    Raises OperationFailed naming every machine that did not, why, and what its console shows.
    """
    deadline = parts.clock() + parts.settings.node_boot_timeout
    ready: set[int] = set()
    absent: Counter[int] = Counter()
    refreshed, pause = float("-inf"), parts.settings.probe_interval
    while True:
        wanted()
        with parts.database.reader() as session:
            machines = inventory.of_request(session, key)
        waiting = [machine for machine in machines if machine.rid not in ready]
        troubles = _probe(parts, waiting, uid)
        ready |= {machine.rid for machine in waiting if machine.rid not in troubles}
        if not troubles:
            return machines
        late = [machine for machine in waiting if machine.rid in troubles]
        now = parts.clock()
        dead: dict[int, str] = {}
        if now >= min(refreshed + REFRESH_SECONDS, deadline) or not all(machine.ip for machine in late):
            dead, refreshed = _refresh(parts, key, late, absent), now
        if dead or now >= deadline:
            raise errors.OperationFailed(_complaint(parts, late, {**troubles, **dead}))
        parts.pause(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)


def _probe(parts: lifecycle_parts.Parts, machines: Sequence[inventory.Machine], uid: int) -> dict[int, str]:
    """Why which machine is not ready yet."""
    troubles = {machine.rid: "the cloud gave it no address" for machine in machines if not machine.ip}
    for machine, _, error in lifecycle_parts.each([m for m in machines if m.ip], lambda machine: parts.probe(machine, uid)):
        if error is not None:
            troubles[machine.rid] = str(error)
    return troubles


def _refresh(parts: lifecycle_parts.Parts, key: str, machines: Sequence[inventory.Machine], absent: Counter[int]) -> dict[int, str]:
    """Ask the clouds about machines that do not answer: take over addresses, and tell which machines are dead.

    A cloud may list a new machine late; `absent` counts how often each was missing in a row.
    """
    dead: dict[int, str] = {}
    for name in {machine.cloud for machine in machines}:
        there = [machine for machine in machines if machine.cloud == name]
        try:
            nodes = {node.vmid: node for node in removal.list_ours(parts, parts.cloud(name), {lifecycle_parts.TAG_REQUEST: key})}
        except errors.CloudError as error:
            _log.warning("the cloud %s could not be asked about request %s: %s", name, key, error)
            continue
        _identify(parts, there, [node for node in nodes.values() if node.state is not base.NodeState.TERMINATED])
        for machine in there:
            node = nodes.get(machine.vmid or "")
            absent[machine.rid] = absent[machine.rid] + 1 if node is None else 0
            if absent[machine.rid] >= ABSENT_ROUNDS or (node is not None and node.state is base.NodeState.TERMINATED):
                dead[machine.rid] = "the VM ended while it was booting"
    return dead


def _complaint(parts: lifecycle_parts.Parts, machines: Sequence[inventory.Machine], troubles: dict[int, str]) -> str:
    texts = []
    for machine in machines:
        text = f"{machine.role} {machine.label} ({machine.ip or 'no address'}) did not become ready: {troubles[machine.rid]}"
        console = _console(parts, machine)
        if console:
            _log.error("console of %s:\n%s", machine.label, console[-CONSOLE_CHARACTERS_IN_LOG:])
            lines = [line.strip() for line in console.splitlines() if line.strip()]
            text += f"; its console ends: {' | '.join(lines[-CONSOLE_LINES_IN_REASON:])}"
        texts.append(text)
    return ". ".join(texts)


def _console(parts: lifecycle_parts.Parts, machine: inventory.Machine) -> str:
    if machine.vmid is None:
        return ""
    try:
        return parts.cloud(machine.cloud).console_log(machine.vmid)
    except errors.ConPaaSError as error:
        return f"(no console: {error})"


def attach_volumes(
    parts: lifecycle_parts.Parts, key: str, uid: int, volumes_of: Callable[[inventory.Machine], Sequence[tuple[str, int, str]]]
) -> None:
    """Create and attach the volumes that belong to the machines of a request: `(name, size in MB, device)` each. Idempotent."""
    with parts.database.reader() as session:
        machines = inventory.of_request(session, key)
    outcomes = lifecycle_parts.each(machines, lambda machine: _attach_to(parts, machine, uid, volumes_of(machine)))
    failures = [f"volumes of {machine.label}: {error}" for machine, _, error in outcomes if error is not None]
    if failures:
        raise errors.OperationFailed(". ".join(failures))


def _attach_to(parts: lifecycle_parts.Parts, machine: inventory.Machine, uid: int, volumes: Sequence[tuple[str, int, str]]) -> None:
    if machine.vmid is None:
        raise errors.OperationFailed("the machine has no id")
    for name, size, device in volumes:
        _make_volume(parts, machine, machine.vmid, uid, name=name, size=size, device=device)


def _make_volume(
    parts: lifecycle_parts.Parts, machine: inventory.Machine, vmid: str, uid: int, *, name: str, size: int, device: str
) -> None:
    """Create one volume of a new machine and attach it; the row is written before the cloud is asked."""
    row = models.Volume(
        cloud=machine.cloud,
        name=name,
        size=size,
        app_id=machine.app_id,
        service_id=machine.service_id,
        vmid=vmid,
        device=device,
        request_key=machine.request_key,
    )
    with parts.database.session() as session:
        there = inventory.volumes(session, request_key=machine.request_key)
        if not any((disk.name, disk.vmid) == (name, vmid) for disk in there):
            quotas.require(session, uid, volumes_mb=size)
        disk = inventory.expect_volume(session, row)
    cloud = parts.cloud(machine.cloud)
    vol_id = disk.vol_id
    if vol_id is None:
        tags = lifecycle_parts.machine_tags(parts.settings, machine, uid)
        request = base.VolumeRequest(key=f"{machine.request_key}:{vmid}:{name}", name=name, size=size, vmid=vmid, tags=tags)
        vol_id = cloud.create_volume(request).vol_id
        with parts.database.session() as session:
            inventory.update_volume(session, disk.id, vol_id=vol_id, state="available")
    attached = cloud.attach_volume(vol_id, vmid, device)
    with parts.database.session() as session:
        inventory.update_volume(session, disk.id, state="attached", device=attached.device or device)
