"""The verbs that the generic service adds to the command line: code, volumes, and running its scripts."""

from __future__ import annotations

import re
import time
from typing import Any

SCRIPTS = ("init.sh", "notify.sh", "run.sh", "interrupt.sh", "cleanup.sh")
_STOPPED = re.compile(r"STOPPED \(return code (-?\d+)\)")
_KILLED_BY_SIGNAL = 128


def verbs(group: Any) -> None:
    """Fill the verb group that the command line hands over (documented in the client's plug-in page)."""
    group.code_verbs(enable="enable_code")
    group.volume_verbs()
    parameters = group.option("--parameters", "-p", default="", help="Arguments of the script, as one text.")

    @group.verb("run", parameters)
    def run(service: Any, parameters: str) -> None:
        """Execute run.sh on all the agents; with --wait, wait for it and exit with its code."""
        _execute(service, "run", parameters, "Service started executing 'run.sh' on all the agents.")

    @group.verb("interrupt", parameters)
    def interrupt(service: Any, parameters: str) -> None:
        """Execute interrupt.sh on all the agents, or kill all scripts if it is already running."""
        _execute(
            service,
            "interrupt",
            parameters,
            "Service started executing 'interrupt.sh' on all the agents or killing all scripts if 'interrupt.sh' is already running.",
        )

    @group.verb("cleanup", parameters)
    def cleanup(service: Any, parameters: str) -> None:
        """Execute cleanup.sh on all the agents; with --wait, wait for it and exit with its code."""
        _execute(service, "cleanup", parameters, "Service started executing 'cleanup.sh' on all the agents.")

    _add_run_verbs(group)

    @group.verb("get_script_status")
    def get_script_status(service: Any) -> None:
        """Print what each script does, or did last, on every agent."""
        reply = service.get("get_script_status")
        service.show(_status_text(_agents(reply)), reply)


def _add_run_verbs(group: Any) -> None:
    @group.verb("list_runs", group.option("--limit", kind="integer", default=20, help="At most so many."))
    def list_runs(service: Any, limit: int) -> None:
        """List the runs of scripts, newest first."""
        runs = [run for run in service.field(service.get("list_runs", limit=limit), "runs", list) if isinstance(run, dict)]
        rows = [{**run, "requested": _time(run), "nodes": len(service.field(run, "nodes", dict))} for run in runs]
        service.table(("run_id", "script", "state", "exit_code", "nodes", "requested"), rows, "No existing runs.", runs)

    @group.verb(
        "get_script_output",
        group.argument("agent_id"),
        group.option("--run", help="The id of a run (see list_runs)."),
        group.option("--script", choices=SCRIPTS, default="run.sh", help="Its last run, if no --run is given."),
        group.option("--stream", choices=("stdout", "stderr"), default="stdout"),
    )
    def get_script_output(service: Any, agent_id: str, run: str | None, script: str, stream: str) -> None:
        """Print what a script wrote on one node."""
        chosen = {"run": run} if run else {"script": script}
        reply = service.get("get_script_output", agentId=agent_id, stream=stream, **chosen)
        service.show(service.field(reply, "output", str).removesuffix("\n"), reply)

    @group.verb("get_time_limits")
    def get_time_limits(service: Any) -> None:
        """Print how many seconds each script may take; 0 is no limit."""
        service.pairs(service.field(service.get("get_time_limits"), "limits", dict))

    @group.verb("set_time_limit", group.argument("script", choices=SCRIPTS), group.argument("seconds", kind="integer"))
    def set_time_limit(service: Any, script: str, seconds: int) -> None:
        """Set how many seconds a script may take from its next start on; 0 is no limit."""
        service.pairs(service.field(service.post("set_time_limits", limits={script: seconds}), "limits", dict))


def _time(run: dict[str, Any]) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(run["requested"]))) if isinstance(run.get("requested"), float) else "N/A"


def _execute(service: Any, command: str, parameters: str, started: str) -> None:
    reply = service.post("execute_script", command=command, parameters=parameters)
    service.show(started, reply)
    if not service.waiting(default=False):
        return
    run = service.field(reply, "run_id", str)
    if not run:
        statuses = service.poll(lambda: _finished(service, f"{command}.sh"), f"{command}.sh to finish")
        service.finish(_exit_code(statuses))
    service.finish(service.poll(lambda: _run_code(service, run), f"{command}.sh to finish"))


def _run_code(service: Any, run: str) -> int | None:
    """The exit code of a run over all nodes, None while it goes on."""
    found = service.field(service.get("get_run", run=run), "run", dict)
    code = found.get("exit_code")
    return code if isinstance(code, int) else None


def _finished(service: Any, script: str) -> dict[str, str] | None:
    """The status of `script` per agent as soon as no agent runs anything, else None."""
    agents = _agents(service.get("get_script_status"))
    if any(status == "RUNNING" for statuses in agents.values() for status in statuses.values()):
        return None
    return {agent: statuses.get(script, "NEVER STARTED") for agent, statuses in agents.items()}


def _exit_code(statuses: dict[str, str]) -> int:
    """The first exit code other than 0 in the order of agents; 128 + n for a script killed by signal n; 1 if it never ran."""
    for _, status in sorted(statuses.items()):
        matched = _STOPPED.fullmatch(status)
        code = int(matched.group(1)) if matched else 1
        if code:
            return code if code > 0 else _KILLED_BY_SIGNAL - code
    return 0


def _agents(reply: Any) -> dict[str, dict[str, str]]:
    agents = reply.get("agents") if isinstance(reply, dict) else None
    if not isinstance(agents, dict):
        return {}
    return {str(agent): statuses for agent, statuses in agents.items() if isinstance(statuses, dict)}


def _status_text(agents: dict[str, dict[str, str]]) -> str:
    if not agents:
        return "No generic agents are running."
    lines = [""]
    for agent, statuses in sorted(agents.items()):
        lines.append(f"Agent {agent}:")
        lines.extend(f"  {script}\t{statuses.get(script, 'NEVER STARTED')}" for script in SCRIPTS)
        lines.append("")
    return "\n".join(lines)
