"""Backups of a real server: made, tried out, restored to a second, and put in the place of the data."""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime
import functools
import pathlib
import shutil
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from conpaas.core import errors, file, misc, params
from conpaas.services.mysql.workload import sql
from conpaas.testing import harness, simulation

from . import machine

Make = Callable[..., machine.Machine]


def founded(make_machine: Make) -> machine.Machine:
    node = make_machine()
    node.start([node], bootstrap=True)
    node.sql("CREATE DATABASE a")
    node.sql("CREATE TABLE a.t (i INT PRIMARY KEY)")
    node.sql("INSERT INTO a.t VALUES (1)")
    return node


def rows(node: machine.Machine) -> list[int]:
    return [number for (number,) in node.sql("SELECT i FROM a.t ORDER BY i")]


def upload(directory: pathlib.Path, source: pathlib.Path) -> params.UploadedFile:
    """A file as the agent gets it."""
    copy = directory / f"upload-{time.monotonic_ns()}"
    shutil.copy(source, copy)
    return params.UploadedFile("backup", copy, copy.stat().st_size)


def made(node: machine.Machine) -> dict[str, Any]:
    told = node.agent.make_backup()
    return told | node.agent.verify_backup()


def stamp(second: float) -> str:
    return f"{datetime.datetime.fromtimestamp(second, datetime.UTC):%Y-%m-%d %H:%M:%S}"


def next_second() -> int:
    """Wait until a second begins; returns it."""
    begin = int(time.time()) + 1
    time.sleep(begin - time.time())
    return begin


def test_a_backup_is_tried_out_and_restored_to_a_second(make_machine: Make, directory: pathlib.Path):
    node = founded(make_machine)
    told = made(node)
    assert told["uuid"] == node.state["cluster_uuid"]
    assert told["seqno"] > 0
    assert told["tables"] > 10
    kept = directory / "kept"
    shutil.copy(node.agent.download_backup().path, kept)
    node.agent.forget_backup()
    with pytest.raises(errors.NotFound):
        node.agent.download_backup()

    node.sql("CREATE USER late@'%%' IDENTIFIED BY 'late-secret'")
    node.sql("INSERT INTO a.t VALUES (2)")
    until = next_second()
    next_second()
    node.sql("INSERT INTO a.t VALUES (3)")
    node.sql("DROP DATABASE a")
    (log,) = node.agent.close_binlogs(told["seqno"])["binlogs"]
    assert log["after"] <= told["seqno"] < log["last"]
    assert node.agent.close_binlogs(log["last"])["binlogs"] == []

    # All of it beside the server, which goes on.
    assert node.agent.prepare_restore(upload(directory, kept))["seqno"] == told["seqno"]
    node.agent.add_binlog(upload(directory, node.agent.download_binlog(log["name"]).path), 0)
    assert told["seqno"] < node.agent.replay_binlogs(told["seqno"], until)["seqno"] < log["last"]
    with pytest.raises(errors.WrongState, match="runs"):
        node.agent.swap_restored(True)
    node.agent.stop_mysqld(30)
    node.agent.swap_restored(True)
    node.agent.swap_restored(True)
    node.start([node], bootstrap=True)
    node.synced(1)
    assert rows(node) == [1, 2]
    assert node.sql("SELECT COUNT(*) FROM mysql.user WHERE user = 'late'") == [(1,)]
    assert node.state["cluster_uuid"] != told["uuid"], "it is another history"

    # And back.
    node.agent.stop_mysqld(30)
    node.agent.swap_restored(False)
    node.agent.swap_restored(False)
    node.start([node], bootstrap=True)
    assert node.state["cluster_uuid"] == told["uuid"]
    assert ("a",) not in node.sql("SHOW DATABASES")
    node.agent.discard_restore()
    assert not (node.layout.store / "restore").exists()


