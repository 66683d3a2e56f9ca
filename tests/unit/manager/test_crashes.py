"""A manager killed at any instant of anything it does, and started again."""

from __future__ import annotations

import pytest

from conpaas import testing
from conpaas.core import faults, lifecycle, migration, volumes

from .conftest import SERVICES, make

KINDS = {kind.name: kind for kind in (*lifecycle.KINDS, *migration.KINDS, *volumes.KINDS, SERVICES.SET)}


def start(harness: testing.Harness) -> None:
    harness.start()


def grown(harness: testing.Harness) -> None:
    harness.start()
    harness.add_nodes({"node": 2, "extra": 1})


def with_volume(harness: testing.Harness) -> None:
    grown(harness)
    harness.create_volume("data", 10, harness.nodes[0])


def broken(harness: testing.Harness) -> None:
    with_volume(harness)
    harness.agent(harness.nodes[0]).refuse |= {"listen"}
    harness.call("set_word", word="x")
    harness.settle()
    harness.agent(harness.nodes[0]).refuse.clear()
    harness.kill_node(harness.nodes[1])


def with_dead_node(harness: testing.Harness) -> None:
    with_volume(harness)
    harness.kill_node(harness.nodes[0])


def move_later(harness: testing.Harness) -> None:
    harness.migrate_nodes({one.id: "two" for one in harness.nodes[:2]}, delay=5)


def moving(harness: testing.Harness) -> None:
    grown(harness)
    move_later(harness)


def move(harness: testing.Harness) -> None:
    harness.migrate_nodes({harness.nodes[0].id: "two", harness.nodes[-1].id: "three"})


def set_word(harness: testing.Harness) -> None:
    harness.call("set_word", word="moin")
    harness.settle()


SCENARIOS = {
    "add_service": (None, lambda harness: harness.call("add_service", 0, service_type="service")),
    "start_service": (None, start),
    "stop_service": (with_volume, lambda harness: harness.stop()),
    "add_nodes": (start, lambda harness: harness.add_nodes({"node": 2, "extra": 1})),
    "remove_nodes": (with_volume, lambda harness: harness.remove_nodes({"node": 1})),
    "migrate_nodes": (grown, move),
    "retire_nodes": (moving, lambda harness: harness.pass_time(7)),
    "replace_node": (with_dead_node, lambda harness: harness.pass_time(12)),
    "recover_service": (broken, lambda harness: harness.recover()),
    "remove_service": (with_volume, lambda harness: harness.remove()),
    "create_volume": (grown, lambda harness: harness.create_volume("data", 10, harness.nodes[-1])),
    "delete_volume": (with_volume, lambda harness: harness.delete_volume("data")),
    "set_word": (grown, set_word),
}


def test_every_kind_of_operation_has_a_scenario() -> None:
    assert set(SCENARIOS) == set(KINDS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_crash_anywhere_leaves_no_trace(name: str) -> None:
    prepare, act = SCENARIOS[name]
    number = testing.crash_everywhere(make, act, prepare)
    assert number >= 3 * len(KINDS[name].steps)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_scenario_passes_every_step(name: str) -> None:
    prepare, act = SCENARIOS[name]
    passed = testing.points_of(make, act, prepare)
    expected = [(name, step.name, when) for step in KINDS[name].steps for when in (faults.BEFORE, faults.AFTER, faults.RECORDED)]
    assert passed == expected


def test_a_crash_anywhere_in_a_move_with_a_delay_leaves_the_former_nodes_or_the_new_ones() -> None:
    def check(harness: testing.Harness) -> None:
        if harness.state == "ERROR":
            harness.recover()
        harness.pass_time(60)
        assert sorted(one.role for one in harness.nodes) == ["extra", "node", "node", "node"]
        on_two = [one.cloud_name for one in harness.nodes].count("two")
        assert on_two == (2 if harness.operations()[0].kind == "retire_nodes" else 0)
        harness.check()

    assert testing.crash_everywhere(make, move_later, grown, check) > 3 * len(migration.MIGRATE.steps)
    assert testing.crash_everywhere(make, lambda harness: harness.pass_time(7), moving, check) > 3 * len(migration.RETIRE.steps)


def test_nodes_are_not_asked_for_twice() -> None:
    with make() as harness:
        harness.crash_at("start_service", "request", "after")
        with testing.expect_crash():
            harness.start()
        harness.restart()
        assert harness.director.created == 1
        harness.check()


def test_a_second_crash_while_coming_back_is_survived_too() -> None:
    with make() as harness:
        harness.start()
        harness.fail_at("add_nodes", "join", "after")
        harness.crash_at("add_nodes", "join", "undo")
        with testing.expect_crash():
            harness.add_nodes({"node": 2})
        harness.crash_at("add_nodes", "request", "undo-after")
        with testing.expect_crash():
            harness.restart()
        harness.restart()
        assert len(harness.nodes) == 1
        assert "'join' failed by order of a test" in harness.history[-1][1]
        harness.check()


def test_agents_do_not_notice_a_crash_while_nothing_is_under_way() -> None:
    with make() as harness:
        grown(harness)
        before = dict(harness.agents.calls)
        harness.restart()
        assert dict(harness.agents.calls) == before
        harness.check()
