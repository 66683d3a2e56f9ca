"""What the nodes of a mysql service are to each other: who is a member, who balances, who may leave, who becomes the writer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from conpaas.core import errors, node
from conpaas.services.mysql import spec


def of_role(nodes: Iterable[node.ServiceNode], role: str) -> list[node.ServiceNode]:
    """The nodes that play a role."""
    return [one for one in nodes if one.role == role]


def counts(nodes: Iterable[node.ServiceNode]) -> dict[str, int]:
    """How many nodes play each role."""
    found = dict.fromkeys(spec.ROLES, 0)
    for one in nodes:
        found[one.role] = found.get(one.role, 0) + 1
    return found


def member_of(one: node.ServiceNode, port: int) -> spec.Member:
    """A node as the other nodes of the service reach it: by its private address."""
    return spec.Member(one.id, one.private_ip or one.ip, port)


def victims(nodes: Sequence[node.ServiceNode], roles: Mapping[str, int], order: Sequence[str]) -> list[node.ServiceNode]:
    """The nodes that a removal takes: the newest first, and of the members the writer (the first in `order`) last of all."""
    chosen: list[node.ServiceNode] = []
    for role, count in roles.items():
        newest_first = list(reversed(of_role(nodes, role)))
        newest_first.sort(key=lambda one: one.id == (order[0] if order else None))
        chosen += newest_first[:count]
    return chosen


def check_remove(nodes: Sequence[node.ServiceNode], roles: Mapping[str, int]) -> None:
    """Raise the classic refusal when too many nodes would go: one member must stay, load balancers may all go."""
    present = counts(nodes)
    for role, count in roles.items():
        removable = present.get(role, 0) - (1 if role == spec.MYSQL else 0)
        if count > removable:
            available = f"only {removable}" if removable > 0 else "none"
            raise errors.InvalidArgument(f"Requesting to delete {count} {role} nodes while {available} can be removed")


def check_staying(looks: Mapping[str, Mapping[str, Any]], leaving: Collection[str]) -> None:
    """Raise unless somebody stays who has all the data and takes requests."""
    if not any(is_synced(look) for key, look in looks.items() if key not in leaving):
        told = ", ".join(f"{key} is {spec.state_of(look)}" for key, look in sorted(looks.items()) if key not in leaving)
        raise errors.OperationFailed(
            f"Nobody could take over: of the nodes that would stay, none is Synced ({told or 'none answers'}).",
            hint="wait until the cluster is well again (get_service_info tells), or remove other nodes",
        )


def is_primary(look: Mapping[str, Any]) -> bool:
    """Whether a member belongs to the part of the cluster that may go on."""
    return look.get("daemon") == "RUNNING" and look.get("cluster_status") == "Primary"


def is_synced(look: Mapping[str, Any]) -> bool:
    """Whether a member has all the data and takes requests."""
    return is_primary(look) and bool(look.get("ready")) and look.get("state") == "Synced"


def is_full(look: Mapping[str, Any]) -> bool:
    """Whether a member takes no part for want of room on its disk. It does again by itself when there is some, and until then nobody can
    help it."""
    return bool(look.get("full"))


def is_at_work(look: Mapping[str, Any]) -> bool:
    """Whether a member is part of the cluster, or on its way into it."""
    return is_primary(look) and look.get("state") in ("Synced", "Donor/Desynced", "Joined", "Joining", "Joiner")
