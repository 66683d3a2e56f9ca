"""The health of a member: the daemon that answers load balancers, and the file that takes the member out of service."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import pwd
import sys
import threading
from typing import Final

from conpaas.core import config, file, paths, supervisor
from conpaas.services.mysql.agent import health_daemon
from conpaas.services.webservers.agent import ports

DAEMON: Final = "mysql-health"
PORT: Final = 9200


def flag_file(places: paths.Paths) -> pathlib.Path:
    """While this file is there, the member takes no new sessions from load balancers."""
    return places.run / "mysql" / "out-of-service"


class HealthRole:
    """The answers on the health of this node's MariaDB. Every method is idempotent and may be called from several threads."""

    def __init__(self, places: paths.Paths, configuration: config.Config, supervising: supervisor.Supervisor, address: str) -> None:
        self._plan = places.lib / "mysql" / "health.json"
        self._flag = flag_file(places)
        self._port = configuration.get_int("mysql", "HEALTH_PORT", PORT, minimum=1, maximum=65_535)
        self._listening = ports.inner_address(address, configuration)
        self._supervisor = supervising
        self._lock = threading.Lock()

    def ensure(self, socket: pathlib.Path, user: str | None = None, data: pathlib.Path | None = None) -> int:
        """Have the daemon answer for the MariaDB that listens on `socket` and has its data in `data`; returns its port.

        `user` is who it is to be where the agent is root: the one that runs MariaDB, which lets it in by that. It must be able to reach
        the socket; the daemon's own files it need not.
        """
        if os.geteuid() != 0 or user == pwd.getpwuid(os.geteuid()).pw_name:
            user = None
        plan = health_daemon.Plan(self._listening, self._port, str(socket), str(self._flag), user, str(data or ""))
        with self._lock:
            self._plan.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            text = json.dumps(dataclasses.asdict(plan))
            changed = not self._plan.exists() or self._plan.read_text(encoding="utf-8") != text
            if changed:
                file.write_atomically(self._plan, text, mode=0o600)
            running = self._supervisor.status(DAEMON).running
            self._ensure()
            if changed and running:
                self._supervisor.restart(DAEMON)
        return self._port

    def set(self, *, on: bool) -> None:
        """Let the member take new sessions, or not; the sessions it has go on."""
        with self._lock:
            if on:
                self._flag.unlink(missing_ok=True)
            else:
                self._flag.parent.mkdir(parents=True, exist_ok=True)
                self._flag.touch()

    def remove(self) -> None:
        """End the daemon; load balancers take that for a member that is down."""
        with self._lock:
            self._supervisor.remove(DAEMON)
            self._plan.unlink(missing_ok=True)
            self._flag.unlink(missing_ok=True)

    def resume(self) -> None:
        """After a restart of the agent or the node: have the daemon run if it should."""
        with self._lock:
            if self._plan.exists():
                self._ensure()

    def _ensure(self) -> None:
        search = {"PYTHONPATH": os.environ["PYTHONPATH"]} if os.environ.get("PYTHONPATH") else {}
        program = pathlib.Path(health_daemon.__file__)
        self._supervisor.ensure(
            supervisor.Daemon(
                name=DAEMON,
                argv=(sys.executable, "-P", str(program), str(self._plan)),
                env=search,
                cwd=pathlib.Path("/"),
                stop_timeout=5.0,
            )
        )
