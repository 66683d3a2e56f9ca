"""Files with SQL dumps: reading them whatever they are compressed with, and leaving out the lines that only their old server needs."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import pathlib
import re
import subprocess
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final

from conpaas.core import errors

CHUNK: Final = 256 * 1024
_HELD: Final = 64 * 1024
"""A line that has not ended is held back up to this length, so that a cut file does not end in part of a short statement."""
_MAGIC: Final = {b"\x1f\x8b": "gz", b"\x28\xb5\x2f\xfd": "zst", b"\xfd7zXZ\x00": "xz", b"BZh": "bz2"}
_FOREIGN: Final = {
    b"PK\x03\x04": "a zip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"SQLite format 3": "an SQLite database",
    b"PGDMP": "PostgreSQL's",
}
_OPENERS: Final[dict[str, Callable[[BinaryIO], Any]]] = {
    "gz": lambda file: gzip.GzipFile(fileobj=file, mode="rb"),
    "xz": lzma.LZMAFile,
    "bz2": bz2.BZ2File,
}
_DAMAGED: Final = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)

_HEADER: Final = re.compile(rb"-- (?:MySQL|MariaDB) dump ")
_TRAILER: Final = b"-- Dump completed"
_ENDS: Final = 512

_NAME: Final = rb"(?:`(?:[^`\n]|``)*`|'[^'\n]*'|\"[^\"\n]*\"|[\w.$-]+)"
_DEFINER: Final = re.compile(
    rb"^((?:/\*![0-9]{5,6} )?CREATE(?:\*/ /\*![0-9]{5,6})? (?:OR REPLACE )?(?:ALGORITHM ?= ?\w+ )?|/\*![0-9]{5,6} )"
    rb"DEFINER ?= ?" + _NAME + rb" ?@ ?" + _NAME + rb" ?",
    re.MULTILINE | re.IGNORECASE,
)
_FOREIGN_SETTINGS: Final = re.compile(
    rb"^SET (?:@MYSQLDUMP_TEMP_LOG_BIN ?= ?@@SESSION\.SQL_LOG_BIN|@@SESSION\.SQL_LOG_BIN ?= ?(?:[01]|@MYSQLDUMP_TEMP_LOG_BIN)"
    rb"|@@GLOBAL\.GTID_PURGED ?= ?[^\n;]*);[^\S\n]*$",
    re.MULTILINE | re.IGNORECASE,
)
_ENGINE: Final = re.compile(rb"^\) (?:ENGINE|TYPE)=(?:MyISAM|Aria)\b", re.MULTILINE | re.IGNORECASE)


class Filter:
    """Takes a dump in pieces and gives it back line by line, without what its owner has no right to or what a cluster cannot replicate.

    That is who was the `DEFINER` of views, triggers and routines (who loads them is, then), what a server's own log of changes was, and
    tables of MyISAM or Aria (they become InnoDB). With `database`, also the lines that choose or create that one. Only lines of the form
    that dump programs write are touched. Lines keep their numbers.
    """

    def __init__(self, database: str | None = None) -> None:
        self._rest = b""
        self._inside = False
        self._chosen = _choosing(database) if database is not None else None
        self.lines = 0

    def feed(self, data: bytes) -> bytes:
        """What of the dump is whole with this piece."""
        self.lines += data.count(b"\n")
        text = self._rest + data
        end = text.rfind(b"\n") + 1
        if not end and len(text) <= _HELD:
            self._rest = text
            return b""
        whole, self._rest = text[:end], text[end:]
        overlong = len(self._rest) > _HELD or not end
        if overlong:
            whole, self._rest = whole + self._rest, b""
        return self._clean(whole, ends_inside=overlong)

    def finish(self) -> bytes:
        """The last line, if it has no end."""
        rest, self._rest = self._rest, b""
        return self._clean(rest, ends_inside=False)

    def _clean(self, text: bytes, *, ends_inside: bool) -> bytes:
        """`text` begins at the beginning of a line, unless a long line was given out in parts."""
        first = b""
        if self._inside:
            end = text.find(b"\n") + 1 or len(text)
            first, text = text[:end], text[end:]
        self._inside = ends_inside and (bool(text) or not first.endswith(b"\n"))
        upper = text.upper() if self._chosen else text
        if b"DEFINER" in text or b"definer" in text:
            text = _DEFINER.sub(rb"\1", text)
        if b"\n) " in text or text.startswith(b") "):
            text = _ENGINE.sub(b") ENGINE=InnoDB", text)
        if b"SQL_LOG_BIN" in text or b"GTID_PURGED" in text:
            text = _FOREIGN_SETTINGS.sub(b"", text)
        if self._chosen and (b"USE " in upper or b"CREATE DATABASE" in upper):
            text = self._chosen.sub(b"", text)
        return first + text


def _choosing(database: str) -> re.Pattern[bytes]:
    name = re.escape(b"`" + database.replace("`", "``").encode() + b"`")
    plain = rb"|" + re.escape(database.encode()) if re.fullmatch(r"[A-Za-z0-9_]+", database) else b""
    created = rb"CREATE DATABASE(?: IF NOT EXISTS)?(?: ?/\*![0-9]{5,6} IF NOT EXISTS ?\*/)? ?(?:" + name + plain + rb")(?:\s[^\n;]*)?"
    return re.compile(rb"^(?:USE (?:" + name + plain + rb")|" + created + rb") ?;[^\S\n]*$", re.MULTILINE | re.IGNORECASE)


class DumpFile:
    """A file with a dump, open for reading once. `position` may be read by other threads."""

    def __init__(self, path: pathlib.Path) -> None:
        self._file = path.open("rb", buffering=0)
        self.size = os.fstat(self._file.fileno()).st_size
        head = self._file.read(16)
        self._file.seek(0)
        self.compression = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "none")
        foreign = next((what for magic, what in _FOREIGN.items() if head.startswith(magic)), None)
        if foreign is not None:
            self.close()
            raise errors.InvalidArgument(f"The file is {foreign}, not a dump in SQL.", hint="plain, gz, zst, xz and bz2 files are read")

    @property
    def position(self) -> int:
        """How many bytes of the file (as it is, compressed) have been read."""
        return 0 if self._file.closed else os.lseek(self._file.fileno(), 0, os.SEEK_CUR)

    def close(self) -> None:
        self._file.close()

    def chunks(self) -> Iterator[bytes]:
        """The SQL, in pieces. Raises InvalidArgument when the file is damaged, or a dump that was cut off."""
        tail, head = b"", b""
        for chunk in self._decompressed():
            head = head or chunk[:_ENDS]
            tail = (tail + chunk[-_ENDS:])[-_ENDS:]
            yield chunk
        if _HEADER.search(head) and _TRAILER not in tail:
            raise errors.InvalidArgument("The dump is incomplete: the line that ends it is missing.")

    def _decompressed(self) -> Iterator[bytes]:
        if self.compression == "zst":
            yield from self._zstandard()
            return
        opener = _OPENERS.get(self.compression)
        stream = opener(self._file) if opener else self._file
        try:
            while chunk := stream.read(CHUNK):
                yield chunk
        except (*_DAMAGED, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise errors.InvalidArgument(f"The {self.compression} file is damaged: {error}.") from error

    def _zstandard(self) -> Iterator[bytes]:
        try:
            program = subprocess.Popen(["zstd", "-dcq", "-"], stdin=self._file, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
        except FileNotFoundError as error:
            raise errors.OperationFailed("The program zstd is not installed on this node.") from error
        with program, contextlib.ExitStack() as ending:
            ending.callback(program.kill)
            output, complaints = program.stdout, program.stderr
            assert output is not None and complaints is not None
            while chunk := output.read(CHUNK):
                yield chunk
            said = complaints.read(1000).decode(errors="replace").strip()
            if program.wait() != 0:
                raise errors.InvalidArgument(f"The zst file is damaged: {' '.join(said.split())}.")
