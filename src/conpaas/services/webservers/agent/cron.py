"""Commands at set times: the entries of this backend, and the small daemon that runs them while there are any."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import sys
import threading
from collections.abc import Sequence
from typing import Any, Final

from conpaas.core import config, file, paths, supervisor
from conpaas.services.webservers import schedules, spec
from conpaas.services.webservers.agent import copying, web_user

DAEMON: Final = "cron"
LOG: Final = "cron.log"
_MODULE: Final = "conpaas.services.webservers.agent.cron_daemon"

check = schedules.check


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the daemon reads: the entries, who runs them, where the releases are written down and the code lies.

    `time_limit` is in seconds.
    """

    entries: tuple[spec.CronEntry, ...]
    user: str | None
    notes: str
    code: str
    log: str
    time_limit: int

    def write(self, path: pathlib.Path) -> None:
        file.write_atomically(path, json.dumps(dataclasses.asdict(self)), mode=0o600)

    @classmethod
    def read(cls, path: pathlib.Path) -> Plan:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**values, "entries": tuple(spec.CronEntry.from_dict(one) for one in values["entries"])})


class CronRole:
    """The cron entries of one backend. Every method is idempotent."""

    def __init__(
        self, places: paths.Paths, configuration: config.Config, supervising: supervisor.Supervisor, address: str, notes: file.Notes
    ) -> None:
        self._directory = places.lib / "cron"
        self._log = places.cache / "cron" / LOG
        self._user = web_user.choose(places, configuration)
        self._time_limit = configuration.get_int("web", "CRON_TIME_LIMIT", 3600, minimum=1)
        self._code = places.cache / "www"
        self._notes = notes
        self._supervisor = supervising
        self._rotation = copying.CopyingRotation(places, supervising)
        self._lock = threading.Lock()

    def set(self, entries: Sequence[spec.CronEntry]) -> None:
        """Have exactly these entries run from now on; a command that runs already goes on. Raises InvalidArgument for a wrong schedule."""
        for entry in entries:
            schedules.check(entry.schedule)
        with self._lock:
            if not entries:
                self._supervisor.remove(DAEMON)
                file.remove_tree(self._directory)
                return
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._log.parent.mkdir(parents=True, exist_ok=True)
            plan = Plan(tuple(entries), self._user, str(self._notes.path), str(self._code), str(self._log), self._time_limit)
            plan.write(self._directory / "plan.json")
            self._ensure()
            self._supervisor.signal(DAEMON, "HUP")

    def resume(self) -> None:
        """After a restart of the agent or the node: have the daemon run if there are entries."""
        with self._lock:
            if (self._directory / "plan.json").exists():
                self._ensure()

    def close(self) -> None:
        """The daemon goes on."""

    def log_files(self) -> dict[str, pathlib.Path]:
        """The output of all commands."""
        return {LOG: self._log} if self._log.exists() else {}

    def _ensure(self) -> None:
        search = {"PYTHONPATH": os.environ["PYTHONPATH"]} if os.environ.get("PYTHONPATH") else {}
        self._supervisor.ensure(
            supervisor.Daemon(
                name=DAEMON,
                argv=(sys.executable, "-m", _MODULE, str(self._directory)),
                env=search,
                cwd=pathlib.Path("/"),
                stop_timeout=20.0,
            )
        )
        self._rotation.cover_directory("cron", self._log.parent, "*.log", None)
