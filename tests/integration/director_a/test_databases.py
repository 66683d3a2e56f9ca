"""The Director's database on real PostgreSQL and MariaDB servers, used by several processes' worth of writers at once."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from alembic import autogenerate, command, migration

from conpaas.core import misc
from conpaas.core.https import x509
from conpaas.director import (
    app,
    auth,
    ca,
    config,
    credits,
    db,
    domains,
    findings,
    invitations,
    models,
    notices,
    outlook,
    quotas,
    registration,
    runtime,
    users,
)
from conpaas.director.oidc import logins, settings

from . import conftest

HOST = "127.15.0.3"
PASSWORD = "correct horse"


def program(name: str, *places: str) -> str:
    found = shutil.which(name) or next((str(path) for place in places for path in sorted(pathlib.Path("/").glob(f"{place}/{name}"))), None)
    if found is None:
        pytest.fail(f"{name} is not installed; scripts/test installs it")
    return found


def driver(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.fail(f"the driver {module} is not installed; scripts/test installs it")


@contextlib.contextmanager
def running(argv: list[str], user: str | None, answers: Callable[[], object]) -> Iterator[None]:
    process = subprocess.Popen(argv, user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
    try:
        misc.wait_until(answers, timeout=60, what=f"{argv[0]} answers", interval=0.1)
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def connects(url: str) -> bool:
    engine = sa.create_engine(url)
    try:
        with engine.connect():
            return True
    except sa.exc.OperationalError:
        return False
    finally:
        engine.dispose()


@contextlib.contextmanager
def postgresql(directory: pathlib.Path) -> Iterator[str]:
    driver("psycopg")
    initdb, postgres = (program(name, "usr/lib/postgresql/*/bin") for name in ("initdb", "postgres"))
    user = "postgres" if os.geteuid() == 0 else None
    data, port = directory / "data", conftest.free_port(HOST)
    subprocess.run(
        [initdb, "-D", str(data), "-U", "conpaas", "--auth=trust", "-E", "UTF8"], user=user, check=True, capture_output=True, cwd="/"
    )
    url = f"postgresql+psycopg://conpaas@{HOST}:{port}/postgres"
    options = ["-h", HOST, "-p", str(port), "-k", str(directory), "-F"]
    with running([postgres, "-D", str(data), *options], user, lambda: connects(url)):
        yield url


@contextlib.contextmanager
def mariadb(directory: pathlib.Path) -> Iterator[str]:
    driver("pymysql")
    install, mariadbd = program("mariadb-install-db"), program("mariadbd", "usr/sbin")
    port, base = conftest.free_port(HOST), pathlib.Path(mariadbd).resolve().parents[1]
    common = ["--no-defaults", f"--datadir={directory / 'data'}", f"--basedir={base}", "--user=root"]
    subprocess.run([install, *common, "--auth-root-authentication-method=normal", "--skip-test-db"], check=True, capture_output=True)
    options = [
        f"--bind-address={HOST}",
        f"--port={port}",
        f"--socket={directory / 's'}",
        "--character-set-server=latin1",
        "--skip-grant-tables",
    ]
    options += ["--skip-networking=0", f"--pid-file={directory / 'pid'}"]
    url = f"mariadb+pymysql://root@{HOST}:{port}/"
    with running([mariadbd, *common, *options], None, lambda: connects(url)):
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE DATABASE conpaas CHARACTER SET utf8mb4")
        engine.dispose()
        yield f"{url}conpaas?charset=utf8mb4"


@pytest.fixture(scope="module", params=[postgresql, mariadb], ids=lambda server: server.__name__)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    directory = pathlib.Path(tempfile.mkdtemp(prefix="conpaas-db-"))
    try:
        if os.geteuid() == 0 and request.param is postgresql:
            with contextlib.suppress(LookupError):
                shutil.chown(directory, "postgres")
        with request.param(directory) as address:
            yield address
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def directors(url: str, tmp_path: pathlib.Path) -> Iterator[list[runtime.Director]]:
    """Two Directors on one empty database."""
    engine = sa.create_engine(url)
    metadata = sa.MetaData()
    metadata.reflect(engine)
    metadata.drop_all(engine)
    engine.dispose()
    path = tmp_path / "director.cfg"
    path.write_text(f"[director]\nSTATE_DIR = {tmp_path}/state\nDATABASE_URI = {url}\n")
    loaded = config.load(path)
    made = [app.make_director(loaded, components=False) for _ in range(2)]
    yield made
    for director in made:
        director.stop()


def at_once(*calls: Callable[[], object]) -> list[BaseException]:
    """Run calls in threads of their own, all at the same time; returns what they raised."""
    raised: list[BaseException] = []
    ready = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> None:
        ready.wait()
        try:
            call()
        except Exception as error:  # noqa: BLE001 — handed to the test, which looks at it
            raised.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def register(director: runtime.Director, name: str = "alice", credit: int = 10) -> models.User:
    return users.create(director, users.NewUser(username=name, email=f"{name}@example.org", password=PASSWORD, credit=credit))


def test_the_schema_is_the_models(directors: list[runtime.Director]) -> None:
    with directors[0].database.engine.connect() as connection:
        assert autogenerate.compare_metadata(migration.MigrationContext.configure(connection), models.Base.metadata) == []


def test_many_processes_may_start_on_an_empty_database(directors: list[runtime.Director], url: str) -> None:
    engine = directors[0].database.engine
    models.Base.metadata.drop_all(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE alembic_version")
    opened: list[db.Database] = []
    assert at_once(*[lambda: opened.append(db.open(url))] * 4) == []
    assert {db.revision(database) for database in opened} == {db.newest_revision()}
    for database in opened:
        database.close()


def test_accounts_of_an_older_schema_are_kept(directors: list[runtime.Director]) -> None:
    user = register(directors[0])
    engine = directors[0].database.engine
    with engine.begin() as connection:
        command.downgrade(db.migration_config(connection), "0004")
    assert not sa.inspect(engine).has_table("oidc_identity")
    db.migrate(directors[0].database)
    with directors[1].database.reader() as session:
        kept = session.get_one(models.User, user.uid)
        assert (kept.username, kept.active, kept.unconfirmed, kept.quota_vms, kept.exhausted) == ("alice", True, False, None, None)
    with engine.connect() as connection:
        assert autogenerate.compare_metadata(migration.MigrationContext.configure(connection), models.Base.metadata) == []


def test_accounts_with_names_of_any_script(directors: list[runtime.Director]) -> None:
    for number, name in enumerate(("李雷", "Łukasz")):
        wanted = users.NewUser(username=name, email=f"u{number}@example.org", password=PASSWORD, fname="𝒜 name")
        user = users.create(directors[0], wanted)
        found = users.authenticate(directors[1], name, PASSWORD, auth.Caller(peer=None, address="192.0.2.1"))
        assert (found.uid, found.username) == (user.uid, name)


def test_one_of_many_gets_a_name(directors: list[runtime.Director]) -> None:
    raised = at_once(*[lambda director=director: register(director) for director in directors * 2])
    assert len(raised) == 3
    assert {str(error) for error in raised} == {"Username 'alice' is already taken"}


def test_application_names_are_compared_exactly(directors: list[runtime.Director]) -> None:
    user = register(directors[0])
    with directors[0].database.session() as session:
        session.add(models.Application(name="new application", user_id=user.uid))
    with pytest.raises(sa.exc.IntegrityError), directors[0].database.session() as session:
        session.add(models.Application(name="new application", user_id=user.uid))


def test_hours_are_charged_once_whoever_does_it(directors: list[runtime.Director]) -> None:
    user = register(directors[0], credit=12)
    with directors[0].database.session() as session:
        aid = session.scalars(sa.select(models.Application.aid)).one()
        for vmid in range(3):
            session.add(models.Resource(vmid=str(vmid), cloud="iaas", app_id=aid, role="agent", state="running"))
    assert at_once(*[lambda director=director: credits.tick(director) for director in directors * 4]) == []
    with directors[0].database.reader() as session:
        assert credits.balance(session, user.uid) == 9


def test_credits_are_never_spent_twice(directors: list[runtime.Director]) -> None:
    user = register(directors[0], credit=5)

    def take(director: runtime.Director) -> None:
        for _ in range(3):
            with director.database.session() as session:
                credits.adjust(session, user.uid, -1, director.clock(), "test")

    assert at_once(*[lambda director=director: take(director) for director in directors * 2]) == []
    with directors[0].database.reader() as session:
        assert credits.balance(session, user.uid) == 0
        assert session.scalar(sa.select(sa.func.count()).where(models.LedgerEntry.kind == credits.KIND_ADJUST)) == 5


def test_one_of_many_gets_a_domain(directors: list[runtime.Director]) -> None:
    aids = [register(directors[0], name) and number for number, name in enumerate(("alice", "bob", "carol"), 1)]
    with directors[0].database.session() as session:
        session.add_all([models.Service(sid=1, application_id=aid, name="", type="php") for aid in aids])

    def claim(director: runtime.Director, aid: int) -> None:
        with director.database.session() as session:
            domains.claim(session, aid, 1, "www.example.org", director.clock())

    raised = at_once(*[lambda one=one, aid=aid: claim(one, aid) for one in directors for aid in aids])
    assert [str(error) for error in raised] == [str(raised[0])] * (2 * len(directors))
    assert "in use by another application" in str(raised[0])
    with directors[0].database.session() as session:
        session.execute(sa.delete(models.Service))
        assert domains.listing(session) == []


def test_a_lease_has_one_holder(directors: list[runtime.Director]) -> None:
    taken: list[str] = []

    def take(director: runtime.Director) -> None:
        if db.take_lease(director.database, "work", director.owner, 100.0, 30.0):
            taken.append(director.owner)

    assert at_once(*[lambda director=director: take(director) for director in directors]) == []
    assert len(taken) == 1


def test_a_token_is_good_for_one_certificate(directors: list[runtime.Director]) -> None:
    with directors[0].database.session() as session:
        token = ca.new_token(session, role="agent", uid=1, aid=1, vm="vm", now=directors[0].clock())
    issued: set[str] = set()
    csr = x509.make_csr(x509.new_key(), "x")

    def enrol(director: runtime.Director) -> None:
        with director.database.session() as session:
            issued.add(director.authority.enrol(session, token, csr, director.clock()))

    assert at_once(*[lambda director=director: enrol(director) for director in directors * 2]) == []
    assert len(issued) == 1


def test_failed_logins_count_once_each(directors: list[runtime.Director]) -> None:
    register(directors[0])

    def guess(director: runtime.Director) -> None:
        users.authenticate(director, "alice", "wrong", auth.Caller(peer=None, address="192.0.2.1"))

    raised = at_once(*[lambda director=director: guess(director) for director in directors * 2])
    assert [str(error) for error in raised] == ["User authentication failed"] * 4
    with directors[0].database.reader() as session:
        assert list(session.scalars(sa.select(models.LoginAttempt.failures))) == [4, 4, 4]


def test_times_keep_their_microseconds(directors: list[runtime.Director]) -> None:
    user = register(directors[0])
    with directors[1].database.reader() as session:
        assert session.get_one(models.User, user.uid).created == user.created


def test_an_invitation_makes_one_account(directors: list[runtime.Director]) -> None:
    with directors[0].database.session() as session:
        _, token = invitations.invite(session, invitations.Wanted(credit=7), "root", directors[0].clock())

    def accept(director: runtime.Director, number: int) -> None:
        wanted = users.NewUser(username=f"u{number}", email=f"u{number}@example.org", password=PASSWORD, invitation=token)
        users.create(director, wanted)

    calls = [lambda director=director, number=number: accept(director, number) for number, director in enumerate(directors * 2)]
    raised = at_once(*calls)
    assert [str(error) for error in raised] == ["The invitation is not valid, or no longer."] * 3
    with directors[0].database.reader() as session:
        (user,) = session.scalars(sa.select(models.User)).all()
        assert credits.balance(session, user.uid) == 7
        assert [name for _, name in invitations.listing(session)] == [user.username]


def test_one_of_two_last_operators_stays(directors: list[runtime.Director]) -> None:
    for name in ("alice", "bob"):
        register(directors[0], name)
        users.set_role(directors[0], name, "operator")
    pairs = zip(directors, ("alice", "bob"), strict=True)
    raised = at_once(*[lambda director=director, name=name: users.set_role(director, name, "user") for director, name in pairs])
    assert len(raised) == 1
    assert "is the last operator" in str(raised[0])


def test_a_quota_is_never_exceeded(directors: list[runtime.Director]) -> None:
    user = register(directors[0])
    with directors[0].database.session() as session:
        quotas.set_limits(session.get_one(models.User, user.uid), quotas.Amounts(None, 3, None))

    def make(director: runtime.Director, number: int) -> None:
        with director.database.session() as session:
            quotas.require(session, user.uid, applications=1)
            session.add(models.Application(name=f"app {number}", user_id=user.uid))

    raised = at_once(*[lambda director=director, number=number: make(director, number) for number, director in enumerate(directors * 3)])
    assert len(raised) == 4
    assert {str(error) for error in raised} == {"The quota of 3 applications does not allow 1 more: 3 are in use."}


def test_a_crossing_is_told_once_whoever_sees_it(directors: list[runtime.Director]) -> None:
    user = register(directors[0], credit=5)
    with directors[0].database.session() as session:
        aid = session.scalars(sa.select(models.Application.aid)).one()
        session.add(models.Resource(vmid="1", cloud="iaas", app_id=aid, role="manager", state="running"))
    assert at_once(*[lambda director=director: outlook.warn(director) for director in directors * 3]) == []
    with directors[0].database.reader() as session:
        assert [notice.kind for notice in session.scalars(sa.select(models.Notice))] == [notices.CREDITS_LOW]
        assert session.get_one(models.User, user.uid).warned_at_hours == 24


def test_an_identity_that_comes_twice_at_once_gets_one_account(directors: list[runtime.Director]) -> None:
    person = settings.Person("https://idp.example", "subject", "ann@idp.example", True, "ann")
    uids: list[int] = []
    raised = at_once(*[lambda director=director: uids.append(logins.account_of(director, person)) for director in directors * 2])
    assert raised == []
    assert (len(uids), len(set(uids))) == (4, 1)
    assert {logins.account_of(directors[0], person)} == set(uids)


def test_what_is_old_is_pruned(directors: list[runtime.Director]) -> None:
    now = directors[0].clock()
    users.create(directors[0], users.NewUser(username="carol", email="c@example.org", password=PASSWORD, confirm=True))
    with directors[0].database.session() as session:
        session.execute(sa.update(models.User).values(created=now - registration.UNCONFIRMED_LIFETIME * 2))
        for number in range(findings.KEPT + findings.SPARE + 10):
            findings.record(session, float(number), "lost", str(number), None, None)
    directors[0].run_loop_once("throttle")
    with directors[0].database.reader() as session:
        assert session.scalars(sa.select(models.User)).all() == []
        assert len(findings.listing(session, 10_000)) <= findings.KEPT + findings.SPARE
