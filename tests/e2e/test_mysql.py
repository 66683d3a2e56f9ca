"""A MySQL cluster on a whole platform, as its developer and the clients of its databases see it: what was acknowledged stays."""

from __future__ import annotations

import concurrent.futures
import gzip
import os
import pathlib
import signal
import ssl
import subprocess
import threading
from collections.abc import Iterator

import pymysql
import pytest

from tests.support import consistency, databases, journal
from tests.support import platform as platforms

PASSWORD = databases.PASSWORD
JOURNAL = "the journal's own"
BOUND = 15.0
"""Seconds without an acknowledged row that no test may see; what is promised is measured elsewhere."""
HOSTILE = ("x'; DROP DATABASE shop; --", "`reboot`", "a\nb", '"', "$(reboot)", "\x1b[2J", "a" * 300)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[databases.Database]:
    """Three members and a load balancer."""
    watch = {"NODE_LOST_AFTER": "4", "MYSQL_UNWELL": "5"}
    with databases.service(tmp_path_factory.mktemp("mysql"), 131, manager=watch) as made:
        yield made


@pytest.fixture(scope="module")
def written(database: databases.Database) -> journal.Journal:
    """What was acknowledged in all tests of this module."""
    database.cps("users", "add", "clerk", "--database", "shop", "-p", JOURNAL)
    made = journal.Journal(**database.login("clerk", JOURNAL, database="shop"))
    made.create()
    return made


def test_three_members_behind_one_address(database: databases.Database) -> None:
    database.settle(3)
    assert len(database.addresses("glb")) == 1
    assert database.query("SELECT CURRENT_USER()") == [("mysqldb@%",)]
    with pytest.raises(pymysql.OperationalError, match="Access denied"):
        database.query("SELECT 1", password=b"wrong password")
    short = database.cps("set_password", "-p", "short", check=False)
    assert short.code == 1 and "Password too short" in short.err, short


def test_clients_check_the_server_with_the_ca(database: databases.Database, tmp_path: pathlib.Path) -> None:
    authority = tmp_path / "ca.pem"
    database.cps("ca", "--to", authority)
    sure = ssl.create_default_context(cafile=str(authority))
    assert database.query("SHOW STATUS LIKE 'Ssl_version'", ssl=sure) in ([("Ssl_version", "TLSv1.3")], [("Ssl_version", "TLSv1.2")])
    with pytest.raises(pymysql.OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
        database.query("SELECT 1", ssl=ssl.create_default_context())
    secret = tmp_path / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o600)
    told = database.cps("shell", "--password-file", secret, stdin="SELECT 40 + 2;\n")
    assert "42" in told.out.split()


def test_users_and_databases(database: databases.Database) -> None:
    database.cps("databases", "add", "my blog")
    database.cps("users", "add", "writer", "--database", "my blog", "-p", "writer's words")
    database.cps("users", "add", "reader", "--database", "my blog", "--privileges", "read", "-p", "reader's words")
    writer = {"user": "writer", "password": b"writer's words"}
    reader = {"user": "reader", "password": b"reader's words"}
    database.query("CREATE TABLE `my blog`.posts (id INT PRIMARY KEY)", **writer)
    assert database.query("SELECT * FROM `my blog`.posts", **reader) == []
    for statement, login in (("INSERT INTO `my blog`.posts VALUES (1)", reader), ("SELECT * FROM mysql.global_priv", writer)):
        with pytest.raises(pymysql.MySQLError, match="denied"):
            database.query(statement, **login)
    listed = {one["user"]: one["databases"] for one in database.data("users")}
    assert listed["reader"] == [{"name": "my blog", "privileges": "read"}]
    database.cps("users", "grant", "reader", "--database", "my blog")
    database.query("INSERT INTO `my blog`.posts VALUES (1)", **reader)
    database.cps("users", "password", "reader", "-p", "other words")
    with pytest.raises(pymysql.MySQLError, match="denied"):
        database.query("SELECT 1", **reader)
    database.cps("users", "revoke", "reader", "--database", "my blog")
    with pytest.raises(pymysql.MySQLError, match="denied"):
        database.query("SELECT * FROM `my blog`.posts", user="reader", password=b"other words")
    for name in ("reader", "writer"):
        database.cps("users", "drop", name)
    assert {"reader", "writer"}.isdisjoint(one["user"] for one in database.data("users"))
    assert {one["name"]: one["tables"] for one in database.data("databases")}["my blog"] == 1
    database.cps("databases", "drop", "my blog")
    assert "my blog" not in {one["name"] for one in database.data("databases")}
    kept = database.cps("users", "drop", "mysqldb", check=False)
    assert kept.code == 1 and "set its password instead" in kept.err, kept


