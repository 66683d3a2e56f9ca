from __future__ import annotations

import pathlib
import stat
import threading

import pytest
import sqlalchemy as sa
from alembic import autogenerate, command, migration

from conpaas.core import errors
from conpaas.director import db, models


@pytest.fixture
def database(tmp_path: pathlib.Path):  # type: ignore[no-untyped-def]
    opened = db.open(f"sqlite:///{tmp_path}/d.db")
    yield opened
    opened.close()


def person(name: str) -> models.User:
    return models.User(username=name, username_key=name, email=name, email_key=name, password="x")


def test_migrations_make_exactly_the_models_tables(database: db.Database) -> None:
    with database.engine.connect() as connection:
        assert autogenerate.compare_metadata(migration.MigrationContext.configure(connection), models.Base.metadata) == []


def test_the_number_of_the_newest_migration_is_known_without_alembic(database: db.Database) -> None:
    assert db.revision(database) == db.newest_revision()


def test_a_database_of_a_newer_version_is_refused(database: db.Database) -> None:
    with database.session() as session:
        session.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(errors.ConfigurationError, match="of a newer version"):
        db.migrate(database)


def test_opening_again_changes_nothing(database: db.Database, tmp_path: pathlib.Path) -> None:
    with database.session() as session:
        session.add(person("a"))
    again = db.open(f"sqlite:///{tmp_path}/d.db")
    with again.reader() as session:
        assert session.scalar(sa.select(models.User.username)) == "a"
    again.close()


def test_rows_of_an_older_schema_are_kept(database: db.Database) -> None:
    with database.session() as session:
        session.add(person("a"))
    with database.engine.begin() as connection:
        command.downgrade(db.migration_config(connection), "0004")
    db.migrate(database)
    with database.reader() as session:
        kept = session.scalars(sa.select(models.User)).one()
        assert (kept.username, kept.unconfirmed, kept.quota_vms) == ("a", False, None)
    with database.engine.connect() as connection:
        assert autogenerate.compare_metadata(migration.MigrationContext.configure(connection), models.Base.metadata) == []


def test_sqlite_is_durable_strict_and_private(database: db.Database, tmp_path: pathlib.Path) -> None:
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    assert stat.S_IMODE((tmp_path / "d.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="must survive a restart"):
        db.open(url)


def test_an_unreachable_place_is_one_sentence(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.ConfigurationError, match="Cannot open the database file"):
        db.open(f"sqlite:///{tmp_path}/file/d.db")


def test_a_missing_driver_is_one_sentence() -> None:
    with pytest.raises(errors.ConfigurationError, match="No driver for the database"):
        db.open("postgresql+nodriver://u:secret@127.15.0.9/x")


def test_ids_are_never_used_twice(database: db.Database) -> None:
    with database.session() as session:
        session.add(person("a"))
    with database.session() as session:
        session.execute(sa.delete(models.User))
    with database.session() as session:
        session.add(second := person("b"))
    assert second.uid == 2


def test_a_failed_block_leaves_nothing(database: db.Database) -> None:
    with pytest.raises(RuntimeError), database.session() as session:
        session.add(person("a"))
        session.flush()
        raise RuntimeError
    with database.reader() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(models.User)) == 0


def test_check_and_change_are_one_among_many_writers(database: db.Database) -> None:
    with database.session() as session:
        session.add(person("a"))
        session.flush()
        session.add(models.LedgerEntry(uid=1, amount=5, kind="grant"))
    taken = []

    def take() -> None:
        for _ in range(5):
            with database.session() as session:
                if session.scalar(sa.select(sa.func.sum(models.LedgerEntry.amount))):
                    session.add(models.LedgerEntry(uid=1, amount=-1, kind="adjust"))
                    taken.append(1)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 5


def test_times_keep_their_zone_and_microseconds(database: db.Database) -> None:
    moment = models.utcnow()
    with database.session() as session:
        session.add(models.User(**{**{c: c for c in ("username", "username_key", "email", "email_key", "password")}, "created": moment}))
    with database.reader() as session:
        assert session.scalar(sa.select(models.User.created)) == moment


def test_a_lease_has_one_holder_until_it_ends(database: db.Database) -> None:
    assert db.take_lease(database, "credits", "one", 100.0, 30.0)
    assert not db.take_lease(database, "credits", "two", 129.0, 30.0)
    assert db.take_lease(database, "credits", "one", 129.0, 30.0)
    assert not db.take_lease(database, "credits", "two", 158.0, 30.0)
    assert db.take_lease(database, "credits", "two", 159.0, 30.0)
    assert db.take_lease(database, "other", "one", 159.0, 30.0)


def test_a_lease_of_a_clock_that_was_wrong_keeps_nobody_waiting(database: db.Database) -> None:
    year = 365 * 86_400.0
    assert db.take_lease(database, "credits", "killed", year, 30.0)
    assert db.take_lease(database, "credits", "next", 100.0, 30.0), "no lease lasts for a year"
    assert not db.take_lease(database, "credits", "third", 0.0, 30.0), "one that is a little ahead is another Director's"
