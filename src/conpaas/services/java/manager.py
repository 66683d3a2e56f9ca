"""The manager of the java service: what is Java's own of web hosting."""

from __future__ import annotations

from typing import Any

from conpaas.core import expose, params
from conpaas.core.https import identity
from conpaas.services.webservers import spec
from conpaas.services.webservers.manager import manager


class JavaManager(manager.WebManager):
    """Web applications in Java."""

    kind = spec.JAVA
    shown_type = "JAVA"
    default_name = "code-default.war"

    @expose.expose("POST", params.Param("codeVersionId", params.Text(max_length=80), help="The version to use from now on."))
    def update_java_configuration(self, code_version_id: str, caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """Enable a code version; without an interruption, or not at all."""
        return self.enable(code_version_id, caller)
