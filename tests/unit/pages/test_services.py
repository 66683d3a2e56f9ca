"""What all services show: read with few questions, and told to whoever follows it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from conpaas.client import api, replies
from conpaas.core import errors
from conpaas.core.pages import Page, Role, Value
from conpaas.frontend import declared, rendering, services

DECLARATION = declared.read({"name": "toy", "page": Page(roles=(Role("node", "Nodes"),), node=(Value("port", "Port"),)).to_dict()}, 3)
SERVICE = replies.Service(3, "shop", "toy", 7)


def operation(key: str = "a", status: str = "DONE", error: str = "") -> dict[str, Any]:
    steps = [{"name": "stage", "status": "DONE"}, {"name": "switch", "status": "DONE" if status == "DONE" else "PENDING"}]
    return {
        "operationId": key,
        "kind": "configure",
        "service_id": 3,
        "status": status,
        "error": error,
        "started": 1.0,
        "finished": None,
        "steps": steps,
    }


class Manager(api.Manager):
    """Answers what it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.application = replies.Application(7, "garden", "RUNNING", "10.0.0.1", 443, None, "")
        self.asked: list[str] = []
        self.state = "RUNNING"
        self.nodes = {"node": ["n1", "n2"]}
        self.operations = [operation()]
        self.failing: dict[str, errors.ConPaaSError] = {}

    def get(self, method: str, service_id: int = 0, params: Any = None) -> Any:
        self.asked.append(method)
        if method in self.failing:
            raise self.failing[method]
        answers: dict[str, Any] = {
            "get_app_info": {"states": {"0": "RUNNING", "3": self.state}, "nodes": [one for ids in self.nodes.values() for one in ids]},
            "list_operations": {"operations": self.operations[: (params or {}).get("limit", 1)]},
            "get_service_history": {"state_log": [{"time": 5.0, "state": self.state, "reason": "because"}]},
            "list_nodes": self.nodes,
            "get_node_info": {
                "serviceNode": {"id": "x", "ip": "10.0.0.2", "role": "node", "cloud": "iaas", "port": 80, "logs": [{"filename": "a.log"}]}
            },
        }
        return answers[method]


def test_a_service_is_read_once_and_then_asked_two_small_questions_while_nothing_happens() -> None:
    manager = Manager()
    seen = services.read(manager, 3, DECLARATION)
    assert [(one.id, one.roles, one.ip, one.cloud, one.more[0].value, one.logs) for one in seen.nodes] == [
        (key, ("node",), "10.0.0.2", "default", "80", (("a.log", ""),)) for key in ("n1", "n2")
    ]
    assert (seen.state, seen.reason, seen.since, seen.count("node")) == ("RUNNING", "because", 5.0, 2)
    manager.asked.clear()
    assert services.read(manager, 3, DECLARATION, seen) == seen
    assert manager.asked == ["get_app_info", "list_operations"]


def test_progress_shows_without_reading_everything_again() -> None:
    manager = Manager()
    manager.state, manager.operations = "ADAPTING", [operation("b", "RUNNING"), operation()]
    seen = services.read(manager, 3, DECLARATION)
    assert seen.current is not None
    assert (seen.current.done_steps, seen.current.step) == (1, "switch")
    manager.asked.clear()
    manager.operations[0]["notes"] = [{"time": 1.0, "text": "half of it"}]
    again = services.read(manager, 3, DECLARATION, seen)
    assert manager.asked == ["get_app_info", "list_operations"]
    assert again.current is not None
    assert (again.current.note, len(again.operations)) == ("half of it", 2)
    assert again.pulse == seen.pulse


@pytest.mark.parametrize("change", ["state", "nodes", "operation"])
def test_what_happens_is_noticed(change: str) -> None:
    manager = Manager()
    seen = services.read(manager, 3, DECLARATION)
    if change == "state":
        manager.state = "ERROR"
    elif change == "nodes":
        manager.nodes = {"node": ["n1"]}
    else:
        manager.operations = [operation("b", "FAILED", "no bulbs left"), *manager.operations]
    again = services.read(manager, 3, DECLARATION, seen)
    assert again.pulse != seen.pulse
    assert (again.state, len(again.nodes)) == (manager.state, len(manager.nodes["node"]))
    assert again.failed is None if change != "operation" else again.failed is not None and again.failed.error == "no bulbs left"


def test_a_node_that_cannot_be_told_and_nodes_that_cannot_be_listed_say_why() -> None:
    manager = Manager()
    manager.failing["get_node_info"] = errors.RemoteError("it left")
    assert [one.problem for one in services.read(manager, 3, DECLARATION).nodes] == ["it left.", "it left."]
    manager.failing["list_nodes"] = errors.RemoteError("busy")
    seen = services.read(manager, 3, DECLARATION)
    assert (seen.nodes, seen.nodes_problem) == ((), "busy.")


def test_a_service_that_is_gone_is_not_found() -> None:
    with pytest.raises(errors.NotFound):
        services.read(Manager(), 4, DECLARATION)


class Way:
    """The way to the manager of one application."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def manager(self, application: replies.Application) -> Manager:
        return self._manager

    def application(self, aid: int) -> replies.Application:
        return self._manager.application


def topic(manager: Manager) -> services.ServiceTopic:
    return services.ServiceTopic(rendering.Renderer("", {}), 5, manager.application, SERVICE, DECLARATION, ("default",))


def test_a_manager_that_is_silent_leaves_what_was_known_and_says_so() -> None:
    manager = Manager()
    following = topic(manager)
    way: Any = Way(manager)
    seen = following.read(way, None)
    manager.failing["get_app_info"] = errors.Unreachable("10.0.0.1:443 does not answer.")
    lost = following.read(way, seen)
    assert (lost.state, lost.nodes, lost.history) == ("UNREACHABLE", seen.nodes, seen.history)
    assert "does not answer" in lost.problem
    assert following.news(seen, lost) == ["shop: Unreachable."]
    manager.failing.clear()
    assert following.read(way, lost) == seen
    assert all(following.parts(one) for one in (seen, lost))


def test_whoever_follows_hears_of_states_and_failures() -> None:
    manager = Manager()
    following = topic(manager)
    before = services.read(manager, 3, DECLARATION)
    manager.operations = [operation("b", "FAILED", "<b>no bulbs left</b>"), operation()]
    after = services.read(manager, 3, DECLARATION, before)
    assert following.news(before, after) == ["Configure failed: <b>no bulbs left</b>"]
    assert following.news(after, after) == []
    parts = following.parts(after)
    assert set(parts) == {f"service-{name}" for name in services.PARTS}
    assert "&lt;b&gt;no bulbs left" in parts["service-state"]
    assert not following.changing(after)
    manager.state = "ADAPTING"
    assert following.changing(services.read(manager, 3, DECLARATION, after))


def test_a_service_that_somebody_renamed_is_called_so_on_open_pages() -> None:
    manager = Manager()
    following = topic(manager)
    way: Any = Way(manager)
    renamed = dataclasses.replace(SERVICE, name="market")
    found: list[replies.Service | errors.ConPaaSError] = [errors.Unreachable("the Director is away"), renamed]

    def service(aid: int, sid: int) -> replies.Service:
        answer = found.pop(0)
        if isinstance(answer, errors.ConPaaSError):
            raise answer
        return answer

    way.service = service
    seen = following.read(way, None)
    assert len(found) == 2, "not asked for at every reading"
    for name in ("shop", "market"):
        following.named_at = float("-inf")
        seen = following.read(way, seen)
        assert name in following.parts(seen)["service-state"]
