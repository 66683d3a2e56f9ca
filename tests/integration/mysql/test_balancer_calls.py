"""The calls of a load balancer as a manager makes them, on an agent object."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests.support import glb

from conpaas.core import agents, errors, expose, node
from conpaas.services.mysql.agent import agent, client


class Caller(agents.AgentCaller):
    """Calls an agent object with what would travel over the wire."""

    def __init__(self, there: glb.Node) -> None:
        super().__init__()
        self.agent = agent.MySQLAgent(there.config)

    def _call(self, target: node.ServiceNode, verb: str, method: str, params: dict[str, Any], timeout: float | None) -> Any:
        answer = expose.exposed_methods(self.agent)[verb, method].call(json.loads(json.dumps(params)), None)
        return json.loads(json.dumps({} if answer is None else answer))

    def _upload(
        self, target: node.ServiceNode, method: str, files: Mapping[str, pathlib.Path], fields: dict[str, Any], timeout: float | None
    ) -> Any:
        raise AssertionError(f"{method} uploads nothing")

    def _download(self, target: node.ServiceNode, method: str, params: dict[str, Any], to: pathlib.Path, timeout: float | None) -> None:
        raise AssertionError(f"{method} downloads nothing")


@pytest.fixture
def machine() -> Iterator[glb.Node]:
    with glb.node() as made:
        yield made


def of(machine: glb.Node) -> node.ServiceNode:
    return node.ServiceNode(vmid="1", ip=machine.address, private_ip=machine.address, cloud_name="dummy", role="glb")


def test_the_life_of_a_load_balancer(machine: glb.Node) -> None:
    caller, target = Caller(machine), of(machine)
    with glb.members("a", "b") as (a, b):
        assert client.balancer_state(caller, target)["state"] == "INIT"
        assert client.balancer_figures(caller, target)["members"] == []
        ports = client.configure_balancer(caller, target, glb.balancing(a, b))
        assert ports == {"port": 8010, "read_port": 8011}
        glb.until(lambda: client.balancer_state(caller, target)["writer"] == a.ip, "the first is the writer")
        with machine.connect() as held:
            assert client.drain_member(caller, target, "a", 0) == 1
            assert held.ask() == ""
        state = client.balancer_state(caller, target)
        assert [(one["name"], one["status"], one["writer"]) for one in state["servers"]] == [("a", "drained", False), ("b", "up", True)]
        with machine.connect() as session:
            assert session.member == "b"
        caller.agent.close()
        again = Caller(machine)
        again.agent.start_up()
        assert client.balancer_state(again, target) == state | {"servers": client.balancer_state(again, target)["servers"]}
        assert "haproxy.log" in again.agent.log_files()
        assert "rw/a" in again.get(target, "get_log", filename="haproxy.log")["log"]
        client.stop_balancer(again, target, 0)
        assert client.balancer_state(again, target)["state"] == "INIT"
        again.agent.close()


def test_the_classic_calls(machine: glb.Node) -> None:
    caller, target = Caller(machine), of(machine)
    with glb.members("a", "b") as (a, b):
        with pytest.raises(errors.WrongState, match="Cannot add nodes: agent is not running a glbd daemon"):
            caller.post(target, "add_glbd_nodes", nodesIp=[a.ip])
        assert caller.post(target, "start_glbd", nodes=[f"{a.ip}:3306"])["port"] == 8010
        assert caller.post(target, "add_glbd_nodes", nodesIp=[f"{b.ip}:3306"]) == {}
        assert [one["ip"] for one in client.balancer_state(caller, target)["servers"]] == [a.ip, b.ip]
        assert caller.post(target, "remove_glbd_nodes", nodes=[a.ip]) == {}
        assert [one["ip"] for one in client.balancer_state(caller, target)["servers"]] == [b.ip]
        with pytest.raises(errors.InvalidArgument, match="not with both"):
            caller.post(target, "start_glbd", configuration=glb.balancing(a).to_dict(), nodes=[a.ip])
        with pytest.raises(errors.InvalidArgument, match=r"not an IP address"):
            caller.post(target, "add_glbd_nodes", nodesIp=["db.example.org"])
        with pytest.raises(errors.InvalidArgument, match="between 0 and 3600"):
            caller.post(target, "drain_member", name="a", timeout=-1)
        with pytest.raises(errors.InvalidArgument, match="BalancerConfig"):
            caller.post(target, "configure_glbd", configuration={"serial": 1})
    caller.agent.close()
