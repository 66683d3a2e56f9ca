"""Clouds to test, real ones. A driver joins the contract tests by one entry in DRIVERS."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import pytest

from conpaas.core.clouds import base, dummy, factory
from conpaas.core.clouds.dummy import vm as dummy_vm

NETWORK = "127.14.0.0/24"
PATIENCE = 20.0

_keys = itertools.count(1)


def eventually(condition: Callable[[], object]) -> None:
    """Waits until something is true; fails after 20 s."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "this did not become true"
        threading.Event().wait(0.01)


def fresh_key() -> str:
    return f"key-{os.getpid()}-{next(_keys)}"


def wanted(count: int, user_data: str = "", *, key: str | None = None, **fields: object) -> base.NodeRequest:
    """A request for `count` nodes; `{index}` in user_data becomes the node's index."""
    specs = tuple(
        base.NodeSpec(index, f"node{index}", user_data=f"#!/bin/bash\n{user_data.replace('{index}', str(index))}\n", **fields)
        for index in range(count)
    )
    return base.NodeRequest(key or fresh_key(), specs)


class Door:
    """Where VMs of a test report themselves: `knock` is a line of user-data; `heard(n)` waits for n reports."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.14.255.1", 0))
        self._server.settimeout(PATIENCE)
        port = self._server.getsockname()[1]
        self.address = f"/dev/tcp/127.14.255.1/{port}"

    def knock(self, text: str) -> str:
        return f"echo {text} > {self.address}"

    def heard(self, count: int) -> list[str]:
        lines = []
        for _ in range(count):
            connection, _ = self._server.accept()
            with connection, connection.makefile() as stream:
                lines.append(stream.read().strip())
        return sorted(lines)

    def silent(self) -> bool:
        """Whether nobody has knocked."""
        self._server.settimeout(0)
        try:
            self._server.accept()[0].close()
        except BlockingIOError:
            return True
        finally:
            self._server.settimeout(PATIENCE)
        return False

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def door() -> Iterator[Door]:
    with contextlib.closing(Door()) as opened:
        yield opened


def dummy_section(directory: pathlib.Path, **settings: str) -> dict[str, str]:
    return {"DRIVER": "dummy", "STATE_DIR": str(directory), "NETWORK": NETWORK, "AGENT_PORT": "5555", "MANAGER_PORT": "5556", **settings}


@contextlib.contextmanager
def _dummy(isolation: str, volumes: str) -> Iterator[Mapping[str, str]]:
    if isolation == dummy_vm.PIDNS and dummy_vm.best_isolation() != dummy_vm.PIDNS:
        pytest.skip("this user may not have PID namespaces here")
    directory = pathlib.Path(tempfile.mkdtemp(prefix="conpaas-dummy-"))
    section = dummy_section(directory / "state", ISOLATION=isolation, VOLUMES=volumes)
    try:
        yield section
        cloud = factory.open_cloud("iaas", section)
        assert isinstance(cloud, dummy.DummyCloud)
        (cloud.directory / "faults.json").unlink(missing_ok=True)
        cloud.destroy_nodes([node.vmid for node in cloud.list_nodes()])
        for volume in cloud.list_volumes():
            cloud.detach_volume(volume.vol_id)
            cloud.destroy_volume(volume.vol_id)
        cloud.resume()
        left = [path for name in ("vms", "volumes", "trash") for path in (cloud.directory / name).glob("*")]
        assert left == []
        for table in ("/proc/self/mountinfo", *map(str, pathlib.Path("/sys/block").glob("loop*/loop/backing_file"))):
            assert str(directory) not in pathlib.Path(table).read_text()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


DRIVERS: dict[str, Callable[[], contextlib.AbstractContextManager[Mapping[str, str]]]] = {
    "dummy-pidns": lambda: _dummy("pidns", "auto"),
    "dummy-session": lambda: _dummy("session", "directory"),
}


@pytest.fixture(params=sorted(DRIVERS))
def section(request: pytest.FixtureRequest) -> Iterator[Mapping[str, str]]:
    """The section of director.cfg of a cloud; when the test is over the cloud must be able to give back everything."""
    with DRIVERS[request.param]() as opened:
        yield opened


@pytest.fixture
def cloud(section: Mapping[str, str]) -> base.Cloud:
    return factory.open_cloud("iaas", section)