def test_a_journal_is_met_at_any_second_and_the_others_follow(make_machine: Make, directory: pathlib.Path):
    """Written on one member, logged and backed up on the other; restored there, and taken over by the first."""
    first, second = both = [make_machine(), make_machine()]
    first.start(both, bootstrap=True)
    second.start(both)
    second.synced(2)
    first.sql("CREATE DATABASE a")
    first.sql("CREATE TABLE a.t (i INT PRIMARY KEY, at INT NOT NULL)")
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            first.sql("INSERT INTO a.t VALUES (%s, UNIX_TIMESTAMP())", number)
            time.sleep(0.02)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        second.agent.set_desync(True)
        told = made(second)
        second.agent.set_desync(False)
        untils = [next_second() + 1]
        first.sql("CREATE TABLE a.later (i INT PRIMARY KEY)")
        first_logs = second.agent.close_binlogs(told["seqno"])["binlogs"]
        untils += [next_second() + 1, next_second()]
        next_second()
    finally:
        stop.set()
        writer.join()
    # The rest of the transactions as the other member knows them: all number them alike.
    rest = first.agent.close_binlogs(first_logs[-1]["last"])["binlogs"]
    assert [one["after"] <= first_logs[-1]["last"] < one["last"] for one in rest] == [True]
    logs = [second.agent.download_binlog(first_logs[0]["name"]).path, first.agent.download_binlog(rest[0]["name"]).path]
    journal = first.sql("SELECT i, at FROM a.t ORDER BY i")
    kept = directory / "kept"
    shutil.copy(second.agent.download_backup().path, kept)
    for until in untils:
        second.agent.prepare_restore(upload(directory, kept))
        for number, log in enumerate(logs):
            second.agent.add_binlog(upload(directory, log), number)
        second.agent.replay_binlogs(told["seqno"], until)
        wanted = [row for row in journal if row[1] < until]
        with second.agent._backups._open(second.layout.store / "restore" / "data") as server:
            found = server._rows("SELECT i, at FROM a.t ORDER BY i")
        assert found == wanted, until
        assert 0 < len(wanted) < len(journal)

    uuid = first.state["cluster_uuid"]
    first.agent.stop_mysqld(30)
    second.agent.stop_mysqld(30)
    second.agent.swap_restored(True)
    second.start([second], bootstrap=True)
    second.synced(1)
    first.start(both)
    first.synced(2)
    second.start(both)
    assert first.sql("SELECT i, at FROM a.t ORDER BY i") == wanted
    assert first.state["cluster_uuid"] == second.state["cluster_uuid"] != uuid
    second.agent.discard_restore()

    # The numbers of the new history go on, so the next backup has logs that follow it, too.
    again = made(second)
    first.sql("INSERT INTO a.later VALUES (1)")
    (log,) = first.agent.close_binlogs(again["seqno"])["binlogs"]
    assert log["after"] <= again["seqno"] < log["last"]


def test_logs_hold_what_was_acknowledged_before_though_the_member_is_behind(make_machine: Make, directory: pathlib.Path):
    first, second = both = [make_machine(), make_machine()]
    first.start(both, bootstrap=True)
    second.start(both)
    second.synced(2)
    first.sql("CREATE DATABASE a")
    first.sql("CREATE TABLE a.t (i INT PRIMARY KEY)")
    second.sql("SET GLOBAL wsrep_desync = ON")
    before = made(second)["seqno"]
    with contextlib.closing(sql.connect(second.layout.socket, 20.0)) as connection, connection.cursor() as cursor:
        cursor.execute("FLUSH TABLES WITH READ LOCK")  # what the other one writes waits here
        for number in range(5):
            first.sql("INSERT INTO a.t VALUES (%s)", number)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asked = pool.submit(second.agent.close_binlogs, before)
            waits = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%%gtid_binlog_pos%%' AND id <> CONNECTION_ID()"
            misc.wait_until(lambda: asked.done() or second.sql(waits) == [(1,)], timeout=10, what="the question for logs")
            cursor.execute("UNLOCK TABLES")
            (log,) = asked.result()["binlogs"]
    assert log["last"] - before == 5
    second.sql("SET GLOBAL wsrep_desync = OFF")


def test_another_service_takes_a_backup_and_its_own_accounts_are_there(make_machine: Make, directory: pathlib.Path):
    source, other = founded(make_machine), make_machine()
    source.sql("DROP USER %s@localhost", source.agent._database.account)
    made(source)
    kept = source.agent.download_backup().path
    other.start([other], bootstrap=True)
    other.agent.prepare_restore(upload(directory, kept))
    other.agent.stop_mysqld(30)
    other.agent.swap_restored(True)
    other.start([other], bootstrap=True)
    other.synced(1)
    assert rows(other) == [1]
    account = other.agent._database.account
    assert other.sql("SELECT COUNT(*) FROM mysql.user WHERE user = %s AND host = 'localhost'", account) == [(1,)]


