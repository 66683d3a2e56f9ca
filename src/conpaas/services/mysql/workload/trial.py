"""A server apart from everything, to try data out or to change them: no network, no cluster, no binary log, no events."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import time
from collections.abc import Iterator
from typing import Any, Final

import pymysql

from conpaas.core import errors, file
from conpaas.services.mysql import names
from conpaas.services.mysql.workload import mariadb, programs, sql

_SOCKET: Final = "trial.sock"
_ERRORS: Final = "trial.err"
_START_TIMEOUT: Final = 600.0
_STOP_TIMEOUT: Final = 300.0
_STATEMENT_TIMEOUT: Final = 6 * 3600.0
_LARGE: Final = 1 << 30
_SHOWN: Final = 3


class Trial:
    """A server that runs. Until `settle` everybody of this machine has all rights in it."""

    def __init__(self, data: pathlib.Path, connection: pymysql.Connection[Any]) -> None:
        self.socket = data / _SOCKET
        self._connection = connection

    def check_tables(self) -> int:
        """Have the server check all tables. Returns how many. Raises OperationFailed that names those with faults."""
        bad: list[str] = []
        tables = self._rows("SELECT table_schema, table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE'")
        checked = 0
        for schema, name in tables:
            if schema in ("information_schema", "performance_schema"):
                continue
            found = self._rows(f"CHECK TABLE {names.identifier(schema)}.{names.identifier(name)}")
            checked += 1
            said = [str(text) for _, _, kind, text in found if str(kind).lower() == "error" or (kind == "status" and text != "OK")]
            bad += [f"{schema}.{name}: {said[0]}"] if said else []
        if bad:
            raise errors.OperationFailed(f"{len(bad)} of {checked} tables are damaged: {'; '.join(bad[:_SHOWN])}.")
        return checked

    def settle(self, account: str) -> None:
        """Have the accounts in force, among them those of this machine, whatever machine the data come from."""
        self._rows("FLUSH PRIVILEGES")
        for name in dict.fromkeys((account, sql.own_user())):
            with self._connection.cursor() as cursor:
                cursor.execute("CREATE USER IF NOT EXISTS %s@localhost IDENTIFIED VIA unix_socket", (name,))
                cursor.execute("GRANT ALL ON *.* TO %s@localhost WITH GRANT OPTION", (name,))

    def _rows(self, statement: str) -> list[tuple[Any, ...]]:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall())
        except pymysql.MySQLError as error:
            raise sql.failure(error) from error


@contextlib.contextmanager
def running(mariadbd: str, data: pathlib.Path, pool: int) -> Iterator[Trial]:
    """A server on these data, which ends in order with the context; `pool` MB for its buffers. Raises OperationFailed with its words."""
    said = data / _ERRORS
    options = {
        "datadir": data,
        "tmpdir": data,
        "socket": _SOCKET,
        "pid-file": data / "trial.pid",
        "log-error": said,
        "innodb-buffer-pool-size": f"{pool}M",
        "max-allowed-packet": _LARGE,
        "wsrep-on": "OFF",
        "event-scheduler": "DISABLED",
    }
    words = [mariadbd, "--no-defaults", *(f"--{name}={value}" for name, value in options.items())]
    words += ["--skip-networking", "--skip-grant-tables", "--skip-log-bin", "--skip-slave-start"]
    words += ["--user=root"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        [*programs.DIES_WITH_US, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=data,
        env=programs.ENVIRONMENT,
    )
    try:
        connection = _connected(process, data, said)
        with contextlib.closing(connection):
            yield Trial(data, connection)
        _end(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for name in (_SOCKET, "trial.pid"):
            (data / name).unlink(missing_ok=True)
    said.unlink(missing_ok=True)


def _connected(process: subprocess.Popen[bytes], data: pathlib.Path, said: pathlib.Path) -> pymysql.Connection[Any]:
    deadline = time.monotonic() + _START_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        try:
            return sql.connect(data / _SOCKET, _STATEMENT_TIMEOUT)
        except errors.Unreachable:
            time.sleep(0.05)
    reason = mariadb.reason(file.tail(said)) or "it says nothing"
    raise errors.OperationFailed(f"No server can be started on the data of the backup: {reason}.")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        code = process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise errors.OperationFailed("The server on the data of the backup does not end.") from None
    if code:
        raise errors.OperationFailed(f"The server on the data of the backup ended with code {code}.")
