"""What a web hosting service is set to: the configuration its user chose, and the release that follows from it.

A *release* is a code version with the settings its processes are started with; a change of either makes a new one, with its own number.
All values are frozen; `to_dict` and `from_dict` are their form in the manager's store.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final

from conpaas.core import errors, node, params
from conpaas.services.webservers import phpconf, spec

DEFAULT_HEALTH_PATH: Final = "/"
_MB: Final = 1 << 20
_LARGEST_UPLOAD: Final = 10_240
_LONGEST: Final = 3_600
_GRACE: Final = 30
"""Seconds of waiting (for a database, say) that a script has beyond its `max_execution_time`, which counts only its own work."""
_SHORTEST: Final = 60


@dataclasses.dataclass(frozen=True)
class Setting:
    """One web setting: its name on the wire, what it takes, its default, and for which kinds of site it is there."""

    name: str
    type: params.ParamType
    default: Any
    help: str
    kinds: tuple[str, ...] = (spec.PHP, spec.JAVA)


SETTINGS: Final[tuple[Setting, ...]] = (
    Setting(
        "documentRoot", params.Text(max_length=255), "", "the directory of the code that is served, such as `public`; empty: all of it"
    ),
    Setting(
        "frontController", params.Text(max_length=255), "index.php", "the script that gets what no file answers; empty: none", (spec.PHP,)
    ),
    Setting("uploadSize", params.Integer(minimum=1, maximum=_LARGEST_UPLOAD), 64, "the largest request, in MB"),
    Setting("healthPath", params.Text(max_length=1024), DEFAULT_HEALTH_PATH, "what a new code version is asked for before it is used"),
    Setting("healthTimeout", params.Integer(minimum=1, maximum=120), 10, "seconds that its answer may take"),
    Setting(
        "loadBalancing", params.Choice((spec.STATIC_BALANCING, spec.DYNAMIC_BALANCING)), spec.STATIC_BALANCING, "in turn, or the least busy"
    ),
    Setting("httpsRedirect", params.Boolean(), True, "send visitors of domains with a certificate to https"),
    Setting("hsts", params.Boolean(), False, "tell browsers to use https only"),
    Setting("gzip", params.Boolean(), True, "compress answers"),
    Setting("securityHeaders", params.Boolean(), True, "add the usual security headers"),
    Setting("staticMaxAge", params.Integer(minimum=0, maximum=31_536_000), 3600, "seconds that browsers may keep static files"),
    Setting("workers", params.Integer(minimum=0, maximum=1000), 0, "requests a backend works on at once; 0: what suits the machine"),
    Setting("maxTime", params.Integer(minimum=1, maximum=_LONGEST - 10), _SHORTEST, "seconds that a request may take", (spec.JAVA,)),
    Setting("jvmMemory", params.Integer(minimum=32, maximum=65_536), 256, "MB of heap of a backend", (spec.JAVA,)),
    Setting("drainTime", params.Integer(minimum=0, maximum=300), 30, "seconds that requests on a node that is removed may still take"),
)


def settings_of(kind: str) -> dict[str, Setting]:
    """The web settings there are for a kind of site, by name."""
    return {one.name: one for one in SETTINGS if kind in one.kinds}


@dataclasses.dataclass(frozen=True)
class Configuration:
    """All that a user can set. `phpconf` and `web` hold only what differs from the defaults; `weights` are by role and node id; `given` are
    variables that other services gave, by source: those that the user set himself go before them."""

    kind: str
    version: str
    phpconf: Mapping[str, str] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    secrets: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    given: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict, repr=False)
    web: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    weights: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    cron: tuple[spec.CronEntry, ...] = ()
    domains: tuple[spec.Domain, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Configuration:
        cron = tuple(spec.CronEntry.from_dict(one) for one in values.get("cron", ()))
        domains = tuple(spec.Domain.from_dict(one) for one in values.get("domains", ()))
        return cls(**{**values, "cron": cron, "domains": domains})

    def setting(self, name: str) -> Any:
        """A web setting by its name on the wire; `uploadSize` of PHP follows from the PHP settings."""
        if name == "uploadSize" and self.kind == spec.PHP:
            return self._php_upload_size()
        return self.web.get(name, settings_of(self.kind)[name].default)

    def php_settings(self) -> dict[str, str]:
        """All PHP settings with their values."""
        return {**phpconf.DEFAULTS, **self.phpconf}

    def _php_upload_size(self) -> int:
        """In MB, what must pass the proxies so that PHP's own limits are the ones that count."""
        settings = self.php_settings()
        sizes = [phpconf.size(settings[name]) for name in ("post_max_size", "upload_max_filesize")]
        if 0 in sizes[:1]:  # PHP takes this as "no limit"
            return _LARGEST_UPLOAD
        return min(_LARGEST_UPLOAD, max(1, -(-max(sizes) // _MB)))

    def _max_time(self) -> int:
        if self.kind == spec.JAVA:
            return int(self.setting("maxTime"))
        seconds = int(self.php_settings()["max_execution_time"])
        return min(_LONGEST - 10, max(_SHORTEST, seconds + _GRACE)) if seconds else _LONGEST - 10

    def weight(self, role: str, node_id: str) -> int:
        return int(self.weights.get(role, {}).get(node_id, node.DEFAULT_WEIGHT))

    def backend_settings(self) -> spec.BackendSettings:
        """What processes are started with."""
        return spec.BackendSettings(
            kind=self.kind,
            document_root=self.setting("documentRoot"),
            phpconf=self.php_settings() if self.kind == spec.PHP else {},
            environment={**self.given_variables(), **self.environment, **self.secrets},
            workers=self.setting("workers"),
            jvm_memory=self.setting("jvmMemory") if self.kind == spec.JAVA else spec.BackendSettings.jvm_memory,
            upload_size=self.setting("uploadSize"),
            max_time=self._max_time(),
        )

    def site_settings(self) -> spec.SiteSettings:
        """What proxies and static web servers serve by."""
        return spec.SiteSettings(
            kind=self.kind,
            document_root=self.setting("documentRoot"),
            front_controller=self.setting("frontController") if self.kind == spec.PHP else "",
            upload_size=self.setting("uploadSize"),
            response_timeout=self._max_time() + 10,
            balancing=self.setting("loadBalancing"),
            https_redirect=self.setting("httpsRedirect"),
            hsts=self.setting("hsts"),
            gzip=self.setting("gzip"),
            security_headers=self.setting("securityHeaders"),
            static_max_age=self.setting("staticMaxAge"),
        )

    def given_variables(self) -> dict[str, str]:
        """The variables that other services gave."""
        return {name: value for _, variables in sorted(self.given.items()) for name, value in variables.items()}

    def with_given(self, source: str, variables: Mapping[str, str]) -> Configuration:
        """With other variables from a source; with none, it is forgotten."""
        others = {key: values for key, values in self.given.items() if key != source}
        return dataclasses.replace(self, given={**others, source: dict(variables)} if variables else others)

    def with_php(self, changes: Mapping[str, str]) -> Configuration:
        """With other PHP settings; a `post_max_size` below `upload_max_filesize` that nobody asked for is raised to it."""
        merged = {**self.phpconf, **changes}
        settings = {**phpconf.DEFAULTS, **merged}
        post, upload = phpconf.size(settings["post_max_size"]), phpconf.size(settings["upload_max_filesize"])
        if 0 < post < upload and "post_max_size" not in changes:
            merged["post_max_size"] = settings["upload_max_filesize"]
        return dataclasses.replace(self, phpconf={name: value for name, value in merged.items() if value != phpconf.DEFAULTS[name]})

    def with_web(self, changes: Mapping[str, Any]) -> Configuration:
        """With other web settings, checked already. The upload size of PHP is that of its own settings."""
        changes = dict(changes)
        changed = self
        if self.kind == spec.PHP and "uploadSize" in changes:
            size = f"{changes.pop('uploadSize')}M"
            changed = self.with_php({"upload_max_filesize": size, "post_max_size": size})
        known = settings_of(self.kind)
        web = {name: value for name, value in {**self.web, **changes}.items() if value != known[name].default}
        return dataclasses.replace(changed, web=web)


@dataclasses.dataclass(frozen=True)
class Release:
    """A code version with the settings of its processes, which run on every backend under this number."""

    number: int
    version: str
    settings: spec.BackendSettings

    def same_as(self, configuration: Configuration) -> bool:
        """Whether a configuration needs no new release."""
        return self.version == configuration.version and self.settings == configuration.backend_settings()


@dataclasses.dataclass(frozen=True)
class Site:
    """A configuration with the release that serves it."""

    configuration: Configuration
    release: Release

    @classmethod
    def first(cls, configuration: Configuration) -> Site:
        return cls(configuration, Release(1, configuration.version, configuration.backend_settings()))

    @property
    def version(self) -> str:
        return self.release.version

    @property
    def kind(self) -> str:
        return self.configuration.kind

    def changed_to(self, configuration: Configuration, next_number: Callable[[], int]) -> Site:
        """This site with another configuration, and a new release if one is needed."""
        if self.release.same_as(configuration):
            return Site(configuration, self.release)
        return Site(configuration, Release(next_number(), configuration.version, configuration.backend_settings()))

    def to_dict(self) -> dict[str, Any]:
        release = {"number": self.release.number, "version": self.release.version, "settings": self.release.settings.to_dict()}
        return {"configuration": self.configuration.to_dict(), "release": release}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Site:
        release = values["release"]
        settings = spec.BackendSettings.from_dict(release["settings"])
        return cls(Configuration.from_dict(values["configuration"]), Release(int(release["number"]), release["version"], settings))


def check_web_settings(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Web settings as a user gave them, converted. Raises InvalidArgument naming the one that is wrong."""
    known = settings_of(kind)
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise errors.InvalidArgument(f"There is no web setting '{params.shown(name)}'; there are: {', '.join(known)}.")
        checked[name] = params.Param(name, known[name].type).resolve({name: value})
    for name in ("documentRoot", "frontController"):
        if name in checked:
            checked[name] = spec.check_relative(name, checked[name].strip("/"))
    if "healthPath" in checked:
        checked["healthPath"] = spec.check_path("healthPath", checked["healthPath"])
    return checked
