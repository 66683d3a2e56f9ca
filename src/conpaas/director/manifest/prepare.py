"""Preparing a ready-made application: its Debian packages are fetched and unpacked (not installed, and no root is needed), and packed anew.

Links among the packages are replaced by what they lead to; ours are the files that say where the settings come from.
"""

from __future__ import annotations

import importlib.resources
import io
import os
import pathlib
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from importlib.resources import abc
from typing import Final

from conpaas.core import errors
from conpaas.director.manifest import ready_made

_LINKS: Final = 10
"""Links in a row that are followed."""
_TIMEOUT: Final = 900.0
_ENGINE: Final = re.compile(r"\bENGINE *= *MyISAM\b", re.IGNORECASE)
_Tell = Callable[[str], None]


def prepare(wanted: ready_made.ReadyMade, directory: pathlib.Path, tell: _Tell) -> list[pathlib.Path]:
    """Make the files of an application in `directory`; each is complete or not there. Raises OperationFailed."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".preparing-") as scratch:
        packages, unpacked = pathlib.Path(scratch, "packages"), pathlib.Path(scratch, "unpacked")
        packages.mkdir()
        unpacked.mkdir()
        tell(f"Downloading {' '.join(wanted.packages)}")
        _run(["apt-get", "-qq", "download", *wanted.packages], packages, "If the lists of packages are old: apt-get update")
        for package in sorted(packages.glob("*.deb")):
            _run(["dpkg-deb", "--extract", str(package), str(unpacked)], packages, "Run the same command again.")
        made = pathlib.Path(scratch, "archive")
        tell(f"Packing {wanted.archive}")
        _pack(wanted, unpacked, made)
        finished = [(made, wanted.archive)]
        if wanted.dump:
            finished.append((_dump(wanted, unpacked, pathlib.Path(scratch, "dump")), wanted.dump))
        for path, name in finished:
            path.replace(directory / name)
    return wanted.files(directory)


def _run(command: Sequence[str], where: pathlib.Path, hint: str) -> None:
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise errors.OperationFailed(f"`{command[0]}` cannot be run: {error}.", hint="This needs a Debian machine.") from error
    if done.returncode != 0:
        said = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("E: ")), done.stderr.strip()[-300:])
        raise errors.OperationFailed(f"`{' '.join(command[:3])}` failed: {said}", hint=hint)


def _pack(wanted: ready_made.ReadyMade, unpacked: pathlib.Path, target: pathlib.Path) -> None:
    with tarfile.open(target, "w:gz", compresslevel=6) as archive:
        _add(archive, unpacked, unpacked / wanted.root, pathlib.PurePosixPath(), frozenset(wanted.leave_out), 0)
        _add_ours(archive, importlib.resources.files(ready_made.PACKAGE) / wanted.name / "site", "")


def _add(
    archive: tarfile.TarFile, root: pathlib.Path, source: pathlib.Path, inside: pathlib.PurePosixPath, but: frozenset[str], links: int
) -> None:
    """Add what is in a directory of the unpacked packages."""
    for path in sorted(source.iterdir()):
        name = inside / path.name
        if str(name) in but:
            continue
        found = _followed(root, path)
        if found is None:
            continue
        if found.is_dir():
            through = links + path.is_symlink()
            if through <= _LINKS:
                _add(archive, root, found, name, but, through)
        elif found.is_file():
            _add_file(archive, str(name), found.read_bytes())


def _followed(root: pathlib.Path, path: pathlib.Path) -> pathlib.Path | None:
    """What a path is, after its links, as if the packages were installed at `root`; None if it is not there, or elsewhere."""
    for _ in range(_LINKS):
        if not path.is_symlink():
            return path if path.exists() else None
        link = path.readlink()
        path = root / link.relative_to("/") if link.is_absolute() else pathlib.Path(os.path.normpath(path.parent / link))
        if not path.is_relative_to(root):
            return None
    return None


def _add_ours(archive: tarfile.TarFile, folder: abc.Traversable, inside: str) -> None:
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        if entry.is_dir():
            _add_ours(archive, entry, f"{inside}{entry.name}/")
        else:
            _add_file(archive, f"{inside}{entry.name}", entry.read_bytes())


def _add_file(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    archive.addfile(member, io.BytesIO(content))


def _dump(wanted: ready_made.ReadyMade, unpacked: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """The SQL that makes the tables, in a database of the name that the manifest binds. Clusters have one engine only."""
    parts = [_ENGINE.sub("ENGINE = InnoDB", (unpacked / part).read_text(encoding="utf-8")) for part in wanted.dump_parts]
    database = f"CREATE DATABASE IF NOT EXISTS `{wanted.dump_database}`;\nUSE `{wanted.dump_database}`;\n"
    target.write_text(database + "\n".join(parts), encoding="utf-8")
    return target
