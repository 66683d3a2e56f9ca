"""Backups as the manager keeps them: made, listed, carried away and back, restored to a second, and what is refused."""

from __future__ import annotations

import contextlib
import datetime
import pathlib
import struct
import time
from typing import Any

import pytest

from conpaas.core import errors, file
from conpaas.services.mysql.manager import restoring
from conpaas.services.mysql.workload import backup, binlog

from .fake_agent import NOBODY, MySQLHarness


@pytest.fixture
def made() -> Any:
    with MySQLHarness(BACKUP_LOG_PERIOD="1") as harness:
        harness.start()
        harness.add_nodes({"mysql": 2, "glb": 1})
        yield harness
        harness.watch()


def stamp(second: float) -> str:
    return f"{datetime.datetime.fromtimestamp(second, datetime.UTC):%Y-%m-%d %H:%M:%S}"


def listed(made: Any) -> list[dict[str, Any]]:
    return list(made.call("list_backups")["backups"])


class TestMaking:
    def test_it_is_made_aside_checked_and_kept(self, made: Any) -> None:
        made.world.calls.clear()
        reply = made.do("create_backup")
        (one,) = listed(made)
        assert one["id"] == reply["backup"]
        assert one["verified"] is not None
        assert (one["origin"], one["tables"], one["history"]) == ("made", 3, made.fakes()[0].uuid)
        path = made.manager.store.path(one["id"])
        assert file.sha256(path) == one["sha256"]
        assert path.stat().st_mode & 0o777 == 0o600
        order = [name for name, _ in made.world.calls if "backup" in name or name in ("set_desync", "set_health")]
        assert order[:4] == ["set_health", "set_desync", "make_backup", "verify_backup"]
        assert order[-3:] == ["forget_backup", "set_desync", "set_health"]
        writer = made.fakes()[0].my_ip
        assert writer not in {ip for name, ip in made.world.calls if name == "make_backup"}
        assert made.state == "RUNNING"

    def test_the_only_member_goes_on_serving(self) -> None:
        with MySQLHarness() as made:
            made.start()
            made.world.calls.clear()
            made.do("create_backup")
            assert "set_desync" not in {name for name, _ in made.world.calls}

    def test_one_that_cannot_be_restored_is_none(self, made: Any) -> None:
        made.world.refuse["verify_backup"] = 1
        with pytest.raises(errors.OperationFailed, match="fails by order of a test"):
            made.do("create_backup")
        assert listed(made) == []
        assert made.state == "RUNNING"
        assert all(one.healthy and not one.desynced for one in made.fakes())

    def test_a_member_that_stays_aside_serves_again_later(self, made: Any) -> None:
        made.world.refuse["set_desync"] = 0
        made.world.refuse["forget_backup"] = 1
        made.do("create_backup")
        aside = made.fakes()[-1]
        made.manager.settings["backup_aside"] = made.nodes[[one.ip for one in made.nodes].index(aside.my_ip)].id
        aside.healthy, aside.desynced = False, True
        made.pass_time(5)
        assert (aside.healthy, aside.desynced) == (True, False)

    def test_only_the_newest_are_kept(self, made: Any) -> None:
        made.call("set_backup_schedule", schedule="", keep=2)
        ids = [made.do("create_backup")["backup"] for _ in range(3)]
        assert {one["id"] for one in listed(made)} == set(ids[1:])

    def test_a_full_disk_of_the_manager(self, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(file, "free_bytes", lambda _: 1 << 20)
        with pytest.raises(errors.OperationFailed, match="left on the disk of the manager"):
            made.do("create_backup")
        assert listed(made) == []
        assert list(made.manager.store.directory.glob("*")) == []


class TestKeeping:
    def test_deleting(self, made: Any) -> None:
        id = made.do("create_backup")["backup"]
        made.pass_time(5)
        assert list(made.manager.store.directory.glob("logs/*/*"))
        made.call("delete_backup", id=id)
        assert listed(made) == []
        assert list(made.manager.store.directory.rglob("*.zst")) == []
        assert list(made.manager.store.directory.glob("logs/*")) == []
        with pytest.raises(errors.RemoteError, match=f"There is no backup '{id}'"):
            made.call("delete_backup", id=id)

    @pytest.mark.parametrize("id", ["../../etc/passwd", "nothing", "x'; DROP"])
    def test_ids_that_are_none(self, made: Any, id: str) -> None:
        for method in ("delete_backup", "download_backup", "restore_backup"):
            with pytest.raises(errors.RemoteError, match="There is no backup"):
                made.call(method, id=id)

    def test_carried_to_another_service(self, made: Any, tmp_path: pathlib.Path) -> None:
        id = made.do("create_backup")["backup"]
        carried = tmp_path / "carried"
        carried.write_bytes(made.manager.store.path(id).read_bytes())
        with MySQLHarness() as other:
            other.start()
            told = other.call("upload_backup", backup=carried)["backup"]
            assert (told["origin"], told["verified"]) == ("uploaded", None)
            before = other.fakes()[0].uuid
            other.do("restore_backup", id=told["id"])
            assert other.fakes()[0].uuid not in (before, made.fakes()[0].uuid)
            with pytest.raises(errors.RemoteError, match="was uploaded"):
                other.call("restore_backup", id=told["id"], until=stamp(time.time()))
            other.watch()

    def test_what_is_no_backup_is_not_kept(self, made: Any, tmp_path: pathlib.Path) -> None:
        (tmp_path / "x").write_bytes(b"CREATE TABLE t (i INT);")
        with pytest.raises(errors.RemoteError, match="is no backup"):
            made.call("upload_backup", backup=tmp_path / "x")
        (tmp_path / "y").write_bytes(b"\x28\xb5\x2f\xfdnonsense")
        id = made.call("upload_backup", backup=tmp_path / "y")["backup"]["id"]
        uuid = made.fakes()[0].uuid
        with pytest.raises(errors.OperationFailed, match="no whole backup"):
            made.do("restore_backup", id=id)
        assert {one.uuid for one in made.fakes()} == {uuid}, "nothing was touched"
        assert made.state == "RUNNING"


class TestSchedule:
    def test_it_is_told_and_kept(self, made: Any) -> None:
        assert made.call("get_backup_schedule") == {"schedule": "", "keep": 7, "next": None}
        told = made.call("set_backup_schedule", schedule="0 3 * * *", keep=3)
        assert told["next"] > time.time()
        made.restart()
        assert made.call("get_backup_schedule") == told

    def test_a_backup_that_is_due_is_made_once(self, made: Any) -> None:
        made.call("set_backup_schedule", schedule="0 3 * * *", keep=3)
        plan = made.manager.settings["backup_schedule"]
        made.manager.settings["backup_schedule"] = {**plan, "next": time.time() - 1}
        made.pass_time(5)
        assert len(listed(made)) == 1
        assert made.call("get_backup_schedule")["next"] > time.time()

    def test_one_that_is_changed_while_a_backup_begins_stays_changed(self, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        made.call("set_backup_schedule", schedule="0 3 * * *", keep=3)
        plan = made.manager.settings["backup_schedule"]
        made.manager.settings["backup_schedule"] = {**plan, "next": time.time() - 1}
        begin = made.manager._begin_backup
        told: list[Any] = []

        def begins(caller: Any) -> Any:
            told.append(made.call("set_backup_schedule", schedule="0 5 * * *", keep=9))
            return begin(caller)

        monkeypatch.setattr(made.manager, "_begin_backup", begins)
        made.pass_time(10)
        assert told
        assert made.call("get_backup_schedule") == told[0]

    @pytest.mark.parametrize("schedule", ["nonsense", "61 * * * *", "* * * *"])
    def test_what_is_none(self, made: Any, schedule: str) -> None:
        with pytest.raises(errors.RemoteError, match="schedule"):
            made.call("set_backup_schedule", schedule=schedule, keep=3)


class TestRestoring:
    def test_all_members_have_the_data_of_the_backup(self, made: Any) -> None:
        made.do("create_backup")
        before = made.fakes()[0].uuid
        made.world.calls.clear()
        made.do("restore_backup")
        uuids = {one.uuid for one in made.fakes()}
        assert uuids == {made.manager.memory.uuid}
        assert before not in uuids
        names = [name for name, _ in made.world.calls]
        assert names.index("prepare_restore") < names.index("stop_glbd") < names.index("swap_restored")
        assert made.world.users == {"mysqldb": {"*"}}
        assert made.fakes("glb")[0].balancer is not None
        made.pass_time(10)
        assert made.state == "RUNNING"

    def test_to_a_second_with_the_logs_that_were_fetched(self, made: Any) -> None:
        made.world.later = -100
        id = made.do("create_backup")["backup"]
        made.pass_time(5)
        newest = made.fakes()[0].seqno
        made.do("restore_backup", id=id, until=stamp(time.time()))
        assert made.fakes()[0].seqno > newest

    def test_a_cluster_whose_data_are_gone_has_them_again(self, made: Any) -> None:
        """Nobody takes requests any more, so the newest logs are those that were fetched before."""
        made.world.later = -100
        id = made.do("create_backup")["backup"]
        made.world.later = -10
        made.pass_time(5)
        newest = made.fakes()[0].seqno
        made.crash_all()
        for one in made.fakes():
            one.uuid, one.seqno = NOBODY, -1
        made.pass_time(30)
        assert made.manager.memory.incomplete, "it cannot be repaired"
        with pytest.raises(errors.OperationFailed, match=r"reach to .* only"):
            made.do("restore_backup", id=id, until=stamp(time.time()))
        made.do("restore_backup", id=id, until=stamp(time.time() - 60))
        assert all(one.primary and one.seqno > newest for one in made.fakes())
        made.pass_time(30)
        assert made.state == "RUNNING"
        assert not made.manager.memory.incomplete

    def test_nobody_is_there_to_restore_on(self, made: Any) -> None:
        made.do("create_backup")
        for one in made.nodes:
            made.kill_node(one)
        with pytest.raises(errors.OperationFailed, match="No node of the service answers"):
            made.do("restore_backup")

    def test_what_was_there_before_a_restore_can_be_had_again(self, made: Any) -> None:
        made.world.later = -100
        id = made.do("create_backup")["backup"]
        made.world.later = 0
        made.manager._logs_due = float("inf")  # nothing is fetched by the way
        before, newest = time.time(), made.fakes()[0].seqno
        made.do("restore_backup", id=id)
        made.do("restore_backup", id=id, until=stamp(before))
        assert made.fakes()[0].seqno > newest

    def test_a_backup_can_be_restored_though_the_logs_cannot_be_fetched(self, made: Any) -> None:
        made.do("create_backup")
        before = made.fakes()[0].uuid
        made.world.refuse["close_binlogs"] = 2
        made.do("restore_backup")
        assert before not in {one.uuid for one in made.fakes()}

    def test_the_newest_backup_that_is_old_enough(self, made: Any) -> None:
        made.world.later = -100
        old = made.do("create_backup")["backup"]
        made.world.later = 0
        made.do("create_backup")
        assert made.do("restore_backup", until=stamp(time.time() - 10))["backup"] == old

    def test_seconds_that_cannot_be_had(self, made: Any) -> None:
        id = made.do("create_backup")["backup"]
        for until, words in (
            (stamp(time.time() - 3600), "was made at .*, after"),
            (stamp(time.time() + 3600), "is in the future"),
            ("yesterday", "must be UTC"),
        ):
            with pytest.raises(errors.RemoteError, match=words):
                made.call("restore_backup", id=id, until=until)
        with pytest.raises(errors.RemoteError, match="There is no backup that is older"):
            made.call("restore_backup", until=stamp(time.time() - 3600))

    def test_a_gap_in_the_logs_is_told(self, made: Any) -> None:
        made.world.later = -100
        id = made.do("create_backup")["backup"]
        made.world.gap = 5
        with pytest.raises(errors.OperationFailed, match=r"reach to .* only"):
            made.do("restore_backup", id=id, until=stamp(time.time()))
        assert made.state == "RUNNING"

    @pytest.mark.parametrize("method", ["prepare_restore", "replay_binlogs", "swap_restored", "stop_mysqld"])
    def test_a_failure_leaves_the_service_as_before(self, made: Any, method: str) -> None:
        made.world.later = -100
        made.do("create_backup")
        uuid = made.fakes()[0].uuid
        made.world.refuse[method] = 3 if method == "stop_mysqld" else 1
        with pytest.raises(errors.OperationFailed):
            made.do("restore_backup", until=stamp(time.time()))
        made.pass_time(30)
        assert {one.uuid for one in made.fakes()} == {uuid}
        assert made.state == "RUNNING"
        assert made.fakes("glb")[0].balancer is not None

    def test_a_file_that_is_gone(self, made: Any) -> None:
        id = made.do("create_backup")["backup"]
        made.manager.store.path(id).unlink()
        with pytest.raises(errors.RemoteError, match="is gone"):
            made.call("restore_backup", id=id)

    def test_a_service_that_does_not_run(self, made: Any) -> None:
        made.do("create_backup")
        made.stop()
        for method in ("create_backup", "restore_backup"):
            with pytest.raises(errors.RemoteError, match="STOPPED"):
                made.call(method)


def test_a_second_may_be_written_in_these_ways() -> None:
    assert {restoring.parse_second(text) for text in ("2026-11-25 10:11:12", "2026-11-25T10:11:12Z")} == {1795601472}
    assert restoring.shown(1795601472) == "2026-11-25 10:11:12 UTC"


# Binary logs


def event(kind: int, when: int, body: bytes = b"", at: int = 0) -> bytes:
    length = 19 + len(body)
    return struct.pack("<IBIIIH", when, kind, 1, length, at + length, 0) + body


def gtid(seqno: int, when: int, domain: int = 1) -> bytes:
    return event(162, when, struct.pack("<QI", seqno, domain) + b"\0" * 7)


def log_of(path: pathlib.Path, *events: bytes) -> pathlib.Path:
    listed = struct.pack("<I", 2) + struct.pack("<IIQ", 0, 1, 99) + struct.pack("<IIQ", 1, 1, 4)
    path.write_bytes(b"\xfebin" + event(15, 50) + event(163, 50, listed) + b"".join(events))
    return path


class TestBinaryLogs:
    def test_what_one_holds(self, tmp_path: pathlib.Path) -> None:
        path = log_of(tmp_path / "log", gtid(5, 100), event(23, 101), event(16, 101), gtid(77, 102, domain=0), event(2, 102), event(4, 110))
        assert binlog.survey(path) == binlog.Survey(after=4, last=5, end=110)
        (only,) = binlog.groups(path)
        assert (only.seqno, only.when) == (5, 101)

    def test_the_part_before_a_second(self, tmp_path: pathlib.Path) -> None:
        path = log_of(tmp_path / "log", *(piece for n in (5, 6, 7) for piece in (gtid(n, 100 + n), event(16, 100 + n))), event(4, 200))
        whole = binlog.choose(path, 4, None)
        assert whole is not None
        assert (whole.last, whole.reached) == (7, False)
        part = binlog.choose(path, 5, 107)
        assert part is not None
        assert (part.last, part.reached) == (6, True)
        assert whole.begin < part.begin < part.end < whole.end
        nothing = binlog.choose(path, 4, 105)
        assert nothing == binlog.Slice(0, 0, 4, reached=True)
        assert binlog.choose(path, 7, None) is None

    def test_of_one_that_is_cut_off_the_last_transaction_does_not_count(self, tmp_path: pathlib.Path) -> None:
        path = log_of(tmp_path / "log", *(piece for n in (5, 6) for piece in (gtid(n, 100), event(16, 101))))
        path.write_bytes(path.read_bytes()[:-1])
        assert binlog.survey(path) == binlog.Survey(after=4, last=5, end=101)
        part = binlog.choose(path, 4, None)
        assert part is not None
        assert part.last == 5

    @pytest.mark.parametrize("content", [b"", b"SQL", b"\xfebin" + b"\0" * 19])
    def test_files_that_are_none(self, tmp_path: pathlib.Path, content: bytes) -> None:
        (tmp_path / "log").write_bytes(content)
        with pytest.raises(errors.InvalidArgument, match="binary log"):
            binlog.survey(tmp_path / "log")


def test_a_backup_that_lacks_what_tells_of_it_is_none(tmp_path: pathlib.Path) -> None:
    with contextlib.suppress(FileNotFoundError), pytest.raises(errors.InvalidArgument, match="no backup"):
        backup.read_position(tmp_path)
    (tmp_path / "ibdata1").touch()
    (tmp_path / "xtrabackup_info").write_text("tool_name = mariabackup\nserver_version = 10.11.6-MariaDB\n")
    (tmp_path / "xtrabackup_binlog_info").write_text("mysql-bin.000002\t385\t0-1-7,1-1-42\n")
    assert backup.read_position(tmp_path) == backup.Position(42, "0-1-7,1-1-42", "mysql-bin.000002:385", "10.11.6-MariaDB")
