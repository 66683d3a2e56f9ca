"""The command `cpsdirector`, run in this process on a state directory of its own."""

from __future__ import annotations

import contextlib
import json
import pathlib
import ssl
import stat
import subprocess
import sys
import threading

import pytest
from click import testing

from conpaas.core.https import identity
from conpaas.director import app as director_app
from conpaas.director import auth, config, db, domains, main, models, runtime, setup, users

from . import conftest


class Command:
    """Runs `cpsdirector --state DIR …`."""

    def __init__(self, state: pathlib.Path) -> None:
        self.state = state

    def __call__(self, *arguments: str, stdin: str | None = None) -> testing.Result:
        return testing.CliRunner().invoke(main.main, ["--state", str(self.state), *arguments], input=stdin)


@pytest.fixture
def command(tmp_path: pathlib.Path) -> Command:
    run = Command(tmp_path / "state")
    assert run("init", "--host", "127.15.0.9").exit_code == 0
    return run


def create(command: Command, name: str = "alice", *more: str) -> testing.Result:
    return command("user", "create", name, "--email", f"{name}@example.org", "--password-file", "-", *more, stdin=f"{conftest.PASSWORD}\n")


def test_init_makes_what_a_director_needs_and_says_the_fingerprint(tmp_path: pathlib.Path) -> None:
    state = tmp_path / "state"
    result = testing.CliRunner().invoke(main.main, ["init", "--state", str(state)])
    assert result.exit_code == 0, result.output
    loaded = config.load(state=state)
    assert loaded.source == str(state / "director.cfg")
    assert loaded.director_url == "https://127.0.0.1:5555"
    director = director_app.make_director(loaded, components=False)
    assert director.authority.ca_fingerprint in result.output
    director.stop()
    assert stat.S_IMODE((state / "director.cfg").stat().st_mode) == 0o600


def test_init_again_moves_the_director_and_keeps_everything_else(command: Command) -> None:
    cfg = command.state / "director.cfg"
    cfg.write_text(cfg.read_text() + "# a note\n")
    ca = (command.state / "certs" / "ca_cert.pem").read_bytes()
    create(command)
    assert command("init", "--state", str(command.state), "--host", "new.example.org").exit_code == 0
    assert "DIRECTOR_URL = https://new.example.org:5555" in cfg.read_text()
    assert "# a note" in cfg.read_text()
    assert (command.state / "certs" / "ca_cert.pem").read_bytes() == ca
    assert command("user", "list").output == "alice\n"
    assert command("init", "--port", "6000").exit_code == 0
    assert "DIRECTOR_URL = https://new.example.org:6000" in cfg.read_text()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[director]\n#DIRECTOR_URL: https://a\nX=1\n", "[director]\nDIRECTOR_URL = https://n:1\nX=1\n"),
        ("[director]\nX=1\n", "[director]\nDIRECTOR_URL = https://n:1\nX=1\n"),
        ("[iaas]\nDRIVER=dummy\n", "[iaas]\nDRIVER=dummy\n\n[director]\nDIRECTOR_URL = https://n:1\n"),
    ],
)
def test_the_url_is_put_where_it_belongs(text: str, expected: str) -> None:
    assert setup._with_url(text, "https://n:1") == expected


def test_a_user_is_created_listed_and_given_credits(command: Command) -> None:
    assert create(command).output == "User 'alice' created successfully.\n"
    assert create(command, "bob", "--credit", "10000").exit_code == 0
    assert command("user", "list").output == "alice\nbob\n"
    assert command("user", "list", "--credit").output == "alice\t50\nbob\t10000\n"
    assert command("credit", "add", "bob", "5").output == "Credit added successfully to user 'bob', the new credit is 10005.\n"
    assert command("credit", "add", "bob", "-99999").output.endswith("the new credit is 0.\n")
    listed = json.loads(command("user", "list", "--json").output)
    assert [(user["username"], user["credit"], user["role"]) for user in listed] == [("alice", 50, "user"), ("bob", 0, "user")]
    assert "password" not in listed[0]


