"""Disks that outlive their nodes: which node gets which, what becomes of them, and crashes anywhere on the way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from conpaas import testing
from conpaas.core import errors, lifecycle, node
from conpaas.core.operations import OperationStatus, State
from conpaas.core.state import disks

from .conftest import make, make_keeper


@pytest.fixture
def keeper() -> Iterator[testing.Harness]:
    """Running on one node."""
    with make_keeper() as one:
        one.start()
        yield one


def records(harness: testing.Harness) -> list[disks.DiskRecord]:
    return harness.app.store.disks.all(1)


def placed(harness: testing.Harness) -> dict[str, str | None]:
    """The node of every disk."""
    return {record.name: record.node_id for record in records(harness)}


def listed(harness: testing.Harness) -> dict[str, str | None]:
    """The same as users see it."""
    return {volume["vol_name"]: volume["vm_id"] for volume in harness.call("list_volumes", 0)["volumes"] if volume["kept"]}


def assert_undone(harness: testing.Harness, reason: str) -> None:
    assert harness.operations()[0].status is OperationStatus.UNDONE
    assert reason in harness.history[-1][1]
    harness.check()


# Who gets what


def test_a_new_node_has_its_disk_when_hooks_see_it(keeper: testing.Harness) -> None:
    (one,) = keeper.nodes
    (disk,) = keeper.director.disks.values()
    assert (disk.name, disk.size, disk.vmid, disk.device, disk.keep) == ("disk-1", 50, one.vmid, "sdb", True)
    assert one.volumes == (node.ServiceVolume("disk-1", 50, disk.vol_id, one.id, "sdb", "iaas"),)
    assert keeper.agent(one).mounted == {"disk-1"}
    keeper.restart()
    assert (keeper.nodes, keeper.manager.kept_disk(one)) == ([one], one.volumes[0])
    keeper.check()


def test_roles_without_a_disk_get_none(keeper: testing.Harness) -> None:
    keeper.add_nodes({"extra": 1})
    extra = keeper.nodes[1]
    assert keeper.manager.kept_disk(extra) is None
    assert [volume.vol_name for volume in extra.volumes] == ["disk-i-0003"]
    keeper.check()


def test_services_without_kept_disks_never_ask_for_any() -> None:
    with make() as plain:
        plain.start()
        assert plain.director.calls["create_volume"] == 0
        plain.check()


def test_other_volumes_get_other_devices(keeper: testing.Harness) -> None:
    keeper.create_volume("v", 10, keeper.nodes[0])
    assert keeper.manager.volumes[0].dev_name == "sdc"
    keeper.delete_volume("v")
    keeper.check()


def test_the_replacement_of_a_lost_node_gets_its_disk(keeper: testing.Harness) -> None:
    keeper.add_nodes({"node": 2})
    _, second, third = keeper.nodes
    before = {record.name: record.vol_id for record in records(keeper)}
    for lost in (third, second):
        keeper.director.vanish(lost)
    keeper.pass_time(5)
    replaced = {record.former: record.node_id for record in records(keeper) if record.former}
    assert set(replaced) == {second.id, third.id}
    assert sorted(map(str, replaced.values())) == sorted(node.ids_of(keeper.nodes)[1:])
    assert {record.name: record.vol_id for record in records(keeper)} == before
    keeper.check()


def test_a_disk_is_not_taken_from_a_machine_that_is_not_gone(keeper: testing.Harness) -> None:
    """The node is cut off and its VM cannot be destroyed: writing there must have ended before somebody else may write."""
    keeper.add_nodes({"node": 1})
    lost, kept = keeper.nodes
    keeper.director.cling()
    keeper.kill_node(lost)
    keeper.pass_time(12)
    assert keeper.nodes == [kept]
    assert f"disk-1 cannot be taken from {lost.id}: The cloud still has {lost.id}" in keeper.history[-1][1]
    assert placed(keeper)["disk-1"] == lost.id
    keeper.director.no_more_trouble()
    keeper.pass_time(60)
    assert placed(keeper)["disk-1"] == keeper.nodes[1].id
    keeper.check()


def test_a_node_added_meanwhile_does_not_get_the_disk_that_a_replacement_waits_for(keeper: testing.Harness) -> None:
    keeper.add_nodes({"node": 1})
    lost = keeper.nodes[0]
    keeper.director.fail("create_nodes", errors.InsufficientCredits())
    keeper.kill_node(lost)
    keeper.pass_time(12)
    assert listed(keeper) == {"disk-1": None, "disk-2": keeper.nodes[0].id}
    keeper.add_nodes({"node": 1})
    added = keeper.nodes[1]
    assert placed(keeper)["disk-3"] == added.id
    keeper.pass_time(60)
    assert placed(keeper)["disk-1"] == keeper.nodes[2].id
    keeper.check()


def test_a_replacement_on_another_cloud_gets_a_new_disk(keeper: testing.Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = keeper.nodes[0]
    monkeypatch.setattr(type(keeper.manager), "get_role_sninfo", lambda self, role, cloud: self.get_standard_sninfo(role, "other"))
    keeper.director.vanish(lost)
    keeper.pass_time(5)
    assert placed(keeper) == {"disk-1": None, "disk-2": keeper.nodes[0].id}
    keeper.check()


def test_a_node_that_is_not_replaced_leaves_its_disk_spare(keeper: testing.Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper.add_nodes({"node": 1})
    monkeypatch.setattr(type(keeper.manager), "on_node_lost", lambda self, lost: False)
    keeper.kill_node(keeper.nodes[0])
    keeper.pass_time(12)
    assert listed(keeper) == {"disk-1": None, "disk-2": keeper.nodes[0].id}
    keeper.add_nodes({"node": 1})
    assert placed(keeper)["disk-1"] == keeper.nodes[1].id
    keeper.check()


def test_a_stop_and_a_start_keep_the_disks(keeper: testing.Harness) -> None:
    keeper.add_nodes({"node": 2})
    before = {record.name: record.vol_id for record in records(keeper)}
    keeper.stop()
    keeper.check()
    assert listed(keeper) == {"disk-1": None, "disk-2": None, "disk-3": None}
    keeper.restart()
    keeper.start()
    assert listed(keeper) == {"disk-1": keeper.nodes[0].id, "disk-2": None, "disk-3": None}
    keeper.add_nodes({"node": 3})
    assert [keeper.manager.kept_disk(one).vol_name for one in keeper.nodes] == ["disk-1", "disk-2", "disk-3", "disk-4"]  # type: ignore[union-attr]
    assert {name: record.vol_id for name, record in zip(before, records(keeper), strict=False)} == before
    keeper.check()


def test_a_start_prefers_disks_of_nodes_that_were_in_service_to_the_end(keeper: testing.Harness) -> None:
    """What was lost earlier has older data."""
    keeper.add_nodes({"node": 1})
    keeper.director.fail("create_nodes", errors.InsufficientCredits(), times=9)
    keeper.kill_node(keeper.nodes[0])
    keeper.pass_time(12)
    keeper.stop()
    keeper.director.no_more_trouble()
    keeper.start()
    assert placed(keeper) == {"disk-1": None, "disk-2": keeper.nodes[0].id}
    keeper.check()


def test_a_stop_before_the_lost_node_is_given_back_prefers_the_others_as_well(keeper: testing.Harness) -> None:
    keeper.add_nodes({"node": 1})
    keeper.kill_node(keeper.nodes[0])
    keeper.director.down(10_000)
    keeper.pass_time(12)
    keeper.director.no_more_trouble()
    keeper.stop()
    keeper.start()
    assert placed(keeper) == {"disk-1": None, "disk-2": keeper.nodes[0].id}
    keeper.check()


def test_a_start_waits_until_the_former_machines_are_gone(keeper: testing.Harness) -> None:
    former = keeper.nodes[0]
    keeper.director.cling()
    keeper.stop()
    keeper.request("start_service", service_id=1, cloud="default")
    assert keeper.state is State.STOPPED
    assert f"disk-1 cannot be taken from {former.id}: The cloud still has {former.id}" in keeper.history[-1][1]
    keeper.director.no_more_trouble()
    keeper.start()
    assert placed(keeper) == {"disk-1": keeper.nodes[0].id}
    keeper.check()


def test_removed_nodes_take_their_disks_along(keeper: testing.Harness) -> None:
    keeper.add_nodes({"node": 2})
    keeper.remove_nodes({"node": 1})
    assert set(placed(keeper)) == {"disk-1", "disk-2"}
    keeper.check()
    keeper.director.cling()
    keeper.remove_nodes({"node": 1})
    assert (keeper.state, set(placed(keeper))) == (State.RUNNING, {"disk-1"})
    keeper.director.no_more_trouble()
    keeper.check()


def test_a_removed_service_leaves_no_disk(keeper: testing.Harness) -> None:
    keeper.add_nodes({"node": 1})
    keeper.stop()
    keeper.start()
    keeper.remove()
    assert (keeper.director.disks, keeper.director.machines) == ({}, {})
    keeper.check()


def test_a_disk_follows_the_role_of_its_node(keeper: testing.Harness) -> None:
    keeper.manager.set_role(keeper.nodes[0].id, "extra")
    assert [record.role for record in records(keeper)] == ["extra"]


# What fails


@pytest.mark.parametrize("method", ["create_volume", "attach_volume"])
@pytest.mark.parametrize("how", ["fail", "lose_answers"])
def test_a_disk_that_cannot_be_had_is_undone(keeper: testing.Harness, method: str, how: str) -> None:
    getattr(keeper.director, how)(method)
    keeper.request("add_nodes", service_id=1, nodes={"node": 2}, cloud="default")
    assert_undone(keeper, "failed by order of a test" if how == "fail" else "connection reset")
    assert set(placed(keeper)) == {"disk-1"}


def test_a_failed_start_puts_spare_disks_back(keeper: testing.Harness) -> None:
    keeper.stop()
    since = [record.spare_since for record in records(keeper)]
    keeper.fail_at("start_service", "start", "after")
    keeper.request("start_service", service_id=1, cloud="default")
    assert_undone(keeper, "'start' failed by order of a test")
    assert [(record.node_id, record.spare_since) for record in records(keeper)] == [(None, since[0])]
    keeper.start()
    assert placed(keeper) == {"disk-1": keeper.nodes[0].id}


def test_a_failed_replacement_is_tried_again_with_the_same_disk(keeper: testing.Harness) -> None:
    keeper.add_nodes({"node": 1})
    lost = keeper.nodes[1]
    keeper.director.vanish(lost)
    keeper.fail_at("replace_node", "join", "after")
    keeper.pass_time(5)
    assert (len(keeper.nodes), placed(keeper)["disk-2"]) == (1, None)
    keeper.pass_time(60)
    assert placed(keeper)["disk-2"] == keeper.nodes[1].id
    keeper.check()


def test_undoing_ends_the_machine_before_it_takes_the_disk(keeper: testing.Harness) -> None:
    """The agent may have the disk in use, and nobody may be there to unmount it."""
    gone: list[bool] = []
    detach = keeper.director.detach_volume

    def watch(vol_id: str, cloud: str) -> None:
        disk = keeper.director.disks[vol_id]
        gone.append(not any(machine.node.vmid == disk.vmid for machine in keeper.director.machines.values()))
        detach(vol_id, cloud)

    keeper.director.detach_volume = watch  # type: ignore[method-assign]
    keeper.fail_at("add_nodes", "join", "after")
    keeper.request("add_nodes", service_id=1, nodes={"node": 1}, cloud="default")
    assert_undone(keeper, "'join' failed")
    assert gone == [True]


def test_recovery_leaves_disks_of_useless_nodes_spare(keeper: testing.Harness) -> None:
    keeper.add_nodes({"node": 1})
    keeper.director.fail("remove_nodes")
    keeper.request("stop_service", service_id=1)
    assert keeper.state is State.ERROR
    keeper.kill_node(keeper.nodes[0])
    keeper.recover()
    assert listed(keeper) == {"disk-1": None, "disk-2": keeper.nodes[0].id}
    keeper.check()


def test_recovery_clears_away_what_an_undo_could_not(keeper: testing.Harness) -> None:
    keeper.director.lose_answers("create_volume")
    keeper.director.fail("remove_nodes", times=4)
    keeper.request("add_nodes", service_id=1, nodes={"node": 1}, cloud="default")
    assert keeper.state is State.ERROR
    assert [record.vol_id is None for record in records(keeper)] == [False, True]
    keeper.recover()
    assert placed(keeper) == {"disk-1": keeper.nodes[0].id}
    keeper.check()


# Crashes


def start(harness: testing.Harness) -> None:
    harness.start()


def grown(harness: testing.Harness) -> None:
    harness.start()
    harness.add_nodes({"node": 1, "extra": 1})


def stopped(harness: testing.Harness) -> None:
    grown(harness)
    harness.stop()


def restarted(harness: testing.Harness) -> None:
    stopped(harness)
    harness.start()


def with_dead_node(harness: testing.Harness) -> None:
    grown(harness)
    harness.kill_node(harness.nodes[0])


def broken(harness: testing.Harness) -> None:
    grown(harness)
    harness.director.fail("remove_nodes")
    harness.request("stop_service", service_id=1)
    harness.kill_node(harness.nodes[0])


SCENARIOS = {
    "start_service": (None, start),
    "start_service again": (stopped, start),
    "stop_service": (grown, lambda harness: harness.stop()),
    "add_nodes": (start, lambda harness: harness.add_nodes({"node": 1, "extra": 1})),
    "add_nodes with a spare disk": (restarted, lambda harness: harness.add_nodes({"node": 2})),
    "remove_nodes": (grown, lambda harness: harness.remove_nodes({"node": 1})),
    "replace_node": (with_dead_node, lambda harness: harness.pass_time(12)),
    "recover_service": (broken, lambda harness: harness.recover()),
    "remove_service": (restarted, lambda harness: harness.remove()),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_crash_anywhere_loses_and_leaks_no_disk(name: str) -> None:
    prepare, act = SCENARIOS[name]
    steps = next(kind.steps for kind in lifecycle.KINDS if kind.name == name.partition(" ")[0])
    with make_keeper() as one:
        if prepare is not None:
            prepare(one)
        before = {record.vol_id for record in records(one)}
    numbers = {"remove_nodes": 1, "remove_service": len(before)}

    def check(harness: testing.Harness) -> None:
        left = {record.vol_id for record in harness.app.store.disks.all(1)}
        assert len(before - left) <= numbers.get(name, 0), f"of {before} {left} are left"

    assert testing.crash_everywhere(make_keeper, act, prepare, check) >= 3 * len(steps)
