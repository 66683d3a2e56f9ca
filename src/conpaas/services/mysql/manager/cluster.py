"""Bringing the nodes of a mysql service to where they should be: one cluster, everybody in it, load balancers that know them all.

Only a manager lets a node found a cluster, and only when no part of the cluster can go on: nodes are told for one start, and forget it.
Who was told is on record before. To bring back a cluster that nobody is left of, everybody who belongs to it must answer, for somebody
who does not might hold rows that the others lack; the one that got furthest begins, the others follow it.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from conpaas.core import agents, errors, node, rounds
from conpaas.services.mysql import spec
from conpaas.services.mysql import variables as catalogue
from conpaas.services.mysql.agent import client
from conpaas.services.mysql.manager import authority, members, state

log = logging.getLogger(__name__)

Look = Mapping[str, Any]
Note = Callable[[str], None]

_STALLED: Final = 90.0
"""Seconds without any progress after which a member that joins is given up."""
_FAILURES: Final = 5
"""Starts of a member, the first among them, after which it is given up: whoever gets in needs one, or a second one."""
_PAUSE: Final = 0.1
_ORDERLY: Final = 60
"""Seconds that a member may take to write down everything and end."""
_LARGE: Final = 256 * 1024 * 1024
"""Bytes of data from which on a transfer had better not block the donor's writes."""


@dataclasses.dataclass(frozen=True)
class Disks:
    """`of` tells the device of a member's disk (None: it has none), `spare` those that wait for a member, by the nodes that had them."""

    of: Callable[[node.ServiceNode], str | None]
    spare: Callable[[], Mapping[str, Any]]


