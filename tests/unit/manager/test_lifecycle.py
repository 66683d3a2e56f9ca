"""What a user can do with a service, what is refused, and with which words."""

from __future__ import annotations

from typing import Any

import pytest

from conpaas import testing
from conpaas.core import errors, node, operations
from conpaas.core.operations import OperationStatus, State


def refusal(harness: testing.Harness, method: str, **params: Any) -> str:
    with pytest.raises(errors.RemoteError) as caught:
        harness.call(method, 0, **params)
    return str(caught.value)


def ids(harness: testing.Harness) -> list[str]:
    return node.ids_of(harness.nodes)


def test_a_service_starts_on_its_first_nodes(harness: testing.Harness) -> None:
    reply = harness.call("start_service", 0, service_id=1, cloud="default")
    assert reply["state"] == "PROLOGUE"
    harness.settle()
    assert harness.state is State.RUNNING
    assert [harness.agent(one).started for one in harness.nodes] == [1]
    assert harness.history == [("INIT", ""), ("PROLOGUE", "Starting"), ("RUNNING", "")]
    harness.check()


def test_on_create_is_called_when_a_service_is_added(harness: testing.Harness) -> None:
    assert (harness.manager.data_dir / "born").read_text() == "yes"


def test_nodes_are_added_with_the_default_role_for_count(running: testing.Harness) -> None:
    assert running.call("add_nodes", 0, service_id=1, nodes={"count": 2, "node": 1}, cloud="default")["state"] == "ADAPTING"
    running.settle()
    assert [one.role for one in running.nodes] == ["node"] * 4
    assert running.call("list_nodes") == {"node": ids(running), "extra": []}


def test_the_newest_nodes_are_removed(running: testing.Harness) -> None:
    running.add_nodes({"node": 2})
    first, second, _newest = ids(running)
    running.remove_nodes({"node": 1})
    assert ids(running) == [first, second]
    running.check()


def test_named_nodes_are_removed(running: testing.Harness) -> None:
    running.add_nodes({"node": 2})
    first, second, third = ids(running)
    running.remove_nodes(node_ids=[first])
    assert ids(running) == [second, third]
    running.check()


def test_a_stopped_service_has_no_nodes_and_can_start_again(running: testing.Harness) -> None:
    assert running.call("stop_service", 0, service_id=1)["state"] == "EPILOGUE"
    running.settle()
    assert running.state is State.STOPPED
    assert running.director.machines == {}
    running.start()
    running.check()


def test_stopped_is_never_announced_before_the_machines_are_gone(running: testing.Harness) -> None:
    running.director.fail("remove_nodes")
    op = running.request("stop_service", service_id=1)
    assert op.status is OperationStatus.FAILED
    assert running.state is State.ERROR
    assert len(running.director.machines) == 1
    assert "recover_service" in running.history[-1][1]
    running.stop()
    running.check()


def test_a_removed_service_is_gone(running: testing.Harness) -> None:
    directory = running.manager.data_dir
    running.remove()
    assert running.call("get_app_info", 0)["states"] == {"0": "RUNNING"}
    assert not directory.exists()
    assert "must be one of []" in refusal(running, "start_service", service_id=1)
    running.check()


def test_a_removed_service_that_was_never_started_calls_nobody(harness: testing.Harness) -> None:
    harness.remove()
    assert harness.agents.calls == {}
    harness.check()


def test_service_ids_are_never_used_twice(harness: testing.Harness) -> None:
    harness.remove()
    assert harness.call("add_service", 0, service_type="service")["service_id"] == 2
    harness.restart()
    assert harness.call("add_service", 0, service_type="service")["service_id"] == 3


def test_adding_a_service_twice_with_one_key_adds_it_once(harness: testing.Harness) -> None:
    first = harness.call("add_service", 0, service_type="service", request="key")["service_id"]
    assert harness.call("add_service", 0, service_type="service", request="key")["service_id"] == first
    assert sorted(harness.call("get_app_info", 0)["states"]) == ["0", "1", "2"]


def test_wrong_states_are_refused_at_once(running: testing.Harness) -> None:
    text = "Wrong service state: was expecting one of ['INIT', 'STOPPED'] but current state is 'RUNNING'"
    assert refusal(running, "start_service", service_id=1, cloud="default") == text
    running.stop()
    assert "expecting one of ['RUNNING', 'ERROR'] but current state is 'STOPPED'" in refusal(running, "stop_service", service_id=1)
    assert "expecting one of ['RUNNING'] but" in refusal(running, "add_nodes", service_id=1, nodes={"node": 1}, cloud="default")
    assert running.agents.calls["shutdown"] == 1


