"""Starting a daemon with exactly the environment it was given, whatever text that holds, and without showing it to other users."""

from __future__ import annotations

import grp
import os
import pathlib
import pwd
import shlex
import stat
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
    """Make a user the owner of a file, where the caller may. A link is not followed: somebody else may have put it there."""
    if user is not None and os.geteuid() == 0:
        owner = pwd.getpwnam(user)
        os.chown(path, owner.pw_uid, grp.getgrnam(user).gr_gid, follow_symlinks=False)


def begin_log(path: pathlib.Path, user: str | None) -> None:
    """Have a log that `user` writes to. Its directory may be that user's, so only a file of this one name is kept: what else is in its
    place is removed, lest it be a way to a file of the caller's."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        found = None
    if found is not None and (not stat.S_ISREG(found.st_mode) or found.st_nlink > 1):
        path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644))
    give(path, user)


def as_user(argv: Sequence[str], user: str | None) -> list[str]:
    """The command that runs `argv` as another user, where the caller may."""
    return ["chpst", "-u", user, *argv] if user is not None and os.geteuid() == 0 else list(argv)
