"""What holds for every test."""

from __future__ import annotations

import pathlib
import signal
from collections.abc import Generator

import pytest

# Whoever starts the tests in the background has them ignore SIGINT, and every process inherits that, also those whose Ctrl-C is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)

HERE = pathlib.Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """When several processes share the tests, those that share loopback addresses or a platform stay together."""
    for item in items:
        suite, *inside = item.path.relative_to(HERE).parts
        if suite in ("integration", "e2e"):  # a directory there, a file here
            item.add_marker(pytest.mark.xdist_group(f"{suite}/{inside[0]}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Hostile input comes up in what is logged; a report is passed on as UTF-8."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report
