"""Nodes of a mysql service, and what is left of them cleared away."""

from __future__ import annotations

import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator

import pytest

from . import machine


@pytest.fixture
def directory() -> Iterator[pathlib.Path]:
    """A directory that other users reach too, as the disk of a VM is."""
    made = pathlib.Path(tempfile.mkdtemp(prefix="conpaas-mysql-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def make_machine(directory: pathlib.Path) -> Iterator[Callable[..., machine.Machine]]:
    made: list[machine.Machine] = []

    def make(**settings: str) -> machine.Machine:
        one = machine.Machine(directory / f"vm{len(made)}", f"m{len(made)}", **settings)
        made.append(one)
        return one

    yield make
    for one in made:
        one.close()


@pytest.fixture
def node(make_machine: Callable[..., machine.Machine]) -> machine.Machine:
    return make_machine()
