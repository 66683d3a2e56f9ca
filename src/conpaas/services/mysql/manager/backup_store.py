"""The backups that a manager keeps, and the binary logs that lead from one of them to a later second."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
import re
from collections.abc import Collection, Iterator
from typing import Any, Final

from conpaas.core import errors, file
from conpaas.core.state import settings

log = logging.getLogger(__name__)

MADE: Final = "made"
UPLOADED: Final = "uploaded"
SUFFIX: Final = ".mbstream.zst"
_BACKUPS: Final = "backups"
_LOGS: Final = "logs"
_LOG: Final = re.compile(r"([0-9]{20})-([0-9]{20})-([0-9]{10,12})\Z", re.ASCII)
_HISTORY: Final = re.compile(r"[0-9a-f-]{36}\Z", re.ASCII)
_SPARE: Final = 64 << 20
"""Bytes that stay free on the disk."""


@dataclasses.dataclass(frozen=True)
class Backup:
    """One backup. `time`: when it was complete, seconds since 1970; `history` and `seqno`: the cluster and its last transaction in it.

    `verified`: when it was last restored and checked; None: not yet.
    """

    id: str
    time: float
    bytes: int
    sha256: str
    origin: str
    history: str | None = None
    seqno: int = 0
    gtid: str = ""
    binlog: str = ""
    version: str = ""
    tables: int = 0
    verified: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Log:
    """A binary log: the transactions after `after` up to and with `last`; `end` is the second in which it was closed."""

    path: pathlib.Path
    after: int
    last: int
    end: int


class BackupStore:
    """Records in the manager's durable settings, files in a directory. A record is there only with its file."""

    def __init__(self, values: settings.Settings, directory: pathlib.Path) -> None:
        self._values = values
        self.directory = directory

    # Backups

    def all(self) -> list[Backup]:
        """Newest first."""
        return sorted((Backup(**one) for one in self._values.get(_BACKUPS, [])), key=lambda one: (one.time, one.id), reverse=True)

    def get(self, id: str) -> Backup:
        """Raises NotFound."""
        for one in self.all():
            if one.id == id:
                return one
        raise errors.NotFound(f"There is no backup '{id[:64]}'.", hint="list_backups tells which there are")

    def put(self, backup: Backup) -> None:
        """Add a backup, or change its record."""
        others = [one.to_dict() for one in self.all() if one.id != backup.id]
        self._values[_BACKUPS] = [*others, backup.to_dict()]

    def delete(self, id: str) -> None:
        """Forget a backup and remove its file. Idempotent."""
        left = [one.to_dict() for one in self.all() if one.id != id]
        if len(left) != len(self._values.get(_BACKUPS, [])):
            self._values[_BACKUPS] = left
        self.path(id).unlink(missing_ok=True)
        self.part(id).unlink(missing_ok=True)

    def path(self, id: str) -> pathlib.Path:
        return self.directory / f"{id}{SUFFIX}"

    def part(self, id: str) -> pathlib.Path:
        """The file while it is not whole."""
        return self.directory / f".{id}.part"

    def prepare(self, needed: int) -> None:
        """Have the directory, with room for so many bytes. Raises StorageFull."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        free = file.free_bytes(self.directory)
        if free < needed + _SPARE:
            raise errors.StorageFull(
                f"The backup has {needed >> 20} MB and there are {free >> 20} MB left on the disk of the manager.",
                hint="delete backups that are not needed any more",
            )

    def keep(self, part: pathlib.Path, id: str) -> None:
        """Give a whole file its name."""
        part.chmod(0o600)
        part.replace(self.path(id))
        file.sync_directory(self.directory)

    def prune(self, keep: int) -> list[str]:
        """Delete all but the newest so many of the backups that were made here; returns those that are gone."""
        old = [one.id for one in self.all() if one.origin == MADE][keep:]
        for id in old:
            self.delete(id)
        return old

    # Logs

    def logs(self, history: str) -> list[Log]:
        """The logs of a history, in order."""
        return sorted(self._logs(self._of(history)), key=lambda one: (one.after, one.last))

    def chain(self, history: str, seqno: int) -> list[Log]:
        """The logs that lead on from a transaction without a gap."""
        found: list[Log] = []
        for one in self.logs(history):
            if one.after <= seqno < one.last:
                found.append(one)
                seqno = one.last
        return found

    def covered(self, history: str) -> int | None:
        """The transaction up to which all backups of a history can be followed; None if there is no backup of it. Those behind which a
        gap has come about do not count: it stays."""
        logs = self.logs(history)
        ends = []
        for one in self.all():
            if one.history == history:
                chain = self.chain(history, one.seqno)
                ends.append(chain[-1].last if chain else one.seqno)
        going_on = [end for end in ends if not any(one.after > end for one in logs)]
        return min(going_on or [one.last for one in logs][-1:], default=None) if ends else None

    def has_log(self, history: str, after: int, last: int) -> bool:
        """Whether all of these transactions are in one of the logs."""
        return any(one.after <= after and last <= one.last for one in self.logs(history))

    def log_part(self, history: str) -> pathlib.Path:
        directory = self._of(history)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory / ".part"

    def add_log(self, history: str, part: pathlib.Path, after: int, last: int, end: int) -> None:
        """Keep a log that has come whole."""
        part.chmod(0o600)
        part.replace(part.with_name(f"{after:020d}-{last:020d}-{end:010d}"))
        file.sync_directory(part.parent)

    def prune_logs(self) -> None:
        """Remove the logs that no backup needs."""
        backups = self.all()
        root = self.directory / _LOGS
        for directory in root.iterdir() if root.is_dir() else ():
            own = [one.seqno for one in backups if one.history == directory.name]
            if not own:
                file.remove_tree(directory)
                continue
            for one in list(self._logs(directory)):
                if one.last <= min(own):
                    one.path.unlink(missing_ok=True)

    def tidy(self, under_way: Collection[str] = ()) -> None:
        """Remove the files of backups that are not on record, except those under way."""
        known = {one.id for one in self.all()} | set(under_way)
        for path in self.directory.iterdir() if self.directory.is_dir() else ():
            id = path.name.removeprefix(".").removesuffix(".part").removesuffix(SUFFIX)
            if path.is_file() and path.name.endswith((".part", SUFFIX)) and id not in known:
                log.info("removing %s, which a backup that was cut off has left", path)
                path.unlink(missing_ok=True)

    def _of(self, history: str) -> pathlib.Path:
        if not _HISTORY.match(history):
            raise errors.OperationFailed(f"'{history[:64]}' is not the history of a cluster.")
        return self.directory / _LOGS / history

    @staticmethod
    def _logs(directory: pathlib.Path) -> Iterator[Log]:
        for path in directory.iterdir() if directory.is_dir() else ():
            found = _LOG.match(path.name)
            if found:
                yield Log(path, int(found[1]), int(found[2]), int(found[3]))
