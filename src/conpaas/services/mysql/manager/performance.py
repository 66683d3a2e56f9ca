"""How much the members have to do, as they count it themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from conpaas.core import errors, expose, log_window, params
from conpaas.core.states import State
from conpaas.services.mysql import spec
from conpaas.services.mysql.agent import client
from conpaas.services.mysql.manager import base, ganglia

_COMMANDS: Final = {"select": "Select", "insert": "Insert", "delete": "Delete", "update": "Update"}
_FAILURES: Final = ("failed_connections", "lost_connections", "failed_certifications")
_NODE = params.Param("serviceNodeId", params.Text(max_length=256), help="The id of a member.")


class PerformanceCalls(base.MySQLBase):
    """Figures."""

    @expose.expose("GET")
    def get_service_performance(self) -> dict[str, Any]:
        """Tell what all members together do: statements and failures (both per second), throughput (KB/s), response time (ms), and what
        each of them counts (`nodes`, by id).
        """
        found, silent = self._figures()
        return {**together(list(found.values())), "nodes": found, **({"silent": silent} if silent else {})}

    @expose.expose("GET", _NODE)
    def get_node_performance(self, service_node_id: str) -> dict[str, Any]:
        """Tell what one member or load balancer counts."""
        target = self.get_node(service_node_id)
        if target.role == spec.GLB:
            return client.balancer_figures(self.agents, target)
        figures = client.figures(self.agents, target)
        return {**together([figures]), **figures}

    @expose.expose("GET", _NODE, *log_window.PARAMS)
    def get_slow_log(self, service_node_id: str, offset: int | None, limit: int) -> dict[str, Any]:
        """Read the statements of a member that took long, and tell from how many seconds on they are logged."""
        return client.slow_log(self.agents, self.get_node(service_node_id), offset, limit)

    @expose.expose("GET")
    def getMeanLoad(self) -> dict[str, Any]:
        """Tell, as texts of each member and as means, how long the queues of rows to apply are, and how many statements there were."""
        found, _ = self._figures()
        return mean_load([one["classic"] for one in found.values()])

    @expose.expose("GET")
    def getGangliaParams(self) -> dict[str, Any]:
        """Tell what the machines of all nodes have and do, in the form of Ganglia's daemon: 0, and its XML."""
        figures = self.machine_figures()
        own = {one.id: one for one in self.nodes if one.id in figures}
        return {"Ganglia": [0, ganglia.document({key: figures[key] for key in own}, own)]}

    def _figures(self) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """What members tell, and why others do not, by node id; of a service that does not run, nothing."""
        own = self.members_in_order() if self.state in (State.RUNNING, State.ADAPTING) else []
        answers = self.agents.each(own, lambda one: client.figures(self.agents, one))
        good = {key: answer for key, answer in answers.items() if not isinstance(answer, errors.ConPaaSError)}
        return good, {key: str(answer) for key, answer in answers.items() if isinstance(answer, errors.ConPaaSError)}


def together(figures: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The figures of all members as if they were one; all 0 when there are none."""

    def rate(one: Mapping[str, Any], name: str) -> float:
        return float(one["rates"].get(name) or 0)

    timed = [one for one in figures if one.get("latency") is not None]
    spent = sum(rate(one, "queries") * float(one["latency"]) for one in timed)
    statements = sum(rate(one, "queries") for one in timed)
    return {
        "request_rate": round(sum(rate(one, "queries") for one in figures), 3),
        "error_rate": round(sum(rate(one, name) for one in figures for name in _FAILURES), 3),
        "throughput": round(sum(rate(one, "bytes_sent") + rate(one, "bytes_received") for one in figures) / 1024, 3),
        "response_time": round(spent / statements, 3) if statements else 0,
    }


def mean_load(counters: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """The classic shape: one text of each member, and means."""
    told: dict[str, Any] = {"loads": [one["load"] for one in counters], "meanLoad": _mean([one["load"] for one in counters])}
    for name, title in _COMMANDS.items():
        values = [one[name] for one in counters]
        told |= {f"{name}s": values, f"mean{title}": _mean(values)}
    return told


def _mean(texts: Sequence[str]) -> float:
    return sum(float(one or 0) for one in texts) / max(1, len(texts))
