"""Files that must never be seen half-written, and files too large to be read whole."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import shutil
import stat
import tempfile
from typing import Any

from conpaas.core import errors


def write_atomically(path: pathlib.Path, data: str | bytes, mode: int = 0o644) -> None:
    """Replaces `path` by `data` in one instant: a crash leaves the old or the new content, on disk, never a part.

    A symbolic link at `path` is replaced, not followed. Raises OSError when the directory cannot be written.
    """
    content = data.encode() if isinstance(data, str) else data
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    draft = pathlib.Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(descriptor, mode)
            stream.write(content)
            stream.flush()
            os.fsync(descriptor)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: pathlib.Path) -> None:
    """Makes the names in a directory (after a rename) survive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclasses.dataclass(frozen=True)
class Excerpt:
    """Part of a file: its text, the offset after it (in bytes) and the size of the whole file (in bytes)."""

    text: str
    offset: int
    size: int


def read_bounded(path: pathlib.Path, *, offset: int | None = None, limit: int = 4_000_000, follow: bool = True) -> Excerpt:
    """At most `limit` bytes of a file from `offset`; without an offset, its last `limit` bytes.

    An offset beyond the end (the file was rotated) starts anew at 0. Bytes that are not UTF-8 come as U+FFFD; a
    character cut by the limit is left for the next call. Raises OSError when the file cannot be read, or is none (a pipe would never end),
    and without `follow` also when it is a symbolic link.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    with open(os.open(path, flags), "rb") as stream:  # noqa: PTH123 - pathlib cannot open without waiting
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        size = found.st_size
        start = max(0, size - limit) if offset is None else offset if offset <= size else 0
        stream.seek(start)
        content = stream.read(limit)
    end = start + len(content)
    if offset is None and start:
        content = content[_leading_continuation(content) :]
    if end < size:
        kept = len(content) - _cut_character(content)
        end -= len(content) - kept
        content = content[:kept]
    return Excerpt(content.decode("utf-8", errors="replace"), end, size)


def tail(path: pathlib.Path, limit: int = 64_000) -> str:
    """The last `limit` bytes of a file as text; an empty text when there is no such file."""
    try:
        return read_bounded(path, limit=limit).text
    except FileNotFoundError:
        return ""


class Notes:
    """A few values that a daemon remembers across restarts, in one small JSON file; every change is on disk at once."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._values: dict[str, Any] = {}
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except ValueError as error:
            raise errors.ConfigurationError(f"The notes in {path} are damaged: {error}", hint="remove the file to start afresh") from error
        if isinstance(values, dict):
            self._values = values

    def get(self, name: str, default: Any = None) -> Any:
        return self._values.get(name, default)

    def set(self, **values: Any) -> None:
        """Remembers the values (JSON); None forgets a name."""
        changed = {**self._values, **values}
        changed = {name: value for name, value in changed.items() if value is not None}
        if changed == self._values:
            return
        write_atomically(self.path, json.dumps(changed, indent=1, sort_keys=True), mode=0o600)
        self._values = changed


def sha256(path: pathlib.Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def free_bytes(path: pathlib.Path) -> int:
    """Room left for an ordinary user on the disk that holds `path`."""
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize


def remove_tree(path: pathlib.Path) -> None:
    """Removes a directory tree (or a file) including members whose directories are write-protected. Idempotent."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    path.chmod(0o700)
    for parent, names, _ in os.walk(path):
        for directory in (pathlib.Path(parent) / name for name in names):
            if not directory.is_symlink():
                with contextlib.suppress(FileNotFoundError):
                    directory.chmod(0o700)
    shutil.rmtree(path)


def _leading_continuation(content: bytes) -> int:
    """How many bytes at the start belong to a character that began before."""
    return next((index for index, byte in enumerate(content[:3]) if byte & 0xC0 != 0x80), 0)


def _cut_character(content: bytes) -> int:
    """How many bytes at the end are the beginning of a character that goes on after."""
    for back in range(1, min(3, len(content)) + 1):
        byte = content[-back]
        if byte & 0xC0 == 0x80:
            continue
        length = 1 if byte < 0x80 else 2 if byte >> 5 == 0b110 else 3 if byte >> 4 == 0b1110 else 4 if byte >> 3 == 0b11110 else 1
        return back if back < length and back < len(content) else 0
    return 0