def test_passwords_come_from_a_file_or_are_asked_for_twice(
    command: Command, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(command)
    (tmp_path / "pw").write_text("from a file\nmore\n")
    assert command("user", "passwd", "alice", "--password-file", str(tmp_path / "pw")).exit_code == 0
    typed = iter(["one try", "another", "typed twice", "typed twice"])
    monkeypatch.setattr(main.getpass, "getpass", lambda _prompt: next(typed))
    result = command("user", "passwd", "alice")
    assert result.output == "Passwords do not match. Try again\nThe password of user 'alice' was changed.\n"
    director = director_app.make_director(config.load(state=command.state), components=False)
    assert users.authenticate(director, "alice", "typed twice", auth.Caller(peer=None, address="")).username == "alice"
    director.stop()


def test_an_operator_and_a_disabled_account(command: Command) -> None:
    create(command, "root", "--operator")
    assert command("user", "disable", "root").output == "User 'root' was disabled.\n"
    assert [(user["role"], user["active"]) for user in json.loads(command("user", "list", "--json").output)] == [("operator", False)]
    assert command("user", "enable", "root").output == "User 'root' was enabled.\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("user", "passwd", "nobody", "--password-file", "-"), "ERROR: Unknown user 'nobody'"),
        (("user", "create", "CA", "--email", "a@b.c", "--password-file", "-"), "ERROR: The user name 'CA' is reserved."),
        (("user", "create", "x", "--email", "a@b.c", "--password-file", "/absent"), "ERROR: Cannot read a password"),
        (("credit", "add", "nobody", "1"), "ERROR: Unknown user 'nobody'"),
    ],
)
def test_errors_are_one_line_and_status_1(command: Command, arguments: tuple[str, ...], text: str) -> None:
    result = command(*arguments, stdin=f"{conftest.PASSWORD}\n")
    assert result.exit_code == 1
    assert text in result.stderr
    assert "Traceback" not in result.output


def test_check_config_names_all_that_is_wrong(command: Command) -> None:
    cfg = command.state / "director.cfg"
    good = cfg.read_text()
    cfg.write_text(good.replace("DRIVER = dummy", "DRIVER = dummy\nOTHER_CLOUDS = a, b\n[a]\nDRIVER = nonsense"))
    result = command("check-config")
    assert result.exit_code == 1
    assert "there is no section [b]" in result.stderr
    assert "No module found for cloud_type nonsense" in result.stderr
    cfg.write_text(good.replace("[conpaas]", "[conpaas]\nMAX_CREDIT = lots"))
    assert "MAX_CREDIT must be a whole number" in command("check-config").stderr
    assert "MAX_CREDIT must be a whole number" in command("user", "list").stderr


def test_status_says_what_there_is_even_when_nothing_answers(command: Command) -> None:
    create(command)
    text = command("status").output
    assert "does not answer" in text
    assert "Users: 1" in text
    assert "Applications: 1 INIT" in text
    assert "VMs: none" in text


def test_the_reference_page_is_markdown(command: Command) -> None:
    page = command("api").output
    assert page.startswith("# Endpoints of the Director")
    assert "### POST `/new_user`" in page
    assert "| `username` | text, required |" in page


def test_the_embedded_clouds_vms_can_be_stopped_and_deleted_when_there_are_none(command: Command) -> None:
    for verb in ("halt", "destroy"):
        result = command("cloud", verb)
        assert result.exit_code == 0, result.output


class TestBackgroundWork:
    def test_start_runs_tasks_and_loops_and_stop_ends_them(self, director: runtime.Director) -> None:
        events: list[str] = []
        ran = threading.Event()
        director.add_startup(lambda: events.append("started"))
        director.add_shutdown(lambda: events.append("closed first"))
        director.add_shutdown(lambda: events.append("closed last"))

        def work() -> None:
            ran.set()
            raise RuntimeError("one pass fails")

        director.add_loop("work", 0.01, work)
        director.start()
        assert ran.wait(10)
        ran.clear()
        assert ran.wait(10), "a failed pass must not end the loop"
        director.stop()
        director.stop()
        assert events == ["started", "closed last", "closed first"]

    def test_one_of_two_processes_does_the_work(self, director: runtime.Director) -> None:
        other = runtime.Director(director.config, director.database, director.authority, director.clock)
        done: list[str] = []
        for process, name in ((director, "one"), (other, "two")):
            process.add_loop("work", 3600, lambda name=name: done.append(name))
            process.add_loop("each", 3600, lambda name=name: done.append(f"each {name}"), everywhere=True)
        assert other.owner != director.owner
        for process in (director, other):
            for loop in process._loops[-2:]:
                process.attempt(loop)
        assert done == ["one", "each one", "each two"]

    def test_who_ends_hands_the_work_over_at_once(self, director: runtime.Director) -> None:
        other = runtime.Director(director.config, db.open(director.config.database_uri), director.authority, director.clock)
        done: list[str] = []
        for process, name in ((other, "first"), (director, "second")):
            process.add_loop("work", 3600, lambda name=name: done.append(name))
        other.attempt(other._loops[-1])
        director.attempt(director._loops[-1])
        other.stop()
        director.attempt(director._loops[-1])
        assert done == ["first", "second"]


