"""The verbs that the java service adds to the command line."""

from __future__ import annotations

from typing import Any

from conpaas.services.webservers import cli


def verbs(group: Any) -> None:
    """Fill the verb group that the command line hands over (documented in the client's plug-in page)."""
    cli.add(group, enable="update_java_configuration")
