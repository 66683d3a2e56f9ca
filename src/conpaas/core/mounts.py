"""Disks in use on a node, for its agent: finding the device, making a file system where there is none, mounting, unmounting.

A device is a block device, or a directory where the cloud gives directories for disks; then the volume is a link to it.
"""

from __future__ import annotations

import logging
import pathlib
import re

from conpaas.core import errors, file, misc, processes

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_DEVICE = re.compile(r"[a-z]{1,8}[0-9]{0,3}[a-z]{0,2}[0-9]{0,3}")
_NO_FILE_SYSTEM = 2
_MKFS_TIMEOUT = 600.0
_LOOKED_AT = 1024 * 1024
_DEVICE_TIMEOUT = 60.0
_REBOOT_DEVICE_TIMEOUT = 5.0

log = logging.getLogger(__name__)


class Mounts:
    """The volumes mounted under `media`. What is mounted is written down and mounted again after a reboot."""

    def __init__(self, root: pathlib.Path, media: pathlib.Path, notes: file.Notes) -> None:
        self._root = root
        self._media = media
        self._notes = notes

    def mount(self, device: str, name: str, *, device_timeout: float = _DEVICE_TIMEOUT) -> None:
        """Mount the device called `device` (without `/dev/`) as `<media>/<name>`. Idempotent. Formats only a device without file system.

        Waits `device_timeout` seconds for the device. Raises OperationFailed.
        """
        _check_names(name, device)
        try:
            source = self._wait_for_device(device, device_timeout)
            if source.is_dir():
                self._link(source, name)
            else:
                self._mount(source, name)
        except (OSError, errors.OperationFailed) as error:
            raise errors.OperationFailed(f"Failed to mount volume: {error}") from error
        self._notes.set(volumes={**self.known(), name: device})

    def unmount(self, name: str) -> None:
        """Unmount; a volume that is not mounted is fine. Raises OperationFailed naming the processes that use it."""
        _check_names(name)
        try:
            self._release(self._media / name)
        except (OSError, errors.OperationFailed) as error:
            users = ", ".join(f"{pid} ({command})" for pid, command in sorted(self.users(name).items()))
            used = f"; it is used by process {users}" if users else ""
            raise errors.OperationFailed(f"Failed to unmount volume: {error}{used}") from error
        self._notes.set(volumes={known: device for known, device in self.known().items() if known != name})

    def users(self, name: str) -> dict[int, str]:
        """Processes (pid → command line) that use the volume."""
        target = self._media / name
        return processes.users_of(target) if target.exists() else {}

    def known(self) -> dict[str, str]:
        """Device by volume name, as written down."""
        return dict(self._notes.get("volumes", {}))

    def restore(self) -> None:
        """Mount again what should be mounted; a volume that cannot be is logged, the others still are."""
        for name, device in self.known().items():
            try:
                self.mount(device, name, device_timeout=_REBOOT_DEVICE_TIMEOUT)
            except errors.ConPaaSError as error:
                log.error("volume %s is not available: %s", name, error)

    def _wait_for_device(self, device: str, timeout: float) -> pathlib.Path:
        names = [device]
        if device.startswith("sd"):
            names += [f"xvd{device[2:]}", f"vd{device[2:]}"]
        candidates = [self._root / "dev" / name for name in names]

        def ready() -> pathlib.Path | None:
            return next((path for path in candidates if path.is_dir() or path.is_block_device()), None)

        found = misc.wait_until(ready, timeout=timeout, what=f"the appearance of the device {device}", interval=0.2)
        return found.resolve()

    def _link(self, source: pathlib.Path, name: str) -> None:
        target = self._media / name
        if target.is_symlink() and target.resolve() == source:
            return
        self._media.mkdir(parents=True, exist_ok=True)
        if target.is_symlink():
            target.unlink()
        target.symlink_to(source)

    def _mount(self, source: pathlib.Path, name: str) -> None:
        target = self._media / name
        mounted = _mounted_at(target)
        if mounted == source:
            return
        if mounted is not None:
            raise errors.OperationFailed(f"{target} is already taken by {mounted}")
        target.mkdir(parents=True, exist_ok=True)
        if not holds_data(source):
            misc.run(["mkfs.ext4", "-q", "-m0", source], timeout=_MKFS_TIMEOUT)
        misc.run(["mount", source, target])

    def _release(self, target: pathlib.Path) -> None:
        if target.is_symlink():
            if users := processes.users_of(target):
                raise errors.OperationFailed(f"target is busy: {len(users)} processes use it")
            target.unlink()
            return
        if _mounted_at(target) is not None:
            misc.run(["umount", target])
        if target.is_dir():
            target.rmdir()


def _check_names(name: str, device: str = "sdb") -> None:
    if not _NAME.fullmatch(name):
        raise errors.InvalidArgument("Volume name contains invalid characters")
    if not _DEVICE.fullmatch(device):
        raise errors.InvalidArgument(f"Parameter 'dev_name': {device!r} is not the name of a device.")


def _mounted_at(target: pathlib.Path) -> pathlib.Path | None:
    """The device mounted at `target`, None if nothing is."""
    wanted = str(target.resolve())
    for line in pathlib.Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        source, place = line.split()[:2]
        if place.encode().decode("unicode_escape") == wanted:
            return pathlib.Path(source).resolve()
    return None


def holds_data(device: pathlib.Path) -> bool:
    """Whether anything is on the device that formatting would destroy. Raises OSError when the device cannot be read: then nobody knows."""
    with device.open("rb") as stream:
        stream.read(_LOOKED_AT)
    found = misc.run(["blkid", "-p", "-o", "export", device], accepted=(0, _NO_FILE_SYSTEM))
    return bool(found.strip())
