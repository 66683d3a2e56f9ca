"""What stands in for a service whose type cannot be loaded."""

from __future__ import annotations

from typing import Any

from conpaas.core import errors, expose, manager, node, states


class BrokenService(manager.BaseManager):
    """Stands for a service whose type cannot be loaded: it shows ERROR and why, and can be stopped or removed."""

    reason = ""

    @property
    def state(self) -> states.State:
        recorded = super().state
        return states.State.ERROR if recorded in states.STABLE else recorded

    def on_start(self, nodes: list[node.ServiceNode]) -> Any:
        raise errors.OperationFailed(self.reason)

    def on_add_nodes(self, nodes: list[node.ServiceNode]) -> Any:
        raise errors.OperationFailed(self.reason)

    def on_remove_nodes(self, roles: dict[str, int]) -> list[node.ServiceNode]:
        raise errors.OperationFailed(self.reason)

    @expose.expose("GET")
    def get_service_info(self) -> dict[str, Any]:
        """Tell the state and the type of the service, and why it cannot be managed."""
        return {"state": str(self.state), "type": self.type, "reason": self.reason}
