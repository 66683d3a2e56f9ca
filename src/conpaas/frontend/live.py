"""Pages that follow what happens: one watcher per thing that anybody looks at, and server-sent events to all who do.

A `Topic` says how to read a thing and which parts of the page it fills. While at least one stream listens, its watcher reads (in a thread,
as one of the listeners), renders the parts, and sends the listeners those that changed. A page without a stream asks now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import logging
import secrets
import time
import weakref
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from concurrent import futures
from typing import Any, Final, Protocol

from starlette import responses

from conpaas.core import errors
from conpaas.frontend import problems, upstream, visits

log = logging.getLogger(__name__)

CSRF_PLACE: Final = f"csrf-{secrets.token_hex(16)}"
"""What stands in rendered parts where each listener's own token goes."""

MAX_STREAMS: Final = 1000
MAX_STREAMS_PER_SESSION: Final = 24
READERS: Final = 48
READERS_PER_USER: Final = 4
"""Readings of one user at the same time: managers that are silent for a minute must not keep others waiting."""

KEEP_ALIVE: Final = 15.0
LINGER: Final = 5.0
"""Seconds that a watcher without listeners keeps what it knows, so that a reload starts from there."""

QUICK, CALM, LONGEST = 1.0, 2.0, 30.0
"""Seconds between two reads: while something changes, otherwise, and at most while nobody answers."""


class Topic(Protocol):
    """A thing that pages follow. `key` is equal for the same thing of the same user, and never for different users."""

    @property
    def key(self) -> Hashable:
        """Of whom and of what."""
        ...

    def read(self, way: upstream.Upstream, before: Any) -> Any:
        """What there is to show now. `before` is what was read last (or None). Blocking; raises ConPaaSError."""

    def parts(self, seen: Any) -> Mapping[str, str]:
        """The HTML of each part of the page, by the name in its `data-live` attribute; `CSRF_PLACE` stands for the token."""
        ...

    def changing(self, seen: Any) -> bool:
        """Whether something is under way, so that it is read more often."""
        ...

    def news(self, before: Any, seen: Any) -> Sequence[str]:
        """Sentences that a screen reader says of the change."""
        ...


@dataclasses.dataclass(eq=False)
class Listener:
    """One stream. What is not sent yet is kept once per part, however slow the browser is."""

    session_id: str
    csrf: str
    way: upstream.Upstream
    wake: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    parts: dict[str, str] = dataclasses.field(default_factory=dict)
    news: list[str] = dataclasses.field(default_factory=list)
    trouble: str | None = None
    ended: str = ""
    """Why it is over, `gone` (the thing is) or `session`; empty while it is not."""

    def take(self) -> dict[str, Any]:
        """What to send now."""
        self.wake.clear()
        message: dict[str, Any] = {"parts": {name: html.replace(CSRF_PLACE, self.csrf) for name, html in self.parts.items()}}
        message["news"] = self.news[-5:]
        message["trouble"] = self.trouble or ""
        message["at"] = time.time()
        self.parts, self.news = {}, []
        return message


def read(topic: Topic, way: upstream.Upstream, before: Any) -> tuple[Any, dict[str, str]]:
    """What there is to show of a topic, and the parts that show it. Blocking; raises ConPaaSError."""
    seen = topic.read(way, before)
    return seen, dict(topic.parts(seen))


