"""Figures of a machine come from the kernel's counters; the network that nobody else sees does not count."""

from __future__ import annotations

import pathlib

import pytest

from conpaas.core import machine

DEVICES = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 999999999 9999999 0 0 0 0 0 0 999999999 9999999 0 0 0 0 0 0
  eth0:{received} 10 0 0 0 0 0 0 2000 20 0 0 0 0 0 0
  eth1: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
"""


class Kernel:
    """A /proc of a test's making."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.clock = 100.0
        (directory / "net").mkdir()
        (directory / "meminfo").write_text(
            "MemTotal:       4000 kB\nMemFree:         100 kB\nMemAvailable:   1000 kB\nHugePages_Total:   0\n"
        )
        self.tell(busy=50, idle=50, received=1000)

    def tell(self, *, busy: int, idle: int, received: int) -> None:
        (self.directory / "stat").write_text(f"cpu  {busy} 0 0 {idle - 5} 5 0 0 0 77 77\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 1\n")
        (self.directory / "net" / "dev").write_text(DEVICES.format(received=received))

    def __call__(self) -> float:
        return self.clock


@pytest.fixture
def kernel(tmp_path: pathlib.Path) -> Kernel:
    return Kernel(tmp_path)


@pytest.fixture
def looked(kernel: Kernel) -> machine.Machine:
    return machine.Machine(kernel.directory, kernel.directory, kernel)


def test_the_first_look_is_over_the_life_of_the_machine(looked: machine.Machine) -> None:
    found = looked.figures()
    assert (found["cpu_idle"], found["bytes_in"], found["packets_out"]) == (50.0, 10.0, 0.2)
    assert (found["memory_free"], found["memory_total"]) == (1000 * 1024, 4000 * 1024)
    assert 0 < found["disk_free"] <= found["disk_total"]


def test_later_looks_are_over_what_was_between(kernel: Kernel, looked: machine.Machine) -> None:
    looked.figures()
    kernel.clock += 2
    kernel.tell(busy=130, idle=70, received=1500)
    found = looked.figures()
    assert (found["cpu_idle"], found["bytes_in"], found["bytes_out"]) == (20.0, 250.0, 0.0)


def test_whoever_looks_in_between_does_not_shorten_them(kernel: Kernel, looked: machine.Machine) -> None:
    looked.figures()
    kernel.clock += 0.01
    kernel.tell(busy=51, idle=50, received=900)
    assert looked.figures()["cpu_idle"] == 50.0
    kernel.clock += 1
    kernel.tell(busy=50, idle=50, received=900)
    found = looked.figures()
    assert (found["cpu_idle"], found["bytes_in"]) == (100.0, 0.0), "counters that stood still, or went back"


def test_this_machine_has_figures() -> None:
    found = machine.Machine(pathlib.Path("/")).figures()
    assert 0 <= found["cpu_idle"] <= 100
    assert 0 < found["memory_free"] <= found["memory_total"]


def test_several_machines_together() -> None:
    def one(idle: float, free: int, received: float) -> dict[str, float]:
        return {
            "cpu_idle": idle, "memory_free": free, "memory_total": 100, "disk_free": 90, "disk_total": 100,
            "bytes_in": received, "bytes_out": 0.0, "packets_in": 1, "packets_out": 1,
        }  # fmt: skip

    assert machine.together([one(100, 50, 1024), one(0, 25, 2048)]) == {
        "cpu": 50.0,
        "memory": 62.5,
        "disk": 10.0,
        "received": 3.0,
        "sent": 0.0,
    }
    assert set(machine.together([]).values()) == {None}
