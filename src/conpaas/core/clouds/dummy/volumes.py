"""Volumes of the dummy cloud: block devices (sparse files behind loop devices) where this user may have them, directories otherwise.

In the VM an attached volume is the symbolic link `$VM_ROOT/dev/<device>`, to a block device (which the VM formats and mounts) or to a
directory (which it uses as it is; its size is not enforced). Which of the two a volume is never changes.

What is attached is what the record says; the loop device is asked from the kernel, so a process that dies half-way leaves nothing that the
next call does not put right. Records change under the store's lock only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import pathlib
import re
import shutil
import subprocess
import time
from collections.abc import Callable

from conpaas.core import errors
from conpaas.core.clouds.dummy import store

LOOP = "loop"
DIRECTORY = "directory"
KINDS = (LOOP, DIRECTORY)

DEVICE_PATTERN = re.compile(r"[a-z][a-z0-9]{1,14}")
BUSY_TIMEOUT = 5.0
MB = 1024 * 1024


def best_kind() -> str:
    """`loop` where this user may have loop devices, else `directory`."""
    control = pathlib.Path("/dev/loop-control")
    able = os.geteuid() == 0 and os.access(control, os.R_OK | os.W_OK) and shutil.which("losetup") and shutil.which("mkfs.ext4")
    return LOOP if able else DIRECTORY


class Volumes:
    """The volumes in a state directory. `store` keeps the records; this makes them real."""

    def __init__(self, store: store.Store) -> None:
        self.store = store

    def make(self, record: store.VolumeRecord) -> None:
        """Makes an empty volume (inside the store's lock); it exists once its record is written."""
        path = self._data(record)
        if record.kind == LOOP:
            with path.open("wb") as image:
                image.truncate(record.size * MB)
            path.chmod(0o600)
        else:
            path.mkdir(mode=0o755, exist_ok=True)
        self.store.save_volume(record)

    def attach(self, vol_id: str, vmid: str, device: str, *, owned: bool = False) -> store.VolumeRecord:
        """Attaches, or repairs an attachment that is as asked. `owned`: to be destroyed with the VM."""
        if not DEVICE_PATTERN.fullmatch(device):
            raise errors.CloudError(f"{device!r} is not the name of a device; use one like 'sdb'")
        with self.store.locked():
            record = self.store.volume(vol_id)
            self.store.vm(vmid)
            if record.vmid is not None and (record.vmid, record.device) != (vmid, device):
                raise errors.CloudError(f"The volume {vol_id} is attached to {record.vmid} as {record.device}; detach it first")
            for other in self.attached(vmid):
                if other.device == device and other.vol_id != vol_id:
                    raise errors.CloudError(f"The VM {vmid} has the volume {other.vol_id} as {device} already; use another device")
            record = dataclasses.replace(record, vmid=vmid, device=device, owned=owned)
            self.store.save_volume(record)
            self.connect(record)
        return record

    def connect(self, record: store.VolumeRecord) -> None:
        """Makes an attached volume visible in its VM; idempotent, also to be called when the VM is switched on again."""
        if record.vmid is None or record.device is None:
            return
        data = self._data(record)
        target = data.resolve() if record.kind == DIRECTORY else (loop_device(data) or _attach_loop(data))
        link = self._link(record.vmid, record.device)
        if not (link.is_symlink() and link.readlink() == target):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(target)

    def detach(self, vol_id: str) -> store.VolumeRecord:
        """Detaches; CloudError while the VM has the block device mounted or open. A detached volume is no error."""
        record = self.store.volume(vol_id)
        busy = f"The volume {vol_id} is in use in {record.vmid}; unmount it there first"
        device = loop_device(self._data(record)) if record.kind == LOOP else None
        if device is not None:  # others need the lock, so the waiting is done before
            _until(lambda: not _is_busy(device), busy)
        with self.store.locked():
            record = self.store.volume(vol_id)
            if record.vmid is None or record.device is None:
                return record
            if record.kind == LOOP:
                _detach_loop(self._data(record), busy)
            self._link(record.vmid, record.device).unlink(missing_ok=True)
            record = dataclasses.replace(record, vmid=None, device=None, owned=False)
            self.store.save_volume(record)
        return record

    def destroy(self, vol_id: str) -> None:
        """Deletes an unattached volume and its data; an unknown one is no error."""
        with self.store.locked():
            try:
                record = self.store.volume(vol_id)
            except errors.NotFound:
                return
            if record.vmid is not None:
                raise errors.CloudError(f"The volume {vol_id} is attached to {record.vmid}; detach it first")
            if record.kind == LOOP:
                _detach_loop(self._data(record), f"The volume {vol_id} is in use; unmount it first")
            self.store.delete(self.store.volumes / f"{vol_id}.json")
            trash = self.store.discard(self._data(record))
        self.store.delete(trash)

    def attached(self, vmid: str) -> list[store.VolumeRecord]:
        """Volumes attached to a VM."""
        return [record for record in self.store.list_volumes() if record.vmid == vmid]

    def release(self, vmid: str) -> None:
        """Takes every volume from a VM whose processes are gone; those made with it are destroyed."""
        for record in self.attached(vmid):
            self.detach(record.vol_id)
            if record.owned:
                self.destroy(record.vol_id)

    def unmount_all(self, directory: pathlib.Path) -> None:
        """Undoes mounts below a directory in this mount namespace, innermost first; CloudError when one stays."""
        for point in reversed(_mounts_below(directory)):
            _run(["umount", str(point)], f"The file system at {point} cannot be unmounted")

    def sweep(self) -> None:
        """Frees loop devices of volumes that are unknown or not attached (inside the store's lock)."""
        wanted = {self._data(record).resolve() for record in self.store.list_volumes() if record.vmid is not None and record.kind == LOOP}
        for image, device in _loops().items():
            if image.is_relative_to(self.store.directory.resolve()) and image not in wanted:
                _run(["losetup", "--detach", str(device)], f"The loop device {device} cannot be freed")

    def _data(self, record: store.VolumeRecord) -> pathlib.Path:
        return self.store.volumes / f"{record.vol_id}{'.img' if record.kind == LOOP else '.d'}"

    def _link(self, vmid: str, device: str) -> pathlib.Path:
        return self.store.vm_directory(vmid) / "root" / "dev" / device


def loop_device(image: pathlib.Path) -> pathlib.Path | None:
    """The loop device behind which a file is, or None."""
    return _loops().get(image.resolve())


def _loops() -> dict[pathlib.Path, pathlib.Path]:
    """Every loop device in use on this host, by its file."""
    found = {}
    for backing in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            found[pathlib.Path(backing.read_text().rstrip("\n").removesuffix(" (deleted)"))] = pathlib.Path("/dev", backing.parts[3])
    return found


def _attach_loop(image: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(_run(["losetup", "--find", "--show", str(image)], f"The volume {image.stem} gets no loop device").strip())


def _detach_loop(image: pathlib.Path, busy: str) -> None:
    """Frees the loop device of a file, if it has one; CloudError(busy) when somebody has it mounted."""
    device = loop_device(image)
    if device is None:
        return
    if _is_busy(device):
        raise errors.CloudError(busy)
    _run(["losetup", "--detach", str(device)], busy)
    _until(lambda: loop_device(image) is None, busy)


def _is_busy(device: pathlib.Path) -> bool:
    """Whether a block device is mounted, in whatever mount namespace: the kernel lends it exclusively only if it is not."""
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return True
        raise errors.CloudError(f"{device} cannot be opened: {error.strerror}") from error
    return False


def _until(condition: Callable[[], bool], failure: str) -> None:
    """Waits for what the kernel does a moment after a process has ended."""
    deadline = time.monotonic() + BUSY_TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise errors.CloudError(failure)
        time.sleep(0.02)


def _mounts_below(directory: pathlib.Path) -> list[pathlib.Path]:
    """Mount points below a directory, in order of mounting."""
    base = directory.resolve()
    points = []
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        point = pathlib.Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), line.split()[4]))
        if point.is_relative_to(base):
            points.append(point)
    return points


def _run(arguments: list[str], failure: str) -> str:
    try:
        done = subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        raise errors.CloudError(f"{failure}: {error.stderr.strip()}") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise errors.CloudError(f"{failure}: {error}") from error
    return done.stdout