class Watcher:
    """Reads one topic while somebody listens."""

    def __init__(self, topic: Topic, readers: futures.Executor, turn: asyncio.Semaphore | None = None, uid: int | None = None) -> None:
        self.topic = topic
        self.uid = uid
        self.listeners: set[Listener] = set()
        self.seen: Any = None
        self.parts: dict[str, str] = {}
        self.trouble: str | None = None
        self.read_at = 0.0
        self._readers = readers
        self._turn = turn or asyncio.Semaphore(1)
        self._failures = 0
        self._again = asyncio.Event()
        self._anew = False
        self._loop = asyncio.get_running_loop()

    def hurry(self) -> None:
        """Read all of it again at once. May be called from any thread."""
        self._anew = True
        self.nudge()

    def nudge(self) -> None:
        """Look at once for what is new. May be called from any thread."""
        self._loop.call_soon_threadsafe(self._again.set)

    def wake_all(self) -> None:
        """Have all listeners look what is up. May be called from any thread."""
        for one in list(self.listeners):
            self._loop.call_soon_threadsafe(one.wake.set)

    def drop(self, session_id: str) -> None:
        """Tell the listeners of a session that it is over. May be called from any thread."""
        self._loop.call_soon_threadsafe(self._dismiss, session_id)

    def _dismiss(self, session_id: str | None) -> None:
        for one in list(self.listeners):
            if session_id is None or one.session_id == session_id:
                one.ended = "gone" if session_id is None else "session"
                one.wake.set()
                self.listeners.discard(one)

    def renew(self, topic: Topic) -> None:
        """Go on with a newer description of the same thing, which may have another name by now; if it differs, all is shown anew."""
        if topic != self.topic:
            self.topic = topic
            self.parts = {}
            self._again.set()

    def add(self, listener: Listener) -> None:
        """Send a listener all that is known, and what changes from now on. What is known from before anybody listened is old."""
        self.listeners.add(listener)
        if self.seen is None:
            return
        if time.time() - self.read_at > CALM or len(self.listeners) == 1:
            self.parts = {}
            self._again.set()
        else:
            listener.parts = dict(self.parts)
            listener.trouble = self.trouble
            listener.wake.set()

    async def run(self) -> None:
        """Read until nobody has listened for a while."""
        last_heard = time.monotonic()
        while True:
            self._again.clear()  # whoever wants another reading while this one is made gets one
            if self.listeners:
                last_heard = time.monotonic()
                await self._round()
            elif time.monotonic() - last_heard > LINGER:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._again.wait(), self._pause())

    def _pause(self) -> float:
        if self._failures:
            return min(LONGEST, CALM * 2.0 ** min(self._failures - 1, 10))
        return QUICK if self.seen is not None and self.topic.changing(self.seen) else CALM

    async def _round(self) -> None:
        listener = next(iter(self.listeners))
        loop = asyncio.get_running_loop()
        topic = self.topic
        before, self._anew = None if self._anew else self.seen, False
        try:
            async with self._turn:
                seen, parts = await loop.run_in_executor(self._readers, read, topic, listener.way, before)
        except Exception as error:  # noqa: BLE001 - a watcher survives whatever one reading raises
            self._failed(listener, error)
            return
        self._failures = 0
        if topic is not self.topic:
            return  # it was renewed meanwhile, and is read again at once
        self.read_at = time.time()
        changed = {name: html for name, html in parts.items() if self.parts.get(name) != html}
        news = list(self.topic.news(self.seen, seen)) if self.seen is not None and changed else []
        recovered = self.trouble is not None
        self.seen, self.parts, self.trouble = seen, parts, None
        if changed or recovered:
            self._send(changed, news)

    def _send(self, changed: Mapping[str, str], news: Sequence[str]) -> None:
        for listener in self.listeners:
            listener.parts.update(changed)
            listener.news.extend(news)
            listener.trouble = self.trouble
            listener.wake.set()

    def _failed(self, listener: Listener, error: Exception) -> None:
        gone = isinstance(error, errors.NotFound)
        if gone or upstream.session_ended(error):
            self._dismiss(None if gone else listener.session_id)
            return
        self._failures += 1
        text = problems.describe(error).text
        if text != self.trouble:
            self.trouble = text
            self._send({}, [])


