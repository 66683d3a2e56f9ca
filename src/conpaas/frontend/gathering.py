"""Several replies at once: bounded in number and in time, each on its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any, Final

from conpaas.client import api
from conpaas.core import errors
from conpaas.frontend import panels
from conpaas.frontend.declared import Call

READERS: Final = 6
PATIENCE: Final = 2.0
"""Seconds that a page waits for what it shows; what takes longer is fetched by the page itself, when it is there."""


def fetch(manager: api.Manager, sid: int, call: Call) -> Any:
    """The reply of one reading call. Raises ConPaaSError."""
    target = api.APPLICATION_MANAGER if call.application else sid
    ask = manager.post if call.verb == "POST" else manager.get
    return ask(call.method, target, call.params)


def gather(calls: Sequence[Call], ask: Callable[[Call], Any], patience: float = PATIENCE) -> panels.Replies:
    """Make all calls and wait so long; a call that failed is answered by its error, one that still goes on by `panels.Missing`."""
    if not calls:
        return lambda _: panels.Missing("This was not asked for.")
    pool = futures.ThreadPoolExecutor(min(READERS, len(calls)), thread_name_prefix="panels")
    pending = {call.key: pool.submit(_answer, ask, call) for call in calls}
    futures.wait(pending.values(), patience)
    pool.shutdown(wait=False, cancel_futures=True)

    def find(call: Call) -> Any:
        future = pending.get(call.key)
        if future is None or future.cancelled() or not future.done():
            return panels.Missing("The manager takes long to tell this.", hint="It appears when it is there.")
        return future.result()

    return find


def failing(error: errors.ConPaaSError) -> panels.Replies:
    """As if every call failed like this."""
    return lambda _: error


def _answer(ask: Callable[[Call], Any], call: Call) -> Any:
    try:
        return ask(call)
    except errors.ConPaaSError as error:
        return error
