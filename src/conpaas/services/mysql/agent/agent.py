"""The agent of a mysql service: its calls are in the rooms of the roles; here is what concerns them all."""

from __future__ import annotations

import pathlib
from typing import Final

from conpaas.core import config, expose
from conpaas.services.mysql.agent import backup_calls, balancer_calls, member, sql_calls

PLACES: Final = 3
"""Daemons that a node begins to run in quick succession."""
_BALANCER_END: Final = 10
"""Seconds that connections have when everything is stopped."""


class MySQLAgent(backup_calls.BackupCalls, balancer_calls.BalancerCalls, sql_calls.SqlCalls):
    """One node of a mysql service. What it was told last goes on over its own death and over a reboot of its VM."""

    def __init__(self, configuration: config.Config) -> None:
        super().__init__(configuration)
        self.supervisor.reserve(PLACES)

    def start_up(self) -> None:
        """Go on with what was under way when the agent died."""
        self._dumps.clean_up()
        self._database.resume()
        self._balancer.resume()

    def close(self) -> None:
        self._database.close()
        self._balancer.close()
        self._figures.close()

    def log_files(self) -> dict[str, pathlib.Path]:
        return super().log_files() | self._database.log_files() | self._balancer.log_files()

    @expose.expose("POST")
    def stop(self) -> None:
        """Stop all roles of this node."""
        self._balancer.stop(_BALANCER_END)
        self._database.stop(member.STOP_TIMEOUT)
