"""Where connections are accepted and wait: one thread, one selector, no worker."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from conpaas.core.https import connection, limits

log = logging.getLogger(__name__)

SWEEP_INTERVAL: Final = 1.0
"""Seconds between two looks for connections that have waited too long."""

_ACCEPTED_AT_ONCE: Final = 64
_STOP_TIMEOUT: Final = 5.0
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Parking:
    """Accepts connections, holds those that wait for input, and closes those that wait too long.

    `ready(conn)` is called for a connection with input, which from then on is not watched until `put` gives it back.
    Only run() takes connections out; put() may be called from any thread.
    """

    def __init__(
        self,
        listener: socket.socket,
        make: Callable[[socket.socket, tuple[str, int]], connection.Connection],
        ready: Callable[[connection.Connection], None],
        bounds: limits.Limits,
    ) -> None:
        self._listener = listener
        self._make = make
        self._ready = ready
        self._limit = _connection_limit(bounds)
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._waker, self._wake_end = socket.socketpair()
        self._waker.setblocking(False)
        self._stop_requested = False
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._wake_end, selectors.EVENT_READ)
        self._accepting = True

    def put(self, conn: connection.Connection) -> None:
        """Wait for more input on a connection; raises OSError, ValueError or KeyError if it cannot be watched."""
        with self._lock:
            self._selector.register(conn.socket.fileno(), selectors.EVENT_READ, data=conn)

    def stop(self) -> None:
        """Make run() return soon."""
        self._stop_requested = True
        with contextlib.suppress(OSError):
            self._waker.send(b"x")

    def run(self) -> None:
        """Watch until stop()."""
        next_sweep = time.monotonic() + SWEEP_INTERVAL
        while not self._stop_requested:
            try:
                events = self._selector.select(timeout=SWEEP_INTERVAL)
            except OSError:
                self._remove_invalid_sockets()
                continue
            for key, _ in events:
                if key.data is not None:
                    self._unregister(key.fd)
                    self._ready(key.data)
            # Accepting may close connections that wait, so it comes after those that have something to say.
            if any(key.fileobj is self._listener for key, _ in events):
                self._accept()
            if time.monotonic() >= next_sweep:
                self._sweep()
                next_sweep = time.monotonic() + SWEEP_INTERVAL

    def _unregister(self, descriptor: int) -> None:
        with self._lock:
            self._selector.unregister(descriptor)

    def _waiting(self) -> list[tuple[int, connection.Connection]]:
        with self._lock:
            return [(key.fd, key.data) for key in self._selector.get_map().values() if key.data is not None]

    def _remove_invalid_sockets(self) -> None:
        for descriptor, conn in self._waiting():
            try:
                os.fstat(descriptor)
            except OSError:
                self._drop(descriptor, conn)

    def _drop(self, descriptor: int, conn: connection.Connection) -> None:
        with contextlib.suppress(KeyError, ValueError, OSError):
            self._unregister(descriptor)
        conn.close()

    def _sweep(self) -> None:
        """Close what has waited too long, and accept again if that had to be interrupted."""
        now = time.monotonic()
        for descriptor, conn in self._waiting():
            if conn.deadline < now and conn.owes_answer:
                conn.expired = True
                self._unregister(descriptor)
                self._ready(conn)
            elif conn.deadline < now:
                self._drop(descriptor, conn)
        if not self._accepting:
            self._accepting = True
            with self._lock:
                self._selector.register(self._listener, selectors.EVENT_READ)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                sock, address = self._listener.accept()
            except (BlockingIOError, TimeoutError):
                return
            except OSError as error:
                self._could_not_accept(error)
                return
            self._make_room()
            self.put(self._make(sock, address))

    def _could_not_accept(self, error: OSError) -> None:
        """Out of descriptors or memory: give some back, and pause accepting until the next sweep. Else the peer is gone."""
        if error.errno in _EXHAUSTED:
            log.warning("cannot accept a connection: %s; closing one that waits", error.strerror)
            self._evict(1)
            with self._lock:
                self._selector.unregister(self._listener)
            self._accepting = False

    def _make_room(self) -> None:
        excess = len(self._selector.get_map()) - 2 - self._limit
        if excess >= 0:
            self._evict(max(excess + 1, self._limit // 20))

    def _evict(self, count: int) -> None:
        """Close the connections whose time is up soonest, those without a finished handshake first."""
        candidates = sorted(self._waiting(), key=lambda item: (item[1].established, item[1].deadline))
        for descriptor, conn in candidates[:count]:
            self._drop(descriptor, conn)

    def close(self) -> None:
        """Close all connections that wait; only after run() has returned."""
        for descriptor, conn in self._waiting():
            self._drop(descriptor, conn)
        self._selector.close()
        self._waker.close()
        self._wake_end.close()


def _connection_limit(bounds: limits.Limits) -> int:
    """The limit on waiting connections: what is configured, but leaving a quarter of the process's descriptors free."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return bounds.connections if soft == resource.RLIM_INFINITY else max(1, min(bounds.connections, soft * 3 // 4))
