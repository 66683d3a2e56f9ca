"""Nodes that move to another cloud: who comes, who leaves and when, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from conpaas import testing
from conpaas.core import errors, migration

from .conftest import make


def plan(harness: testing.Harness, *numbers: int, to: str = "two") -> list[dict[str, str]]:
    nodes = [harness.nodes[number] for number in numbers]
    return [{"from_cloud": one.cloud_name, "vmid": one.vmid, "to_cloud": to} for one in nodes]


def ids(harness: testing.Harness) -> list[str]:
    return [one.id for one in harness.nodes]


def clouds(harness: testing.Harness) -> list[str]:
    return [one.cloud_name for one in harness.nodes]


def grown(harness: testing.Harness) -> testing.Harness:
    harness.add_nodes({"node": 1, "extra": 1})
    return harness


class TestAtOnce:
    def test_a_node_moves_with_its_role(self, running: testing.Harness) -> None:
        grown(running)
        first, second, extra = running.nodes
        op = running.migrate_nodes({extra.id: "two"})
        assert ids(running)[:2] == [first.id, second.id]
        assert [(one.role, one.cloud_name) for one in running.nodes][2:] == [("extra", "two")]
        assert running.history[-1] == ("RUNNING", f"{extra.id} moved: {running.nodes[-1].id} has its place")
        assert op.requester
        assert running.agent(running.nodes[-1]).started
        running.check()

    def test_all_nodes_move_at_once_each_to_its_cloud(self, running: testing.Harness) -> None:
        grown(running)
        first, second, extra = ids(running)
        running.migrate_nodes({extra: "two", first: "three", second: "two"})
        assert sorted((one.role, one.cloud_name) for one in running.nodes) == [("extra", "two"), ("node", "three"), ("node", "two")]
        running.check()

    def test_a_node_may_move_within_its_cloud(self, running: testing.Harness) -> None:
        (former,) = ids(running)
        reply = running.call("migrate_nodes", migration_plan=plan(running, 0, to="default"))
        running.settle()
        assert running.operation(reply["operation"]).status == "DONE"
        assert ids(running) != [former]
        assert clouds(running) == ["iaas"]
        running.check()

    def test_the_application_manager_answers_the_same_call(self, running: testing.Harness) -> None:
        reply = running.call("migrate_nodes", 0, service_id=running.service_id, nodes=plan(running, 0))
        assert reply["state"] == "ADAPTING"
        running.settle()
        assert clouds(running) == ["two"]
        with pytest.raises(errors.RemoteError, match="service_id"):
            running.call("migrate_nodes", 0, service_id=0, nodes=plan(running, 0))

    def test_a_node_is_named_by_its_id_as_well(self, running: testing.Harness) -> None:
        running.call("migrate_nodes", nodes=[{"from_cloud": "default", "vmid": ids(running)[0], "to_cloud": "two"}])
        running.settle()
        assert clouds(running) == ["two"]


class TestUndone:
    @pytest.mark.parametrize("delay", [0, 60])
    def test_new_nodes_that_do_not_start_are_given_back(self, running: testing.Harness, delay: int) -> None:
        before = ids(running)
        running.director.fail_nodes(1)
        with pytest.raises(errors.OperationFailed, match="did not come up"):
            running.migrate_nodes({before[0]: "two"}, delay)
        assert ids(running) == before
        assert running.state == "RUNNING"
        assert "did not come up" in running.history[-1][1]
        running.check()

    @pytest.mark.parametrize("step", ["record", "join", "linger", "leave"])
    def test_a_step_that_fails_leaves_the_service_as_it_was(self, running: testing.Harness, step: str) -> None:
        before = ids(running)
        running.fail_at("migrate_nodes", step, "after")
        with pytest.raises(errors.OperationFailed, match=f"'{step}' failed"):
            running.migrate_nodes({before[0]: "two"}, 60 if step == "linger" else 0)
        assert ids(running) == before
        assert running.agent(before[0]).started
        assert running.manager.departures == []
        assert f"'{step}' failed" in running.history[-1][1]
        running.check()

    def test_a_node_that_went_meanwhile_is_not_replaced(self, running: testing.Harness) -> None:
        grown(running)
        given = plan(running, 1)
        running.fail_at("migrate_nodes", "request", "before")
        running.call("migrate_nodes", nodes=given)
        running.app.store.nodes.remove(running.service_id, [running.nodes[1].id])
        running.settle()
        assert running.operations()[0].status == "UNDONE"


class TestDelay:
    def test_both_serve_until_the_time_has_come(self, running: testing.Harness) -> None:
        (former,) = ids(running)
        running.migrate_nodes({former: "two"}, 60)
        assert running.state == "RUNNING"
        assert clouds(running) == ["iaas", "two"]
        assert running.call("get_node_info", serviceNodeId=former)["serviceNode"]["leavesAt"] == running.clock.now + 60
        assert "leavesAt" not in running.call("get_node_info", serviceNodeId=ids(running)[1])["serviceNode"]
        running.pass_time(59)
        assert clouds(running) == ["iaas", "two"]
        running.pass_time(3)
        assert clouds(running) == ["two"]
        assert running.operations()[0].kind == "retire_nodes"
        assert running.history[-1] == ("RUNNING", f"{former} left, having moved")
        running.check()

    def test_a_restarted_manager_waits_only_for_the_rest(self, running: testing.Harness) -> None:
        running.migrate_nodes({ids(running)[0]: "two"}, 60)
        running.pass_time(50)
        running.restart()
        running.pass_time(5)
        assert clouds(running) == ["iaas", "two"]
        running.pass_time(8)
        assert clouds(running) == ["two"]

    def test_a_repeated_step_does_not_start_the_delay_again(self, running: testing.Harness) -> None:
        former = ids(running)[0]
        running.crash_at("migrate_nodes", "linger", "after")
        with testing.expect_crash():
            running.migrate_nodes({former: "two"}, 60)
        due = running.clock.now + 60
        running.clock.now += 30
        running.restart()
        assert [one.at for one in running.manager.departures] == [due]

    def test_the_service_can_be_stopped_meanwhile(self, running: testing.Harness) -> None:
        running.migrate_nodes({ids(running)[0]: "two"}, 60)
        running.stop()
        running.check()
        running.start()
        running.pass_time(70)
        assert len(running.nodes) == 1

    def test_a_former_node_that_is_lost_is_not_replaced(self, running: testing.Harness) -> None:
        former = ids(running)[0]
        running.migrate_nodes({former: "two"}, 60)
        running.kill_node(former)
        running.pass_time(20)
        assert clouds(running) == ["two"]
        running.pass_time(60)
        assert len(running.nodes) == 1
        running.check()

    def test_a_new_node_that_is_lost_is_replaced_before_the_former_one_leaves(self, running: testing.Harness) -> None:
        former = ids(running)[0]
        running.migrate_nodes({former: "two"}, 30)
        running.kill_node(ids(running)[1])
        running.director.credits = -5
        running.pass_time(60)
        assert ids(running) == [former]
        running.director.credits = 100
        running.pass_time(700)
        assert clouds(running) == ["two"]
        running.check()

    def test_nobody_leaves_while_another_node_keeps_silent(self, running: testing.Harness) -> None:
        former = ids(running)[0]
        running.migrate_nodes({former: "two"}, 5)
        running.kill_node(ids(running)[1])
        running.pass_time(7)
        assert former in ids(running)
        running.revive_node(ids(running)[1])
        running.pass_time(5)
        assert clouds(running) == ["two"]

    def test_a_former_node_stays_when_its_successor_is_given_up(self, running: testing.Harness) -> None:
        grown(running)
        extra = ids(running)[-1]
        running.migrate_nodes({extra: "two"}, 30)
        running.kill_node(ids(running)[-1])  # the service does not want lost nodes of this role replaced
        running.pass_time(60)
        assert ids(running)[-1] == extra
        assert running.manager.departures == []
        running.check()

    def test_a_departure_that_failed_is_tried_again_later(self, running: testing.Harness) -> None:
        former = ids(running)[0]
        running.migrate_nodes({former: "two"}, 5)
        running.agent(former).refuse.add("stop")
        running.pass_time(10)
        assert clouds(running) == ["iaas", "two"]
        assert "retire_nodes failed" in running.history[-1][1]
        assert [op.kind for op in running.operations()].count("retire_nodes") == 1
        running.agent(former).refuse.clear()
        running.pass_time(40)
        assert clouds(running) == ["two"]
        running.check()

    def test_two_moves_asked_for_at_once_are_not_mixed_up(self, running: testing.Harness) -> None:
        former = ids(running)[0]
        running.migrate_nodes({former: "two"}, 60)
        moves = {"moves": [{"node_id": former, "cloud": "three"}], "delay": 0}
        op = running.app.engine.submit(migration.MIGRATE, running.service_id, moves)
        running.settle()
        assert running.operation(op.id).status == "UNDONE"
        assert clouds(running) == ["iaas", "two"]
        running.check()

    def test_removing_the_former_nodes_lets_them_go_now(self, running: testing.Harness) -> None:
        former = ids(running)[0]
        running.migrate_nodes({former: "two"}, 60)
        with pytest.raises(errors.RemoteError, match=f"about to leave: {former}"):
            running.remove_nodes({"node": 1})
        with pytest.raises(errors.RemoteError, match=f"about to leave: {former}"):
            running.call("migrate_nodes", nodes=plan(running, 1))
        running.remove_nodes(node_ids=[former])
        assert clouds(running) == ["two"]
        running.check()

    def test_an_older_store_has_no_departures(self, running: testing.Harness) -> None:
        assert running.app.store.nodes.departures() == {}
        assert running.manager.departures == []


REFUSED: dict[str, tuple[Any, str]] = {
    "nothing": ([], "^ERROR: argument is missing the nodes to migrate\\.$"),
    "no cloud": (
        [{"from_cloud": "", "vmid": "i-0001", "to_cloud": "x"}],
        '^Missing cloud name in parameter "nodes": from_cloud="" to_cloud="x"$',
    ),
    "no target": ([{"from_cloud": "iaas", "vmid": "i-0001"}], 'from_cloud="iaas" to_cloud=""$'),
    "unknown node": (
        [{"from_cloud": "iaas", "vmid": "9", "to_cloud": "x"}],
        "^Node 9 in cloud iaas is not a valid node of this service. It should be one of iaas:i-0001$",
    ),
    "a number": ([{"from_cloud": "iaas", "vmid": 9, "to_cloud": "x"}], "^Node 9 in cloud iaas is not"),
    "unknown cloud": ([{"from_cloud": "two", "vmid": "i-0001", "to_cloud": "x"}], "^Node i-0001 in cloud two is not"),
    "twice": ([{"from_cloud": cloud, "vmid": "i-0001", "to_cloud": "x"} for cloud in ("iaas", "default")], "names node iaasi-0001 twice"),
    "a list": ([{"from_cloud": "iaas", "vmid": [1], "to_cloud": "x"}], "vmid in parameter .nodes. should be a short text"),
    "a surplus field": ([{"from_cloud": "iaas", "vmid": "1", "to_cloud": "x", "why": ""}], "Unknown field why"),
    "too long": ([{"from_cloud": "iaas", "vmid": "1" * 300, "to_cloud": "x"}], "should be a short text"),
}


class TestRefused:
    @pytest.mark.parametrize("name", REFUSED)
    def test_a_plan_that_makes_no_sense(self, running: testing.Harness, name: str) -> None:
        given, text = REFUSED[name]
        with pytest.raises(errors.RemoteError, match=text):
            running.call("migrate_nodes", nodes=given)
        assert running.state == "RUNNING"

    def test_a_service_that_does_not_run(self, harness: testing.Harness) -> None:
        with pytest.raises(errors.RemoteError, match="Wrong service state"):
            harness.call("migrate_nodes", nodes=[{"from_cloud": "iaas", "vmid": "1", "to_cloud": "x"}])

    def test_a_delay_longer_than_a_day(self, running: testing.Harness) -> None:
        for delay in (-1, migration.LONGEST_DELAY + 1):
            with pytest.raises(errors.RemoteError, match="delay"):
                running.call("migrate_nodes", nodes=plan(running, 0), delay=delay)

    def test_no_credit(self, running: testing.Harness) -> None:
        running.director.credits = 0
        with pytest.raises(errors.RemoteError, match="Insufficient credits"):
            running.call("migrate_nodes", nodes=plan(running, 0))

    def test_a_node_with_a_volume(self, running: testing.Harness) -> None:
        running.create_volume("data", 10, running.nodes[0])
        with pytest.raises(errors.RemoteError, match=r"on its volume 'data' would be lost"):
            running.call("migrate_nodes", nodes=plan(running, 0))

    def test_the_watch_never_begins_two_things_at_once(self) -> None:
        with make() as harness:
            harness.start()
            harness.migrate_nodes({harness.nodes[0].id: "two"}, 5)
            harness.call("add_nodes", 0, service_id=harness.service_id, nodes={"node": 1})
            harness.clock.now += 10
            harness.app.health.look()
            harness.settle()
            harness.pass_time(5)
            assert sorted(clouds(harness)) == ["iaas", "two"]
            harness.check()
