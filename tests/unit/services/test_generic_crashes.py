"""The manager of a generic service killed at every step of every kind of operation."""

from __future__ import annotations

from typing import Any

import pytest

from conpaas.testing import crashes, harness

pytestmark = pytest.mark.usefixtures("stage")


def running(made: harness.Harness) -> None:
    made.start()
    disk = made.directory / "nodes" / made.nodes[0].id / "dev"
    (disk / "content").mkdir(parents=True)
    (disk / "sdb").symlink_to(disk / "content")


def grown(made: harness.Harness) -> None:
    running(made)
    made.add_nodes({"node": 1})


def with_volume(made: harness.Harness) -> None:
    running(made)
    made.create_volume("data", 100, made.nodes[0])


def lose_the_master(made: harness.Harness) -> None:
    made.kill_node(made.nodes[0])
    made.pass_time(20)


def enable(made: harness.Harness) -> None:
    made.call("enable_code", codeVersionId="code-default")
    made.settle()


def execute(made: harness.Harness) -> None:
    made.call("execute_script", command="run")
    made.settle()


def moving(made: harness.Harness) -> None:
    grown(made)
    made.migrate_nodes({made.nodes[0].id: "two"}, delay=5)


ACTIONS = {
    "move all": (lambda made: made.migrate_nodes({one.id: "two" for one in made.nodes}), grown),
    "move the master": (moving, None),
    "the master leaves": (lambda made: made.pass_time(8), moving),
    "start": (lambda made: made.start(), None),
    "add_nodes": (lambda made: made.add_nodes({"node": 1}), running),
    "remove_nodes": (lambda made: made.remove_nodes({"node": 1}), grown),
    "enable_code": (enable, grown),
    "execute_script": (execute, grown),
    "create_volume": (lambda made: made.create_volume("data", 100, made.nodes[0]), running),
    "delete_volume": (lambda made: made.delete_volume("data"), with_volume),
    "stop": (lambda made: made.stop(), grown),
    "remove": (lambda made: made.remove(), grown),
}


def agrees_with_itself(made: harness.Harness) -> None:
    """All nodes know the same members and have the same code, the one that is called current."""
    if made.app.find_manager(made.service_id) is None or made.state != "RUNNING":
        return
    known = {made.agent(one)._members.path.read_text() for one in made.nodes}
    assert len(known) == 1
    assert all(one.id in next(iter(known)) for one in made.nodes)
    (current,) = [version for version in made.call("list_code_versions")["codeVersions"] if "current" in version]
    assert {made.agent(one)._notes.get("code_version") for one in made.nodes} == {current["codeVersionId"]}
    for run in made.call("list_runs", limit=100)["runs"]:
        assert run["state"] == "STOPPED", run


@pytest.mark.parametrize("name", ACTIONS)
def test_a_crash_at_any_step_leaves_nothing_half_done(name: str) -> None:
    act, prepare = ACTIONS[name]
    checks: list[Any] = []

    def check(made: harness.Harness) -> None:
        checks.append(made)
        agrees_with_itself(made)

    assert crashes.crash_everywhere(lambda: harness.Harness("generic"), act, prepare, check) == len(checks) > 0


def test_a_crash_while_a_lost_master_is_replaced() -> None:
    def whole(made: harness.Harness) -> None:
        made.pass_time(20)
        agrees_with_itself(made)
        assert sorted(one.role for one in made.nodes) == ["master", "node"]

    points = crashes.points_of(lambda: harness.Harness("generic"), lose_the_master, grown)
    for point in points:
        crashes.run(crashes.Case(point), lambda: harness.Harness("generic"), lose_the_master, grown, whole)
