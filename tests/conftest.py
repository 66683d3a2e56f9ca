"""What holds for every test."""

from __future__ import annotations

import pathlib
import signal
from collections.abc import Generator

import pytest
from xdist.scheduler import LoadScopeScheduling

# Whoever starts the tests in the background has them ignore SIGINT, and every process inherits that, also those whose Ctrl-C is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)


class Together(LoadScopeScheduling):
    """Several processes share the tests; those that share loopback addresses or a platform stay together: a directory of integration tests,
    a file of end-to-end tests."""

    def _split_scope(self, nodeid: str) -> str:
        path = pathlib.PurePath(nodeid.split("::", maxsplit=1)[0])
        return str(path.parent if "integration" in path.parts else path)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Together | None:
    return Together(config, log) if config.getvalue("dist") == "loadscope" else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Hostile input comes up in what is logged; a report is passed on as UTF-8."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report
