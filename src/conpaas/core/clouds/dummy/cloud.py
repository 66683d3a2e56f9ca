"""The driver of the dummy cloud: which VMs and volumes there are to be, made true with the parts of this package."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pathlib
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from typing import TypeVar

from conpaas.core import errors, file, node, resources
from conpaas.core.clouds import base
from conpaas.core.clouds.dummy import faults as faults_
from conpaas.core.clouds.dummy import network, store, vm, volumes

KEYS = (
    *("DRIVER", "OTHER_CLOUDS", "STATE_DIR", "NETWORK", "AGENT_PORT", "MANAGER_PORT", "ISOLATION", "VOLUMES"),
    *("MAX_VMS", "MAX_VOLUMES", "MAX_VOLUME_MB", "DISK_MB", "MEMORY_MB", "PARALLEL", "HALT_TIMEOUT_S"),
)
PROGRAMS = ("bash", "runsvdir", "runsv", "unshare")
CONSOLE_SHOWN = 64 * 1024
CONSOLE_LIMIT = 1024 * 1024
MB = 1024 * 1024

_BOOT_ID = pathlib.Path("/proc/sys/kernel/random/boot_id")
_FIRST_PROCESS = pathlib.Path("/proc/1/stat")
_log = logging.getLogger(__name__)
_Item = TypeVar("_Item")


class DummyCloud(base.LocalCloud):
    """See the package's text. Beyond `base.LocalCloud`: `kill`."""

    driver = "dummy"

    def __init__(self, name: str, section: Mapping[str, str]) -> None:
        super().__init__(name, section)
        settings = self.settings
        self.directory = pathlib.Path(settings.text("STATE_DIR", str(_default_directory(name)))).expanduser().absolute()
        ports = [settings.integer(key, port, minimum=1, maximum=65535) for key, port in (("AGENT_PORT", 5555), ("MANAGER_PORT", 443))]
        self.pool = network.Pool(settings.text("NETWORK", "127.100.0.0/16"), ports)
        self._isolation = settings.choice("ISOLATION", ("auto", *vm.ISOLATIONS), "auto")
        self._volume_kind = settings.choice("VOLUMES", ("auto", *volumes.KINDS), "auto")
        self._quota = {key: settings.integer(key, 0) for key in ("MAX_VMS", "MAX_VOLUMES", "MAX_VOLUME_MB", "DISK_MB", "MEMORY_MB")}
        self._parallel = settings.integer("PARALLEL", 8, minimum=1, maximum=64)
        self._halt_timeout = settings.number("HALT_TIMEOUT_S", 10.0)
        self._configured_faults = faults_.from_settings(settings)
        self.store = store.Store(self.directory)
        self.volumes = volumes.Volumes(self.store)

    @property
    def isolation(self) -> str:
        """How VMs started from now on are kept together: `pidns` or `session`."""
        return vm.best_isolation() if self._isolation == "auto" else self._isolation

    @property
    def volume_kind(self) -> str:
        """What volumes made from now on are: `loop` or `directory`."""
        return volumes.best_kind() if self._volume_kind == "auto" else self._volume_kind

    def check(self) -> list[str]:
        missing = [name for name in PROGRAMS if not shutil.which(name, path=vm.PATH)]
        problems = [f"The dummy cloud needs the program {name}, which is not installed" for name in missing]
        unknown = self.settings.unknown([*KEYS, *faults_.KEYS])
        problems += [f"The section [{self.name}] has a key that the dummy cloud does not know: {key}" for key in unknown]
        if not self.pool.network.is_loopback:
            problems.append(f"The addresses of NETWORK {self.pool.network} are not addresses of this machine; use a part of 127.0.0.0/8")
        if self._isolation == vm.PIDNS and vm.best_isolation() != vm.PIDNS:
            problems.append("ISOLATION is pidns, but this user may not have PID namespaces here; use auto")
        if self._volume_kind == volumes.LOOP and volumes.best_kind() != volumes.LOOP:
            problems.append("VOLUMES is loop, but this user may not have loop devices here; use auto")
        try:
            self.store.prepare()
            self._faults()
        except errors.ConPaaSError as error:
            problems.append(str(error))
        return problems

    def create_nodes(self, request: base.NodeRequest) -> list[base.CloudNode]:
        faults = self._faults()
        failing = faults.failing([spec.index for spec in request.specs])
        specs = {spec.index: spec for spec in request.specs}
        code = resources.code_sha256()
        records, claims = self._allot(request, failing)
        reasons = {index: "the cloud was told to fail it (fail_create)" for index in failing if index not in records}
        try:
            failures = self._each(
                records.values(), lambda record: self._complete(record, specs[record.index], claims.get(record.index), faults, code)
            )
        finally:
            for claim in claims.values():
                claim.close()
        reasons |= {record.index: str(error) for record, error in failures}
        nodes = [self._node(records[index], self._attachments()) for index in sorted(records)]
        if reasons:
            raise base.NodesNotCreated(self.name, request.count, nodes, reasons)
        return nodes

    def list_nodes(self, tags: Mapping[str, str] | None = None) -> list[base.CloudNode]:
        vm.reap()
        attachments = self._attachments()
        records = self.store.list_vms()
        for record in records:
            _trim(self.store.vm_directory(record.vmid) / "console.log")
        return [self._node(record, attachments) for record in records if base.carries(record.tags, tags)]

    def destroy_nodes(self, vmids: Iterable[str]) -> None:
        faults = self._faults()
        failures = self._each(dict.fromkeys(vmids), lambda vmid: self._destroy(vmid, faults))
        vm.reap()
        if failures:
            raise base.NodesNotDestroyed(self.name, {vmid: str(error) for vmid, error in failures})

    def create_volume(self, request: base.VolumeRequest) -> base.CloudVolume:
        faults = self._volume_faults()
        if faults.fail_volume_create:
            raise errors.CloudError("The cloud was told to fail this (fail_volume_create)")
        return _volume(self._make_volume(request))

    def attach_volume(self, vol_id: str, vmid: str, device: str) -> base.CloudVolume:
        faults = self._volume_faults()
        if faults.fail_volume_attach:
            raise errors.CloudError("The cloud was told to fail this (fail_volume_attach)")
        return _volume(self.volumes.attach(vol_id, vmid, device))

    def detach_volume(self, vol_id: str) -> base.CloudVolume:
        faults = self._volume_faults()
        if faults.fail_volume_detach:
            raise errors.CloudError("The cloud was told to fail this (fail_volume_detach)")
        return _volume(self.volumes.detach(vol_id))

    def destroy_volume(self, vol_id: str) -> None:
        self._volume_faults()
        self.volumes.destroy(vol_id)

    def list_volumes(self, tags: Mapping[str, str] | None = None) -> list[base.CloudVolume]:
        return [_volume(record) for record in self.store.list_volumes() if base.carries(record.tags, tags)]

    def console_log(self, vmid: str) -> str:
        self.store.vm(vmid)
        console = self.store.vm_directory(vmid) / "console.log"
        _trim(console)
        return file.tail(console, CONSOLE_SHOWN)

    def kill(self, vmid: str) -> None:
        """Ends a VM from outside, as a failing host would: it is TERMINATED afterwards, and keeps its disk until it is destroyed."""
        record = self.store.vm(vmid)
        vm.kill(self.store.vm_directory(vmid), _marker(record), record.isolation)

    def halt_all(self) -> None:
        failures = self._each(self.store.list_vms(), self._halt)
        if failures:
            raise errors.CloudError("; ".join(f"{record.vmid} could not be halted: {error}" for record, error in failures))

    def resume(self) -> list[str]:
        """See `base.LocalCloud`; besides, clears away what processes that died left behind."""
        with self.store.locked():
            self.volumes.sweep()
            self.store.sweep()
        self.store.empty_trash()
        started: list[str] = []
        failures = self._each([record for record in self.store.list_vms() if record.boot_id], lambda record: self._resume(record, started))
        if failures:
            raise errors.CloudError("; ".join(f"{record.vmid} could not be switched on: {error}" for record, error in failures))
        return sorted(started)

    def _allot(self, request: base.NodeRequest, failing: set[int]) -> tuple[dict[int, store.VmRecord], dict[int, vm.Claim]]:
        """Records of all nodes of the request, the missing ones made now, and the claims on the new ones, for this process to boot them."""
        with self.store.locked():
            existing = self.store.list_vms()
            records = {record.index: record for record in existing if record.key == request.key}
            records = {spec.index: records[spec.index] for spec in request.specs if spec.index in records}
            wanted = [spec for spec in request.specs if spec.index not in records and spec.index not in failing]
            if not wanted:
                return records, {}
            self._check_room(len(existing), len(wanted))
            counters = self.store.counters()
            vmids = [store.next_id(counters, "i") for _ in wanted]
            addresses = self.pool.take(len(wanted), {record.ip for record in existing}, counters.get("address"))
            claims = {
                spec.index: vm.Claim(vm.Guard(self.store.vm_directory(vmid)), holder)
                for spec, vmid, (_, holder) in zip(wanted, vmids, addresses, strict=True)
            }
            with contextlib.ExitStack() as undo:
                for claim in claims.values():
                    undo.callback(claim.close)
                counters["address"] = addresses[-1][0]
                self.store.save_counters(counters)
                for spec, vmid, (ip, _) in zip(wanted, vmids, addresses, strict=True):
                    records[spec.index] = _record(spec, vmid, ip, request.key)
                    self.store.add_vm(records[spec.index], spec.user_data)
                    claims[spec.index].guard.acquire()
                file.sync_directory(self.store.vms)
                undo.pop_all()
        return records, claims

    def _check_room(self, existing: int, wanted: int) -> None:
        limit = self._quota["MAX_VMS"]
        if limit and existing + wanted > limit:
            name = node.outer_cloud(self.name)
            raise errors.QuotaExceeded(f"Cloud {name} allows {limit} VMs and has {existing}; {wanted} more do not fit")
        needs = (
            ("DISK_MB", "disk", lambda: file.free_bytes(self.directory)),
            ("MEMORY_MB", "memory", lambda: os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")),
        )
        for key, what, free in needs:
            need = self._quota[key] * wanted
            if need and free() < need * MB:
                raise errors.QuotaExceeded(f"This host has {free() // MB} MB of {what} left, and {wanted} more VMs need {need} MB")

    def _complete(self, record: store.VmRecord, spec: base.NodeSpec, claim: vm.Claim | None, faults: faults_.Faults, code: str) -> None:
        """Brings a VM that has a record up to where it was asked to be: with its volumes, and switched on once.

        Without a claim somebody else made the record: that one boots it, or has died before, which leaves the VM to us.
        """
        for volume in spec.volumes:
            if faults.fail_volume_create or faults.fail_volume_attach:
                raise errors.CloudError("the cloud was told to fail its volumes")
            request = base.VolumeRequest(f"{record.uuid}/{volume.device}", volume.name, volume.size, record.vmid, spec.tags)
            self.volumes.attach(self._make_volume(request).vol_id, record.vmid, volume.device, owned=True)
        if claim is not None:
            self._switch_on(record, claim, faults, code)
            return
        directory = self.store.vm_directory(record.vmid)
        with vm.guarded(directory) as guard:
            if guard is not None and not vm.was_started(directory) and not record.halted:
                with _claim(guard, record) as late:
                    self._switch_on(record, late, faults, code)

    def _switch_on(self, record: store.VmRecord, claim: vm.Claim, faults: faults_.Faults, code: str) -> None:
        """Boots a VM that is off."""
        record = dataclasses.replace(record, boot_id=_boot_id(), isolation=self.isolation, halted=False)
        self.store.save_vm(record)
        boot = vm.Boot(faults.boot_delay_s, faults.never_boot, faults.lose_after_s)
        vm.start(claim, isolation=record.isolation, boot=boot, environment=self._environment(record, code))

    def _environment(self, record: store.VmRecord, code: str) -> dict[str, str]:
        root = self.store.vm_directory(record.vmid) / "root"
        mount_point = vm.mount_point(record.isolation)
        return {
            **({"VM_MOUNT": str(mount_point)} if mount_point else {}),
            "VM_ROOT": str(root),
            "VM_ID": record.vmid,
            "IP_PUBLIC": record.ip,
            "PRIVATE_IP": record.ip,
            "CPS_PYTHON": sys.executable,
            "CPS_IMAGE_SHA256": code,
            "PATH": vm.PATH,
            "HOME": str(root / "root"),
            "LANG": "C.UTF-8",
            vm.MARKER: _marker(record),
        }

    def _destroy(self, vmid: str, faults: faults_.Faults) -> None:
        try:
            record = self.store.vm(vmid)
        except errors.NotFound:
            return
        if faults.refuses_to_destroy(vmid):
            raise errors.CloudError("the cloud was told to fail it (fail_destroy)")
        directory = self.store.vm_directory(vmid)
        deadline = time.monotonic() + vm.KILL_TIMEOUT
        while directory.exists():
            vm.kill(directory, _marker(record), record.isolation)
            with vm.guarded(directory) as guard:
                if guard is not None:
                    self.volumes.unmount_all(directory)
                    self.volumes.release(vmid)
                    self.store.delete(directory)
            if directory.exists() and time.monotonic() > deadline:
                raise errors.CloudError("another process keeps changing it")
        _log.info("dummy VM %s is destroyed", vmid)

    def _halt(self, record: store.VmRecord) -> None:
        directory = self.store.vm_directory(record.vmid)
        if vm.is_held(directory):
            self.store.save_vm(dataclasses.replace(record, halted=True))
            vm.stop_services(directory, self._halt_timeout)
            vm.kill(directory, _marker(record), record.isolation)
        self.volumes.unmount_all(directory)

    def _resume(self, record: store.VmRecord, started: list[str]) -> None:
        directory = self.store.vm_directory(record.vmid)
        for volume in self.volumes.attached(record.vmid):
            self.volumes.connect(volume)
        with vm.guarded(directory) as guard:
            if guard is not None and self._state_when_off(self.store.vm(record.vmid)) != base.NodeState.TERMINATED:
                with _claim(guard, record) as claim:
                    self._switch_on(record, claim, dataclasses.replace(self._faults(), boot_delay_s=0.0), resources.code_sha256())
                started.append(record.vmid)

    def _make_volume(self, request: base.VolumeRequest) -> store.VolumeRecord:
        largest, most = self._quota["MAX_VOLUME_MB"], self._quota["MAX_VOLUMES"]
        if request.size < 1:
            raise errors.CloudError(f"A volume has at least 1 MB, not {request.size}")
        if largest and request.size > largest:
            raise errors.QuotaExceeded(f"Cloud {node.outer_cloud(self.name)} allows volumes of {largest} MB, not {request.size} MB")
        with self.store.locked():
            existing = self.store.list_volumes()
            for record in existing:
                if record.key == request.key:
                    return record
            if most and len(existing) >= most:
                raise errors.QuotaExceeded(f"Cloud {node.outer_cloud(self.name)} allows {most} volumes and has {len(existing)}")
            counters = self.store.counters()
            vol_id = store.next_id(counters, "vol")
            self.store.save_counters(counters)
            record = store.VolumeRecord(
                vol_id, request.key, request.name, request.size, self.volume_kind, dict(request.tags), created=time.time()
            )
            self.volumes.make(record)
        return record

    def _state(self, record: store.VmRecord) -> base.NodeState:
        """What the processes say; the record only tells why there are none."""
        directory = self.store.vm_directory(record.vmid)
        if not vm.is_held(directory):
            return self._state_when_off(record)
        return base.NodeState.RUNNING if vm.has_booted(directory) else base.NodeState.PENDING

    def _state_when_off(self, record: store.VmRecord) -> base.NodeState:
        """Whether a VM without processes was never started, switched off (by us or with the host), or died."""
        directory = self.store.vm_directory(record.vmid)
        booted = vm.has_booted(directory)
        if record.halted or (record.boot_id and record.boot_id != _boot_id()):
            return base.NodeState.STOPPED
        if not vm.was_started(directory):
            return base.NodeState.STOPPED if booted else base.NodeState.PENDING
        return base.NodeState.TERMINATED

    def _node(self, record: store.VmRecord, attachments: Mapping[str, list[base.CloudVolume]]) -> base.CloudNode:
        return base.CloudNode(
            vmid=record.vmid,
            ip=record.ip,
            private_ip=record.ip,
            state=self._state(record),
            tags=record.tags,
            created=record.created,
            index=record.index,
            key=record.key,
            name=record.name,
            role=record.role,
            volumes=tuple(attachments.get(record.vmid, ())),
        )

    def _attachments(self) -> dict[str, list[base.CloudVolume]]:
        found: dict[str, list[base.CloudVolume]] = {}
        for record in self.store.list_volumes():
            if record.vmid is not None:
                found.setdefault(record.vmid, []).append(_volume(record))
        return found

    def _faults(self) -> faults_.Faults:
        return faults_.current(self._configured_faults, self.directory)

    def _volume_faults(self) -> faults_.Faults:
        """The faults of a call about a volume, after the delay that they ask for."""
        faults = self._faults()
        threading.Event().wait(faults.volume_delay_s)
        return faults

    def _each(self, items: Iterable[_Item], work: Callable[[_Item], None]) -> list[tuple[_Item, Exception]]:
        """Does the work for all items, a bounded number at once; returns the failures in order."""
        todo = list(items)
        if not todo:
            return []
        with futures.ThreadPoolExecutor(min(self._parallel, len(todo)), thread_name_prefix=f"cloud-{self.name}") as pool:
            return [(item, error) for item, error in zip(todo, pool.map(lambda item: _attempt(work, item), todo), strict=True) if error]


def _attempt(work: Callable[[_Item], None], item: _Item) -> Exception | None:
    try:
        work(item)
    except (errors.ConPaaSError, OSError) as error:
        return error
    return None


@contextlib.contextmanager
def _claim(guard: vm.Guard, record: store.VmRecord) -> Iterator[vm.Claim]:
    """A claim on a VM whose guard the caller has; CloudError when its address is taken meanwhile."""
    holder = vm.reserve_address(record.ip)
    if holder is None:
        raise errors.CloudError(f"the address {record.ip} is used by another cloud on this host")
    with holder:
        yield vm.Claim(guard, holder)


def _record(spec: base.NodeSpec, vmid: str, ip: str, key: str) -> store.VmRecord:
    return store.VmRecord(
        vmid, uuid.uuid4().hex, key, spec.index, spec.name, spec.role, spec.inst_type, ip, dict(spec.tags), created=time.time()
    )


def _volume(record: store.VolumeRecord) -> base.CloudVolume:
    return base.CloudVolume(
        vol_id=record.vol_id,
        name=record.name,
        size=record.size,
        state=base.VolumeState.AVAILABLE if record.vmid is None else base.VolumeState.IN_USE,
        vmid=record.vmid,
        device=record.device,
        tags=record.tags,
        created=record.created,
        key=record.key,
    )


def _marker(record: store.VmRecord) -> str:
    """What the VM's processes carry in their environment: unique on this host, whoever runs dummy clouds on it."""
    return f"{record.vmid}@{record.uuid}"


def _boot_id() -> str:
    """This start of the host and, in a container, of the container: both end every process, as a power failure does."""
    try:
        first_process_began = _FIRST_PROCESS.read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):  # hidden from this user
        first_process_began = ""
    return f"{_BOOT_ID.read_text().strip()} {first_process_began}".strip()


def _default_directory(name: str) -> pathlib.Path:
    if os.geteuid() == 0:
        return pathlib.Path("/var/lib/conpaas") / name
    return pathlib.Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state") / "conpaas" / name


def _trim(console: pathlib.Path) -> None:
    """Keeps a console log small: beyond 1 MB only its end stays (a line written at that instant may be lost)."""
    try:
        if console.stat().st_size > CONSOLE_LIMIT:
            kept = file.tail(console, CONSOLE_SHOWN)
            with console.open("r+b") as stream:
                stream.truncate(0)
            with console.open("ab") as stream:
                stream.write(kept.encode())
    except FileNotFoundError:
        _log.debug("%s is gone", console)
