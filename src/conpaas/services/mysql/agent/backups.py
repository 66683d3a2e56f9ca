"""Backups of the server of this node: making one, trying one out, and putting one in the place of the data.

All of it is beside the data, on the same disk, until it takes their place by a change of names; the former data are kept until told.
"""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from conpaas.core import errors, file, rpc
from conpaas.services.mysql.agent import footprint
from conpaas.services.mysql.workload import backup, binlog, layout, sql, status, trial

_SPARE: Final = 96 << 20
"""Bytes that stay free on the disk, beside what the data need."""
_POOL: Final = 64
"""MB of buffers of a server that data are tried out on."""
_TIMEOUT: Final = 60.0
_SPOOL: Final = "backup.mbstream.zst"
_NEW: Final = "data"
_FORMER: Final = "former"


class Backups:
    """`places` tells where the server's things are now, `account` who runs it, `stopped` whether it is stopped for good."""

    def __init__(
        self,
        tools: backup.Tools,
        mariadbd: str,
        places: Callable[[], layout.Layout],
        account: Callable[[], str],
        stopped: Callable[[], bool],
    ) -> None:
        self._tools = tools
        self._mariadbd = mariadbd
        self._places = places
        self._account = account
        self._stopped = stopped
        self._busy = threading.Lock()

    # Making one

    def make(self) -> dict[str, Any]:
        """Write a backup into this node's spool. Returns `bytes`, `sha256`, `uuid` of the cluster's history, and `time`."""
        with self._alone():
            places = self._places()
            file.remove_tree(self._spool)
            self._spool.mkdir(mode=0o700, parents=True)
            self._check_room(footprint.measure(places.data) // 2, "The backup")
            path = self._spool / _SPOOL
            try:
                uuid = status.seen(status.ask(places.socket, _TIMEOUT))["cluster_uuid"]
                self._tools.write(path, data=places.data, socket=places.socket, scratch=self._spool)
            except BaseException:
                file.remove_tree(self._spool)
                raise
            return {"bytes": path.stat().st_size, "sha256": file.sha256(path), "uuid": uuid, "time": time.time()}

    def verify(self) -> dict[str, Any]:
        """Restore the backup in the spool beside everything and have all tables checked. Returns its position, and `tables`."""
        with self._alone():
            try:
                return self._unpack(self._made(), self._spool / _NEW)
            finally:
                file.remove_tree(self._spool / _NEW)

    def download(self) -> rpc.FileDownload:
        return rpc.FileDownload(_SPOOL, self._made())

    def forget(self) -> None:
        """Remove what is in the spool."""
        with self._alone():
            file.remove_tree(self._spool)

    # Binary logs

    def binlogs(self, after: int) -> list[dict[str, Any]]:
        """Close the log that is being written if there are transactions later than `after`, and list the closed ones that hold such:
        `name`, `bytes`, and what `binlog.Survey` tells."""
        places = self._places()
        with contextlib.closing(sql.connect(places.socket, _TIMEOUT)) as connection:
            # A member may be behind: what was acknowledged before must be in its logs.
            status.rows(connection, "SET SESSION wsrep_sync_wait = 1")
            if backup.seqno_in(str(status.rows(connection, "SELECT @@gtid_binlog_pos")[0][0])) <= after:
                return []
            status.rows(connection, "FLUSH NO_WRITE_TO_BINLOG BINARY LOGS")
            current = str(status.rows(connection, "SHOW MASTER STATUS")[0][0])
            names = [str(row[0]) for row in status.rows(connection, "SHOW BINARY LOGS")]
        found: list[dict[str, Any]] = []
        for name in reversed([one for one in names if one != current]):
            path = places.data / name
            held = binlog.survey(path)
            if held.last > max(after, held.after):
                found.append({"name": name, "bytes": path.stat().st_size, **held.to_dict()})
            if held.after <= after:
                break
        return found[::-1]

    def download_binlog(self, name: str) -> rpc.FileDownload:
        path = self._places().data / name
        if not name.startswith("mysql-bin.") or not name.removeprefix("mysql-bin.").isdigit() or not path.is_file():
            raise errors.NotFound(f"There is no binary log '{name}'.")
        return rpc.FileDownload(name, path)

    # Restoring

    def prepare_restore(self, source: pathlib.Path) -> dict[str, Any]:
        """Make data of a backup, beside those in use, and have all tables checked. Returns its position, and `tables`."""
        with self._alone():
            self._refuse_while_swapped()
            file.remove_tree(self._restore)
            self._restore.mkdir(mode=0o700, parents=True)
            try:
                return self._unpack(source, self._restore / _NEW)
            except BaseException:
                file.remove_tree(self._restore)
                raise

    def add_binlog(self, source: pathlib.Path, number: int) -> None:
        """Have a log at hand for `replay`."""
        if not (self._restore / _NEW).is_dir():
            raise errors.WrongState("No backup is being restored on this node.")
        self._check_room(source.stat().st_size, "The binary log")
        logs = self._restore / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        shutil.move(source, logs / f"{number:06d}")

    def replay(self, after: int, until: int | None) -> int:
        """Carry out the logs at hand from the transaction after `after` to before the second `until`. Returns the last transaction.

        Not idempotent: should it fail, the backup has to be prepared anew.
        """
        with self._alone(), self._open(self._restore / _NEW) as server:
            replayer = binlog.Replayer(server.socket)
            server.settle(self._account())
            for log in sorted((self._restore / "logs").glob("*")):
                part = binlog.choose(log, after, until)
                if part is None:
                    continue
                if part.end:
                    replayer.replay(log, part)
                after = part.last
                if part.reached:
                    break
        return after

    def swap(self, on: bool) -> None:
        """Put what was restored in the place of the data of the stopped server, or the former data back. Idempotent."""
        with self._alone():
            if not self._stopped():
                raise errors.WrongState("The database server of this node runs, so its data cannot be exchanged.", hint="stop it first")
            data, new, former = self._places().data, self._restore / _NEW, self._restore / _FORMER
            if on and new.is_dir():
                if data.is_dir():
                    data.rename(former)
                new.rename(data)
            elif not on and former.is_dir():
                if data.is_dir():
                    data.rename(new)
                former.rename(data)
            elif on and not former.is_dir():
                raise errors.WrongState("Nothing was restored on this node.")
            file.sync_directory(self._places().store)

    def discard(self) -> None:
        """Remove what a restore has left: the former data, or what never took their place."""
        with self._alone():
            if self._places().data.is_dir():
                file.remove_tree(self._restore)

    # Beneath

    @property
    def _spool(self) -> pathlib.Path:
        return self._places().store / "backup"

    @property
    def _restore(self) -> pathlib.Path:
        return self._places().store / "restore"

    def _refuse_while_swapped(self) -> None:
        if (self._restore / _FORMER).is_dir() and not self._places().data.is_dir():
            raise errors.WrongState("The data of this node are being exchanged for restored ones.")

    def _made(self) -> pathlib.Path:
        path = self._spool / _SPOOL
        if not path.is_file():
            raise errors.NotFound("There is no backup on this node.")
        return path

    def _unpack(self, source: pathlib.Path, data: pathlib.Path) -> dict[str, Any]:
        file.remove_tree(data)
        data.mkdir(mode=0o700)
        needed = max(footprint.measure(self._places().data), source.stat().st_size * 2)
        self._check_room(needed, "The restored backup")
        position = self._tools.unpack(source, data)
        with self._open(data) as server:
            tables = server.check_tables()
            server.settle(self._account())
        return {**position.to_dict(), "tables": tables}

    def _open(self, data: pathlib.Path) -> contextlib.AbstractContextManager[trial.Trial]:
        return trial.running(self._mariadbd, data, _POOL)

    def _check_room(self, needed: int, what: str) -> None:
        store = self._places().store
        free = file.free_bytes(store)
        if free < needed + _SPARE:
            raise errors.StorageFull(f"{what} may need {needed >> 20} MB and there are {free >> 20} MB left on the disk of the node.")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise errors.WrongState("A backup is being made or restored on this node already.", hint="wait until it is done")
        try:
            yield
        finally:
            self._busy.release()
