"""Archives from outside: recognised by their content, refused whole when anything in them is hostile, unpacked all or nothing.

Refused are names that leave the tree, absolute names, links that lead out of it, devices, encrypted members, members that contradict each
other, and whatever exceeds the limits. Set-user-id bits are dropped. Members are written by this module, never by the archive library, so
nothing of an archive decides about a path or a mode but what was checked here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import pathlib
import posixpath
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from typing import IO, Final, Protocol

from conpaas.core import errors, file

INVALID_FORMAT: Final = "Invalid archive format"
ABSOLUTE_NAME: Final = "Absolute file names are not allowed in archive members"
_BLOCK: Final = 1 << 20
_ZIP_MAGIC: Final = b"PK"


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


def unpack(archive: pathlib.Path, target: pathlib.Path, limits: Limits = Limits()) -> None:
    """Unpack an archive as the directory `target`, replacing what was there; on any error `target` is as before.

    A crash leaves `target` old or new, and at most a directory beside it that the next call with this target removes. Raises what `check`
    raises, and StorageFull.
    """
    sweep(target)
    draft = pathlib.Path(tempfile.mkdtemp(prefix=_draft_prefix(target), dir=target.parent))
    try:
        with _reading(archive):
            for member, content in _members(archive, limits):
                _write(draft, member, content)
        draft.chmod(0o755)
        _replace(draft, target)
    finally:
        file.remove_tree(draft)


def sweep(target: pathlib.Path) -> None:
    """Remove what unpacking into `target` left beside it when it was cut off."""
    for left in target.parent.glob(f"{_draft_prefix(target)}*"):
        file.remove_tree(left)


def _draft_prefix(target: pathlib.Path) -> str:
    return f".{target.name}.unpacking-"


def _replace(draft: pathlib.Path, target: pathlib.Path) -> None:
    old = draft.with_name(draft.name + "-old")
    if target.is_symlink() or target.exists():
        target.rename(old)
    draft.rename(target)
    file.remove_tree(old)


@contextlib.contextmanager
def _reading(archive: pathlib.Path) -> Iterator[None]:
    """Turn what archive libraries raise for broken content into the classic text."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, NotImplementedError, UnicodeError, RuntimeError, ValueError) as error:
        raise errors.InvalidArgument(INVALID_FORMAT, hint=f"{archive.name} cannot be read: {error}") from error
    except OSError as error:
        if error.errno in {28, 122}:  # ENOSPC, EDQUOT
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
        magic = stream.read(2)
    if magic == _ZIP_MAGIC:
        yield from _zip_members(archive, guard)
    else:
        yield from _tar_members(archive, guard)


def _tar_members(archive: pathlib.Path, guard: _Guard) -> Iterator[tuple[Member, Readable | None]]:
    with tarfile.open(archive, "r:*") as packed:
        for info in packed:
            if info.issparse() or not (info.isreg() or info.isdir() or info.issym() or info.islnk()):
                raise errors.InvalidArgument(f"The archive member '{_shown(info.name)}' is neither a file, a directory nor a link.")
            kind = Kind.DIRECTORY if info.isdir() else Kind.SYMLINK if info.issym() else Kind.HARDLINK if info.islnk() else Kind.FILE
            member = guard.admit(info.name, kind, info.size, info.mode, info.linkname)
            if member is None:
                continue
            content = packed.extractfile(info) if kind is Kind.FILE else None
            yield member, guard.counted(content) if content else None


def _zip_members(archive: pathlib.Path, guard: _Guard) -> Iterator[tuple[Member, Readable | None]]:
    with zipfile.ZipFile(archive) as packed:
        guard.expect(len(packed.infolist()))
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


class _Guard:
    """Checks members in their order and counts what they unpack to."""

    def __init__(self, limits: Limits, packed_size: int) -> None:
        self.limits = limits
        self._packed = max(packed_size, 1)
        self._bytes = 0
        self._count = 0
        self._kinds: dict[str, Kind] = {}
        self._links: dict[str, str] = {}

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
        base = posixpath.dirname(path) if kind is Kind.SYMLINK else ""
        led = posixpath.normpath(posixpath.join(base, link))
        if not link or "\0" in link or link.startswith("/") or "\\" in link or led == ".." or led.startswith("../"):
            raise errors.InvalidArgument(f"The link '{_shown(path)}' in the archive leads out of its tree.")
        if kind is Kind.HARDLINK:
            if self._kinds.get(led) is not Kind.FILE:
                raise errors.InvalidArgument(f"The link '{_shown(path)}' in the archive leads to no file before it.")
            return led
        # What a link's path says is only true while no part of it is a link itself.
        trail = ""
        for part in led.split("/")[:-1]:
            trail = posixpath.join(trail, part)
            if self._kinds.get(trail) is Kind.SYMLINK:
                raise errors.InvalidArgument(f"The link '{_shown(path)}' in the archive leads through another link.")
        self._links[path] = led
        return link

    def _room(self, size: int) -> None:
        if size < 0 or self._bytes + size > self.limits.max_bytes:
            raise errors.TooLarge(f"The archive unpacks to more than {self.limits.max_bytes} bytes.")

    def counted(self, content: IO[bytes]) -> _Counted:
        return _Counted(content, self)

    def count(self, amount: int) -> None:
        self._bytes += amount
        if self._bytes > self.limits.max_bytes:
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
        shutil.copyfile(root / member.target, place, follow_symlinks=False)
        place.chmod(stat.S_IMODE((root / member.target).stat().st_mode))
    elif content is not None:
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o755 if member.executable else 0o644)
        with os.fdopen(descriptor, "wb") as stream:
            while block := content.read(_BLOCK):
                stream.write(block)


def _shown(name: str) -> str:
    return name.encode(errors="replace").decode()[:200].replace("\n", "\\n")
