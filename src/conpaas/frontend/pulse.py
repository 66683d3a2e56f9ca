"""Whether anything of a user's changed at the Director: one question for everybody who has a page open, instead of one for each.

A Director that does not know the question is not asked it again for a while; each page asks for itself meanwhile.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from conpaas.client import replies

log = logging.getLogger(__name__)

FRESH: Final = 0.5
"""Seconds that an answer counts."""
IDLE: Final = 30.0
"""Seconds after which a user whom nobody asked about is left out."""
MOST: Final = 1000
OLD: Final = 600.0
"""Seconds after which a Director that did not know the question is asked again."""


class Pulse:
    """The versions of all users who look at something. Thread-safe; who calls while the Director is being asked waits for the answer.

    `ask` posts to the Director as nobody in particular; `changed` is called with the uid of everybody whose version is another one.
    """

    def __init__(
        self, ask: Callable[[str, dict[str, Any]], Any], changed: Callable[[int], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._changed = changed
        self._clock = clock
        self._lock = threading.Lock()
        self._watches: dict[int, tuple[str, float]] = {}
        self._wanted: dict[int, float] = {}
        self._versions: dict[int, str] = {}
        self._asked_at = float("-inf")
        self._silent_until = float("-inf")

    def version(self, uid: int, watch: Callable[[], Any]) -> str:
        """The version of a user's things; empty where it is unknown. `watch` asks the Director for a watch, as the user.

        Raises what the Director says.
        """
        if self._clock() < self._silent_until:
            return ""
        self._take_watch(uid, watch)
        with self._lock:
            now = self._clock()
            self._wanted[uid] = now
            news = self._ask_all(now) if now - self._asked_at >= FRESH or uid not in self._versions else []
            version = self._versions.get(uid, "")
        for other in news:
            if other != uid:
                self._changed(other)
        return version

    def give_up(self) -> None:
        """The Director does not know the question; no version is known until it is asked again."""
        self._silent_until = self._clock() + OLD
        log.info("the Director cannot tell of many users at once: each page asks for itself")

    def _take_watch(self, uid: int, watch: Callable[[], Any]) -> None:
        known = self._watches.get(uid)
        if known is None or known[1] <= self._clock():
            reply = replies.mapping(watch(), "a watch")
            seconds = replies.number(reply.get("seconds"))
            self._watches[uid] = (replies.text(reply.get("watch")), self._clock() + seconds / 2)

    def _ask_all(self, now: float) -> list[int]:
        """Ask about everybody who was asked about lately; who has changed."""
        for uid in [uid for uid, at in self._wanted.items() if now - at > IDLE]:
            del self._wanted[uid]
            self._forget(uid)
        latest = sorted(self._wanted, key=self._wanted.__getitem__, reverse=True)[:MOST]
        held = {uid: self._watches[uid][0] for uid in latest if uid in self._watches}
        reply = replies.mapping(self._ask("/changes", {"watches": json.dumps(list(held.values()))}), "versions")
        self._asked_at = now
        news = []
        for uid, version in zip(held, replies.sequence(reply.get("versions"), "versions"), strict=True):
            if version is None:
                self._forget(uid)
                continue
            if self._versions.get(uid, version) != version:
                news.append(uid)
            self._versions[uid] = str(version)
        return news

    def _forget(self, uid: int) -> None:
        self._watches.pop(uid, None)
        self._versions.pop(uid, None)
