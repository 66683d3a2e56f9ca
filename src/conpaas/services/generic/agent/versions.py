"""Code on a node: versions are unpacked beside each other, and one link says which of them is active."""

from __future__ import annotations

import pathlib

from conpaas.core import archive, errors, file

LIMITS = archive.Limits()


class CodeVersions:
    """The code of this node. An *activation* is one unpacked copy of a version: activating a version again starts from a fresh copy."""

    def __init__(self, cache: pathlib.Path) -> None:
        self.directory = cache / "bin"
        """Where the active code is seen: a link to one of the copies."""
        self._copies = cache / "code"

    def stage(self, activation: str, content: pathlib.Path) -> None:
        """Unpack an archive as a copy that is not active yet. Idempotent; all or nothing. Raises what `archive.unpack` raises."""
        copy = self._copies / activation
        if copy.is_dir():
            return
        self._copies.mkdir(parents=True, exist_ok=True)
        archive.unpack(content, copy, LIMITS)

    def is_staged(self, activation: str) -> bool:
        """Whether the copy is there, active or not."""
        return (self._copies / activation).is_dir()

    def activate(self, activation: str) -> None:
        """Make a staged copy the active code in one instant, and remove all other copies. Idempotent."""
        copy = self._copies / activation
        if not copy.is_dir():
            raise errors.NotFound(f"The code of activation {activation} is not on this node.", hint="enable the code version again")
        link = self.directory.with_name(f".{self.directory.name}.new")
        link.unlink(missing_ok=True)
        link.symlink_to(copy)
        link.replace(self.directory)
        file.sync_directory(self.directory.parent)
        for other in self._copies.iterdir():
            if other != copy:
                file.remove_tree(other)

    def script(self, filename: str) -> pathlib.Path | None:
        """The path of a script of the active code, None if the code has no such file."""
        path = self.directory / filename
        return path if path.is_file() else None
