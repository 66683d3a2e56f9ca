"""Archives from outside: recognised by their content, refused whole when anything in them is hostile, unpacked all or nothing.

Refused are names that leave the tree, absolute names, links that lead out of it, devices, encrypted members, members that contradict each
other, and whatever exceeds the limits. Set-user-id bits are dropped. Members are written by this module, never by the archive library, so
nothing of an archive decides about a path or a mode but what was checked here.
"""

from __future__ import annotations

import bz2
import contextlib
import dataclasses
import enum
import errno
import gzip
import lzma
import os
import pathlib
import posixpath
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from typing import IO, Final, Protocol, cast

from conpaas.core import errors, file

INVALID_FORMAT: Final = "Invalid archive format"
ABSOLUTE_NAME: Final = "Absolute file names are not allowed in archive members"
_BLOCK: Final = 1 << 20
_LONGEST_READ: Final = 4 << 20
"""Bytes. No header of a tar archive that means well is longer; the archive library reads a header in one piece."""
_ZIP_MAGIC: Final = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_ZIP_ENTRY_MAGIC: Final = b"PK\1\2"
_ZIP_ENTRY: Final = 46
"""Bytes of a member in a zip's directory, without its name."""
_HEADER: Final = 4096
"""Bytes that a member's own description may take beyond the limit."""
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2


@dataclasses.dataclass(frozen=True)
class Limits:
    """`max_bytes`: unpacked; `max_ratio`: unpacked to packed, once past `ratio_floor` bytes; `max_name`: bytes of a member's path."""

    max_bytes: int = 1 << 30
    max_members: int = 50_000
    max_ratio: float = 200.0
    ratio_floor: int = 64 << 20
    max_name: int = 1024
    max_depth: int = 64


class Readable(Protocol):
    def read(self, size: int = ..., /) -> bytes:
        """At most `size` bytes, none at the end."""


class Kind(enum.Enum):
    FILE = enum.auto()
    DIRECTORY = enum.auto()
    SYMLINK = enum.auto()
    HARDLINK = enum.auto()


@dataclasses.dataclass(frozen=True)
class Member:
    """A checked member: `path` is relative, normalised and inside the tree; so is where `target` leads."""

    path: str
    kind: Kind
    size: int = 0
    executable: bool = False
    target: str = ""


def check(archive: pathlib.Path, limits: Limits = Limits()) -> list[Member]:
    """Read an archive to its end without writing anything, and list what is in it.

    Raises InvalidArgument for what is not an archive or hostile, TooLarge for what exceeds the limits.
    """
    with _reading(archive):
        found = []
        for member, content in _members(archive, limits):
            if content is not None:
                _drain(content)
            found.append(member)
        return found


def unpack(archive: pathlib.Path, target: pathlib.Path, limits: Limits = Limits(), *, reserve: int = 0) -> None:
    """Unpack an archive as the directory `target`, replacing what was there; on any error `target` is as before.

    A crash leaves `target` old or new, and at most a directory beside it that the next call with this target removes. Raises what `check`
    raises, and StorageFull, the latter also rather than leave less than `reserve` bytes of the disk free for others.
    """
    sweep(target)
    draft = pathlib.Path(tempfile.mkdtemp(prefix=_draft_prefix(target), dir=target.parent))
    try:
        with _reading(archive):
            for member, content in _members(archive, limits):
                if reserve:
                    _check_room(draft, member.size + reserve)
                _write(draft, member, content)
        draft.chmod(0o755)
        _replace(draft, target)
    finally:
        file.remove_tree(draft)


def _check_room(directory: pathlib.Path, needed: int) -> None:
    disk = os.statvfs(directory)
    if disk.f_bavail * disk.f_frsize < needed:
        raise errors.StorageFull("There is no room on the disk to unpack the archive.")


def sweep(target: pathlib.Path) -> None:
    """Remove what unpacking into `target` left beside it when it was cut off."""
    old = _old(target)
    if old.is_symlink() or old.exists():
        if target.is_symlink() or target.exists():
            file.remove_tree(old)
        else:
            old.rename(target)
    for left in target.parent.glob(f"{_draft_prefix(target)}*"):
        file.remove_tree(left)


def _draft_prefix(target: pathlib.Path) -> str:
    return f".{target.name}.unpacking-"


