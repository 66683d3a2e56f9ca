"""The manager of the php service: what is PHP's own of web hosting, the classic calls first of all."""

from __future__ import annotations

import dataclasses
from typing import Any

from conpaas.core import errors, expose, params
from conpaas.core.https import identity
from conpaas.services.webservers import phpconf, spec
from conpaas.services.webservers.manager import deploy, manager, sites

_NO_CDN = "A content delivery network cannot be used: ConPaaS has none any more."
_NO_AUTOSCALING = "This service cannot scale itself; add and remove nodes with add_nodes and remove_nodes."
_STRATEGIES = ("low", "medium_down", "medium_up", "medium", "high")
_MINUTES = params.Integer(minimum=0)


class PhpManager(manager.WebManager):
    """Web sites in PHP."""

    kind = spec.PHP
    shown_type = "PHP"
    default_name = "code-default.tar"

    @expose.expose("GET")
    def get_configuration(self) -> dict[str, Any]:
        """Tell the enabled code version and the PHP settings."""
        return {
            **super().get_configuration(),
            "phpconf": self.site.configuration.php_settings(),
            "cdn": False,
            "autoscaling": False,
        }

    @expose.expose(
        "POST",
        params.Param("codeVersionId", params.Text(max_length=80), None, help="The version to use from now on."),
        params.Param("phpconf", params.Mapping(), None, help=f"Settings by name: {', '.join(phpconf.DEFAULTS)}."),
    )
    def update_php_configuration(
        self, code_version_id: str | None, phpconf: dict[str, Any] | None, caller: identity.PeerIdentity | None
    ) -> dict[str, Any]:
        """Enable a code version, change PHP settings, or both at once; without an interruption, or not at all."""
        if code_version_id is None and not phpconf:
            raise errors.InvalidArgument('Missing argument "at least one of "codeVersionId" or "phpconf""')
        edit = _php_edit(phpconf or {})
        return self.change(edit, caller) if code_version_id is None else self.enable(code_version_id, caller, edit)

    @expose.expose(
        "POST",
        params.Param("enable", params.Boolean(), help="Anything but false is refused."),
        params.Param("address", params.Json(), False, help="Ignored."),
    )
    def cdn_enable(self, enable: bool, address: Any) -> dict[str, Any]:
        """Kept for classic clients: there is no content delivery network."""
        if enable:
            raise errors.InvalidArgument(_NO_CDN, hint="put one of your choice before the service's domain")
        return {"cdn": False}

    @expose.expose(
        "POST",
        params.Param("cool_down", _MINUTES, None, help="Ignored."),
        params.Param("reponse_time", _MINUTES, None, help="Ignored; the classic spelling."),
        params.Param("response_time", _MINUTES, None, help="Ignored."),
        params.Param("strategy", params.Choice(_STRATEGIES), None, help="Ignored."),
    )
    def on_autoscaling(
        self, cool_down: int | None, reponse_time: int | None, response_time: int | None, strategy: str | None
    ) -> dict[str, Any]:
        """Kept for classic clients: services do not scale themselves."""
        raise errors.InvalidArgument(_NO_AUTOSCALING)

    @expose.expose("POST")
    def off_autoscaling(self) -> dict[str, Any]:
        """Kept for classic clients: services do not scale themselves."""
        return {"autoscaling": False}

    # Manifests

    def manifest_edit(self, name: str, value: Any) -> deploy.Edit:
        if name == "PhpConf":
            return _php_edit(params.check_arguments((params.Param(name, params.Mapping()),), {name: value})["php_conf"])
        return super().manifest_edit(name, value)

    def on_export_manifest(self, limit: int) -> dict[str, Any]:
        changed = dict(self.site.configuration.phpconf)
        return super().on_export_manifest(limit) | ({"PhpConf": changed} if changed else {})


def _php_edit(settings: dict[str, Any]) -> deploy.Edit:
    """Set PHP settings; all are checked before one is changed."""
    checked = phpconf.check_all(settings)

    def edit(configuration: sites.Configuration) -> sites.Configuration:
        return configuration.with_php(checked) if checked else dataclasses.replace(configuration)

    return edit
