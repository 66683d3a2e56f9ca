"""The classic notation of a migration plan on a command line: `c1:vmid:c2[,c1:vmid:c2]*`."""

from __future__ import annotations

from conpaas.core import errors

METAVAR = "FROM:VMID:TO[,FROM:VMID:TO]..."


def plan_in(text: str) -> list[dict[str, str]]:
    """The plan as managers take it; ids of VMs may hold colons, names of clouds do not. Raises `errors.InvalidArgument`."""
    return [_move_in(word.strip()) for word in text.split(",") if word.strip()] or [_move_in(text)]


def _move_in(word: str) -> dict[str, str]:
    source, _, rest = word.partition(":")
    vmid, _, target = rest.rpartition(":")
    if not (source and vmid and target):
        raise errors.InvalidArgument(
            f"Cannot read the move '{word}'.", hint="write CLOUD:VMID:OTHER_CLOUD, such as default:i-17:ec2, and a comma between two"
        )
    return {"from_cloud": source, "vmid": vmid, "to_cloud": target}


def in_words(plan: list[dict[str, str]]) -> str:
    """The nodes of a plan and where they go."""
    return ", ".join(f"{move['vmid']} to {move['to_cloud']}" for move in plan)
