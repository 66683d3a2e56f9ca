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

    @group.verb("set_string", group.argument("string"))
    def set_string(service: Any, string: str) -> None:
        """Change what every node answers, now and in the future."""
        if service.get("get_service_info")["state"] == "RUNNING":
            service.change("Changing the string", lambda: service.post("set_string", string=string))
        else:
            service.show("The string is set for nodes to come.", service.post("set_string", string=string))
