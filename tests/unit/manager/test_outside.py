"""The doors to the outside: the Director's callbacks, calls to agents, the registry of service types, fault points, node shapes."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from conpaas import testing
from conpaas.core import agents, callbacker, errors, faults, misc, node, services
from conpaas.testing import simulation

NODE = {"vmid": "i-1", "ip": "10.0.0.1", "private_ip": "10.0.0.2", "cloud_name": "iaas", "weight_backend": 100, "role": "node"}


class FakeClient:
    """Answers the callbacks from a list; keeps what was sent."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def post(self, path: str, fields: dict[str, Any], files: Any = None, timeout: float | None = None) -> Any:
        self.sent.append((path, fields))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def asking(*answers: Any, **options: float) -> tuple[callbacker.DirectorCallbacker, FakeClient]:
    client = FakeClient(*answers)
    made = callbacker.DirectorCallbacker(client, 3, "10.0.0.9", **options)  # type: ignore[arg-type]
    made._closing.wait = lambda seconds: False  # type: ignore[method-assign]
    return made, client


def create(made: callbacker.DirectorCallbacker, count: int = 1) -> list[node.ServiceNode]:
    return made.create_nodes("key", [{"role": "node", "cloud": "it's"}] * count, 1, "web", {"A": "b'c"}, "echo")


def test_nodes_are_asked_for_in_json() -> None:
    made, client = asking([NODE])
    assert create(made)[0].id == "iaasi-1"
    ((path, fields),) = client.sent
    assert path == "/create_nodes"
    assert json.loads(fields["nodes_info"]) == [{"role": "node", "cloud": "it's"}]
    assert json.loads(fields["context"]) == {"A": "b'c"}
    assert {key: fields[key] for key in ("app_id", "service_id", "service_type", "manager_ip", "startup_script", "request")} == {
        "app_id": 3,
        "service_id": 1,
        "service_type": "web",
        "manager_ip": "10.0.0.9",
        "startup_script": "echo",
        "request": "key",
    }


def test_a_pending_answer_and_a_lost_one_are_asked_again_with_the_same_key() -> None:
    lost = errors.RemoteError("internal error, incident 1")
    made, client = asking({"pending": True}, errors.Unreachable("refused"), lost, [NODE])
    create(made)
    assert [fields["request"] for _, fields in client.sent] == ["key"] * 4


def test_many_nodes_are_asked_for_in_parts() -> None:
    made, client = asking([NODE] * 100, [NODE] * 50)
    assert len(create(made, 150)) == 150
    assert [fields["request"] for _, fields in client.sent] == ["key", "key.1"]


def test_when_a_part_is_refused_the_parts_before_are_given_back() -> None:
    made, client = asking([NODE] * 100, errors.RemoteError("Insufficient credits"), {})
    with pytest.raises(errors.InsufficientCredits):
        create(made, 150)
    path, fields = client.sent[-1]
    assert (path, fields["request"], len(json.loads(fields["nodes"]))) == ("/remove_nodes", "key.undo", 100)


def test_while_nobody_knows_what_became_of_a_part_nothing_is_given_back() -> None:
    made, client = asking([NODE] * 100, errors.Unreachable("refused"), unreachable_for=0.0)
    with pytest.raises(errors.Unreachable):
        create(made, 150)
    assert [path for path, _ in client.sent] == ["/create_nodes", "/create_nodes"]


def test_a_manager_that_shuts_down_stops_asking() -> None:
    made = callbacker.DirectorCallbacker(FakeClient({"pending": True}), 3, "10.0.0.9")  # type: ignore[arg-type]
    made.close()
    with pytest.raises(errors.Unreachable, match="shutting down"):
        create(made)


def test_an_unreachable_director_is_given_up_after_a_while() -> None:
    made, _ = asking(*[errors.Unreachable("refused")] * 3, unreachable_for=0.0)
    with pytest.raises(errors.Unreachable, match=r"The Director did not answer \(refused\); try again later"):
        create(made)


def test_a_request_that_stays_pending_is_given_up() -> None:
    made, _ = asking(*[{"pending": True}] * 3, create_timeout=-1.0)
    with pytest.raises(errors.Unreachable, match="did not finish /create_nodes"):
        create(made)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (errors.RemoteError("Insufficient credits"), errors.InsufficientCredits),
        (errors.RemoteError("quota"), errors.RemoteError),
        (False, errors.RemoteError),
        ({}, errors.RemoteError),
        ([{"vmid": "i-1"}], errors.InvalidArgument),
    ],
)
def test_refusals_are_errors_never_values(answer: Any, kind: type[Exception]) -> None:
    made, _ = asking(answer)
    with pytest.raises(kind):
        create(made)


