"""Polling: how often, how long, and what counts as an end."""

from __future__ import annotations

from typing import Any

import pytest

from conpaas.client import failures, replies, waiting
from conpaas.core import errors


def test_pauses_grow_from_a_fifth_of_a_second_to_two(clock: Any) -> None:
    answers = iter([None] * 12 + ["there"])
    assert waiting.poll(lambda: next(answers), "it", timeout=None, clock=clock) == "there"
    assert clock.pauses[0] == 0.2
    assert max(clock.pauses) == 2.0
    assert clock.pauses == sorted(clock.pauses)


def test_the_timeout_is_kept_exactly(clock: Any) -> None:
    with pytest.raises(failures.TimedOut, match=r"^Waited 5 s for it, without success\.$"):
        waiting.poll(lambda: None, "it", timeout=5, clock=clock)
    assert clock.time == 5.0


def test_a_server_out_of_reach_is_given_a_minute(clock: Any) -> None:
    def probe() -> str | None:
        if clock.time < 50:
            raise errors.Unreachable("no route")
        return "back"

    assert waiting.poll(probe, "it", timeout=None, clock=clock) == "back"

    def never() -> str | None:
        raise errors.Unreachable("no route")

    before = clock.time
    with pytest.raises(errors.Unreachable):
        waiting.poll(never, "it", timeout=None, clock=clock)
    assert 60 <= clock.time - before <= 63


def test_other_errors_end_the_waiting_at_once(clock: Any) -> None:
    def probe() -> str | None:
        raise errors.RemoteError("no such service")

    with pytest.raises(errors.RemoteError):
        waiting.poll(probe, "it", timeout=None, clock=clock)
    assert clock.pauses == []


@pytest.mark.parametrize(
    ("states", "ok"),
    [
        (["PROLOGUE", "RUNNING"], True),
        (["INIT", "INIT", "PROLOGUE", "RUNNING"], True),
        (["PROLOGUE", "ERROR"], False),
        (["PROLOGUE", "INIT"], False),
        (["INIT"] * waiting.QUIET_POLLS, False),
    ],
)
def test_states_that_end_the_waiting(states: list[str], ok: bool) -> None:
    watch = waiting.StateWatch(["RUNNING"])
    judged = [watch.judge(state) for state in states]
    assert all(one is None for one in judged[:-1])
    last = judged[-1]
    assert last is not None
    assert last.ok is ok


@pytest.mark.parametrize(("status", "ok"), [("DONE", True), ("UNDONE", False), ("FAILED", False), ("RUNNING", None), ("UNDOING", None)])
def test_operations(status: str, ok: bool | None) -> None:
    steps = [{"name": "create_nodes", "status": "done"}, {"name": "push_code", "status": "running"}]
    operation = replies.Operation.read({"operation": {"id": "x", "status": status, "steps": steps}})
    outcome = waiting.operation_outcome(operation)
    assert (outcome and outcome.ok) == ok
    assert waiting.describe(operation) == ("undoing: push code" if status == "UNDOING" else "push code")
