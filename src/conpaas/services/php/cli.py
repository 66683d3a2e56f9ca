"""The verbs that the php service adds to the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from conpaas.services.webservers import cli


def verbs(group: Any) -> None:
    """Fill the verb group that the command line hands over (documented in the client's plug-in page)."""
    cli.add(group, enable="update_php_configuration")

    @group.verb("get_php_config")
    def get_php_config(service: Any) -> None:
        """Print the active code version and the PHP settings."""
        service.pairs(service.get("get_configuration"))

    @group.verb("set_php_config", group.argument("assignments", many=True, help="NAME=VALUE, such as memory_limit=256M."))
    def set_php_config(service: Any, assignments: Sequence[str]) -> None:
        """Change PHP settings."""
        wanted = cli.assigned(service, assignments, removable=False)
        service.change("Changing PHP settings", lambda: service.post("update_php_configuration", phpconf=wanted), until=cli.SETTLED)

    @group.verb("debug", group.argument("mode", choices=("on", "off")))
    def debug(service: Any, mode: str) -> None:
        """Have PHP show its errors to visitors, or stop that."""
        value = mode.capitalize()
        service.change(
            f"Setting debug mode to '{value}'",
            lambda: service.post("update_php_configuration", phpconf={"display_errors": value}),
            until=cli.SETTLED,
            done=f"Debug mode set to '{value}'.",
        )
