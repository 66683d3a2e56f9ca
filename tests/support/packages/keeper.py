"""A service type for tests: every node has a disk that outlives it, with one text on it.

`tests.support.keeping` tells how a platform gets to know it.
"""

from __future__ import annotations

import pathlib
from typing import Any

from conpaas.core import agent, agents, config, errors, expose, file, manager, misc, mounts, node, pages, params, services

DISK_MB = 16
PATIENCE = 30.0
MOUNTED = "kept"

SERVICE = services.ServiceType(name="keeper", manager="keeper:KeeperManager", agent="keeper:KeeperAgent", page="keeper:PAGE")

_WRITE = pages.Action(
    "write",
    "Remember",
    row={"agentId": "key"},
    fields=(pages.Field("text", "Text", required=True, maximum=100),),
    states=pages.WORKING,
    done="It is remembered.",
)
_TEXTS = pages.Table(
    "read", "texts", (pages.Value("key", "Node", "code"), pages.Value("value", "Remembers")), actions=(_WRITE,), states=pages.WORKING
)
PAGE = pages.Page((pages.Panel("Memory", (_TEXTS,)),), (pages.Role("node", "Rememberers"),), next_step="Start it, and it remembers.")

_TEXT = params.Param("text", params.Text(max_length=100), help="what to remember")


class KeeperAgent(agent.BaseAgent):
    """Mounts the disk of its node, and remembers a text on it."""

    def __init__(self, configuration: config.Config) -> None:
        super().__init__(configuration)
        self._mounts = mounts.Mounts(self.paths.root, self.paths.media, file.Notes(self.paths.lib / "keeper.json"))

    def start_up(self) -> None:
        self._mounts.restore()

    @property
    def _path(self) -> pathlib.Path:
        return self.paths.media / MOUNTED / "text"

    @expose.expose("POST", params.Param("dev_name", params.Text(), help="the disk"), _TEXT)
    def use(self, dev_name: str, text: str) -> None:
        """Take the disk into use; it is given the text if it has none yet."""
        self._mounts.mount(dev_name, MOUNTED)
        if not self._path.exists():
            self.write(text)

    @expose.expose("POST")
    def leave(self) -> None:
        """Take the disk out of use."""
        self._mounts.unmount(MOUNTED)

    @expose.expose("POST", _TEXT)
    def write(self, text: str) -> None:
        """Remember another text."""
        file.write_atomically(self._path, text.encode())
        misc.run(["sync", "--file-system", self._path])

    @expose.expose("GET")
    def read(self) -> str:
        """Answer the text."""
        return self._path.read_text()


class KeeperManager(manager.BaseManager):
    """Nodes of one role, each with a disk."""

    def get_role_disk(self, role: str) -> int | None:
        return DISK_MB

    def on_start(self, nodes: list[node.ServiceNode]) -> None:
        self.agents.all(nodes, self._use)

    def on_add_nodes(self, nodes: list[node.ServiceNode]) -> None:
        self.on_start(nodes)

    def _use(self, one: node.ServiceNode) -> None:
        disk = self.kept_disk(one)
        if disk is None or disk not in one.volumes:
            raise errors.OperationFailed(f"{one.id} has no disk, or does not know it")
        agents.persistently(lambda: self.agents.post(one, "use", dev_name=disk.dev_name, text=f"since {one.id}"), PATIENCE)

    def on_stop(self) -> list[node.ServiceNode]:
        self.agents.all(self.nodes, self._leave)
        return self.nodes

    def on_remove_nodes(self, roles: dict[str, int]) -> list[node.ServiceNode]:
        leaving = self.choose_nodes(roles)
        self.agents.all(leaving, self._leave)
        return leaving

    def on_undo_remove_nodes(self, nodes: list[node.ServiceNode]) -> None:
        self.on_start(nodes)

    def _leave(self, one: node.ServiceNode) -> None:
        agents.persistently(lambda: self.agents.post(one, "leave"), PATIENCE)

    @expose.expose("GET")
    def read(self) -> dict[str, Any]:
        """Answer the text of every node."""
        return {"texts": self.agents.all(self.nodes, lambda one: self.agents.get(one, "read"))}

    @expose.expose("POST", params.Param("agentId", params.Text(), help="the id of a node"), _TEXT)
    def write(self, agent_id: str, text: str) -> None:
        """Have a node remember another text."""
        self.agents.post(self.get_node(agent_id, "agentId"), "write", text=text)


def verbs(group: Any) -> None:
    """The commands of the type."""
    group.volume_verbs()

    @group.verb("read")
    def read(service: Any) -> None:
        """Print the text of every node."""
        reply = service.get("read")
        service.show(str(reply), reply["texts"])

    @group.verb("write", group.argument("agent_id"), group.argument("text"))
    def write(service: Any, agent_id: str, text: str) -> None:
        """Have a node remember another text."""
        service.show("", service.post("write", agentId=agent_id, text=text))
