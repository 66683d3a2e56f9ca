"""Where sessions are kept: in stores on two nodes at once (on the one, if there is only one), all written by every backend.

A store that leaves is replaced before it is stopped: the new one first takes over what an old one has, then the backends are told, then it
takes over once more what they wrote in between.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from conpaas.core import agents, errors, node, rounds
from conpaas.services.webservers.agent import client
from conpaas.services.webservers.manager import state

COPIES: Final = 2

log = logging.getLogger(__name__)


def choose(members: Sequence[str], present: Sequence[str], silent: Sequence[str] = ()) -> list[str]:
    """The nodes that keep sessions: those that do already and are still there, then the oldest others that answer."""
    kept = [one for one in present if one in members and one not in silent]
    others = [one for one in members if one not in kept and one not in silent]
    return [*kept, *others][:COPIES]


class Sessions:
    """The session stores of one service."""

    def __init__(self, caller: agents.AgentCaller, memory: state.SiteState) -> None:
        self._agents = caller
        self._memory = memory

    def provide(
        self,
        go: rounds.Round,
        members: Sequence[node.ServiceNode],
        backends: Sequence[node.ServiceNode],
        leaving: Sequence[node.ServiceNode],
    ) -> None:
        """Have the stores run that there shall be, and tell the backends, those that leave as far as they answer."""
        secret = self._memory.session_secret
        former = self._memory.stores
        by_id = {one.id: one for one in members}
        chosen = choose(list(by_id), [one.node for one in former], sorted(go.silent))
        known = [one for one in former if one.node in chosen]
        new = [by_id[key] for key in chosen if key not in [one.node for one in known]]
        old = [by_id[one.node] for one in known]
        alive = {one.id for one in leaving}
        sources = known or [one for one in former if one.node in alive]
        places = go.each(old, lambda one: client.start_session_store(self._agents, one, secret))
        places |= go.each(new, lambda one: self._start(one, sources))
        stores = [state.Store(key, str(places[key]["ip"]), int(places[key]["port"])) for key in chosen if key in places]
        if not stores:  # nobody answers; what is told to backends stays
            return
        addresses = [one.address() for one in stores]
        go.each(backends, lambda one: client.use_session_stores(self._agents, one, secret, addresses))
        for key, outcome in self._agents.each(leaving, lambda one: client.use_session_stores(self._agents, one, secret, addresses)).items():
            if isinstance(outcome, errors.ConPaaSError):
                log.warning("node %s, which leaves, cannot be told of the session stores: %s", key, outcome)
        if sources:
            go.each([one for one in new if one.id in places], lambda one: self._start(one, sources))  # what was written in between
        self._memory.stores = stores

    def _start(self, one: node.ServiceNode, sources: Sequence[state.Store]) -> dict[str, Any]:
        """Start a store with the content of the first other one that can be had; empty if there is none."""
        secret = self._memory.session_secret
        for source in sources:
            try:
                return client.start_session_store(self._agents, one, secret, source.address())
            except errors.Unreachable:
                raise
            except errors.RemoteError as error:
                log.warning("the session store on %s cannot take over what the one on %s has: %s", one.id, source.node, error)
        return client.start_session_store(self._agents, one, secret)
