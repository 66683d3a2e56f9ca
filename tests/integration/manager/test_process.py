"""The manager as a process: over real TLS, killed for real."""

from __future__ import annotations

import contextlib
import pathlib
import signal
from typing import Any

import pytest

from conpaas.core import errors, lifecycle

MEMORY_LIMIT_MB = 60


def started(world: Any) -> None:
    world.start()
    assert world.call("add_service", service_type="helloworld")["service_id"] == 1
    assert world.call("start_service", service_id=1, cloud="default")["state"] in ("PROLOGUE", "RUNNING")
    world.await_state("RUNNING")


def test_a_service_runs_grows_shrinks_and_stops(world: Any) -> None:
    started(world)
    world.await_end(world.call("add_nodes", service_id=1, nodes={"node": 2}, cloud="default")["operation"])
    lines = world.get("get_helloworld", 1)["helloworld"].splitlines()
    assert lines == [f"Received hello from i-000{number} from iaasi-000{number}" for number in (1, 2, 3)]
    world.await_end(world.call("remove_nodes", service_id=1, nodes={"node": 1})["operation"])
    assert world.get("get_app_info")["nodes"] == ["iaasi-0001", "iaasi-0002"]
    world.call("stop_service", service_id=1)
    world.await_state("STOPPED")
    assert world.director.machines == {}


def test_memory_stays_small(world: Any) -> None:
    started(world)
    world.await_end(world.call("add_nodes", service_id=1, nodes={"node": 5}, cloud="default")["operation"])
    world.get("get_helloworld", 1)
    assert world.process is not None
    status = pathlib.Path(f"/proc/{world.process.pid}/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    assert resident < MEMORY_LIMIT_MB * 1024


@pytest.mark.parametrize("step", [step.name for step in lifecycle.ADD.steps])
@pytest.mark.parametrize("when", ["before", "after", "recorded"])
def test_a_manager_killed_while_adding_nodes_goes_on(world: Any, step: str, when: str) -> None:
    started(world)
    world.faults.write_text(f"manager add_nodes {step} {when}\n")
    with contextlib.suppress(errors.Unreachable):
        world.call("add_nodes", service_id=1, nodes={"node": 2}, cloud="default")
    world.await_death()
    world.start()
    begun = world.get("list_operations", 1, limit=1)["operations"][0]
    assert begun["kind"] == "add_nodes"
    assert world.await_end(begun["operationId"])["status"] == "DONE"
    assert world.get("get_app_info")["nodes"] == ["iaasi-0001", "iaasi-0002", "iaasi-0003"]
    assert sorted(world.director.machines) == ["iaasi-0001", "iaasi-0002", "iaasi-0003"]


def test_a_manager_killed_at_rest_finds_its_agents_again(world: Any) -> None:
    started(world)
    assert world.process is not None
    world.process.send_signal(signal.SIGKILL)
    world.await_death()
    world.start()
    assert world.state() == "RUNNING"
    assert world.get("get_helloworld", 1)["helloworld"] == "Received hello from i-0001 from iaasi-0001"
    assert len(world.director.machines) == 1


def test_a_manager_killed_at_rest_still_knows_what_charts_showed(world: Any) -> None:
    started(world)
    before = world.until(lambda: world.get("get_figures", 1, method="get_machines")["rows"], "the first minute is measured")
    assert world.process is not None
    world.process.send_signal(signal.SIGKILL)
    world.await_death()
    world.start()
    assert world.get("get_figures", 1, method="get_machines")["rows"][: len(before)] == before


def test_an_agent_that_dies_is_replaced(world: Any) -> None:
    started(world)
    world.await_end(world.call("add_nodes", service_id=1, nodes={"node": 1}, cloud="default")["operation"])
    world.stop_agent("iaasi-0001")
    world.until(lambda: world.get("get_app_info")["nodes"] == ["iaasi-0002", "iaasi-0003"], "the dead node is replaced")
    world.await_state("RUNNING")
    reason = world.get("get_service_history", 1)["state_log"][-1]["reason"]
    assert reason == "iaasi-0001 was lost: it does not answer; replaced by iaasi-0003"
    assert sorted(world.director.machines) == ["iaasi-0002", "iaasi-0003"]


def test_a_manager_told_to_end_in_the_middle_goes_on_later(world: Any) -> None:
    started(world)
    world.director.down(10_000)
    world.director._trouble[-1].method = "create_nodes"
    begun = world.call("add_nodes", service_id=1, nodes={"node": 1}, cloud="default")["operation"]
    world.until(lambda: world.director.calls["create_nodes"] > 1, "the Director is asked")
    assert world.process is not None
    world.process.terminate()
    assert world.process.wait(60) == 0
    world.director.no_more_trouble()
    world.start()
    assert world.await_end(begun)["status"] == "UNDONE"
    assert world.state() == "RUNNING"
    assert sorted(world.director.machines) == ["iaasi-0001"]
