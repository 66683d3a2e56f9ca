"""What the tests of the manager share."""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Iterator
from types import ModuleType

import pytest

from conpaas import testing

_SPEC = importlib.util.spec_from_file_location("services_for_tests", pathlib.Path(__file__).parent / "services_for_tests.py")
assert _SPEC is not None
assert _SPEC.loader is not None
SERVICES: ModuleType = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(SERVICES)


def make() -> testing.Harness:
    return testing.Harness(SERVICES.Manager, SERVICES.Agent, agent_config="WORD = $WORD\n")


def make_keeper() -> testing.Harness:
    return testing.Harness(SERVICES.Keeper, SERVICES.Agent, agent_config="WORD = $WORD\n")


@pytest.fixture
def harness() -> Iterator[testing.Harness]:
    """An application with one service, not started."""
    with make() as one:
        yield one


@pytest.fixture
def running(harness: testing.Harness) -> testing.Harness:
    """The same, running on one node."""
    harness.start()
    return harness
