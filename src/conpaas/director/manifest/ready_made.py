"""Ready-made applications: manifests whose archives the operator has prepared on the Director's machine.

A file of them is named in a manifest as `ready-made:NAME`, by whoever likes to; it is looked for in one directory only.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

from conpaas.core import errors, params

SCHEME: Final = "ready-made:"
DIRECTORY: Final = "ready-made"
"""Below STATE_DIR: where the files are."""
PACKAGE: Final = "conpaas.director.ready_made"
_DESCRIPTOR: Final = "application.json"
_NAME: Final = re.compile(r"[a-z0-9-]{1,64}\Z")
_SUFFIXES: Final = (".tar.gz", ".sql")


@dataclasses.dataclass(frozen=True)
class ReadyMade:
    """One application. `archive` is made of `root` in the unpacked Debian `packages`, without `leave_out`, with the folder's `site`.

    `then` says what a person does when it runs. `dump` is a file of SQL, made of `dump_parts` in the packages, if the database needs one.
    """

    name: str
    label: str
    description: str
    then: str
    packages: tuple[str, ...]
    archive: str
    root: str
    manifest: Mapping[str, Any]
    leave_out: tuple[str, ...] = ()
    dump: str = ""
    dump_parts: tuple[str, ...] = ()
    dump_database: str = ""

    def files(self, directory: pathlib.Path) -> list[pathlib.Path]:
        """What has to be there before it can be deployed."""
        return [directory / name for name in (self.archive, self.dump) if name]

    def missing(self, directory: pathlib.Path) -> str:
        """Why it cannot be deployed, and what to do about it; empty if it can."""
        if all(path.is_file() for path in self.files(directory)):
            return ""
        return f"{self.label} is not prepared on this Director; its operator does that with `cpsdirector ready-made prepare {self.name}`."


def catalogue() -> list[ReadyMade]:
    """All ready-made applications that this version knows, by label."""
    found = []
    for folder in resources.files(PACKAGE).iterdir():
        descriptor = folder / _DESCRIPTOR
        if descriptor.is_file():
            raw = json.loads(descriptor.read_text(encoding="utf-8"))
            lists = {name: tuple(raw[name]) for name in ("packages", "leave_out", "dump_parts") if name in raw}
            found.append(ReadyMade(**{**raw, **lists, "name": folder.name}))
    return sorted(found, key=lambda one: one.label)


def find(name: str) -> ReadyMade:
    """One application by name. Raises NotFound."""
    for one in catalogue():
        if one.name == name:
            return one
    known = ", ".join(one.name for one in catalogue())
    raise errors.NotFound(f"There is no ready-made application {params.shown(name)}.", hint=f"There are: {known}.")


def file_of(directory: pathlib.Path | None, url: str) -> pathlib.Path:
    """The file that a `ready-made:` URL names. Raises OperationFailed if it is not prepared."""
    name = url.removeprefix(SCHEME)
    if directory is not None and _NAME.match(name):
        for suffix in _SUFFIXES:
            path = directory / f"{name}{suffix}"
            if path.is_file():
                return path
    raise errors.OperationFailed(
        f"The ready-made file {params.shown(name)} is not on this Director.",
        hint="Its operator prepares it: `cpsdirector ready-made prepare`, with the application's name.",
    )
