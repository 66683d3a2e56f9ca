"""Users, databases, grants, passwords and variables of the cluster: statements to the server of this node, which replicates them."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pymysql

from conpaas.core import errors
from conpaas.services.mysql import names, variables
from conpaas.services.mysql.workload import sql

_TIMEOUT: Final = 60.0
"""Seconds for a statement: one that changes a table's form waits for the transactions that use it."""
_POOL_SHARE: Final = 0.75
_HARMLESS: Final = "SHOW VIEW"
"""Given on system schemas to who has all on `%`: the server takes the most exact entry, and that hides the general one."""
_SHIELDED: Final = ("mysql", "sys")
_NO_SUCH_GRANT: Final = 1141


class Accounts:
    """What an owner of the service may have changed in the server. No password gets into a statement: only its hash does."""

    def __init__(self, socket: pathlib.Path) -> None:
        self._socket = socket
        self._reserved = (sql.own_user(),)

    # Users

    def create_user(self, name: str, password: str, databases: Sequence[str], privileges: str, host: str, exist_ok: bool) -> None:
        """Create a user who has `privileges` on `databases`. With `exist_ok`, one who is there gets this password and these, too."""
        names.check_user(name, self._reserved)
        names.check_host(host)
        names.check_privileges(privileges)
        secret = names.password_hash(names.check_password(password))
        wanted = [names.check_grant_target(one) for one in databases]
        with self._session() as cursor:
            self._need_databases(cursor, wanted)
            there = host in _hosts(cursor, name)
            if there and not exist_ok:
                raise errors.InvalidArgument(f"There is a user '{name}' already.", hint="the password of a user can be changed")
            verb = "ALTER USER" if there else "CREATE USER"
            cursor.execute(f"{verb} %s@%s IDENTIFIED BY PASSWORD %s", (name, host, secret))
            try:
                for database in wanted:
                    give(cursor, name, host, database, privileges)
            except pymysql.MySQLError:
                if not there:
                    cursor.execute("DROP USER IF EXISTS %s@%s", (name, host))
                raise

    def drop_user(self, name: str) -> None:
        """Remove a user, wherever he may come from, and end his sessions on this node."""
        names.check_user(name, self._reserved)
        with self._session() as cursor:
            for host in self._need_user(cursor, name):
                cursor.execute("DROP USER IF EXISTS %s@%s", (name, host))
            _end_sessions(cursor, name)

    def end_sessions(self, name: str) -> None:
        """End the sessions that a user has on this node. Idempotent."""
        names.check_user(name, self._reserved)
        with self._session() as cursor:
            _end_sessions(cursor, name)

    def set_password(self, name: str, password: str) -> None:
        """Change the password of a user, wherever he may come from."""
        names.check_user(name, self._reserved)
        secret = names.password_hash(names.check_password(password))
        with self._session() as cursor:
            for host in self._need_user(cursor, name):
                cursor.execute("ALTER USER %s@%s IDENTIFIED BY PASSWORD %s", (name, host, secret))

    def list_users(self) -> list[dict[str, Any]]:
        """The users by name, each with `hosts` and `databases`: names and privileges (`all`, `read`, or `other`: made by SQL)."""
        with self._session() as cursor:
            cursor.execute("SELECT User, Host FROM mysql.global_priv WHERE JSON_VALUE(Priv, '$.is_role') IS NULL ORDER BY User, Host")
            rows = cursor.fetchall()
            cursor.execute("SELECT * FROM mysql.db ORDER BY User, Db")
            columns = [one[0] for one in cursor.description or ()]
            grants = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
        users: dict[str, dict[str, Any]] = {}
        for name, host in rows:
            if not names.is_reserved(name, self._reserved):
                users.setdefault(name, {"user": name, "hosts": [], "databases": []})["hosts"].append(host)
        for user in users.values():
            user["databases"] = _granted(user["user"], grants)
        return list(users.values())

    # Grants

    def grant(self, name: str, database: str, privileges: str) -> None:
        """Give a user exactly these privileges on a database (`*`: on all but the system's)."""
        names.check_user(name, self._reserved)
        names.check_grant_target(database)
        names.check_privileges(privileges)
        with self._session() as cursor:
            self._need_databases(cursor, [database])
            for host in self._need_user(cursor, name):
                give(cursor, name, host, database, privileges)

    def revoke(self, name: str, database: str) -> None:
        """Take all privileges on a database from a user. Nothing happens if he has none."""
        names.check_user(name, self._reserved)
        names.check_grant_target(database)
        with self._session() as cursor:
            for host in self._need_user(cursor, name):
                _take(cursor, name, host, names.grant_pattern(database))
                if database == names.EVERY:
                    for schema in _SHIELDED:
                        _take(cursor, name, host, names.identifier(schema))

    # Databases

    def create_database(self, name: str, exist_ok: bool) -> None:
        names.check_database(name)
        with self._session() as cursor:
            if name in _databases(cursor):
                if exist_ok:
                    return
                raise errors.InvalidArgument(f"There is a database '{name}' already.")
            cursor.execute(f"CREATE DATABASE IF NOT EXISTS {names.identifier(name)}")

    def drop_database(self, name: str) -> None:
        """Remove a database with all that is in it, and what users were given on it."""
        names.check_database(name)
        with self._session() as cursor:
            self._need_databases(cursor, [name])
            cursor.execute(f"DROP DATABASE IF EXISTS {names.identifier(name)}")
            cursor.execute("SELECT User, Host FROM mysql.db WHERE Db = %s", (names.stored_pattern(name),))
            for user, host in cursor.fetchall():
                _take(cursor, user, host, names.grant_pattern(name))
            cursor.execute("DROP USER IF EXISTS %s@localhost", (names.loader(name),))

    def list_databases(self) -> list[dict[str, Any]]:
        """The users' databases by name, each with its size in bytes (about) and its number of tables."""
        with self._session() as cursor:
            own = names.users_own(_databases(cursor))
            cursor.execute(
                "SELECT table_schema, COALESCE(SUM(data_length + index_length), 0), SUM(table_type = 'BASE TABLE') "
                "FROM information_schema.tables WHERE table_schema NOT IN %s GROUP BY table_schema",
                (names.SYSTEM_SCHEMAS,),
            )
            sizes = {name: (int(size), int(tables)) for name, size, tables in cursor.fetchall()}
        return [{"name": name, "bytes": sizes.get(name, (0, 0))[0], "tables": sizes.get(name, (0, 0))[1]} for name in own]

    # Variables

    def set_variables(self, values: Mapping[str, Any]) -> list[str]:
        """Have the server of this node work with other values; returns the names of those that wait for its next start."""
        wanted = variables.check_all(values)
        _check_pool(wanted)
        with self._session() as cursor:
            told = _told(cursor)
            changed = [name for name, value in wanted.items() if not variables.same(name, value, told.get(name, ""))]
            for name in changed:
                if variables.CATALOGUE[name].dynamic:
                    # The name is one of ours; numbers and words are told apart by the server.
                    value: Any = int(wanted[name]) if wanted[name].isdecimal() else wanted[name]
                    value = float(value) if variables.CATALOGUE[name].kind is variables.Kind.DECIMAL else value
                    cursor.execute(f"SET GLOBAL {name} = %s", (value,))
        return [name for name in changed if not variables.CATALOGUE[name].dynamic]

    def get_variables(self) -> dict[str, str]:
        """The variables that may be changed, as they are now, in the server's words."""
        with self._session() as cursor:
            return _told(cursor)

    # Parts

    @contextlib.contextmanager
    def _session(self) -> Iterator[pymysql.cursors.Cursor]:
        """A session of the agent; what the server refuses becomes a sentence."""
        with contextlib.closing(sql.connect(self._socket, _TIMEOUT)) as connection, connection.cursor() as cursor:
            try:
                yield cursor
            except pymysql.MySQLError as error:
                raise sql.failure(error) from error

    @staticmethod
    def _need_user(cursor: pymysql.cursors.Cursor, name: str) -> list[str]:
        hosts = _hosts(cursor, name)
        if not hosts:
            raise errors.NotFound(f"There is no user '{name}'.")
        return hosts

    @staticmethod
    def _need_databases(cursor: pymysql.cursors.Cursor, wanted: Sequence[str]) -> None:
        there = _databases(cursor)
        for one in wanted:
            if one != names.EVERY and one not in there:
                raise errors.NotFound(f"There is no database '{one}'.")


