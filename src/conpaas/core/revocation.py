"""Certificates that the Director has revoked before their end: a manager asks for them now and then, and refuses whoever shows one.

So a session that was ended, a password that was changed or an account that was disabled closes the managers' doors within an interval,
too. While the Director is silent, what it told last counts.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from typing import Final

from conpaas.core import errors
from conpaas.core.https import identity

_log = logging.getLogger(__name__)

INTERVAL: Final = 30.0
"""Seconds between two questions."""


class Revocations:
    """The serial numbers of revoked certificates, as `ask` told them last. Thread-safe."""

    def __init__(self, ask: Callable[[], Collection[str]], interval: float = INTERVAL) -> None:
        self._ask = ask
        self._interval = interval
        self._serials: frozenset[str] = frozenset()
        self._trouble = ""
        self._closing = threading.Event()

    def guard(self, callers: identity.CallerPolicy) -> identity.CallerPolicy:
        """The same policy, which also refuses users whose certificate was revoked."""

        def check(peer: identity.PeerIdentity) -> None:
            callers(peer)
            if peer.role == identity.ROLE_USER and peer.serial in self._serials:
                raise errors.Forbidden(
                    "This certificate was revoked.", hint="Sign in again, or get a new one with 'cps-user get_certificate'."
                )

        return check

    def start(self) -> None:
        """Ask from now on, in a thread of its own."""
        threading.Thread(target=self._run, name="revocation", daemon=True).start()

    def close(self) -> None:
        self._closing.set()

    def _run(self) -> None:
        while not self._closing.is_set():
            self.look()
            self._closing.wait(self._interval)

    def look(self) -> None:
        """Ask once; without an answer, what is known stays."""
        trouble = ""
        try:
            self._serials = frozenset(self._ask())
        except errors.ConPaaSError as error:
            trouble = str(error)
        if trouble != self._trouble and not self._closing.is_set():
            _log.info("revoked certificates: %s", trouble or "the Director tells them again")
        self._trouble = trouble
