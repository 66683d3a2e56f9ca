"""Volumes that outlive the machines they are attached to, and go with their application, in every order of events."""

from __future__ import annotations

from typing import Any

import pytest

from conpaas.core import errors, faults
from conpaas.director.lifecycle import nodes, volumes, wanted

ONE = [{"role": "db", "cloud": "iaas"}]


def ask(world: Any, kind: Any, key: str, **args: Any) -> Any:
    return world.life.result(world.life.request(kind, world.aid, key, {"cloud": "iaas", **args}, "manager"), 5.0)


def kept_on(world: Any, node: dict[str, Any], key: str = "v1") -> str:
    """A kept volume attached to a node."""
    made = ask(world, volumes.CREATE, key, size=100, name="disk-1", vmid=node["vmid"], service_id=1, keep=True)
    ask(world, volumes.ATTACH, f"{key}-a", vol_id=made["volume_id"], vmid=node["vmid"], device="sdb")
    vol_id: str = made["volume_id"]
    return vol_id


def remove(world: Any, node: dict[str, Any], key: str = "r1", **args: Any) -> Any:
    vms = [list(pair) for pair in wanted.parse_vms(repr([node]))]
    return world.life.result(world.life.request(nodes.REMOVE, world.aid, key, {"vms": vms, **args}, "manager"), 5.0)


def test_a_kept_volume_outlives_its_machine_and_serves_the_next_one(running: Any) -> None:
    (node,) = running.ask(ONE)
    vol_id = kept_on(running, node)
    remove(running, node)
    (disk,) = running.disks()
    assert (disk.vol_id, disk.vmid, disk.device, disk.state, disk.keep) == (vol_id, None, None, "available", True)
    assert running.life.sweeper.sweep() == []
    (second,) = running.ask(ONE, key="k2")
    ask(running, volumes.ATTACH, "again", vol_id=vol_id, vmid=second["vmid"], device="sdb")
    assert running.clouds["iaas"].disks[vol_id].vmid == second["vmid"]


def test_other_volumes_still_go_with_their_machine(running: Any) -> None:
    (node,) = running.ask([{**ONE[0], "volumes": [{"vol_name": "scratch", "vol_size": 5, "dev_name": "sdc"}]}])
    vol_id = kept_on(running, node)
    remove(running, node)
    assert [disk.vol_id for disk in running.disks()] == list(running.clouds["iaas"].disks) == [vol_id]


def test_a_vanished_machine_leaves_its_kept_volume(running: Any) -> None:
    (node,) = running.ask(ONE)
    vol_id = kept_on(running, node)
    running.clouds["iaas"].destroy_nodes([node["vmid"]])
    for _ in range(3):
        running.life.sweeper.sweep()
    assert [disk.state for disk in running.disks()] == ["attached"]
    remove(running, node)
    assert [(disk.vol_id, disk.state) for disk in running.disks()] == [(vol_id, "available")]


def test_a_removal_that_says_so_takes_kept_volumes_too(running: Any) -> None:
    (node,) = running.ask(ONE)
    kept_on(running, node)
    remove(running, node, disks=True)
    assert (running.disks(), running.clouds["iaas"].disks) == ([], {})


@pytest.mark.parametrize("disks", [False, True])
@pytest.mark.parametrize("when", [faults.BEFORE, faults.AFTER])
@pytest.mark.parametrize("step", ["give_up", "destroy"])
def test_a_removal_survives_a_crash_anywhere(running: Any, killing: Any, killed: Any, step: str, when: str, disks: bool) -> None:
    (node,) = running.ask(ONE)
    kept_on(running, node)
    with killing(step, when, "remove_nodes"), pytest.raises(killed):
        remove(running, node, disks=disks)
    running.restart()
    remove(running, node, disks=disks)
    assert [disk.state for disk in running.disks()] == ([] if disks else ["available"])
    assert len(running.clouds["iaas"].disks) == len(running.disks())


def test_a_machine_that_cannot_be_destroyed_now_takes_its_volumes_along_later(running: Any) -> None:
    (node,) = running.ask(ONE)
    kept_on(running, node)
    running.clouds["iaas"].fail_destroy = {node["vmid"]}
    remove(running, node, disks=True)
    assert len(running.disks()) == 1
    running.clouds["iaas"].fail_destroy = set()
    running.life.sweeper.sweep()
    assert (running.disks(), running.clouds["iaas"].disks) == ([], {})


def test_a_kept_volume_is_not_taken_from_a_machine_that_is_not_gone(running: Any) -> None:
    (node,) = running.ask(ONE)
    vol_id = kept_on(running, node)
    running.clouds["iaas"].fail_destroy = {node["vmid"]}
    remove(running, node)
    with pytest.raises(errors.ConPaaSError, match=f"The cloud iaas still has iaas{node['vmid']}, to which the volume is attached"):
        ask(running, volumes.DETACH, "d1", vol_id=vol_id)
    assert running.clouds["iaas"].disks[vol_id].vmid == node["vmid"]
    running.clouds["iaas"].fail_destroy = set()
    ask(running, volumes.DETACH, "d2", vol_id=vol_id)
    assert node["vmid"] not in running.clouds["iaas"].nodes
    assert [disk.state for disk in running.disks()] == ["available"]


@pytest.mark.parametrize("attached", [True, False])
def test_the_end_of_the_application_is_the_end_of_its_kept_volumes(running: Any, attached: bool) -> None:
    (node,) = running.ask(ONE)
    kept_on(running, node)
    if not attached:
        remove(running, node)
    running.life.stop(running.aid, "ann")
    assert (running.disks(), running.clouds["iaas"].disks) == ([], {})


def test_what_a_cloud_could_not_destroy_at_the_end_goes_later(running: Any) -> None:
    (node,) = running.ask(ONE)
    kept_on(running, node)
    cloud = running.clouds["iaas"]
    destroy = cloud.destroy_volume

    def refuse(vol_id: str) -> None:
        raise errors.CloudError("not now")

    cloud.destroy_volume = refuse
    running.life.stop(running.aid, "ann")
    assert "not now" in running.application().reason
    assert [disk.state for disk in running.disks()] == ["deleting"]
    cloud.destroy_volume = destroy
    running.life.sweeper.sweep()
    assert (running.disks(), cloud.disks) == ([], {})


def test_a_volume_that_somebody_destroyed_in_the_cloud_holds_nothing_up(running: Any) -> None:
    (node,) = running.ask(ONE)
    vol_id = kept_on(running, node)
    remove(running, node)
    del running.clouds["iaas"].disks[vol_id]
    ask(running, volumes.DETACH, "d1", vol_id=vol_id)
    ask(running, volumes.DESTROY, "d2", vol_id=vol_id)
    assert running.disks() == []
