"""The calls of a node that is a member of the cluster."""

from __future__ import annotations

from typing import Any

from conpaas.core import agent, config, expose, params
from conpaas.services.mysql import spec
from conpaas.services.mysql.agent import database, health

_TIMEOUT = params.Integer(minimum=0, maximum=3600)
_DEVICE = params.Param("device_name", params.Text(max_length=32), None, help="The disk that the data are on, without `/dev/`.")
_START = (
    params.Param("settings", params.Mapping(), help="How the server runs (`spec.NodeSettings`)."),
    params.Param("bootstrap", params.Boolean(), False, help="Found the cluster with what this node has."),
    _DEVICE,
    params.Param("nodes", params.ListOf(params.Text(max_length=64)), (), help="Ignored: the settings name all members."),
)
_ON = params.Param("on", params.Boolean(), help="Yes or no.")


class DatabaseCalls(agent.BaseAgent):
    """The database server, and the daemon that tells how it is."""

    def __init__(self, configuration: config.Config) -> None:
        super().__init__(configuration)
        where = (self.paths, configuration, self.supervisor, self.my_ip)
        self._database = database.DatabaseRole(self.paths, configuration, self.supervisor, [health.HealthRole(*where)])

    @expose.expose("POST", *_START)
    def start_mysqld(self, settings: dict[str, Any], bootstrap: bool, device_name: str | None, nodes: list[str]) -> dict[str, Any]:
        """Have the database server run; answers its port, and what counts only after a restart."""
        return self._database.start(spec.NodeSettings.from_dict(settings), bootstrap=bootstrap, device=device_name)

    @expose.expose("GET")
    def get_mysqld_state(self) -> dict[str, Any]:
        """Tell what the database server does, and what it knows of its cluster."""
        return self._database.state()

    @expose.expose("GET", _DEVICE)
    def get_position(self, device_name: str | None) -> dict[str, Any]:
        """Tell the last transaction of the stopped database server."""
        return self._database.position(device_name).to_dict()

    @expose.expose("POST", params.Param("timeout", _TIMEOUT, 120, help="Seconds that it may take to end in order."))
    def stop_mysqld(self, timeout: int) -> None:
        """End the database server; it stays stopped until it is started again."""
        self._database.stop(timeout)

    @expose.expose("POST")
    def restart_mysqld(self) -> None:
        """End the database server and start it again with the configuration that waits for it."""
        self._database.restart()

    @expose.expose("POST", _ON)
    def set_desync(self, on: bool) -> None:
        """Let the node fall behind the cluster without holding it up, or no longer."""
        self._database.set_desync(on)

    @expose.expose("POST", _ON)
    def set_health(self, on: bool) -> None:
        """Let load balancers send sessions to this node, or no longer."""
        self._database.set_health(on)

    @expose.expose("POST", params.Param("timeout", _TIMEOUT, 30, help="Seconds to wait at most."))
    def drain_mysqld(self, timeout: int) -> dict[str, Any]:
        """Take the node out of service and wait until no client has anything under way; answers how many still have."""
        return {"sessions": self._database.drain(timeout)}

    @expose.expose("GET")
    def getLoad(self) -> dict[str, Any]:
        """Tell the average length of the queue of transactions that wait to be applied."""
        return {"load": self._database.load()}
