"""Putting a schema in the place of a database: all tables in one statement, which the whole cluster carries out at one point in time."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import Any, BinaryIO, Final

import pymysql

from conpaas.services.mysql import names
from conpaas.services.mysql.workload import programs

_PARKED: Final = re.compile(r"__old_[0-9a-f]{8}_[0-9]+\Z")
_LOCK_WAIT: Final = 30
"""Seconds that the change waits for transactions that use the old tables."""
_VIEW: Final = "VIEW"


def write_definitions(connection: pymysql.Connection[Any], tools: programs.Programs, schema: str, to: BinaryIO) -> None:
    """What cannot be moved from one schema to another and has to be made anew: triggers, routines, events and views."""
    tools.dump(to, [schema], "--no-data", "--no-create-info", *programs.CODE, together=False)
    views = [name for name, kind in _tables(connection, schema) if kind == _VIEW]
    if views:
        tools.dump(to, [schema, *views], "--no-data", "--skip-triggers", together=False)


def replace(connection: pymysql.Connection[Any], schema: str, database: str) -> None:
    """Move all tables of `schema` into `database`, whose own get other names in the same instant. If that fails, nothing has changed."""
    mark = secrets.token_hex(4)
    there, here = names.identifier(schema), names.identifier(database)
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE IF NOT EXISTS {here}")
        # A table with triggers cannot leave its schema.
        _drop_each(cursor, there, "TRIGGER", _names(cursor, "trigger_name", "triggers", "trigger_schema", schema))
        moves = [
            f"{here}.{names.identifier(name)} TO {here}.{names.identifier(f'__old_{mark}_{number}')}"
            for number, (name, _) in enumerate(_tables(connection, database))
        ]
        moves += [
            f"{there}.{names.identifier(name)} TO {here}.{names.identifier(name)}"
            for name, kind in _tables(connection, schema)
            if kind != _VIEW
        ]
        if moves:
            cursor.execute(f"SET SESSION lock_wait_timeout = {_LOCK_WAIT}")
            cursor.execute(f"RENAME TABLE {', '.join(moves)}")
        _drop_each(cursor, here, "TRIGGER", _names(cursor, "trigger_name", "triggers", "trigger_schema", database))
        _drop_each(cursor, here, "EVENT", _names(cursor, "event_name", "events", "event_schema", database))
        for kind in ("PROCEDURE", "FUNCTION", "PACKAGE BODY", "PACKAGE"):
            found = _names(cursor, "routine_name", "routines", "routine_schema", database, kind)
            _drop_each(cursor, here, kind, found)


def clean_up(connection: pymysql.Connection[Any], database: str) -> None:
    """Remove the tables and views that were replaced, also those of a load that was cut off."""
    old = [(name, kind) for name, kind in _tables(connection, database) if _PARKED.match(name)]
    here = names.identifier(database)
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION foreign_key_checks = 0")
        for name, kind in old:
            word = {_VIEW: "VIEW", "SEQUENCE": "SEQUENCE"}.get(kind, "TABLE")
            cursor.execute(f"DROP {word} IF EXISTS {here}.{names.identifier(name)}")
        cursor.execute("SET SESSION foreign_key_checks = 1")


def _tables(connection: pymysql.Connection[Any], schema: str) -> list[tuple[str, str]]:
    """All names that tables, views and sequences have, and what they are."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = %s ORDER BY table_name", (schema,)
        )
        return [(str(name), str(kind)) for name, kind in cursor.fetchall()]


def _names(cursor: pymysql.cursors.Cursor, column: str, table: str, where: str, schema: str, kind: str | None = None) -> list[str]:
    condition, values = ("", (schema,)) if kind is None else (" AND routine_type = %s", (schema, kind))
    cursor.execute(f"SELECT {column} FROM information_schema.{table} WHERE {where} = %s{condition}", values)  # noqa: S608
    return [str(row[0]) for row in cursor.fetchall()]


def _drop_each(cursor: pymysql.cursors.Cursor, schema: str, kind: str, found: Sequence[str]) -> None:
    for name in found:
        cursor.execute(f"DROP {kind} IF EXISTS {schema}.{names.identifier(name)}")
