"""A disk that is really full: a small file system of its own, filled to the last byte."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from conpaas import testing
from conpaas.core import errors, manager, node
from conpaas.core.operations import OperationStatus, State


def fill(directory: pathlib.Path) -> None:
    """Leave no byte."""
    with (directory / "filler").open("ab", buffering=0) as stream:
        for size in (65536, 1):
            try:
                while True:
                    stream.write(b"x" * size)
            except OSError:
                continue


class Filling(manager.BaseManager):
    """Finds the disk full while it adds nodes."""

    def on_add_nodes(self, nodes: list[node.ServiceNode]) -> None:
        fill(self.paths.root.parent)
        self.settings["large"] = "x" * 1_000_000


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(directory)], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("a file system can be mounted by root only")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def test_the_service_stays_as_it_was_and_the_manager_answers(small_disk: pathlib.Path) -> None:
    with testing.Harness(Filling, directory=small_disk) as harness:
        harness.start()
        op = harness.request("add_nodes", service_id=1, nodes={"node": 2})
        assert op.status is OperationStatus.UNDONE
        assert "There is no room left on the manager's disk" in (op.error or "")
        assert (harness.state, len(harness.nodes)) == (State.RUNNING, 1)
        harness.check()
        assert harness.call("get_app_info", 0)["states"]["1"] == "RUNNING"
        fill(small_disk)
        with pytest.raises(errors.RemoteError, match="There is no room left"):
            harness.stop()
        assert harness.state is State.RUNNING
        harness.restart()
        assert harness.state is State.RUNNING
        (small_disk / "filler").unlink()
        harness.stop()
        harness.check()
