"""Opening the Director's database and its transactions.

Two kinds of transactions: `Database.session()` writes (on SQLite it takes the write lock at its first statement, so that a
check and the change that follows it are one), `Database.reader()` only reads. Never call a cloud, a manager or any other
network peer inside either: a transaction lasts milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc, orm

from conpaas.core import errors
from conpaas.director import models

if TYPE_CHECKING:
    from alembic import config as alembic_config

MIGRATIONS = pathlib.Path(__file__).parent / "migrations"
_WRITES = "conpaas_writes"
BUSY_TIMEOUT = 30.0  # seconds a writer waits for another one before the request fails
SQLITE_CACHE_KB, SQLITE_STATEMENTS = 256, 64  # per connection; the system's cache holds the file anyway
CLOCK_TOLERANCE = 3600.0  # seconds that a lease may end later than any that was given now: beyond that, it is of a clock that was wrong
MIGRATION_PATIENCE = 60  # seconds to wait for another Director that brings the database to the newest schema (MariaDB)


class Database:
    """One engine with its two kinds of sessions; safe to share between threads."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self._writers = orm.sessionmaker(engine.execution_options(**{_WRITES: True}), expire_on_commit=False)
        self._readers = orm.sessionmaker(engine, expire_on_commit=False, autoflush=False)

    @contextlib.contextmanager
    def session(self) -> Iterator[orm.Session]:
        """A writing transaction: committed when the block ends, rolled back when it raises."""
        with self._writers() as session, session.begin():
            yield session

    @contextlib.contextmanager
    def reader(self) -> Iterator[orm.Session]:
        """A reading transaction: one consistent view on SQLite, never committed. Objects stay usable afterwards."""
        with self._readers() as session:
            yield session

    @property
    def url(self) -> str:
        """The database's URL, password hidden."""
        return self.engine.url.render_as_string(hide_password=True)

    def close(self) -> None:
        """Give up all connections."""
        self.engine.dispose()


def _prepare_sqlite(url: sa.URL) -> None:
    """Create the database file for its owner only; refuse a database in memory, which could not outlive a restart."""
    name = url.database
    if not name or name == ":memory:" or name.startswith("file:"):
        raise errors.ConfigurationError(
            f"The database URL '{url.render_as_string()}' names no file: the Director's data must survive a restart."
        )
    path = pathlib.Path(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise errors.ConfigurationError(f"Cannot open the database file {path}: {error.strerror}.") from error


def _on_sqlite_connect(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver must not begin transactions behind SQLAlchemy's back
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"cache_size=-{SQLITE_CACHE_KB}"):
        connection.execute(f"PRAGMA {pragma}")


def _on_sqlite_begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _engine(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
    except exc.ArgumentError as error:
        raise errors.ConfigurationError("The database URL cannot be parsed; it looks like sqlite:////path/director.db.") from error
    options: dict[str, Any] = {"pool_size": 4, "max_overflow": 28, "pool_timeout": 30, "pool_use_lifo": True}
    if parsed.get_backend_name() == "sqlite":
        _prepare_sqlite(parsed)
        options["connect_args"] = {"timeout": BUSY_TIMEOUT, "cached_statements": SQLITE_STATEMENTS}
    else:
        options.update(pool_pre_ping=True, pool_recycle=1800, isolation_level="READ COMMITTED")
    try:
        engine = sa.create_engine(parsed, **options)
    except (ImportError, exc.ArgumentError) as error:
        raise errors.ConfigurationError(f"No driver for the database {parsed.render_as_string()}: {error}.") from error
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _on_sqlite_connect)
        sa.event.listen(engine, "begin", _on_sqlite_begin)
    return engine


def migration_config(connection: sa.Connection | None = None) -> alembic_config.Config:
    """Alembic's configuration for the packaged migrations; without a file, so that it works from anywhere."""
    from alembic import config as alembic_config

    config = alembic_config.Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def newest_revision() -> str:
    """The revision that this code works with; migrations are files named `<revision>_<what>.py`, numbered upwards."""
    return max(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def revision(database: Database) -> str | None:
    """The revision that the database is at; None for an empty one."""
    with database.engine.connect() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        return connection.scalar(sa.text("SELECT version_num FROM alembic_version"))


def migrate(database: Database) -> None:
    """Bring the database to the newest schema; several processes may start at once (the second finds it done).

    Raises ConfigurationError for a database that a newer version has already changed, or that another process does not let go of.
    """
    present, newest = revision(database), newest_revision()
    if present == newest:
        return  # the usual case, without the memory that the migration library takes
    if present is not None and present > newest:
        raise errors.ConfigurationError(f"The database {database.url} is of a newer version ({present}) than this Director ({newest}).")
    from alembic import command

    writers = database.engine.execution_options(**{_WRITES: True})
    with writers.connect() as connection, _alone(connection, database), connection.begin():
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(727274)")
        command.upgrade(migration_config(connection), "head")


@contextlib.contextmanager
def _alone(connection: sa.Connection, database: Database) -> Iterator[None]:
    """On MariaDB, be the only Director that changes the schema until the block is left, and that is after its transaction was committed:
    another one must not find the new columns without the number of the migration that made them."""
    if connection.dialect.name not in {"mysql", "mariadb"}:
        yield
        return
    if connection.scalar(sa.text(f"SELECT GET_LOCK('conpaas-migrate', {MIGRATION_PATIENCE})")) != 1:
        raise errors.ConfigurationError(
            f"Another Director has been changing the database {database.url} for {MIGRATION_PATIENCE} seconds.",
            hint="Start this one again when that has finished.",
        )
    connection.commit()
    try:
        yield
    finally:
        connection.exec_driver_sql("SELECT RELEASE_LOCK('conpaas-migrate')")
        connection.commit()


def open(url: str) -> Database:
    """Open (and, if need be, create or upgrade) the database at an SQLAlchemy URL.

    Raises ConfigurationError when it cannot be reached or no driver for it is installed.
    """
    database = Database(_engine(url))
    try:
        migrate(database)
    except exc.OperationalError as error:
        database.close()
        raise errors.ConfigurationError(f"Cannot open the database {database.url}: {error.orig}.") from error
    return database


def insert_if_absent(session: orm.Session, row: models.Base) -> bool:
    """Insert a row unless one with its primary or a unique key is there, also when another transaction is just adding it."""
    try:
        with session.begin_nested():
            session.add(row)
    except exc.IntegrityError:
        return False
    return True


def ran_out(until: orm.InstrumentedAttribute[Any], now: float, seconds: float) -> sa.ColumnElement[bool]:
    """Whether a lease that lasts so many seconds has ended, or was given by a clock that was far ahead (its holder may be long dead)."""
    return sa.or_(until <= now, until > now + seconds + CLOCK_TOLERANCE)


def take_lease(database: Database, name: str, owner: str, now: float, seconds: float) -> bool:
    """True if `owner` may run the background task `name` until `now + seconds`: nobody else holds it, or it ran out."""
    free = sa.or_(models.Lease.owner == owner, ran_out(models.Lease.until, now, seconds))
    with database.session() as session:
        taken = session.execute(sa.update(models.Lease).where(models.Lease.name == name, free).values(owner=owner, until=now + seconds))
        if taken.rowcount:  # type: ignore[attr-defined]
            return True
        return insert_if_absent(session, models.Lease(name=name, owner=owner, until=now + seconds))


def release_leases(database: Database, owner: str) -> None:
    """Let others take over the background tasks of a process that ends, at once."""
    with database.session() as session:
        session.execute(sa.delete(models.Lease).where(models.Lease.owner == owner))