def _hosts(cursor: pymysql.cursors.Cursor, name: str) -> list[str]:
    cursor.execute("SELECT Host FROM mysql.global_priv WHERE User = %s AND JSON_VALUE(Priv, '$.is_role') IS NULL", (name,))
    return [str(row[0]) for row in cursor.fetchall()]


def _databases(cursor: pymysql.cursors.Cursor) -> set[str]:
    cursor.execute("SELECT schema_name FROM information_schema.schemata")
    return {str(row[0]) for row in cursor.fetchall()}


def give(cursor: pymysql.cursors.Cursor, name: str, host: str, database: str, privileges: str) -> None:
    """First give, then take: at no moment does the user have less than before and after."""
    account, pattern = (name, host), names.grant_pattern(database)
    if database == names.EVERY:
        for schema in _SHIELDED:
            cursor.execute(f"GRANT {_HARMLESS} ON {names.identifier(schema)}.* TO %s@%s", account)
    # A `%` in the pattern is no parameter.
    cursor.execute(f"GRANT {names.PRIVILEGES[privileges]} ON {pattern.replace('%', '%%')}.* TO %s@%s", account)
    if privileges == names.READ:
        cursor.execute(f"REVOKE {names.WRITING} ON {pattern.replace('%', '%%')}.* FROM %s@%s", account)


