"""Binary logs: which transactions of the cluster one holds and when they were committed, and carrying them out on a server.

Every member numbers the cluster's transactions alike (`wsrep_gtid_mode`), so it does not matter whose logs these are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import struct
import subprocess
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from conpaas.core import errors
from conpaas.services.mysql.workload import programs, sql

DOMAIN: Final = 1
"""`wsrep_gtid_domain_id`: what other domains hold is a member's own, and not the cluster's."""
_MAGIC: Final = b"\xfebin"
_HEADER: Final = struct.Struct("<IBIIIH")
_GTID: Final = struct.Struct("<QI")
_ENTRY: Final = struct.Struct("<IIQ")
_GTID_EVENT: Final = 162
_GTID_LIST_EVENT: Final = 163
_BOOKKEEPING: Final = frozenset({3, 4, 15, 161, 163, 164})
"""Events that belong to no transaction: stop, rotate, format, checkpoint, list of GTIDs, key."""
_PACKET: Final = 1 << 30
_SAID: Final = 4000


class CutOff(errors.InvalidArgument):
    """The server was killed, or its machine lost power, while it wrote the log: the transaction at the end is not whole."""


@dataclasses.dataclass(frozen=True)
class Group:
    """A transaction: its number, the second in which it was committed, and its place in the file."""

    seqno: int
    when: int
    begin: int
    end: int


@dataclasses.dataclass(frozen=True)
class Survey:
    """What a log holds: the transactions after `after` up to and with `last`; `end` is the second of its last event."""

    after: int
    last: int
    end: int

    def to_dict(self) -> dict[str, int]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Slice:
    """The part of a log that is to be carried out, by places in the file, and the last transaction in it. `reached`: a later
    transaction is not wanted any more."""

    begin: int
    end: int
    last: int
    reached: bool


def survey(path: pathlib.Path) -> Survey:
    """What a log holds. Raises InvalidArgument when it is no binary log."""
    after, end = 0, 0
    with contextlib.suppress(CutOff), path.open("rb") as stream:
        for kind, when, _, body in _events(stream):
            end = max(end, when)
            if kind == _GTID_LIST_EVENT:
                after = max(after, _listed(body))
    return Survey(after, max([after, *(group.seqno for group in groups(path))]), end)


def groups(path: pathlib.Path) -> Iterator[Group]:
    """The cluster's transactions in a log, in order."""
    seqno: int | None = None
    when = begin = end = 0
    with path.open("rb") as stream:
        try:
            for kind, at, place, body in _events(stream):
                if kind == _GTID_EVENT:
                    if seqno is not None:
                        yield Group(seqno, when, begin, end)
                    number, domain = _GTID.unpack_from(body)
                    seqno, when, begin = (number if domain == DOMAIN else None), 0, place[0]
                if kind not in _BOOKKEEPING:
                    when, end = max(when, at), place[1]
        except CutOff:
            return
    if seqno is not None:
        yield Group(seqno, when, begin, end)


def choose(path: pathlib.Path, after: int, until: int | None) -> Slice | None:
    """The part of a log with the transactions later than `after` that were committed before the second `until`; None if there is none.

    With the first transaction that is too late it ends, whatever comes after it: what came later may depend on that.
    """
    begin = end = last = 0
    for group in groups(path):
        if group.seqno <= after:
            continue
        if until is not None and group.when >= until:
            return Slice(begin, end, last or after, reached=True)
        begin, end, last = begin or group.begin, group.end, group.seqno
    return Slice(begin, end, last, reached=False) if end else None


def _events(stream: BinaryIO) -> Iterator[tuple[int, int, tuple[int, int], bytes]]:
    """Type, second, place (from, to) of every event, and the body of those that tell of transactions. Raises CutOff."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if stream.read(len(_MAGIC)) != _MAGIC:
        raise errors.InvalidArgument("The file is no binary log.")
    position = len(_MAGIC)
    while position < size:
        header = stream.read(_HEADER.size)
        if len(header) < _HEADER.size:
            raise CutOff("The binary log is cut off.")
        when, kind, _, length, _, _ = _HEADER.unpack(header)
        if length < _HEADER.size:
            raise errors.InvalidArgument("The binary log is damaged.")
        if position + length > size:
            raise CutOff("The binary log is cut off.")
        wanted = kind in (_GTID_EVENT, _GTID_LIST_EVENT)
        yield kind, when, (position, position + length), stream.read(length - _HEADER.size) if wanted else b""
        position += length
        stream.seek(position)


def _listed(body: bytes) -> int:
    """The last transaction before a log."""
    count = int.from_bytes(body[:4], "little") & 0x0FFFFFFF
    found = [_ENTRY.unpack_from(body, 4 + number * _ENTRY.size) for number in range(count)]
    return max((seqno for domain, _, seqno in found if domain == DOMAIN), default=0)


@dataclasses.dataclass(frozen=True)
class Replayer:
    """Carries out parts of logs on the server behind a socket."""

    socket: pathlib.Path
    mariadb_binlog: str = "/usr/bin/mariadb-binlog"
    mariadb: str = "/usr/bin/mariadb"

    def replay(self, path: pathlib.Path, part: Slice) -> None:
        """Raises OperationFailed with the server's words when a statement fails."""
        reader = [self.mariadb_binlog, "--no-defaults", f"--do-domain-ids={DOMAIN}", f"--start-position={part.begin}"]
        reader += [f"--stop-position={part.end}", str(path)]
        writer = [self.mariadb, "--no-defaults", f"--socket={self.socket.name}", f"--user={sql.own_user()}", "--batch", "--binary-mode"]
        writer += [f"--max-allowed-packet={_PACKET}", "--default-character-set=utf8mb4"]
        first = self._start(reader, subprocess.DEVNULL, subprocess.PIPE)
        try:
            second = self._start(writer, first.stdout, subprocess.DEVNULL)
            if first.stdout is not None:
                first.stdout.close()
            said = second.communicate()[1]
            told = first.communicate()[1] if first.stderr else b""
        finally:
            first.kill()
            first.wait()
        if first.returncode or second.returncode:
            text = " ".join((said + b" " + told).decode(errors="replace").split())[-_SAID:]
            raise errors.OperationFailed(f"The binary log cannot be carried out: {text or 'a program was ended'}.")

    def _start(self, words: list[str], feed: Any, output: Any) -> subprocess.Popen[bytes]:
        environment = {**programs.ENVIRONMENT, "TZ": "UTC"}
        try:
            return subprocess.Popen(
                [*programs.DIES_WITH_US, *words],
                stdin=feed,
                stdout=output,
                stderr=subprocess.PIPE,
                cwd=self.socket.parent,
                env=environment,
            )
        except OSError as error:
            raise errors.OperationFailed(f"{words[0]} cannot be run: {error.strerror}.") from error
