"""Users, databases, grants and variables on a real server, whatever they are called."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
from collections.abc import Iterator
from typing import Any

import pymysql
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support import mariadb, nodes

from conpaas.core import errors
from conpaas.services.mysql import names, variables
from conpaas.services.mysql.agent import accounts, figures, statement_time
from conpaas.services.mysql.workload import sql

PASSWORD = "correct horse"
HOSTILE = ["a`b", "a'b", 'a"b', "x; DROP DATABASE canary", "$(id)", "--all-databases", "a%b", "a_b", "ü", "a.b", "'@'%' --", "%s", "{}"]


@pytest.fixture(scope="module")
def server() -> Iterator[mariadb.Server]:
    with mariadb.standalone() as running:
        running.run("CREATE DATABASE canary")
        running.run("CREATE TABLE canary.t (a INT)")
        yield running


@pytest.fixture
def subject(server: mariadb.Server) -> Iterator[accounts.Accounts]:
    made = accounts.Accounts(server.socket)
    yield made
    for user in made.list_users():
        made.drop_user(user["user"])
    for database in made.list_databases():
        if database["name"] != "canary":
            made.drop_database(database["name"])
    assert "canary" in server.names()


def create(subject: accounts.Accounts, user: str, *databases: str, password: str = PASSWORD, privileges: str = "all") -> None:
    for one in databases:
        if one != "*":
            subject.create_database(one, exist_ok=True)
    subject.create_user(user, password, databases, privileges, "%", exist_ok=False)


def denied(connection: pymysql.Connection[Any], *statements: str) -> None:
    for statement in statements:
        with connection.cursor() as cursor, pytest.raises(pymysql.MySQLError, match=r"denied"):
            cursor.execute(statement)


def allowed(connection: pymysql.Connection[Any], *statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def test_a_user_has_what_was_given_and_nothing_else(server: mariadb.Server, subject: accounts.Accounts) -> None:
    create(subject, "ann", "blog")
    create(subject, "bob", "blog", privileges="read")
    with contextlib.closing(server.login("ann", PASSWORD)) as ann:
        allowed(ann, "CREATE TABLE blog.t (a INT)", "INSERT INTO blog.t VALUES (1)", "CREATE VIEW blog.v AS SELECT * FROM blog.t")
        denied(ann, "SELECT * FROM canary.t", "SELECT * FROM mysql.global_priv", "CREATE DATABASE other", "CREATE USER x@y")
        denied(ann, "GRANT SELECT ON blog.* TO bob@'%'", "SET GLOBAL max_connections = 3", "SELECT 1 INTO OUTFILE '/tmp/x'")
    with contextlib.closing(server.login("bob", PASSWORD)) as bob:
        allowed(bob, "SELECT * FROM blog.t", "SHOW CREATE VIEW blog.v")
        denied(bob, "INSERT INTO blog.t VALUES (2)", "DROP TABLE blog.t", "CREATE TABLE blog.u (a INT)")
    assert subject.list_users() == [
        {"user": "ann", "hosts": ["%"], "databases": [{"name": "blog", "privileges": "all"}]},
        {"user": "bob", "hosts": ["%"], "databases": [{"name": "blog", "privileges": "read"}]},
    ]


def test_underscores_in_names_of_databases_are_no_wildcards(server: mariadb.Server, subject: accounts.Accounts) -> None:
    subject.create_database("aXb", exist_ok=False)
    create(subject, "ann", "a_b")
    with contextlib.closing(server.login("ann", PASSWORD)) as ann:
        allowed(ann, "CREATE TABLE a_b.t (a INT)")
        denied(ann, "CREATE TABLE aXb.t (a INT)")


def test_every_database_is_not_the_systems(server: mariadb.Server, subject: accounts.Accounts) -> None:
    create(subject, "ann", "*")
    before = server.system_tables()
    with contextlib.closing(server.login("ann", PASSWORD)) as ann:
        allowed(ann, "CREATE DATABASE hers", "CREATE TABLE hers.t (a INT)", "INSERT INTO canary.t VALUES (1)", "DELETE FROM canary.t")
        denied(ann, "SELECT * FROM mysql.global_priv", "DROP TABLE mysql.proc", "CREATE TABLE mysql.x (a INT)", "DROP DATABASE sys")
        denied(ann, "CREATE PROCEDURE mysql.p() SELECT 1", "UPDATE mysql.db SET Select_priv = 'Y'", "DELETE FROM mysql.user")
    assert server.system_tables() == before
    assert subject.list_users()[0]["databases"] == [{"name": "*", "privileges": "all"}]
    subject.revoke("ann", "*")
    subject.revoke("ann", "*")
    assert subject.list_users()[0]["databases"] == []
    with contextlib.closing(server.login("ann", PASSWORD)) as ann:
        denied(ann, "SELECT * FROM canary.t")


def test_privileges_are_exactly_the_last_ones_given(server: mariadb.Server, subject: accounts.Accounts) -> None:
    create(subject, "ann", "blog")
    for privileges in ("read", "all", "read"):
        subject.grant("ann", "blog", privileges)
        assert subject.list_users()[0]["databases"] == [{"name": "blog", "privileges": privileges}]
    subject.revoke("ann", "blog")
    assert subject.list_users()[0]["databases"] == []


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_only_names(server: mariadb.Server, subject: accounts.Accounts, name: str) -> None:
    password = name * 8
    before = server.names()
    database = name.replace("'", "`").replace('"', "`")
    create(subject, name, database, password=password)
    assert server.names() - before == {database}
    with contextlib.closing(server.login(name, password, database)) as session:
        allowed(session, "CREATE TABLE t (a INT)")
        denied(session, "SELECT * FROM canary.t")
    assert subject.list_users() == [{"user": name, "hosts": ["%"], "databases": [{"name": database, "privileges": "all"}]}]
    assert [(one["name"], one["tables"]) for one in subject.list_databases() if one["name"] != "canary"] == [(database, 1)]
    subject.set_password(name, password + "2")
    server.login(name, password + "2").close()
    with pytest.raises(pymysql.MySQLError, match="Access denied"):
        server.login(name, password)
    subject.grant(name, database, "read")
    subject.revoke(name, database)
    subject.drop_user(name)
    subject.drop_database(database)
    assert server.names() == before
    assert subject.list_users() == []


@given(st.text(min_size=1, max_size=12), st.text(min_size=8, max_size=20))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_not_refused_works(server: mariadb.Server, subject: accounts.Accounts, name: str, password: str) -> None:
    before = server.names()
    try:
        names.check_user(names.check_database(name))
        names.check_password(password)
    except errors.InvalidArgument:
        with pytest.raises(errors.InvalidArgument):
            create(subject, name, name, password=password)
        subject_databases = {one["name"] for one in subject.list_databases()} - {"canary"}
        for one in subject_databases:
            subject.drop_database(one)
        return
    create(subject, name, name, password=password)
    with contextlib.closing(server.login(name, password, name)) as session:
        allowed(session, "CREATE TABLE t (a INT)")
    subject.drop_user(name)
    subject.drop_database(name)
    assert server.names() == before


def test_no_password_is_in_the_servers_logs(server: mariadb.Server, subject: accounts.Accounts) -> None:
    server.run("SET GLOBAL general_log = 1, slow_query_log = 1, long_query_time = 0")
    try:
        create(subject, "ann", "blog", password="xyzzy-first")
        subject.set_password("ann", "xyzzy-second")
        server.run("FLUSH LOGS")
    finally:
        server.run("SET GLOBAL general_log = 0, slow_query_log = 0, long_query_time = 10")
    read = [path for path in server.data.rglob("*") if path.is_file() and path.suffix != ".ibd"]
    assert any(b"CREATE USER 'ann'" in path.read_bytes() for path in read)
    assert not [path for path in [*read, server.root / "log"] if b"xyzzy" in path.read_bytes()]


def test_sessions_of_a_user_that_another_member_dropped_end(server: mariadb.Server, subject: accounts.Accounts) -> None:
    create(subject, "ann", "blog")
    with contextlib.closing(server.login("ann", PASSWORD)) as ann:
        server.run("DROP USER ann")  # as replication does it
        subject.end_sessions("ann")
        subject.end_sessions("ann")
        with ann.cursor() as cursor, pytest.raises(pymysql.MySQLError):
            cursor.execute("SELECT 1")


def test_a_dropped_user_is_out_at_once(server: mariadb.Server, subject: accounts.Accounts) -> None:
    create(subject, "ann", "blog")
    with contextlib.closing(server.login("ann", PASSWORD)) as ann:
        subject.drop_user("ann")
        with ann.cursor() as cursor, pytest.raises(pymysql.MySQLError):
            cursor.execute("SELECT 1")


def test_what_was_given_on_a_database_goes_with_it(server: mariadb.Server, subject: accounts.Accounts) -> None:
    create(subject, "ann", "my_blog")
    subject.drop_database("my_blog")
    subject.create_database("my_blog", exist_ok=False)
    assert subject.list_users()[0]["databases"] == []


def test_errors_are_sentences(server: mariadb.Server, subject: accounts.Accounts) -> None:
    create(subject, "ann", "blog")
    cases: list[tuple[str, Any]] = [
        ("There is no user 'bob'.", lambda: subject.set_password("bob", PASSWORD)),
        ("There is no user 'bob'.", lambda: subject.drop_user("bob")),
        ("There is no user 'bob'.", lambda: subject.grant("bob", "blog", "all")),
        ("There is no database 'nope'.", lambda: subject.grant("ann", "nope", "all")),
        ("There is no database 'nope'.", lambda: subject.create_user("bob", PASSWORD, ["nope"], "all", "%", False)),
        ("There is no database 'nope'.", lambda: subject.drop_database("nope")),
        ("There is a database 'blog' already.", lambda: subject.create_database("blog", exist_ok=False)),
        ("There is a user 'ann' already.", lambda: create(subject, "ann")),
        ("Password too short", lambda: subject.set_password("ann", "short")),
        ("The user 'root' belongs to the server.", lambda: subject.set_password("root", PASSWORD)),
        ("The user 'root' belongs to the server.", lambda: subject.drop_user("root")),
        ("The database 'mysql' belongs to the server.", lambda: subject.drop_database("mysql")),
        ("The database 'mysql' belongs to the server.", lambda: subject.grant("ann", "mysql", "all")),
    ]
    for text, call in cases:
        with pytest.raises(errors.ConPaaSError) as caught:
            call()
        assert str(caught.value) == text


def test_steps_that_are_done_again_change_nothing(subject: accounts.Accounts) -> None:
    for _ in range(2):
        subject.create_database("blog", exist_ok=True)
        subject.create_user("ann", PASSWORD, ["blog"], "all", "%", exist_ok=True)
    assert [one["user"] for one in subject.list_users()] == ["ann"]


def test_a_server_that_is_not_there(tmp_path: pathlib.Path) -> None:
    for socket in (tmp_path / "none.sock", tmp_path / "none" / "s.sock"):
        with pytest.raises(errors.Unreachable, match="The database server does not"):
            accounts.Accounts(socket).list_users()


def test_a_socket_may_lie_deep(server: mariadb.Server, tmp_path: pathlib.Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.parent.mkdir(parents=True)
    deep.symlink_to(server.socket.parent)
    assert accounts.Accounts(deep / server.socket.name).list_users() == []


def test_variables_change_and_are_told(server: mariadb.Server, subject: accounts.Accounts) -> None:
    before = subject.get_variables()
    assert set(before) == set(variables.CATALOGUE)
    wanted = {"max_connections": 77, "long_query_time": "0.25", "slow_query_log": True, "sql_mode": "ansi_quotes", "time_zone": "+02:00"}
    wanted |= {"collation_server": "latin1_german1_ci", "character_set_server": "latin1", "innodb_buffer_pool_size": "48M"}
    try:
        assert subject.set_variables({**wanted, "back_log": 99}) == ["back_log"]
        told = subject.get_variables()
        for name, value in variables.check_all(wanted).items():
            assert variables.same(name, value, told[name]), (name, told[name])
        assert subject.set_variables(wanted) == []
        # Quoting does not depend on what users chose.
        create(subject, "a'\"`b", "c`d")
        assert subject.list_users()[0]["user"] == "a'\"`b"
    finally:
        assert subject.set_variables({name: before[name] for name in wanted}) == []


def test_every_dynamic_variable_can_be_set_to_its_bounds(subject: accounts.Accounts) -> None:
    before = subject.get_variables()
    for one in variables.CATALOGUE.values():
        if not one.dynamic or not one.maximum or one.name == variables.POOL:
            continue
        for value in (one.minimum, one.maximum):
            checked = variables.check(one.name, value)
            subject.set_variables({one.name: checked})
            assert variables.same(one.name, checked, subject.get_variables()[one.name]), one.name
        subject.set_variables({one.name: before[one.name]})


def test_a_pool_larger_than_the_memory_is_refused(subject: accounts.Accounts) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"innodb_buffer_pool_size can be .* there at most"):
        subject.set_variables({"innodb_buffer_pool_size": "1024G"})


def test_what_the_server_refuses_is_a_sentence(subject: accounts.Accounts) -> None:
    with pytest.raises(errors.OperationFailed, match=r"^The database server refused: Unknown collation: 'utf8mb4_nope' \(1273\)\.$"):
        subject.set_variables({"collation_server": "utf8mb4_nope"})


def test_figures_of_a_real_server(server: mariadb.Server, tmp_path: pathlib.Path) -> None:
    looked = figures.Figures(server.socket, tmp_path / "mariadb.cnf")
    first = looked.get()
    assert first["values"]["uptime"] >= 0
    assert first["max_connections"] == 151
    assert first["latency"] is None
    server.run("SET GLOBAL slow_query_log = 1, long_query_time = 0.01")
    try:
        for _ in range(3):
            server.run("SELECT SLEEP(0.02)")
        second = looked.get()
        assert second["rates"]["queries"] > 0
        assert second["rates"]["slow_queries"] > 0
        assert second["latency"] > 1
        assert int(second["classic"]["select"]) > int(first["classic"]["select"])
        slow = looked.slow_log(None, 10_000)
        assert slow["on"] is True
        assert "SELECT SLEEP(0.02)" in slow["log"]
        assert slow["size"] == slow["offset"]
    finally:
        looked.close()
        server.run("SET GLOBAL userstat = 0, slow_query_log = 0, long_query_time = 10")


def userstat(server: mariadb.Server) -> bool:
    return server.run("SELECT @@GLOBAL.userstat") == [(1,)]


def test_time_is_counted_only_while_somebody_looks(server: mariadb.Server, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statement_time, "COUNTED", 0.2)
    looked = figures.Figures(server.socket, tmp_path / "mariadb.cnf")
    try:
        assert not userstat(server)
        assert looked.get()["latency"] is None
        server.run("SELECT SLEEP(0.05)")
        nodes.until(lambda: not userstat(server), "the server counts no longer")
        assert looked.get()["latency"] > 0.1, "what was counted last is still told"
        assert userstat(server)
    finally:
        looked.close()
        server.run("SET GLOBAL userstat = 0")


@pytest.mark.parametrize("chosen", ["ON", "OFF"])
def test_who_chose_whether_time_is_counted_has_it_so(
    server: mariadb.Server, tmp_path: pathlib.Path, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statement_time, "COUNTED", 0.0)
    configuration = tmp_path / "mariadb.cnf"
    looked = figures.Figures(server.socket, configuration)
    try:
        looked.get()
        nodes.until(lambda: not userstat(server), "the server counts no longer")
        configuration.write_text(f"[mariadbd]\nuserstat = {chosen}\n")
        server.run(f"SET GLOBAL userstat = {chosen}")
        assert (looked.get()["latency"] is None) == (chosen == "OFF")
        assert looked._time._end is None
        assert userstat(server) == (chosen == "ON")
    finally:
        looked.close()
        server.run("SET GLOBAL userstat = 0")


def test_our_own_user_needs_no_password(server: mariadb.Server) -> None:
    assert server.run("SELECT CURRENT_USER()") == [(f"{sql.own_user()}@localhost",)]


def test_a_server_starts_with_every_variable_in_its_configuration(tmp_path: pathlib.Path) -> None:
    values = {one.name: one.minimum for one in variables.CATALOGUE.values() if one.maximum}
    others = {"sql_mode": "ANSI_QUOTES,NO_ZERO_DATE", "time_zone": "-03:30", "collation_server": "latin1_bin", "query_cache_type": "DEMAND"}
    switches = {one.name: "ON" for one in variables.CATALOGUE.values() if one.kind is variables.Kind.SWITCH}
    checked = variables.check_all({**values, **others, **switches})
    assert set(checked) == set(variables.CATALOGUE)
    path = tmp_path / "my.cnf"
    path.write_text("[mariadbd]\n" + "".join(f"{name} = {value}\n" for name, value in variables.options(checked).items()))
    words = ["mariadbd", f"--defaults-file={path}", "--help", "--verbose"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "ERROR" in line]) == (0, [])
