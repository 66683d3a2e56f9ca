"""A small service with everything a service may have, and its agent: they remember in files what was done to them."""

from __future__ import annotations

from typing import Any

from conpaas.core import config, errors, expose, manager, node, operations, params, states

SET = operations.OperationKind(
    "set_word",
    (operations.Step("tell", "tell", "tell_again"), operations.Step("keep", "keep")),
    allowed=(states.State.INIT, states.State.STOPPED, states.State.RUNNING),
    transient=states.State.ADAPTING,
)


class Agent:
    """Serves words and mounts volumes."""

    def __init__(self, configuration: config.Config) -> None:
        self.word = configuration.get("agent", "WORD")
        self.started = 0
        self.mounted: set[str] = set()
        self.refuse: set[str] = set()

    def _work(self, what: str) -> None:
        if what in self.refuse:
            raise errors.OperationFailed(f"the agent refuses to {what}")

    @expose.expose("GET")
    def check_process(self) -> None:
        self._work("answer")

    @expose.expose("POST")
    def startup(self) -> None:
        self._work("start")
        self.started += 1

    @expose.expose("POST")
    def shutdown(self) -> None:
        self._work("stop")
        self.started = 0

    @expose.expose("POST", params.Param("word", params.Text()))
    def set_word(self, word: str) -> None:
        self._work("listen")
        self.word = word

    @expose.expose("POST", params.Param("name", params.Text()))
    def mount(self, name: str) -> None:
        self._work("mount")
        self.mounted.add(name)

    @expose.expose("POST", params.Param("name", params.Text()))
    def unmount(self, name: str) -> None:
        self._work("unmount")
        self.mounted.discard(name)

    @expose.expose(
        "GET",
        params.Param("filename", params.Text(), default=None),
        params.Param("offset", params.Integer(), default=None),
        params.Param("limit", params.Integer(), default=None),
    )
    def get_log(self, filename: str | None, offset: int | None, limit: int | None) -> dict[str, Any]:
        return {"log": f"{filename} {offset} {limit}"}


class Manager(manager.BaseManager):
    """Two roles; a word that all nodes know; volumes."""

    operations = (SET,)

    def get_node_roles(self) -> list[str]:
        return ["node", "extra"]

    def get_context_replacement(self) -> dict[str, str]:
        return {"WORD": self.word}

    @property
    def word(self) -> str:
        return str(self.settings.get("word", "hello"))

    def get_role_sninfo(self, role: str, cloud: str) -> dict[str, Any]:
        if role == "extra":
            return self.get_standard_sninfo_with_volume(role, cloud, "disk-%(vm_id)s", 100)
        return super().get_role_sninfo(role, cloud)

    def on_create(self) -> None:
        (self.data_dir / "born").write_text("yes")

    def on_start(self, nodes: list[node.ServiceNode]) -> None:
        self.agents.all(nodes, lambda one: self.agents.post(one, "startup"))

    def on_stop(self) -> list[node.ServiceNode]:
        self.agents.all(self.nodes, lambda one: self.agents.post(one, "shutdown"))
        return self.nodes

    def on_add_nodes(self, nodes: list[node.ServiceNode]) -> None:
        self.on_start(nodes)

    def on_remove_nodes(self, roles: dict[str, int]) -> list[node.ServiceNode]:
        leaving = self.choose_nodes(roles)
        self.agents.all(leaving, lambda one: self.agents.post(one, "shutdown"))
        return leaving

    def on_undo_remove_nodes(self, nodes: list[node.ServiceNode]) -> None:
        self.on_start(nodes)

    def on_node_lost(self, lost: node.ServiceNode) -> bool:
        self.settings["lost"] = [*self.settings.get("lost", []), lost.id]
        return lost.role != "extra"

    def check_create_volume(self, name: str, size: int, agent_id: str) -> None:
        if size > 1000:
            raise errors.InvalidArgument("too large for this service")

    def check_delete_volume(self, target: node.ServiceNode, volume: node.ServiceVolume) -> None:
        """All may be deleted."""

    def on_create_volume(self, target: node.ServiceNode, volume: node.ServiceVolume) -> None:
        self.agents.post(target, "mount", name=volume.vol_name)

    def on_delete_volume(self, target: node.ServiceNode, volume: node.ServiceVolume) -> None:
        self.agents.post(target, "unmount", name=volume.vol_name)

    def on_git_push(self) -> str:
        return "git-0123abc"

    @expose.expose("POST", params.Param("word", params.Text()))
    def set_word(self, word: str, caller: Any) -> dict[str, Any]:
        return {"operation": self.submit("set_word", {"word": word, "former": self.word}, caller).id}

    def tell(self, op: operations.Operation) -> None:
        self._tell(op.args["word"])

    def tell_again(self, op: operations.Operation) -> None:
        self._tell(op.args["former"])

    def _tell(self, word: str) -> None:
        self.agents.all(self.nodes, lambda one: self.agents.post(one, "set_word", word=word))

    def keep(self, op: operations.Operation) -> None:
        self.settings["word"] = op.args["word"]


class Keeper(Manager):
    """Its ordinary nodes have a disk that outlives them. Their agents have it in use from the moment they are in service."""

    def get_role_disk(self, role: str) -> int | None:
        return 50 if role == "node" else None

    def on_start(self, nodes: list[node.ServiceNode]) -> None:
        for one in nodes:
            disk = self.kept_disk(one)
            if disk is not None:
                if disk not in one.volumes or disk.dev_name is None:
                    raise errors.OperationFailed(f"{one.id} does not know its disk {disk.vol_name}")
                self.agents.post(one, "mount", name=disk.vol_name)
            elif one.role == "node":
                raise errors.OperationFailed(f"{one.id} has no disk")
        super().on_start(nodes)