def _take(cursor: pymysql.cursors.Cursor, name: str, host: str, pattern: str) -> None:
    for privileges in ("GRANT OPTION", "ALL PRIVILEGES"):
        try:
            cursor.execute(f"REVOKE {privileges} ON {pattern.replace('%', '%%')}.* FROM %s@%s", (name, host))
        except pymysql.MySQLError as error:
            if error.args[0] != _NO_SUCH_GRANT:
                raise


def _granted(name: str, grants: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    found = {}
    for row in grants:
        database = names.database_of(str(row["Db"]))
        if row["User"] != name or database in names.SYSTEM_SCHEMAS:
            continue
        given = {column.removesuffix("_priv").lower() for column, value in row.items() if column.endswith("_priv") and value == "Y"}
        missing = {column.removesuffix("_priv").lower() for column, value in row.items() if column.endswith("_priv") and value == "N"}
        kind = names.READ if given == {"select", "show_view"} else names.ALL if missing <= {"grant"} else "other"
        found[database] = kind
    return [{"name": database, "privileges": kind} for database, kind in sorted(found.items())]


def _end_sessions(cursor: pymysql.cursors.Cursor, name: str) -> None:
    cursor.execute("KILL USER %s", (name,))


def _told(cursor: pymysql.cursors.Cursor) -> dict[str, str]:
    cursor.execute("SHOW GLOBAL VARIABLES")
    return {str(name): str(value) for name, value in cursor.fetchall() if name in variables.CATALOGUE}


def _check_pool(wanted: Mapping[str, str]) -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    pool = int(wanted.get(variables.POOL, 0))
    if pool > memory * _POOL_SHARE:
        limit = variables.shown_size(int(memory * _POOL_SHARE) >> 20 << 20)
        raise errors.InvalidArgument(f"The node has {memory >> 20} MB of memory: {variables.POOL} can be {limit} there at most.")
