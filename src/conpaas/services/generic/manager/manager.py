"""The manager of the generic service: which nodes there are, what code they have, and what scripts run on them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from conpaas.core import agents, code_manager, errors, expose, manager, node, params, service_parts
from conpaas.core.https import identity
from conpaas.core.operations import Operation, OperationKind, Step
from conpaas.core.states import State
from conpaas.services.generic import scripts
from conpaas.services.generic.agent import client
from conpaas.services.generic.manager import cluster, default_code, given, runs

STILL_RUNNING = (
    "ERROR: Scripts are still running inside at least one agent. Please wait for them to finish execution or call 'interrupt' first."
)
NOTHING_RUNS = "ERROR: No scripts are currently running inside agents. Nothing to interrupt."
UNKNOWN = "UNKNOWN"

_START_PATIENCE = _VOLUME_PATIENCE = 30.0
_MAX_UNDO_PATIENCE = 3
_NOTIFY_INTERVAL = 0.1
_DAY = 86_400

ENABLE_CODE = OperationKind(
    "enable_code",
    (
        Step("stage", "stage_code"),
        Step("activate", "activate_code", "activate_former_code"),
        Step("select", "select_code", "select_former_code"),
    ),
    allowed=(State.RUNNING,),
    transient=State.ADAPTING,
    final=State.RUNNING,
    help="Updating configuration",
)
EXECUTE_SCRIPT = OperationKind(
    "execute_script",
    (Step("start", "start_script"),),
    allowed=(State.RUNNING,),
    help="Starting a script",
)


class GenericManager(code_manager.CodeManager):
    """A master and any number of nodes that run the user's five scripts."""

    operations = (ENABLE_CODE, EXECUTE_SCRIPT)
    accepts_variables = True

    def __init__(self, context: service_parts.ManagerContext) -> None:
        super().__init__(context)
        self._runs = runs.RunTable(self.settings)
        self._given = given.GivenVariables(self.settings)
        self._cluster = cluster.Cluster(self.agents, self._runs, self._given.all)

    # What the service is made of

    def get_node_roles(self) -> list[str]:
        return [cluster.MASTER, node.ROLE_REGULAR]

    def get_starting_nodes(self) -> dict[str, int]:
        return {cluster.MASTER: 1}

    def get_role_logs(self, role: str) -> list[dict[str, str]]:
        return [
            *super().get_role_logs(role),
            {"filename": "agent.out", "description": "agent output", "path": "/root/agent.out"},
            {"filename": "agent.err", "description": "agent error", "path": "/root/agent.err"},
        ]

    def describe_node(self, one: node.ServiceNode) -> dict[str, Any]:
        return {**super().describe_node(one), "is_master": one.role == cluster.MASTER}

    def get_heir_role(self, moving: node.ServiceNode) -> str:
        """There is one master, which stays that until it leaves; then its heir becomes it."""
        return node.ROLE_REGULAR

    # Life cycle

    def on_create(self) -> None:
        self.code.add_default(default_code.build)

    def on_start(self, nodes: list[node.ServiceNode]) -> None:
        self._take_in(nodes)

    def on_stop(self) -> list[node.ServiceNode]:
        nodes = self.nodes
        self._cluster.wind_down(nodes, nodes, self._key(), self._limit(scripts.Script.INTERRUPT))
        return nodes

    def check_add_nodes(self, roles: dict[str, int]) -> None:
        if roles.get(cluster.MASTER):
            raise errors.InvalidArgument("Cannot add a master node: the service has exactly one.")

    def on_add_nodes(self, nodes: list[node.ServiceNode]) -> None:
        self._take_in(nodes)
        new = set(node.ids_of(nodes))
        self._notify([one for one in self.nodes if one.id not in new], "joined")

    def on_undo_add_nodes(self, nodes: list[node.ServiceNode]) -> None:
        self._notify(self.nodes, "undone")

    def check_remove_nodes(self, roles: dict[str, int]) -> None:
        total, removable = sum(roles.values()), len(self.nodes) - 1
        if total > removable:
            available = f"only {removable}" if removable > 0 else "none"
            raise errors.InvalidArgument(f"Requesting to delete {total} nodes while {available} can be removed")
        if roles.get(cluster.MASTER):
            raise errors.InvalidArgument("Cannot remove the master node.")
        super().check_remove_nodes(roles)

    def on_remove_nodes(self, roles: dict[str, int]) -> list[node.ServiceNode]:
        leaving = self.choose_nodes(roles)
        gone = set(node.ids_of(leaving))
        everybody = self.nodes
        self._cluster.wind_down(leaving, everybody, self._key(), self._limit(scripts.Script.INTERRUPT))
        self._hand_over(leaving, cluster.MASTER)
        self._notify([one for one in everybody if one.id not in gone], "left", gone)
        return leaving

    def _hand_over(self, leaving: list[node.ServiceNode], role: str) -> None:
        """Give this role to the heir of the master, if that is among the nodes that leave."""
        for one in leaving:
            if one.role == cluster.MASTER and one.id in self.heirs:
                self.set_role(self.heirs[one.id], role)

    def on_undo_remove_nodes(self, nodes: list[node.ServiceNode]) -> None:
        self._hand_over(nodes, node.ROLE_REGULAR)
        self._notify(self.nodes, "stayed")

    def on_node_lost(self, lost: node.ServiceNode) -> bool:
        self._hand_over([lost], cluster.MASTER)
        self._notify([one for one in self.nodes if one.id != lost.id], f"lost-{lost.vmid[-20:]}", {lost.id}, patience=5.0)
        return True

    def _take_in(self, nodes: list[node.ServiceNode]) -> None:
        """Introduce nodes, bring them the enabled code and run its init.sh."""
        version = self.code.current()
        activation = self._key()
        self._cluster.introduce(nodes, self.nodes)
        self.note(f"Bringing code version {version.id} to {', '.join(node.ids_of(nodes))}")
        self._cluster.stage(nodes, version.id, activation, self.code.archive(version.id))
        self._cluster.activate(nodes, version.id, activation, self._limit(scripts.Script.INIT))

    def _notify(self, told: list[node.ServiceNode], event: str, without: set[str] | None = None, *, patience: float = 30.0) -> None:
        everybody = [one for one in self.nodes if one.id not in (without or set())]
        self._cluster.notify(told, everybody, f"{self._key()}-{event}", self._limit(scripts.Script.NOTIFY), patience=patience)

    def _key(self) -> str:
        """What makes a repeated request the same request: it follows from the operation under way."""
        return self.operation.id[:12] if self.operation is not None else secrets.token_hex(6)

    # Other services

    def sources(self) -> list[str]:
        return self._given.sources()

    def variables_from(self, source: str) -> dict[str, str]:
        return self._given.of(source)

    def take_variables(self, source: str, variables: Mapping[str, str], caller: str) -> dict[str, Any]:
        """Scripts find them from now on; those that run are told by notify.sh."""
        self.check_state(State.INIT, State.STOPPED, State.RUNNING)
        if not self.idle:
            raise errors.WrongState("The service is busy with another request; try again when that has finished.")
        if self._given.put(source, variables) and self.state == State.RUNNING:
            try:
                self._notify(self.nodes, "variables", patience=5.0)
            except errors.ConPaaSError as error:
                self.log.warning("not all nodes were told of variables from %s; scripts find them when they are started: %s", source, error)
        return {}

    # Code

    @expose.expose("POST", params.Param("codeVersionId", params.Text(max_length=80), help="The version to use from now on."))
    def enable_code(self, code_version_id: str, caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """Switch to a code version: on a running service, bring it to all nodes, activate it and run its init.sh, or change nothing."""
        record = self.code.get(code_version_id)
        self.check_state(State.INIT, State.STOPPED, State.RUNNING)
        self.code.archive(record.id)
        if self.state != State.RUNNING:
            self.code.set_current(record.id)
            return {}
        self._refuse_while_running()
        former = self.code.current()
        return {"operation": self.submit("enable_code", {"version": record.id, "former": former.id}, caller).id}

    def enable_version(self, version_id: str, caller: identity.PeerIdentity | None) -> dict[str, Any]:
        return self.enable_code(version_id, caller)

    def stage_code(self, op: Operation) -> None:
        version = op.args["version"]
        op.note(f"Bringing code version {version} to all nodes")
        self._cluster.stage(self.nodes, version, op.id[:12], self.code.archive(version))

    def activate_code(self, op: Operation) -> None:
        op.note(f"Activating code version {op.args['version']}")
        self._cluster.activate(self.nodes, op.args["version"], op.id[:12], self._limit(scripts.Script.INIT))

    def activate_former_code(self, op: Operation) -> None:
        """Undo: activate the former version again everywhere; a node that keeps silent is left to the watch over nodes."""
        former, activation = op.args["former"], f"{op.id[:12]}-undo"
        op.note(f"Activating code version {former} again")
        archive = self.code.archive(former)
        op.data["undone"] = op.data.get("undone", 0) + 1

        def restore(one: node.ServiceNode) -> None:
            client.stage_code(self.agents, one, former, activation, archive)
            run = client.activate_code(self.agents, one, former, activation, self._given.all(), self._limit(scripts.Script.INIT))
            if run is not None:  # whoever asks for a script next must not find this one at work
                self._cluster.wait_for(one, run)

        failed = {key: value for key, value in self.agents.each(self.nodes, restore).items() if isinstance(value, errors.ConPaaSError)}
        grave = [key for key, error in failed.items() if not isinstance(error, errors.Unreachable)]
        if failed and (grave or op.data["undone"] < _MAX_UNDO_PATIENCE):
            raise errors.OperationFailed("; ".join(f"{key}: {error}" for key, error in failed.items()))
        for key, error in failed.items():
            op.note(f"Node {key} keeps silent and may have the wrong code: {error}")

    def select_code(self, op: Operation) -> None:
        self.code.set_current(op.args["version"])

    def select_former_code(self, op: Operation) -> None:
        self.code.set_current(op.args["former"])

    # Scripts

    @expose.expose(
        "POST",
        params.Param("command", params.Choice(tuple(command.value for command in scripts.USER_COMMANDS)), help="Which script."),
        params.Param("parameters", params.Text(), "", help="Its arguments, in one text; quotes are honoured as in a shell."),
        params.Param("timeLimit", params.Integer(minimum=0, maximum=365 * _DAY), None, help="Seconds it may take; 0: no limit."),
        params.Param("agentIds", params.ListOf(params.Text(max_length=256), non_empty=True), None, help="Only on these nodes."),
    )
    def execute_script(
        self, command: str, parameters: str, time_limit: int | None, agent_ids: list[str] | None, caller: identity.PeerIdentity | None
    ) -> dict[str, Any]:
        """Run a script on all nodes; `interrupt` ends what runs, asked again it kills. The reply names the run."""
        scripts.split(parameters)
        self.check_state(State.RUNNING)
        chosen = [self.get_node(one, "agentIds") for one in dict.fromkeys(agent_ids)] if agent_ids else self.nodes
        script = scripts.Script(command)
        limit = self._limit(script) if time_limit is None else time_limit
        run = self._runs.new_id(command)
        if script is scripts.Script.INTERRUPT:
            self._interrupt(chosen, run, parameters, limit, str(caller or ""))
            return {"state": str(self.state), "run_id": run}
        self._refuse_while_running(chosen)
        ids = node.ids_of(chosen)
        args = {"command": command, "parameters": parameters, "run": run, "limit": limit, "nodes": ids}
        version, requester = self.code.current().id, str(caller or "")
        self._runs.request(run, command, ids, parameters=parameters, version=version, requester=requester)
        try:
            op = self.submit("execute_script", args, caller)
        except errors.ConPaaSError:
            self._runs.forget(run)
            raise
        return {"operation": op.id, "state": str(self.state), "run_id": run}

    def start_script(self, op: Operation) -> None:
        """Start the script on all nodes at once; a node where that fails has it in its part of the run."""
        args = op.args
        nodes = [one for one in self.nodes if one.id in args["nodes"]]
        run, command, who = args["run"], args["command"], cluster.members(self.nodes)

        def start_once(one: node.ServiceNode) -> None:
            if self.settings.get("interrupted_run") == run:
                raise errors.WrongState("it was interrupted before it began")
            self._cluster.execute(one, command, run=run, who=who, parameters=args["parameters"], time_limit=args["limit"])

        def start(one: node.ServiceNode) -> None:
            agents.persistently(lambda: start_once(one), _START_PATIENCE)

        for key, outcome in self.agents.each(nodes, start).items():
            if isinstance(outcome, errors.ConPaaSError):
                op.note(f"{command}.sh was not started on {key}: {outcome}")
                self._runs.update(run, {key: runs.failed(str(outcome))})

    def _interrupt(self, nodes: list[node.ServiceNode], run: str, parameters: str, limit: int, requester: str) -> None:
        starting = self._starting()
        if starting is not None:
            self.settings["interrupted_run"] = starting["run"]
        answers = self._cluster.statuses(nodes)
        busy = [one for one in nodes if isinstance(answer := answers[one.id], errors.ConPaaSError) or answer["alive"]]
        if starting is None and not any(not isinstance(answers[one.id], errors.ConPaaSError) for one in busy):
            self._raise_if_silent(answers)
            raise errors.WrongState(NOTHING_RUNS)
        self._runs.request(
            run, scripts.Script.INTERRUPT, node.ids_of(busy), parameters=parameters, version=self.code.current().id, requester=requester
        )
        who = cluster.members(self.nodes)

        def interrupt(one: node.ServiceNode) -> None:
            self._cluster.execute(one, scripts.Script.INTERRUPT, run=run, who=who, parameters=parameters, time_limit=limit)

        for key, outcome in self.agents.each(busy, interrupt).items():
            if isinstance(outcome, errors.ConPaaSError):
                self._runs.update(run, {key: runs.failed(str(outcome))})

    @expose.expose("GET")
    def get_script_status(self) -> dict[str, Any]:
        """Tell, per node, what each of the five scripts does or how it ended last."""
        self.check_state(State.RUNNING)
        agents: dict[str, dict[str, str]] = {}
        silent: dict[str, str] = {}
        for key, answer in self._cluster.statuses(self.nodes).items():
            if isinstance(answer, errors.ConPaaSError):
                silent[key] = str(answer)
                agents[key] = {script.filename: UNKNOWN for script in scripts.Script}
            else:
                agents[key] = answer["scripts"]
        if (starting := self._starting()) is not None:
            for key in agents.keys() & set(starting["nodes"]):
                agents[key] = {**agents[key], scripts.Script(starting["command"]).filename: scripts.RUNNING}
        return {"agents": agents, **({"errors": silent} if silent else {})}

    @expose.expose("GET", params.Param("limit", params.Integer(minimum=1, maximum=runs.KEPT), 20, help="At most so many, newest first."))
    def list_runs(self, limit: int) -> dict[str, Any]:
        """List the runs of scripts, newest first, with how they ended on each node."""
        self._cluster.refresh(self.nodes, lambda: self.idle)
        return {"runs": self._runs.all()[:limit]}

    @expose.expose("GET", params.Param("run", params.Text(max_length=80), help="Its id."))
    def get_run(self, run: str) -> dict[str, Any]:
        """Tell how a run of a script goes, or ended, on each node."""
        self._runs.get(run)
        self._cluster.refresh(self.nodes, lambda: self.idle)
        return {"run": self._runs.get(run)}

    @expose.expose(
        "GET",
        params.Param("agentId", params.Text(max_length=256), help="The id of a node."),
        params.Param(
            "script", params.Choice(tuple(script.filename for script in scripts.Script)), None, help="Its last run, if no run is given."
        ),
        params.Param("run", params.Text(max_length=80), None, help="The id of a run."),
        params.Param("stream", params.Choice(("stdout", "stderr")), "stdout", help="Which output."),
        params.Param("offset", params.Integer(minimum=0), 0, help="First byte."),
        params.Param("limit", params.Integer(minimum=1, maximum=manager.LOG_LIMIT), 1_000_000, help="At most so many bytes."),
    )
    def get_script_output(self, agent_id: str, script: str | None, run: str | None, stream: str, offset: int, limit: int) -> dict[str, Any]:
        """Read what a run of a script wrote on one node."""
        target = self.get_node(agent_id, "agentId")
        chosen = {name: value for name, value in (("run", run), ("script", script)) if value is not None}
        if not chosen:
            raise errors.InvalidArgument("Missing the mandatory parameter 'run'.", hint="give a run, or a script for its last run")
        return client.get_script_output(self.agents, target, **chosen, stream=stream, offset=offset, limit=limit)

    @expose.expose("GET")
    def get_time_limits(self) -> dict[str, Any]:
        """Tell how many seconds each script may take (0: no limit)."""
        return {"limits": {script.filename: self._limit(script) for script in scripts.Script}}

    @expose.expose(
        "POST",
        params.Param(
            "limits", params.Mapping(params.Integer(minimum=0, maximum=365 * _DAY)), help="Seconds by script (`run.sh` or `run`)."
        ),
    )
    def set_time_limits(self, limits: dict[str, int]) -> dict[str, Any]:
        """Set how many seconds scripts may take from their next start on; 0 means no limit (not for init.sh, which others wait for)."""
        changed = {}
        for name, seconds in limits.items():
            command = name.removesuffix(".sh")
            params.must_be_one_of("limits", command, [script.value for script in scripts.Script])
            if command == scripts.Script.INIT and seconds == 0:
                raise errors.InvalidArgument("Parameter 'limits': init.sh needs a limit, as the service waits for its end.")
            changed[command] = seconds
        self.settings["time_limits"] = {**self.settings.get("time_limits", {}), **changed}
        return self.get_time_limits()

    def _limit(self, script: scripts.Script) -> int:
        return int(self.settings.get("time_limits", {}).get(script.value, scripts.DEFAULT_TIME_LIMITS[script]))

    def _starting(self) -> dict[str, Any] | None:
        """The arguments of a request to run a script that was accepted and has not reached all nodes yet."""
        latest = self._store.operations.list(self.service_id, 1)
        return latest[0].args if latest and latest[0].kind == EXECUTE_SCRIPT.name and not latest[0].status.finished else None

    def _refuse_while_running(self, nodes: list[node.ServiceNode] | None = None) -> None:
        if self._starting() is not None:
            raise errors.WrongState(STILL_RUNNING)
        chosen = self.nodes if nodes is None else nodes
        deadline = time.monotonic() + scripts.NOTIFY_PATIENCE
        while busy := _running_scripts(answers := self._cluster.statuses(chosen)):
            if busy != {scripts.Script.NOTIFY.filename} or time.monotonic() >= deadline:
                raise errors.WrongState(STILL_RUNNING)
            time.sleep(_NOTIFY_INTERVAL)
        self._raise_if_silent(answers)

    @staticmethod
    def _raise_if_silent(answers: dict[str, dict[str, Any] | errors.ConPaaSError]) -> None:
        for key, answer in answers.items():
            if isinstance(answer, errors.ConPaaSError):
                raise errors.OperationFailed(f"Failed to obtain script status at node {key}: {answer}")

    # Volumes

    def check_create_volume(self, name: str, size: int, agent_id: str) -> None:
        self._refuse_while_running()

    def on_create_volume(self, target: node.ServiceNode, volume: node.ServiceVolume) -> None:
        agents.persistently(lambda: client.mount_volume(self.agents, target, str(volume.dev_name), volume.vol_name), _VOLUME_PATIENCE)

    def on_undo_create_volume(self, target: node.ServiceNode, volume: node.ServiceVolume) -> None:
        client.unmount_volume(self.agents, target, volume.vol_name)

    def check_delete_volume(self, target: node.ServiceNode, volume: node.ServiceVolume) -> None:
        self._refuse_while_running()

    def on_delete_volume(self, target: node.ServiceNode, volume: node.ServiceVolume) -> None:
        agents.persistently(lambda: client.unmount_volume(self.agents, target, volume.vol_name), _VOLUME_PATIENCE)


def _running_scripts(answers: Mapping[str, dict[str, Any] | errors.ConPaaSError]) -> set[str]:
    """The file names of the scripts that run on any node that answered."""
    found = [answer["scripts"] for answer in answers.values() if not isinstance(answer, errors.ConPaaSError)]
    return {name for statuses in found for name, status in statuses.items() if status == scripts.RUNNING}
