"""Run-time files of ConPaaS (templates, boot scripts) and the identity of the code itself.

An installed copy carries `config/`, `scripts/` … in `conpaas/_data`; a source tree has them beside `src/`. The code
that a VM runs is named by one number, the SHA-256 of the archive `ConPaaS.tar.gz` that holds it: the archive is
deterministic (sorted names, fixed owners, times and modes), so an installed package and the archive a Director
offers agree on it.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import os
import pathlib
import tarfile
import threading
from collections.abc import Iterator

import conpaas
from conpaas.core import errors, file

ARCHIVE_TOP = "ConPaaS"
TREES = ("config", "scripts", "sbin")

_PACKAGE = pathlib.Path(conpaas.__file__).resolve().parent
_SKIPPED_NAMES = frozenset({"__pycache__", "_data", "tests"})
_EPOCH = 315_532_800

_guard = threading.Lock()
_known: tuple[int, str] | None = None


def root() -> pathlib.Path:
    """The directory that holds `config/` and `scripts/`."""
    installed = _PACKAGE / "_data"
    return installed if installed.is_dir() else _PACKAGE.parent.parent


def find(name: str) -> pathlib.Path:
    """The path of a run-time file, such as `config/agent/default-agent.cfg`; raises NotFound when there is none."""
    if pathlib.PurePosixPath(name).is_absolute() or ".." in pathlib.PurePosixPath(name).parts:
        raise errors.InvalidArgument(f"{name!r} is not the name of a run-time file")
    path = root() / name
    if not path.is_file():
        raise errors.NotFound(f"The file {name} is missing from this installation", hint="install ConPaaS again")
    return path


def read(name: str) -> str:
    """The text of a run-time file."""
    return find(name).read_text(encoding="utf-8")


def find_in_package(package: str, name: str) -> pathlib.Path:
    """The path of a file that lies in a Python package, such as a service's agent configuration; NotFound if absent."""
    spec = importlib.util.find_spec(package)
    for place in spec.submodule_search_locations or () if spec else ():
        path = pathlib.Path(place) / name
        if path.is_file():
            return path
    raise errors.NotFound(f"The file {name} is missing from the package {package}")


def code_sha256() -> str:
    """The SHA-256 (hex) that names the installed code. Computed anew only when a file's time, size or number changed."""
    global _known
    members = list(_members())
    stamp = _stamp(members)
    with _guard:
        if _known is None or _known[0] != stamp:
            _known = (stamp, hashlib.sha256(_archive(members)).hexdigest())
        return _known[1]


def code_tarball(path: pathlib.Path) -> str:
    """Writes the installed code to `path` as `ConPaaS.tar.gz` and returns its SHA-256, equal to `code_sha256()`."""
    content = _archive(list(_members()))
    file.write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def _members() -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Each file of the code: its name below `ConPaaS/`, and where it is."""
    yield from _files(_PACKAGE, "src/conpaas")
    for tree in TREES:
        directory = root() / tree
        if directory.is_dir():
            yield from _files(directory, tree)


def _files(directory: pathlib.Path, name: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    with os.scandir(directory) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.name.startswith(".") or entry.name in _SKIPPED_NAMES or entry.name.endswith((".pyc", "~")):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(pathlib.Path(entry.path), f"{name}/{entry.name}")
        elif entry.is_file(follow_symlinks=False):
            yield f"{name}/{entry.name}", entry


def _stamp(members: list[tuple[str, os.DirEntry[str]]]) -> int:
    facts = ((name, entry.stat(follow_symlinks=False)) for name, entry in members)
    return hash(tuple((name, found.st_mtime_ns, found.st_size, found.st_ino) for name, found in facts))


def _archive(members: list[tuple[str, os.DirEntry[str]]]) -> bytes:
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, compresslevel=6, mtime=_EPOCH) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, entry in members:
            content = pathlib.Path(entry.path).read_bytes()
            member = tarfile.TarInfo(f"{ARCHIVE_TOP}/{name}")
            member.size = len(content)
            member.mtime = _EPOCH
            member.mode = 0o755 if content.startswith(b"#!") else 0o644
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()
