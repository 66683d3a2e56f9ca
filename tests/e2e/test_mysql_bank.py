"""Clients transfer money while a cluster suffers whatever comes to mind; and the books of any second can be had again.

CONPAAS_TEST_BANK_S has the first test go on for so many seconds, and CONPAAS_TEST_BANK_SEED repeats the course of a former run.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import random
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support import bank, consistency, databases, partitions
from tests.support import platform as platforms

NET = 156
SECONDS = float(os.environ.get("CONPAAS_TEST_BANK_S", "45"))
SEED = int(os.environ.get("CONPAAS_TEST_BANK_SEED", "0")) or random.randrange(1, 1 << 30)
BOUND = 15.0
"""Seconds without an acknowledged transfer that no test may see; what is promised is measured elsewhere."""
RESTORES = 3


@pytest.fixture(scope="module")
def switch() -> Iterator[partitions.Switch]:
    with partitions.switch(NET) as made:
        yield made


@pytest.fixture(scope="module")
def database(switch: partitions.Switch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[databases.Database]:
    with databases.service(tmp_path_factory.mktemp("mysql-bank"), NET, boot=switch.boot) as made:
        yield made


def opened(database: databases.Database, name: str) -> bank.Bank:
    """A bank in a database of its own."""
    database.settle(3)
    database.cps("databases", "add", name)
    made = bank.Bank(**database.login(database=name))
    made.create()
    return made


def books(database: databases.Database, address: str, name: str) -> bank.Ask:
    """How a member is asked for a bank's books."""
    return lambda statement: database.ask(address, statement.replace("FROM ", f"FROM {name}."))


class Trouble:
    """What may happen to a cluster. Each of these is over, or the cluster is about to get over it, when it returns."""

    def __init__(self, database: databases.Database, accounts: bank.Bank, switch: partitions.Switch, chance: random.Random) -> None:
        self._database = database
        self._accounts = accounts
        self._switch = switch
        self._chance = chance

    def server_is_killed(self) -> None:
        os.kill(databases.server_of(self._database.platform, self._anybody()), signal.SIGKILL)

    def all_servers_are_killed(self) -> None:
        for pid in [databases.server_of(self._database.platform, ip) for ip in self._members()]:
            os.kill(pid, signal.SIGKILL)

    def balancer_is_killed(self) -> None:
        (address,) = self._database.addresses("glb").values()
        for pid in consistency.processes_of(self._database.platform, address):
            if consistency.command_of(pid)[0].endswith("/haproxy"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def agent_is_killed(self) -> None:
        os.kill(consistency.daemon_of(self._database.platform, self._anybody(), "agent"), signal.SIGKILL)

    def manager_is_killed(self) -> None:
        databases.kill_manager(self._database)

    def machine_is_lost(self) -> None:
        lost = self._anybody()
        consistency.kill_vm(self._database.platform, lost)
        platforms.until(lambda: lost not in self._members(), f"{lost} is replaced")

    def member_is_cut_off(self) -> None:
        lonely = self._anybody()
        with self._switch.cut(self._database.platform, self._database.others(lonely), [lonely]):
            self._accounts.goes_on()
            platforms.until(lambda: not databases.takes_writes(self._database.platform, lonely), f"{lonely} notices that it is cut off")
            self._accounts.goes_on()

    def members_are_alone(self) -> None:
        members = self._members()
        with self._switch.cut(self._database.platform, [], *([one] for one in members)):
            platforms.until(
                lambda: not any(databases.takes_writes(self._database.platform, one) for one in members), "nobody has a majority"
            )

    def member_is_frozen(self) -> None:
        with partitions.frozen(self._database.platform, [self._anybody()]):
            self._accounts.goes_on(100)

    def member_is_exchanged(self) -> None:
        self._database.cps("add_nodes", "--mysql", "1")
        self._database.cps("remove_nodes", "--mysql", "1")

    def all(self) -> list[Callable[[], None]]:
        return [getattr(self, name) for name in vars(Trouble) if not name.startswith("_") and name != "all"]

    def _members(self) -> list[str]:
        return list(self._database.addresses().values())

    def _anybody(self) -> str:
        """A member, half of the time the writer."""
        return self._database.writer() if self._chance.random() < 0.5 else self._chance.choice(self._members())


def test_every_transfer_counts_once_whatever_happens(database: databases.Database, switch: partitions.Switch) -> None:
    accounts = opened(database, "bank")
    reader = bank.Bank(**database.login(database="bank", address="read"))
    chance = random.Random(SEED)
    trouble = Trouble(database, accounts, switch, chance)
    coming: list[Callable[[], None]] = []
    end = time.monotonic() + SECONDS
    print(f"CONPAAS_TEST_BANK_SEED={SEED}")
    with accounts.watched(accounts, reader) as watch, accounts.written():
        accounts.goes_on()
        while time.monotonic() < end:
            if not coming:
                coming = chance.sample(trouble.all(), k=len(trouble.all()))
            happens = coming.pop()
            accounts.longest, began = 0.0, time.monotonic()
            happens()
            accounts.goes_on()
            database.settle(3)
            print(f"{happens.__name__}: {accounts.longest:.2f} s without a transfer, over after {time.monotonic() - began:.1f} s")
            assert accounts.longest < BOUND, accounts.errors
    print(f"{len(accounts.acknowledged)} transfers, {len(accounts.refused)} refused, {watch.looks} looks; {accounts.errors}")
    assert watch.looks and not watch.wrong
    for name, ip in database.addresses().items():
        accounts.verify(name, books(database, ip, "bank"))
    assert consistency.complaints(database.platform) == []


def test_the_books_of_any_second_can_be_had_again(database: databases.Database) -> None:
    """Also of seconds before and after the death of the writer, one restore after the other, to and fro."""
    accounts = opened(database, "ledger")
    with accounts.written():
        accounts.goes_on()
        database.cps("backup", "make")
        made = int(time.time()) + 1
        accounts.goes_on(500)
        os.kill(databases.server_of(database.platform, database.writer()), signal.SIGKILL)
        accounts.goes_on(500)
        database.settle(3)
        accounts.goes_on(500)
    seconds = random.sample(range(made + 1, int(time.time())), RESTORES)
    print(f"{len(accounts.acknowledged)} transfers from {made} on; restored to {seconds}")
    for second in seconds:
        database.cps("restore", "--until", f"{datetime.datetime.fromtimestamp(second, datetime.UTC):%Y-%m-%d %H:%M:%S}")
        database.settle(3)
        for name, ip in database.addresses().items():
            accounts.verify_at(second, name, books(database, ip, "ledger"))
    with contextlib.closing(accounts.connect()) as connection, connection.cursor() as cursor:
        accounts.change(cursor, "after the restores")  # and it goes on from there
        connection.commit()
