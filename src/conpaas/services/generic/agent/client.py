"""What a manager may ask of an agent of the generic service: one thin function per call."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from conpaas.core import agents, node

_UPLOAD_TIMEOUT = 600.0
_VOLUME_TIMEOUT = 700.0
_ENDING_TIMEOUT = 90.0


def init_agent(caller: agents.AgentCaller, target: node.ServiceNode, members: Sequence[Mapping[str, str]]) -> None:
    caller.post(target, "init_agent", agents_info=json.dumps(members), ip=target.ip)


def stage_code(caller: agents.AgentCaller, target: node.ServiceNode, version_id: str, activation: str, archive: pathlib.Path) -> None:
    caller.upload(target, "stage_code", {"file": archive}, _timeout=_UPLOAD_TIMEOUT, codeVersionId=version_id, activation=activation)


def activate_code(
    caller: agents.AgentCaller,
    target: node.ServiceNode,
    version_id: str,
    activation: str,
    variables: Mapping[str, str],
    time_limit: int,
) -> str | None:
    """Returns the id of the run of init.sh, None if the code has none."""
    arguments: dict[str, Any] = {
        "codeVersionId": version_id,
        "activation": activation,
        "variables": dict(variables),
        "timeLimit": time_limit,
    }
    run: str | None = caller.post(target, "activate_code", _timeout=_ENDING_TIMEOUT, **arguments)["run"]
    return run


def execute_script(
    caller: agents.AgentCaller,
    target: node.ServiceNode,
    command: str,
    *,
    run: str,
    members: Sequence[Mapping[str, str]],
    variables: Mapping[str, str],
    parameters: str = "",
    time_limit: int,
) -> dict[str, Any]:
    """Returns `run` (its id, None if the code has no such script) and `ends` (ids of the runs that an interrupt ends)."""
    arguments: dict[str, Any] = {
        "command": command,
        "parameters": parameters,
        "agents_info": json.dumps(members),
        "variables": dict(variables),
        "run": run,
        "timeLimit": time_limit,
    }
    return dict(caller.post(target, "execute_script", **arguments))


def get_script_status(caller: agents.AgentCaller, target: node.ServiceNode) -> dict[str, Any]:
    """Returns `scripts` (status text by file name) and `alive` (whether interrupt could end anything)."""
    return dict(caller.get(target, "get_script_status", _timeout=10.0))


def get_run(caller: agents.AgentCaller, target: node.ServiceNode, run: str, wait: int = 0) -> dict[str, Any]:
    return dict(caller.get(target, "get_run", _timeout=wait + 10.0, run=run, wait=wait)["run"])


def get_script_output(caller: agents.AgentCaller, target: node.ServiceNode, **arguments: Any) -> dict[str, Any]:
    return dict(caller.get(target, "get_script_output", **arguments))


def end_scripts(caller: agents.AgentCaller, target: node.ServiceNode) -> None:
    caller.post(target, "end_scripts", _timeout=_ENDING_TIMEOUT)


def mount_volume(caller: agents.AgentCaller, target: node.ServiceNode, device: str, name: str) -> None:
    caller.post(target, "mount_volume", _timeout=_VOLUME_TIMEOUT, dev_name=device, vol_name=name)


def unmount_volume(caller: agents.AgentCaller, target: node.ServiceNode, name: str) -> None:
    caller.post(target, "unmount_volume", _timeout=_ENDING_TIMEOUT, vol_name=name)
