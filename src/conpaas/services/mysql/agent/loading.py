"""The accounts that dumps are loaded as, and what the server's refusals mean to who loads one."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from collections.abc import Iterator
from typing import Any, Final

import pymysql

from conpaas.core import errors
from conpaas.services.mysql import names
from conpaas.services.mysql.agent import accounts
from conpaas.services.mysql.workload import programs

_DENIED: Final = frozenset({1044, 1045, 1142, 1143, 1227, 1370, 1419})
_HOST: Final = "localhost"
_OWNERS: Final = (("views", "definer"), ("routines", "definer"), ("triggers", "definer"), ("events", "definer"))


@dataclasses.dataclass(frozen=True)
class Login:
    """An account and its password for the time of one load."""

    user: str
    password: str = dataclasses.field(repr=False)


@contextlib.contextmanager
def account(connection: pymysql.Connection[Any], database: str | None) -> Iterator[Login]:
    """An account with all rights on one database, or on all of the users', and none anywhere else.

    It is locked afterwards; it stays only if it owns something, as that is done with its owner's rights.
    """
    login = Login(names.loader(database), secrets.token_hex(24))
    who = (login.user, _HOST)
    with connection.cursor() as cursor:
        cursor.execute("CREATE USER IF NOT EXISTS %s@%s ACCOUNT LOCK", who)
        cursor.execute("KILL HARD USER %s@%s", who)
        accounts.give(cursor, login.user, _HOST, names.EVERY if database is None else database, names.ALL)
        cursor.execute("ALTER USER %s@%s IDENTIFIED BY PASSWORD %s ACCOUNT UNLOCK", (*who, names.password_hash(login.password)))
    try:
        yield login
    finally:
        _retire(connection, login.user)


def _retire(connection: pymysql.Connection[Any], user: str) -> None:
    with connection.cursor() as cursor:
        forgotten = names.password_hash(secrets.token_hex(24))
        cursor.execute("ALTER USER %s@%s IDENTIFIED BY PASSWORD %s ACCOUNT LOCK", (user, _HOST, forgotten))
        # A session whose client was killed goes on with its statement otherwise.
        cursor.execute("KILL HARD USER %s@%s", (user, _HOST))
        owned = " UNION ALL ".join(f"SELECT 1 FROM information_schema.{table} WHERE {column} = %s" for table, column in _OWNERS)  # noqa: S608
        cursor.execute(f"SELECT EXISTS ({owned})", [f"{user}@{_HOST}"] * len(_OWNERS))
        found = cursor.fetchone()
        if not found or not found[0]:
            cursor.execute("DROP USER IF EXISTS %s@%s", (user, _HOST))


def create(connection: pymysql.Connection[Any], database: str, like: str | None) -> None:
    """Create a database if there is none, with the character set of another if that is there."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT default_character_set_name, default_collation_name FROM information_schema.schemata WHERE schema_name = %s", (like,)
        )
        row = cursor.fetchone()
        form = f" CHARACTER SET {row[0]} COLLATE {row[1]}" if row else ""
        cursor.execute(f"CREATE DATABASE IF NOT EXISTS {names.identifier(database)}{form}")


def drop(connection: pymysql.Connection[Any], schema: str) -> None:
    """Remove a scratch schema and its account."""
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {names.identifier(schema)}")
        cursor.execute("DROP USER IF EXISTS %s@%s", (names.loader(schema), _HOST))


def drop_stale(connection: pymysql.Connection[Any], database: str) -> None:
    """Remove scratch schemas that a load for this database has left when it was cut off."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT schema_name FROM information_schema.schemata")
        found = [str(row[0]) for row in cursor.fetchall()]
    beginning = names.scratch(database, "0" * 8)[:-8]
    for schema in found:
        if names.is_scratch(schema) and schema[:-8] == beginning:
            drop(connection, schema)


def sizes(connection: pymysql.Connection[Any], database: str | None) -> tuple[list[str], int]:
    """The databases that a dump has, and the bytes of their data (about)."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT schema_name FROM information_schema.schemata")
        wanted = names.users_own(str(row[0]) for row in cursor.fetchall())
        if database is not None:
            if database not in wanted:
                raise errors.NotFound(f"There is no database '{database}'.")
            wanted = [database]
        if not wanted:
            return [], 0
        cursor.execute("SELECT COALESCE(SUM(data_length), 0) FROM information_schema.tables WHERE table_schema IN %s", (wanted,))
        row = cursor.fetchone()
    return [names.check_database(one) for one in wanted], int(row[0]) if row else 0


def explained(refused: programs.Refused, database: str | None) -> errors.ConPaaSError:
    """What a refusal means, in one sentence."""
    text = " ".join(refused.text.split()).rstrip(".")
    where = f" at line {refused.line}" if refused.line else ""
    said = f"The dump failed{where}: {text}" + (f" ({refused.code})." if refused.code else ".")
    if refused.code in _DENIED:
        only = f"the database '{database}'" if database is not None else "databases of users"
        return errors.InvalidArgument(said, hint=f"a dump can change {only} only; accounts and the server's own databases are left out")
    return errors.InvalidArgument(said) if refused.line else errors.OperationFailed(said)
