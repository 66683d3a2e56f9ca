"""Who is in the service, as this node knows it: `agents.json` for the scripts, and the three classic variables."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping

from conpaas.core import errors, file

MASTER = "master"


class Membership:
    """The members of the service. `agents.json` is replaced as a whole; what it says survives a restart of the agent."""

    def __init__(self, path: pathlib.Path, notes: file.Notes) -> None:
        self.path = path
        self._notes = notes

    def join(self, members: str, my_ip: str) -> None:
        """Take this node's own address and the list of all members (JSON text as it came over the wire)."""
        self._notes.set(my_ip=my_ip)
        self.update(members)

    def update(self, members: str) -> None:
        """Replace the list of members."""
        checked = _check(members)
        file.write_atomically(self.path, json.dumps(checked))

    def members(self) -> list[dict[str, str]]:
        """The members, master first; empty before the node joined."""
        try:
            return list(json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return []

    def give(self, variables: Mapping[str, str] | None) -> None:
        """Replace the variables that other services give to the scripts; None: leave them as they are."""
        if variables is not None and dict(variables) != self.given():
            self._notes.set(given=dict(variables))

    def given(self) -> dict[str, str]:
        """The variables that other services give to the scripts."""
        return dict(self._notes.get("given", {}))

    def environment(self) -> dict[str, str]:
        """MY_IP, MY_ROLE and MASTER_IP, in that order of importance; empty texts before the node joined."""
        my_ip = str(self._notes.get("my_ip", ""))
        members = self.members()
        return {
            "MY_IP": my_ip,
            "MY_ROLE": next((member["role"] for member in members if member["ip"] == my_ip), ""),
            "MASTER_IP": next((member["ip"] for member in members if member["role"] == MASTER), ""),
        }


def _check(members: str) -> list[dict[str, str]]:
    try:
        decoded = json.loads(members)
    except ValueError as error:
        raise errors.InvalidArgument(f"Parameter 'agents_info': it should be a JSON list ({error}).") from error
    if not isinstance(decoded, list):
        raise errors.InvalidArgument("Parameter 'agents_info': it should be a JSON list.")
    for member in decoded:
        if not isinstance(member, dict) or not all(isinstance(member.get(key), str) for key in ("id", "ip", "role")):
            raise errors.InvalidArgument("Parameter 'agents_info': every agent should have the texts id, ip and role.")
    return decoded