def test_volumes_and_the_rest() -> None:
    made, client = asking({"volume_id": "v"}, {}, {}, {}, {"credit": 5}, [{**NODE, "service_id": 2, "state": "lost"}], {})
    assert made.create_volume("key", 5, "name", "i-1", "iaas", 1) == "v"
    made.attach_volume("v", "i-1", "sdb", "iaas")
    made.detach_volume("v", "iaas")
    made.destroy_volume("v", "iaas")
    assert made.credit() == 5
    (entry,) = made.list_nodes()
    assert (entry.node.id, entry.service_id, entry.running) == ("iaasi-1", 2, False)
    made.remove_nodes([node.ServiceNode.from_dict(NODE)], "other")
    made.remove_nodes([], "none")
    assert [path for path, _ in client.sent] == [
        "/create_volume",
        "/attach_volume",
        "/detach_volume",
        "/destroy_volume",
        "/credit",
        "/list_nodes",
        "/remove_nodes",
    ]
    keys = [fields["request"] for path, fields in client.sent if "request" in fields]
    assert len(set(keys)) == 5


def test_kept_volumes_are_asked_for_by_name() -> None:
    made, client = asking({"volume_id": "v"}, {})
    made.create_volume("key", 5, "name", "i-1", "iaas", 1, keep=True)
    made.remove_nodes([node.ServiceNode.from_dict(NODE)], "other", disks=True)
    assert [fields.get("keep", fields.get("disks")) for _, fields in client.sent] == [True, True]


def test_domains_are_claimed_for_a_service_of_the_own_application() -> None:
    made, client = asking({}, {})
    made.claim_domain("www.example.org", 2)
    made.release_domain("www.example.org", 2)
    fields = {"domain": "www.example.org", "service_id": 2, "app_id": 3}
    assert client.sent == [("/callback/claim_domain", fields), ("/callback/release_domain", fields)]


@pytest.mark.parametrize(
    "call", [lambda made: made.credit(), lambda made: made.list_nodes(), lambda made: made.create_volume("k", 1, "n", "i", "c", 1)]
)
def test_answers_of_the_wrong_shape_are_errors(call: Callable[[callbacker.DirectorCallbacker], Any]) -> None:
    made, _ = asking("what")
    with pytest.raises(errors.RemoteError, match="answered"):
        call(made)


@pytest.mark.parametrize("entry", [NODE, {**NODE, "service_id": 1}, {**NODE, "service_id": "one", "state": "running"}])
def test_an_inventory_that_lacks_something_is_an_error(entry: dict[str, Any]) -> None:
    made, _ = asking([entry])
    with pytest.raises(errors.InvalidArgument, match="entry of iaasi-1"):
        made.list_nodes()


# Agents


def test_each_tells_results_and_errors_all_names_every_failure(running: testing.Harness) -> None:
    running.add_nodes({"node": 2})
    first, second, third = running.nodes
    running.kill_node(first)
    running.agent(third).refuse.add("listen")

    def tell(one: node.ServiceNode) -> Any:
        return running.agents.post(one, "set_word", word="x")

    answers = running.agents.each(running.nodes, tell)
    assert isinstance(answers[first.id], errors.Unreachable)
    assert answers[second.id] == {}
    assert isinstance(answers[third.id], errors.RemoteError)
    with pytest.raises(errors.OperationFailed, match=r"2 of 3 nodes failed: iaasi-0001: .* does not answer; iaasi-0003: the agent refuses"):
        running.agents.all(running.nodes, tell)
    assert running.agents.all([second], tell) == {second.id: {}}


