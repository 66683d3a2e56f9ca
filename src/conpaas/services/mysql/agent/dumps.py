"""Dumps: loading one into the cluster, and writing one. Neither is ever in memory as a whole, and SQL from outside is run as an account
that has rights on the users' databases only."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pathlib
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

import pymysql

from conpaas.core import errors, file, rpc
from conpaas.services.mysql import names
from conpaas.services.mysql.agent import loading, swap
from conpaas.services.mysql.workload import dumpfile, programs, sql

log = logging.getLogger(__name__)

_TIMEOUT: Final = 120.0
_PREFIX: Final = "dump-"
_SPARE: Final = 64 << 20
"""Bytes that stay free on the disk."""
_SHRINKS: Final = {"none": 1, "gz": 3, "zst": 3}
_EMPTY: Final = b"-- There are no databases.\n"


@dataclasses.dataclass
class Progress:
    """How far a load is: `bytes` of `total` of the file as it came, `sql_bytes` and `lines` of what was in it."""

    running: bool = False
    database: str | None = None
    total: int = 0
    bytes: int = 0
    sql_bytes: int = 0
    lines: int = 0
    started: float = 0.0
    error: str | None = None


class Dumps:
    """Loads and writes dumps through the server of this node. One is loaded at a time."""

    def __init__(self, tools: programs.Programs, scratch: pathlib.Path) -> None:
        self._tools = tools
        self._scratch = scratch
        self._busy = threading.Lock()
        self._progress = Progress()
        self._source: dumpfile.DumpFile | None = None
        self._client: programs.Client | None = None
        self._cancelled = False

    def clean_up(self) -> None:
        """Remove what an agent that was killed has left."""
        for left in self._scratch.glob(f"{_PREFIX}*"):
            left.unlink(missing_ok=True)

    # Loading

    def load(self, path: pathlib.Path, database: str | None, fresh: bool) -> dict[str, int]:
        """Run the statements of a dump. Without `database` the dump chooses itself. `fresh`: into an empty schema that takes the place of
        the database once all is well; until then the database is as it was."""
        if database is not None:
            names.check_database(database)
        elif fresh:
            raise errors.InvalidArgument("Name the database that the dump is to replace.")
        if not self._busy.acquire(blocking=False):
            raise errors.WrongState("A dump is being loaded already.", hint="wait until it is done")
        self._cancelled = False
        self._progress = progress = Progress(running=True, database=database, started=time.time())
        try:
            with contextlib.closing(dumpfile.DumpFile(path)) as source:
                self._source, progress.total = source, source.size
                with contextlib.closing(sql.connect(self._tools.socket, _TIMEOUT)) as connection:
                    self._load(connection, source, database, fresh)
            progress.bytes = progress.total
        except errors.ConPaaSError as error:
            progress.error = str(error)
            raise
        except pymysql.MySQLError as error:
            failure = sql.failure(error)
            progress.error = str(failure)
            raise failure from error
        finally:
            self._source = None
            progress.running = False
            self._busy.release()
        return {"bytes": progress.total, "sql_bytes": progress.sql_bytes, "lines": progress.lines}

    def progress(self) -> dict[str, Any]:
        """How far the load under way is, or how the last one ended."""
        source, progress = self._source, self._progress
        if source is not None:
            progress.bytes = source.position
        return dataclasses.asdict(progress)

    def cancel(self) -> bool:
        """Stop the load under way, if there is one: what it has done so far stays, except with `fresh`."""
        self._cancelled = True
        client = self._client
        if client is not None:
            client.kill()
        return client is not None

    def _load(self, connection: pymysql.Connection[Any], source: dumpfile.DumpFile, database: str | None, fresh: bool) -> None:
        if not fresh:
            if database is not None:
                loading.create(connection, database, like=None)
            with loading.account(connection, database) as login:
                self._run(login, source, database, dumpfile.Filter())
            return
        assert database is not None
        swap.clean_up(connection, database)
        loading.drop_stale(connection, database)
        schema = names.scratch(database, secrets.token_hex(4))
        loading.create(connection, schema, like=database)
        try:
            with loading.account(connection, schema) as login:
                self._run(login, source, schema, dumpfile.Filter(database))
            with self._spooled() as definitions:
                swap.write_definitions(connection, self._tools, schema, definitions)
                with loading.account(connection, database) as owner:
                    swap.replace(connection, schema, database)
                    self._define(owner, database, definitions)
                    swap.clean_up(connection, database)
        finally:
            loading.drop(connection, schema)

    def _define(self, login: loading.Login, database: str, definitions: BinaryIO) -> None:
        """Views, triggers, routines and events, as the account that owns those of this database."""
        definitions.seek(0)
        cleaned = dumpfile.Filter()
        try:
            with self._tools.client(login.user, login.password, database) as client:
                while piece := definitions.read(dumpfile.CHUNK):
                    client.write(cleaned.feed(piece))
                client.write(cleaned.finish())
                client.finish()
        except programs.Refused as refused:
            raise errors.OperationFailed(
                f"The tables of '{database}' are the new ones, but not all of its views, triggers and routines: {refused.text}."
            ) from refused

    def _run(self, login: loading.Login, source: dumpfile.DumpFile, database: str | None, cleaned: dumpfile.Filter) -> None:
        try:
            with self._tools.client(login.user, login.password, database) as client:
                self._client = client
                if self._cancelled:
                    client.kill()
                for chunk in source.chunks():
                    client.write(cleaned.feed(chunk))
                    self._progress.sql_bytes += len(chunk)
                    self._progress.lines = cleaned.lines
                client.write(cleaned.finish())
                client.finish()
        except programs.Refused as refused:
            raise self._explained(refused, database, cleaned.lines) from refused
        finally:
            self._client = None

    def _explained(self, refused: programs.Refused, database: str | None, lines: int) -> errors.ConPaaSError:
        if self._cancelled:
            return errors.OperationFailed(f"Loading the dump was stopped before line {lines + 1}.")
        return loading.explained(refused, None if database is None else self._progress.database)

    # Writing

    def write(self, database: str | None, compression: str) -> rpc.FileDownload:
        """A consistent dump of one database (to be loaded into any), or of all that are the users'."""
        if database is not None:
            names.check_database(database)
        with contextlib.closing(sql.connect(self._tools.socket, _TIMEOUT)) as connection:
            wanted, size = loading.sizes(connection, database)
        self._check_room(size // _SHRINKS[compression])
        suffix = {"none": ".sql"}.get(compression, f".sql.{compression}")
        descriptor, name = tempfile.mkstemp(prefix=_PREFIX, suffix=suffix, dir=self._scratch)
        path = pathlib.Path(name)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as output:
                if wanted:
                    self._tools.dump(output, wanted, *programs.CODE, compression=compression, together=database is None)
                else:
                    programs.pack(output, _EMPTY, compression)
        except BaseException:
            path.unlink()
            raise
        return rpc.FileDownload(f"{_plain(database) or 'databases'}{suffix}", path, remove=True)

    def _check_room(self, needed: int) -> None:
        free = file.free_bytes(self._scratch)
        if free < needed + _SPARE:
            raise errors.StorageFull(
                f"The dump may need {needed >> 20} MB and there are {free >> 20} MB left on the disk of the node.",
                hint="a compressed dump needs less",
            )

    @contextlib.contextmanager
    def _spooled(self) -> Iterator[BinaryIO]:
        """A file without a name."""
        with tempfile.TemporaryFile(prefix=_PREFIX, dir=self._scratch, buffering=0) as spool:
            yield spool


def _plain(name: str | None) -> str:
    return "".join(one if one.isalnum() or one in "-_" else "_" for one in name or "")
