"""A Director, agents and hooks that fail: nothing leaks, the service is back in its last stable state, and the history says why."""

from __future__ import annotations

import pytest

from conpaas import testing
from conpaas.core import devices, errors, lifecycle, manager, node, volumes
from conpaas.core.operations import OperationStatus, State


def assert_undone(harness: testing.Harness, state: State, reason: str) -> None:
    assert harness.operations()[0].status is OperationStatus.UNDONE
    assert harness.state is state
    assert harness.history[-1][0] == state
    assert reason in harness.history[-1][1]
    harness.check()


def test_a_start_that_the_director_refuses_ends_where_it_began(harness: testing.Harness) -> None:
    harness.director.fail("create_nodes")
    harness.request("start_service", service_id=1, cloud="default")
    assert_undone(harness, State.INIT, "start_service failed: create_nodes failed by order of a test")
    harness.start()


def test_two_of_five_nodes_that_do_not_come_up_are_a_failure_of_all(running: testing.Harness) -> None:
    running.director.fail_nodes(2)
    running.request("add_nodes", service_id=1, nodes={"node": 5})
    assert_undone(running, State.RUNNING, "2 of 5 nodes did not come up")
    assert len(running.nodes) == 1


def test_fewer_nodes_than_asked_for_are_given_back(running: testing.Harness) -> None:
    running.director.give_fewer(2)
    running.request("add_nodes", service_id=1, nodes={"node": 5})
    assert_undone(running, State.RUNNING, "The Director gave 3 of 5 nodes asked for.")


def test_no_nodes_at_all_are_a_failure(harness: testing.Harness) -> None:
    harness.director.give_fewer(1)
    harness.request("start_service", service_id=1, cloud="default")
    assert_undone(harness, State.INIT, "gave 0 of 1 nodes")


def test_an_answer_that_gets_lost_does_not_leak_nodes(running: testing.Harness) -> None:
    running.director.lose_answers("create_nodes")
    running.request("add_nodes", service_id=1, nodes={"node": 2})
    assert_undone(running, State.RUNNING, "connection reset")


def test_a_director_that_stays_away_leaves_an_error_from_which_recovery_leads_back(running: testing.Harness) -> None:
    running.director.lose_answers("create_nodes", times=100)
    op = running.request("add_nodes", service_id=1, nodes={"node": 2})
    assert (op.status, running.state) == (OperationStatus.FAILED, State.ERROR)
    assert len(running.director.machines) == 3
    running.director.no_more_trouble()
    running.recover()
    assert (running.state, len(running.nodes)) == (State.RUNNING, 1)
    running.check()


def test_nodes_of_a_start_that_fails_on_the_agents_are_given_back(harness: testing.Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness.manager, "on_start", lambda nodes: False)
    harness.request("start_service", service_id=1, cloud="default")
    assert_undone(harness, State.INIT, "The step 'start' of start_service failed.")
    assert harness.director.created == 1


