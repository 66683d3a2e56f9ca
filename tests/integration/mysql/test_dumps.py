"""Dumps on a real server: written, loaded, refused; and what a hostile or broken one leaves behind."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import pathlib
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
from tests.support import mariadb

from conpaas.core import errors
from conpaas.services.mysql.agent import accounts, dumps

SHOP = """
CREATE TABLE owner (id INT PRIMARY KEY, name VARCHAR(50));
CREATE TABLE pet (id INT PRIMARY KEY AUTO_INCREMENT, owner INT, name VARCHAR(50), picture BLOB, FOREIGN KEY (owner) REFERENCES owner (id));
CREATE SEQUENCE numbers NOCACHE;
INSERT INTO owner VALUES (1, 'Ann'), (2, 'Bob ''the'' \\\\ "builder"; -- x');
INSERT INTO pet (owner, name, picture) VALUES (1, 'Äöü😀', x'00ff271a0a5c'), (2, 'tom', NULL);
CREATE TABLE log (text VARCHAR(100));
CREATE DEFINER=`root`@`localhost` VIEW pets AS SELECT pet.name AS pet, owner.name AS owner FROM pet JOIN owner ON owner.id = pet.owner;
CREATE DEFINER=`root`@`localhost` SQL SECURITY DEFINER VIEW cats AS SELECT pet FROM pets WHERE pet = 'tom';
DELIMITER ;;
CREATE DEFINER=`root`@`localhost` TRIGGER watch AFTER INSERT ON pet FOR EACH ROW BEGIN
  INSERT INTO log VALUES (CONCAT('new: ', NEW.name));
END;;
CREATE DEFINER=`root`@`localhost` PROCEDURE add_pet(IN given VARCHAR(50)) BEGIN
  INSERT INTO pet (owner, name) VALUES (1, given);
