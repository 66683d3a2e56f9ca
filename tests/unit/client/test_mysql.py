"""The verbs of the mysql service: what they send, and the words they print."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from conpaas.core import errors

APPLICATION = {"aid": 1, "name": "shop", "status": "RUNNING", "manager": "127.0.0.22", "cloud": "iaas"}
SERVICES = [
    {"service": {"sid": 1, "name": "db", "type": "mysql", "application_id": 1}, "application": APPLICATION},
    {"service": {"sid": 2, "name": "site", "type": "php", "application_id": 1}, "application": APPLICATION},
]
BINDING = {"service": 2, "database": "php2", "user": "php2", "prefix": "MYSQL", "given": True}
CA = "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"
DUMP = b"-- MariaDB dump\nSELECT '\xff';\n"
FIGURES = {
    "rates": {"queries": 120.5, "slow_queries": 0.0, "selects": 100.0, "inserts": 1.0, "updates": 2.0, "deletes": 0.0, "connections": 3.0},
    "values": {"threads_connected": 9.0, "threads_running": 1.0, "receive_queue": 0.0},
    "ratios": {"pool_hits": 0.999, "flow_control_paused": 0.0},
    "latency": None,
}
BACKUP = {"id": "b1", "time": 1795601472.5, "bytes": 7, "origin": "made", "tables": 90, "verified": 1795601475.0, "restorable_until": None}
MANAGER: dict[str, Any] = {
    "get_service_info": {"state": "RUNNING", "type": "mysql"},
    "get_operation": {"operation": {"id": "op1", "status": "DONE"}},
    "list_nodes": {"mysql": ["iaasvm-1"], "glb": ["iaasvm-2"]},
    "get_node_info": lambda given: {
        "serviceNode": {
            "id": given["serviceNodeId"],
            "ip": f"10.0.0.{given['serviceNodeId'][-1]}",
            "health": "Synced" if given["serviceNodeId"].endswith("1") else None,
        }
    },
    "set_password": {},
    "create_user": {"operation": "op1"},
    "drop_user": {},
    "grant": {},
    "revoke": {},
    "list_users": {"users": [{"user": "ann", "databases": [{"name": "blog", "privileges": "all"}]}, {"user": "bob", "databases": []}]},
    "create_database": {},
    "drop_database": {},
    "list_databases": {"databases": [{"name": "blog", "bytes": 16384, "tables": 1}]},
    "bind": {"database": "php2", "user": "php2", "operation": "op1"},
    "unbind": {},
    "list_bindings": {"bindings": [BINDING]},
    "set_variables": {"operation": "op1"},
    "get_variables": {"variables": {"max_connections": "500", "back_log": "90"}, "pending_restart": ["back_log"]},
    "load_dump": {"operation": "op1"},
    "download_dump": DUMP,
    "create_backup": {"operation": "op1", "backup": "b1"},
    "list_backups": {"backups": [BACKUP]},
    "delete_backup": {},
    "download_backup": b"\x28\xb5\x2f\xfdbackup",
    "upload_backup": {"backup": BACKUP},
    "restore_backup": {"operation": "op1"},
    "get_backup_schedule": {"schedule": "", "keep": 7, "next": None},
    "set_backup_schedule": {"schedule": "0 3 * * *", "keep": 3, "next": 1795575600.0},
    "get_access": {"write": {"host": "10.0.0.2", "port": 8010}, "read": {"host": "10.0.0.2", "port": 8011}, "ca": CA},
    "get_service_performance": {"request_rate": 1.5, "error_rate": 0, "throughput": 7, "response_time": 2},
    "add_nodes": {"operation": "op1"},
    "remove_nodes": {"operation": "op1"},
}


@pytest.fixture(autouse=True)
def _served(wire: Any, home: Path) -> None:
    wire.director["/list"] = SERVICES
    wire.manager.update(MANAGER)
    (home / "dump.sql").write_bytes(DUMP)


SENTENCES = [
    ("mysql set_password 1 1 -p 12345678", "MySQL password successfully updated for user 'mysqldb'."),
    ("mysql set_password 1 db --password 12345678 --user ann", "MySQL password successfully updated for user 'ann'."),
    ("mysql load_dump 1 1 dump.sql", "MySQL dump 'dump.sql' loaded successfully."),
    ("mysql add_nodes 1 1", "Starting 1 new nodes for service 1 of application 1...  done."),
    ("mysql users 1 1", "user database privileges\n------------------------\nann  blog     all\nbob"),
    ("mysql users 1 1 add eve -p 12345678 --database blog", "Creating user 'eve'...  done."),
    ("mysql users 1 1 drop eve", "Dropping user 'eve'...  done."),
    ("mysql users 1 1 password eve -p 12345678", "MySQL password successfully updated for user 'eve'."),
    ("mysql users 1 1 grant eve --database blog --privileges read", "Granting 'read' on 'blog' to 'eve'...  done."),
    ("mysql users 1 1 revoke eve --database blog", "Revoking all on 'blog' from 'eve'...  done."),
    ("mysql databases 1 1", "name tables bytes\n-----------------\nblog      1 16384"),
    ("mysql databases 1 1 add shop", "Creating database 'shop'...  done."),
    ("mysql databases 1 1 drop shop", "Dropping database 'shop'...  done."),
    ("mysql bind 1 db site", "Giving service 2 an account on service 1...  done."),
    ("mysql unbind 1 1 2", "Taking the account on service 1 from service 2...  done."),
    ("mysql bindings 1 1", "service database user prefix given\n----------------------------------\n      2 php2     php2 MYSQL  yes"),
    ("mysql variables 1 1 set max_connections=500", "Changing server variables...  done."),
    ("mysql ca 1 1", CA.rstrip()),
    ("mysql ca 1 1 --to ca.pem", "File 'ca.pem' written."),
    ("mysql dump 1 1 --to out.sql", "File 'out.sql' written."),
    ("mysql backup 1 1 make", "Making a backup...  done."),
    (
        "mysql backup 1 1",
        "id time                bytes origin tables verified            restorable_until\n"
        "-------------------------------------------------------------------------------\n"
        "b1 2026-11-25 10:11:12     7 made       90 2026-11-25 10:11:15",
    ),
    ("mysql backup 1 1 delete b1", "Backup b1 deleted."),
    ("mysql backup 1 1 download b1", "File 'backup-b1.mbstream.zst' written."),
    ("mysql backup 1 1 upload dump.sql", "Backup b1 uploaded."),
    ("mysql backup 1 1 schedule", "schedule: off\nkeep: 7\nnext: never"),
    ("mysql restore 1 1", "Restoring the databases...  done."),
    ("mysql restore 1 1 b1 --until 2026-11-25T10:11:12", "Restoring the databases...  done."),
    ("mysql performance 1 1", "request_rate: 1.5\nerror_rate: 0\nthroughput: 7\nresponse_time: 2"),
    (
        "mysql info 1 1",
        "state: RUNNING\ntype: mysql\nwrite: 10.0.0.2:8010\nread: 10.0.0.2:8011\nnodes:\n"
        "\tiaasvm-1: mysql 10.0.0.1 Synced\n\tiaasvm-2: glb 10.0.0.2",
    ),
]


@pytest.mark.parametrize(("line", "sentence"), SENTENCES, ids=[line for line, _ in SENTENCES])
def test_success_is_said_in_words(cps: Any, line: str, sentence: str) -> None:
    done = cps(line)
    assert (done.code, [row.rstrip() for row in done.out.splitlines()], done.err) == (0, sentence.splitlines(), "")


@pytest.mark.parametrize("line", [*(line for line, _ in SENTENCES), "mysql variables 1 1", "mysql variables 1 1 explain"])
def test_every_verb_speaks_json(cps: Any, line: str) -> None:
    done = cps(f"{line} --output json")
    assert (done.code, done.err) == (0, "")
    json.loads(done.out)


@pytest.mark.parametrize(
    ("line", "method", "sent"),
    [
        ("mysql set_password 1 1 -p 12345678", "set_password", {"user": "mysqldb", "password": "12345678"}),
        ("mysql restore 1 1", "restore_backup", {"id": "latest"}),
        (
            "mysql restore 1 1 b1 --until 2026-11-25T10:11:12",
            "restore_backup",
            {"id": "b1", "until": "2026-11-25T10:11:12"},
        ),
        ("mysql backup 1 1 schedule off", "set_backup_schedule", {"schedule": ""}),
        ("mysql backup 1 1 delete b1", "delete_backup", {"id": "b1"}),
        (
            "mysql users 1 1 add eve -p 12345678 --database a --database * --privileges read",
            "create_user",
            {"user": "eve", "password": "12345678", "databases": ["a", "*"], "privileges": "read"},
        ),
        (
            "mysql users 1 1 add eve -p 12345678",
            "create_user",
            {"user": "eve", "password": "12345678", "databases": [], "privileges": "all"},
        ),
        ("mysql users 1 1 drop eve", "drop_user", {"user": "eve"}),
        ("mysql users 1 1 password eve -p 87654321", "set_password", {"user": "eve", "password": "87654321"}),
        ("mysql users 1 1 grant eve --database a", "grant", {"user": "eve", "database": "a", "privileges": "all"}),
        ("mysql users 1 1 revoke eve --database a", "revoke", {"user": "eve", "database": "a"}),
        ("mysql databases 1 1 add a", "create_database", {"name": "a"}),
        ("mysql databases 1 1 drop a", "drop_database", {"name": "a"}),
        ("mysql bind 1 1 site", "bind", {"service": 2, "prefix": "MYSQL"}),
        ("mysql bind 1 db 2 --database blog --prefix DB", "bind", {"service": 2, "prefix": "DB", "database": "blog"}),
        ("mysql unbind 1 db site", "unbind", {"service": 2}),
        (
            "mysql variables 1 1 set slow_query_log=on max_allowed_packet=64M",
            "set_variables",
            {"variables": {"max_allowed_packet": "67108864", "slow_query_log": "ON"}},
        ),
        ("mysql add_nodes 1 1 --mysql 2 --glb 1", "add_nodes", {"service_id": 1, "nodes": {"mysql": 2, "glb": 1}, "cloud": "default"}),
        ("mysql remove_nodes 1 1 --glb 1", "remove_nodes", {"service_id": 1, "nodes": {"mysql": 0, "glb": 1}}),
    ],
)
def test_what_is_sent(cps: Any, wire: Any, line: str, method: str, sent: dict[str, Any]) -> None:
    done = cps(line)
    assert (done.code, done.err) == (0, "")
    assert [call[2:4] for call in wire.changes()] == [(method, sent)]


def test_a_dump_is_sent_as_a_file(cps: Any, wire: Any) -> None:
    assert cps("mysql load_dump 1 1 dump.sql --database blog --fresh").code == 0
    cps("mysql load_dump 1 1 dump.sql")
    assert wire.changes() == [
        ("upload", 1, "load_dump", {"database": "blog", "fresh": "yes"}, {"mysqldump_file": DUMP}),
        ("upload", 1, "load_dump", {}, {"mysqldump_file": DUMP}),
    ]


def test_a_dump_comes_as_it_is(cps: Any, wire: Any, home: Path) -> None:
    assert cps("mysql dump 1 1 --database blog --compress gz --to out.sql.gz").code == 0
    assert (home / "out.sql.gz").read_bytes() == DUMP
    assert wire.calls[-1][3:] == ("download_dump", {"compression": "gz", "database": "blog"})


def test_a_service_that_is_busy_is_waited_for(cps: Any, wire: Any, series: Any) -> None:
    wire.manager["bind"] = {"database": "php2", "user": "php2", "pending": "The service is busy."}
    wire.manager["list_bindings"] = series(*({"bindings": [{**BINDING, "given": given}]} for given in (False, False, True)))
    done = cps("mysql bind 1 db site --wait")
    assert (done.code, done.out.split()[-1]) == (0, "done.")
    assert done.err == "Service 2 follows later: The service is busy.\n"
    assert [call[3] for call in wire.calls if len(call) > 3].count("list_bindings") == 3


def test_what_the_other_service_could_not_do_is_told(cps: Any, wire: Any) -> None:
    wire.manager["get_operation"] = {"operation": {"id": "op1", "status": "UNDONE", "error": "No backend answers."}}
    done = cps("mysql bind 1 db site")
    assert (done.code, done.err.splitlines()[0]) == (1, "ERROR: No backend answers.")


def test_a_service_that_there_is_not(cps: Any, wire: Any) -> None:
    done = cps("mysql bind 1 1 none")
    assert (done.code, done.err) == (3, "ERROR: Unknown service name 'none' in application 1\n")
    assert wire.changes() == []


def test_without_bindings_a_sentence(cps: Any, wire: Any) -> None:
    wire.manager["list_bindings"] = {"bindings": []}
    assert cps("mysql bindings 1 1").out == "No existing bindings.\n"


def test_a_schedule_is_set_in_five_fields(cps: Any, wire: Any) -> None:
    done = cps(["mysql", "backup", "1", "1", "schedule", "0 3 * * *", "--keep", "3"])
    assert (done.code, done.out) == (0, "schedule: 0 3 * * *\nkeep: 3\nnext: 2026-11-25 03:00:00\n")
    assert wire.calls[-1][2:] == ("set_backup_schedule", {"schedule": "0 3 * * *", "keep": 3})
    done = cps(["mysql", "backup", "1", "1", "schedule", "0 3 * * *", "--keep", "many"])
    assert (done.code, "--keep must be a whole number" in done.err) == (1, True)


def test_a_password_is_asked_for_and_never_on_the_line(cps: Any, wire: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("asked-for\nasked-too\n"))
    done = cps("mysql set_password 1 1")
    assert done.code == 0
    assert cps("mysql users 1 1 add ann").code == 0
    assert [call[3]["password"] for call in wire.changes()] == ["asked-for", "asked-too"]
    assert "asked" not in done.out + done.err


def test_two_answers_that_differ_are_asked_again(cps: Any, wire: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["one-one-one", "two-two-two", "the-right-one", "the-right-one"]
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda prompt: answers.pop(0))
    done = cps("mysql set_password 1 1 --wait")
    assert "Passwords do not match. Try again" in done.err
    assert wire.changes()[0][3]["password"] == "the-right-one"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("mysql set_password 1 1 -p short", "Password too short"),
        ("mysql users 1 1 add", "Say which user to add."),
        ("mysql users 1 1 password", "Say whose password to change."),
        ("mysql users 1 1 grant ann", "Say on which database."),
        ("mysql users 1 1 revoke ann", "Say on which database."),
        ("mysql databases 1 1 drop", "Say which database to drop."),
        ("mysql backup 1 1 delete", "Say which backup to delete."),
        ("mysql backup 1 1 upload", "Say which file to upload."),
        ("mysql backup 1 1 schedule --keep 3", "Say by which schedule."),
        ("mysql load_dump 1 1 dump.sql --fresh", "Name the database that the dump is to replace."),
        ("mysql load_dump 1 1 none.sql", "Cannot read 'none.sql': No such file or directory"),
        ("mysql variables 1 1 set", "Say what to set."),
        ("mysql variables 1 1 set max_connections", "Cannot read 'max_connections'."),
        ("mysql variables 1 1 set sync_binlog=0", "'sync_binlog' is not among the server variables that can be changed."),
        (
            "mysql variables 1 1 set max_connections=x",
            "The variable max_connections takes a number from 10 to 10000, not 'x'.",
        ),
        ("mysql ca 1 1 --to none/ca.pem", "Cannot write 'none/ca.pem': No such file or directory"),
        ("mysql shell 1 1 --password-file dump.sql", "Others may read 'dump.sql'."),
    ],
)
def test_errors_name_the_thing_and_nothing_is_sent(cps: Any, wire: Any, home: Path, line: str, text: str) -> None:
    (home / "dump.sql").chmod(0o644)
    done = cps(line)
    assert (done.code, done.err.splitlines()[0]) == (1, f"ERROR: {text}")
    assert wire.changes() == []


def test_what_the_manager_refuses_is_told(cps: Any, wire: Any) -> None:
    wire.manager["load_dump"] = errors.RemoteError("The dump failed at line 7: Table 'x' doesn't exist (1146).", hint="look there")
    done = cps("mysql load_dump 1 1 dump.sql")
    assert (done.code, done.err) == (1, "ERROR: The dump failed at line 7: Table 'x' doesn't exist (1146).\nHINT: look there\n")
    wire.manager["load_dump"] = {"operation": "op1"}
    wire.manager["get_operation"] = {"operation": {"id": "op1", "status": "UNDONE", "error": "The dump failed at line 8."}}
    done = cps("mysql load_dump 1 1 dump.sql")
    assert (done.code, done.err.splitlines()[0]) == (1, "ERROR: The dump failed at line 8.")


def test_variables_and_figures_are_tables(cps: Any, wire: Any) -> None:
    lines = cps("mysql variables 1 1").out.splitlines()
    assert [line.split() for line in lines[2:]] == [["back_log", "90", "yes"], ["max_connections", "500"]]
    lines = cps("mysql variables 1 1 explain wait_timeout").out.splitlines()
    assert lines[2].split()[0] == "wait_timeout"
    wire.manager["get_service_performance"] = {"request_rate": 1, "nodes": {"iaasvm-1": FIGURES}}
    lines = cps("mysql performance 1 1").out.splitlines()
    assert lines[0].split()[:3] == ["agent_id", "queries", "slow_queries"]
    assert lines[2].split() == [
        *("iaasvm-1", "120.5", "0.0", "100.0", "1.0", "2.0", "0.0", "3.0", "N/A", "9.0", "1.0", "0.0", "N/A", "0.999", "0.0"),
    ]


CLIENT = """#!{python}
import json, os, pathlib, sys
settings = pathlib.Path(sys.argv[1].removeprefix("--defaults-extra-file="))
ca = next(line.split('"')[1] for line in settings.read_text().splitlines() if line.startswith("ssl-ca="))
json.dump({{"argv": sys.argv[1:], "settings": settings.read_text(), "mode": settings.stat().st_mode & 0o777,
           "directory": str(settings.parent),
           "ca": pathlib.Path(ca).read_text(), "environment": dict(os.environ)}}, open("seen.json", "w"))