def test_a_second_request_is_refused_while_the_first_is_under_way(running: testing.Harness) -> None:
    running.call("add_nodes", 0, service_id=1, nodes={"node": 1}, cloud="default")
    assert "current state is 'ADAPTING'" in refusal(running, "stop_service", service_id=1)
    assert "current state is 'ADAPTING'" in refusal(running, "remove_nodes", service_id=1, nodes={"node": 1})
    running.settle()
    running.check()


def test_different_services_work_in_parallel(running: testing.Harness) -> None:
    other = running.call("add_service", 0, service_type="service")["service_id"]
    running.call("add_nodes", 0, service_id=1, nodes={"node": 1}, cloud="default")
    running.call("start_service", 0, service_id=other, cloud="default")
    assert running.call("get_app_info", 0)["states"] == {"0": "RUNNING", "1": "ADAPTING", "2": "PROLOGUE"}
    running.settle()
    running.check()


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (0, "Parameter 'service_id': '0' must be one of [1]."),
        (7, "Parameter 'service_id': '7' must be one of [1]."),
        (True, "Parameter 'service_id': 'True' has type 'bool', should be integer."),
    ],
)
@pytest.mark.parametrize("method", ["start_service", "stop_service", "remove_service", "recover_service"])
def test_only_services_are_targets(harness: testing.Harness, method: str, target: Any, text: str) -> None:
    assert refusal(harness, method, service_id=target) == text


def test_a_numeric_string_is_a_service_id(harness: testing.Harness) -> None:
    harness.call("start_service", 0, service_id="1", cloud="default")
    harness.settle()
    assert harness.state is State.RUNNING


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        ({}, "Need a positive value for at least one role"),
        ({"node": 0}, "Need a positive value for at least one role"),
        ({"node": -1}, "Invalid number of nodes -1"),
        ({"what": 1}, "Wrong node type 'what' for service type 'service'."),
        ({"node": 1001}, "Invalid number of nodes 1001, at most 1000 can be asked for at once"),
    ],
)
def test_wrong_counts_are_refused(running: testing.Harness, nodes: dict[str, int], text: str) -> None:
    assert refusal(running, "add_nodes", service_id=1, nodes=nodes, cloud="default") == text
    assert running.state is State.RUNNING


def test_the_last_node_stays(running: testing.Harness) -> None:
    assert refusal(running, "remove_nodes", service_id=1, nodes={"node": 1}) == "Requesting to delete 1 nodes while none can be removed"
    running.add_nodes({"node": 2})
    assert refusal(running, "remove_nodes", service_id=1, nodes={"node": 3}) == "Requesting to delete 3 nodes while only 2 can be removed"
    assert (
        refusal(running, "remove_nodes", service_id=1, nodes={"extra": 1}) == "Requesting to delete 1 extra nodes while none can be removed"
    )


def test_unknown_service_types_are_refused(harness: testing.Harness) -> None:
    assert refusal(harness, "add_service", service_type="what") == "Parameter 'service_type': 'what' must be one of ['service']."


def test_stopall_stops_what_runs(running: testing.Harness) -> None:
    running.call("add_service", 0, service_type="service")
    assert list(running.call("stopall", 0)["operations"]) == ["1"]
    running.settle()
    assert running.call("get_app_info", 0)["states"] == {"0": "RUNNING", "1": "STOPPED", "2": "INIT"}


def test_operations_tell_how_far_they_are(running: testing.Harness) -> None:
    begun = running.call("add_nodes", 0, service_id=1, nodes={"node": 1}, cloud="default")["operation"]
    told = running.call("get_operation", 0, operationId=begun)["operation"]
    assert (told["status"], [step["status"] for step in told["steps"]]) == ("RUNNING", ["PENDING"] * 4)
    running.settle()
    told = running.call("get_operation", 0, operationId=begun)["operation"]
    assert (told["status"], told["requester"], told["service_id"]) == ("DONE", "user 1", 1)
    assert [(step["name"], step["status"]) for step in told["steps"]] == [(name, "DONE") for name in ("request", "record", "disks", "join")]
    assert [note["text"] for note in told["notes"]] == ["Asking for 1 node (1 node)", "Got iaasi-0002"]
    assert [op["kind"] for op in running.call("list_operations")["operations"]] == ["add_nodes", "start_service"]
    assert [op["kind"] for op in running.call("list_operations", 0)["operations"]] == ["add_nodes", "start_service", "add_service"]


def test_an_operation_of_another_service_is_not_shown(running: testing.Harness) -> None:
    other = running.call("add_service", 0, service_type="service")["service_id"]
    op = running.operations()[0]
    with pytest.raises(errors.RemoteError, match="There is no operation"):
        running.call("get_operation", other, operationId=op.id)


def test_a_service_can_have_operations_of_its_own(running: testing.Harness) -> None:
    running.call("set_word", word="moin")
    assert running.state is State.ADAPTING
    running.settle()
    assert (running.state, running.agent(running.nodes[0]).word) == (State.RUNNING, "moin")
    running.add_nodes({"node": 1})
    assert running.agent(running.nodes[1]).word == "moin"


