"""What happens to the applications of a user whose credits are used up: an orderly stop that keeps what can be kept.

1. Every manager is asked to stop its services, as the user could have: their nodes go, kept disks stay.
2. Nodes that are there after NODE_PATIENCE seconds, because their manager does not answer, are destroyed. Kept disks stay, too.
3. The managers, with settings, code and keys, stay without costing anything for EXHAUSTED_KEEP_HOURS. With credits, services start again.
4. After that the applications are stopped, which leaves nothing of them.

Called again and again until the user has credits; every part is idempotent.
"""

from __future__ import annotations

import datetime
import logging

import sqlalchemy as sa

from conpaas.core import errors
from conpaas.director import credits, inventory, managers, models, notices, runtime
from conpaas.director.lifecycle import parts as lifecycle_parts
from conpaas.director.lifecycle import removal

_log = logging.getLogger(__name__)

NODE_PATIENCE = datetime.timedelta(minutes=15)
RPC_TIMEOUT = 20.0


class Exhaustion:
    """Handles users without credits. `stop_all_of` stops all applications of one, for good."""

    def __init__(
        self, director: runtime.Director, parts: lifecycle_parts.Parts, rpc: managers.Managers, stop_all_of: runtime.Exhausted
    ) -> None:
        self._director = director
        self._parts = parts
        self._managers = rpc
        self._stop_all_of = stop_all_of

    def handle(self, uid: int) -> None:
        """One round for one user, outside any transaction."""
        now = self._director.clock()
        keep = datetime.timedelta(hours=self._director.config.exhausted_keep_hours)
        since = self._begin(uid, now)
        if since is None:
            return
        if now - since >= keep:
            self._stop_all_of(uid)
            return
        with self._parts.database.reader() as session:
            query = sa.select(models.Application.aid).where(models.Application.user_id == uid)
            agents = [machine for aid in session.scalars(query) for machine in inventory.of_application(session, aid, states=("running",))]
        agents = [machine for machine in agents if machine.role == inventory.AGENT]
        if now - since >= NODE_PATIENCE:
            removal.give_up(self._parts, agents)
            removal.destroy(self._parts, agents)
        else:
            lifecycle_parts.each(sorted({machine.app_id for machine in agents}), self._stop_services)
        with self._parts.database.session() as session:
            credits.waive(session, uid, now)

    def _begin(self, uid: int, now: datetime.datetime) -> datetime.datetime | None:
        """Since when the user has no credits; None if there are some after all."""
        with self._parts.database.session() as session:
            user = inventory.lock_user(session, uid)
            if credits.balance(session, uid) > 0:
                user.exhausted = None
            elif user.exhausted is None:
                user.exhausted = now
                notices.add(session, uid, notices.CREDITS_ENDED, {"keep_hours": self._director.config.exhausted_keep_hours}, now)
            return user.exhausted

    def _stop_services(self, aid: int) -> None:
        try:
            self._managers.post(aid, "stopall", timeout=RPC_TIMEOUT)
        except errors.ConPaaSError as error:
            _log.warning("the services of application %s, whose owner has no credits left, are not stopped yet: %s", aid, error)
            raise