sys.exit(3)
"""


@pytest.fixture
def client(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A client that writes down what it was given and ends with 3."""
    program = home / "bin" / "mariadb"
    program.parent.mkdir()
    program.write_text(CLIENT.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return home / "seen.json"


def test_the_shell_checks_the_server_and_shows_no_password(cps: Any, client: Path, home: Path) -> None:
    secret = home / "secret"
    secret.write_text('pa"ss#wo\\rd\nmore\n')
    secret.chmod(0o600)
    assert cps("mysql shell 1 1 --user ann --database blog --password-file secret").code == 3
    seen = json.loads(client.read_text())
    assert seen["argv"][1:] == ["--database=blog"]
    assert seen["settings"].splitlines()[:5] == ["[client]", 'host="10.0.0.2"', "port=8010", 'user="ann"', "protocol=tcp"]
    assert 'password="pa\\"ss#wo\\\\rd"' in seen["settings"].splitlines()
    assert "ssl-verify-server-cert" in seen["settings"].splitlines()
    assert (seen["mode"], seen["ca"]) == (0o600, CA)
    assert not [text for text in (*seen["argv"], *seen["environment"].values()) if "ss#wo" in text]
    assert not Path(seen["directory"]).exists()


def test_the_shell_asks_for_the_password_itself(cps: Any, client: Path) -> None:
    assert cps("mysql shell 1 1 --read --any-name").code == 3
    settings = json.loads(client.read_text())["settings"].splitlines()
    assert "password" in settings
    assert "port=8011" in settings
    assert 'user="mysqldb"' in settings
    assert "ssl-verify-server-cert" not in settings


def test_a_service_that_does_not_run_has_no_shell(cps: Any, wire: Any, client: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert cps("mysql shell 1 1").err == "ERROR: The program mariadb is not installed on this machine.\nHINT: apt install mariadb-client\n"
    wire.manager["get_access"] = {"write": None, "read": None, "ca": CA}
    done = cps("mysql shell 1 1")
    assert (done.code, done.err.splitlines()[0]) == (1, "ERROR: The service has no address: it does not run.")
    assert "write: N/A" in cps("mysql info 1 1").out


def test_the_program_of_the_type(cps: Any) -> None:
    assert cps.program("mysql", "databases", "1", "db").out.splitlines()[2].split() == ["blog", "1", "16384"]
