"""The calls by which users set a site up: weights, environment, web settings, cron, domains."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, Final

from conpaas.core import errors, expose, params
from conpaas.core.https import identity
from conpaas.services.webservers import schedules, spec
from conpaas.services.webservers.manager import certificates, deploy, placement, sites

Caller = identity.PeerIdentity | None

MAX_CRON: Final = 50
MAX_DOMAINS: Final = 50
MAX_VARIABLES: Final = 200
MAX_ENVIRONMENT: Final = 64 * 1024
"""Characters that all variables and secrets may have together."""

_WEIGHTS = params.Mapping(params.Integer(minimum=1, maximum=spec.MAX_WEIGHT))
_TEXTS_OR_NULL = params.Mapping(params.Json())


class SettingsCalls(deploy.Deploying):
    """Adds the calls for settings; all end in `change`."""

    # Weights

    @expose.expose(
        "POST",
        params.Param("web", _WEIGHTS, None, help="Weights of web nodes, by node id."),
        params.Param("backend", _WEIGHTS, None, help="Weights of backend nodes, by node id."),
    )
    def update_nodes_weight(self, web: dict[str, int] | None, backend: dict[str, int] | None, caller: Caller) -> dict[str, Any]:
        """Set how many requests nodes get, in proportion to the others of their role (100 unless set)."""
        given = {spec.WEB: web or {}, spec.BACKEND: backend or {}}
        nodes = self.nodes
        for role, weights in given.items():
            known = {one.id for one in nodes if role in placement.roles_of(one.role)}
            if not known.issuperset(weights):
                raise errors.InvalidArgument(f"Invalid arguments (The {role} node ID does not exist)")
        ids = {one.id for one in nodes}

        def edit(configuration: sites.Configuration) -> sites.Configuration:
            merged = {role: {**configuration.weights.get(role, {}), **weights} for role, weights in given.items()}
            kept = {role: {key: number for key, number in weights.items() if key in ids} for role, weights in merged.items()}
            return dataclasses.replace(configuration, weights=kept)

        return self.change(edit, caller)

    # Environment

    @expose.expose("GET")
    def get_environment(self) -> dict[str, Any]:
        """Tell the environment variables of the site, the names of its secrets, and the names of what other services gave it (`given`)."""
        configuration = self.site.configuration
        given = {source: sorted(variables) for source, variables in configuration.given.items()}
        return {"environment": dict(configuration.environment), "secrets": sorted(configuration.secrets), "given": given}

    @expose.expose(
        "POST",
        params.Param("environment", _TEXTS_OR_NULL, None, help="Variables to set, by name; null removes one."),
        params.Param("secrets", _TEXTS_OR_NULL, None, help="The same for variables whose values are never told again."),
    )
    def set_environment(self, environment: dict[str, Any] | None, secrets: dict[str, Any] | None, caller: Caller) -> dict[str, Any]:
        """Set or remove environment variables of the site; all others stay as they are."""
        if not environment and not secrets:
            raise errors.InvalidArgument('Missing argument "at least one of "environment" or "secrets""')
        return self.change(_environment_edit(environment or {}, secrets or {}), caller)

    def sources(self) -> list[str]:
        return sorted(self.site.configuration.given)

    def variables_from(self, source: str) -> dict[str, str]:
        return dict(self.site.configuration.given.get(source, {}))

    def take_variables(self, source: str, variables: Mapping[str, str], caller: str) -> dict[str, Any]:
        spec.check_environment(variables)
        return self.change(lambda configuration: configuration.with_given(source, variables), caller)

    # Web settings

    @expose.expose("GET")
    def get_web_settings(self) -> dict[str, Any]:
        """Tell the web settings of the site."""
        return {"settings": {name: self.site.configuration.setting(name) for name in sites.settings_of(self.kind)}}

    @expose.expose(
        "POST", params.Param("settings", params.Mapping(), help="By name; null sets the default again. `get_web_settings` tells the names.")
    )
    def update_web_settings(self, settings: dict[str, Any], caller: Caller) -> dict[str, Any]:
        """Change web settings; those not given stay as they are."""
        if not settings:
            raise errors.InvalidArgument(f"Need at least one web setting; there are: {', '.join(sites.settings_of(self.kind))}.")
        return self.change(self._web_edit(settings), caller)

    def _web_edit(self, settings: Mapping[str, Any]) -> deploy.Edit:
        known = sites.settings_of(self.kind)
        given = {name: known[name].default if value is None and name in known else value for name, value in settings.items()}
        checked = sites.check_web_settings(self.kind, given)
        return lambda configuration: configuration.with_web(checked)

    # Cron

    @expose.expose("GET")
    def get_cron(self) -> dict[str, Any]:
        """List the commands that run at set times, and the node they run on."""
        return {"entries": [one.to_dict() for one in self.site.configuration.cron], "node": self.memory.cron_node}

    @expose.expose(
        "POST",
        params.Param(
            "entries",
            params.ListOf(params.Mapping(), max_items=MAX_CRON),
            help="All there shall be, each `{schedule, command}`; schedules as in crontab(5).",
        ),
    )
    def set_cron(self, entries: list[dict[str, Any]], caller: Caller) -> dict[str, Any]:
        """Have commands run at set times, in the directory of the code, on one of the backends."""
        return self.change(_cron_edit(entries), caller)

    # Domains

    @expose.expose("GET")
    def list_domains(self) -> dict[str, Any]:
        """List the domains of the site with what their certificates say."""
        return {"domains": [_domain_to_wire(one) for one in self.site.configuration.domains]}

    @expose.expose(
        "UPLOAD",
        params.Param("domain", params.Text(max_length=300), help="A full name; it must lead to a proxy of this service."),
        params.Param("certificate", params.Upload(), None, help="PEM: the domain's certificate, then those that signed it."),
        params.Param("key", params.Upload(), None, help="PEM: the key of the certificate, without a password."),
    )
    def set_domain(
        self, domain: str, certificate: params.UploadedFile | None, key: params.UploadedFile | None, caller: Caller
    ) -> dict[str, Any]:
        """Have the site answer to a domain, over https if there is a certificate; or replace the certificate."""
        name = spec.check_domain(domain)
        if (certificate is None) != (key is None):
            raise errors.InvalidArgument("Invalid arguments (certificate and key are needed both, or none of them)")
        pair = ("", "")
        if certificate is not None and key is not None:
            pair = certificates.check(name, _text(certificate), _text(key))
        made = spec.Domain(name, *pair)
        with self.guard:
            self.refuse_unless_changeable()
            present = self.site.configuration.domains
            if name not in [one.name for one in present]:
                if len(present) >= MAX_DOMAINS:
                    raise errors.InvalidArgument(f"Invalid arguments (a site can have at most {MAX_DOMAINS} domains)")
                self.director.claim_domain(name, self.service_id)

            def edit(configuration: sites.Configuration) -> sites.Configuration:
                others = [one for one in configuration.domains if one.name != name]
                return dataclasses.replace(configuration, domains=tuple(sorted([*others, made], key=lambda one: one.name)))

            try:
                return {"domain": name, **self.change(edit, caller)}
            except errors.ConPaaSError:
                self.memory.unclaimed = {*self.memory.unclaimed, name}
                self.release_domains()
                raise

    @expose.expose("POST", params.Param("domain", params.Text(max_length=300), help="One of the site's."))
    def remove_domain(self, domain: str, caller: Caller) -> dict[str, Any]:
        """Have the site no longer answer to a domain by name, and remove its certificate."""
        name = spec.check_domain(domain)
        known = [one.name for one in self.site.configuration.domains]
        params.must_be_one_of("domain", name, known)

        def edit(configuration: sites.Configuration) -> sites.Configuration:
            return dataclasses.replace(configuration, domains=tuple(one for one in configuration.domains if one.name != name))

        return self.change(edit, caller)

    # Manifests

    def manifest_edit(self, name: str, value: Any) -> deploy.Edit:
        if name == "Environment":
            return _environment_edit(params.check_arguments((params.Param(name, _TEXTS_OR_NULL),), {name: value})["environment"], {})
        if name == "WebSettings":
            return self._web_edit(params.check_arguments((params.Param(name, params.Mapping()),), {name: value})["web_settings"])
        if name == "Cron":
            entries = params.ListOf(params.Mapping(), max_items=MAX_CRON)
            return _cron_edit(params.check_arguments((params.Param(name, entries),), {name: value})["cron"])
        return super().manifest_edit(name, value)

    def on_export_manifest(self, limit: int) -> dict[str, Any]:
        """The enabled code and all settings but secrets and domains, which are not for other eyes and not for two services."""
        fields = super().on_export_manifest(limit)
        configuration = self.site.configuration
        web = {name: value for name, value in configuration.web.items() if value != sites.settings_of(self.kind)[name].default}
        more: dict[str, Any] = {
            "Environment": dict(configuration.environment),
            "WebSettings": web,
            "Cron": [one.to_dict() for one in configuration.cron],
        }
        return fields | {name: value for name, value in more.items() if value}


def _environment_edit(variables: Mapping[str, Any], secrets: Mapping[str, Any]) -> deploy.Edit:
    """Set or (null) remove variables and secrets; a name that moves from one kind to the other is in one of them only."""
    both = sorted(set(variables) & set(secrets))
    if both:
        raise errors.InvalidArgument(f"The name {params.shown(both[0])} cannot be a variable and a secret at once.")
    new = {kind: {k: v for k, v in given.items() if v is not None} for kind, given in (("plain", variables), ("secret", secrets))}
    spec.check_environment({**new["plain"], **new["secret"]})

    def edit(configuration: sites.Configuration) -> sites.Configuration:
        plain = {**_without(configuration.environment, {*variables, *new["secret"]}), **new["plain"]}
        secret = {**_without(configuration.secrets, {*secrets, *new["plain"]}), **new["secret"]}
        size = sum(len(name) + len(value) for name, value in [*plain.items(), *secret.items()])
        if len(plain) + len(secret) > MAX_VARIABLES or size > MAX_ENVIRONMENT:
            raise errors.TooLarge(f"A site can have at most {MAX_VARIABLES} variables and secrets of {MAX_ENVIRONMENT} characters in all.")
        return dataclasses.replace(configuration, environment=plain, secrets=secret)

    return edit


def _without(values: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if name not in names}


def _cron_edit(entries: list[dict[str, Any]]) -> deploy.Edit:
    made = tuple(spec.CronEntry.from_dict(one) for one in entries)
    for one in made:
        schedules.check(one.schedule)
    return lambda configuration: dataclasses.replace(configuration, cron=made)


def _text(upload: params.UploadedFile) -> str:
    if upload.size > certificates.LIMIT:
        raise errors.TooLarge(f"The file has {upload.size} bytes; a certificate or key has at most {certificates.LIMIT}.")
    try:
        return upload.path.read_text(encoding="ascii")
    except UnicodeDecodeError as error:
        raise errors.InvalidArgument("Invalid arguments (the certificate and its key must be in PEM form)") from error


def _domain_to_wire(one: spec.Domain) -> dict[str, Any]:
    shown: dict[str, Any] = {"domain": one.name, "tls": bool(one.certificate)}
    return shown | ({"certificate": certificates.summary(one.certificate).to_dict()} if one.certificate else {})
