"""Bringing the nodes of a web hosting service to where they shall be, through their agents.

`converge` is the one way: it may be called again and again, after a crash, after half of it was done, after a node was lost. It works from
the back to the front, so that nothing is ever used before it works: code, session stores, backends, static web servers, and proxies last.
What is no longer used is left running until `tidy` finds that the proxies have no request left that could use it.
"""

from __future__ import annotations

import dataclasses
import logging
import pathlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from conpaas.core import agents, errors, node, rounds
from conpaas.services.webservers import spec
from conpaas.services.webservers.agent import client
from conpaas.services.webservers.manager import placement, sessions, sites, state

log = logging.getLogger(__name__)

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What is ready to be used: the labels of the nodes, and the ports of backends and static web servers by node id."""

    labels: Mapping[str, str]
    backends: Mapping[str, int]
    webs: Mapping[str, int]

    def playing(self, role: str, nodes: Iterable[node.ServiceNode]) -> list[node.ServiceNode]:
        return [one for one in nodes if role in placement.roles_of(self.labels[one.id])]


class Cluster:
    """The nodes of one service, seen through their agents. `archive` finds the archive of a code version, `made` tells when it was made."""

    def __init__(
        self,
        caller: agents.AgentCaller,
        memory: state.SiteState,
        archive: Callable[[str], pathlib.Path],
        made: Callable[[str], float],
        set_role: Callable[[str, str], None],
        patience: float,
    ) -> None:
        self._agents = caller
        self._memory = memory
        self._archive = archive
        self._made = made
        self._set_role = set_role
        self._patience = patience
        self._sessions = sessions.Sessions(caller, memory)

    def round(self, *, tolerated: Iterable[node.ServiceNode] = (), lenient: bool = False, patience: float | None = None) -> rounds.Round:
        ids = [one.id for one in tolerated]
        return rounds.Round(self._agents, patience=self._patience if patience is None else patience, tolerated=ids, lenient=lenient)

    # All at once

    def converge(
        self, go: rounds.Round, members: Sequence[node.ServiceNode], wanted: sites.Site, leaving: Sequence[node.ServiceNode] = ()
    ) -> None:
        """Have the members serve a site, each in the role it settles in; returns when all proxies that answer work with it.

        Nodes in `leaving` still work on requests they have. In a lenient round nobody may answer; the rest is left for later then.
        """
        self._memory.untidy = True
        if go.lenient:
            self._memory.incomplete = True
        try:
            self._converge(go, members, wanted, leaving)
        except rounds.NobodyAnswers as error:
            if not go.lenient:
                raise
            log.warning("the nodes stay as they are for now: %s", error)

    def _converge(
        self, go: rounds.Round, members: Sequence[node.ServiceNode], wanted: sites.Site, leaving: Sequence[node.ServiceNode]
    ) -> None:
        ready = self.prepare(go, members, wanted, leaving)
        self.switch(go, members, wanted, ready)
        for one in members:
            if one.role != ready.labels[one.id]:
                self._set_role(one.id, ready.labels[one.id])
        self.schedule(go, members, wanted, ready)
        self._memory.incomplete = bool(go.silent)

    def prepare(
        self, go: rounds.Round, members: Sequence[node.ServiceNode], wanted: sites.Site, leaving: Sequence[node.ServiceNode] = ()
    ) -> Prepared:
        """Have all that proxies will need work, without letting them use it. Starts over for every node that falls silent meanwhile."""
        while True:
            silent = set(go.silent)
            ready = self._prepare(go, members, wanted, leaving)
            if go.silent == silent:
                return ready
            if not any(one.id not in go.silent for one in members):
                raise rounds.NobodyAnswers(f"No node of the service answers: {'; '.join(f'{k}: {v}' for k, v in go.reasons.items())}")

    def _prepare(
        self, go: rounds.Round, members: Sequence[node.ServiceNode], wanted: sites.Site, leaving: Sequence[node.ServiceNode]
    ) -> Prepared:
        labels = placement.settle(placement.placed(members), go.silent)
        plan = Prepared(labels, {}, {})
        versions = self.stage(go, members, wanted.version)
        backends, webs = plan.playing(spec.BACKEND, members), plan.playing(spec.WEB, members)
        still = [one for one in members if one not in backends]  # backends of before may have requests left, and untidied processes
        self._sessions.provide(go, members, [*backends, *still], leaving)
        release = wanted.release
        started = go.each(backends, lambda one: client.start_backend(self._agents, one, release.number, release.version, release.settings))
        settings = wanted.configuration.site_settings()
        served = go.each(
            webs, lambda one: client.configure_web(self._agents, one, self._served(wanted.version, versions.get(one.id, ())), settings)
        )
        return Prepared(labels, started, served)

    def stage(self, go: rounds.Round, members: Iterable[node.ServiceNode], version: str) -> dict[str, list[str]]:
        """Bring a code version to the nodes that lack it; returns what lies on each node."""

        def stage_one(one: node.ServiceNode) -> list[str]:
            there = client.list_code(self._agents, one)
            if version in there:
                return there
            client.stage_code(self._agents, one, version, self._archive(version), self._made(version))
            return [*there, version]

        return go.each(members, stage_one)

    def _served(self, version: str, there: Collection[str]) -> list[str]:
        """The code versions that a static web server must have: the wanted one, and those that proxies may still ask for."""
        in_force = self._memory.in_force
        wanted = [version, *([in_force.version] if in_force else []), *self._memory.draining]
        return [one for one in dict.fromkeys(wanted) if one in there]

    def proxy_config(self, members: Sequence[node.ServiceNode], wanted: sites.Site, ready: Prepared) -> spec.ProxyConfig:
        """What proxies shall work with; it has no serial yet."""
        chosen = wanted.configuration

        def upstreams(role: str, ports: Mapping[str, int]) -> tuple[spec.Upstream, ...]:
            return tuple(spec.Upstream(one.ip, ports[one.id], chosen.weight(role, one.id)) for one in members if one.id in ports)

        return spec.ProxyConfig(
            serial=0,
            code_version=wanted.version,
            web=upstreams(spec.WEB, ready.webs),
            backends=upstreams(spec.BACKEND, ready.backends),
            site=chosen.site_settings(),
            domains=chosen.domains,
        )

    def bypass_webs(self, go: rounds.Round, members: Sequence[node.ServiceNode], current: sites.Site, seconds: float) -> None:
        """Have the proxies serve files themselves, so that the static web servers can be given another document root unseen."""
        ready = dataclasses.replace(self.prepare(go, members, current), webs={})
        self.switch(go, members, current, ready)
        busy = self._wait(self._undrained, ready.playing(spec.PROXY, members), seconds)
        if busy:
            log.warning("the proxies %s still have requests for the former document root", ", ".join(busy))

    def switch(self, go: rounds.Round, members: Sequence[node.ServiceNode], wanted: sites.Site, ready: Prepared) -> None:
        """Have all proxies work with what is ready, at once."""
        configuration = self._memory.put_in_force(self.proxy_config(members, wanted, ready))
        proxies = ready.playing(spec.PROXY, members)
        answers = go.each(proxies, lambda one: client.configure_proxy(self._agents, one, configuration))
        if proxies and not answers:
            raise rounds.NobodyAnswers(f"No proxy answers: {'; '.join(go.reasons.get(one.id, one.id) for one in proxies)}")
        kept = {one.id for one in proxies}
        known = {key: ports for key, ports in self._memory.proxy_ports.items() if key in kept}
        self._memory.proxy_ports = {**known, **{key: {"port": a.get("port"), "tls_port": a.get("tls_port")} for key, a in answers.items()}}

    def schedule(self, go: rounds.Round, members: Sequence[node.ServiceNode], wanted: sites.Site, ready: Prepared) -> None:
        """Have the cron entries run on the first backend, and nowhere else."""
        entries = wanted.configuration.cron
        former = self._memory.cron_node
        chosen = next((one for one in members if one.id in ready.backends and one.id not in go.silent), None)
        if not entries and former is None:
            return
        others = [one for one in members if one.id == former and one != chosen]
        go.each(others, lambda one: client.set_cron(self._agents, one, ()))
        if chosen is not None:
            go.each([chosen], lambda one: client.set_cron(self._agents, one, entries))
        self._memory.cron_node = chosen.id if chosen is not None and entries else None

    # Taking things out of use

    def retire(self, leaving: Sequence[node.ServiceNode], staying: Sequence[node.ServiceNode], seconds: float) -> list[str]:
        """Let requests on nodes that leave come to their end, for at most `seconds`; returns the ids of proxies that were not done then.

        The proxies that stay no longer send anything there.
        """
        if any(one.id == self._memory.cron_node for one in leaving):
            self._memory.cron_node = None
        ends = {one.id for one in leaving}
        proxies = [one for one in (*leaving, *staying) if spec.PROXY in placement.roles_of(one.role)]
        return self._wait(lambda one: not self._ended(one) if one.id in ends else self._undrained(one), proxies, seconds)

    def _ended(self, one: node.ServiceNode) -> bool:
        """Tell the proxy of a node to end (again, should it not have heard); whether it has."""
        if client.proxy_state(self._agents, one)["state"] != "RUNNING":
            return True
        client.stop_proxy(self._agents, one)
        return bool(client.proxy_state(self._agents, one)["state"] != "RUNNING")

    def _undrained(self, one: node.ServiceNode) -> bool:
        """Whether a proxy still has requests of a configuration before the one in force."""
        in_force = self._memory.in_force
        return in_force is not None and _older(client.proxy_state(self._agents, one)["oldest_serial"], in_force.serial)

    def _wait(self, busy: Callable[[node.ServiceNode], bool], proxies: Sequence[node.ServiceNode], seconds: float) -> list[str]:
        """Wait until no proxy is busy, for at most `seconds`; returns the ids of those that still are.

        One that gives no answer is given some time to come back; after that nobody waits for it.
        """
        begun = time.monotonic()
        pause = _FIRST_PAUSE
        left = list(proxies)
        while True:
            answers = self._agents.each(left, busy)
            passed = time.monotonic() - begun
            lost = {key for key, found in answers.items() if isinstance(found, errors.Unreachable) and passed >= self._patience}
            left = [one for one in left if one.id not in lost and answers[one.id] is not False]
            if not left or passed >= seconds:
                return [one.id for one in left]
            time.sleep(min(pause, max(0.0, seconds - passed)))
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def shut_down(self, members: Sequence[node.ServiceNode]) -> None:
        """Have everything end in order: proxies first. What fails is only logged, for the nodes go away."""
        for role, stop in (
            (spec.PROXY, lambda one: client.stop_proxy(self._agents, one)),
            (spec.WEB, lambda one: client.stop_web(self._agents, one)),
            (spec.BACKEND, lambda one: client.keep_releases(self._agents, one, self._memory.site.kind, ())),
        ):
            playing = [one for one in members if role in placement.roles_of(one.role)]
            for key, outcome in self._agents.each(playing, stop).items():
                if isinstance(outcome, errors.ConPaaSError):
                    log.warning("the %s on %s cannot be stopped: %s", role, key, outcome)

    def behind(self, members: Sequence[node.ServiceNode]) -> bool:
        """Whether a proxy works with another configuration than the one in force, as one that was cut off for a while does."""
        in_force = self._memory.in_force
        proxies = [one for one in members if spec.PROXY in placement.roles_of(one.role)]
        found = self._agents.each(proxies, lambda one: client.proxy_state(self._agents, one))
        good = [one for one in found.values() if not isinstance(one, errors.ConPaaSError)]
        return in_force is not None and any(one["serial"] != in_force.serial for one in good)

    def tidy(self, members: Sequence[node.ServiceNode], keep_versions: Sequence[str]) -> bool:
        """End and remove what no request can use any more; whether all is done. Returns at once if requests are still under way.

        Of code, `keep_versions` stay besides the one in use.
        """
        in_force, current = self._memory.in_force, self._memory.site
        proxies = [one for one in members if spec.PROXY in placement.roles_of(one.role)]
        found = self._agents.each(proxies, lambda one: client.proxy_state(self._agents, one))
        if in_force is None:
            return False
        for answer in found.values():
            if isinstance(answer, errors.ConPaaSError) or _older(answer["oldest_serial"], in_force.serial):
                return False
        settings = current.configuration.site_settings()
        stores = {one.node for one in self._memory.stores}

        def tidy_one(one: node.ServiceNode) -> None:
            roles = placement.roles_of(one.role)
            client.keep_releases(self._agents, one, current.kind, [current.release.number] if spec.BACKEND in roles else [])
            if spec.WEB not in roles:
                client.stop_web(self._agents, one)
            elif self._memory.draining:
                client.configure_web(self._agents, one, [current.version], settings)
            if spec.PROXY not in roles:
                client.stop_proxy(self._agents, one)
            if one.id not in stores:
                client.stop_session_store(self._agents, one)
            client.keep_code(self._agents, one, [current.version, *keep_versions])

        failed = {k: v for k, v in self._agents.each(members, tidy_one).items() if isinstance(v, errors.ConPaaSError)}
        for key, error in failed.items():
            log.warning("node %s cannot be tidied up: %s", key, error)
        if failed:
            return False
        self._memory.drained()
        return True

    # Looking

    def check(
        self, members: Sequence[node.ServiceNode], wanted: sites.Site, ready: Prepared, path: str, seconds: float
    ) -> list[dict[str, Any]]:
        """Ask all servers for a path through a proxy of its own, on the first proxy that answers; see `client.check_site`."""
        configuration = self.proxy_config(members, wanted, ready)

        def ask() -> list[dict[str, Any]]:
            problem: errors.ConPaaSError = errors.OperationFailed("The service has no proxy.")
            for one in ready.playing(spec.PROXY, members):
                try:
                    return client.check_site(self._agents, one, configuration, path, seconds)
                except errors.Unreachable as error:
                    problem = error
            raise problem

        return agents.persistently(ask, self._patience)

    def release_errors(self, nodes: Sequence[node.ServiceNode], release: int) -> dict[str, list[str]]:
        """The fatal errors that a release logged, by node id; nodes without any are not in it."""

        def ask(one: node.ServiceNode) -> list[str]:
            return agents.persistently(lambda: client.release_errors(self._agents, one, release), self._patience)

        found = self._agents.each(nodes, ask)
        return {key: list(said) for key, said in found.items() if said and not isinstance(said, errors.ConPaaSError)}


def _older(oldest: int | None, serial: int) -> bool:
    """Whether a proxy has requests of a configuration before `serial`; None: it has none at all."""
    return oldest is not None and int(oldest) < serial
