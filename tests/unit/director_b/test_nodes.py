"""Nodes and volumes on behalf of managers: all or nothing, once per request key, across clouds and across crashes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from conpaas.core import errors, faults
from conpaas.director import models
from conpaas.director.lifecycle import applications, nodes, volumes

TWO = [{"role": "web", "cloud": "default"}, {"role": "backend", "cloud": "other"}]
WITH_VOLUME = [{"role": "osd", "cloud": "iaas", "volumes": [{"vol_name": "osd-%(vm_id)s", "vol_size": 1024, "dev_name": "sdb"}]}]
WHENS = (faults.BEFORE, faults.AFTER, faults.RECORDED)
CREATE_POINTS = [*itertools.product(("record", "create", "wait", "volumes", "publish"), WHENS)]
UNDO_POINTS = [*itertools.product(("record", "create", "wait"), (faults.UNDO, faults.UNDO_AFTER, faults.UNDO_RECORDED))]
REMOVE_POINTS = [*itertools.product(("give_up", "destroy"), WHENS)]


def test_nodes_come_back_in_order_from_several_clouds(running: Any) -> None:
    reply = running.ask(TWO)
    assert [(node["cloud_name"], node["role"]) for node in reply] == [("iaas", "web"), ("other", "backend")]
    assert all(node["id"] == node["cloud_name"] + node["vmid"] and node["ip"] and node["volumes"] == [] for node in reply)
    assert running.vms() == running.recorded()
    assert running.balance() == 47


def test_every_node_has_a_token_of_its_own(running: Any) -> None:
    running.ask([{"role": "web"}] * 3)
    texts = list(running.clouds["iaas"].user_data.values())
    assert sorted(text for n in range(1, 5) for text in [f"token-{n}"] if any(text in data for data in texts)) == [
        f"token-{n}" for n in range(1, 5)
    ]


def test_the_same_key_gets_the_same_nodes(running: Any) -> None:
    assert running.ask(TWO) == running.ask(TWO)
    assert len(running.vms()) == 3


def test_a_key_of_another_application_is_another_request(running: Any) -> None:
    running.ask(TWO)
    other = running.new_application("second")
    running.life.start(other, "iaas", "ann")
    running.life.request(nodes.CREATE, other, "k1", running.node_arguments(TWO), "manager")
    assert len(running.vms()) == 6


def test_a_key_serves_one_kind_of_request(running: Any) -> None:
    reply = running.ask(TWO)
    with pytest.raises(errors.InvalidArgument, match="'k1' was used for create_nodes already"):
        running.remove(reply, key="k1")


@pytest.mark.parametrize("trouble", ["create", "silent", "volume"])
def test_a_partial_failure_leaves_nothing_and_names_what_failed(running: Any, trouble: str) -> None:
    if trouble == "create":
        running.clouds["other"].fail_create = {1}
    elif trouble == "silent":
        running.daemons.silent = {1}
    else:
        running.clouds["iaas"].fail_volumes = True
    before = running.vms()
    expected = {
        "create": "other: node 1: no room left",
        "silent": "agent othervm.* did not become ready.*Kernel panic",
        "volume": "no disk space",
    }
    with pytest.raises(errors.OperationFailed, match=expected[trouble]):
        running.ask(TWO + WITH_VOLUME)
    assert running.vms() == before == running.recorded()
    assert (running.disks(), running.clouds["iaas"].disks) == ([], {})
    assert running.balance() == 49


def test_a_failed_request_stays_failed_under_its_key(running: Any) -> None:
    running.clouds["other"].fail_create = {1}
    for _ in range(2):
        with pytest.raises(errors.OperationFailed, match="no room left"):
            running.ask(TWO)
    assert running.clouds["iaas"].made == 2


def test_more_nodes_than_credits_are_refused_before_any_cloud_is_asked(running: Any) -> None:
    running.set_balance(1)
    with pytest.raises(errors.OperationFailed, match=r"^Insufficient credits$"):
        running.ask(TWO)
    assert len(running.vms()) == 1


def test_credits_are_reserved_while_nodes_are_being_made(running: Any) -> None:
    """Two requests side by side can't spend the same credit."""
    running.set_balance(1)
    refusals = []

    def ask_for_another(machine: Any) -> None:
        if not refusals:
            refusals.append("pending")
            with pytest.raises(errors.OperationFailed) as refused:
                running.ask([{"role": "web"}], key="k2")
            refusals[0] = str(refused.value)

    running.daemons.on_probe = ask_for_another
    running.ask([{"role": "web"}])
    assert refusals == ["Insufficient credits"]
    assert running.balance() == 0


