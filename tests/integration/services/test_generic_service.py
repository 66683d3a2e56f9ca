"""The generic service with real scripts on several nodes, driven as a user does."""

from __future__ import annotations

import io
import pathlib
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conpaas.core import misc, node
from conpaas.testing import harness

ASK_AND_WAIT = "pid=$(cat pid); kill -USR1 $pid; while kill -0 $pid 2>/dev/null; do sleep 0.02; done"


@pytest.fixture
def generic() -> Iterator[harness.Harness]:
    with harness.Harness("generic") as made:
        yield made
        if made.state == "RUNNING":
            made.stop()


@pytest.fixture
def upload(generic: harness.Harness, tmp_path: pathlib.Path) -> Callable[..., str]:
    def upload(**files: str) -> str:
        path = tmp_path / "app.tar"
        with tarfile.open(path, "w") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content.encode()))
        return str(generic.call("upload_code_version", code=path)["codeVersionId"])

    return upload


def enable(made: harness.Harness, version: str) -> str | None:
    """Enable a version and return the error of the operation."""
    begun = made.call("enable_code", codeVersionId=version)
    made.settle()
    return made.operation(begun["operation"]).error if begun else None


def execute(made: harness.Harness, command: str, **more: Any) -> str:
    run = made.call("execute_script", command=command, **more)["run_id"]
    made.settle()
    return str(run)


def ended(made: harness.Harness, run: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = made.call("get_run", run=run)["run"]
        return found if found["state"] == "STOPPED" else None

    return misc.wait_until(look, timeout=30, what=f"the end of {run}")


def statuses(made: harness.Harness, one: node.ServiceNode) -> dict[str, str]:
    found: dict[str, str] = made.call("get_script_status")["agents"][one.id]
    return found


def test_the_default_version_writes_down_what_it_was_given(generic: harness.Harness) -> None:
    generic.start()
    generic.add_nodes({"count": 1})
    master, other = generic.nodes
    run = ended(generic, execute(generic, "run", parameters="one 'two three'"))
    assert (run["success"], run["exit_code"]) == (True, 0)
    text = generic.call("get_script_output", agentId=other.id, script="run.sh")["output"]
    for line in (
        "Executing script run.sh",
        "Parameters (2): one two three",
        f"My IP is {other.ip}",
        "My role is node",
        f"My master IP is {master.ip}",
    ):
        assert line in text.splitlines()
    log = generic.call("get_agent_log", agentId=other.id, filename="agent.out")["log"]
    assert "Executing script init.sh" in log and text in log


def test_a_failing_init_is_told_with_its_last_words_and_undone(generic: harness.Harness, upload: Callable[..., str]) -> None:
    good = upload(**{"init.sh": "exit 0", "run.sh": "echo good"})
    bad = upload(**{"init.sh": "echo trying; echo 'no database here' >&2; exit 7"})
    enable(generic, good)
    generic.start()
    generic.add_nodes({"node": 1})
    error = enable(generic, bad)
    assert error is not None and f"init.sh of code version {bad} ended with code 7: no database here" in error
    assert generic.state == "RUNNING"
    run = ended(generic, execute(generic, "run"))
    assert run["success"]
    assert generic.call("get_script_output", agentId=generic.nodes[1].id, run=run["run_id"])["output"] == "good\n"


def test_an_init_that_hangs_is_ended_by_its_time_limit(generic: harness.Harness, upload: Callable[..., str]) -> None:
    generic.call("set_time_limits", limits={"init.sh": 1})
    generic.start()
    error = enable(generic, upload(**{"init.sh": "echo waiting for ever; sleep 600"}))
    assert error is not None and "was killed by SIGTERM (time limit of 1 s): waiting for ever" in error


def test_an_interrupt_ends_daemons_on_all_nodes(generic: harness.Harness, upload: Callable[..., str]) -> None:
    enable(generic, upload(**{"run.sh": "(setsid sleep 600 >/dev/null 2>&1 &); exit 0", "interrupt.sh": "echo bye"}))
    generic.start()
    generic.add_nodes({"node": 2})
    run = execute(generic, "run")
    misc.wait_until(
        lambda: all(part["daemons"] for part in generic.call("get_run", run=run)["run"]["nodes"].values()), timeout=30, what="daemons"
    )
    interrupt = execute(generic, "interrupt")
    assert ended(generic, interrupt)["success"]
    assert {part["ended_by"] for part in ended(generic, run)["nodes"].values()} == {"interrupt"}
    for one in generic.nodes:
        assert statuses(generic, one)["run.sh"] == "STOPPED (return code 0)"


def test_a_run_is_not_lost_with_its_manager(generic: harness.Harness, upload: Callable[..., str]) -> None:
    enable(generic, upload(**{"run.sh": "while [ ! -e go ]; do sleep 0.05; done; exit 3"}))
    generic.start()
    run = execute(generic, "run")
    generic.kill()
    generic.restart()
    (generic.directory / "nodes" / generic.nodes[0].id / "var/cache/cpsagent/bin/go").touch()
    assert ended(generic, run)["exit_code"] == 3


def test_scripts_of_a_service_that_stops_can_end_in_order(generic: harness.Harness, upload: Callable[..., str]) -> None:
    enable(
        generic,
        upload(**{"run.sh": "trap 'exit 0' USR1; echo $$ > pid; while :; do sleep 0.05; done", "interrupt.sh": ASK_AND_WAIT}),
    )
    generic.start()
    run = execute(generic, "run")
    pid = generic.directory / "nodes" / generic.nodes[0].id / "var/cache/cpsagent/bin/pid"
    misc.wait_until(lambda: pid.exists() and pid.read_text().strip(), timeout=30, what="the script's first act")
    generic.stop()
    (part,) = generic.call("get_run", run=run)["run"]["nodes"].values()
    assert (part["state"], part["exit_code"]) == ("STOPPED", 0)


def test_a_run_waits_for_the_notification_of_new_nodes(generic: harness.Harness, upload: Callable[..., str]) -> None:
    enable(generic, upload(**{"notify.sh": "sleep 0.5", "run.sh": "echo after"}))
    generic.start()
    generic.add_nodes({"node": 1})
    assert statuses(generic, generic.nodes[0])["notify.sh"] == "RUNNING"
    assert ended(generic, execute(generic, "run"))["success"]
