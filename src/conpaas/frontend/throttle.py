"""Slowing down who guesses passwords here.

The Director slows down guessers by their addresses, and for it everybody who signs in here has the same one. So that one guesser does not
use up what all may fail, each browser's address has a share of its own.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable
from typing import Final

from conpaas.core import errors

FREE: Final = 8
WINDOW: Final = 900.0
"""Seconds after which failures are forgotten."""

_MOST: Final = 10_000


def network(address: str) -> str:
    """What one customer has: an address of IPv4, all of a /64 of IPv6."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:60]
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else str(found)


class Throttle:
    """Failed sign-ins by address, in memory. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failed: dict[str, list[float]] = {}

    @property
    def known(self) -> int:
        """How many addresses have failed lately."""
        return len(self._failed)

    def check(self, address: str) -> None:
        """Raise Forbidden while this address has failed too often."""
        with self._lock:
            recent = self._recent(network(address))
            if len(recent) < FREE:
                return
            minutes = int((recent[-FREE] + WINDOW - self._clock()) // 60) + 1
        raise errors.Forbidden(f"Too many failed sign-ins from your address; try again in {minutes} minutes.")

    def failed(self, address: str) -> None:
        """Count a failure."""
        key = network(address)
        with self._lock:
            recent = [*self._recent(key), self._clock()][-FREE:]
            self._failed.pop(key, None)
            if len(self._failed) >= _MOST:  # the one that has not failed for the longest time gives way
                del self._failed[next(iter(self._failed))]
            self._failed[key] = recent

    def succeeded(self, address: str) -> None:
        """Forget the failures of an address."""
        with self._lock:
            self._failed.pop(network(address), None)

    def _recent(self, key: str) -> list[float]:
        since = self._clock() - WINDOW
        return [at for at in self._failed.get(key, ()) if at > since]