def test_variables_are_the_same_everywhere(database: databases.Database) -> None:
    database.cps("variables", "set", "max_connections=222", "back_log=77")
    for ip in database.addresses().values():
        assert database.ask(ip, "SELECT @@max_connections, @@back_log") == ((222, 77),)
    assert database.data("variables")["variables"].items() >= {"max_connections": "222", "back_log": "77"}.items()
    for words in (("wsrep_on=OFF",), ("max_connections=10; DROP DATABASE shop",), ("max_connections",)):
        refused = database.cps("variables", "set", *words, check=False)
        assert_one_sentence(refused)
    assert database.query("SELECT @@max_connections") == [(222,)]


def test_a_dump_goes_out_and_comes_in(database: databases.Database, tmp_path: pathlib.Path) -> None:
    plain, packed = tmp_path / "wishes.sql", tmp_path / "shop.sql.gz"
    rows = "".join(f"INSERT INTO wishes VALUES ({number}, 'ü {number} ☃');\n" for number in range(500))
    plain.write_text(f"CREATE DATABASE wishes; USE wishes;\nCREATE TABLE wishes (id INT PRIMARY KEY, text VARCHAR(20));\n{rows}")
    told = database.cps("load_dump", plain)
    assert f"MySQL dump '{plain}' loaded successfully." in told.out
    database.cps("dump", "--database", "wishes", "--compress", "gz", "--to", packed)
    with gzip.open(packed, "rt") as dump:
        assert "CREATE TABLE `wishes`" in dump.read()
    database.query("DELETE FROM wishes.wishes WHERE id > 9")
    database.query("CREATE TABLE wishes.more (id INT PRIMARY KEY)")
    database.cps("load_dump", packed, "--database", "wishes", "--fresh")
    for ip in database.addresses().values():
        assert database.ask(ip, "SELECT COUNT(*), MAX(text) FROM wishes.wishes") == ((500, "ü 99 ☃"),)
        assert database.ask(ip, "SHOW TABLES FROM wishes") == (("wishes",),)
    bad = tmp_path / "bad.sql"
    bad.write_text("DROP TABLE IF EXISTS wishes; CREATE TABLE wishes (id INT PRIMARY KEY); nonsense;")
    refused = database.cps("load_dump", bad, "--database", "wishes", "--fresh", check=False)
    assert_one_sentence(refused)
    assert database.query("SELECT COUNT(*) FROM wishes.wishes") == [(500,)]
    whole = database.cps("dump").out
    assert "CREATE TABLE `wishes`" in whole and "global_priv" not in whole
    database.cps("databases", "drop", "wishes")


def assert_one_sentence(result: platforms.Result) -> None:
    """Refused, in words for people."""
    assert result.code != 0, result
    said = [line for line in result.err.splitlines() if line.startswith(("ERROR: ", "Error: "))]
    assert len(said) == 1, result
    assert "Traceback" not in result.err and "incident" not in result.err and "\x1b" not in result.err, result


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_words_are_refused_in_one_sentence(database: databases.Database, text: str) -> None:
    """What is a legal name, however odd, is taken for what it is and nothing else."""
    good = "a good password"
    tries = (
        ("databases", "drop", text),
        ("users", "drop", text),
        ("users", "grant", "clerk", "--database", text),
        ("set_password", "--user", text, "-p", good),
        ("variables", "set", f"{text}=1"),
        ("variables", "set", f"sql_mode={text}"),
        ("dump", "--database", text),
        ("load_dump", text),
    )
    for words in tries:
        assert_one_sentence(database.cps(*words, check=False))
    assert "shop" in {one["name"] for one in database.data("databases")}


def test_secrets_stay_secret(database: databases.Database) -> None:
    """No password is on a command line of a node or in any log. Whoever gives one as an option of a command shows it there himself."""
    secret = "5ecret word of the day"
    seen: list[str] = []
    ending = threading.Event()

    def watch() -> None:
        while not ending.wait(0.01):
            for ip in [vm["ip"] for vm in database.platform.vms()]:
                seen.extend(" ".join(consistency.command_of(pid)) for pid in consistency.processes_of(database.platform, ip))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        database.platform.run("cps-mysql", "users", database.app, database.sid, "add", "keeper", stdin=f"{secret}\n{secret}\n")
        database.platform.run("cps-mysql", "set_password", database.app, database.sid, "--user", "keeper", stdin=f"{secret}1\n{secret}1\n")
    finally:
        ending.set()
        watcher.join()
    database.cps("users", "drop", "keeper")
    assert seen and not [line for line in seen if secret in line]
    places = [database.platform.directory / "director.out", *database.platform.state.glob("log*/*")]
    for where in database.platform.clouds.values():
        places += [path for path in where.glob("vms/*/root/var/log/**/*") if path.is_file()]
    assert [str(path) for path in places if any(text.encode() in path.read_bytes() for text in (secret, PASSWORD, JOURNAL))] == []
    for where in database.platform.clouds.values():
        for vm in where.glob("vms/*/root"):
            private = [path for name in ("*.db", "key.pem") for path in vm.rglob(name)]
            assert [path for path in private if others_read(path, vm)] == []


