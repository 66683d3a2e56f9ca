"""Rotation of logs whose daemons go on writing to the same file: it is copied and then emptied, by the user that writes it."""

from __future__ import annotations

import pathlib
import threading
from typing import Final

from conpaas.core import errors, file
from conpaas.services.webservers.agent import rotation, web_user

_RULE: Final = """\
"{directory}"/{pattern} {{
    size {size}
    rotate {kept}
    missingok
    notifempty
    copytruncate
{owner}}}
"""


class CopyingRotation(rotation.Rotation):
    """Rules for all logs of a directory. They work for any number of daemons that append to them, and none has to be told."""

    def cover_directory(self, name: str, directory: pathlib.Path, pattern: str, user: str | None) -> None:
        """Have the logs in a directory rotated; they, and it, belong to `user` (None: to the agent's own)."""
        text = str(directory)
        if any(not letter.isprintable() or letter in '"*?[]{}\\' for letter in text):
            raise errors.ConfigurationError(f"The logs in {text} cannot be rotated: logrotate has no way to write that name.")
        owner = f"    su {user} {web_user.group_of(user)}\n" if user is not None else ""
        rule = _RULE.format(directory=text, pattern=pattern, size=rotation.SIZE, kept=rotation.KEPT, owner=owner)
        self._rules.mkdir(parents=True, exist_ok=True)
        path = self._rules / name
        if not path.is_file() or path.read_text() != rule:
            file.write_atomically(path, rule)
        if not self._watcher.status(rotation.NAME).running:
            threading.Thread(target=self._start, name="rotation", daemon=True).start()
