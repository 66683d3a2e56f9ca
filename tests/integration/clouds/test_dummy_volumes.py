"""Volumes of the dummy cloud as disks: block devices where this user may have them, directories elsewhere."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Mapping

import pytest

from conpaas.core import errors
from conpaas.core.clouds import base, dummy, factory
from conpaas.core.clouds.dummy import volumes as dummy_volumes

from .conftest import Door, eventually, fresh_key, wanted

needs_loop = pytest.mark.skipif(dummy_volumes.best_kind() != dummy_volumes.LOOP, reason="needs root and loop devices")
MOUNT = """
mkdir -p $VM_ROOT/media/v
while [ ! -e $VM_ROOT/go ]; do read -t 0.05 < <(exec sleep 0.05); done
[ -n "$(blkid -p $VM_ROOT/dev/sdb)" ] || mkfs.ext4 -q -m0 $VM_ROOT/dev/sdb || exit
mount "$(readlink $VM_ROOT/dev/sdb)" $VM_ROOT/media/v || exit
"""


@pytest.fixture
def blocks(section: Mapping[str, str]) -> dummy.DummyCloud:
    """A cloud with block devices, in either isolation."""
    cloud = factory.open_cloud("iaas", {**section, "VOLUMES": "loop"})
    assert isinstance(cloud, dummy.DummyCloud)
    return cloud


def root_of(cloud: dummy.DummyCloud, node: base.CloudNode) -> pathlib.Path:
    return cloud.directory / "vms" / node.vmid / "root"


def attached(cloud: dummy.DummyCloud, node: base.CloudNode, volume: base.CloudVolume) -> pathlib.Path:
    """Attaches as sdb, and lets the VM's user-data go on."""
    cloud.attach_volume(volume.vol_id, node.vmid, "sdb")
    (root_of(cloud, node) / "go").touch()
    return root_of(cloud, node) / "dev" / "sdb"


def test_data_in_a_directory_survives_its_vm(section: Mapping[str, str]):
    cloud = factory.open_cloud("iaas", {**section, "VOLUMES": "directory"})
    assert isinstance(cloud, dummy.DummyCloud)
    one, two = cloud.create_nodes(wanted(2))
    volume = cloud.create_volume(base.VolumeRequest(fresh_key(), "v", 10))
    device = attached(cloud, one, volume)
    assert device.is_symlink()
    (device / "data").write_text("kept")
    cloud.destroy_nodes([one.vmid])
    assert (attached(cloud, two, volume) / "data").read_text() == "kept"
    cloud.detach_volume(volume.vol_id)
    assert not (root_of(cloud, two) / "dev" / "sdb").is_symlink()


@needs_loop
def test_data_on_a_block_device_survives_its_vm_although_that_had_it_mounted(blocks: dummy.DummyCloud, door: Door):
    user_data = f"{MOUNT} cat $VM_ROOT/media/v/data; echo kept > $VM_ROOT/media/v/data; {door.knock('mounted')}; sleep 1000"
    one, two = blocks.create_nodes(wanted(2, user_data))
    volume = blocks.create_volume(base.VolumeRequest(fresh_key(), "v", 20))
    device = attached(blocks, one, volume)
    assert device.resolve().is_block_device()
    door.heard(1)
    blocks.destroy_nodes([one.vmid])
    assert dummy_volumes.loop_device(blocks.directory / "volumes" / f"{volume.vol_id}.img") is None
    attached(blocks, two, volume)
    door.heard(1)
    assert blocks.console_log(two.vmid).strip() == "kept"


@needs_loop
def test_a_mounted_volume_is_not_torn_away(blocks: dummy.DummyCloud, door: Door, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dummy_volumes, "BUSY_TIMEOUT", 0.2)
    wait = "while [ ! -e $VM_ROOT/over ]; do read -t 0.05 < <(exec sleep 0.05); done; umount $VM_ROOT/media/v"
    (node,) = blocks.create_nodes(wanted(1, f"{MOUNT} {door.knock('mounted')}; {wait}; {door.knock('unmounted')}"))
    volume = blocks.create_volume(base.VolumeRequest(fresh_key(), "v", 20))
    attached(blocks, node, volume)
    door.heard(1)
    with pytest.raises(errors.CloudError, match=f"The volume {volume.vol_id} is in use in {node.vmid}; unmount it there first"):
        blocks.detach_volume(volume.vol_id)
    (root_of(blocks, node) / "over").touch()
    door.heard(1)
    eventually(lambda: _detached(blocks, volume.vol_id))


def _detached(cloud: dummy.DummyCloud, vol_id: str) -> bool:
    try:
        return cloud.detach_volume(vol_id).state is base.VolumeState.AVAILABLE
    except errors.CloudError:
        return False


@needs_loop
def test_volumes_of_halted_vms_come_back_with_them(blocks: dummy.DummyCloud, door: Door):
    user_data = f"{MOUNT} echo kept > $VM_ROOT/media/v/data; {door.knock('mounted')}"
    (node,) = blocks.create_nodes(wanted(1, user_data))
    volume = blocks.create_volume(base.VolumeRequest(fresh_key(), "v", 20))
    device = attached(blocks, node, volume)
    door.heard(1)
    blocks.halt_all()
    subprocess.run(["losetup", "--detach", str(device.resolve())], check=True)
    image = blocks.directory / "volumes" / f"{volume.vol_id}.img"
    eventually(lambda: dummy_volumes.loop_device(image) is None)
    blocks.resume()
    assert device.resolve() == dummy_volumes.loop_device(image)


@needs_loop
def test_leaked_loop_devices_are_freed(blocks: dummy.DummyCloud):
    blocks.store.prepare()
    orphan = blocks.directory / "volumes" / "vol-00000099.img"
    with orphan.open("wb") as image:
        image.truncate(10 * 1024 * 1024)
    subprocess.run(["losetup", "--find", str(orphan)], check=True)
    blocks.resume()
    eventually(lambda: dummy_volumes.loop_device(orphan) is None)
    assert not orphan.exists()
