"""Comparing what clouds have with what the inventory says, and settling every difference.

A VM or volume is touched only if it carries this deployment's tag. In each pass, per cloud:

* an untracked VM older than the grace time, of no unfinished request → destroyed
* a recorded VM that the cloud has lost (twice in a row, or terminated) → `lost`, costs nothing more, its manager is told
* a VM that should be gone (`deleting`), or was `creating` for a request that has ended → destroyed
* a volume that nobody recorded, or that should be gone → destroyed

and per running application, its list of services is compared with its manager's.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa

from conpaas.core import errors
from conpaas.core.clouds import base
from conpaas.director import findings, inventory, managers, models, opstore
from conpaas.director.lifecycle import applications, removal, services
from conpaas.director.lifecycle import parts as lifecycle_parts

_log = logging.getLogger(__name__)

GRACE_SECONDS = 120.0
KEPT_FINDINGS = 200
HISTORY_SECONDS = 90 * 24 * 3600.0
MISSES_BEFORE_LOST = 2


@dataclasses.dataclass(frozen=True)
class Finding:
    """One difference and what was done about it; `at` is seconds since the epoch."""

    at: float
    what: str
    text: str
    cloud: str | None = None
    vmid: str | None = None


class Sweeper:
    """Runs in one Director process at a time. What it remembers between passes only makes it slower to act, never wrong."""

    def __init__(
        self,
        parts: lifecycle_parts.Parts,
        store: opstore.DirectorStore,
        rpc: managers.Managers,
        service_list: services.Services,
        *,
        grace: float = GRACE_SECONDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._parts = parts
        self._store = store
        self._managers = rpc
        self._services = service_list
        self._grace = grace
        self._now = now
        self._lock = threading.Lock()
        self._missed: collections.Counter[int] = collections.Counter()
        self.findings: collections.deque[Finding] = collections.deque(maxlen=KEPT_FINDINGS)
        self.last_pass: float | None = None

    def sweep(self) -> list[Finding]:
        """One pass; what was found is returned and kept. A cloud or manager that does not answer is a finding, not an error."""
        with self._lock:
            found: list[Finding] = []
            for name in self._parts.clouds:
                try:
                    self._sweep_cloud(name, found)
                except errors.ConPaaSError as error:
                    self._find(found, "cloud", f"The cloud {name} could not be compared: {error}", name)
            self._sweep_leftovers(found)
            self._sweep_services(found)
            self._store.prune(self._now() - HISTORY_SECONDS)
            self.last_pass = self._now()
            return found

    def to_dict(self) -> dict[str, Any]:
        """The state for the operator, newest finding first."""
        with self._parts.database.reader() as session:
            states = {state: len(inventory.in_states(session, state)) for state in models.RESOURCE_STATES}
        return {
            "last_pass": self.last_pass,
            "machines": states,
            "findings": [dataclasses.asdict(finding) for finding in reversed(self.findings)],
        }

    def _find(self, found: list[Finding], what: str, text: str, cloud: str | None = None, vmid: str | None = None) -> None:
        finding = Finding(self._now(), what, text, cloud, vmid)
        found.append(finding)
        self.findings.append(finding)
        _log.warning("sweep: %s", text)
        with self._parts.database.session() as session:
            findings.record(session, finding.at, what, text, cloud, vmid)

    # Machines

    def _sweep_cloud(self, name: str, found: list[Finding]) -> None:
        cloud = self._parts.cloud(name)
        with self._parts.database.reader() as session:
            expected = [machine for machine in inventory.in_states(session, "running") if machine.cloud == name]
        # Rows are written before VMs are made: a VM in the first list and not in a later reading of the rows is untracked.
        there = {node.vmid: node for node in removal.list_ours(self._parts, cloud, {})}
        volumes = cloud.list_volumes({lifecycle_parts.TAG_DEPLOYMENT: self._parts.settings.deployment})
        busy = self._busy_requests()
        with self._parts.database.reader() as session:
            known = set(session.scalars(sa.select(models.Resource.vmid).where(models.Resource.cloud == name)))
            known_volumes = set(session.scalars(sa.select(models.Volume.vol_id).where(models.Volume.cloud == name)))
        self._destroy_untracked(cloud, there.values(), known, busy, found)
        self._mark_lost(expected, there, found)
        self._destroy_orphans(cloud, volumes, known_volumes, busy, found)

    def _busy_requests(self) -> set[str]:
        return {applications.request_key(op) for op in self._store.under_way()}

    def _is_old(self, created: float) -> bool:
        return self._now() - created >= self._grace

    def _destroy_untracked(
        self, cloud: base.Cloud, there: Iterable[base.CloudNode], known: set[str | None], busy: set[str], found: list[Finding]
    ) -> None:
        for node in there:
            request = node.tags.get(lifecycle_parts.TAG_REQUEST, node.key)
            if node.vmid in known or request in busy or not self._is_old(node.created):
                continue
            where = (cloud.name, node.vmid)
            try:
                cloud.destroy_nodes([node.vmid])
            except errors.CloudError as error:
                self._find(found, "untracked", f"The untracked VM {node.vmid} on {cloud.name} could not be destroyed: {error}", *where)
            else:
                self._find(found, "untracked", f"The untracked VM {node.vmid} on {cloud.name} is destroyed.", *where)

    def _mark_lost(self, expected: Iterable[inventory.Machine], there: dict[str, base.CloudNode], found: list[Finding]) -> None:
        for machine in expected:
            node = there.get(machine.vmid or "")
            if node is not None and node.state is not base.NodeState.TERMINATED:
                self._missed.pop(machine.rid, None)
                continue
            self._missed[machine.rid] += 1
            if node is None and self._missed[machine.rid] < MISSES_BEFORE_LOST:
                continue
            self._missed.pop(machine.rid, None)
            self._lose(machine, found)

    def _lose(self, machine: inventory.Machine, found: list[Finding]) -> None:
        with self._parts.database.session() as session:
            application = inventory.lock_application(session, machine.app_id)
            present = inventory.find(session, machine.cloud, machine.vmid or "")
            if present is None or present.state != "running":
                return
            self._parts.accounts.stop(session, [machine.rid])
            inventory.set_state(session, [machine.rid], "lost")
            if machine.role == inventory.MANAGER and application.manager_vmid == machine.vmid:
                application.status = "ERROR"
                application.reason = (
                    f"The cloud has lost the application's manager ({machine.label}); stop the application and start it again."
                )
        text = f"The {machine.role} {machine.label} of application {machine.app_id} is gone from its cloud."
        self._find(found, "lost", text, machine.cloud, machine.vmid)
        if machine.role == inventory.AGENT:
            self._tell_manager(machine, found)

    def _tell_manager(self, machine: inventory.Machine, found: list[Finding]) -> None:
        """A hint only: managers watch their agents themselves, and see the state in `/list_nodes`."""
        params = {"nodeId": machine.label, "reason": "the cloud no longer has it"}
        try:
            self._managers.post(machine.app_id, "node_lost", params=params, timeout=services.RPC_TIMEOUT)
        except errors.ConPaaSError as error:
            _log.info("the manager of application %s was not told of the loss of %s: %s", machine.app_id, machine.label, error)

    def _sweep_leftovers(self, found: list[Finding]) -> None:
        """Finish what an operation gave up on, and what no operation answers for any more."""
        with self._parts.database.reader() as session:
            creating = inventory.in_states(session, "creating")
        busy = self._busy_requests()
        abandoned = [machine for machine in creating if machine.request_key not in busy and self._is_old(machine.created.timestamp())]
        removal.give_up(self._parts, abandoned)
        with self._parts.database.reader() as session:
            deleting = inventory.in_states(session, "deleting")
            lost_disks = inventory.volumes(session, state="deleting")
        stopping = {op.target for op in self._store.under_way(modes=[opstore.Mode.PREEMPTIVE])}
        todo = [machine for machine in deleting if machine.request_key not in busy and machine.app_id not in stopping]
        for machine in todo:
            problems = removal.destroy(self._parts, [machine])
            outcome = f"is not destroyed yet: {' '.join(problems)}" if problems else "is destroyed."
            text = f"The {machine.role} {machine.label} of application {machine.app_id} {outcome}"
            self._find(found, "deleting", text, machine.cloud, machine.vmid)
        disks = [disk for disk in lost_disks if disk.request_key not in busy and disk.app_id not in stopping]
        for problem in removal.destroy_volumes(self._parts, disks):
            self._find(found, "volume", problem)

    # Volumes

    def _destroy_orphans(
        self, cloud: base.Cloud, there: Iterable[base.CloudVolume], known: set[str | None], busy: set[str], found: list[Finding]
    ) -> None:
        for volume in there:
            request = volume.tags.get(lifecycle_parts.TAG_REQUEST, volume.key)
            if volume.vol_id in known or request in busy or not self._is_old(volume.created):
                continue
            try:
                cloud.detach_volume(volume.vol_id)
                cloud.destroy_volume(volume.vol_id)
            except errors.CloudError as error:
                self._find(
                    found, "volume", f"The untracked volume {volume.vol_id} on {cloud.name} could not be destroyed: {error}", cloud.name
                )
            else:
                self._find(found, "volume", f"The untracked volume {volume.vol_id} on {cloud.name} is destroyed.", cloud.name)

    # Services

    def _sweep_services(self, found: list[Finding]) -> None:
        with self._parts.database.reader() as session:
            running = session.scalars(
                sa.select(models.Application.aid).where(models.Application.status == "RUNNING", models.Application.manager_ip.is_not(None))
            ).all()
        changing = {op.target for op in self._store.under_way() if op.kind == services.REMOVE.name}
        for aid, differences, error in lifecycle_parts.each([aid for aid in running if aid not in changing], self._services.repair):
            for text in differences or ():
                self._find(found, "service", text)
            if error is not None:
                _log.info("the services of application %s could not be compared: %s", aid, error)
