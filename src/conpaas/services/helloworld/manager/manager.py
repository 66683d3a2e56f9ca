"""The manager of the helloworld service: starts nodes and gathers their texts."""

from __future__ import annotations

from typing import Any

from conpaas.core import agents, errors, expose, manager, node, params
from conpaas.core.https import identity
from conpaas.core.operations import Operation, OperationKind, Step
from conpaas.core.states import State
from conpaas.services import helloworld
from conpaas.services.helloworld.agent import client

DEFAULT_STRING = "helloworld"
PATIENCE = 30.0
"""Seconds an agent may give no answer (it restarts, the network hiccups) before that is a failure."""

SET_STRING = OperationKind(
    "set_string",
    (Step("tell", "tell_string", "tell_former_string"), Step("keep", "keep_string", "keep_former_string")),
    allowed=(State.RUNNING,),
    transient=State.ADAPTING,
    final=State.RUNNING,
    help="Changing the text",
)


class HelloWorldManager(manager.BaseManager):
    """Nodes of one role, all alike. The text is a setting of the service."""

    operations = (SET_STRING,)

    # What the service is made of

    def get_context_replacement(self) -> dict[str, str]:
        return {"STRING": self._string()}

    # Life cycle

    def on_start(self, nodes: list[node.ServiceNode]) -> None:
        self._start_up(nodes)

    def on_add_nodes(self, nodes: list[node.ServiceNode]) -> None:
        self._start_up(nodes)

    def _start_up(self, nodes: list[node.ServiceNode]) -> None:
        self.agents.all(nodes, lambda one: agents.persistently(lambda: client.startup(self.agents, one), PATIENCE))

    # Calls

    @expose.expose("GET")
    def list_nodes(self) -> dict[str, list[str]]:
        """List the ids of the nodes; classic clients expect them under the name of the service type."""
        if self.state not in (State.RUNNING, State.ADAPTING):
            return {}
        return {self.type: node.ids_of(self.nodes)}

    @expose.expose("GET")
    def get_helloworld(self) -> dict[str, Any]:
        """Ask all nodes for their text at once; a node that does not answer has its error in `replies`, the others their text."""
        self.check_state(State.RUNNING)
        nodes = self.nodes
        answers = self.agents.each(nodes, lambda one: client.get_helloworld(self.agents, one))
        replies = [_reply(one, answers[one.id]) for one in nodes]
        lines = [f"Received {reply['message']} from {reply['node']}" for reply in replies if reply["error"] is None]
        return {"helloworld": "\n".join(lines), "replies": replies}

    @expose.expose("GET")
    def get_string(self) -> dict[str, Any]:
        """Tell the text of this service."""
        return {"string": self._string()}

    @expose.expose(
        "POST",
        params.Param("string", helloworld.TEXT, help="One line of text."),
    )
    def set_string(self, string: str, caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """Change the text: at once on the nodes of a running service, and for all nodes to come."""
        self.check_state(State.INIT, State.STOPPED, State.RUNNING)
        if self.state == State.RUNNING:
            return {"operation": self.submit("set_string", {"string": string, "former": self._string()}, caller).id}
        self.settings["string"] = string
        return {}

    # Manifests

    def on_apply_manifest(self, fields: dict[str, Any], caller: identity.PeerIdentity | None) -> dict[str, Any]:
        given = params.check_arguments((params.Param("String", helloworld.TEXT),), fields)
        return self.set_string(given["string"], caller)

    def on_export_manifest(self, limit: int) -> dict[str, Any]:
        return {"String": self._string()} if "string" in self.settings else {}

    def tell_string(self, op: Operation) -> None:
        string = op.args["string"]
        self.agents.all(self.nodes, lambda one: agents.persistently(lambda: client.set_string(self.agents, one, string), PATIENCE))

    def tell_former_string(self, op: Operation) -> None:
        self.agents.all(self.nodes, lambda one: client.set_string(self.agents, one, op.args["former"]))

    def keep_string(self, op: Operation) -> None:
        self.settings["string"] = op.args["string"]

    def keep_former_string(self, op: Operation) -> None:
        self.settings["string"] = op.args["former"]

    def _string(self) -> str:
        return str(self.settings.get("string", DEFAULT_STRING))


def _reply(one: node.ServiceNode, answer: str | errors.ConPaaSError) -> dict[str, Any]:
    failed = isinstance(answer, errors.ConPaaSError)
    return {"node": one.id, "message": None if failed else answer, "error": str(answer) if failed else None}
