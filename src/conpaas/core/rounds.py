"""One go at the nodes of a service, some of which may not answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from conpaas.core import agents, errors, node

T = TypeVar("T")

log = logging.getLogger(__name__)


class NobodyAnswers(errors.OperationFailed):
    """None of the nodes answers that something depends on."""


class Round:
    """One go at the nodes: whom it may pass over when they fail, and whom it has.

    A node in `tolerated` that does not answer becomes `silent`; if `lenient`, so does one that answers with an error. All else raises.
    """

    def __init__(self, caller: agents.AgentCaller, *, patience: float, tolerated: Iterable[str] = (), lenient: bool = False) -> None:
        self.caller = caller
        self.silent: set[str] = set()
        self.reasons: dict[str, str] = {}
        self._patience = patience
        self._tolerated = frozenset(tolerated)
        self.lenient = lenient

    def each(self, nodes: Iterable[node.ServiceNode], function: Callable[[node.ServiceNode], T]) -> dict[str, T]:
        """Apply an idempotent function to those of the nodes that answer, in parallel; results by node id.

        Raises OperationFailed naming every node that failed and may not.
        """
        asked = [one for one in nodes if one.id not in self.silent]
        good: dict[str, T] = {}
        bad: list[str] = []
        for key, result in self.caller.each(asked, lambda one: agents.persistently(lambda: function(one), self._patience)).items():
            if not isinstance(result, errors.ConPaaSError):
                good[key] = result
            elif key in self._tolerated and (self.lenient or isinstance(result, errors.Unreachable)):
                self.silent.add(key)
                self.reasons[key] = str(result)
                log.warning("node %s is passed over: %s", key, result)
            else:
                bad.append(f"{key}: {result}")
        if bad:
            raise errors.OperationFailed(f"{len(bad)} of {len(asked)} nodes failed: {'; '.join(bad)}")
        return good
