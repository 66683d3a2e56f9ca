"""Streams: one reading for all who look, only what changed is sent, and what goes wrong is told."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from concurrent import futures
from typing import Any

import pytest

from conpaas.core import errors
from conpaas.frontend import live

PATIENCE = 20.0


@dataclasses.dataclass
class Counter:
    """A topic whose parts are set by the test."""

    shown: dict[str, str] = dataclasses.field(default_factory=lambda: {"a": "1", "b": f"<input value={live.CSRF_PLACE}>"})
    error: Exception | None = None
    once: list[Exception] = dataclasses.field(default_factory=list)
    readings: int = 0
    befores: list[Any] = dataclasses.field(default_factory=list)
    key: Hashable = "counter"

    def read(self, way: Any, before: Any) -> dict[str, str]:
        self.readings += 1
        self.befores = [*self.befores, before][-50:]
        if self.once:
            raise self.once.pop()
        if self.error is not None:
            raise self.error
        return dict(self.shown)

    def parts(self, seen: dict[str, str]) -> Mapping[str, str]:
        return seen

    def changing(self, seen: dict[str, str]) -> bool:
        return False

    def news(self, before: dict[str, str], seen: dict[str, str]) -> Sequence[str]:
        return [f"a is {seen['a']}."] if before["a"] != seen["a"] else []


def listener(session: str = "s", csrf: str = "token") -> live.Listener:
    return live.Listener(session, csrf, way=None)  # type: ignore[arg-type]


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> Callable[[Counter, Callable[[live.Watcher], Awaitable[None]]], None]:
    """Runs a coroutine beside a watcher that reads without pauses."""
    monkeypatch.setattr(live, "CALM", 0.0)
    monkeypatch.setattr(live, "LONGEST", 0.0)

    def run(topic: Counter, script: Callable[[live.Watcher], Awaitable[None]]) -> None:
        async def both() -> None:
            with futures.ThreadPoolExecutor(1) as readers:
                watcher = live.Watcher(topic, readers)
                task = asyncio.get_running_loop().create_task(watcher.run())
                try:
                    await asyncio.wait_for(script(watcher), PATIENCE)
                finally:
                    task.cancel()

        asyncio.run(both())

    return run


async def message(one: live.Listener) -> dict[str, Any]:
    """What is sent to a listener next."""
    await one.wake.wait()
    return one.take()


def test_a_new_listener_gets_everything_and_then_what_changes(watching: Any) -> None:
    topic, one = Counter(), listener()

    async def script(watcher: live.Watcher) -> None:
        watcher.add(one)
        first = await message(one)
        assert first["parts"] == {"a": "1", "b": "<input value=token>"}
        assert first["news"] == []
        topic.shown["a"] = "2"
        second = await message(one)
        assert second["parts"] == {"a": "2"}
        assert second["news"] == ["a is 2."]

    watching(topic, script)


def test_all_listeners_share_one_reading_and_get_their_own_token(watching: Any) -> None:
    topic = Counter()
    crowd = [listener(csrf=f"token-{number}") for number in range(200)]

    async def script(watcher: live.Watcher) -> None:
        for one in crowd:
            watcher.add(one)
        got = [await message(one) for one in crowd]
        assert [reply["parts"]["b"] for reply in got] == [f"<input value=token-{number}>" for number in range(200)]
        assert live.CSRF_PLACE not in str(got)

    watching(topic, script)
    assert topic.readings < 100


def test_a_slow_browser_gets_the_latest_of_each_part_once(watching: Any) -> None:
    topic, slow, quick = Counter(), listener(), listener()

    async def script(watcher: live.Watcher) -> None:
        watcher.add(slow)
        watcher.add(quick)
        await message(quick)
        for value in range(2, 50):
            topic.shown["a"] = str(value)
            assert (await message(quick))["parts"]["a"] == str(value)
        late = slow.take()
        assert late["parts"]["a"] == "49"
        assert len(late["news"]) <= 5

    watching(topic, script)


def test_who_changes_something_here_has_all_of_it_read_anew(watching: Any) -> None:
    topic, one = Counter(), listener()

    async def script(watcher: live.Watcher) -> None:
        watcher.add(one)
        await message(one)
        topic.shown["a"] = "2"
        await message(one)
        assert topic.befores[-1] is not None
        before = topic.readings
        watcher.hurry()
        topic.shown["a"] = "3"
        await message(one)
        while topic.readings < before + 3:
            await asyncio.sleep(0)
        assert topic.befores[1:].count(None) == 1, "once"

    watching(topic, script)


def test_trouble_is_told_once_and_so_is_its_end(watching: Any) -> None:
    topic, one = Counter(), listener()

    async def script(watcher: live.Watcher) -> None:
        watcher.add(one)
        await message(one)
        topic.error = errors.Unreachable("Cannot contact the director")
        trouble = await message(one)
        assert trouble["trouble"] == "Cannot contact the director."
        assert trouble["parts"] == {}
        topic.error = None
        assert (await message(one))["trouble"] == ""

    watching(topic, script)


def test_what_nobody_expected_does_not_end_the_watcher(watching: Any) -> None:
    topic, one = Counter(), listener()

    async def script(watcher: live.Watcher) -> None:
        topic.error = ZeroDivisionError()
        watcher.add(one)
        assert "failed" in (await message(one))["trouble"]
        topic.error = None
        assert (await message(one))["parts"]["a"] == "1"

    watching(topic, script)


def test_what_is_deleted_ends_all_streams_and_a_lost_session_its_own(watching: Any) -> None:
    topic, mine, other = Counter(), listener("mine"), listener("other")

    async def script(watcher: live.Watcher) -> None:
        watcher.add(mine)
        watcher.add(other)
        await message(mine)
        await message(other)
        watcher.drop("mine")
        await mine.wake.wait()
        assert (mine.ended, other.ended) == ("session", "")
        topic.error = errors.NotFound("Unknown application id 7")
        await other.wake.wait()
        assert other.ended == "gone"

    watching(topic, script)


def test_a_session_that_the_director_refuses_leaves_the_reading_to_the_others(watching: Any) -> None:
    topic, mine, other = Counter(), listener("mine"), listener("other")

    async def script(watcher: live.Watcher) -> None:
        watcher.add(mine)
        watcher.add(other)
        await message(mine)
        await message(other)
        topic.once.append(errors.RemoteError("HTTP 401: cert_required: the client certificate was revoked"))
        ended = await _first_ended(mine, other)
        topic.shown["a"] = "2"
        kept = other if ended is mine else mine
        assert (await message(kept))["parts"] == {"a": "2"}

    watching(topic, script)


def test_who_comes_back_does_not_see_what_was(watching: Any) -> None:
    """A watcher outlives its last listener for some seconds; what it knew is not shown to the next."""
    topic, first, second = Counter(), listener(), listener()

    async def script(watcher: live.Watcher) -> None:
        watcher.add(first)
        await message(first)
        watcher.listeners.clear()
        topic.shown["a"] = "2"
        watcher.add(second)
        assert (await message(second))["parts"] == {"a": "2", "b": "<input value=token>"}

    watching(topic, script)


async def _first_ended(*some: live.Listener) -> live.Listener:
    waiting = {asyncio.ensure_future(one.wake.wait()): one for one in some}
    done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return next(waiting[task] for task in done if waiting[task].ended)


def test_the_pauses_grow_while_nobody_answers() -> None:
    async def pauses() -> list[float]:
        with futures.ThreadPoolExecutor(1) as readers:
            watcher = live.Watcher(Counter(), readers)
            found = [watcher._pause()]
            for failures in (1, 2, 3, 50):
                watcher._failures = failures
                found.append(watcher._pause())
            return found

    assert asyncio.run(pauses()) == [live.CALM, live.CALM, 2 * live.CALM, 4 * live.CALM, live.LONGEST]


def test_a_newer_description_of_the_same_thing_takes_over(watching: Any) -> None:
    """A page of a renamed service joins a watcher that knows the old name."""
    old, new, one, two = Counter(), Counter({"a": "renamed", "b": "x"}), listener(), listener()

    async def script(watcher: live.Watcher) -> None:
        watcher.add(one)
        assert (await message(one))["parts"]["a"] == "1"
        watcher.renew(Counter())
        watcher.renew(new)
        watcher.add(two)
        assert (await message(two))["parts"]["a"] == "renamed"
        assert (await message(one))["parts"]["a"] == "renamed"

    watching(old, script)
