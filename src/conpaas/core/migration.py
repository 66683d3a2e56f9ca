"""Nodes that move to another cloud, or to fresh VMs of the same one: what a request says, and the kinds of operation it leads to.

The steps are in `migration_steps`. New nodes, the *heirs*, take over the roles before those that move leave. Without a delay one operation
does all of it. With a delay it ends when the heirs work: both serve from then on, and when the former nodes leave is on record with them
(`records.Departure`). The service runs meanwhile, for the delay may take a day: it can be stopped, given other code, lose a node and have
it replaced. When the time has come the watch over nodes begins the second operation, which lets the former nodes go.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from conpaas.core import errors, node, params
from conpaas.core.operations import Operation, OperationKind, State, Step

LONGEST_DELAY: Final = 86_400

MIGRATE = OperationKind(
    "migrate_nodes",
    (
        Step("request", "request_heirs", "give_back_nodes"),
        Step("record", "record_nodes", "forget_new_nodes"),
        Step("disks", "attach_disks", "give_back_disks"),
        Step("join", "join", "undo_join"),
        Step("linger", "linger", "undo_linger"),
        Step("leave", "leave", "undo_leave"),
        Step("release", "release_victims", irreversible=True),
        Step("forget", "forget_victims", irreversible=True),
    ),
    allowed=(State.RUNNING,),
    transient=State.ADAPTING,
    final=State.RUNNING,
    help="Moving nodes",
)
RETIRE = OperationKind(
    "retire_nodes",
    (
        Step("leave", "leave", "undo_leave"),
        Step("release", "release_victims", irreversible=True),
        Step("forget", "forget_victims", irreversible=True),
    ),
    allowed=(State.RUNNING,),
    transient=State.ADAPTING,
    final=State.RUNNING,
    help="Letting nodes go that have moved",
)

KINDS: tuple[OperationKind, ...] = (MIGRATE, RETIRE)

_MOVES = params.ListOf(params.Mapping(), max_items=100)
_HELP: Final = "each {from_cloud, vmid, to_cloud}; vmid may also be the id of the node"

PARAMS: Final = (
    params.Param("nodes", _MOVES, default=None, help=f"which nodes move where, {_HELP}"),
    params.Param("migration_plan", _MOVES, default=None, help="the same by its other name"),
    params.Param(
        "delay",
        params.Integer(minimum=0, maximum=LONGEST_DELAY),
        default=0,
        help="seconds that the former nodes go on serving beside the new ones, for clients that still know their addresses",
    ),
)
"""The parameters of a request; classic clients call the plan `nodes` or `migration_plan`, depending on the type of the service."""

_FIELDS: Final = ("from_cloud", "vmid", "to_cloud")


@dataclasses.dataclass(frozen=True)
class Move:
    """A node, by its id, and the cloud it moves to."""

    node_id: str
    cloud: str

    def to_dict(self) -> dict[str, str]:
        return dataclasses.asdict(self)


Unknown = Callable[[str, str], errors.ConPaaSError]
"""Makes the error for a node that a service does not have, from the name of the cloud and the id of the VM."""


def unknown_node(nodes: Sequence[node.ServiceNode], cloud: str, vmid: str) -> errors.ConPaaSError:
    """The usual error for a node that a service does not have."""
    known = ", ".join(f"{one.cloud_name}:{one.vmid}" for one in nodes) or "none, as there are no nodes"
    which = f"Node {params.shown(vmid)} in cloud {params.shown(cloud)}"
    return errors.InvalidArgument(f"{which} is not a valid node of this service. It should be one of {known}")


def moves_in(name: str, plan: Sequence[Mapping[str, Any]], nodes: Sequence[node.ServiceNode], unknown: Unknown) -> list[Move]:
    """What a plan, the parameter `name`, asks of these nodes. Raises `errors.InvalidArgument`, and what `unknown` makes."""
    if not plan:
        raise errors.InvalidArgument("ERROR: argument is missing the nodes to migrate.")
    found: dict[str, Move] = {}
    for entry in plan:
        source, vmid, target = _words(name, entry)
        moving = _find(nodes, source, vmid)
        if moving is None:
            raise unknown(source, vmid)
        if moving.id in found:
            raise errors.InvalidArgument(f'Parameter "{name}" names node {moving.id} twice; it can move to one cloud only.')
        found[moving.id] = Move(moving.id, target)
    return list(found.values())


def _words(name: str, entry: Mapping[str, Any]) -> tuple[str, str, str]:
    """The fields of one element; numbers are taken for ids of VMs, too."""
    surplus = sorted(set(entry) - set(_FIELDS))
    if surplus:
        raise errors.InvalidArgument(f'Unknown field {params.shown(surplus[0])} in parameter "{name}"; it has {", ".join(_FIELDS)}.')
    values = []
    for field in _FIELDS:
        value = entry.get(field, "")
        if isinstance(value, bool) or not isinstance(value, str | int) or len(str(value)) > 256:
            raise errors.InvalidArgument(f'The {field} in parameter "{name}" should be a short text, not {params.shown(value)}.')
        values.append(str(value))
    source, vmid, target = values
    if not source or not target:
        clouds = f"from_cloud={_quoted(source)} to_cloud={_quoted(target)}"
        raise errors.InvalidArgument(f'Missing cloud name in parameter "{name}": {clouds}')
    return source, vmid, target


def _quoted(text: str) -> str:
    return f'"{params.shown(text)}"' if text else '""'


def _find(nodes: Sequence[node.ServiceNode], cloud: str, vmid: str) -> node.ServiceNode | None:
    on_cloud = [one for one in nodes if one.cloud_name == node.inner_cloud(cloud)]
    return next((one for one in on_cloud if vmid in (one.vmid, one.id)), None)


def heirs_in(op: Operation) -> dict[str, str]:
    """Who takes whose place in an operation by which nodes move, by node id."""
    return dict(op.data.get("heirs") or op.args.get("heirs") or {})
