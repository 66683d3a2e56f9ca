"""The verbs that the helloworld service adds to the command line."""

from __future__ import annotations

from typing import Any


def verbs(group: Any) -> None:
    """Fill the verb group that the command line hands over (documented in the client's plug-in page)."""

    @group.verb("get_helloworld")
    def get_helloworld(service: Any) -> None:
        """Print the greeting of every node."""
        reply = service.get("get_helloworld")
        service.show(reply.get("helloworld", "") if isinstance(reply, dict) else str(reply), reply)
