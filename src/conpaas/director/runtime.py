"""What one Director process is made of, and how its rooms find each other.

`app.create_app` makes one `Director` and calls `install(director)` of every module in `app.COMPONENTS`. There a room puts what
others need into `director.components` (by name), registers background loops with `add_loop`, things to do once at start
with `add_startup`, and what happens to a user without credits with `on_exhausted`. Nothing runs before `start()`, which only
the serving process calls: tests and the administration commands get the same object without threads.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable
from typing import Any

import flask

from conpaas.director import ca, config, db, models

EXTENSION = "conpaas.director"
Exhausted = Callable[[int], None]
"""Called with a uid, outside any transaction, when that user can pay no further hour; idempotent."""
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Loop:
    """A background task: `run` is called every `interval` seconds, in one Director process at a time unless `everywhere`."""

    name: str
    interval: float
    run: Callable[[], object]
    everywhere: bool = False


@dataclasses.dataclass
class Director:
    """One Director process. `owner` names it in leases; `clock` gives aware UTC times."""

    config: config.DirectorConfig
    database: db.Database
    authority: ca.Authority
    clock: Callable[[], datetime.datetime] = models.utcnow
    owner: str = dataclasses.field(default_factory=lambda: f"{socket.gethostname()[:60]}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    components: dict[str, Any] = dataclasses.field(default_factory=dict)
    exhausted: list[Exhausted] = dataclasses.field(default_factory=list)
    stopping: threading.Event = dataclasses.field(default_factory=threading.Event)
    _loops: list[Loop] = dataclasses.field(default_factory=list)
    _startup: list[Callable[[], None]] = dataclasses.field(default_factory=list)
    _shutdown: list[Callable[[], None]] = dataclasses.field(default_factory=list)
    _threads: list[threading.Thread] = dataclasses.field(default_factory=list)
    _leased: bool = False

    def add_loop(self, name: str, interval: float, run: Callable[[], object], *, everywhere: bool = False) -> None:
        """Have `run` called every `interval` seconds after `start()`; what it raises is logged and it is called again.

        Of several Director processes one does it at a time, each of them with `everywhere`.
        """
        self._loops.append(Loop(name, interval, run, everywhere))

    def add_startup(self, run: Callable[[], None]) -> None:
        """Have `run` called once by `start()`, e.g. to resume unfinished operations."""
        self._startup.append(run)

    def add_shutdown(self, run: Callable[[], None]) -> None:
        """Have `run` called once by `stop()`, in reverse order of registration."""
        self._shutdown.append(run)

    def on_exhausted(self, act: Exhausted) -> None:
        """Have `act(uid)` called outside any transaction when a user can pay no further hour; must be idempotent."""
        self.exhausted.append(act)

    def run_loop_once(self, name: str) -> None:
        """One pass of a background loop in the calling thread, without a lease (tests, administration)."""
        next(loop for loop in self._loops if loop.name == name).run()

    def start(self) -> None:
        """Start-up tasks, then the background loops."""
        for task in self._startup:
            task()
        for loop in self._loops:
            thread = threading.Thread(target=self._repeat, args=(loop,), name=f"loop-{loop.name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, timeout: float = 10.0) -> None:
        """Ask the loops to end, wait for each at most `timeout` seconds, then let the rooms close. Harmless when repeated."""
        self.stopping.set()
        for thread in self._threads:
            thread.join(timeout)
        self._threads.clear()
        if self._leased:
            self._shutdown.append(lambda: db.release_leases(self.database, self.owner))
            self._leased = False
        while self._shutdown:
            try:
                self._shutdown.pop()()
            except Exception:  # one room's trouble must not keep the others open
                log.exception("a shutdown task failed")
        self.database.close()

    def attempt(self, loop: Loop) -> None:
        """One pass of a loop, if it is this process's turn; what it raises is logged."""
        try:
            # A lease outlives one interval and a slow pass: who lives keeps the task, who was killed loses it soon.
            lease = 1.5 * loop.interval + 15.0
            self._leased = self._leased or not loop.everywhere
            if loop.everywhere or db.take_lease(self.database, loop.name, self.owner, self.clock().timestamp(), lease):
                loop.run()
        except Exception:  # a background task must survive any failure of one pass
            log.exception("the background task %s failed and will run again in %s s", loop.name, loop.interval)

    def _repeat(self, loop: Loop) -> None:
        while not self.stopping.is_set():
            self.attempt(loop)
            self.stopping.wait(loop.interval)


def current() -> Director:
    """The Director that serves the present request."""
    director: Director = flask.current_app.extensions[EXTENSION]
    return director
