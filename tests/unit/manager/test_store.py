"""The durable state: what a reply acknowledged is there after the process died."""

from __future__ import annotations

import pathlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator

import pytest

from conpaas import testing
from conpaas.core import errors, node, operations
from conpaas.core.operations import OperationStatus, State
from conpaas.core.state import database, records, schema, store


@pytest.fixture
def opened(tmp_path: pathlib.Path) -> Iterator[store.Store]:
    one = store.Store(tmp_path / "state.db")
    yield one
    one.close()


def nodes(count: int, role: str = "node") -> list[node.ServiceNode]:
    return [node.ServiceNode(f"i-{number}", "10.0.0.1", "10.0.0.1", "iaas", role) for number in range(count)]


def again(one: store.Store) -> store.Store:
    one.close()
    return store.Store(one.db.path)


def test_everything_is_there_after_reopening(opened: store.Store) -> None:
    service = opened.services.create("php")
    opened.nodes.add(service, nodes(3))
    opened.settings(service)["a"] = {"b": [1, None]}
    opened.scripts.set(service, "#!")
    opened.codes.add(service, records.CodeRecord("code-1", "a.tar", kind="tar", time=1.5))
    opened.codes.set_current(service, "code-1")
    opened.volumes.add(records.VolumeRecord("v", service, "iaasi-0", "vol", 5, "sdb", "iaas", records.VolumeStatus.ATTACHED, "op"))
    second = again(opened)
    assert second.nodes.members(service) == tuple(nodes(3))
    assert dict(second.settings(service)) == {"a": {"b": [1, None]}}
    assert second.scripts.get(service) == "#!"
    assert second.codes.current(service) == records.CodeRecord("code-1", "a.tar", kind="tar", time=1.5, current=True)
    assert [record.name for record in second.volumes.all()] == ["v"]
    second.close()


