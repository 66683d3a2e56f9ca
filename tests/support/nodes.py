"""What tests of roles on real daemons share: addresses that nobody else uses, and waiting for something."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from typing import Any


class Addresses:
    """Loopback addresses of a network such as `127.61`, none twice in this process."""

    def __init__(self, network: str) -> None:
        self._network = network
        self._numbers = itertools.count(os.getpid() % 200 * 250)

    def new(self) -> str:
        """An address of this machine that no other test of this process uses."""
        number = next(self._numbers)
        return f"{self._network}.{number // 250 % 250 + 1}.{number % 250 + 1}"


def until(condition: Callable[[], Any], what: str, deadline: float = 30.0) -> Any:
    """Poll until `condition()` gives something true, and return that."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {deadline:g} s: {what}"
        time.sleep(0.01)
