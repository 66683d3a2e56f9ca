"""The calls of a node that is a load balancer."""

from __future__ import annotations

from typing import Any, Final

from conpaas.core import agent, config, errors, expose, file, params
from conpaas.services.mysql import spec
from conpaas.services.mysql.agent import balancer

_BALANCING: Final = params.Param("configuration", params.Mapping(), help="All that the load balancer needs (`spec.BalancerConfig`).")
_PLACES_OF_NODES: Final = params.ListOf(params.Text(max_length=64))
_DRAIN_TIME: Final = params.Integer(minimum=0, maximum=3600)


class BalancerCalls(agent.BaseAgent):
    """The load balancer."""

    def __init__(self, configuration: config.Config) -> None:
        super().__init__(configuration)
        notes = file.Notes(self.paths.lib / "balancer.json")
        self._balancer = balancer.BalancerRole(self.paths, configuration, self.supervisor, self.my_ip, notes)

    @expose.expose(
        "POST",
        params.Param("configuration", params.Mapping(), None, help="All that the load balancer needs (`spec.BalancerConfig`)."),
        params.Param("nodes", _PLACES_OF_NODES, (), help="The same, if there is no configuration: members, each `ip` or `ip:port`."),
    )
    def start_glbd(self, configuration: dict[str, Any] | None, nodes: list[str]) -> dict[str, Any]:
        """Have the load balancer work with a configuration; answers its ports once it does."""
        if configuration is not None and nodes:
            raise errors.InvalidArgument("A load balancer is started with a configuration or with nodes, not with both.")
        wanted = spec.BalancerConfig.from_dict(configuration) if configuration is not None else balancer.classic(nodes)
        return self._balancer.configure(wanted)

    @expose.expose("POST", _BALANCING)
    def configure_glbd(self, configuration: dict[str, Any]) -> dict[str, Any]:
        """The same as start_glbd: a change costs no connection."""
        return self._balancer.configure(spec.BalancerConfig.from_dict(configuration))

    @expose.expose("POST", params.Param("nodesIp", _PLACES_OF_NODES, help="Members, each `ip` or `ip:port`."))
    def add_glbd_nodes(self, nodes_ip: list[str]) -> None:
        """Balance over these members too."""
        self._balancer.add(nodes_ip)

    @expose.expose("POST", params.Param("nodes", _PLACES_OF_NODES, help="Members, each `ip` or `ip:port`."))
    def remove_glbd_nodes(self, nodes: list[str]) -> None:
        """Balance over these members no more; their sessions have a few seconds to end."""
        self._balancer.remove(nodes)

    @expose.expose(
        "POST",
        params.Param("name", params.Text(max_length=64, non_empty=True), help="A member."),
        params.Param("timeout", _DRAIN_TIME, 30, help="Seconds that its sessions have to end."),
    )
    def drain_member(self, name: str, timeout: int) -> dict[str, Any]:
        """Give a member no new sessions, until a newer configuration lists it; answers how many of those it had had to be ended."""
        return self._balancer.drain(name, timeout)

    @expose.expose(
        "POST", params.Param("timeout", params.Integer(minimum=0, maximum=300), 10, help="Seconds that connections have to end.")
    )
    def stop_glbd(self, timeout: int) -> None:
        """Let the load balancer take no new connections, and end."""
        self._balancer.stop(timeout)

    @expose.expose("GET")
    def get_glbd_state(self) -> dict[str, Any]:
        """Tell what the load balancer does, who the writer is, and how the members are."""
        return self._balancer.state()

    @expose.expose("GET")
    def get_glbd_figures(self) -> dict[str, Any]:
        """Tell what the load balancer counts: sessions, bytes, errors, times, of each member and all in all."""
        return self._balancer.figures()
