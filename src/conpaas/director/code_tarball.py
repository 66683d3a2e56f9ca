"""The archive `ConPaaS.tar.gz` that VMs download: built once per version of the installed code, kept below the state directory."""

from __future__ import annotations

import dataclasses
import pathlib
import secrets
import threading

from conpaas.core import resources

KEPT = 2


@dataclasses.dataclass(frozen=True)
class Archive:
    """One archive on disk; `sha256` (hexadecimal) is both its digest and the name of the code."""

    path: pathlib.Path
    sha256: str


class Archives:
    """Archives in one directory, by digest. Several processes may share it: files are complete when they appear."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()

    def current(self) -> Archive:
        """The archive of the code as it is installed now, built if it is not there yet."""
        sha256 = resources.code_sha256()
        path = self._path(sha256)
        if not path.is_file():
            with self._lock:
                sha256 = self._build()
                path = self._path(sha256)
        return Archive(path, sha256)

    def _path(self, sha256: str) -> pathlib.Path:
        return self._directory / f"ConPaaS-{sha256}.tar.gz"

    def _build(self) -> str:
        self._directory.mkdir(parents=True, exist_ok=True)
        temporary = self._directory / f".building-{secrets.token_hex(6)}"
        try:
            sha256 = resources.code_tarball(temporary)
            temporary.replace(self._path(sha256))
        finally:
            temporary.unlink(missing_ok=True)
        self._prune(sha256)
        return sha256

    def _prune(self, sha256: str) -> None:
        others = [path for path in self._directory.glob("ConPaaS-*.tar.gz") if path != self._path(sha256)]
        newest_first = sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)
        for path in newest_first[KEPT - 1 :]:
            path.unlink(missing_ok=True)