def test_what_was_acknowledged_survives_a_kill(tmp_path: pathlib.Path) -> None:
    program = (
        "import os, pathlib, signal, sys\n"
        "from conpaas.core.state import store\n"
        "one = store.Store(pathlib.Path(sys.argv[1]))\n"
        "one.settings(0)['x'] = 1\n"
        "with one.db.transaction():\n"
        "    one.services.create('php')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "state.db"
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == -9
    one = store.Store(path)
    assert one.settings(0)["x"] == 1
    assert one.services.all() == []
    one.close()


def test_one_process_at_a_time(opened: store.Store) -> None:
    with pytest.raises(errors.WrongState, match="Another manager is using the store"):
        store.Store(opened.db.path)


def test_a_newer_file_is_refused(opened: store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    opened.close()
    monkeypatch.setattr(schema, "MIGRATIONS", ())
    with pytest.raises(errors.ConfigurationError, match="written by a newer ConPaaS"):
        store.Store(opened.db.path)


def test_an_older_file_is_brought_forward(opened: store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    service = opened.services.create("php")
    opened.close()
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "ALTER TABLE services ADD COLUMN label TEXT NOT NULL DEFAULT 'x'"))
    second = store.Store(opened.db.path)
    assert second.services.get(service).type == "php"
    assert second.db.row("SELECT label FROM services WHERE id = ?", service)["label"] == "x"  # type: ignore[index]
    second.close()


def test_a_file_from_before_kept_disks_is_brought_forward(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as before:
        before.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        former = database.Database(tmp_path / "state.db")
        former.execute("INSERT INTO services (id, type, state, stable_state, created) VALUES (1, 'php', 'RUNNING', 'RUNNING', 1.0)")
        former.close()
    second = store.Store(tmp_path / "state.db")
    assert (second.services.get(1).type, second.disks.all(1)) == ("php", [])
    second.close()


def test_kept_disks_are_there_after_reopening(opened: store.Store) -> None:
    service = opened.services.create("mysql")
    one, other = nodes(2, "db")
    opened.nodes.add(service, [one, other])
    for target in (one, other):
        opened.disks.reserve(service, "op", target, 50, "sdb")
    opened.disks.set_asked(1)
    opened.disks.set_vol_id(1, "vol-1")
    opened.nodes.set_volumes(service, one.id, [node.ServiceVolume("disk-1", 50, "vol-1", one.id, "sdb", "iaas")])
    opened.disks.give_up(2, 7.0)
    opened.disks.give_up(2, 8.0)
    second = again(opened)
    first, spare = second.disks.all(service)
    assert (first.name, first.key, first.vmid, first.asked, first.vol_id) == ("disk-1", "op-disk-1", "i-0", True, "vol-1")
    assert first.as_volume() in second.nodes.members(service)[0].volumes
    assert (spare.node_id, spare.dev_name, spare.former, spare.spare_since, spare.role) == (None, None, other.id, 7.0, "db")
    second.disks.remove(2)
    second.disks.reserve(service, "op", other, 50, "sdb")
    assert [record.number for record in second.disks.all(service)] == [1, 3], "numbers are never used twice"
    second.services.remove(service)
    assert second.disks.all(service) == []
    second.close()


def test_a_damaged_file_is_named(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(errors.ConfigurationError, match=r"state\.db cannot be used"):
        store.Store(path)


def test_a_transaction_is_all_or_nothing(opened: store.Store) -> None:
    def fail() -> None:
        with opened.db.transaction():
            opened.nodes.add(1, nodes(1))
            assert len(opened.nodes.members(1)) == 1
            raise errors.OperationFailed("no")

    with pytest.raises(errors.OperationFailed):
        fail()
    assert opened.nodes.members(1) == ()


def test_the_state_log_is_bounded(opened: store.Store) -> None:
    for number in range(records.STATE_LOG_LIMIT + 5):
        opened.services.log(0, "RUNNING", str(number))
    history = opened.services.history(0)
    assert (len(history), history[-1].reason) == (records.STATE_LOG_LIMIT, str(records.STATE_LOG_LIMIT + 4))


def test_settings_are_a_mapping(opened: store.Store) -> None:
    settings = opened.settings(1)
    settings["b"] = 2
    settings.update(a=[1])
    settings["a"].append(2)
    assert dict(settings) == {"a": [1], "b": 2}
    del settings["b"]
    assert (len(settings), settings.get("b", "-"), "a" in settings) == (1, "-", True)
    with pytest.raises(KeyError):
        del settings["b"]
    with pytest.raises(TypeError):
        settings["c"] = object()
    assert opened.settings(2).get("a") is None


def test_settings_assigned_together_are_one_transaction(opened: store.Store) -> None:
    settings = opened.settings(1)
    settings["gone"] = 1

    def change() -> None:
        with settings.together():
            settings["a"] = 1
            del settings["gone"]
            assert dict(settings) == {"a": 1}
            raise errors.OperationFailed("no")

    with pytest.raises(errors.OperationFailed):
        change()
    assert dict(settings) == {"gone": 1}
    with settings.together():
        settings["a"] = 1
        with settings.together():
            settings["b"] = 2
        del settings["gone"]
    assert dict(again(opened).settings(1)) == {"a": 1, "b": 2}


def test_code_versions_are_listed_newest_first(opened: store.Store) -> None:
    for number in range(3):
        opened.codes.add(1, records.CodeRecord(f"code-{number}", "f", time=float(number)))
    opened.codes.set_current(1, "code-1")
    opened.codes.set_current(1, "code-2")
    opened.codes.add(1, records.CodeRecord("code-2", "g", time=9.0))
    opened.codes.delete(1, "code-0")
    assert [(one.id, one.filename, one.current) for one in opened.codes.list(1)] == [("code-2", "g", True), ("code-1", "f", False)]
    with pytest.raises(errors.NotFound):
        opened.codes.set_current(1, "code-0")
    assert opened.codes.current(1) is not None


def test_finished_operations_are_kept_within_a_bound(harness: testing.Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conpaas.core.state.operations.HISTORY_LIMIT", 5)
    for number in range(9):
        harness.call("set_word", word=str(number))
        harness.settle()
    assert len(harness.operations()) == 5


# A full disk


def fill(one: store.Store) -> None:
    """Let the file grow no more."""
    pages = one.db.row("PRAGMA page_count")[0]  # type: ignore[index]
    one.db.row(f"PRAGMA max_page_count = {pages}")
    filler = "x" * 100_000
    with pytest.raises(errors.StorageFull):
        while True:
            one.settings(99)[filler[: len(one.settings(99)) + 1]] = filler
    filler = "x" * 50
    with pytest.raises(errors.StorageFull):
        while True:
            one.services.log(98, filler, filler)


def test_a_full_disk_is_told_in_clear_words(opened: store.Store) -> None:
    before = opened.settings(0)
    before["a"] = 1
    fill(opened)
    with pytest.raises(errors.StorageFull, match="There is no room left on the manager's disk"):
        before["b"] = "x" * 10_000
    assert dict(opened.settings(0)) == {"a": 1}


def test_a_service_is_back_in_its_stable_state_when_the_disk_fills_up_on_the_way(
    running: testing.Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, really = running.app.store.db, database.Database.execute
    full = []

    def execute(self: database.Database, statement: str, *values: object) -> int:
        if full and statement.startswith("UPDATE operation_steps") and (db.path.with_name(db.path.name + ".reserve")).exists():
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return really(self, statement, *values)

    monkeypatch.setattr(database.Database, "execute", execute)
    full.append(True)
    op = running.request("add_nodes", service_id=1, nodes={"node": 2})
    assert op.status is OperationStatus.UNDONE
    assert (running.state, len(running.nodes)) == (State.RUNNING, 1)
    assert "There is no room left" in running.history[-1][1]
    running.check()
    assert running.call("check_process", 0) == {}
    full.clear()
    running.add_nodes({"node": 1})


def test_nothing_begins_without_a_reserve_for_its_end(running: testing.Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    reserve = running.app.store.db.path.with_name("state.db.reserve")
    assert reserve.stat().st_size == database.RESERVE_BYTES
    reserve.unlink()

    def no_room(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.posix_fallocate", no_room)
        with pytest.raises(errors.RemoteError, match="There is no room left"):
            running.call("add_nodes", 0, service_id=1, nodes={"node": 1})
    assert running.state is State.RUNNING
    running.add_nodes({"node": 1})


def test_one_operation_per_target(opened: store.Store) -> None:
    kind = operations.OperationKind("k", (operations.Step("s", lambda op: None),))
    opened.operations.begin(operations.Operation("1", "k", 0, {}, steps=[operations.StepRecord("s")]), kind)
    with pytest.raises(errors.WrongState, match="Service 0 is busy with 'k'"):
        opened.operations.begin(operations.Operation("2", "k", 0, {}), kind)
    with pytest.raises(errors.NotFound, match="There is no service 5"):
        opened.operations.begin(operations.Operation("3", "k", 5, {}), kind)