def others_read(path: pathlib.Path, root: pathlib.Path) -> bool:
    """Whether any user of a VM (its `root` is that directory) may read a file."""
    ways = path.relative_to(root).parents[:-1]
    return bool(path.stat().st_mode & 0o004) and all((root / one).stat().st_mode & 0o001 for one in ways)


# What no row may be lost by, in the order of growing damage


def test_no_row_is_lost_while_nodes_come_go_and_die(database: databases.Database, written: journal.Journal) -> None:
    database.settle(3)
    with written.written():
        longest("nothing", written)
        database.cps("add_nodes", "--mysql", "1")
        longest("a member is added", written)
        database.cps("remove_nodes", "--mysql", "1")
        longest("a member is removed", written)
        os.kill(databases.server_of(database.platform, database.writer()), signal.SIGKILL)
        written.goes_on()
        database.settle(3)
        longest("the writer's server is killed", written)
        lost = database.writer()
        consistency.kill_vm(database.platform, lost)
        written.goes_on()
        platforms.until(lambda: lost not in database.addresses().values(), "the writer's VM is replaced")
        database.settle(3)
        longest("the writer's VM is killed", written)
        databases.kill_manager(database)
        written.goes_on()
        database.settle(3)
        longest("the manager is killed", written)
    print(f"{len(written.acknowledged)} rows; clients saw {written.errors}")
    database.verify(written)


def longest(event: str, written: journal.Journal) -> None:
    """Tell the longest gap since the last call."""
    written.goes_on()
    print(f"{event}: {written.longest:.2f} s without a row")
    assert written.longest < BOUND, event
    written.longest = 0.0


def test_a_frozen_member_is_passed_by_and_comes_back(database: databases.Database, written: journal.Journal) -> None:
    database.settle(3)
    with written.written():
        written.goes_on()
        written.longest = 0.0
        frozen = databases.server_of(database.platform, database.writer())
        os.kill(frozen, signal.SIGSTOP)
        try:
            written.goes_on()
            platforms.until(lambda: not database.health()["healthy"], "the frozen member is noticed")
        finally:
            os.kill(frozen, signal.SIGCONT)
        longest("the writer is frozen", written)
        database.settle(3)
    database.verify(written)


def test_a_donor_that_dies_is_made_up_for(database: databases.Database, written: journal.Journal) -> None:
    database.settle(3)
    members = database.addresses().values()
    with written.written(), concurrent.futures.ThreadPoolExecutor(1) as pool:
        written.goes_on()
        adding = pool.submit(database.cps, "add_nodes", "--mysql", "1")
        donor = platforms.until(
            lambda: next((ip for ip in members if databases.is_donor(database.platform, ip)), None), "a member gives the new one its data"
        )
        os.kill(databases.server_of(database.platform, donor), signal.SIGKILL)
        written.goes_on()
        adding.result()
        database.settle(4)
        database.cps("remove_nodes", "--mysql", "1")
        database.settle(3)
    database.verify(written)


def test_all_servers_killed_at_once_are_one_cluster_again(database: databases.Database, written: journal.Journal) -> None:
    database.settle(3)
    with written.written():
        written.goes_on()
        written.longest = 0.0
        for pid in [databases.server_of(database.platform, ip) for ip in database.addresses().values()]:
            os.kill(pid, signal.SIGKILL)
        written.goes_on()
        print(f"all servers are killed: {written.longest:.2f} s without a row")
        database.settle(3)
    database.verify(written)


def test_a_stopped_service_has_its_rows_again(database: databases.Database, written: journal.Journal) -> None:
    chosen = database.query("SELECT @@max_connections, @@back_log")
    database.cps("stop")
    assert database.data("list_nodes") == []
    database.cps("start")
    database.settle(3)
    assert len(database.addresses("glb")) == 1
    database.verify(written)
    assert database.query("SELECT @@max_connections, @@back_log") == chosen
    assert len(database.query("SELECT token FROM shop.journal")) >= len(written.acknowledged)
    consistency.assert_consistent(database.platform)


def test_a_removed_service_leaves_nothing(database: databases.Database) -> None:
    platform = database.platform
    before, loops = consistency.on_the_cloud(platform), attached(platform)
    other = databases.Database(platform, database.app)
    other.cps("start")
    assert consistency.on_the_cloud(platform).volumes > before.volumes
    other.stop()
    consistency.assert_consistent(platform)
    assert consistency.on_the_cloud(platform) == before
    assert attached(platform) == loops
    assert consistency.complaints(platform) == []


def attached(platform: platforms.Platform) -> tuple[list[str], list[str]]:
    """The loop devices and the mounts that this machine has for disks of VMs."""
    place = str(platform.directory.resolve())
    devices = subprocess.run(["losetup", "--list", "--noheadings"], capture_output=True, text=True, check=False).stdout.splitlines()
    mounts = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
    return sorted(one for one in devices if place in one), sorted(one for one in mounts if place in one and "/media/" in one)