class Cluster:
    """The nodes of one service. Every method is idempotent and may be called again after a crash."""

    def __init__(
        self,
        caller: agents.AgentCaller,
        memory: state.ClusterMemory,
        ca: authority.Authority,
        name: str,
        patience: float,
        ports: Mapping[str, int],
        reunion: float,
        disks: Disks,
    ) -> None:
        """`patience`: seconds an agent may give no answer; `reunion`: in which members that were all killed find each other again."""
        self._agents = caller
        self._memory = memory
        self._authority = ca
        self._name = name
        self._patience = patience
        self._ports = ports
        self._reunion = reunion
        self._disks = disks

    def round(self, *, tolerated: Sequence[node.ServiceNode] = (), lenient: bool = False, patience: float | None = None) -> rounds.Round:
        ids = [one.id for one in tolerated]
        return rounds.Round(self._agents, patience=self._patience if patience is None else patience, tolerated=ids, lenient=lenient)

    # All at once

    def converge(self, go: rounds.Round, nodes: Sequence[node.ServiceNode], note: Note) -> None:
        """Have the nodes be one cluster with its load balancers; returns when all that answer are. Raises NoMajority.

        In a lenient round nobody may answer, or too few; the rest is left for later then.
        """
        self._memory.incomplete = True
        own = members.of_role(nodes, spec.MYSQL)
        try:
            self.establish(go, own, nodes, note)
            self.join_all(go, own, nodes, note)
            self.balance(go, nodes)
        except (rounds.NobodyAnswers, NoMajority) as error:
            if not go.lenient:
                raise
            log.warning("the nodes stay as they are for now: %s", error)
            return
        self._memory.keep_nodes([one.id for one in nodes])
        self._memory.incomplete = bool(go.silent)

    def look(self, go: rounds.Round, own: Sequence[node.ServiceNode]) -> dict[str, Look]:
        """What each member says of itself."""
        return go.each(own, lambda one: client.mysqld_state(self._agents, one))

    def glance(self, own: Sequence[node.ServiceNode]) -> dict[str, Look | errors.ConPaaSError]:
        """The same, at once and whoever answers."""
        return self._agents.each(own, lambda one: client.mysqld_state(self._agents, one))

    # Founding, and bringing back

    def establish(self, go: rounds.Round, own: Sequence[node.ServiceNode], nodes: Sequence[node.ServiceNode], note: Note) -> None:
        """See to it that there is a part of the cluster that may go on."""
        looks = self.look(go, own)
        if not looks:
            raise rounds.NobodyAnswers(f"No member of the cluster answers: {'; '.join(f'{k}: {v}' for k, v in go.reasons.items())}")
        if self._adopted(looks, own):
            return
        if self._memory.uuid is not None and len(own) > 1 and any(look["daemon"] != "ABSENT" for look in looks.values()):
            note("Waiting for the members to find each other again")
            looks = self._reunited(go, own)
            if self._adopted(looks, own):
                return
        founder = self._founder(go, own, note)
        self._memory.founder = founder.id
        note(f"{founder.id} begins the cluster")
        self._start(go, founder, own, nodes, bootstrap=True)
        self._wait_synced(go, [founder], note)
        self._adopted(self.look(go, [founder]), own)

    def _adopted(self, looks: Mapping[str, Look], own: Sequence[node.ServiceNode]) -> bool:
        """Whether there is a cluster that works; its history is put on record then."""
        found = next((look for look in looks.values() if members.is_primary(look)), None)
        if found is None:
            return False
        self._memory.uuid = str(found["cluster_uuid"])
        self.see_at_work(own)
        return True

    def see_at_work(self, own: Sequence[node.ServiceNode]) -> None:
        """The cluster works, and these are its members: nobody else has a row that they lack."""
        self._memory.holders = frozenset(one.id for one in own)

    def unread(self) -> list[str]:
        """Nodes that are gone whose disks may hold rows that nobody else has."""
        return sorted(self._memory.holders & set(self._disks.spare()))

    def _reunited(self, go: rounds.Round, own: Sequence[node.ServiceNode]) -> dict[str, Look]:
        end = time.monotonic() + self._reunion
        while True:
            looks = self.look(go, own)
            waiting = any(look["daemon"] in ("RUNNING", "STARTING") for look in looks.values())
            if any(members.is_primary(look) for look in looks.values()) or not waiting or time.monotonic() > end:
                return looks
            time.sleep(_PAUSE)

    def _founder(self, go: rounds.Round, own: Sequence[node.ServiceNode], note: Note) -> node.ServiceNode:
        """Who may found the cluster, or bring it back. Raises OperationFailed when that cannot be told, NoMajority when it can be later."""
        by_id = {one.id: one for one in own}
        if self._memory.uuid is None:
            known = by_id.get(self._memory.founder or "")
            return known or by_id[self._memory.in_order(list(by_id))[0]]
        if go.silent:
            raise NoMajority(
                f"The cluster has no majority, and {', '.join(sorted(go.silent))} may hold rows that the others lack but gives no answer.",
                hint="it goes on by itself when that node answers or is replaced",
            )
        if unread := self.unread():
            raise NoMajority(
                unread_sentence(unread),
                hint="it goes on by itself when that node is replaced; go_on_without gives up what only its disk holds",
            )
        note("No member can go on alone; looking for the one that got furthest")
        go.each(own, lambda one: client.stop_mysqld(self._agents, one, _ORDERLY))
        positions = go.each(own, lambda one: client.position(self._agents, one, self._disks.of(one)))
        return by_id[furthest(positions, self._memory.uuid, self._memory.in_order(list(by_id)))]

    # Joining

    def join_all(
        self, go: rounds.Round, own: Sequence[node.ServiceNode], nodes: Sequence[node.ServiceNode], note: Note
    ) -> list[node.ServiceNode]:
        """Have everybody in the cluster. As many join at once as there are members to get the data from, one of which goes on serving.
        A member whose disk is full gets its settings, and is not waited for. Returns who is at work and has room."""
        while True:
            looks = self.look(go, own)
            there = [one for one in own if one.id in looks]
            inside = [one for one in there if members.is_at_work(looks[one.id])]
            full = [one for one in there if one not in inside and members.is_full(looks[one.id])]
            outside = [one for one in there if one not in inside and one not in full]
            self._measure(looks)
            go.each(full, lambda one: self._start(go, one, own, nodes))  # as it is told now, it begins when there is room
            go.each(inside, lambda one: self._start(go, one, own, nodes))
            go.each(inside, lambda one: client.set_health(self._agents, one, on=True))  # one that was to leave may have to stay
            if not outside:
                working = [one for one in inside if not members.is_full(looks[one.id])]
                break
            synced = sum(1 for look in looks.values() if members.is_synced(look))
            wave = outside[: max(1, synced - 1)]
            note(f"Joining: {', '.join(one.id for one in wave)}")
            go.each(wave, lambda one: self._start(go, one, own, nodes))
            self._wait_synced(go, wave, note)
        self._wait_synced(go, [one for one in own if one.id not in go.silent], note)
        self._memory.put_in_order(self._memory.in_order([one.id for one in own]))
        return working

    def _measure(self, looks: Mapping[str, Look]) -> None:
        known = [int(look.get("data_bytes") or 0) for look in looks.values() if members.is_synced(look)]
        if known:
            self._memory.data_bytes = max(known)

    def settings_for(self, one: node.ServiceNode, own: Sequence[node.ServiceNode], nodes: Sequence[node.ServiceNode]) -> spec.NodeSettings:
        """How a member runs. Its certificate holds for its own addresses and for those of the load balancers before it."""
        balancers = members.of_role(nodes, spec.GLB)
        reached = [one.ip, one.private_ip, *(address for other in balancers for address in (other.ip, other.private_ip))]
        order = self._memory.in_order([other.id for other in own])
        return spec.NodeSettings(
            cluster=self._name,
            name=one.id,
            members=self.as_members(own),
            tls=self._authority.member(one.id, [address for address in reached if address]),
            variables=catalogue.options(self._memory.variables),
            transfer=spec.MARIABACKUP if self._memory.data_bytes >= _LARGE else spec.RSYNC,
            donors=tuple(other for other in reversed(order) if other != one.id),
        )

    def as_members(self, own: Sequence[node.ServiceNode]) -> tuple[spec.Member, ...]:
        """The members in the order in which they become the writer."""
        by_id = {one.id: one for one in own}
        ports = self._memory.ports
        default = self._ports["SQL_PORT"]
        return tuple(members.member_of(by_id[key], ports.get(key, {}).get("port", default)) for key in self._memory.in_order(list(by_id)))

    def _start(
        self,
        go: rounds.Round,
        one: node.ServiceNode,
        own: Sequence[node.ServiceNode],
        nodes: Sequence[node.ServiceNode],
        *,
        bootstrap: bool = False,
    ) -> Mapping[str, Any]:
        device = self._disks.of(one)
        wanted = self.settings_for(one, own, nodes)
        answer = agents.persistently(
            lambda: client.start_mysqld(self._agents, one, wanted, bootstrap=bootstrap, device=device), self._patience
        )
        self._memory.put_ports(one.id, {"port": int(answer["port"])})
        return answer

    def _wait_synced(self, go: rounds.Round, joining: Sequence[node.ServiceNode], note: Note) -> None:
        """Return when all of them take requests. Raises OperationFailed with the member's own words when one gets nowhere.

        A lenient round waits for nobody: whoever is not ready is passed over.
        """
        watches = {one.id: Watch(one.id) for one in joining}
        waiting = list(joining)
        pause = _PAUSE
        while waiting:
            looks = self.look(go, waiting)
            for one in list(waiting):
                if one.id in go.silent or members.is_synced(looks[one.id]) or members.is_full(looks[one.id]):
                    waiting.remove(one)
                elif go.lenient:
                    go.silent.add(one.id)
                    go.reasons[one.id] = f"it is {spec.state_of(looks[one.id])}"
                else:
                    watches[one.id].see(looks[one.id], note)
            if waiting:
                time.sleep(pause)
                pause = min(pause * 1.2, 1.0)

    # Load balancers

    def balance(self, go: rounds.Round, nodes: Sequence[node.ServiceNode]) -> None:
        """Have all load balancers know the members."""
        own, balancers = members.of_role(nodes, spec.MYSQL), members.of_role(nodes, spec.GLB)
        if not balancers or not own:
            return
        wanted = self._memory.numbered(self.as_members(own), self._ports["HEALTH_PORT"])
        for key, answer in go.each(balancers, lambda one: client.configure_balancer(self._agents, one, wanted)).items():
            self._memory.put_ports(key, {"port": int(answer["port"]), "read_port": int(answer["read_port"])})

    # Leaving

    def leave(
        self, go: rounds.Round, leaving: Sequence[node.ServiceNode], staying: Sequence[node.ServiceNode], seconds: float, note: Note
    ) -> None:
        """Take nodes out in order: no new sessions, then none at all, then out of the cluster.

        Raises OperationFailed, before anything is done, if nobody could take over.
        """
        own = members.of_role(leaving, spec.MYSQL)
        balancers = members.of_role(staying, spec.GLB)
        if own:
            left = members.of_role(staying, spec.MYSQL)
            members.check_staying(self.look(go, left), ())
            self._memory.put_in_order(self._memory.in_order([one.id for one in left]))
            note(f"Waiting for the sessions on {', '.join(one.id for one in own)} to end")
            self._drain(go, own, balancers, seconds)
            self.balance(go, staying)
        for one in own:
            self._stop(one)
        for one in members.of_role(leaving, spec.GLB):
            self._stop_balancer(one, seconds)

    def _drain(self, go: rounds.Round, own: Sequence[node.ServiceNode], balancers: Sequence[node.ServiceNode], seconds: float) -> None:
        """Nobody begins a session on a member any more; those under way may end, for at most `seconds`."""
        self._memory.renumber()  # a member that stays after all is listed by a newer configuration, which ends the draining
        for one in own:
            go.each(balancers, lambda balancer, one=one: client.drain_member(self._agents, balancer, one.id, round(seconds)))  # type: ignore[misc]
        gone = self._agents.each(own, lambda one: client.drain_mysqld(self._agents, one, round(seconds)))
        for key, outcome in gone.items():
            if isinstance(outcome, errors.ConPaaSError):
                log.warning("the sessions on %s are cut off: %s", key, outcome)

    def restart(self, go: rounds.Round, one: node.ServiceNode, nodes: Sequence[node.ServiceNode], seconds: float, note: Note) -> None:
        """Restart a member; returns when it takes requests again.

        The only member begins its cluster anew, for nobody else could let it in.
        """
        own = members.of_role(nodes, spec.MYSQL)
        if len(own) > 1:
            self._drain(go, [one], members.of_role(nodes, spec.GLB), seconds)
            agents.persistently(lambda: client.restart_mysqld(self._agents, one), self._patience)
            agents.persistently(lambda: client.set_health(self._agents, one, on=True), self._patience)
        else:
            self._memory.founder = one.id
            agents.persistently(lambda: client.stop_mysqld(self._agents, one, _ORDERLY), self._patience)
            self._start(go, one, own, nodes, bootstrap=True)
        self._wait_synced(go, [one], note)
        self.balance(go, nodes)

    def _stop(self, one: node.ServiceNode) -> None:
        try:
            agents.persistently(lambda: client.stop_mysqld(self._agents, one, _ORDERLY), self._patience)
        except errors.ConPaaSError as error:
            log.warning("the member %s does not leave in order, the others will notice that it is gone: %s", one.id, error)

    def _stop_balancer(self, one: node.ServiceNode, seconds: float) -> None:
        try:
            agents.persistently(lambda: client.stop_balancer(self._agents, one, round(seconds)), self._patience)
        except errors.ConPaaSError as error:
            log.warning("the load balancer %s does not end in order: %s", one.id, error)

    def shut_down(self, nodes: Sequence[node.ServiceNode], seconds: float) -> None:
        """Have everything end in order: load balancers, then one member after the other, the writer last, which then has it all."""
        for one in members.of_role(nodes, spec.GLB):
            self._stop_balancer(one, seconds)
        own = {one.id: one for one in members.of_role(nodes, spec.MYSQL)}
        for key in reversed(self._memory.in_order(list(own))):
            self._stop(own[key])


