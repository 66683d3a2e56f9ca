"""What is printed, in colour or not."""

from __future__ import annotations

import io
from typing import Any

import pytest

from conpaas.client import output
from conpaas.core import errors


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def table(rows: list[dict[str, Any]], **settings: Any) -> list[str]:
    return output.Output(stdout=io.StringIO(), **settings).table_lines(("id", "name"), rows)


def test_numbers_stand_right_and_text_left() -> None:
    assert table([{"id": 7, "name": "a"}, {"id": 1000, "name": None}]) == ["id   name", "---------", "   7 a", "1000 None"]


def test_wide_and_combining_letters_are_measured() -> None:
    assert table([{"id": 1, "name": "日本"}, {"id": 2, "name": "e\u0301x"}])[1] == "-------"


def test_a_name_cannot_write_to_the_terminal() -> None:
    assert table([{"id": 1, "name": "a\x1b[31m\nb"}])[2] == " 1 a [31m b"


@pytest.mark.parametrize(
    ("color", "terminal", "no_color", "coloured"),
    [
        ("auto", True, "", True),
        ("auto", True, "1", False),
        ("auto", False, "", False),
        ("always", False, "1", True),
        ("never", True, "", False),
    ],
)
def test_when_there_are_colours(monkeypatch: pytest.MonkeyPatch, color: str, terminal: bool, no_color: str, coloured: bool) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    out = output.Output(color=color, stdout=Terminal() if terminal else io.StringIO())
    assert (out.state("RUNNING") != "RUNNING") is coloured


def test_colours_do_not_change_the_layout() -> None:
    plain = output.Output(color="never").table_lines(("a", "b"), [{"a": "RUNNING", "b": 1}, {"a": "x", "b": 2}])
    coloured = output.Output(color="always").table_lines(("a", "b"), [{"a": "RUNNING", "b": 1}, {"a": "x", "b": 2}])
    assert [line.replace("\x1b[32m", "").replace("\x1b[0m", "") for line in coloured] == plain


def test_an_error_has_one_prefix() -> None:
    stream = io.StringIO()
    out = output.Output(stderr=stream)
    out.error(errors.ConPaaSError("it broke", hint="mend it"))
    out.error(errors.ConPaaSError("ERROR: again"))
    assert stream.getvalue() == "ERROR: it broke\nHINT: mend it\nERROR: again\n"


def test_no_terminal_obeys_what_an_error_quotes() -> None:
    stream = io.StringIO()
    output.Output(stderr=stream).error(errors.ConPaaSError("no \x1b[2J here", hint="not \x07\x9b31m either\nbut there"))
    assert stream.getvalue() == "ERROR: no  [2J here\nHINT: not   31m either\nbut there\n"


def test_letters_that_the_terminal_cannot_show_are_escaped() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    output.Output(stdout=stream).show("naïve")
    stream.flush()
    assert raw.getvalue() == b"na\\xefve\n"
