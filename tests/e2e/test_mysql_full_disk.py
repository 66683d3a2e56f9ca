"""One member's disk is full, a real one: clients go on with the others, and nobody who is there to help is kept from it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import time
from collections.abc import Iterator

import pytest

from conpaas.core.clouds.dummy import volumes
from tests.support import consistency, databases, journal
from tests.support import platform as platforms

DISK_MB = 512
BOUND = 8.0
"""Seconds without an acknowledged row that no test may see."""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[databases.Database]:
    """A cluster that is unwell is left to itself for as long as one is by default."""
    if volumes.best_kind() != volumes.LOOP:
        pytest.skip("a disk of limited size can be had by root only")
    with databases.service(tmp_path_factory.mktemp("mysql-disk"), 132, members=2, manager={"MYSQL_DISK": str(DISK_MB)}) as made:
        yield made


@pytest.fixture(scope="module")
def written(database: databases.Database) -> journal.Journal:
    made = journal.Journal(**database.login(database="shop"))
    made.create()
    return made


def disk_of(platform: platforms.Platform, address: str) -> pathlib.Path:
    """Where the disk with a member's data is mounted, as the agent sees it."""
    server = databases.server_of(platform, address)
    data = pathlib.Path(f"/proc/{server}/cwd").readlink()
    return pathlib.Path(f"/proc/{consistency.daemon_of(platform, address, 'agent')}/root{data.parent}")


@contextlib.contextmanager
def full(disk: pathlib.Path) -> Iterator[None]:
    """While this lasts, there is not a block left on a disk."""
    filler = disk / "filler"
    with filler.open("wb") as stream:
        size, step = 0, DISK_MB * 1024 * 1024
        while step >= 4096:
            try:
                os.posix_fallocate(stream.fileno(), size, step)
                size += step
            except OSError:
                step //= 2
    try:
        yield
    finally:
        filler.unlink()


def is_told(database: databases.Database, address: str) -> bool:
    """Whether the service says which member has no room."""
    (name,) = [key for key, ip in database.addresses().items() if ip == address]
    reasons = {one["id"]: one.get("reason", "") for one in database.health()["members"]}
    return "MB are left on its disk: it takes no part until there is more room" in reasons[name]


def choose(database: databases.Database, *, writer: bool) -> str:
    """The address of the member that clients write to, or of another one."""
    now = database.writer()
    return now if writer else next(ip for ip in database.addresses().values() if ip != now)


def suffer(database: databases.Database, written: journal.Journal, size: int, *, writer: bool, grow: bool = False) -> None:
    """Fill the disk of one of `size` members while clients write, and delete what fills it after a while. Members come back by themselves:
    nobody tries what cannot help."""
    database.resize(size)
    address, repairs = choose(database, writer=writer), database.repairs()
    with written.written():
        written.goes_on(50)
        written.longest, began = 0.0, time.monotonic()
        with full(disk_of(database.platform, address)):
            written.goes_on(300)  # so many that a member that still took part would have stopped the others
            print(f"300 rows, {time.monotonic() - began:.1f} s after a disk of {size} was full; none for {written.longest:.2f} s")
            platforms.until(lambda: is_told(database, address), f"the service says that the disk of {address} is full: {database.health()}")
            if grow:
                database.cps("add_nodes", "--mysql", "1")
            written.goes_on(20)
        began = time.monotonic()
        database.settle(size + grow)
        print(f"all are well {time.monotonic() - began:.1f} s after there was room again; none for {written.longest:.2f} s")
        assert written.longest < BOUND, written.errors
    database.verify(written)
    assert database.repairs() == repairs
    assert consistency.complaints(database.platform) == []


def test_the_second_of_two(database: databases.Database, written: journal.Journal) -> None:
    suffer(database, written, 2, writer=False)


def test_the_writer_of_two_and_a_third_joins_meanwhile(database: databases.Database, written: journal.Journal) -> None:
    suffer(database, written, 2, writer=True, grow=True)


def test_the_writer_of_three(database: databases.Database, written: journal.Journal) -> None:
    suffer(database, written, 3, writer=True)
