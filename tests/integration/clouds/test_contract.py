"""What every driver promises (see conpaas.core.clouds.base); runs once per entry of DRIVERS."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent import futures

import pytest

from conpaas.core import errors
from conpaas.core.clouds import base, factory

from .conftest import Door, eventually, fresh_key, wanted


def by_id(cloud: base.Cloud, vmid: str) -> base.CloudNode:
    return next(node for node in cloud.list_nodes() if node.vmid == vmid)


def test_a_configured_cloud_has_no_problems(cloud: base.Cloud):
    assert cloud.check() == []


def test_nodes_run_their_own_user_data_and_are_listed_as_made(cloud: base.Cloud, door: Door):
    tags = {"application": "7", "service": "1"}
    request = wanted(3, door.knock("{index} on $IP_PUBLIC as $VM_ID"), tags=tags, role="web")
    nodes = cloud.create_nodes(request)
    assert [node.index for node in nodes] == [0, 1, 2]
    assert len({node.vmid for node in nodes}) == len({node.ip for node in nodes}) == 3
    assert {(node.key, node.role, node.private_ip != "") for node in nodes} == {(request.key, "web", True)}
    assert [node.name for node in nodes] == ["node0", "node1", "node2"]
    assert door.heard(3) == [f"{node.index} on {node.ip} as {node.vmid}" for node in nodes]
    listed = cloud.list_nodes(tags)
    assert [(node.vmid, node.ip, node.tags, node.index) for node in listed] == [(node.vmid, node.ip, tags, node.index) for node in nodes]
    assert {node.state for node in listed} == {base.NodeState.RUNNING}
    assert cloud.list_nodes({"application": "8"}) == []


def test_the_same_request_is_answered_by_the_same_nodes(cloud: base.Cloud, section: Mapping[str, str], door: Door):
    request = wanted(2, door.knock("{index}"))
    first = cloud.create_nodes(request)
    assert door.heard(2) == ["0", "1"]
    again = factory.open_cloud("iaas", section).create_nodes(request)
    assert [node.vmid for node in again] == [node.vmid for node in first]
    more = cloud.create_nodes(wanted(3, door.knock("{index}"), key=request.key))
    assert [node.vmid for node in more[:2]] == [node.vmid for node in first]
    assert door.heard(1) == ["2"]
    assert len(cloud.list_nodes()) == 3
    assert door.silent()


def test_the_same_request_from_many_at_once_makes_its_nodes_once(section: Mapping[str, str], door: Door):
    request = wanted(3, door.knock("{index}"))
    with futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: factory.open_cloud("iaas", section).create_nodes(request), range(6)))
    assert len({tuple(node.vmid for node in answer) for answer in answers}) == 1
    assert door.heard(3) == ["0", "1", "2"]
    assert len(factory.open_cloud("iaas", section).list_nodes()) == 3
    assert door.silent()


def test_different_requests_at_once_do_not_share_anything(cloud: base.Cloud):
    with futures.ThreadPoolExecutor(4) as pool:
        nodes = [node for answer in pool.map(lambda _: cloud.create_nodes(wanted(2)), range(4)) for node in answer]
    assert len({node.vmid for node in nodes}) == len({node.ip for node in nodes}) == 8


def test_destroyed_nodes_are_gone_and_destroying_again_is_no_error(cloud: base.Cloud):
    nodes = cloud.create_nodes(wanted(3))
    cloud.destroy_nodes([nodes[0].vmid, nodes[2].vmid])
    assert [node.vmid for node in cloud.list_nodes()] == [nodes[1].vmid]
    cloud.destroy_nodes([nodes[0].vmid, nodes[1].vmid, "i-99999999"])
    assert cloud.list_nodes() == []
    cloud.destroy_nodes([])


def test_the_same_vm_destroyed_by_several_at_once(section: Mapping[str, str], cloud: base.Cloud):
    vmids = [node.vmid for node in cloud.create_nodes(wanted(2))]
    with futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: factory.open_cloud("iaas", section).destroy_nodes(vmids), range(4)))
    assert cloud.list_nodes() == []


def test_ids_of_destroyed_nodes_are_not_given_again(cloud: base.Cloud):
    (first,) = cloud.create_nodes(wanted(1))
    cloud.destroy_nodes([first.vmid])
    (second,) = cloud.create_nodes(wanted(1))
    assert second.vmid != first.vmid


def test_the_console_shows_what_the_vm_said(cloud: base.Cloud, door: Door):
    (node,) = cloud.create_nodes(wanted(1, f"echo grüß dich; {door.knock('ready')}"))
    door.heard(1)
    eventually(lambda: "grüß dich" in cloud.console_log(node.vmid))
    with pytest.raises(errors.NotFound):
        cloud.console_log("i-99999999")


def test_the_life_of_a_volume(cloud: base.Cloud):
    (node,) = cloud.create_nodes(wanted(1))
    request = base.VolumeRequest(fresh_key(), "data", 20, node.vmid, {"application": "7"})
    volume = cloud.create_volume(request)
    assert (volume.name, volume.state, volume.vmid, volume.device, volume.tags) == ("data", "available", None, None, {"application": "7"})
    assert volume.size >= 20
    assert cloud.create_volume(request) == volume
    assert cloud.list_volumes({"application": "7"}) == [volume]
    assert cloud.list_volumes({"application": "8"}) == []
    attached = cloud.attach_volume(volume.vol_id, node.vmid, "sdb")
    assert (attached.state, attached.vmid, attached.device) == (base.VolumeState.IN_USE, node.vmid, "sdb")
    assert cloud.attach_volume(volume.vol_id, node.vmid, "sdb") == attached
    assert by_id(cloud, node.vmid).volumes == (attached,)
    with pytest.raises(errors.CloudError, match="attached"):
        cloud.destroy_volume(volume.vol_id)
    for _ in range(2):
        assert cloud.detach_volume(volume.vol_id) == volume
    for _ in range(2):
        cloud.destroy_volume(volume.vol_id)
    assert cloud.list_volumes() == []


def test_an_attachment_that_cannot_be(cloud: base.Cloud):
    one, two = cloud.create_nodes(wanted(2))
    first, second = (cloud.create_volume(base.VolumeRequest(fresh_key(), "v", 10)) for _ in range(2))
    cloud.attach_volume(first.vol_id, one.vmid, "sdb")
    with pytest.raises(errors.CloudError, match="attached"):
        cloud.attach_volume(first.vol_id, two.vmid, "sdb")
    with pytest.raises(errors.CloudError, match="sdb"):
        cloud.attach_volume(second.vol_id, one.vmid, "sdb")
    with pytest.raises(errors.ConPaaSError):
        cloud.attach_volume(second.vol_id, two.vmid, "../sdb")
    for volume, vmid in ((second.vol_id, "i-99999999"), ("vol-99999999", two.vmid)):
        with pytest.raises(errors.NotFound):
            cloud.attach_volume(volume, vmid, "sdc")
    with pytest.raises(errors.NotFound):
        cloud.detach_volume("vol-99999999")
    with pytest.raises(errors.CloudError):
        cloud.create_volume(base.VolumeRequest(fresh_key(), "empty", 0))


def test_volumes_made_with_a_node_go_with_it_and_others_stay(cloud: base.Cloud):
    request = wanted(2, volumes=(base.VolumeSpec("own", 10, "sdb"),), tags={"application": "7"})
    one, two = cloud.create_nodes(request)
    assert [node.volumes for node in cloud.create_nodes(request)] == [one.volumes, two.volumes]
    assert [(volume.name, volume.device, volume.vmid, volume.tags) for volume in one.volumes] == [
        ("own", "sdb", one.vmid, {"application": "7"})
    ]
    other = cloud.create_volume(base.VolumeRequest(fresh_key(), "other", 10))
    cloud.attach_volume(other.vol_id, one.vmid, "sdc")
    cloud.destroy_nodes([one.vmid])
    assert {(volume.name, volume.vmid) for volume in cloud.list_volumes()} == {("own", two.vmid), ("other", None)}
