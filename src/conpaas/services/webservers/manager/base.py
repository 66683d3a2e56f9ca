"""What every part of the web hosting manager shares: the site's durable state, the cluster, and one lock over both."""

from __future__ import annotations

import threading
from typing import ClassVar, Final

from conpaas.core import code_manager, errors, service_parts
from conpaas.core.https import identity
from conpaas.core.states import State
from conpaas.services.webservers import spec
from conpaas.services.webservers.manager import cluster, sites, state

_PATIENCE: Final = 10.0
"""Seconds an agent may give no answer (it restarts, the network hiccups) before that is a failure."""

CHANGEABLE: Final = (State.INIT, State.STOPPED, State.RUNNING)


class WebBase(code_manager.CodeManager):
    """The foundation of `WebManager`.

    `guard` is held by whoever works on the nodes or on the configuration: the steps of operations, and the housekeeping beside them.
    """

    kind: ClassVar[str] = spec.PHP
    accepts_variables = True

    def __init__(self, context: service_parts.ManagerContext) -> None:
        super().__init__(context)
        self.guard = threading.RLock()
        self.memory = state.SiteState(self.settings)
        patience = self.config.get_float(self.config.main, "AGENT_PATIENCE", _PATIENCE, minimum=0.0)
        made = self._time_of_version
        self.cluster = cluster.Cluster(self.agents, self.memory, self.code.archive, made, self.set_role, patience)

    @property
    def site(self) -> sites.Site:
        """What is served, or will be when the service is started."""
        return self.memory.site

    def previous_version(self) -> str | None:
        """The code version that was enabled before the current one and is still there."""
        known = {record.id for record in self.code_versions.list()}
        current = self.site.version
        older = (entry["codeVersionId"] for entry in reversed(self.memory.releases()))
        return next((version for version in older if version != current and version in known), None)

    def _time_of_version(self, version_id: str) -> float:
        """When a code version was uploaded or pushed, in seconds since 1970."""
        return self.code.get(version_id).time

    def refuse_unless_changeable(self) -> None:
        """Raise the classic `errors.WrongState` unless settings can be changed now."""
        self.check_state(*CHANGEABLE)
        if not self.idle:
            raise errors.WrongState("The service is busy with another request; try again when that has finished.")

    def release_domains(self) -> None:
        """Give up domains that are no longer used; those for which the Director cannot be asked stay to be given up later."""
        left = []
        used = {one.name for one in self.site.configuration.domains}
        for name in self.memory.unclaimed:
            if name in used:
                continue
            try:
                self.director.release_domain(name, self.service_id)
            except errors.ConPaaSError as error:
                self.log.warning("the domain %s cannot be given up yet: %s", name, error)
                left.append(name)
        if self.memory.unclaimed != left:
            self.memory.unclaimed = left


def requester_of(caller: identity.PeerIdentity | str | None) -> str:
    """Who asked, for the history."""
    return str(caller or "")
