"""A bounded pool of named daemon threads.

Unlike the standard library's executor, its threads never hold up the end of the process: what they were doing is on disk and is continued
at the next start.
"""

from __future__ import annotations

import collections
import contextvars
import functools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

_log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

IDLE_SECONDS = 30.0
"""A thread without work ends after this time."""


class Executor(Protocol):
    """Runs functions some time later."""

    def submit(self, function: Callable[[], None], name: str) -> None:
        """Run `function` later, in a thread that carries `name` meanwhile."""

    def close(self) -> None:
        """Take no more work; what runs may finish."""


class WorkerPool:
    """At most `size` threads, started when there is work for them and ended when there is none."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._changed = threading.Condition()
        self._work: collections.deque[tuple[Callable[[], None], str]] = collections.deque()
        self._threads = 0
        self._idle = 0
        self._closed = False

    def submit(self, function: Callable[[], None], name: str = "") -> None:
        """Run `function` in one of the threads. Ignored after `close`."""
        with self._changed:
            if self._closed:
                return
            self._work.append((function, name or self._name))
            if self._idle >= len(self._work):
                self._changed.notify()
                return
            if self._threads >= self._size:
                return
            self._threads += 1
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def close(self) -> None:
        """Forget the work not begun; threads end when they have finished what they do."""
        with self._changed:
            self._closed = True
            self._work.clear()
            self._changed.notify_all()

    def _next(self) -> tuple[Callable[[], None], str] | None:
        with self._changed:
            self._idle += 1
            try:
                if not self._work and not self._closed:
                    self._changed.wait(IDLE_SECONDS)
                if self._work:
                    return self._work.popleft()
                self._threads -= 1
                return None
            finally:
                self._idle -= 1

    def _run(self) -> None:
        thread = threading.current_thread()
        while (job := self._next()) is not None:
            function, thread.name = job
            try:
                function()
            except Exception:  # noqa: BLE001 - a failed job must not take its thread along
                _log.exception("a piece of background work failed")
            finally:
                thread.name = self._name


def fan_out(pool: Executor, function: Callable[[T], R], items: Sequence[T], timeout: float | None = None) -> list[R | Exception]:
    """Apply `function` to every item in parallel; results in the order of `items`.

    An exception stands in the place of its result, `TimeoutError` for what did not finish within `timeout` seconds (it may still finish).
    """
    results: list[R | Exception] = [TimeoutError("no answer in time") for _ in items]
    finished = threading.Semaphore(0)

    def work(position: int) -> None:
        try:
            results[position] = function(items[position])
        except Exception as error:  # noqa: BLE001 - handed to the caller in place of a result
            results[position] = error
        finally:
            finished.release()

    for position in range(len(items)):
        context = contextvars.copy_context()
        pool.submit(functools.partial(context.run, work, position), threading.current_thread().name)
    deadline = None if timeout is None else time.monotonic() + timeout
    for _ in items:
        if not finished.acquire(timeout=None if deadline is None else max(0.0, deadline - time.monotonic())):
            break
    return list(results)
