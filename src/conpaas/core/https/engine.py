"""The server's machinery on top of cheroot: worker threads, and the server object that requests see.

A worker thread is used only while a peer's input is worked on; everything that waits is in `parking`.
"""

from __future__ import annotations

import logging
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from cheroot import wsgi as cheroot_wsgi

from conpaas.core.https import connection, limits, parking

log = logging.getLogger(__name__)

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_STOP_TIMEOUT: Final = 5.0
_SURPLUS_IDLE_TIME: Final = 20.0


class _Worker(threading.Thread):
    """Works on connections, one after another, until there is none for it."""

    def __init__(
        self,
        name: str,
        take: Callable[[_Worker], connection.Connection | None],
        give_back: Callable[[connection.Connection], None],
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.busy = False
        self._take = take
        self._give_back = give_back

    def run(self) -> None:
        while (conn := self._take(self)) is not None:
            self.busy = True
            if conn.communicate():
                self._give_back(conn)
            else:
                conn.close()
            del conn
            self.busy = False


class Workers:
    """Worker threads: a few at first, more as soon as requests would have to wait, fewer again when they are not needed."""

    def __init__(self, name: str, smallest: int, largest: int, give_back: Callable[[connection.Connection], None]) -> None:
        self._name = name
        self._smallest = smallest
        self._largest = largest
        self._give_back = give_back
        self._queue: queue.SimpleQueue[connection.Connection | None] = queue.SimpleQueue()
        self._threads: list[_Worker] = []
        self._count = 0
        self._changing = threading.Lock()

    def start(self) -> None:
        """Start the first workers."""
        for _ in range(self._smallest):
            self._grow()

    def put(self, conn: connection.Connection) -> None:
        """Queue a connection; starts another worker if none is idle and the limit allows it."""
        self._queue.put(conn)
        if len(self._threads) < self._largest and self._queue.qsize() > sum(not worker.busy for worker in self._threads):
            self._grow()

    def _grow(self) -> None:
        with self._changing:
            if len(self._threads) >= self._largest:
                return
            self._count += 1
            worker = _Worker(f"{self._name}-{self._count}", self._take, self._give_back)
            try:
                worker.start()
            except RuntimeError as error:
                log.warning("cannot start another worker: %s", error)
            else:
                self._threads.append(worker)

    def _take(self, worker: _Worker) -> connection.Connection | None:
        """The next connection for a worker; None when it is to end: at shutdown, or idle for long and not needed."""
        while True:
            try:
                return self._queue.get(timeout=_SURPLUS_IDLE_TIME if len(self._threads) > self._smallest else None)
            except queue.Empty:
                if self._dismiss(worker):
                    return None

    def _dismiss(self, worker: _Worker) -> bool:
        """Strike an idle worker off if there are enough without it."""
        with self._changing:
            if len(self._threads) <= self._smallest:
                return False
            self._threads.remove(worker)
        if not self._queue.empty():  # put() counted on this worker
            self._grow()
        return True

    def stop(self) -> None:
        """End the workers; one that does not finish in time is left behind (it does not keep the process alive)."""
        with self._changing:
            threads, self._threads = self._threads, []
        for _ in threads:
            self._queue.put(None)
        end = time.monotonic() + _STOP_TIMEOUT
        for worker in threads:
            if worker is threading.current_thread():
                continue
            worker.join(max(0.0, end - time.monotonic()))
            if worker.is_alive():
                log.warning("a request is still being served at shutdown, in thread %s", worker.name)


class Engine(cheroot_wsgi.Server):
    """cheroot's WSGI server, with connections that shake hands and wait without a worker."""

    ConnectionClass = connection.Connection

    def __init__(self, bind: tuple[str, int], app: WsgiApp, context: ssl.SSLContext, bounds: limits.Limits) -> None:
        super().__init__(bind, app, server_name="ConPaaS", timeout=int(bounds.idle_timeout))
        self.software = "ConPaaS"
        self.context = context
        self.limits = bounds
        self.port = bind[1]
        self._workers = Workers(f"https-{bind[1]}", bounds.min_workers, bounds.max_workers, self.put_conn)
        self._parking: parking.Parking | None = None
        self._served = threading.Event()

    @property
    def can_add_keepalive_connection(self) -> bool:
        """Whether a connection may be kept open after a reply."""
        return self.ready

    def prepare(self) -> None:
        """Listen, and start the workers; raises OSError."""
        host, port = self.bind_addr
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.create_server((host, port), family=family, backlog=self.limits.backlog)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.bind_addr = self.socket.getsockname()[:2]
        self.port = self.bind_addr[1]
        self._parking = parking.Parking(self.socket, self._make_connection, self._workers.put, self.limits)
        self._workers.start()
        self.ready = True

    def _make_connection(self, sock: socket.socket, address: tuple[str, int]) -> connection.Connection:
        return connection.Connection(self, sock, address)

    def serve(self) -> None:
        """Serve until stop(); prepare() comes first."""
        try:
            while self.ready and self._parking is not None:
                self._watch(self._parking)
        finally:
            self._served.set()

    def _watch(self, place: parking.Parking) -> None:
        try:
            place.run()
        except Exception:
            log.exception("watching connections failed; going on")
            time.sleep(parking.SWEEP_INTERVAL)

    def stop(self) -> None:
        """Stop listening, close connections and end the workers. Does nothing when not serving."""
        if not self.ready or self._parking is None:
            return
        self.ready = False
        self._parking.stop()
        self._served.wait(_STOP_TIMEOUT)
        self.socket.close()
        self._workers.stop()
        self._parking.close()

    def put_conn(self, conn: connection.Connection) -> None:
        """Take a connection back from a worker; never raises."""
        if self.ready and self._parking is not None:
            try:
                if conn.has_more:
                    self._workers.put(conn)
                else:
                    self._parking.put(conn)
            except (OSError, ValueError, KeyError) as error:
                log.debug("a connection could not be kept: %s", error)
            else:
                return
        conn.close()

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """Log what cheroot has to say."""
        log.log(level, "%s", msg, exc_info=traceback)
