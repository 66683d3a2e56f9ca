"""What the dummy cloud remembers: one directory that several processes may use at once, true at every instant.

    <STATE_DIR>/lock               flock: held while ids, addresses and quotas are decided
               counters.json       last ids and last address; ids are never used twice
               vms/<vmid>/         vm.json user-data root/ (the disk) console.log lock pid booted
               volumes/<id>.json   beside <id>.img (block device) or <id>.d/ (directory)
               trash/              what is being deleted
               faults.json         failures wanted by a person or a test (see faults)

A VM's directory appears complete or not at all (it is prepared under a name with a leading dot and renamed). Files are 0600 in 0700
directories: user-data carries secrets.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import re
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from conpaas.core import errors, file

LOCK_TIMEOUT = 30.0
ID_PATTERN = re.compile(r"(i|vol)-[0-9]{8,}")
_DISK = ("root", "dev", "etc", "media", "service", "tmp", "var/log", "var/tmp", "var/run", "var/cache", "var/lib")

Record = TypeVar("Record", "VmRecord", "VolumeRecord")


@dataclasses.dataclass(frozen=True)
class VmRecord:
    """One VM. `uuid` marks its processes; `boot_id` is the host's at the last boot; `halted` means switched off on purpose."""

    vmid: str
    uuid: str
    key: str
    index: int
    name: str
    role: str
    inst_type: str | None
    ip: str
    tags: dict[str, str]
    created: float
    boot_id: str = ""
    isolation: str = ""
    halted: bool = False


@dataclasses.dataclass(frozen=True)
class VolumeRecord:
    """One volume of `size` MB; `kind` is loop or directory. `owned` means made with its VM, and destroyed with it."""

    vol_id: str
    key: str
    name: str
    size: int
    kind: str
    tags: dict[str, str]
    created: float
    vmid: str | None = None
    device: str | None = None
    owned: bool = False


