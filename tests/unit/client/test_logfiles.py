"""Logs: the end of one, a long one in pieces, and one that grows or is rotated."""

from __future__ import annotations

import io
from typing import Any

import pytest

from conpaas.client import logfiles, output, replies, waiting
from conpaas.core import errors


class Server(logfiles.Source):
    """Serves a log like a manager does; `piece` is the most it sends at once."""

    def __init__(self, text: str, piece: int = 1000, positions: bool = True) -> None:
        self.content, self.piece, self.positions = text.encode(), piece, positions
        self.reads = 0

    def read(self, offset: int | None) -> replies.LogPart:
        self.reads += 1
        if not self.positions:
            return replies.LogPart(self.content.decode(), None, None)
        start = max(0, len(self.content) - self.piece) if offset is None else min(offset, len(self.content))
        part = self.content[start : start + self.piece]
        return replies.LogPart(part.decode(), start + len(part), len(self.content))


LINES = "".join(f"line {number}\n" for number in range(500))


@pytest.mark.parametrize("positions", [True, False])
def test_all_of_a_long_log(positions: bool) -> None:
    assert logfiles.tail(Server(LINES, positions=positions)) == LINES


def test_a_few_lines_of_a_long_log_cost_one_call() -> None:
    server = Server(LINES)
    assert logfiles.tail(server, 2) == "line 498\nline 499\n"
    assert server.reads == 1


def test_many_lines_of_a_long_log() -> None:
    assert logfiles.tail(Server(LINES), 400).startswith("line 100\n")
    assert logfiles.tail(Server(LINES), 0) == ""


class Scenario(waiting.Clock):
    """Changes the log at each pause, and interrupts at the end."""

    def __init__(self, server: Server, *changes: Any) -> None:
        self.server, self.changes = server, list(changes)

    def pause(self, seconds: float) -> None:
        if not self.changes:
            raise KeyboardInterrupt
        self.server.content = self.changes.pop(0)


@pytest.mark.parametrize("positions", [True, False])
def test_following_prints_what_is_added_and_survives_rotation(positions: bool) -> None:
    server = Server("a\nb\n", positions=positions)
    shown = io.StringIO()
    clock = Scenario(server, b"a\nb\nc\n", b"a\nb\nc\n", b"new\n", b"new\nd\n")
    with pytest.raises(KeyboardInterrupt):
        logfiles.show(server, output.Output(stdout=shown), 1, following=True, clock=clock)
    assert shown.getvalue() == "b\nc\nnew\nd\n"


def test_a_server_that_never_comes_to_an_end_is_left() -> None:
    class Stuck(Server):
        def read(self, offset: int | None) -> replies.LogPart:
            return replies.LogPart("x", 5, 100)

    assert logfiles.tail(Stuck("")) == "xx"


def test_several_logs_are_told_apart_line_by_line_and_one_that_is_gone_is_left_out() -> None:
    first, second = Server("a\nb\n"), Server("x\nhalf")
    shown, said = io.StringIO(), io.StringIO()
    out = output.Output(stdout=shown, stderr=said)
    logfiles.show_several([("n1", first), ("n2", second)], out, 1, following=False, clock=waiting.Clock())
    assert shown.getvalue() == "n1: b\nn2: half\n"
    shown.seek(0)
    shown.truncate()

    def gone(offset: int | None) -> replies.LogPart:
        raise errors.Unreachable("n1 does not answer")

    class Turns(Scenario):
        def pause(self, seconds: float) -> None:
            super().pause(seconds)
            if not self.changes:
                first.read = gone  # type: ignore[method-assign]

    clock = Turns(second, b"x\nhalf a line\n", b"x\nhalf a line\nmore\n")
    with pytest.raises(KeyboardInterrupt):
        logfiles.show_several([("n1", first), ("n2", second)], out, 1, following=True, clock=clock)
    assert shown.getvalue() == "n1: b\nn2: half a line\nn2: more\n"
    assert said.getvalue() == "WARNING - n1: n1 does not answer\n"
