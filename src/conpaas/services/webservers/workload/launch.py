"""Starting a daemon with exactly the environment it was given, whatever text that holds, and without showing it to other users."""

from __future__ import annotations

import os
import pathlib
import shlex
import shutil
from collections.abc import Mapping, Sequence
from typing import Final

from conpaas.core import file

PATH: Final = "/usr/local/bin:/usr/bin:/bin"
BASE: Final[Mapping[str, str]] = {"PATH": PATH, "LANG": "C.UTF-8"}
"""What every daemon finds in its environment unless it is given something else."""


def write(script: pathlib.Path, environment: Mapping[str, str], argv: Sequence[str], user: str | None) -> tuple[str, ...]:
    """Write a script that runs `argv` with this environment (its names are checked); returns the command that runs the script.

    The values, which may be secrets, are in the script only, which nobody but `user` (default: who calls) may read.
    """
    lines = ["#!/bin/sh"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in sorted(environment.items())]
    lines.append("exec " + shlex.join(argv))
    file.write_atomically(script, "\n".join(lines) + "\n", mode=0o700)
    give(script, user)
    base = [f"{name}={value}" for name, value in BASE.items()]
    return ("env", "-i", *base, "/bin/sh", str(script))


def give(path: pathlib.Path, user: str | None) -> None:
    """Make a user the owner of a file, where the caller may."""
    if user is not None and os.geteuid() == 0:
        shutil.chown(path, user, user)


def as_user(argv: Sequence[str], user: str | None) -> list[str]:
    """The command that runs `argv` as another user, where the caller may."""
    return ["chpst", "-u", user, *argv] if user is not None and os.geteuid() == 0 else list(argv)
