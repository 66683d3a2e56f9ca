"""Slowing down who guesses passwords here.

The Director slows down guessers by their addresses, and for it everybody who signs in here has the same one. So that one guesser does not
use up what all may fail, each browser's address has a share of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from conpaas.core import errors

FREE: Final = 8
WINDOW: Final = 900.0
"""Seconds after which failures are forgotten."""

_MOST: Final = 10_000


class Throttle:
    """Failed sign-ins by address, in memory. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failed: dict[str, list[float]] = {}

    def check(self, address: str) -> None:
        """Raise Forbidden while this address has failed too often."""
        with self._lock:
            recent = self._recent(address)
            if len(recent) < FREE:
                return
            minutes = int((recent[-FREE] + WINDOW - self._clock()) // 60) + 1
        raise errors.Forbidden(f"Too many failed sign-ins from your address; try again in {minutes} minutes.")

    def failed(self, address: str) -> None:
        """Count a failure."""
        with self._lock:
            if len(self._failed) >= _MOST:
                self._failed = {known: recent for known in self._failed if (recent := self._recent(known))}
            self._failed[address] = [*self._recent(address), self._clock()][-FREE:]

    def succeeded(self, address: str) -> None:
        """Forget the failures of an address."""
        with self._lock:
            self._failed.pop(address, None)

    def _recent(self, address: str) -> list[float]:
        since = self._clock() - WINDOW
        return [at for at in self._failed.get(address, ()) if at > since]