@pytest.mark.parametrize(("step", "when"), CREATE_POINTS)
def test_a_request_survives_a_crash_anywhere(running: Any, killing: Any, killed: Any, step: str, when: str) -> None:
    with killing(step, when, "create_nodes"), pytest.raises(killed):
        running.ask(TWO + WITH_VOLUME)
    running.restart()
    reply = running.ask(TWO + WITH_VOLUME)
    assert len(reply) == 3
    assert running.vms() == running.recorded()
    assert len(running.vms()) == 4
    assert len(running.clouds["iaas"].disks) == len(running.disks()) == 1
    assert reply[2]["volumes"] == [running.disks()[0].to_dict()]
    assert running.balance() == 46


@pytest.mark.parametrize(("step", "when"), UNDO_POINTS)
def test_undoing_a_request_survives_a_crash_anywhere(running: Any, killing: Any, killed: Any, step: str, when: str) -> None:
    running.daemons.silent = {1}
    before = running.vms()
    with killing(step, when, "create_nodes"), pytest.raises(killed):
        running.ask(TWO)
    running.restart()
    with pytest.raises(errors.OperationFailed, match="did not become ready"):
        running.ask(TWO)
    assert running.vms() == before == running.recorded()
    assert running.balance() == 49


def test_secrets_leave_the_record_when_the_request_has_ended(running: Any) -> None:
    running.ask([{"role": "web"}], startup_script="echo s3cret", context={})
    with running.database.reader() as session:
        args = [row.args for row in session.query(models.Operation).filter_by(kind="create_nodes")]
    assert "s3cret" not in repr(args)


def test_volumes_of_nodes_are_named_after_their_machine(running: Any) -> None:
    (node,) = running.ask(WITH_VOLUME)
    (volume,) = node["volumes"]
    assert (volume["vol_name"], volume["vm_id"], volume["dev_name"]) == (f"osd-{node['vmid']}", node["vmid"], "sdb")
    assert running.clouds["iaas"].disks[volume["vol_id"]].vmid == node["vmid"]


def test_removing_nodes_destroys_their_volumes_too(running: Any) -> None:
    reply = running.ask(TWO + WITH_VOLUME)
    assert running.remove(reply) == {}
    assert len(running.vms()) == 1
    assert (running.disks(), running.clouds["iaas"].disks) == ([], {})
    assert running.balance() == 46


def test_removing_again_is_fine(running: Any) -> None:
    reply = running.ask(TWO)
    assert running.remove(reply) == running.remove(reply) == running.remove(reply, key="r2") == {}


def test_foreign_unknown_and_manager_machines_are_refused_and_nothing_happens(running: Any) -> None:
    mine = running.ask(TWO)
    other = running.new_application("second")
    running.life.start(other, "iaas", "ann")
    with running.database.reader() as session:
        theirs = session.get(models.Application, other).manager_vmid
    before = running.vms()
    for vmid, error in ((theirs, errors.NotFound), ("vm999", errors.NotFound), (running.application().manager_vmid, errors.Forbidden)):
        with pytest.raises(error, match=f"iaas{vmid}"):
            running.remove([*mine, {"cloud_name": "iaas", "vmid": vmid}])
    assert running.vms() == before


@pytest.mark.parametrize(("step", "when"), REMOVE_POINTS)
def test_a_removal_survives_a_crash_anywhere(running: Any, killing: Any, killed: Any, step: str, when: str) -> None:
    reply = running.ask(TWO + WITH_VOLUME)
    with killing(step, when, "remove_nodes"), pytest.raises(killed):
        running.remove(reply)
    running.restart()
    assert running.remove(reply) == {}
    assert running.vms() == running.recorded()
    assert len(running.vms()) == 1
    assert (running.disks(), running.clouds["iaas"].disks) == ([], {})


