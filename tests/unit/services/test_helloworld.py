"""The helloworld service: the classic shapes, partial answers, and a text that can be changed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from conpaas.core import errors
from conpaas.services.helloworld.manager import manager
from conpaas.testing import crashes, harness


@pytest.fixture
def helloworld(monkeypatch: pytest.MonkeyPatch) -> Iterator[harness.Harness]:
    monkeypatch.setattr(manager, "PATIENCE", 0.0)
    with harness.Harness("helloworld") as made:
        yield made


def test_the_classic_shapes(helloworld: harness.Harness) -> None:
    assert helloworld.call("get_service_info") == {"state": "INIT", "type": "helloworld"}
    assert helloworld.call("list_nodes") == {}
    helloworld.start()
    helloworld.add_nodes({"node": 1})
    ids = [one.id for one in helloworld.nodes]
    assert helloworld.call("list_nodes") == {"helloworld": ids}
    reply = helloworld.call("get_helloworld")
    assert reply["helloworld"] == f"Received helloworld from {ids[0]}\nReceived helloworld from {ids[1]}"
    assert reply["replies"] == [{"node": one, "message": "helloworld", "error": None} for one in ids]
    info = helloworld.call("get_node_info", serviceNodeId=ids[0])["serviceNode"]
    assert (info["id"], info["role"], [entry["filename"] for entry in info["logs"]]) == (ids[0], "node", ["cpsagent.log"])


def test_it_says_hello_only_when_running(helloworld: harness.Harness) -> None:
    with pytest.raises(errors.RemoteError, match=r"Wrong service state: was expecting one of \['RUNNING'\] but current state is 'INIT'"):
        helloworld.call("get_helloworld")


def test_a_dead_agent_gives_its_error_and_the_others_their_text(helloworld: harness.Harness) -> None:
    helloworld.start()
    helloworld.add_nodes({"count": 1})
    dead, living = helloworld.nodes
    helloworld.kill_node(dead)
    reply = helloworld.call("get_helloworld")
    assert reply["helloworld"] == f"Received helloworld from {living.id}"
    assert "does not answer" in reply["replies"][0]["error"]


def test_the_text_of_a_stopped_service_is_for_nodes_to_come(helloworld: harness.Harness) -> None:
    text = '50% $HOME `id` "quoted" ünï'
    assert helloworld.call("set_string", string=text) == {}
    assert helloworld.call("get_string") == {"string": text}
    helloworld.start()
    assert helloworld.call("get_helloworld")["replies"][0]["message"] == text


def test_the_text_of_a_running_service_changes_on_all_nodes_and_for_those_to_come(helloworld: harness.Harness) -> None:
    helloworld.start()
    helloworld.call("set_string", string="moin")
    helloworld.settle()
    helloworld.add_nodes({"node": 1})
    assert [reply["message"] for reply in helloworld.call("get_helloworld")["replies"]] == ["moin", "moin"]
    helloworld.stop()
    helloworld.start()
    assert helloworld.call("get_helloworld")["replies"][0]["message"] == "moin"


def test_the_text_stays_if_one_node_cannot_be_told(helloworld: harness.Harness) -> None:
    helloworld.start()
    helloworld.add_nodes({"node": 1})
    helloworld.kill_node(helloworld.nodes[1])
    helloworld.call("set_string", string="moin")
    helloworld.settle()
    helloworld.revive_node(helloworld.nodes[1])
    assert helloworld.call("get_string") == {"string": "helloworld"}


@pytest.mark.parametrize("text", ["", "   ", "two\nlines", "nul\0", "x" * 1001])
def test_texts_that_would_break_a_configuration_are_refused(helloworld: harness.Harness, text: str) -> None:
    with pytest.raises(errors.RemoteError, match="Parameter 'string'"):
        helloworld.call("set_string", string=text)


def set_string(made: harness.Harness) -> None:
    made.call("set_string", string="moin")
    made.settle()


ACTIONS = {
    "start": (lambda made: made.start(), None),
    "stop": (lambda made: made.stop(), lambda made: made.start()),
    "add_nodes": (lambda made: made.add_nodes({"node": 2}), lambda made: made.start()),
    "remove_nodes": (lambda made: made.remove_nodes({"node": 1}), lambda made: (made.start(), made.add_nodes({"node": 1}))),
    "set_string": (set_string, lambda made: made.start()),
    "remove": (lambda made: made.remove(), lambda made: made.start()),
}


def says_one_thing(made: harness.Harness) -> None:
    if made.app.find_manager(made.service_id) is not None and made.state == "RUNNING":
        wanted = made.call("get_string")["string"]
        assert {reply["message"] for reply in made.call("get_helloworld")["replies"]} == {wanted}


@pytest.mark.parametrize("name", ACTIONS)
def test_a_crash_at_any_step_leaves_nothing_half_done(name: str) -> None:
    act, prepare = ACTIONS[name]
    assert crashes.crash_everywhere(lambda: harness.Harness("helloworld"), act, prepare, says_one_thing) > 5
