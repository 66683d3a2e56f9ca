"""A real MariaDB server of a test's own: its directory, its socket, no network, and accounts as on a node of the mysql service."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import pymysql

from conpaas.core import errors
from conpaas.services.mysql.workload import programs, sql


class Server:
    """A running server. `root` is closed to nobody, so that clients of other users reach the socket."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.socket = root / "run" / "mysql" / "mysqld.sock"
        self.data = root / "data"
        self.tools = programs.Programs(self.socket)
        self.scratch = root / "tmp"
        for directory in (self.socket.parent, self.scratch):
            directory.mkdir(parents=True)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Make the data directory if there is none, and start the server; returns when it answers."""
        user = sql.own_user()
        if not self.data.exists():
            words = ["mariadb-install-db", "--no-defaults", f"--user={user}", f"--datadir={self.data}", "--skip-test-db"]
            words += ["--auth-root-authentication-method=socket", f"--auth-root-socket-user={user}"]
            subprocess.run(words, check=True, capture_output=True)
        with (self.root / "log").open("ab") as log:
            words = ["mariadbd", "--no-defaults", f"--user={user}", f"--datadir={self.data}", f"--socket={self.socket}"]
            words += ["--skip-networking", f"--pid-file={self.root / 'pid'}", "--innodb-buffer-pool-size=64M", "--log-bin=binlog"]
            words += ["--innodb-flush-log-at-trx-commit=0", "--binlog-format=ROW", "--enforce-storage-engine=InnoDB"]
            words += ["--character-set-server=utf8mb4", "--log-bin-trust-function-creators=ON", *options]
            self.process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while True:
            try:
                sql.connect(self.socket, 5).close()
                return
            except errors.ConPaaSError:
                assert self.process.poll() is None, (self.root / "log").read_text()[-3000:]
                assert time.monotonic() < end, (self.root / "log").read_text()[-3000:]
                time.sleep(0.02)

    def stop(self) -> None:
        """Kill the server: its data is of no use afterwards."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def run(self, statement: str, values: Any = None, database: str | None = None) -> list[tuple[Any, ...]]:
        """The rows of one statement of the administrator."""
        with contextlib.closing(sql.connect(self.socket, 60)) as connection, connection.cursor() as cursor:
            if database is not None:
                connection.select_db(database)
            cursor.execute(statement, values)
            return [tuple(row) for row in cursor.fetchall()]

    def login(self, user: str, password: str, database: str | None = None) -> pymysql.Connection[Any]:
        """A session of a user with a password."""
        return pymysql.connect(
            # The driver would take a text for latin-1.
            unix_socket=str(self.socket),
            user=user,
            password=password.encode(),
            database=database,
            charset="utf8mb4",
            autocommit=True,
        )

    def names(self) -> set[str]:
        """The databases."""
        return {str(row[0]) for row in self.run("SHOW DATABASES")}

    def system_tables(self) -> dict[str, Any]:
        """Checksums of the tables that say who may do what."""
        tables = ("mysql.global_priv", "mysql.db", "mysql.tables_priv", "mysql.proc", "mysql.event", "mysql.plugin", "mysql.func")
        return dict(self.run(f"CHECKSUM TABLE {', '.join(tables)}"))  # type: ignore[arg-type]


@contextlib.contextmanager
def standalone(*options: str) -> Iterator[Server]:
    """A server for the time of some tests."""
    root = pathlib.Path(tempfile.mkdtemp(prefix="conpaas-mariadb."))
    root.chmod(0o755)
    server = Server(root)
    try:
        server.start(*options)
        yield server
    finally:
        server.stop()
        shutil.rmtree(root, ignore_errors=True)
