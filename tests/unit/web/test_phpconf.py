"""Nothing but a value of the form its setting has ever gets into a configuration of PHP."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conpaas.core import errors
from conpaas.services.webservers import phpconf


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("max_execution_time", "30", "30"),
        ("max_execution_time", 300, "300"),
        ("memory_limit", "128M", "128M"),
        ("memory_limit", "1g", "1g"),
        ("upload_max_filesize", 1048576, "1048576"),
        ("display_errors", "on", "On"),
        ("display_errors", False, "Off"),
        ("disable_functions", "exec, system", "exec, system"),
    ],
)
def test_values_are_taken(name: str, value: object, expected: str) -> None:
    assert phpconf.check(name, value) == expected


def test_the_defaults_are_values() -> None:
    assert phpconf.check_all(phpconf.DEFAULTS) == phpconf.DEFAULTS


@pytest.mark.parametrize("name", phpconf.DEFAULTS)
@pytest.mark.parametrize(
    "value", ["", "On\nauto_prepend_file=/etc/passwd", "30\n", "64M;", '"', "'", "$x", "-1", "On;", None, [], 1.5, "١"]
)
def test_others_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(errors.InvalidArgument, match=name):
        phpconf.check(name, value)


def test_true_is_no_number() -> None:
    with pytest.raises(errors.InvalidArgument, match="memory_limit"):
        phpconf.check("memory_limit", True)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(errors.InvalidArgument, match="auto_prepend_file"):
        phpconf.check("auto_prepend_file", "/etc/passwd")


@given(st.sampled_from(sorted(phpconf.DEFAULTS)), st.text(max_size=20))
def test_nothing_else_gets_through(name: str, value: str) -> None:
    try:
        taken = phpconf.check(name, value)
    except errors.InvalidArgument:
        return
    assert re.fullmatch(r"[A-Za-z0-9_, ]+", taken)


def test_sizes_in_bytes() -> None:
    assert [phpconf.size(text) for text in ("512", "1K", "2m", "3G")] == [512, 1024, 2 << 20, 3 << 30]
