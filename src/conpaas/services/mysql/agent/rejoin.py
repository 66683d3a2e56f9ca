"""A member that waits alone for a cluster that is there: Galera asks each other member until the first contact fails half-way, and then no
more. Such a server has not opened its data yet, so it is simply ended, and comes back by its supervisor."""

from __future__ import annotations

import logging
import re
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Final

from conpaas.core import errors

log: Final = logging.getLogger(__name__)
PERIOD: Final = 5.0
PATIENCE: Final = 15.0
"""Seconds for which a server may wait alone."""
_VIEW: Final = re.compile(r"^\s*members\((\d+)\):", re.MULTILINE)
_BUSY: Final = ("State transfer required", "ready for connections.", "InnoDB: Number of transaction pools")
_CONNECT_TIMEOUT: Final = 1.0


def waits_alone(logged: str) -> bool:
    """Whether a server that logged this since its start has met nobody and does nothing else meanwhile."""
    views = _VIEW.findall(logged)
    return "WSREP: Received NON-PRIMARY" in logged and views[-1:] == ["1"] and not any(words in logged for words in _BUSY)


def answers(address: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection((address, port), timeout=_CONNECT_TIMEOUT).close()
    except OSError:
        return False
    return True


class Watch:
    """Calls `look` every `period` seconds (None: every `PERIOD`) until it is closed."""

    def __init__(self, look: Callable[[], None], period: float | None = None) -> None:
        self._look = look
        self._period = period
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin; once is enough."""
        if not self._thread.is_alive() and not self._closing.is_set():
            self._thread.start()

    def close(self) -> None:
        self._closing.set()

    def _run(self) -> None:
        said = ""
        while not self._closing.wait(PERIOD if self._period is None else self._period):
            try:
                self._look()
                said = ""
            except errors.ConPaaSError as error:
                if str(error) != said:
                    log.warning("the database server cannot be looked after just now: %s", error)
                said = str(error)
            except Exception:
                log.exception("the database server cannot be looked after")


def anybody(members: Sequence[tuple[str, int]]) -> bool:
    """Whether any of these listens."""
    return any(answers(address, port) for address, port in members)
