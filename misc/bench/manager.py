"""What a manager costs per node: adds, lists, watches and removes simulated nodes, with the real store on a real disk.

    python misc/bench/manager.py [--json] [--nodes 10,100,1000] [--directory DIR]

Agents and the Director are simulated in the same process; what making the agents costs is left out, so that the numbers show the
manager's own work. They are milliseconds of CPU per node, and stay about the same, or fall, when nothing is quadratic.
"""

from __future__ import annotations

import argparse
import json
import logging
import pathlib
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from conpaas import testing
from conpaas.core import expose, manager, node


class Agent:
    """Answers, and starts nothing."""

    def __init__(self, configuration: object) -> None:
        self.configuration = configuration

    @expose.expose("GET")
    def check_process(self) -> None:
        """Answer."""

    @expose.expose("POST")
    def startup(self) -> None:
        """Start nothing."""


class Manager(manager.BaseManager):
    """Tells every new node to start."""

    def on_start(self, nodes: list[node.ServiceNode]) -> None:
        self.agents.all(nodes, lambda one: self.agents.post(one, "startup"))

    def on_add_nodes(self, nodes: list[node.ServiceNode]) -> None:
        self.on_start(nodes)


class Simulation(testing.Harness):
    """Knows how much CPU time (milliseconds) went into the agents and their directories, which a manager does not have to make."""

    simulating = 0.0

    def _make_agent(self, *args: Any) -> object:
        made: list[object] = []
        self.simulating += milliseconds(lambda: made.append(super(Simulation, self)._make_agent(*args)))
        return made[0]


def milliseconds(act: Callable[[], object]) -> float:
    """CPU time, which what else the machine does hardly changes."""
    begun = time.process_time()
    act()
    return (time.process_time() - begun) * 1000


def measure(count: int, directory: pathlib.Path) -> dict[str, Any]:
    """The cost per node of `count` nodes added at once, looked at, and removed; and of one more node beside them."""
    with Simulation(Manager, Agent, directory=directory) as harness:
        harness.start()
        harness.call("list_nodes")
        before = harness.simulating
        added = milliseconds(lambda: harness.add_nodes({"node": count})) - (harness.simulating - before)
        repeats = max(1, 1000 // count)
        listed = milliseconds(lambda: [harness.call("list_nodes") for _ in range(repeats)]) / repeats
        information = milliseconds(lambda: [harness.call("get_app_info", 0) for _ in range(repeats)]) / repeats
        harness.clock.now += 60
        watched = milliseconds(lambda: (harness.app.health.look(), harness.settle()))
        one_more = milliseconds(lambda: harness.add_nodes({"node": 1}))
        restarted = milliseconds(harness.restart)
        removed = milliseconds(lambda: harness.remove_nodes({"node": count}))
        harness.check()
    per_node = {"add": added, "list_nodes": listed, "get_app_info": information, "watch": watched, "remove": removed}
    return {
        "nodes": count,
        **{f"{name}_ms_per_node": round(value / count, 4) for name, value in per_node.items()},
        "one_more_ms": round(one_more, 2),
        "restart_ms": round(restarted, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what a manager costs per node.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--nodes", default="10,100,1000", help="how many nodes, comma-separated (at most 1000 each)")
    parser.add_argument("--directory", type=pathlib.Path, help="where to put the store (default: a temporary directory)")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    rows = []
    for count in (int(text) for text in options.nodes.split(",")):
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            rows.append(measure(count, pathlib.Path(directory)))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if options.json:
        print(json.dumps({"rows": rows, "peak_memory_mb": memory}, indent=2))
        return 0
    names = list(rows[0])
    print("  ".join(f"{name:>24}" for name in names))
    for row in rows:
        print("  ".join(f"{row[name]:>24}" for name in names))
    print(f"peak memory, simulated agents included: {memory} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
