"""The parent of every agent: what it is given, and the calls every agent answers."""

from __future__ import annotations

import logging
import pathlib
from typing import Any, Final

from conpaas.core import config, errors, expose, file, log, log_window, machine, params, paths, supervisor

LOG_NAME: Final = "cpsagent.log"
STARTUP_LOG: Final = "startup.log"
SAID: Final = 2000
"""Bytes of a failed startup script's output in the agent's log."""
TOOK_TOO_LONG: Final = 124


class BaseAgent:
    """An agent: writes configuration files and hands daemons to the supervisor of its VM.

    It may be killed and started again at any moment, and finds its daemons alive then. What it must remember it keeps in
    `file.Notes(self.paths.lib / …)`.
    """

    def __init__(self, configuration: config.Config) -> None:
        self.config = configuration
        self.paths = paths.Paths.from_config(configuration)
        self.my_ip = configuration.get(configuration.main, "MY_IP")
        self.supervisor = supervisor.Supervisor(self.paths.service, self.paths.log_dir)
        self._machine = machine.Machine(self.paths.root)
        self.log: logging.Logger = log.get(f"conpaas.agent.{configuration.get(configuration.main, 'TYPE', 'base')}")

    # Hooks

    def start_up(self) -> None:
        """Called once by the agent's process before it answers calls."""

    def tell_startup_failure(self) -> None:
        """Put into the agent's log how the user's startup script failed, if it did: that log is where users look first."""
        code = self._startup_code()
        if code:
            reason = "took too long and was killed" if code == TOOK_TOO_LONG else "failed"
            said = file.tail(self.paths.scratch / STARTUP_LOG, SAID).strip()
            self.log.warning("the startup script of this node %s (code %d); its output ends: %s", reason, code, said or "(none)")

    def _startup_code(self) -> int | None:
        try:
            return int((self.paths.scratch / "startup.status").read_text())
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """Called when the agent's process ends in order; daemons go on."""

    def log_files(self) -> dict[str, pathlib.Path]:
        """The logs that may be read from outside, by their names."""
        return {LOG_NAME: self.paths.log_file, STARTUP_LOG: self.paths.scratch / STARTUP_LOG}

    # Calls every agent answers

    @expose.expose("GET")
    def check_process(self) -> dict[str, Any]:
        """Tell that the agent works."""
        return {}

    @expose.expose(
        "GET",
        params.Param("filename", params.Text(max_length=256), default=LOG_NAME, help="the name of a log"),
        *log_window.PARAMS,
    )
    def get_log(self, filename: str, offset: int | None, limit: int) -> dict[str, Any]:
        """Read one of the agent's logs. Its classic path is as good as its name."""
        name = pathlib.PurePosixPath(filename).name
        path = self.log_files().get(name)
        if path is None or filename not in (name, f"/var/log/{name}", str(path)):
            raise errors.NotFound(f"Failed to read log file: '{params.shown(filename)}'")
        try:
            return log_window.answer(path, offset, limit)
        except OSError as error:
            raise errors.NotFound(f"Failed to read log file: '{filename}'") from error

    @expose.expose("GET")
    def get_machine(self) -> dict[str, Any]:
        """Tell what this node's machine has and does: processors, memory, disk, network."""
        return self._machine.figures()

    @expose.expose("GET")
    def get_startup_status(self) -> dict[str, Any]:
        """Tell how the user's startup script ended on this node: its exit code, 124 if it took too long, null if there was none."""
        return {"code": self._startup_code()}