class Store:
    """The state directory. Every writing method is to be called inside `locked()` unless it says otherwise."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.vms = directory / "vms"
        self.volumes = directory / "volumes"
        self.trash = directory / "trash"

    def prepare(self) -> None:
        """Makes the directories; any process, any number of times. Raises CloudError when it may not."""
        try:
            for directory in (self.directory, self.vms, self.volumes, self.trash):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise errors.CloudError(
                f"The dummy cloud cannot keep its state in {self.directory}: {error.strerror}", hint="set STATE_DIR in the cloud's section"
            ) from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Excludes other threads and processes for a moment; raises CloudError when it is not free within 30 s."""
        self.prepare()
        descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + LOCK_TIMEOUT
            while not _try_flock(descriptor):
                if time.monotonic() > deadline:
                    raise errors.CloudError(f"The state of the dummy cloud in {self.directory} stayed locked for {LOCK_TIMEOUT:g} s")
                time.sleep(0.005)
            yield
        finally:
            os.close(descriptor)

    def counters(self) -> dict[str, Any]:
        return _read_json(self.directory / "counters.json") or {}

    def save_counters(self, counters: dict[str, Any]) -> None:
        file.write_atomically(self.directory / "counters.json", json.dumps(counters), mode=0o600)

    def vm_directory(self, vmid: str) -> pathlib.Path:
        """Where a VM lives; refuses anything that is not an id (it becomes a path)."""
        if not ID_PATTERN.fullmatch(vmid):
            raise errors.NotFound(f"There is no VM {vmid!r} in the dummy cloud")
        return self.vms / vmid

    def list_vms(self) -> list[VmRecord]:
        """All VMs, oldest first. Needs no lock: records change in one instant."""
        found = (self._vm(directory) for directory in _entries(self.vms))
        return sorted((record for record in found if record is not None), key=lambda record: record.vmid)

    def vm(self, vmid: str) -> VmRecord:
        """One VM; NotFound when there is none. Needs no lock."""
        record = self._vm(self.vm_directory(vmid))
        if record is None:
            raise errors.NotFound(f"There is no VM {vmid} in the dummy cloud")
        return record

    def add_vm(self, record: VmRecord, user_data: str) -> None:
        """A new VM: record, disk and user-data appear together."""
        draft = self.vms / f".new-{record.vmid}"
        draft.mkdir(mode=0o700)
        root = draft / "root"
        root.mkdir(mode=0o755)
        for name in _DISK:
            (root / name).mkdir(parents=True, exist_ok=True)
        _write(draft / "user-data", user_data)
        _write(draft / "console.log", "")
        _write(draft / "lock", "")
        file.write_atomically(draft / "vm.json", _dump(record), mode=0o600)
        draft.rename(self.vms / record.vmid)

    def save_vm(self, record: VmRecord) -> None:
        """Replaces a VM's record. Needs no lock, but the right to change this VM (see vm)."""
        file.write_atomically(self.vms / record.vmid / "vm.json", _dump(record), mode=0o600)

    def list_volumes(self) -> list[VolumeRecord]:
        """All volumes, oldest first. Needs no lock."""
        found = (_load(VolumeRecord, path) for path in _entries(self.volumes) if path.suffix == ".json")
        return sorted((record for record in found if record is not None), key=lambda record: record.vol_id)

    def volume(self, vol_id: str) -> VolumeRecord:
        """One volume; NotFound when there is none. Needs no lock."""
        record = _load(VolumeRecord, self.volumes / f"{vol_id}.json") if ID_PATTERN.fullmatch(vol_id) else None
        if record is None:
            raise errors.NotFound(f"There is no volume {vol_id} in the dummy cloud")
        return record

    def save_volume(self, record: VolumeRecord) -> None:
        file.write_atomically(self.volumes / f"{record.vol_id}.json", _dump(record), mode=0o600)

    def discard(self, path: pathlib.Path) -> pathlib.Path:
        """Moves a file or directory to the trash in one instant, if it is still there. Needs no lock."""
        target = self.trash / f"{path.name}.{uuid.uuid4().hex}"
        with contextlib.suppress(FileNotFoundError):
            path.rename(target)
            file.sync_directory(path.parent)
        return target

    def delete(self, path: pathlib.Path) -> None:
        """Deletes a file or directory: gone for everybody in one instant, its room free on return. Needs no lock."""
        target = self.discard(path)
        while os.path.lexists(target):
            with contextlib.suppress(FileNotFoundError):  # another process empties the trash at the same time
                file.remove_tree(target)

    def sweep(self) -> None:
        """Deletes what a process that died left behind: half-made VMs and volumes, and trash."""
        for directory in _entries(self.vms):
            if directory.name.startswith(".new-"):
                self.discard(directory)
        known = {record.vol_id for record in self.list_volumes()}
        for path in _entries(self.volumes):
            if path.suffix in {".img", ".d"} and path.stem not in known:
                self.discard(path)

    def empty_trash(self) -> None:
        """Deletes what a process that died left in the trash; needs no lock."""
        for path in _entries(self.trash):
            with contextlib.suppress(FileNotFoundError):
                file.remove_tree(path)

    def _vm(self, directory: pathlib.Path) -> VmRecord | None:
        return None if directory.name.startswith(".") else _load(VmRecord, directory / "vm.json")


def next_id(counters: dict[str, Any], prefix: str) -> str:
    """Draws the next id (`i-00000012`); the caller saves the counters before it uses the id."""
    counters[prefix] = int(counters.get(prefix, 0)) + 1
    return f"{prefix}-{counters[prefix]:08d}"


def _entries(directory: pathlib.Path) -> list[pathlib.Path]:
    try:
        return sorted(directory.iterdir())
    except FileNotFoundError:
        return []


def _write(path: pathlib.Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)


def _dump(record: VmRecord | VolumeRecord) -> str:
    return json.dumps(dataclasses.asdict(record), indent=1, sort_keys=True)


def _load(kind: Callable[..., Record], path: pathlib.Path) -> Record | None:
    values = _read_json(path)
    return None if values is None else kind(**values)


def _read_json(path: pathlib.Path) -> dict[str, Any] | None:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise errors.CloudError(f"The dummy cloud's record {path} is damaged: {error}") from error
    return values


def _try_flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
