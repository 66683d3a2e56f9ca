"""The user that serves a node's sites: not root, wherever the machine lets another one reach the files."""

from __future__ import annotations

import functools
import grp
import logging
import os
import pathlib
import pwd
import subprocess

from conpaas.core import config, paths

log = logging.getLogger(__name__)


def choose(places: paths.Paths, configuration: config.Config) -> str | None:
    """`WEB_USER`, when the agent is root and that user can go down to the node's cache directory; None: the agent's own user."""
    if os.geteuid() != 0:
        return None
    name = configuration.get("web", "WEB_USER", "www-data")
    reason = _why_not(name, places.cache)
    if reason:
        log.warning("sites are served as root: %s", reason)
        return None
    return name


def group_of(name: str) -> str:
    """The name of a user's own group."""
    return grp.getgrgid(pwd.getpwnam(name).pw_gid).gr_name


@functools.cache
def _why_not(name: str, directory: pathlib.Path) -> str:
    """Why a user cannot serve from a directory; empty if it can. The kernel is asked, as permissions have more parts than modes."""
    try:
        group_of(name)
    except KeyError:
        return f"there is no user {name}, or it has no group"
    words = ["chpst", "-u", name, "test", "-x", str(directory)]
    if subprocess.run(words, check=False, stdin=subprocess.DEVNULL, capture_output=True, cwd="/").returncode != 0:
        return f"the user {name} cannot reach {directory}; give it the right to pass (x) on all directories above"
    return ""
