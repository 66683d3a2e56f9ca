"""Drive a service manager in memory: state in, state out.

from conpaas import testing

def test_grows():
    with testing.Harness("helloworld") as harness:
        harness.start()
        harness.add_nodes({"node": 2})
        assert len(harness.nodes) == 3

def test_survives_any_crash():
    testing.crash_everywhere(
        lambda: testing.Harness("helloworld"),
        act=lambda harness: harness.add_nodes({"node": 2}),
        prepare=lambda harness: harness.start(),
    )
"""

from __future__ import annotations

from conpaas.testing.crashes import Case, cases, crash_everywhere, points_of, run
from conpaas.testing.harness import Harness, SimulatedCrash, expect_crash
from conpaas.testing.pages import page_problems
from conpaas.testing.simulation import SimulatedAgents, SimulatedDirector

__all__ = [
    "Case",
    "Harness",
    "SimulatedAgents",
    "SimulatedCrash",
    "SimulatedDirector",
    "cases",
    "crash_everywhere",
    "expect_crash",
    "page_problems",
    "points_of",
    "run",
]
