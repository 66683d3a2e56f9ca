"""What the manager does with nodes of a generic service: introduce them, bring code to them, tell them of changes, wind them down.

Every function may be repeated after a crash with the same key: agents take the same activation or run id for the same request.
"""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from conpaas.core import agents, errors, node
from conpaas.services.generic import scripts
from conpaas.services.generic.agent import client
from conpaas.services.generic.manager import runs

MASTER = "master"

_PATIENCE = 30.0
"""Seconds an agent may give no answer (it restarts, the network hiccups) before that is a failure."""
_PARTING_PATIENCE = 5.0
"""The same for a node that leaves and may be gone already; enough for an agent that restarts to hear that it must interrupt."""
_LONG_POLL = 20
_NODE_LEFT = "the node left the service"

log = logging.getLogger(__name__)


def members(nodes: Sequence[node.ServiceNode]) -> list[dict[str, str]]:
    """The content of agents.json: the master first, then the others in order of addition."""
    ordered = sorted(nodes, key=lambda one: one.role != MASTER)
    return [{"id": one.id, "ip": one.ip, "role": one.role} for one in ordered]


class Cluster:
    """The nodes of one service, seen through their agents."""

    def __init__(self, caller: agents.AgentCaller, table: runs.RunTable, variables: Callable[[], Mapping[str, str]]) -> None:
        """`variables`: what other services give to the scripts; every script is started with what there is then."""
        self._agents = caller
        self._runs = table
        self._variables = variables

    def introduce(self, newcomers: Sequence[node.ServiceNode], everybody: Sequence[node.ServiceNode]) -> None:
        """Tell new nodes their address and who is in the service."""
        who = members(everybody)
        self._agents.all(newcomers, lambda one: agents.persistently(lambda: client.init_agent(self._agents, one, who), _PATIENCE))

    def stage(self, nodes: Sequence[node.ServiceNode], version_id: str, activation: str, archive: pathlib.Path) -> None:
        """Bring a code version to all nodes without touching what runs there."""

        def stage_one(one: node.ServiceNode) -> None:
            agents.persistently(lambda: client.stage_code(self._agents, one, version_id, activation, archive), _PATIENCE)

        self._agents.all(nodes, stage_one)

    def activate(self, nodes: Sequence[node.ServiceNode], version_id: str, activation: str, time_limit: int) -> None:
        """Make a staged version the active one on all nodes and wait for init.sh. Raises OperationFailed naming where it failed and how."""
        self._runs.request(f"init-{activation}", scripts.Script.INIT, [one.id for one in nodes], version=version_id)
        self._agents.all(nodes, lambda one: self._activate_one(one, version_id, activation, time_limit))

    def _activate_one(self, one: node.ServiceNode, version_id: str, activation: str, time_limit: int) -> None:
        run = agents.persistently(
            lambda: client.activate_code(self._agents, one, version_id, activation, self._variables(), time_limit), _PATIENCE
        )
        if run is None:
            self._runs.update(f"init-{activation}", {one.id: {"state": runs.SKIPPED}})
            return
        part = self.wait_for(one, run)
        if part["return_code"] != 0:
            raise errors.OperationFailed(f"init.sh of code version {version_id} {self._how_it_ended(one, part)}")

    def wait_for(self, one: node.ServiceNode, run: str) -> dict[str, Any]:
        """Wait for the end of a run on one node; its own time limit bounds that. Returns the node's part of the run."""
        while True:
            part = agents.persistently(lambda: client.get_run(self._agents, one, run, _LONG_POLL), _PATIENCE)
            if part["state"] not in (runs.RUNNING, runs.QUEUED):
                self._runs.update(run, {one.id: part})
                return part

    def _how_it_ended(self, one: node.ServiceNode, part: Mapping[str, Any]) -> str:
        if part["error"]:
            return f"failed: {part['error']}"
        how = f"was killed by {part['signal']}" if part["signal"] else f"ended with code {part['exit_code']}"
        if part["ended_by"]:
            how += f" ({part['ended_by']})"
        return how + self._last_words(one, str(part["run_id"]))

    def _last_words(self, one: node.ServiceNode, run: str) -> str:
        for stream in ("stderr", "stdout"):
            try:
                text = client.get_script_output(self._agents, one, run=run, stream=stream, limit=4000)["output"].strip()
            except errors.ConPaaSError as error:
                log.warning("the output of run %s on %s cannot be read: %s", run, one.id, error)
                return ""
            if text:
                return f": {text.splitlines()[-1][:300]}"
        return ""

    def notify(
        self,
        told: Sequence[node.ServiceNode],
        everybody: Sequence[node.ServiceNode],
        key: str,
        time_limit: int,
        *,
        patience: float = _PATIENCE,
    ) -> None:
        """Give the list of members to `told` and have them run notify.sh, which agents queue. Raises OperationFailed if one is not told."""
        if not told:
            return
        run = f"notify-{key}"
        self._runs.request(run, scripts.Script.NOTIFY, [one.id for one in told])
        who = members(everybody)
        self._agents.all(
            told,
            lambda one: agents.persistently(
                lambda: self.execute(one, scripts.Script.NOTIFY, run=run, who=who, time_limit=time_limit),
                patience,
            ),
        )

    def execute(
        self, one: node.ServiceNode, command: str, *, run: str, who: Sequence[Mapping[str, str]], parameters: str = "", time_limit: int
    ) -> dict[str, Any]:
        """Start a script on one node and note that in the run's record."""
        given = self._variables()
        answer = client.execute_script(
            self._agents, one, command, run=run, members=who, variables=given, parameters=parameters, time_limit=time_limit
        )
        self._runs.update(run, {one.id: _begun(command, answer)}, reopen=True)
        return answer

    def wind_down(self, leaving: Sequence[node.ServiceNode], everybody: Sequence[node.ServiceNode], key: str, time_limit: int) -> None:
        """Have nodes that leave interrupt what runs on them, then end every process of their scripts. A node gone already is no failure."""
        who = members(everybody)
        for node_id, outcome in self._agents.each(leaving, lambda one: self._wind_down_one(one, who, key, time_limit)).items():
            if isinstance(outcome, errors.ConPaaSError):
                log.warning("node %s could not be wound down in order: %s", node_id, outcome)
        self.refresh(leaving)
        for one in leaving:
            self._close_parts(one)

    def _wind_down_one(self, one: node.ServiceNode, who: Sequence[Mapping[str, str]], key: str, time_limit: int) -> None:
        status = agents.persistently(lambda: client.get_script_status(self._agents, one), _PARTING_PATIENCE)
        if scripts.RUNNING in status["scripts"].values():
            run = f"interrupt-{key}"
            self._runs.request(run, scripts.Script.INTERRUPT, [one.id])
            answer = agents.persistently(
                lambda: self.execute(one, scripts.Script.INTERRUPT, run=run, who=who, time_limit=time_limit), _PARTING_PATIENCE
            )
            for ending in [*([answer["run"]] if answer["run"] else []), *answer["ends"]]:
                self.wait_for(one, ending)
        agents.persistently(lambda: client.end_scripts(self._agents, one), _PARTING_PATIENCE)

    def statuses(self, nodes: Sequence[node.ServiceNode]) -> dict[str, dict[str, Any] | errors.ConPaaSError]:
        """`scripts` and `alive` of every node, or why it does not answer."""
        return self._agents.each(nodes, lambda one: client.get_script_status(self._agents, one))

    def refresh(self, nodes: Sequence[node.ServiceNode], is_idle: Callable[[], bool] = lambda: False) -> None:
        """Bring the records of unfinished runs up to date, as far as the nodes answer.

        If `is_idle` nobody is about to start anything: runs that their node does not know are closed, and those on nodes that are gone.
        """
        by_id = {one.id: one for one in nodes}
        unfinished = self._runs.open_parts()
        idle = bool(unfinished) and is_idle()
        for run, open_nodes in unfinished.items():
            gone = [node_id for node_id in open_nodes if node_id not in by_id]
            if idle and gone:
                self._runs.update(run, dict.fromkeys(gone, runs.failed(_NODE_LEFT)))
        todo = [(by_id[node_id], run) for run, open_nodes in unfinished.items() for node_id in open_nodes if node_id in by_id]
        wanted = list({one.id: one for one, _ in todo}.values())

        def ask(one: node.ServiceNode) -> None:
            for other, run in todo:
                if other.id == one.id:
                    self._refresh_one(one, run, idle)

        for node_id, outcome in self._agents.each(wanted, ask).items():
            if isinstance(outcome, errors.ConPaaSError):
                log.info("runs on %s cannot be asked for: %s", node_id, outcome)

    def _refresh_one(self, one: node.ServiceNode, run: str, idle: bool) -> None:
        try:
            part = client.get_run(self._agents, one, run)
        except errors.Unreachable:
            raise
        except errors.RemoteError as error:
            log.info("node %s does not know run %s: %s", one.id, run, error)
            if idle:
                self._runs.update(run, {one.id: runs.failed("it never began")})
            return
        self._runs.update(run, {one.id: part})

    def _close_parts(self, one: node.ServiceNode) -> None:
        for run in self._runs.open_parts(one.id):
            self._runs.update(run, {one.id: runs.failed(_NODE_LEFT)})


def _begun(command: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    """A node's part of a run, from what its agent answered to the request."""
    if answer["run"]:
        return {"state": runs.RUNNING}
    if command == scripts.Script.INTERRUPT:
        what = "all that ran was ended without interrupt.sh" if answer["ends"] else "nothing ran"
        return {"state": runs.STOPPED, "return_code": 0, "reason": what}
    return {"state": runs.SKIPPED, "reason": f"the code version has no {command}.sh"}