def _replace(draft: pathlib.Path, target: pathlib.Path) -> None:
    """Put the draft in the place of `target`, and what was there in the place of the draft."""
    if not target.is_symlink() and not target.exists():
        draft.rename(target)
        return
    if not _exchange(draft, target):
        # A file system without exchange: for an instant there is no target; `sweep` puts the old one back after a crash in it.
        old = _old(target)
        file.remove_tree(old)
        target.rename(old)
        draft.rename(target)
        file.remove_tree(old)


def _old(target: pathlib.Path) -> pathlib.Path:
    return target.with_name(f".{target.name}.replaced")


def _exchange(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Swap two names in one instant; False where the file system cannot."""
    import ctypes  # only here: it costs an agent memory that most never need

    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}:
        return False
    raise OSError(code, os.strerror(code), str(other))


@contextlib.contextmanager
def _reading(archive: pathlib.Path) -> Iterator[None]:
    """Turn what archive libraries raise for broken content into the classic text."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, NotImplementedError, UnicodeError, RuntimeError, ValueError) as error:
        raise errors.InvalidArgument(INVALID_FORMAT, hint=f"{archive.name} cannot be read: {error}") from error
    except OSError as error:
        if error.errno in errors.StorageFull.CODES:
            raise errors.StorageFull("There is no room on the disk to unpack the archive.") from error
        if isinstance(error, FileNotFoundError | PermissionError) and error.filename == str(archive):
            raise
        raise errors.InvalidArgument(INVALID_FORMAT, hint=f"it cannot be read: {error}") from error
    except Exception as error:
        if type(error).__module__ in {"zlib", "lzma", "_lzma", "bz2"}:
            raise errors.InvalidArgument(INVALID_FORMAT, hint="its compressed content is damaged") from error
        raise


def _members(archive: pathlib.Path, limits: Limits) -> Iterator[tuple[Member, Readable | None]]:
    """Every member with its content, checked one by one and against those before it."""
    guard = _Guard(limits, archive.stat().st_size)
    with archive.open("rb") as stream:
        magic = stream.read(4)
    if magic in _ZIP_MAGIC:
        yield from _zip_members(archive, guard)
    else:
        yield from _tar_members(archive, guard)


def _tar_members(archive: pathlib.Path, guard: _Guard) -> Iterator[tuple[Member, Readable | None]]:
    with _decompressed(archive) as source:
        stream = _Stream(source, guard)
        yield from _tar_stream_members(stream, guard)
        _drain(stream)  # up to the checksum at the end of compressed content


def _tar_stream_members(stream: _Stream, guard: _Guard) -> Iterator[tuple[Member, Readable | None]]:
    with tarfile.open(fileobj=stream, mode="r:") as packed:  # type: ignore[call-overload]
        for info in packed:
            if info.issparse() or not (info.isreg() or info.isdir() or info.issym() or info.islnk()):
                raise errors.InvalidArgument(f"The archive member '{_shown(info.name)}' is neither a file, a directory nor a link.")
            kind = Kind.DIRECTORY if info.isdir() else Kind.SYMLINK if info.issym() else Kind.HARDLINK if info.islnk() else Kind.FILE
            member = guard.admit(info.name, kind, info.size, info.mode, info.linkname)
            if member is None:
                continue
            content = packed.extractfile(info) if kind is Kind.FILE else None
            yield member, content


def _decompressed(archive: pathlib.Path) -> IO[bytes]:
    with archive.open("rb") as stream:
        magic = stream.read(6)
    if magic.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.open(archive))
    if magic.startswith(b"BZh"):
        return cast("IO[bytes]", bz2.open(archive))
    if magic.startswith(b"\xfd7zXZ\0"):
        return cast("IO[bytes]", lzma.open(archive))
    return archive.open("rb")


class _Stream:
    """What the tar library reads: forward only, every byte counted, nothing huge in one piece."""

    def __init__(self, source: IO[bytes], guard: _Guard) -> None:
        self._source = source
        self._guard = guard
        self._position = 0
        self._last = b""
        self._again = b""

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        """Forward, or one byte back: the library looks at a member's last byte again."""
        if position == self._position - 1 and self._last and not self._again:
            self._again, self._position = self._last, position
        elif position < self._position:
            raise tarfile.ReadError("the archive refers back")
        while self._position < position and self.read(min(_BLOCK, position - self._position)):
            continue
        return self._position

    def read(self, size: int = _BLOCK) -> bytes:
        if not 0 <= size <= _LONGEST_READ:
            raise errors.TooLarge(f"The archive has a header of more than {_LONGEST_READ} bytes.")
        block = self._again + self._source.read(size - len(self._again)) if size else b""
        self._guard.count(len(block) - len(self._again))
        self._position += len(block)
        self._last, self._again = (block[-1:], b"") if block else (self._last, self._again)
        return block