def test_an_operation_without_final_state_goes_back_to_the_state_before(harness: testing.Harness) -> None:
    harness.call("set_word", word="moin")
    harness.settle()
    assert (harness.state, harness.manager.word) == (State.INIT, "moin")


def test_an_operation_of_the_service_that_fails_is_undone(running: testing.Harness) -> None:
    running.add_nodes({"node": 1})
    running.agent(running.nodes[1]).refuse.add("listen")
    running.call("set_word", word="moin")
    running.settle()
    op = running.operations()[0]
    assert op.status is OperationStatus.FAILED
    assert "the agent refuses to listen" in (op.error or "")
    running.agent(running.nodes[1]).refuse.clear()
    running.recover()
    assert running.state is State.RUNNING
    running.check()


def test_node_info_and_logs(running: testing.Harness) -> None:
    one = running.nodes[0]
    told = running.call("get_node_info", serviceNodeId=one.id)["serviceNode"]
    assert told == {
        "id": "iaasi-0001",
        "ip": "10.0.0.1",
        "vmid": "i-0001",
        "cloud": "iaas",
        "role": "node",
        "logs": [{"filename": "cpsagent.log", "description": "agent log", "path": "/var/log/cpsagent.log"}],
    }
    assert running.call("get_agent_log", agentId=one.id) == {"log": "None None None"}
    assert running.call("get_agent_log", 0, agentId=one.id, filename="cpsagent.log", offset=3, limit=9) == {"log": "cpsagent.log 3 9"}
    with pytest.raises(errors.RemoteError, match=r"'x' must be one of \['cpsagent\.log'\]"):
        running.call("get_agent_log", agentId=one.id, filename="x")
    with pytest.raises(errors.RemoteError, match="Failed to read log"):
        running.call("get_manager_log", 0)


def test_list_nodes_is_empty_unless_running(harness: testing.Harness) -> None:
    assert harness.call("list_nodes") == {}
    assert harness.call("get_service_info") == {"state": "INIT", "type": "service"}


def test_startup_scripts(harness: testing.Harness, tmp_path: Any) -> None:
    with pytest.raises(errors.RemoteError, match="No startup script"):
        harness.call("get_startup_script", 0, sid=1)
    script = tmp_path / "s.sh"
    script.write_text("echo $$ 'ü'\n")
    assert harness.call("upload_startup_script", 0, script=script, sid="1") == {"filename": "s.sh"}
    harness.restart()
    assert harness.call("get_startup_script", 0, sid=1) == harness.call("get_startup_script", 0, sid="1") == "echo $$ 'ü'\n"
    for sid in ("../..", "7"):
        with pytest.raises(errors.RemoteError, match="Parameter 'sid'"):
            harness.call("upload_startup_script", 0, script=script, sid=sid)
    script.write_bytes(b"#" * 70_000)
    with pytest.raises(errors.RemoteError, match="at most 65536"):
        harness.call("upload_startup_script", 0, script=script, sid=1)


def test_pushed_code_is_offered_to_every_service(harness: testing.Harness) -> None:
    assert harness.call("git_push_hook", 0) == "code version: git-0123abc"


def test_what_a_restart_keeps(running: testing.Harness) -> None:
    running.add_nodes({"node": 1, "extra": 1})
    running.create_volume("data", 10, running.nodes[0])
    before = (running.call("get_app_info", 0), running.history, running.nodes, running.call("list_volumes", 0))
    running.restart()
    assert (running.call("get_app_info", 0), running.history, running.nodes, running.call("list_volumes", 0)) == before
    running.add_nodes({"node": 1})
    running.check()


def test_a_service_whose_type_is_gone_shows_why_and_can_be_removed(running: testing.Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise errors.NotFound("The class is gone.")

    monkeypatch.setattr(type(running.type), "load_manager", lambda self: broken())
    running.restart()
    assert running.state is State.ERROR
    assert "The class is gone" in running.call("get_service_info")["reason"]
    assert running.call("check_process", 0) == {}
    running.remove()
    running.check()


def test_a_service_type_that_comes_back_is_running_again(running: testing.Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(type(running.type), "load_manager", lambda self: 1 / 0)
        running.restart()
        assert running.state is State.ERROR
    running.restart()
    assert running.state is State.RUNNING


def test_unknown_kinds_of_operation_are_left_for_later(running: testing.Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    running.call("set_word", word="moin")
    with monkeypatch.context() as patch:
        patch.setattr(type(running.type), "load_manager", lambda self: 1 / 0)
        running.restart()
        assert len(running.app.store.operations.unfinished()) == 1
    running.restart()
    assert running.manager.word == "moin"
    assert running.operations()[0].status is operations.OperationStatus.DONE
    running.check()