def test_an_operator_sees_who_holds_a_domain_and_takes_it_away(command: Command) -> None:
    create(command)
    opened = director_app.make_director(config.load(state=command.state), components=False)
    with opened.database.session() as session:
        session.add(models.Service(sid=1, application_id=1, name="site", type="php"))
        session.flush()
        domains.claim(session, 1, 1, "www.example.org", opened.clock())
    opened.stop()
    assert command("domain", "list").output == "www.example.org\talice\t1\t1\n"
    assert json.loads(command("domain", "list", "--json").output)[0]["application"] == "New Application"
    taken = command("domain", "release", "www.example.org").output
    assert taken == "The domain 'www.example.org' was taken from service 1 of application 1 of user 'alice'.\n"
    again = command("domain", "release", "www.example.org")
    assert (again.exit_code, again.output) == (1, "ERROR: The domain 'www.example.org' is not in use.\n")


def test_a_front_end_gets_a_certificate_of_its_own(command: Command, tmp_path: pathlib.Path) -> None:
    certs = tmp_path / "conf" / "certs"
    said = command("frontend-certificate", str(certs), "--host", "www.example.org")
    assert said.exit_code == 0, said.output
    assert "refuse it until" in said.output
    made = identity.Credentials.from_dir(certs)
    assert (made.identity.role, made.identity.cn, made.identity.uid) == ("frontend", "www.example.org", None)
    assert stat.S_IMODE(made.key.stat().st_mode) == 0o600
    with pytest.raises(ssl.SSLError, match="unsuitable certificate purpose"):
        taken_for_a_server(made)
    cfg = command.state / "director.cfg"
    cfg.write_text(cfg.read_text().replace("[director]", "[director]\nTRUST_FRONTEND = yes"))
    again = command("frontend-certificate", str(certs), "--days", "30")
    assert "refuse it until" not in again.output
    assert identity.Credentials.from_dir(certs).identity.serial != made.identity.serial


def taken_for_a_server(credentials: identity.Credentials) -> None:
    """Shake hands with a server that presents this certificate, and trust its authority."""
    server_side, client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_side.check_hostname = False
    credentials.load_into(server_side)
    client_side.load_verify_locations(credentials.ca)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(to_client, to_server)
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()


@pytest.mark.parametrize("place", ["certs", "certs/director"])
def test_the_directors_own_certificates_are_not_overwritten(command: Command, place: str) -> None:
    before = (command.state / "certs" / "key.pem").read_bytes()
    said = command("frontend-certificate", str(command.state / place))
    assert (said.exit_code, "name another directory" in said.output) == (1, True)
    assert (command.state / "certs" / "key.pem").read_bytes() == before


def test_a_directory_that_cannot_be_is_named(command: Command, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    said = command("frontend-certificate", str(tmp_path / "file" / "certs"))
    assert said.exit_code != 0
    assert str(tmp_path / "file") in said.output


def test_a_director_loads_nothing_that_only_others_need() -> None:
    luxuries = ("alembic", "mako", "rich", "jsonschema", "charset_normalizer", "chardet", "pymysql", "sqlalchemy.dialects.mysql")
    modules = "conpaas.director.main, conpaas.director.serve, conpaas.core.https.transport"
    program = f"import sys, {modules}; print([name for name in {luxuries} if name in sys.modules])"
    command = [sys.executable, "-W", "error::UserWarning", "-c", program]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_quotas_and_roles(command: Command) -> None:
    create(command)
    assert command("user", "quota", "alice").output == "vms\t0\tno limit\napplications\t1\tno limit\nvolumes_mb\t0\tno limit\n"
    assert command("user", "quota", "alice", "--vms", "3").output.startswith("vms\t0\t3\n")
    assert command("user", "quota", "alice", "--volumes-mb", "0").output == "vms\t0\t3\napplications\t1\tno limit\nvolumes_mb\t0\t0\n"
    assert command("user", "quota", "alice", "--none", "--applications", "2").output.startswith("vms\t0\tno limit\napplications\t1\t2\n")
    assert command("user", "quota", "alice", "--vms", "-1").exit_code == 2
    assert command("user", "quota", "nobody").exit_code == 1
    assert command("user", "role", "alice", "operator").output == "User 'alice' has the role operator now.\n"
    assert "last operator" in command("user", "role", "alice", "user").output


def test_invitations(command: Command) -> None:
    token = command("invitation", "create", "--email", "bob@example.org", "--credit", "7").output.strip()
    assert len(token) > 40
    (listed,) = json.loads(command("invitation", "list", "--json").output)
    assert (listed["state"], listed["credit"]) == ("open", 7)
    assert command("invitation", "list").output == "1\topen\tbob@example.org\t7\t\n"
    assert command("invitation", "withdraw", "1").output == "Invitation 1 was withdrawn.\n"
    assert command("invitation", "withdraw", "1").exit_code == 1
    assert command("invitation", "create", "--email", "nonsense").exit_code == 1
