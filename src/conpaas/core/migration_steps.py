"""The steps by which nodes move: their heirs come and take over, stay beside them for a while if that is wished, and then they leave."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from conpaas.core import errors, lifecycle, migration, node, operations


@dataclasses.dataclass
class MigrationSteps(lifecycle.Lifecycle):
    """The steps of `migration.KINDS` that are not those of other kinds. `clock` gives the seconds since the epoch."""

    clock: Callable[[], float] = time.time

    def request_heirs(self, op: operations.Operation) -> None:
        """Ask for a node with the same role for each that moves; who takes whose place is in `op.data["heirs"]`."""
        service = self.host.manager_of(op)
        moves = op.args["moves"]

        def describe() -> list[dict[str, Any]]:
            service.refuse_while_moving()
            present = {one.id: one for one in service.nodes}
            if not all(move["node_id"] in present for move in moves):
                raise errors.OperationFailed("The nodes of the service changed meanwhile; ask again.")
            moving = [(present[move["node_id"]], move["cloud"]) for move in moves]
            return [service.get_role_sninfo(service.get_heir_role(one), cloud) for one, cloud in moving]

        self._request_nodes(op, describe)
        heirs = _in_order(op.data["nodes_info"], lifecycle.nodes_in(op, "nodes"))
        op.data["heirs"] = {move["node_id"]: one.id for move, one in zip(moves, heirs, strict=True)}
        op.data["reason"] = "; ".join(f"{former} moved: {heir} has its place" for former, heir in op.data["heirs"].items())

    def linger(self, op: operations.Operation) -> None:
        """Put on record when the nodes leave, if that is not now. The time is the same however often this is repeated."""
        delay = op.args["delay"]
        if not delay:
            return
        op.data.setdefault("leave_at", self.clock() + delay)
        op.save()
        self.host.store.nodes.set_departures(op.target, op.data["heirs"], op.data["leave_at"])
        op.note(f"In service for {delay} seconds more: {', '.join(op.data['heirs'])}")

    def undo_linger(self, op: operations.Operation) -> None:
        self.host.store.nodes.set_departures(op.target, op.data["heirs"], None)

    def leave(self, op: operations.Operation) -> Any:
        """Take exactly the nodes that have heirs out of service, those that are still in it."""
        heirs = migration.heirs_in(op)
        leaving = [one for one in self.host.manager_of(op).nodes if one.id in heirs]
        if op.args.get("delay") or not leaving:
            op.data["removed"] = []
            return None
        op.data["victims"] = node.ids_of(leaving)
        if self._take_out(op, dict(collections.Counter(one.role for one in leaving))) is False:
            return False
        removed = {one["id"] for one in op.data["removed"]}
        if removed != set(op.data["victims"]):
            raise errors.OperationFailed(f"The service let {', '.join(sorted(removed)) or 'no node'} go instead of those that move.")
        op.data.setdefault("reason", f"{', '.join(op.data['victims'])} left, having moved")
        return None

    def undo_leave(self, op: operations.Operation) -> None:
        if op.data.get("victims"):
            super().undo_leave(op)


def _in_order(wanted: Sequence[Mapping[str, Any]], nodes: Sequence[node.ServiceNode]) -> list[node.ServiceNode]:
    """The nodes in the order in which they were asked for."""
    left, found = list(nodes), []
    for info in wanted:
        asked = (info.get("role", node.ROLE_REGULAR), node.inner_cloud(info.get("cloud")))
        fitting = next((one for one in left if (one.role, one.cloud_name) == asked), left[0])
        left.remove(fitting)
        found.append(fitting)
    return found