def _zip_members(archive: pathlib.Path, guard: _Guard) -> Iterator[tuple[Member, Readable | None]]:
    with archive.open("rb") as stream, _listed(stream, guard) as packed:
        for info in packed.infolist():
            if info.flag_bits & 0x1:
                raise errors.InvalidArgument(f"The archive member '{_shown(info.filename)}' is encrypted.")
            mode = info.external_attr >> 16
            kind = Kind.DIRECTORY if info.is_dir() else Kind.SYMLINK if stat.S_ISLNK(mode) else Kind.FILE
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                raise errors.InvalidArgument(f"The archive member '{_shown(info.filename)}' is neither a file, a directory nor a link.")
            link = ""
            if kind is Kind.SYMLINK:
                if info.file_size > guard.limits.max_name:
                    raise errors.InvalidArgument(f"The link '{_shown(info.filename)}' in the archive is too long.")
                link = packed.read(info).decode()
            member = guard.admit(info.filename, kind, info.file_size, mode, link)
            if member is not None:
                yield member, guard.counted(packed.open(info)) if kind is Kind.FILE else None


@contextlib.contextmanager
def _listed(stream: IO[bytes], guard: _Guard) -> Iterator[zipfile.ZipFile]:
    """A zip whose members are listed. The library makes an object of every member first, so they are counted before it sees them."""
    source = _Directory(stream, guard)
    with zipfile.ZipFile(cast("IO[bytes]", source)) as packed:
        source.listed = True
        yield packed


class _Directory:
    """What the zip library reads: until it has listed the members, no piece may hold or claim more of them than allowed."""

    def __init__(self, source: IO[bytes], guard: _Guard) -> None:
        self._source = source
        self._guard = guard
        self.listed = False
        self.seek, self.tell = source.seek, source.tell

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self.listed:
            return self._source.read(size)
        longest = self._guard.limits.max_members * (_ZIP_ENTRY + 2 * self._guard.limits.max_name)
        block = self._source.read(size if 0 <= size <= longest else longest + 1)
        if len(block) > longest:
            raise errors.TooLarge(f"The archive has a directory of more than {longest} bytes.")
        self._guard.expect(block.count(_ZIP_ENTRY_MAGIC))
        return block


