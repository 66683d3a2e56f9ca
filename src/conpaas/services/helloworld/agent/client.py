"""What a manager may ask of an agent of the helloworld service: one thin function per call."""

from __future__ import annotations

from conpaas.core import agents, node


def startup(caller: agents.AgentCaller, target: node.ServiceNode) -> None:
    caller.post(target, "startup")


def get_helloworld(caller: agents.AgentCaller, target: node.ServiceNode) -> str:
    return str(caller.get(target, "get_helloworld", _timeout=10.0)["result"])


def set_string(caller: agents.AgentCaller, target: node.ServiceNode, string: str) -> None:
    caller.post(target, "set_string", string=string)