def test_what_cannot_be_restored_is_refused_and_leaves_nothing(
    make_machine: Make, directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    node = founded(make_machine)
    made(node)
    kept = directory / "kept"
    shutil.copy(node.agent.download_backup().path, kept)
    content = kept.read_bytes()
    for wrong in (content[: len(content) // 2], b"SELECT 1;", content[:1000] + bytes(100_000) + content[101_000:]):
        kept.write_bytes(wrong)
        with pytest.raises(errors.OperationFailed, match="no whole backup"):
            node.agent.prepare_restore(upload(directory, kept))
        assert not (node.layout.store / "restore").exists()
    with pytest.raises(errors.WrongState, match="No backup is being restored"):
        node.agent.add_binlog(upload(directory, kept), 0)
    with pytest.raises(errors.NotFound):
        node.agent.download_binlog("../ibdata1")
    monkeypatch.setattr(file, "free_bytes", lambda _: 1 << 20)
    for call in (node.agent.make_backup, lambda: node.agent.prepare_restore(upload(directory, kept))):
        with pytest.raises(errors.StorageFull, match="left on the disk of the node"):
            call()
    monkeypatch.undo()
    assert rows(node) == [1]
    node.agent.stop_mysqld(30)
    with pytest.raises(errors.WrongState, match="Nothing was restored"):
        node.agent.swap_restored(True)
    with pytest.raises(errors.ConPaaSError):
        node.agent.make_backup()
    assert not (node.layout.store / "backup").exists()


class Service(harness.Harness):
    """A manager, and nodes with real servers."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.machines: dict[str, machine.Machine] = {}
        self.root = directory
        super().__init__("mysql", settings={"BACKUP_LOG_PERIOD": "1"})

    def _make_agent(self, one: Any, service_id: int, context: Any) -> object:
        made = machine.Machine(self.root / one.id, one.id, address=one.ip)
        self.machines[one.id] = made
        disk = self.root / f"disk-{one.id}"
        disk.mkdir(mode=0o755)
        device = made.paths.root / "dev" / "sdb"
        device.parent.mkdir(parents=True)
        device.symlink_to(disk)
        return made.agent

    @property
    def members(self) -> list[machine.Machine]:
        return [self.machines[one.id] for one in self.nodes if one.role == "mysql"]

    def do(self, method: str, **arguments: Any) -> dict[str, Any]:
        reply = self.call(method, **arguments)
        self.settle()
        done = self.operation(reply["operation"])
        assert done.error is None, done.error
        return dict(reply)

    def close(self) -> None:
        super().close()
        for one in self.machines.values():
            one.close()


def test_a_service_loses_everything_and_has_it_back_to_the_second(directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(simulation, "SimulatedDirector", functools.partial(simulation.SimulatedDirector, network="127.68"))
    with Service(directory) as service:
        service.start()
        service.add_nodes({"mysql": 1})
        writer, other = service.members
        writer.sql("CREATE DATABASE a")
        writer.sql("CREATE TABLE a.t (i INT PRIMARY KEY)")
        writer.sql("INSERT INTO a.t VALUES (1)")
        id = service.do("create_backup")["backup"]
        (told,) = service.call("list_backups")["backups"]
        assert told["verified"] >= told["time"]
        assert other.state["in_service"]
        assert not (other.layout.store / "backup").exists()
        other.synced(2)

        next_second()
        writer.sql("INSERT INTO a.t VALUES (2)")
        until = next_second()
        next_second()
        writer.sql("DROP DATABASE a")
        service.do("restore_backup", until=stamp(until))
        assert [rows(one) for one in service.members] == [[1, 2]] * 2
        assert service.state == "RUNNING"
        assert service.call("get_service_info")["cluster"]["healthy"]
        assert not any((one.layout.store / "restore").exists() for one in service.members)

        # It is another history, and the old backup is still good.
        writer.sql("INSERT INTO a.t VALUES (3)")
        service.do("restore_backup", id=id)
        assert [rows(one) for one in service.members] == [[1]] * 2


def test_a_service_whose_data_are_gone_has_them_again(directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    """Of both members, so that nobody takes requests any more."""
    monkeypatch.setattr(simulation, "SimulatedDirector", functools.partial(simulation.SimulatedDirector, network="127.157"))
    with Service(directory) as service:
        service.start()
        service.add_nodes({"mysql": 1})
        writer, _ = service.members
        writer.sql("CREATE DATABASE a")
        writer.sql("CREATE TABLE a.t (i INT PRIMARY KEY)")
        writer.sql("INSERT INTO a.t VALUES (1)")
        service.do("create_backup")
        next_second()
        writer.sql("INSERT INTO a.t VALUES (2)")
        until = next_second()
        service.manager._logs_due = 0.0
        service.manager.tend_backups()
        for one in service.members:
            one.signal(signal.SIGSTOP)
        for one in service.members:
            shutil.rmtree(one.layout.data)
            one.signal(signal.SIGKILL)
        service.do("restore_backup", until=stamp(until))
        assert [rows(one) for one in service.members] == [[1, 2]] * 2
        assert service.call("get_service_info")["cluster"]["healthy"]