class _Guard:
    """Checks members in their order and counts what they unpack to."""

    def __init__(self, limits: Limits, packed_size: int) -> None:
        self.limits = limits
        self._packed = max(packed_size, 1)
        self._promised = 0
        self._bytes = 0
        self._count = 0
        self._kinds: dict[str, Kind] = {}

    def expect(self, members: int) -> None:
        if members > self.limits.max_members:
            raise errors.TooLarge(f"The archive has more than {self.limits.max_members} members.")

    def admit(self, name: str, kind: Kind, size: int, mode: int, link: str) -> Member | None:
        """The checked member; None for the archive's own root."""
        self._count += 1
        self.expect(self._count)
        path = self._path(name)
        if path == ".":
            if kind is not Kind.DIRECTORY:
                raise errors.InvalidArgument(f"The archive member '{_shown(name)}' would replace the whole tree.")
            return None
        self._place(path, kind)
        if kind is Kind.FILE:
            self._room(size)
        target = self._target(path, kind, link) if kind in (Kind.SYMLINK, Kind.HARDLINK) else ""
        return Member(path, kind, size if kind is Kind.FILE else 0, bool(mode & 0o111), target)

    def _path(self, name: str) -> str:
        if not name or "\0" in name or len(name.encode(errors="surrogateescape")) > self.limits.max_name:
            raise errors.InvalidArgument(f"The archive has a member with an impossible name: '{_shown(name)}'.")
        if name.startswith(("/", "\\")) or (len(name) > 1 and name[1] == ":" and name[0].isalpha()):
            raise errors.InvalidArgument(ABSOLUTE_NAME)
        parts = name.split("/")
        if ".." in parts or "\\" in name:
            raise errors.InvalidArgument(ABSOLUTE_NAME, hint=f"'{_shown(name)}' may lead out of the archive's tree")
        if len(parts) > self.limits.max_depth or any(len(part.encode(errors="surrogateescape")) > 255 for part in parts):
            raise errors.InvalidArgument(f"The archive has a member with an impossible name: '{_shown(name)}'.")
        return posixpath.normpath(name)

    def _place(self, path: str, kind: Kind) -> None:
        """Two members may not claim one path (directories may), and nothing may lie below a file or a link."""
        before = self._kinds.get(path)
        if before is not None and not (before is Kind.DIRECTORY and kind is Kind.DIRECTORY):
            raise errors.InvalidArgument(f"The archive has two members with the name '{_shown(path)}'.")
        parent = posixpath.dirname(path)
        while parent:
            known = self._kinds.get(parent)
            if known not in (None, Kind.DIRECTORY):
                raise errors.InvalidArgument(f"The archive member '{_shown(path)}' lies below '{_shown(parent)}', which is no directory.")
            if known is not None:
                break
            self._kinds[parent] = Kind.DIRECTORY
            parent = posixpath.dirname(parent)
        self._kinds[path] = kind

    def _target(self, path: str, kind: Kind, link: str) -> str:
        """Where a link leads. A symbolic link may climb only at its beginning: then it starts from a real directory of the tree and
        descends from there, through other links perhaps, of which the same is true; so no chain of them leaves the tree."""
        base = posixpath.dirname(path) if kind is Kind.SYMLINK else ""
        led = posixpath.normpath(posixpath.join(base, link))
        parts = [part for part in link.split("/") if part not in ("", ".")]
        climbs_late = ".." in parts[next((index for index, part in enumerate(parts) if part != ".."), len(parts)) :]
        if not link or "\0" in link or link.startswith("/") or "\\" in link or climbs_late or led == ".." or led.startswith("../"):
            raise errors.InvalidArgument(f"The link '{_shown(path)}' in the archive leads out of its tree.")
        if len(link.encode(errors="surrogateescape")) > self.limits.max_name:
            raise errors.InvalidArgument(f"The link '{_shown(path)}' in the archive is too long.")
        if kind is Kind.SYMLINK:
            return link
        if self._kinds.get(led) is not Kind.FILE:
            raise errors.InvalidArgument(f"The link '{_shown(path)}' in the archive leads to no file before it.")
        return led

    def _room(self, size: int) -> None:
        self._promised += size
        if size < 0 or self._promised > self.limits.max_bytes:
            raise errors.TooLarge(f"The archive unpacks to more than {self.limits.max_bytes} bytes.")

    def counted(self, content: IO[bytes]) -> _Counted:
        return _Counted(content, self)

    def count(self, amount: int) -> None:
        self._bytes += amount
        if self._bytes > self.limits.max_bytes + self._count * _HEADER:
            raise errors.TooLarge(f"The archive unpacks to more than {self.limits.max_bytes} bytes.")
        if self._bytes > self.limits.ratio_floor and self._bytes > self._packed * self.limits.max_ratio:
            raise errors.TooLarge(f"The archive unpacks to more than {self.limits.max_ratio:g} times its size.")


class _Counted:
    """A member's content that counts what is really read, whatever its header claims."""

    def __init__(self, content: IO[bytes], guard: _Guard) -> None:
        self._content = content
        self._guard = guard

    def read(self, size: int = _BLOCK) -> bytes:
        block = self._content.read(size)
        self._guard.count(len(block))
        return block


def _drain(content: Readable) -> None:
    while content.read(_BLOCK):
        continue


def _write(root: pathlib.Path, member: Member, content: Readable | None) -> None:
    place = root / member.path
    if member.kind is Kind.DIRECTORY:
        place.mkdir(parents=True, exist_ok=True)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if member.kind is Kind.SYMLINK:
        place.symlink_to(member.target)
    elif member.kind is Kind.HARDLINK:
        os.link(root / member.target, place, follow_symlinks=False)
    elif content is not None:
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o755 if member.executable else 0o644)
        with os.fdopen(descriptor, "wb") as stream:
            while block := content.read(_BLOCK):
                stream.write(block)


def _shown(name: str) -> str:
    return name.encode(errors="replace").decode()[:200].replace("\n", "\\n")