def test_an_unexpected_failure_of_a_hook_is_undone_too(running: testing.Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    away: list[list[str]] = []

    def undo(nodes: list[object]) -> None:
        away.append([*node.ids_of(nodes), *node.ids_of(running.nodes)])  # type: ignore[arg-type]

    monkeypatch.setattr(running.manager, "on_add_nodes", lambda nodes: 1 / 0)
    monkeypatch.setattr(running.manager, "on_undo_add_nodes", undo)
    running.request("add_nodes", service_id=1, nodes={"node": 1})
    assert_undone(running, State.RUNNING, "ZeroDivisionError: division by zero")
    assert away == [["iaasi-0002", "iaasi-0001"]], "the nodes that go away are no longer among the service's nodes"


def test_removed_nodes_stay_when_the_hook_fails(running: testing.Harness) -> None:
    running.add_nodes({"node": 1})
    running.agent(running.nodes[1]).refuse.add("stop")
    running.request("remove_nodes", service_id=1, nodes={"node": 1})
    assert_undone(running, State.RUNNING, "1 of 1 nodes failed: iaasi-0002: the agent refuses to stop")
    assert len(running.nodes) == 2


def test_a_stop_that_fails_can_be_forced(running: testing.Harness) -> None:
    running.agent(running.nodes[0]).refuse.add("stop")
    running.request("stop_service", service_id=1)
    assert_undone(running, State.RUNNING, "refuses to stop")
    running.stop(force=True)
    assert running.state is State.STOPPED
    running.check()


def test_without_credit_nothing_begins(running: testing.Harness) -> None:
    running.director.credits = 0
    with pytest.raises(errors.RemoteError, match=r"^Insufficient credits$"):
        running.call("add_nodes", 0, service_id=1, nodes={"node": 1})
    assert running.state is State.RUNNING


def test_credit_that_runs_out_on_the_way_is_undone(running: testing.Harness) -> None:
    running.director.credits = 1
    running.request("add_nodes", service_id=1, nodes={"node": 2})
    assert_undone(running, State.RUNNING, "add_nodes failed: Insufficient credits")


def test_a_director_that_is_down_is_named_at_once(harness: testing.Harness) -> None:
    harness.director.down(1)
    with pytest.raises(errors.RemoteError, match="connection refused"):
        harness.call("start_service", 0, service_id=1, cloud="default")
    assert harness.state is State.INIT


def test_recovery_forgets_dead_nodes_and_gives_back_unknown_ones(running: testing.Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    running.add_nodes({"node": 2})
    running.director.fail("remove_nodes", times=4)
    running.request("remove_nodes", service_id=1, nodes={"node": 1})
    assert running.state is State.ERROR
    running.director.no_more_trouble()
    running.director.vanish(running.nodes[0])
    running.kill_node(running.nodes[1])
    running.recover()
    assert (running.state, node.ids_of(running.nodes)) == (State.RUNNING, ["iaasi-0003"])
    running.check()


def test_recovery_without_usable_nodes_stops(running: testing.Harness) -> None:
    running.director.fail("remove_nodes")
    running.request("stop_service", service_id=1)
    running.kill_node(running.nodes[0])
    running.recover()
    assert running.state is State.STOPPED
    running.check()


# Volumes


def test_volumes_are_made_and_deleted(running: testing.Harness) -> None:
    one = running.nodes[0]
    assert running.call("create_volume", 0, volumeName="data_1-x", volumeSize="10", agentId=one.id)["service_id"] == 1
    running.settle()
    (disk,) = running.director.disks.values()
    assert (disk.name, disk.size, disk.vmid, disk.device) == ("vol-data_1-x", 10, one.vmid, "sdb")
    assert running.agent(one).mounted == {"data_1-x"}
    assert running.call("list_volumes", 0, service_id=1) == {
        "volumes": [
            {
                "vol_name": "data_1-x",
                "vol_size": 10,
                "vol_id": disk.vol_id,
                "vm_id": one.id,
                "dev_name": "sdb",
                "cloud": "iaas",
                "kept": False,
                "service_id": 1,
                "service_name": "service",
            }
        ]
    }
    running.delete_volume("data_1-x")
    assert running.agent(one).mounted == set()
    running.check()


@pytest.mark.parametrize("step", [step.name for step in volumes.CREATE.steps])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_volume_that_cannot_be_made_leaves_nothing(running: testing.Harness, step: str, when: str) -> None:
    running.fail_at("create_volume", step, when)
    running.request("create_volume", volumeName="v", volumeSize=10, agentId=running.nodes[0].id)
    assert_undone(running, State.RUNNING, "failed by order of a test")
    assert running.director.disks == {}
    assert running.agent(running.nodes[0]).mounted == set()


@pytest.mark.parametrize("method", ["create_volume", "attach_volume"])
def test_a_volume_that_the_director_refuses_leaves_nothing(running: testing.Harness, method: str) -> None:
    running.director.fail(method)
    running.request("create_volume", volumeName="v", volumeSize=10, agentId=running.nodes[0].id)
    assert_undone(running, State.RUNNING, f"{method} failed")
    running.director.lose_answers(method)
    running.request("create_volume", volumeName="v", volumeSize=10, agentId=running.nodes[0].id)
    assert_undone(running, State.RUNNING, "connection reset")
    assert running.director.disks == {}


def test_a_volume_in_use_is_not_pulled_out(running: testing.Harness) -> None:
    running.create_volume("v", 10, running.nodes[0])
    running.agent(running.nodes[0]).refuse.add("unmount")
    running.request("delete_volume", volumeName="v")
    assert_undone(running, State.RUNNING, "refuses to unmount")
    assert [disk.vmid for disk in running.director.disks.values()] == [running.nodes[0].vmid]
    running.agent(running.nodes[0]).refuse.clear()
    running.delete_volume("v")
    running.check()


def test_a_deletion_that_failed_half_way_can_be_repeated(running: testing.Harness) -> None:
    running.create_volume("v", 10, running.nodes[0])
    running.director.fail("destroy_volume")
    running.request("delete_volume", volumeName="v")
    assert_undone(running, State.RUNNING, "destroy_volume failed")
    running.delete_volume("v")
    assert running.director.disks == {}
    running.check()


def test_volume_names_are_unique_in_the_application(running: testing.Harness) -> None:
    running.create_volume("v", 10, running.nodes[0])
    other = running.call("add_service", 0, service_type="service")["service_id"]
    running.call("start_service", 0, service_id=other)
    running.settle()
    second = running.app.managers()[1].nodes[0]
    with pytest.raises(errors.RemoteError, match="Parameter 'volumeName': 'v' must not be one of \\['v'\\]"):
        running.call("create_volume", 0, volumeName="v", volumeSize=10, agentId=second.id)
    running.call("create_volume", 0, volumeName="w", volumeSize=10, agentId=running.nodes[0].id)
    running.call("create_volume", 0, volumeName="w", volumeSize=10, agentId=second.id)
    running.settle()
    assert [op.status for op in running.app.store.operations.recent(2)] == [OperationStatus.UNDONE, OperationStatus.DONE]
    running.check()


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a^b", "v\n", "x" * 65])
def test_volume_names_are_checked(running: testing.Harness, name: str) -> None:
    with pytest.raises(errors.RemoteError, match="Volume name contains invalid characters"):
        running.call("create_volume", 0, volumeName=name, volumeSize=10, agentId=running.nodes[0].id)


def test_volume_arguments_are_checked(running: testing.Harness) -> None:
    agent_id = running.nodes[0].id
    for size, text in (
        (0, "0 is not more than 0"),
        (True, "should be integer"),
        (10**9, "is more than"),
        (2000, "too large for this service"),
    ):
        with pytest.raises(errors.RemoteError, match=text):
            running.call("create_volume", 0, volumeName="v", volumeSize=size, agentId=agent_id)
    with pytest.raises(errors.RemoteError, match="Parameter 'agentId': 'x' must be one of"):
        running.call("create_volume", 0, volumeName="v", volumeSize=10, agentId="x")
    with pytest.raises(errors.RemoteError, match="Parameter 'volumeName': 'v' must be one of \\[\\]"):
        running.call("delete_volume", 0, volumeName="v")


def test_devices_of_volumes_made_with_nodes_are_seen(running: testing.Harness) -> None:
    running.add_nodes({"extra": 1})
    extra = running.nodes[1]
    assert extra.volumes[0].dev_name == "sdb"
    running.create_volume("v", 10, extra)
    assert running.manager.volumes[0].dev_name == "sdc"
    listed = running.call("list_volumes", 0)["volumes"]
    assert [(volume["vol_name"], volume["vm_id"]) for volume in listed] == [("disk-i-0002", extra.id), ("v", extra.id)]


def test_devices_end_at_z() -> None:
    assert devices.free("sdb", ["sdb", "/dev/sdc", None]) == "sdd"
    with pytest.raises(errors.InvalidArgument, match="All devices of the node from sdy to sdz are in use"):
        devices.free("sdy", ["sdy", "sdz"])


def test_volumes_of_removed_nodes_are_forgotten(running: testing.Harness) -> None:
    running.add_nodes({"node": 1})
    running.create_volume("v", 10, running.nodes[1])
    running.remove_nodes({"node": 1})
    assert running.call("list_volumes", 0) == {"volumes": []}
    running.check()


def test_services_without_volumes_say_so(running: testing.Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(running.manager), "check_create_volume", manager.BaseManager.check_create_volume)
    with pytest.raises(errors.RemoteError, match="create_volume method not currently supported for this service"):
        running.call("create_volume", 0, volumeName="v", volumeSize=10, agentId=running.nodes[0].id)


# Lost nodes


def test_a_node_that_no_longer_answers_is_replaced(running: testing.Harness) -> None:
    running.add_nodes({"node": 1})
    lost, kept = running.nodes
    running.create_volume("v", 10, lost)
    running.kill_node(lost)
    running.pass_time(6)
    assert running.nodes == [lost, kept]
    running.pass_time(6)
    assert node.ids_of(running.nodes) == [kept.id, "iaasi-0004"]
    assert running.history[-1] == ("RUNNING", f"{lost.id} was lost: it does not answer; replaced by iaasi-0004")
    assert running.manager.settings["lost"] == [lost.id]
    assert running.call("list_volumes", 0) == {"volumes": []}
    running.check()


def test_an_agent_that_answers_again_in_time_stays(running: testing.Harness) -> None:
    running.kill_node(running.nodes[0])
    running.pass_time(6)
    running.revive_node(running.nodes[0])
    running.pass_time(30)
    assert node.ids_of(running.nodes) == ["iaasi-0001"]


def test_an_agent_that_answers_with_an_error_is_alive(running: testing.Harness) -> None:
    running.agent(running.nodes[0]).refuse.add("answer")
    running.pass_time(30)
    assert node.ids_of(running.nodes) == ["iaasi-0001"]


def test_a_machine_that_is_gone_is_replaced_at_once(running: testing.Harness) -> None:
    running.add_nodes({"node": 1})
    running.director.vanish(running.nodes[0])
    running.pass_time(3)
    assert node.ids_of(running.nodes) == ["iaasi-0002", "iaasi-0003"]
    assert "its VM is gone" in running.history[-1][1]
    running.check()


def test_a_reported_node_is_replaced_at_once(running: testing.Harness) -> None:
    one = running.nodes[0]
    assert running.call("node_lost", 0, nodeId="x") == {"known": False}
    assert running.call("node_lost", 0, nodeId=one.id, reason="its host burns") == {"known": True}
    running.pass_time(1)
    assert running.history[-1][1] == f"{one.id} was lost: its host burns; replaced by iaasi-0002"
    running.check()


def test_all_nodes_lost_at_once_are_replaced_together(running: testing.Harness) -> None:
    running.add_nodes({"node": 2})
    for one in running.nodes:
        running.kill_node(one)
    running.pass_time(60)
    assert node.ids_of(running.nodes) == ["iaasi-0004", "iaasi-0005", "iaasi-0006"]
    assert [op.kind for op in running.operations()].count("replace_node") == 1
    running.check()


def test_a_manager_that_hears_the_director_but_no_node_waits_longer(running: testing.Harness) -> None:
    """More likely than that all died at once: they work for their clients, and only the way from here to them is broken."""
    running.add_nodes({"node": 2})
    before = running.nodes
    for one in before:
        running.kill_node(one)
    running.pass_time(30)
    for one in before:
        running.revive_node(one)
        running.pass_time(3)  # nobody is lost just because another one was heard first
    running.pass_time(60)
    assert running.nodes == before


def test_without_credit_the_service_goes_on_with_fewer_nodes_and_asks_again_later(running: testing.Harness) -> None:
    running.add_nodes({"node": 1})
    running.director.credits = 0
    lost = running.nodes[0]
    running.kill_node(lost)
    running.director.fail("create_nodes", errors.InsufficientCredits(), times=2)
    running.pass_time(12)
    assert (running.state, node.ids_of(running.nodes)) == (State.RUNNING, ["iaasi-0002"])
    assert running.history[-1] == ("RUNNING", "replace_node failed: Insufficient credits")
    running.pass_time(20)
    assert running.director.calls["create_nodes"] == 3, "not asked again during the pause"
    running.restart()
    running.pass_time(200)
    assert node.ids_of(running.nodes) == ["iaasi-0002", "iaasi-0003"]
    running.check()


def test_a_loss_during_an_operation_is_dealt_with_afterwards(running: testing.Harness) -> None:
    running.add_nodes({"node": 1})
    running.kill_node(running.nodes[0])
    running.pass_time(5)
    running.call("add_nodes", 0, service_id=1, nodes={"node": 1})
    running.clock.now += 10
    running.app.health.look()
    assert "replace_node" not in [op.kind for op in running.operations()]
    running.settle()
    running.pass_time(3)
    assert node.ids_of(running.nodes) == ["iaasi-0002", "iaasi-0003", "iaasi-0004"]
    running.check()


def test_the_service_decides_whether_a_node_is_replaced(running: testing.Harness) -> None:
    running.add_nodes({"extra": 1})
    running.kill_node(running.nodes[1])
    running.pass_time(12)
    assert node.ids_of(running.nodes) == ["iaasi-0001"]
    assert running.history[-1][1] == "iaasi-0002 was lost: it does not answer"
    running.check()


def test_a_manager_that_is_cut_off_itself_gives_nobody_up(running: testing.Harness) -> None:
    running.add_nodes({"node": 1})
    for one in running.nodes:
        running.kill_node(one)
    running.director.down(10_000)
    running.pass_time(60)
    assert "replace_node" not in [op.kind for op in running.operations()]
    running.director.no_more_trouble()
    for one in running.nodes:
        running.revive_node(one)
    running.pass_time(20)
    assert node.ids_of(running.nodes) == ["iaasi-0001", "iaasi-0002"]


def test_a_director_that_is_down_does_not_keep_a_lost_node_in_service(running: testing.Harness) -> None:
    running.add_nodes({"node": 1})
    lost = running.nodes[0]
    running.kill_node(lost)
    running.director.down(10_000)
    running.pass_time(12)
    assert node.ids_of(running.nodes) == ["iaasi-0002"]
    assert running.manager.settings["lost"] == [lost.id]
    running.director.no_more_trouble()
    running.pass_time(700)
    assert node.ids_of(running.nodes) == ["iaasi-0002", "iaasi-0003"]
    running.check()


def test_stopped_services_are_not_watched(running: testing.Harness) -> None:
    running.stop()
    calls = running.agents.calls["check_process"]
    running.pass_time(10)
    assert running.agents.calls["check_process"] == calls


def test_a_removed_service_with_a_missing_node_leaves_nothing(running: testing.Harness) -> None:
    running.director.fail("create_nodes", errors.InsufficientCredits(), times=99)
    running.kill_node(running.nodes[0])
    running.pass_time(12)
    assert running.nodes == []
    assert running.state is State.RUNNING
    running.stop()
    running.check()
    assert lifecycle.REPLACE.name in [op.kind for op in running.operations()]
