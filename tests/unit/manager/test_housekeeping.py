"""Roles that services move between nodes, and what they do while nothing is asked of them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from conpaas import testing
from conpaas.core import errors, manager, node


class Housekeeper(manager.BaseManager):
    """Counts its housekeeping; refuses to lose its first node."""

    calls = 0
    broken = False

    def housekeeping(self) -> None:
        self.calls += 1
        if self.broken:
            raise errors.OperationFailed("no broom")

    def check_victims(self, nodes: list[node.ServiceNode]) -> None:
        if self.nodes[0] in nodes:
            raise errors.InvalidArgument("not the first one")


@pytest.fixture
def harness() -> Iterator[testing.Harness]:
    with testing.Harness(Housekeeper) as one:
        yield one


def calls(one: testing.Harness) -> int:
    found = one.manager
    assert isinstance(found, Housekeeper)
    return found.calls


def test_a_service_keeps_house_while_it_runs(harness: testing.Harness) -> None:
    harness.pass_time(10)
    assert calls(harness) == 0
    harness.start()
    harness.pass_time(10)
    assert 3 <= calls(harness) <= 6
    harness.stop()
    before = calls(harness)
    harness.pass_time(10)
    assert calls(harness) == before


def test_a_failure_is_tried_again(harness: testing.Harness) -> None:
    harness.start()
    harness.manager.broken = True  # type: ignore[attr-defined]
    harness.pass_time(10)
    assert calls(harness) > 1
    assert harness.state == "RUNNING"


def test_not_while_an_operation_is_under_way(harness: testing.Harness) -> None:
    harness.start()
    harness.call("add_nodes", 0, service_id=harness.service_id, nodes={"node": 1})
    harness.clock.now += 10
    harness.app.health.look()
    assert calls(harness) == 0
    harness.settle()
    harness.pass_time(5)
    assert calls(harness) > 0


def test_a_role_is_there_after_a_restart(harness: testing.Harness) -> None:
    harness.start()
    one = harness.nodes[0]
    for _ in range(2):
        harness.manager.set_role(one.id, "special")
    harness.manager.set_role("nobody", "special")
    assert harness.nodes[0].role == "special"
    harness.restart()
    assert harness.nodes[0].role == "special"
    (row,) = harness.app.store.db.rows("SELECT role, content FROM nodes")
    assert (row["role"], json.loads(row["content"])["role"]) == ("special", "special")


def test_a_service_may_refuse_to_lose_named_nodes(harness: testing.Harness) -> None:
    harness.start()
    harness.add_nodes({"node": 1})
    first, second = harness.nodes
    with pytest.raises(errors.RemoteError, match="not the first one"):
        harness.call("remove_nodes", 0, service_id=harness.service_id, nodeIds=[first.id])
    harness.request("remove_nodes", service_id=harness.service_id, nodeIds=[second.id])
    assert harness.nodes == [first]
