"""Runs as the user sees them: one script asked for on several nodes, with how it ended on each; durable and bounded in number."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, MutableMapping
from typing import Any, Final

from conpaas.core import errors

KEPT: Final = 100
REQUESTED: Final = "REQUESTED"
RUNNING: Final = "RUNNING"
QUEUED: Final = "QUEUED"
STOPPED: Final = "STOPPED"
SKIPPED: Final = "SKIPPED"
"""The code has no such script."""
FAILED: Final = "FAILED"
"""It could not be started, or the node went away before its end was seen."""

_OPEN = (REQUESTED, RUNNING, QUEUED)
_PREFIX = "run/"


class RunTable:
    """The runs of a service in its settings, at most `KEPT`. Each node's part of a run is what its agent says of it."""

    def __init__(self, settings: MutableMapping[str, Any]) -> None:
        self._settings = settings
        self._lock = threading.Lock()

    @staticmethod
    def new_id(command: str) -> str:
        """A fresh id; it names the command for the eye only."""
        return f"{command}-{secrets.token_hex(4)}"

    def request(
        self, run_id: str, command: str, nodes: Iterable[str], *, parameters: str = "", version: str = "", requester: str = ""
    ) -> None:
        """Write a run down before anything is asked of a node; known already, it stays as it is."""
        with self._lock:
            if _PREFIX + run_id in self._settings:
                return
            self._settings[_PREFIX + run_id] = {
                "run_id": run_id,
                "command": command,
                "script": f"{command}.sh",
                "parameters": parameters,
                "codeVersionId": version,
                "requester": requester,
                "requested": time.time(),
                "nodes": {node_id: {"state": REQUESTED} for node_id in nodes},
            }
            ids = sorted(
                (key for key in self._settings if key.startswith(_PREFIX)), key=lambda key: float(self._settings[key]["requested"])
            )
            for old in ids[: max(0, len(ids) - KEPT)]:
                del self._settings[old]

    def forget(self, run_id: str) -> None:
        """Undo `request`."""
        with self._lock:
            self._settings.pop(_PREFIX + run_id, None)

    def update(self, run_id: str, parts: dict[str, dict[str, Any]], *, reopen: bool = False) -> None:
        """Note what is known of some nodes' parts; a part whose end was noted is not changed any more, unless `reopen`."""
        with self._lock:
            run = self._settings.get(_PREFIX + run_id)
            if run is None:
                return
            old = run["nodes"]
            changed = {key: part for key, part in parts.items() if reopen or old.get(key, {}).get("state", REQUESTED) in _OPEN}
            if any(run["nodes"].get(node_id) != part for node_id, part in changed.items()):
                run["nodes"].update(changed)
                self._settings[_PREFIX + run_id] = run

    def get(self, run_id: str) -> dict[str, Any]:
        """One run. Raises NotFound."""
        run = self._settings.get(_PREFIX + run_id)
        if run is None:
            raise errors.NotFound(f"There is no run {run_id!r} in this service.")
        return _summed_up(run)

    def all(self) -> list[dict[str, Any]]:
        """Every run, newest first."""
        found = [self._settings[key] for key in self._settings if key.startswith(_PREFIX)]
        return sorted((_summed_up(run) for run in found), key=lambda run: float(run["requested"]), reverse=True)

    def open_parts(self, node_id: str | None = None) -> dict[str, list[str]]:
        """Runs whose end is not known yet, with the ids of those nodes (only `node_id`, if given)."""
        found = {run["run_id"]: open_nodes(run) for run in self.all()}
        return {run_id: [one for one in nodes if node_id in (None, one)] for run_id, nodes in found.items() if nodes}


def open_nodes(run: dict[str, Any]) -> list[str]:
    """The nodes whose part of a run has not ended, as far as is known."""
    return [node_id for node_id, part in run["nodes"].items() if part.get("state") in _OPEN]


def failed(reason: str) -> dict[str, Any]:
    """The part of a node on which the run failed for a reason outside the script."""
    return {"state": FAILED, "reason": reason}


def _summed_up(run: dict[str, Any]) -> dict[str, Any]:
    """Add the outcome over all nodes: `state`, `success` (None while it runs), `exit_code` (first that is not 0; 128 + n for signal n)."""
    parts = list(run["nodes"].values())
    running = any(part.get("state") in _OPEN for part in parts)
    codes = [_exit_code(part) for part in parts if part.get("state") not in _OPEN]
    worst = next((code for code in codes if code), 0)
    return {
        **run,
        "state": RUNNING if running else STOPPED,
        "success": None if running else worst == 0,
        "exit_code": None if running else worst,
    }


def _exit_code(part: dict[str, Any]) -> int:
    if part.get("state") in (FAILED, SKIPPED):
        return 1
    if part.get("return_code") is None:
        return 0
    code = int(part["return_code"])
    return code if code >= 0 else 128 - code
