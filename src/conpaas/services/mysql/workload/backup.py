"""MariaDB's own program for backups of a running server: writing one into a file, and making data of it again that a server can open."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Final

from conpaas.core import errors, file
from conpaas.services.mysql.workload import programs, sql

_INFO: Final = ("mariadb_backup_info", "xtrabackup_info")
_BINLOG: Final = ("mariadb_backup_binlog_info", "xtrabackup_binlog_info")
_GALERA: Final = ("mariadb_backup_galera_info", "xtrabackup_galera_info")
_LIMIT: Final = 64_000
_VERSION: Final = re.compile(r"^server_version\s*=\s*(\S+)", re.MULTILINE)
_SEQNO: Final = re.compile(r"\b1-\d+-(\d+)\b")
"""A transaction of the cluster in a list of GTIDs: its domain is 1 (`wsrep_gtid_domain_id`)."""
_FAILURE: Final = re.compile(r"^(?:\[\d+\] )?(?:\S+ \S+ )?(?:.*?\[ERROR\] |mariabackup: |mbstream: |zstd: |Error: )(.*)$", re.MULTILINE)
_FULL: Final = re.compile(r"No space left|[Ee]rr(?:no|code):? 28\b|error: 28\b|Error 28\b")


@dataclasses.dataclass(frozen=True)
class Position:
    """Where in the history of its cluster a backup stands. `seqno`: the last transaction in it, by the domain of the cluster."""

    seqno: int
    gtid: str
    binlog: str
    version: str

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Tools:
    """Where the programs are."""

    mariabackup: str = "/usr/bin/mariabackup"
    mbstream: str = "/usr/bin/mbstream"
    zstd: str = "/usr/bin/zstd"

    def write(self, to: pathlib.Path, *, data: pathlib.Path, socket: pathlib.Path, scratch: pathlib.Path) -> None:
        """Write a backup of the server behind `socket` into the file `to`. Raises OperationFailed, StorageFull."""
        with _directory(scratch) as target, to.open("wb") as output:
            os.fchmod(output.fileno(), 0o600)
            words = [self.mariabackup, "--no-defaults", "--backup", "--stream=mbstream", "--galera-info", f"--datadir={data}"]
            words += [f"--socket={socket}", f"--user={sql.own_user()}", f"--target-dir={target}", f"--tmpdir={target}", "--parallel=1"]
            _pipe([words, [self.zstd, "-q", "-c", "-T1", "-3"]], None, output, target, "The backup failed")
            os.fsync(output.fileno())

    def unpack(self, source: pathlib.Path, data: pathlib.Path) -> Position:
        """Make data that a server can open of a backup. `data` is an empty directory. Raises InvalidArgument for what is no backup,
        OperationFailed, StorageFull."""
        with source.open("rb") as packed:
            words = [[self.zstd, "-q", "-d", "-c"], [self.mbstream, "-x", "-C", str(data)]]
            _pipe(words, packed, subprocess.DEVNULL, data, "The file is no whole backup")
        position = read_position(data)
        words = [[self.mariabackup, "--no-defaults", "--prepare", f"--target-dir={data}"]]
        _pipe(words, None, subprocess.DEVNULL, data, "The backup cannot be made whole")
        for left in (*data.glob("mysql-bin.*"), data / "grastate.dat", data / "gvwstate.dat"):
            left.unlink(missing_ok=True)
        return position


def read_position(data: pathlib.Path) -> Position:
    """Where a backup stands, from what was written down in it. Raises InvalidArgument when it is none of a cluster like ours."""
    info, binlog = _read(data, _INFO), _read(data, _BINLOG).split()
    if not info or not (data / "ibdata1").is_file():
        raise errors.InvalidArgument("The file is no backup of a whole database server.")
    gtid = binlog[2] if len(binlog) > 2 else ""
    version = _VERSION.search(info)
    return Position(seqno_in(gtid), gtid, ":".join(binlog[:2]), version[1] if version else "")


def seqno_in(gtid: str) -> int:
    """The cluster's last transaction in a list of GTIDs; 0 if it has none."""
    found = _SEQNO.search(gtid)
    return int(found[1]) if found else 0


def _read(data: pathlib.Path, names: Sequence[str]) -> str:
    return next((text for name in names if (text := file.tail(data / name, _LIMIT))), "")


@contextlib.contextmanager
def _directory(parent: pathlib.Path) -> Iterator[pathlib.Path]:
    path = pathlib.Path(tempfile.mkdtemp(prefix="backup-", dir=parent))
    try:
        yield path
    finally:
        file.remove_tree(path)


def _pipe(commands: Sequence[Sequence[str]], source: BinaryIO | None, to: Any, cwd: pathlib.Path, failed: str) -> None:
    """Run programs, each of which reads what the one before it writes. Raises OperationFailed, StorageFull with what they said."""
    with contextlib.ExitStack() as stack:
        said = stack.enter_context(tempfile.TemporaryFile(dir=cwd, buffering=0))
        running: list[subprocess.Popen[bytes]] = []
        feed: Any = source if source is not None else subprocess.DEVNULL
        for number, words in enumerate(commands):
            output = to if number == len(commands) - 1 else subprocess.PIPE
            running.append(_start(words, feed, output, said, cwd))
            stack.callback(_end, running[-1])
            if number:
                feed.close()  # the program before notices when this one is gone
            feed = running[-1].stdout
        codes = [one.wait() for one in running]
        if any(codes):
            raise _failure(said, failed)


def _start(words: Sequence[str], feed: Any, output: Any, said: Any, cwd: pathlib.Path) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [*programs.DIES_WITH_US, *words], stdin=feed, stdout=output, stderr=said, cwd=cwd, env=programs.ENVIRONMENT, bufsize=0
        )
    except OSError as error:
        raise errors.OperationFailed(f"{words[0]} cannot be run: {error.strerror}.") from error


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


def _failure(said: BinaryIO, failed: str) -> errors.ConPaaSError:
    size = said.seek(0, os.SEEK_END)
    said.seek(max(0, size - _LIMIT))
    text = said.read().decode(errors="replace")
    if _FULL.search(text):
        return errors.StorageFull(f"{failed}: there is no room left on the disk of the node.")
    lines = list(dict.fromkeys(line.strip(" .") for line in _FAILURE.findall(text) if line.strip(" .")))
    reason = "; ".join(lines[-3:]) or " ".join(text.split())[-300:] or "a program was ended"
    return errors.OperationFailed(f"{failed}: {reason}.")
