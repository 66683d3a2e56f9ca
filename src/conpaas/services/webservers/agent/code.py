"""The code versions that lie on a node: `<cache>/www/<version>/`, each unpacked once and never changed by the platform."""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import pwd
import threading
from collections.abc import Iterable
from typing import Final

from conpaas.core import archive, errors, file, paths
from conpaas.services.webservers import spec

log: Final = logging.getLogger(__name__)
LIMITS: Final = archive.Limits()
RESERVE: Final = 64 << 20
"""Bytes of the disk that no code version may use: those that serve write logs and sessions meanwhile."""


class CodeStore:
    """Code on one node; WARs are archives like all others.

    With `user`, the tree belongs to that user: unmodified applications keep uploads and caches beside their code. What they write there
    stays on this node, and goes with the version. Safe to use from several threads.
    """

    def __init__(self, places: paths.Paths, user: str | None = None) -> None:
        self.directory = places.cache / "www"
        self._user = user
        self._lock = threading.Lock()

    def path(self, version_id: str) -> pathlib.Path:
        """Where a version lies, whether it is there or not."""
        return self.directory / spec.check_version(version_id)

    def find(self, version_id: str) -> pathlib.Path:
        """Where a version lies. Raises NotFound."""
        path = self.path(version_id)
        if not path.is_dir():
            raise errors.NotFound(f"The code version {version_id} is not on this node.", hint="enable it again")
        return path

    def stage(self, version_id: str, content: pathlib.Path, made: int) -> None:
        """Unpack an archive as a version, all or nothing. A version that is there already stays as it is.

        `made`, in seconds since 1970, becomes the time of all its files: so they are the same on every node for whoever asks whether they
        have changed, and others than those of another version, whatever the archive says.

        Raises what `archive.unpack` raises; then nothing is left of it.
        """
        path = self.path(version_id)
        with self._lock:
            if path.is_dir():
                return
            self.directory.mkdir(parents=True, exist_ok=True)
            # Unpacked under a name that no version can have, so that only a complete tree of the right owner is ever seen as a version.
            draft = self.directory / f".{version_id}"
            try:
                archive.unpack(content, draft, LIMITS, reserve=RESERVE)
                _stamp(draft, made, self._user)
                draft.rename(path)
            finally:
                file.remove_tree(draft)
            file.sync_directory(self.directory)
        log.info("code version %s is on this node", version_id)

    def list(self) -> list[str]:
        """The versions that are there, sorted."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(entry.name for entry in self.directory.iterdir() if not entry.name.startswith(".") and entry.is_dir())
        return []

    def keep(self, version_ids: Iterable[str]) -> None:
        """Remove all versions but these, and what an interrupted call left."""
        wanted = {spec.check_version(one) for one in version_ids}
        with self._lock:
            for entry in self.directory.iterdir() if self.directory.is_dir() else ():
                if entry.name in wanted:
                    continue
                aside = entry.with_name(f".{entry.name.lstrip('.')}.removed")
                if entry != aside:
                    file.remove_tree(aside)
                    entry.rename(aside)
                file.remove_tree(aside)
                log.info("code version %s was removed from this node", entry.name)


def _stamp(tree: pathlib.Path, made: int, user: str | None) -> None:
    """Set the time of all in a tree, and make `user` its owner; links are not followed."""
    owner = pwd.getpwnam(user) if user is not None else None
    names = (f"{parent}/{name}" for parent, directories, files in os.walk(tree) for name in (*directories, *files))
    for name in (str(tree), *names):
        if owner is not None:
            os.chown(name, owner.pw_uid, owner.pw_gid, follow_symlinks=False)
        os.utime(name, (made, made), follow_symlinks=False)
