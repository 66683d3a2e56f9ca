"""Where the output of a script goes: the bounded file of its run, and a log shared by all scripts that rotates."""

from __future__ import annotations

import fcntl
import os
import pathlib
import sys

_OLD_COPIES = 3


class Sink:
    """Takes one output stream. A full disk costs output, never the script: what cannot be written is dropped, which stderr tells."""

    def __init__(self, path: pathlib.Path, limit: int, shared: pathlib.Path, shared_limit: int) -> None:
        self._own = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._room = max(0, limit - os.fstat(self._own).st_size)
        self._limit = limit
        self._full = False
        self._shared = RotatedLog(shared, shared_limit)

    def write(self, chunk: bytes) -> None:
        """Append `chunk` to both; beyond its limit the run's own file says once that it was cut."""
        _write(self._shared.descriptor(), chunk)
        _write(self._own, chunk[: self._room])
        if len(chunk) > self._room and not self._full:
            self._full = True
            _write(self._own, f"\n[output cut: only the first {self._limit} bytes are kept here]\n".encode())
        self._room = max(0, self._room - len(chunk))

    def close(self) -> None:
        """Close both files."""
        os.close(self._own)
        self._shared.close()


class RotatedLog:
    """A log that several processes append to; whoever finds it longer than `limit` bytes renames it to `.1` (`.1` to `.2` …)."""

    def __init__(self, path: pathlib.Path, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._descriptor = self._open()

    def descriptor(self) -> int:
        """The file to append to now; where no new one can be made, the old one."""
        try:
            self._follow()
        except OSError as error:
            print(f"the log {self._path} is not rotated: {error.strerror}", file=sys.stderr)
        return self._descriptor

    def _follow(self) -> None:
        """Go on in a new file if another process began one, or if it is time for one."""
        try:
            current = self._path.stat()
        except FileNotFoundError:
            current = None
        mine = os.fstat(self._descriptor)
        if current is None or current.st_ino != mine.st_ino:
            self._reopen()
        elif mine.st_size >= self._limit:
            self._rotate(mine.st_ino)
            self._reopen()

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _open(self) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def _reopen(self) -> None:
        fresh = self._open()
        os.close(self._descriptor)
        self._descriptor = fresh

    def _rotate(self, inode: int) -> None:
        """Rename the log and its old copies, unless another process has done so since."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            if self._path.stat().st_ino != inode:
                return
            for number in range(_OLD_COPIES, 0, -1):
                source = self._path if number == 1 else self._numbered(number - 1)
                if source.exists():
                    source.replace(self._numbered(number))
        except FileNotFoundError:
            return
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _numbered(self, number: int) -> pathlib.Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _write(descriptor: int, chunk: bytes) -> None:
    while chunk:
        try:
            chunk = chunk[os.write(descriptor, chunk) :]
        except OSError as error:
            print(f"{len(chunk)} bytes of output dropped: {error.strerror}", file=sys.stderr)
            return
