"""Trouble at every single call to an agent, one after the other: the manager is killed, the call fails, the node dies.

The steps of operations are where crashes are tested first (`test_web_crashes`); between two calls of one step there are more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conpaas.core import errors
from conpaas.services.webservers.manager import placement
from conpaas.testing import harness

from .fake_agent import FakeAgent, WebHarness
from .test_web_crashes import agrees_with_itself, enable, grown, running, with_code

ACTIONS: dict[str, tuple[Callable[[Any], object], Callable[[Any], object]]] = {
    "first backend": (lambda made: made.add_nodes({"backend": 1}), running),
    "one of each": (lambda made: made.add_nodes({"web": 1, "backend": 1, "proxy": 1}), running),
    "remove all but one": (lambda made: made.remove_nodes({"proxy": 1, "web": 1, "backend": 2}), grown),
    "enable": (enable, with_code),
}

Trouble = Callable[[WebHarness, FakeAgent], None]


def crash(made: WebHarness, _agent: FakeAgent) -> None:
    made.kill()
    raise harness.SimulatedCrash


def refuse(_made: WebHarness, agent: FakeAgent) -> None:
    raise errors.OperationFailed(f"{agent.my_ip} fails by order of a test")


def die(made: WebHarness, agent: FakeAgent) -> None:
    made.kill_node(next(key for key, one in made.director.machines.items() if one.node.ip == agent.my_ip))
    raise errors.OperationFailed("nobody hears this")


def strike(made: WebHarness, number: int, trouble: Trouble) -> Callable[[], bool]:
    """Let trouble strike at the call with this number; tells whether it did."""
    left = [number]

    def before(agent: FakeAgent, _method: str) -> None:
        left[0] -= 1
        if left[0] == -1:
            trouble(made, agent)

    made.world.before = before
    return lambda: left[0] < 0


def run(name: str, number: int, trouble: Trouble) -> bool:
    """The action with trouble at one of its calls; whether there are so many calls."""
    act, prepare = ACTIONS[name]
    with WebHarness() as made:
        prepare(made)
        made.rest(5)
        before = sorted(placement.base_of(one.role) for one in made.nodes)
        struck = strike(made, number, trouble)
        try:
            act(made)
        except harness.SimulatedCrash:
            made.restart()
        except errors.OperationFailed:
            made.settle()
        made.world.before = lambda _agent, _method: None
        if not struck():
            return False
        assert made.state == "RUNNING", f"call {number}: {made.history[-2:]}"
        made.pass_time(40)
        agrees_with_itself(made)
        made.check()
        if made.operations()[-1].status == "UNDONE":
            assert sorted(placement.base_of(one.role) for one in made.nodes) == before
        return True


@pytest.mark.parametrize("trouble", [crash, refuse, die])
@pytest.mark.parametrize("name", ACTIONS)
def test_trouble_at_any_call(name: str, trouble: Trouble) -> None:
    number = 0
    while run(name, number, trouble):
        number += 1
    assert number > 5
