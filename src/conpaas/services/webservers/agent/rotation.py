"""Rotation of the logs that daemons write themselves, by Debian's logrotate in a small loop under the supervisor."""

from __future__ import annotations

import logging
import os
import pathlib
import shlex
import threading
from collections.abc import Sequence
from typing import Final

from conpaas.core import errors, file, paths, supervisor

log: Final = logging.getLogger(__name__)
NAME: Final = "logrotate"
INTERVAL: Final = 30
"""Seconds between two looks at the sizes."""
SIZE: Final = "10M"
KEPT: Final = 5

_LOOP: Final = 'while :; do /usr/sbin/logrotate --state "$1" "$2"; sleep "$3"; done'
_RULE: Final = """\
{logs} {{
    size {size}
    rotate {kept}
    missingok
    notifempty
    nocreate
    sharedscripts
{owner}    postrotate
        {reopen}
    endscript
}}
"""


class Rotation:
    """All rotated logs of a node: a rule for each daemon. Idempotent; safe to use from several threads for different daemons."""

    def __init__(self, places: paths.Paths, watcher: supervisor.Supervisor) -> None:
        self._places = places
        self._watcher = watcher
        self._rules = places.etc / "logrotate.d"

    def cover(self, daemon: str, logs: Sequence[pathlib.Path] | None = None, *, signal: str = "USR1", size: str = SIZE) -> None:
        """Have the logs of a daemon (by default those of an nginx) rotated; it is told by a signal to go on in new files."""
        paths_of_logs = list(logs) if logs is not None else list(of_nginx(self._places, daemon).values())
        pid = self._places.service / daemon / "supervise" / "pid"
        text = _RULE.format(
            logs=" ".join(_quoted(path) for path in paths_of_logs),
            size=size,
            kept=KEPT,
            owner=_owner(paths_of_logs),
            reopen=f'pid=$(cat {shlex.quote(str(pid))} 2>/dev/null) && [ -n "$pid" ] && kill -{signal} "$pid" || true',
        )
        self._rules.mkdir(parents=True, exist_ok=True)
        rule = self._rules / daemon
        if not rule.is_file() or rule.read_text() != text:
            file.write_atomically(rule, text)
        if not self._watcher.status(NAME).running:
            # The supervisor takes up to a second for another daemon; nobody need wait for this one.
            threading.Thread(target=self._start, name="rotation", daemon=True).start()

    def forget(self, daemon: str) -> None:
        """No longer rotate the logs of a daemon."""
        (self._rules / daemon).unlink(missing_ok=True)

    def _start(self) -> None:
        try:
            self._watcher.ensure(self._daemon())
        except (errors.ConPaaSError, OSError) as error:
            log.error("logs are not rotated: %s", error)

    def _daemon(self) -> supervisor.Daemon:
        state = self._places.lib / "logrotate.state"
        return supervisor.Daemon(
            name=NAME, argv=("sh", "-c", _LOOP, NAME, str(state), str(self._rules), str(INTERVAL)), env={"LC_ALL": "C"}
        )


def of_nginx(places: paths.Paths, name: str) -> dict[str, pathlib.Path]:
    """All logs of an nginx, by the classic names of its files."""
    return {f"{name}-{kind}.log": places.cache / f"{name}-{kind}.log" for kind in ("access", "error", "timed")}


def shown(places: paths.Paths, name: str) -> dict[str, pathlib.Path]:
    """The logs of an nginx that people read, as classic."""
    return {file_name: path for file_name, path in of_nginx(places, name).items() if not file_name.endswith("-timed.log")}


def _owner(logs: Sequence[pathlib.Path]) -> str:
    """logrotate as root refuses directories that others may write to, unless it is told whose they are."""
    if os.geteuid() != 0 or not logs or not logs[0].parent.is_dir():
        return ""
    return "    su root root\n" if logs[0].parent.stat().st_mode & 0o022 else ""


def _quoted(path: pathlib.Path) -> str:
    text = str(path)
    if any(not letter.isprintable() or letter in '"*?[]{}\\' for letter in text):
        raise errors.ConfigurationError(f"The logs below {path.parent} cannot be rotated: logrotate has no way to write that name.")
    return f'"{text}"'