class NoMajority(errors.OperationFailed):
    """Nobody may begin the cluster before others, who may hold rows that these lack, answer or are replaced."""


class Watch:
    """Whether a member that joins gets anywhere."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._seen: tuple[Any, ...] = ()
        self._since = time.monotonic()
        self._failures = 0
        self._down = False

    def see(self, look: Look, note: Note) -> None:
        """Take notice of what the member says. Raises OperationFailed when it fails again and again, or nothing happens for too long."""
        now = time.monotonic()
        seen = (look.get("daemon"), look.get("state"), look.get("cluster_status"), look.get("data_bytes"), look.get("sst"))
        if seen[1] != (self._seen[1] if self._seen else None) and seen[1]:
            note(f"{self._name}: {seen[1]}")
        if seen != self._seen:
            self._seen, self._since = seen, now
        down = look.get("daemon") in ("STOPPED", "STARTING")
        if down and not self._down:
            self._failures += 1
        self._down = down
        if self._failures >= _FAILURES or now - self._since > _STALLED:
            reason = look.get("reason") or f"it has been {spec.state_of(look)} for {now - self._since:.0f} seconds"
            raise errors.OperationFailed(f"The member {self._name} does not get into the cluster: {reason}")


def unread_sentence(nodes: Sequence[str]) -> str:
    """Why nobody begins while the disks of some former nodes have not been looked at."""
    return f"The cluster has no majority, and the disk of {', '.join(nodes)}, which is gone, may hold rows that the others lack."


def furthest(positions: Mapping[str, Mapping[str, Any]], uuid: str, order: Sequence[str]) -> str:
    """The node that has most of the cluster's history; of several, the first in order.

    Raises OperationFailed when nobody has any of it.
    """
    known = {key: int(found["seqno"]) for key, found in positions.items() if found.get("uuid") == uuid and int(found["seqno"]) >= 0}
    if not known:
        told = "; ".join(f"{key} has {found.get('uuid')}:{found.get('seqno')}" for key, found in sorted(positions.items()))
        raise errors.OperationFailed(
            f"No node has the data of this cluster ({uuid}): {told}.",
            hint="restore a backup, into a new service if this one does not run, or remove it and add it anew",
        )
    return max(known, key=lambda key: (known[key], -order.index(key)))