END;;
CREATE FUNCTION pets_of(given INT) RETURNS INT READS SQL DATA RETURN (SELECT COUNT(*) FROM pet WHERE owner = given);;
DELIMITER ;
CREATE EVENT tidy ON SCHEDULE EVERY 1 DAY DO DELETE FROM log;
"""
EMPTY = "CREATE TABLE only (a INT);\n"


CLUSTER = (
    *("--wsrep-on=ON", "--wsrep-provider=/usr/lib/galera/libgalera_smm.so", "--wsrep-cluster-address=gcomm://"),
    *("--innodb-autoinc-lock-mode=2", "--log-slave-updates", "--wsrep-node-address=127.65.7.7"),
    "--wsrep-provider-options=gmcast.listen_addr=tcp://127.65.7.7:4567;base_host=127.65.7.7",
)


@pytest.fixture(scope="module", params=[(), CLUSTER], ids=["standalone", "cluster"])
def server(request: pytest.FixtureRequest) -> Iterator[mariadb.Server]:
    with mariadb.standalone(*request.param) as running:
        running.run("CREATE USER canary@localhost IDENTIFIED BY 'canary-password'")
        yield running


@pytest.fixture
def subject(server: mariadb.Server) -> Iterator[dumps.Dumps]:
    before = server.system_tables()
    yield dumps.Dumps(server.tools, server.scratch)
    owner = accounts.Accounts(server.socket)
    for database in owner.list_databases():
        owner.drop_database(database["name"])
    for (name,) in server.run("SELECT User FROM mysql.global_priv WHERE User LIKE 'conpaas%%'", ()):
        server.run("DROP USER %s@localhost", (name,))
    assert server.system_tables() == before, "a dump has changed the server's own tables"
    assert server.names() == {"information_schema", "mysql", "performance_schema", "sys"}
    assert list(server.scratch.iterdir()) == []


def write(server: mariadb.Server, text: str | bytes) -> pathlib.Path:
    path = server.root / "upload"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def load(
    subject: dumps.Dumps, server: mariadb.Server, text: str | bytes, database: str | None = None, fresh: bool = False
) -> dict[str, int]:
    return subject.load(write(server, text), database, fresh)


def dumped(subject: dumps.Dumps, database: str | None = None, compression: str = "none") -> bytes:
    made = subject.write(database, compression)
    assert made.remove
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    try:
        return made.path.read_bytes()
    finally:
        made.path.unlink()


def tables(server: mariadb.Server, database: str) -> set[str]:
    return {str(row[0]) for row in server.run("SELECT table_name FROM information_schema.tables WHERE table_schema = %s", (database,))}


def loaders(server: mariadb.Server) -> list[tuple[str, bool]]:
    """The accounts of ours that are left, and whether they are locked."""
    rows = server.run("SELECT User, JSON_VALUE(Priv, '$.account_locked') FROM mysql.global_priv WHERE User LIKE 'conpaas%%'", ())
    return [(str(name), bool(int(locked))) for name, locked in rows]


def check_shop(server: mariadb.Server, database: str) -> None:
    """All that is in SHOP is there and works."""
    assert server.run("SELECT name, picture FROM pet ORDER BY id", None, database)[:2] == [
        ("Äöü😀", b"\x00\xff\x27\x1a\x0a\x5c"),
        ("tom", None),
    ]
    assert server.run("SELECT name FROM owner WHERE id = 2", None, database) == [("Bob 'the' \\ \"builder\"; -- x",)]
    before = len(server.run("SELECT * FROM log", None, database))
    server.run("CALL add_pet('rex')", None, database)
    assert server.run("SELECT text FROM log", None, database)[before:] == [("new: rex",)]
    assert server.run("SELECT pet FROM pets WHERE pet = 'rex'", None, database)
    assert server.run("SELECT * FROM cats", None, database) == [("tom",)]
    assert server.run("SELECT pets_of(2)", None, database) == [(1,)]
    assert server.run("SELECT NEXTVAL(numbers)", None, database)
    assert server.run("SELECT event_name FROM information_schema.events WHERE event_schema = %s", (database,)) == [("tidy",)]
    with pytest.raises(Exception, match="foreign key constraint"):
        server.run("INSERT INTO pet (owner, name) VALUES (99, 'x')", None, database)
    server.run("DELETE FROM pet WHERE name = 'rex'", None, database)


# Loading


@pytest.mark.parametrize("fresh", [False, True])
def test_all_kinds_of_things_are_loaded(server: mariadb.Server, subject: dumps.Dumps, fresh: bool) -> None:
    done = load(subject, server, SHOP, "shop", fresh)
    assert done == {"bytes": len(SHOP.encode()), "sql_bytes": len(SHOP.encode()), "lines": SHOP.count("\n")}
    check_shop(server, "shop")
    assert [locked for _, locked in loaders(server)] == [True]


@pytest.mark.parametrize("compression", ["none", "gz", "zst"])
@pytest.mark.parametrize("fresh", [False, True])
def test_a_dump_comes_back_as_it_was(server: mariadb.Server, subject: dumps.Dumps, compression: str, fresh: bool) -> None:
    load(subject, server, SHOP, "shop")
    made = dumped(subject, "shop", compression)
    load(subject, server, made, "copy", fresh)
    check_shop(server, "copy")
    check_shop(server, "shop")


def test_a_dump_of_all_databases_makes_them_again(server: mariadb.Server, subject: dumps.Dumps) -> None:
    for name in ("shop", "its `odd` 100% $(a_b);", "--help"):
        load(subject, server, SHOP, name)
    made = dumped(subject, None, "gz")
    owner = accounts.Accounts(server.socket)
    for database in owner.list_databases():
        owner.drop_database(database["name"])
    load(subject, server, made)
    for name in ("shop", "its `odd` 100% $(a_b);", "--help"):
        check_shop(server, name)
    assert loaders(server) == [("conpaas_load", True)]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gz", "bz2", "xz"])
def test_packed_dumps_are_read(server: mariadb.Server, subject: dumps.Dumps, pack: Callable[[bytes], bytes]) -> None:
    assert load(subject, server, pack(SHOP.encode()), "shop")["sql_bytes"] == len(SHOP.encode())
    check_shop(server, "shop")


def test_without_databases_there_is_a_dump_too(server: mariadb.Server, subject: dumps.Dumps) -> None:
    assert dumped(subject) == b"-- There are no databases.\n"
    assert gzip.decompress(dumped(subject, compression="gz")) == b"-- There are no databases.\n"
    assert load(subject, server, dumped(subject, compression="zst"))["lines"] == 1
    assert loaders(server) == []


def test_a_load_that_defines_nothing_leaves_no_account(server: mariadb.Server, subject: dumps.Dumps) -> None:
    load(subject, server, EMPTY, "shop")
    assert loaders(server) == []


def test_tables_of_other_engines_become_replicated_ones(server: mariadb.Server, subject: dumps.Dumps) -> None:
    load(subject, server, "CREATE TABLE t (\n a INT\n) ENGINE=MyISAM;\n", "shop")
    assert server.run("SELECT engine FROM information_schema.tables WHERE table_schema = 'shop'") == [("InnoDB",)]


# Replacing


def test_a_fresh_load_replaces_all_there_was(server: mariadb.Server, subject: dumps.Dumps) -> None:
    load(subject, server, SHOP, "shop")
    owner = accounts.Accounts(server.socket)
    owner.create_user("ann", "correct horse", ["shop"], "all", "%", False)
    load(subject, server, EMPTY, "shop", fresh=True)
    assert tables(server, "shop") == {"only"}
    for table, column in (("routines", "routine_schema"), ("triggers", "trigger_schema"), ("events", "event_schema")):
        assert server.run(f"SELECT * FROM information_schema.{table} WHERE {column} = 'shop'") == []
    assert loaders(server) == []
    with contextlib.closing(server.login("ann", "correct horse", "shop")) as ann, ann.cursor() as cursor:
        cursor.execute("SELECT * FROM only")
    owner.drop_user("ann")
    load(subject, server, SHOP, "shop", fresh=True)
    load(subject, server, dumped(subject, "shop"), "shop", fresh=True)
    check_shop(server, "shop")


def test_a_dump_that_chooses_the_database_itself_can_replace_it(server: mariadb.Server, subject: dumps.Dumps) -> None:
    load(subject, server, SHOP, "shop")
    load(subject, server, dumped(subject, None), "shop", fresh=True)
    check_shop(server, "shop")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("INSERT INTO nowhere VALUES (1);\n", r"^The dump failed at line \d+: Table '.*nowhere' doesn't exist \(1146\)\.$"),
        ("SELEKT 1;\n", r"^The dump failed at line \d+: You have an error in your SQL syntax"),
        ("INSERT INTO owner VALUES (1, 'twice');\n", r"Duplicate entry '1' for key 'PRIMARY' \(1062\)"),
        ("USE mysql;\nDROP TABLE global_priv;\n", r"denied"),
        ("DROP DATABASE shop;\n", r"denied to user|Access denied"),
        ("INSERT INTO shop.owner VALUES (7, 'x');\n", r"denied"),
    ],
)
def test_a_fresh_load_that_fails_half_way_leaves_the_database_as_it_was(
    server: mariadb.Server, subject: dumps.Dumps, harm: str, said: str
) -> None:
    load(subject, server, SHOP, "shop")
    before = (tables(server, "shop"), dict(server.run("CHECKSUM TABLE shop.owner, shop.pet, shop.log")), loaders(server))  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidArgument, match=said):
        load(subject, server, SHOP + harm + "CREATE TABLE after_it (a INT);\n", "shop", fresh=True)
    assert (tables(server, "shop"), dict(server.run("CHECKSUM TABLE shop.owner, shop.pet, shop.log")), loaders(server)) == before  # type: ignore[arg-type]
    assert subject.progress()["error"]
    check_shop(server, "shop")


def test_the_line_of_an_error_is_the_one_in_the_file(server: mariadb.Server, subject: dumps.Dumps) -> None:
    text = "CREATE TABLE t (a INT);\n" * 1 + "SET @@SESSION.SQL_LOG_BIN= 0;\n" + "\n" * 5 + "INSERT INTO t\nVALUES ('x', 2);\n"
    with pytest.raises(errors.InvalidArgument, match=r"^The dump failed at line 8: "):
        load(subject, server, text, "shop")


def test_readers_see_the_old_or_the_new_tables_and_nothing_else(server: mariadb.Server, subject: dumps.Dumps) -> None:
    one, two = (
        "CREATE TABLE a (n INT); CREATE TABLE b (n INT);\n" + f"INSERT INTO a VALUES ({n}); INSERT INTO b VALUES ({n});\n" for n in (1, 2)
    )
    load(subject, server, one, "shop")
    seen: set[tuple[int, int]] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.update(server.run("SELECT a.n, b.n FROM shop.a, shop.b"))

    reader = threading.Thread(target=read)
    reader.start()
    for text in (two, one, two):
        load(subject, server, text, "shop", fresh=True)
    stop.set()
    reader.join()
    assert {(2, 2)} <= seen <= {(1, 1), (2, 2)}


def test_what_a_load_that_was_cut_off_has_left_is_removed_by_the_next(server: mariadb.Server, subject: dumps.Dumps) -> None:
    load(subject, server, EMPTY, "shop")
    server.run("CREATE DATABASE shop__load_0123abcd")
    server.run("CREATE TABLE shop.__old_0123abcd_0 (a INT)")
    server.run("CREATE VIEW shop.__old_0123abcd_1 AS SELECT 1")
    (server.scratch / "dump-left.sql").write_text("x")
    assert [one["name"] for one in accounts.Accounts(server.socket).list_databases()] == ["shop"]
    subject.clean_up()
    load(subject, server, EMPTY, "shop", fresh=True)
    assert tables(server, "shop") == {"only"}
    assert "shop__load_0123abcd" not in server.names()


# Hostile


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE mysql.global_priv",
        "UPDATE mysql.global_priv SET Priv = '{}'",
        "CREATE TABLE mysql.x (a INT)",
        "DROP DATABASE mysql",
        "DROP DATABASE sys",
        "CREATE DATABASE `information_schema`",
        "CREATE PROCEDURE mysql.p() SELECT 1",
        "CREATE USER eve@'%' IDENTIFIED BY 'evil-password'",
        "DROP USER canary@localhost",
        "SET PASSWORD FOR canary@localhost = PASSWORD('x')",
        "GRANT ALL ON *.* TO canary@localhost",
        "GRANT ALL ON shop.* TO canary@localhost",
        "SET GLOBAL max_connections = 10",
        "SET GLOBAL general_log_file = '/tmp/x'",
        "INSTALL SONAME 'auth_ed25519'",
        "CREATE FUNCTION f RETURNS STRING SONAME 'x.so'",
        "SELECT 1 INTO OUTFILE '/tmp/conpaas-never'",
        "LOAD DATA INFILE '/etc/passwd' INTO TABLE shop.only",
        "LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE shop.only",
        "FLUSH PRIVILEGES",
        "SHUTDOWN",
        "SET SESSION sql_log_bin = 0",
        "PREPARE s FROM 'CREATE DEFINER=root@localhost VIEW shop.v AS SELECT 1'; EXECUTE s",
        " CREATE DEFINER=root@localhost VIEW shop.v AS SELECT 1",
        "system touch /tmp/conpaas-never",
        "\\! touch /tmp/conpaas-never\nSELEKT",
        "source /etc/passwd",
        "\\. /etc/passwd",
        "tee /tmp/conpaas-never",
    ],
)
@pytest.mark.parametrize("database", ["shop", None])
def test_a_hostile_dump_changes_nothing_but_databases_of_users(
    server: mariadb.Server, subject: dumps.Dumps, statement: str, database: str | None
) -> None:
    load(subject, server, EMPTY, "shop")
    with pytest.raises(errors.ConPaaSError, match=r"^The dump failed at line 1: "):
        load(subject, server, statement + ";\n", database)
    assert not pathlib.Path("/tmp/conpaas-never").exists()
    assert server.run("SELECT COUNT(*) FROM shop.only") == [(0,)]
    server.login("canary", "canary-password").close()


def test_a_dump_for_one_database_cannot_change_another(server: mariadb.Server, subject: dumps.Dumps) -> None:
    load(subject, server, EMPTY, "other")
    for statement in ("USE other;\n", "DROP TABLE other.only;\n", "CREATE DATABASE third;\n", "DROP DATABASE other;\n"):
        with pytest.raises(errors.InvalidArgument, match="denied") as caught:
            load(subject, server, statement, "shop")
        assert caught.value.hint is not None
        assert "the database 'shop' only" in caught.value.hint
    assert tables(server, "other") == {"only"}


def test_what_a_dump_defines_has_no_more_rights_than_the_dump(server: mariadb.Server, subject: dumps.Dumps) -> None:
    text = "DELIMITER ;;\nCREATE DEFINER=`root`@`localhost` PROCEDURE steal() SQL SECURITY DEFINER SELECT * FROM mysql.global_priv;;\n"
    load(subject, server, text, "shop")
    with pytest.raises(Exception, match="denied"):
        server.run("CALL shop.steal()")


def test_the_password_of_a_load_is_nowhere_to_be_seen(server: mariadb.Server, subject: dumps.Dumps) -> None:
    seen: list[str] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    words = process.cmdline()
                    if (
                        any(str(server.root) in word or "/proc/self/fd" in word for word in words)
                        and "mariadb" in words[0] + words[-1] + words[4:][0]
                    ):
                        seen.append(" ".join(words) + repr(process.environ()))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        load(subject, server, "SELECT SLEEP(1);\n", "shop")
    finally:
        done.set()
        watcher.join()
    clients = [one for one in seen if "--defaults-file=/proc/self/fd/" in one]
    assert clients
    assert not [one for one in clients if "password" in one.lower() or "MYSQL_PWD" in one]


@pytest.mark.parametrize("database", ["mysql", "sys", "a/b", "shop__load_0123abcd", ""])
def test_other_databases_are_refused(server: mariadb.Server, subject: dumps.Dumps, database: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        load(subject, server, EMPTY, database)
    with pytest.raises(errors.InvalidArgument):
        subject.write(database, "none")


def test_a_database_that_cannot_be_dumped_is_named(server: mariadb.Server, subject: dumps.Dumps) -> None:
    server.run("CREATE DATABASE `it's`")
    try:
        with pytest.raises(errors.InvalidArgument, match="hold quotes or slashes, as it's does"):
            subject.write(None, "none")
    finally:
        server.run("DROP DATABASE `it's`")


def test_a_fresh_load_needs_a_name(server: mariadb.Server, subject: dumps.Dumps) -> None:
    with pytest.raises(errors.InvalidArgument, match="Name the database"):
        load(subject, server, EMPTY, None, fresh=True)
    with pytest.raises(errors.NotFound, match="There is no database 'nope'"):
        subject.write("nope", "none")


# Broken


@pytest.mark.parametrize("fresh", [False, True])
def test_a_file_that_was_cut_off_is_not_taken_for_a_dump(server: mariadb.Server, subject: dumps.Dumps, fresh: bool) -> None:
    rows = "".join(f"INSERT INTO t VALUES ({number}, '{os.urandom(20).hex()}');\n" for number in range(20_000))
    packed = gzip.compress(f"CREATE TABLE t (a INT, b TEXT);\n{rows}DELETE FROM t\n WHERE a = 1;\n".encode())
    with pytest.raises(errors.InvalidArgument, match="The gz file is damaged"):
        load(subject, server, packed[:-40], "shop", fresh)
    assert ("t" in tables(server, "shop")) is not fresh


def test_one_load_at_a_time_with_progress_and_an_end(server: mariadb.Server, subject: dumps.Dumps) -> None:
    text = EMPTY + "INSERT INTO only VALUES (1);\nSELECT SLEEP(60);\nINSERT INTO only VALUES (2);\n"
    path = write(server, text)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            subject.load(path, "shop", False)
        except errors.ConPaaSError as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 30
    while not ("only" in tables(server, "shop") and server.run("SELECT * FROM shop.only")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    now = subject.progress()
    assert (now["running"], now["database"], now["total"], now["bytes"], now["lines"]) == (True, "shop", len(text), len(text), 4)
    with pytest.raises(errors.WrongState, match="A dump is being loaded already"):
        subject.load(path, "shop", False)
    assert subject.cancel() is True
    thread.join()
    assert [str(one) for one in failed] == ["Loading the dump was stopped before line 5."]
    assert server.run("SELECT a FROM shop.only") == [(1,)]
    assert subject.progress()["running"] is False
    assert subject.cancel() is False


def test_a_client_does_not_outlive_the_agent(server: mariadb.Server, subject: dumps.Dumps) -> None:
    program = (
        "import pathlib, sys; from conpaas.services.mysql.agent import dumps; from conpaas.services.mysql.workload import programs\n"
        f"made = dumps.Dumps(programs.Programs(pathlib.Path({str(server.socket)!r})), pathlib.Path({str(server.scratch)!r}))\n"
        "made.load(pathlib.Path(sys.argv[1]), 'shop', False)\n"
    )
    path = write(server, EMPTY + "SELECT SLEEP(60);\n")
    agent = subprocess.Popen([sys.executable, "-c", program, str(path)])
    try:
        deadline = time.monotonic() + 30
        while not any("SLEEP" in str(row[7]) for row in server.run("SHOW PROCESSLIST") if str(row[1]).startswith("conpaas_load")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        (client,) = psutil.Process(agent.pid).children()
        agent.kill()
        agent.wait()
        client.wait(10)
    finally:
        agent.kill()
        agent.wait()
    load(subject, server, "SELECT 1;\n", "shop")
    assert loaders(server) == []


def test_a_full_disk_is_told_before_a_dump_begins(server: mariadb.Server, subject: dumps.Dumps, monkeypatch: pytest.MonkeyPatch) -> None:
    load(subject, server, SHOP, "shop")
    monkeypatch.setattr("conpaas.core.file.free_bytes", lambda path: 10 << 20)
    with pytest.raises(errors.StorageFull, match=r"^The dump may need 0 MB and there are 10 MB left on the disk of the node\.$"):
        subject.write("shop", "none")


def test_a_disk_that_fills_up_while_a_dump_is_written(server: mariadb.Server, subject: dumps.Dumps) -> None:
    load(subject, server, SHOP, "shop")
    for compression in ("none", "gz", "zst"):
        with pytest.raises(errors.StorageFull), pathlib.Path("/dev/full").open("wb", buffering=0) as full:
            server.tools.dump(full, ["shop"], compression=compression)


def test_a_dump_that_fails_leaves_no_file(server: mariadb.Server, subject: dumps.Dumps) -> None:
    load(subject, server, "CREATE TABLE t (a INT); CREATE VIEW v AS SELECT a FROM t; DROP TABLE t;\n", "shop")
    with pytest.raises(errors.OperationFailed, match=r"^The dump failed: "):
        subject.write("shop", "gz")


def test_a_large_dump_needs_little_memory(server: mariadb.Server, subject: dumps.Dumps) -> None:
    row = "x" * 1000
    statement = "INSERT INTO t VALUES " + ",".join(f"('{row}')" for _ in range(1000)) + ";\n"
    path = server.root / "large.sql"
    with path.open("w") as file:
        file.write("CREATE TABLE t (a TEXT);\n")
        for _ in range(100):
            file.write(statement)
    size = path.stat().st_size
    assert size > 100_000_000
    process = psutil.Process()
    peak = before = process.memory_info().rss
    done = threading.Event()

    def look() -> None:
        nonlocal peak
        while not done.wait(0.01):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        assert subject.load(path, "shop", True)["sql_bytes"] == size
        assert server.run("SELECT COUNT(*) FROM shop.t") == [(100_000,)]
        made = subject.write("shop", "zst")
        made.path.unlink()
    finally:
        done.set()
        watcher.join()
        path.unlink()
    assert peak - before < size / 5