def test_a_node_that_the_cloud_keeps_stays_recorded_until_it_is_gone(running: Any) -> None:
    (node,) = running.ask([{"role": "web"}])
    running.clouds["iaas"].fail_destroy = {node["vmid"]}
    assert running.remove([node]) == {}
    assert [machine.state for machine in running.machines()] == ["running", "deleting"]
    running.clouds["iaas"].fail_destroy = set()
    running.life.sweeper.sweep()
    assert running.vms() == running.recorded()
    assert len(running.vms()) == 1


def test_a_stopped_application_gets_no_nodes(running: Any) -> None:
    running.life.stop(running.aid, "ann")
    with pytest.raises(errors.WrongState, match="current state is 'STOPPED'"):
        running.ask(TWO)


def test_a_request_that_a_stop_overtakes_is_undone(running: Any, killing: Any, killed: Any) -> None:
    with killing("wait", faults.BEFORE, "create_nodes"), pytest.raises(killed):
        running.ask(TWO)
    other = running.boot("two", pool=None)
    other.stop(running.aid, "ann")
    running.restart()
    (newest, *_rest) = other.history(running.aid, 10)
    assert other.finished(newest.id, 10.0) is not None
    assert (running.application().status, running.vms(), running.machines()) == ("STOPPED", set(), [])


# Volumes of applications


def volume_request(world: Any, kind: Any, key: str, **args: Any) -> Any:
    op_id = world.life.request(kind, world.aid, key, {"cloud": "iaas", **args}, "manager")
    return world.life.result(op_id, 5.0)


def new_volume(world: Any, key: str = "v1") -> str:
    made: str = volume_request(world, volumes.CREATE, key, size=100, name="data", vmid=None, service_id=1)["volume_id"]
    return made


def test_a_volume_lives_from_creation_to_destruction(running: Any) -> None:
    (node,) = running.ask([{"role": "web"}])
    vol_id = new_volume(running)
    assert new_volume(running) == vol_id
    volume_request(running, volumes.ATTACH, "v2", vol_id=vol_id, vmid=node["vmid"], device="sdc")
    (disk,) = running.disks()
    assert (disk.state, disk.vmid, disk.device) == ("attached", node["vmid"], "sdc")
    volume_request(running, volumes.DETACH, "v3", vol_id=vol_id)
    volume_request(running, volumes.DESTROY, "v4", vol_id=vol_id)
    assert (running.disks(), running.clouds["iaas"].disks) == ([], {})


@pytest.mark.parametrize(("step", "when"), [*itertools.product(("record", "create"), WHENS)])
def test_creating_a_volume_survives_a_crash_anywhere(running: Any, killing: Any, killed: Any, step: str, when: str) -> None:
    with killing(step, when, "create_volume"), pytest.raises(killed):
        new_volume(running)
    running.restart()
    assert list(running.clouds["iaas"].disks) == [new_volume(running)]
    assert len(running.disks()) == 1


def test_a_failed_attach_does_not_detach_from_elsewhere(running: Any) -> None:
    first, second = running.ask([{"role": "web"}] * 2)
    vol_id = new_volume(running)
    running.clouds["iaas"].attach_volume(vol_id, first["vmid"], "sdb")
    with pytest.raises(errors.OperationFailed, match="is attached to"):
        volume_request(running, volumes.ATTACH, "v2", vol_id=vol_id, vmid=second["vmid"], device="sdb")
    assert running.clouds["iaas"].disks[vol_id].vmid == first["vmid"]


def test_stopping_destroys_the_volumes_of_the_application(running: Any) -> None:
    new_volume(running)
    running.life.stop(running.aid, "ann")
    assert (running.application().status, running.disks(), running.clouds["iaas"].disks) == ("STOPPED", [], {})


def test_operations_of_one_kind_have_distinct_request_keys(running: Any) -> None:
    running.ask(TWO)
    keys = {applications.request_key(op) for op in running.life.history(running.aid, 10)}
    assert {machine.request_key for machine in running.machines()} <= keys
