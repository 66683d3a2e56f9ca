"""The user that runs the database server of a node: not root, wherever the machine lets another one reach the data."""

from __future__ import annotations

import functools
import logging
import os
import pathlib
import pwd
import subprocess
from typing import Final

from conpaas.core import config, paths

log: Final = logging.getLogger(__name__)


def choose(places: paths.Paths, configuration: config.Config, disk: pathlib.Path | None = None) -> str | None:
    """`MYSQL_USER`, when the agent is root and that user can go down to the node's directories and disk; None: the agent's own user."""
    if os.geteuid() != 0:
        return None
    name = configuration.get("mysql", "MYSQL_USER", "mysql")
    reason = _why_not(name, places.lib, (places.etc, places.run, places.log_dir, *([disk.parent] if disk else [])))
    if reason:
        log.warning("the database server runs as root: %s", reason)
        return None
    return name


@functools.cache
def _why_not(name: str, library: pathlib.Path, others: tuple[pathlib.Path, ...]) -> str:
    """Why a user cannot run the server; empty if it can. The kernel is asked, as permissions have more parts than modes."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return f"there is no user {name}"
    # Others may pass through the agent's private directory, but not look into it; what is in there is closed by itself.
    library.mkdir(parents=True, exist_ok=True, mode=0o711)
    library.chmod(library.stat().st_mode | 0o011)
    for directory in (library, *others):
        words = ["chpst", "-u", name, "test", "-x", str(directory)]
        if directory.is_dir() and subprocess.run(words, check=False, stdin=subprocess.DEVNULL, capture_output=True, cwd="/").returncode:
            return f"the user {name} cannot reach {directory}; give it the right to pass (x) on all directories above"
    return ""