def test_unexpected_failures_of_a_call_are_errors_too(running: testing.Harness) -> None:
    (answer,) = running.agents.each(running.nodes, lambda one: 1 // 0).values()
    assert isinstance(answer, errors.OperationFailed)
    assert str(answer) == "ZeroDivisionError: integer division or modulo by zero"


def test_arguments_of_agents_are_checked_as_on_the_wire(running: testing.Harness) -> None:
    with pytest.raises(errors.RemoteError, match="Missing the mandatory parameter 'word'"):
        running.agents.post(running.nodes[0], "set_word")
    with pytest.raises(errors.RemoteError, match="Method not found"):
        running.agents.get(running.nodes[0], "set_word", word="x")


def test_the_real_caller_speaks_to_the_node_s_address(tmp_path: pathlib.Path) -> None:
    calls: list[tuple[Any, ...]] = []

    class Client:
        def __getattr__(self, name: str) -> Any:
            return lambda *arguments, **options: calls.append((name, *arguments, options))

    made = agents.HttpsAgentCaller(Client(), 5556, simulation.ImmediatePool())  # type: ignore[arg-type]
    one = node.ServiceNode.from_dict(NODE)
    made.get(one, "a", x=1)
    made.post(one, "b", _timeout=3.0)
    made.upload(one, "c", {"code": tmp_path}, y="z")
    made.download(one, "d", tmp_path / "f", x=1)
    made.close()
    address = ("10.0.0.1", 5556)
    assert calls == [
        ("get", address, "a", {"params": {"x": 1}, "timeout": None}),
        ("post", address, "b", {"params": {}, "timeout": 3.0}),
        ("upload", address, "c", {"fields": {"y": "z"}, "files": {"code": tmp_path}, "timeout": None}),
        ("download", address, "d", {"params": {"x": 1}, "to": tmp_path / "f", "timeout": None}),
        ("close", {}),
    ]


# The registry


def test_installed_service_types_are_found() -> None:
    assert "helloworld" in services.registry.available()
    found = services.registry.get("helloworld")
    assert found.load_manager().__name__ == "HelloWorldManager"
    assert found.load_agent().__name__ == "HelloWorldAgent"
    assert services.registry.by_agent_type("helloworld") is found


def test_unknown_and_broken_service_types_are_named() -> None:
    with pytest.raises(errors.NotFound, match="There is no service type 'what' here; installed are: "):
        services.registry.get("what")
    with pytest.raises(errors.NotFound, match="No installed service type has agents of type 'what'"):
        services.registry.by_agent_type("what")
    broken = services.ServiceType("x", manager="no.such.module:M", agent="conpaas:Nothing")
    with pytest.raises(errors.NotFound, match=r"The class 'no\.such\.module:M' of the service type 'x' cannot be loaded"):
        broken.load_manager()
    with pytest.raises(errors.NotFound, match="cannot be loaded"):
        broken.load_agent()

    def fail() -> services.ServiceType:
        raise ImportError("no such thing")

    known = services.Registry(lambda: [("x", fail), ("y", lambda: None)])  # type: ignore[list-item, return-value]
    for name in "xy":
        with pytest.raises(errors.NotFound):
            known.get(name)


def test_the_manager_imports_nothing_heavy() -> None:
    heavy = ("sqlalchemy", "cryptography", "requests", "flask", "jinja2")
    program = f"import sys, conpaas.core.application; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


# Fault points and shapes


def test_fault_points_cost_nothing_until_armed(tmp_path: pathlib.Path) -> None:
    faults.configure()
    faults.point("manager", "k", "s", "before")
    passed: list[tuple[str, ...]] = []
    with faults.trigger(lambda *here: passed.append(here)):
        faults.point("manager", "k", "s", "after")
    faults.point("manager", "k", "s", "after")
    assert passed == [("manager", "k", "s", "after")]
    listed = tmp_path / "faults"
    file = faults.FaultFile(listed)
    file("manager", "k", "s", "after")
    listed.write_text("other k s after\nmanager k s\n")
    file("manager", "k", "s", "after")
    assert listed.read_text() == "other k s after\nmanager k s\n"


def test_a_thread_is_held_at_a_fault_point_until_somebody_lets_it_go(tmp_path: pathlib.Path) -> None:
    listed = tmp_path / "faults"
    listed.write_text("manager k s before hold\nmanager k s before later\n")
    file = faults.FaultFile(listed)
    held = threading.Thread(target=file, args=("manager", "k", "s", "before"))
    held.start()
    misc.wait_until(faults.held_file(listed).exists, timeout=10, what="that the thread is held")
    assert faults.held_file(listed).read_text() == "manager k s before\n"
    file("manager", "k", "s", "after")
    file("manager", "k", "s", "before")
    assert (held.is_alive(), listed.read_text()) == (True, "manager k s before later\n")
    faults.held_file(listed).unlink()
    held.join(10)
    assert not held.is_alive()


def test_nodes_and_volumes_keep_their_shapes() -> None:
    volume = {"vol_name": "v", "vol_size": "5", "vol_id": None, "vm_id": None, "dev_name": None, "cloud": None}
    one = node.ServiceNode.from_dict({**NODE, "id": "ignored", "volumes": [volume], "unknown": 1})
    assert one.to_dict() == {**NODE, "id": "iaasi-1", "volumes": [{**volume, "vol_size": 5}]}
    assert node.ServiceNode.from_dict(one.to_dict()) == one
    with pytest.raises(errors.InvalidArgument, match="A node must have the field 'ip'"):
        node.ServiceNode.from_dict({"vmid": "x"})
    assert (node.inner_cloud("default"), node.inner_cloud(None), node.outer_cloud("iaas"), node.outer_cloud("b")) == (
        "iaas",
        "iaas",
        "default",
        "b",
    )