class Hub:
    """All watchers and streams of one front-end. Its coroutines belong to one event loop."""

    def __init__(self) -> None:
        self._watchers: dict[Hashable, Watcher] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams: dict[str, int] = {}
        self._turns: weakref.WeakValueDictionary[int, asyncio.Semaphore] = weakref.WeakValueDictionary()
        self._readers = futures.ThreadPoolExecutor(READERS, thread_name_prefix="live")
        self.closing = False

    def peek(self, topic: Topic, age: float = CALM) -> Any:
        """What a watcher read of the topic not longer than `age` seconds ago, or None. May be called from any thread."""
        watcher = self._watchers.get(topic.key)
        fresh = watcher is not None and watcher.trouble is None and time.time() - watcher.read_at <= age
        return watcher.seen if watcher is not None and fresh else None

    async def answer(self, visit: visits.Visit, topic: Topic) -> responses.Response:
        """A stream of events, or, for a browser that asks for JSON, the parts as they are now."""
        if visit.scripted:
            return await self._once(visit, topic)
        session_id = visit.user.id
        if self.closing or sum(self._streams.values()) >= MAX_STREAMS or self._streams.get(session_id, 0) >= MAX_STREAMS_PER_SESSION:
            return responses.PlainTextResponse("Too many pages follow something; this one looks now and then.\n", 503)
        headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
        return responses.StreamingResponse(self._events(visit, topic), media_type="text/event-stream", headers=headers)

    async def _once(self, visit: visits.Visit, topic: Topic) -> responses.Response:
        watcher = self._watchers.get(topic.key)
        if watcher is not None and watcher.parts:
            parts, trouble = watcher.parts, watcher.trouble
        else:
            loop = asyncio.get_running_loop()
            async with self._turn(visit):
                _, parts = await loop.run_in_executor(self._readers, read, topic, visit.upstream, None)
            trouble = None
        version = hashlib.sha256(json.dumps([parts, trouble]).replace(CSRF_PLACE, "").encode()).hexdigest()[:16]
        if visit.query("seen") == version:
            return responses.Response(status_code=204)
        filled = {name: html.replace(CSRF_PLACE, visit.csrf) for name, html in parts.items()}
        return visit.json({"parts": filled, "trouble": trouble or "", "version": version, "news": [], "at": time.time()})

    def _turn(self, visit: visits.Visit) -> asyncio.Semaphore:
        """What the readings of one user share."""
        uid = visit.user.grant.uid
        turn = self._turns.get(uid)
        if turn is None:
            turn = self._turns[uid] = asyncio.Semaphore(READERS_PER_USER)
        return turn

    def _watch(self, visit: visits.Visit, topic: Topic, listener: Listener) -> Watcher:
        watcher = self._watchers.get(topic.key)
        if watcher is None:
            watcher = self._watchers[topic.key] = Watcher(topic, self._readers, self._turn(visit), visit.user.grant.uid)
            task = asyncio.get_running_loop().create_task(self._run(topic.key, watcher))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            watcher.renew(topic)
        watcher.add(listener)
        return watcher

    async def _run(self, key: Hashable, watcher: Watcher) -> None:
        try:
            await watcher.run()
        finally:
            if self._watchers.get(key) is watcher:
                del self._watchers[key]

    async def _events(self, visit: visits.Visit, topic: Topic) -> AsyncIterator[str]:
        session_id = visit.user.id
        listener = Listener(session_id, visit.csrf, visit.upstream)
        self._streams[session_id] = self._streams.get(session_id, 0) + 1
        watcher = self._watch(visit, topic, listener)
        checked = time.monotonic()
        try:
            yield "retry: 2000\n\n"
            while not self.closing:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(listener.wake.wait(), KEEP_ALIVE)
                if time.monotonic() - checked >= KEEP_ALIVE:
                    checked = time.monotonic()
                    listener.ended = listener.ended or ("" if await self._still_signed_in(visit) else "session")
                if listener.ended or self.closing:
                    break
                woken = listener.wake.is_set()
                yield f"event: update\ndata: {json.dumps(listener.take())}\n\n" if woken else ": still here\n\n"
            if listener.ended:
                yield f"event: end\ndata: {listener.ended}\n\n"
        finally:
            watcher.listeners.discard(listener)
            self._streams[session_id] -= 1
            if not self._streams[session_id]:
                del self._streams[session_id]

    async def _still_signed_in(self, visit: visits.Visit) -> bool:
        visit.upstream.used = time.monotonic()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, visit.frontend.sessions.alive, visit.user.id)

    def hurry(self, key: Hashable) -> None:
        """Have a topic read again at once, because somebody just changed something. May be called from any thread."""
        watcher = self._watchers.get(key)
        if watcher is not None:
            watcher.hurry()

    def nudge(self, uid: int) -> None:
        """Have all that a user looks at be looked at again, because something of theirs changed. May be called from any thread."""
        for watcher in list(self._watchers.values()):
            if watcher.uid == uid:
                watcher.nudge()

    def drop(self, session_id: str) -> None:
        """End the streams of a session that is over. May be called from any thread."""
        for watcher in list(self._watchers.values()):
            watcher.drop(session_id)

    def hang_up(self) -> None:
        """End all streams; browsers come back when they can. May be called from any thread, and from a signal's handler."""
        self.closing = True
        for watcher in list(self._watchers.values()):
            watcher.wake_all()

    async def close(self) -> None:
        """End all streams and watchers."""
        self.hang_up()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._readers.shutdown(wait=False, cancel_futures=True)
