"""What every part of the mysql manager shares: the durable memory, the cluster, one lock over both, and whom to ask in SQL."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from conpaas.core import agents, errors, manager, node, service_parts
from conpaas.core.states import State
from conpaas.services.mysql import spec
from conpaas.services.mysql.manager import authority, cluster, members, state

T = TypeVar("T")

_PATIENCE: Final = 10.0
"""Seconds an agent may give no answer (it restarts, the network hiccups) before that is a failure."""
_PORTS: Final = {"SQL_PORT": 3306, "HEALTH_PORT": 9200, "GLB_PORT": 8010, "GLB_READ_PORT": 8011}
_REUNION: Final = 8.0
"""Seconds in which members that were all killed find each other again without help."""
_NOBODY: Final = "No member of the cluster takes requests now."


class MySQLBase(manager.BaseManager):
    """The foundation of `MySQLManager`.

    `guard` is held by whoever works on the nodes: the steps of operations, and the housekeeping beside them.
    """

    def __init__(self, context: service_parts.ManagerContext) -> None:
        super().__init__(context)
        self.guard = threading.RLock()
        self.memory = state.ClusterMemory(self.settings)
        self.authority = authority.Authority(self.memory)
        main = self.config.main
        self.ports = {name: self.config.get_int(main, name, port, minimum=1, maximum=65_535) for name, port in _PORTS.items()}
        name = self.memory.name(self.config.get(main, "APP_ID", "0"), self.service_id)
        self.patience = self.config.get_float(main, "AGENT_PATIENCE", _PATIENCE, minimum=0.0)
        reunion = self.config.get_float(main, "MYSQL_REUNION", _REUNION, minimum=0.0)
        disks = cluster.Disks(self._device_of, lambda: self.spare_disks(spec.MYSQL))
        self.cluster = cluster.Cluster(self.agents, self.memory, self.authority, name, self.patience, self.ports, reunion, disks)

    def _device_of(self, one: node.ServiceNode) -> str | None:
        """The device of a member's disk; None if it has none."""
        disk = self.kept_disk(one)
        return disk.dev_name if disk is not None else None

    def members_in_order(self) -> list[node.ServiceNode]:
        """The members, the writer first."""
        own = {one.id: one for one in members.of_role(self.nodes, spec.MYSQL)}
        return [own[key] for key in self.memory.in_order(list(own))]

    def answering(self, node_id: str) -> node.ServiceNode:
        """A node whose agent answers, after a while if it restarts just now: for calls that are not to be repeated blindly."""
        target = self.get_node(node_id)
        agents.persistently(lambda: self.agents.get(target, "check_process"), self.patience)
        return target

    def balancers(self) -> list[node.ServiceNode]:
        return members.of_role(self.nodes, spec.GLB)

    def leader(self) -> node.ServiceNode:
        """The first member in order that takes requests; an agent that gives no answer is waited for. Raises OperationFailed when there is
        none.
        """
        own = self.members_in_order()
        deadline = time.monotonic() + self.patience
        while True:
            looks = self.cluster.glance(own)
            for one in own:
                look = looks[one.id]
                if not isinstance(look, errors.ConPaaSError) and members.is_synced(look):
                    return one
            if time.monotonic() >= deadline or not any(isinstance(look, errors.Unreachable) for look in looks.values()):
                raise errors.OperationFailed(_NOBODY, hint="get_service_info tells how the members are")
            time.sleep(agents.RETRY_PAUSE)

    def persistently(self, call: Callable[[agents.AgentCaller, node.ServiceNode], T]) -> T:
        """Do something idempotent in SQL, in an operation: an agent that dies meanwhile is waited for, or another one takes its place."""
        return agents.persistently(lambda: call(self.agents, self.leader()), self.patience)

    def running_leader(self) -> node.ServiceNode:
        """The same. Raises WrongState unless the service runs."""
        self.check_state(State.RUNNING, State.ADAPTING)
        return self.leader()

    def ask_leader(self, call: Callable[[agents.AgentCaller, node.ServiceNode], T]) -> T:
        """Do something in SQL; what is changed by that, all members have. Raises WrongState unless the service runs."""
        return call(self.agents, self.running_leader())

    def access(self) -> dict[str, Any]:
        """Where clients connect: `write` for everything, `read` for what only reads. With a load balancer, its addresses."""
        ports = self.memory.ports
        for one in self.balancers():
            known = ports.get(one.id)
            if known:
                return {"write": {"host": one.ip, "port": known["port"]}, "read": {"host": one.ip, "port": known["read_port"]}}
        for one in self.members_in_order():
            place = {"host": one.ip, "port": ports.get(one.id, {}).get("port", self.ports["SQL_PORT"])}
            return {"write": place, "read": place}
        return {"write": None, "read": None}

    def health(self) -> dict[str, Any]:
        """How the cluster and each of its members are, for users."""
        own = self.members_in_order()
        looks = self.cluster.glance(own)
        found: list[dict[str, Any]] = []
        for one in own:
            look = looks[one.id]
            if isinstance(look, errors.ConPaaSError):
                found.append({"id": one.id, "state": "no answer", "reason": str(look)})
                continue
            why = look.get("room") or (None if members.is_primary(look) else look.get("reason"))
            reason = {"reason": why} if why else {}
            found.append({"id": one.id, "state": spec.state_of(look), "primary": members.is_primary(look), **reason})
        synced = sum(1 for one in found if one["state"] == "Synced" and one.get("primary"))
        unread = [] if any(one.get("primary") for one in found) else self.cluster.unread()
        told = {"reason": cluster.unread_sentence(unread)} if unread else {}
        return {"healthy": bool(own) and synced == len(own), "synced": synced, "size": len(own), "members": found, **told}
