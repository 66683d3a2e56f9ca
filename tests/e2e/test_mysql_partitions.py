"""Members of a cluster that are cut off from each other while clients transfer money: nothing is lost, there is never a second cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.support import bank, consistency, databases, partitions
from tests.support import platform as platforms

NET = 155
BOUND = 8.0
"""Seconds without an acknowledged transfer that no test may see while a majority works."""


@pytest.fixture(scope="module")
def switch() -> Iterator[partitions.Switch]:
    with partitions.switch(NET) as made:
        yield made


@pytest.fixture(scope="module")
def database(switch: partitions.Switch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[databases.Database]:
    with databases.service(tmp_path_factory.mktemp("mysql-parts"), NET, boot=switch.boot) as made:
        yield made


@pytest.fixture(scope="module")
def accounts(database: databases.Database) -> bank.Bank:
    """A bank whose clients come through the load balancer."""
    made = bank.Bank(**database.login(database="shop"))
    made.create()
    return made


@contextlib.contextmanager
def busy(database: databases.Database, accounts: bank.Bank) -> Iterator[None]:
    """While this lasts there are transfers, through the load balancer, and past it on every member; then the books are compared."""
    database.settle(3)
    login = database.login(database="shop")
    direct = [bank.Bank(**{**login, "host": ip, "port": 3306}) for ip in database.addresses().values()]
    reader = bank.Bank(**database.login(database="shop", address="read"))
    with contextlib.ExitStack() as stack:
        watch = stack.enter_context(accounts.watched(accounts, reader))
        stack.enter_context(accounts.written())
        for one in direct:
            stack.enter_context(one.written(1))
        accounts.goes_on()
        accounts.longest = 0.0
        yield
        accounts.goes_on()
        database.settle(3)
    for one in direct:
        accounts.acknowledged |= one.acknowledged
        accounts.refused |= one.refused
    print(f"{len(accounts.acknowledged)} transfers, {len(accounts.refused)} refused, {watch.looks} looks; {accounts.errors}")
    assert watch.looks and not watch.wrong
    for name, ip in database.addresses().items():
        accounts.verify(name, lambda statement, ip=ip: database.ask(ip, f"{statement.replace('FROM ', 'FROM shop.')}"))


def wait_cut(database: databases.Database, switch: partitions.Switch, *members: str) -> None:
    """Wait until these members notice that they are cut off; stopped ones take nothing anyway, and are soon replaced."""
    if switch.obstacle:
        return
    platforms.until(lambda: not any(databases.takes_writes(database.platform, ip) for ip in members), f"{members} take no writes")


def test_the_writer_is_cut_off_from_the_other_members(database: databases.Database, accounts: bank.Bank, switch: partitions.Switch) -> None:
    """Load balancer and manager still reach it: it says itself that it is of no use."""
    with busy(database, accounts):
        lonely = database.writer()
        with switch.cut(database.platform, database.others(lonely), [lonely]):
            accounts.goes_on()
            wait_cut(database, switch, lonely)
            accounts.goes_on()
            assert database.writer() != lonely
            print(f"the writer is cut off from the others: {accounts.longest:.2f} s without a transfer")
        assert accounts.longest < BOUND, accounts.errors


def test_the_writer_is_cut_off_from_everybody(database: databases.Database, accounts: bank.Bank, switch: partitions.Switch) -> None:
    """It goes on without a word to anybody, until it is replaced."""
    with busy(database, accounts):
        lonely = database.writer()
        rest = [vm["ip"] for vm in database.platform.vms() if vm["ip"] != lonely]
        with switch.cut(database.platform, rest, [lonely]):
            accounts.goes_on()
            print(f"the writer is cut off from everybody: {accounts.longest:.2f} s without a transfer")
            wait_cut(database, switch, lonely)
            platforms.until(lambda: lonely not in database.addresses().values(), f"{lonely} is replaced")
            accounts.goes_on()
        assert accounts.longest < BOUND, accounts.errors


def test_each_member_is_alone_for_a_moment(database: databases.Database, accounts: bank.Bank, switch: partitions.Switch) -> None:
    """Nobody has a majority: writing stops, and they go on by themselves when they see each other again."""
    before = database.repairs()
    with busy(database, accounts):
        members = list(database.addresses().values())
        with switch.cut(database.platform, [], *([one] for one in members)):
            wait_cut(database, switch, *members)
        accounts.goes_on()
        print(f"each was alone for a moment: {accounts.longest:.2f} s without a transfer")
    assert database.repairs() == before


def test_each_member_is_alone_for_long(database: databases.Database, accounts: bank.Bank, switch: partitions.Switch) -> None:
    """The manager reaches all of them: it has the one that got furthest go on, and the others wait for it."""
    if switch.obstacle:
        pytest.skip(f"the manager does not reach stopped VMs: {switch.obstacle}")
    before = database.repairs()
    with busy(database, accounts):
        members = list(database.addresses().values())
        with switch.cut(database.platform, [], *([one] for one in members)):
            wait_cut(database, switch, *members)
            accounts.goes_on()
            assert sum(databases.takes_writes(database.platform, one) for one in members) == 1
        accounts.goes_on()
        print(f"each was alone for long: {accounts.longest:.2f} s without a transfer")
    assert database.repairs() > before


def test_the_majority_is_cut_off_from_everybody_else(database: databases.Database, accounts: bank.Bank, switch: partitions.Switch) -> None:
    """Two members go on with each other where neither manager nor load balancer reaches them, and are replaced: their disks have it all."""
    with busy(database, accounts):
        reached = database.writer()
        lost = database.others(reached)
        rest = [vm["ip"] for vm in database.platform.vms() if vm["ip"] not in lost]
        with switch.cut(database.platform, rest, lost):
            wait_cut(database, switch, reached)
            platforms.until(lambda: not set(lost) & set(database.addresses().values()), f"{lost} are replaced")
            database.settle(3)
        print(f"the majority was cut off: {accounts.longest:.2f} s without a transfer")


def test_everybody_is_cut_off_from_the_manager(database: databases.Database, accounts: bank.Bank, switch: partitions.Switch) -> None:
    """Clients notice nothing, and no node is given up: it is the manager that hears nobody."""
    if switch.obstacle:
        pytest.skip(f"stopped VMs would be no use to clients: {switch.obstacle}")
    with busy(database, accounts):
        nodes = {**database.addresses(), **database.addresses("glb")}
        manager = database.manager
        with switch.cut(database.platform, [manager], list(nodes.values())):
            platforms.until(lambda: not database.health()["healthy"], "the manager hears nobody")
            accounts.goes_on(500)  # for longer than a single node is waited for
        assert {**database.addresses(), **database.addresses("glb")} == nodes
        print(f"the manager was cut off: {accounts.longest:.2f} s without a transfer")
        assert accounts.longest < BOUND, accounts.errors


def test_one_member_is_cut_off_from_the_manager(database: databases.Database, accounts: bank.Bank, switch: partitions.Switch) -> None:
    """It is in the cluster, but nobody can look after it: so it is replaced, and clients go on with the others."""
    if switch.obstacle:
        pytest.skip(f"a stopped VM is cut off from everybody: {switch.obstacle}")
    with busy(database, accounts):
        lonely = database.writer()
        with switch.cut(database.platform, [database.manager], [lonely]):
            accounts.goes_on()
            platforms.until(lambda: lonely not in database.addresses().values(), f"{lonely} is replaced")
        print(f"the writer was cut off from the manager: {accounts.longest:.2f} s without a transfer")
        assert accounts.longest < BOUND, accounts.errors
    assert consistency.complaints(database.platform) == []
