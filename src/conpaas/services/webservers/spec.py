"""What travels between the manager and the agents of a web hosting service, as frozen values with a wire shape.

Every `from_dict` refuses what it does not know, so that an agent never renders a value nobody looked at. Raises `errors.InvalidArgument`
naming the field.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Mapping
from typing import Any, Final

from conpaas.core import errors, node, params, travels

PROXY: Final = "proxy"
WEB: Final = "web"
BACKEND: Final = "backend"
ROLES: Final = (PROXY, WEB, BACKEND)

PHP: Final = "php"
JAVA: Final = "java"

STATIC_BALANCING: Final = "static"
"""Backends get requests in turn, in proportion to their weights."""
DYNAMIC_BALANCING: Final = "dynamic"
"""The backend with the fewest requests in flight, in proportion to its weight, gets the next one."""

MAX_WEIGHT: Final = 10_000
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}\Z")
_DOMAIN: Final = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])\Z")
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_PATH: Final = re.compile(r"/[!#$&-;=?-Z_a-z~%]*\Z")  # what a URL's path and query may hold; no quotes, braces or spaces
_RELATIVE: Final = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*\Z")


def _refuse(what: str, value: object, wanted: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(f"{what} must be {wanted}, got {params.shown(value)}.")


def check_version(value: object) -> str:
    """A code version's id, harmless as the name of a directory."""
    if not isinstance(value, str) or not _VERSION.match(value):
        raise _refuse("A code version", value, "letters, digits, '.', '_' and '-'")
    return value


def check_domain(value: object) -> str:
    """A domain name in lower case, as it stands in a certificate; no wildcard."""
    name = value.lower().rstrip(".") if isinstance(value, str) else ""
    if not _DOMAIN.match(name):
        raise _refuse("A domain", value, "a full name such as www.example.org")
    return name


def check_path(what: str, value: object) -> str:
    """The path of a URL, with its query."""
    if not isinstance(value, str) or len(value) > 1024 or not _PATH.match(value):
        raise _refuse(what, value, "a path that begins with '/', without spaces or quotes")
    return value


def check_relative(what: str, value: object) -> str:
    """A path below the code, `""` for its root."""
    if value == "":
        return ""
    if not isinstance(value, str) or len(value) > 255 or not _RELATIVE.match(value) or ".." in value.split("/") or "." in value.split("/"):
        raise _refuse(what, value, "a path inside the code such as 'public'")
    return value


def check_environment(values: object) -> dict[str, str]:
    """Names and values of environment variables. Values are any text of one line up to 8 KiB."""
    if not isinstance(values, Mapping):
        raise _refuse("The environment", values, "an object of names and values")
    for name, value in values.items():
        if not isinstance(name, str) or not _ENV_NAME.match(name):
            raise _refuse("The name of an environment variable", name, "letters, digits and '_', not beginning with a digit")
        if not isinstance(value, str) or len(value) > 8192 or any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
            raise errors.InvalidArgument(f"The value of the environment variable {name} must be one line of at most 8192 characters.")
    return dict(values)


@dataclasses.dataclass(frozen=True)
class Upstream(travels.Travels):
    """A server that a proxy hands requests to. `weight` says how many it gets, in proportion to the others."""

    ip: str
    port: int
    weight: int = node.DEFAULT_WEIGHT

    def __post_init__(self) -> None:
        try:
            if not isinstance(self.ip, str) or "%" in self.ip:
                raise ValueError("an address of another kind, or of one network interface only")
            ipaddress.ip_address(self.ip)
        except ValueError as error:
            raise _refuse("The address of a server", self.ip, "an IP address") from error
        if not isinstance(self.port, int) or not 0 < self.port < 65536:
            raise _refuse("The port of a server", self.port, "from 1 to 65535")
        if not isinstance(self.weight, int) or not 0 < self.weight <= MAX_WEIGHT:
            raise _refuse("The weight of a server", self.weight, f"from 1 to {MAX_WEIGHT}")

    @property
    def address(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


@dataclasses.dataclass(frozen=True)
class Domain(travels.Travels):
    """A name the site answers to. `certificate` (a PEM chain) and `key` (PEM) are both there or both empty (plain HTTP)."""

    name: str
    certificate: str = ""
    key: str = dataclasses.field(default="", repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", check_domain(self.name))
        if not isinstance(self.certificate, str) or not isinstance(self.key, str):
            raise errors.InvalidArgument(f"The certificate and the key of the domain {self.name} must be texts.")
        if bool(self.certificate) != bool(self.key):
            raise errors.InvalidArgument(f"The domain {self.name} needs a certificate and its key both, or none of them.")


@dataclasses.dataclass(frozen=True)
class SiteSettings(travels.Travels):
    """How proxies and static web servers serve. Sizes in MB, times in seconds.

    `document_root`: what of the code is served, relative to it. `front_controller`: the script, relative to the document root,
    that gets every request which no file answers, `""` for none (php). `response_timeout`: longest wait for a backend's answer.
    """

    kind: str = PHP
    document_root: str = ""
    front_controller: str = "index.php"
    upload_size: int = 64
    response_timeout: int = 70
    balancing: str = STATIC_BALANCING
    https_redirect: bool = True
    hsts: bool = False
    gzip: bool = True
    security_headers: bool = True
    static_max_age: int = 3600

    def __post_init__(self) -> None:
        if self.kind not in (PHP, JAVA):
            raise _refuse("The kind of a site", self.kind, "php or java")
        check_relative("documentRoot", self.document_root)
        check_relative("frontController", self.front_controller)
        if self.balancing not in (STATIC_BALANCING, DYNAMIC_BALANCING):
            raise _refuse("loadBalancing", self.balancing, "static or dynamic")
        for name, low, high in (("upload_size", 1, 10_240), ("response_timeout", 1, 3_600), ("static_max_age", 0, 31_536_000)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise _refuse(name, value, f"from {low} to {high}")
        for name in ("https_redirect", "hsts", "gzip", "security_headers"):
            if not isinstance(getattr(self, name), bool):
                raise _refuse(name, getattr(self, name), "true or false")


@dataclasses.dataclass(frozen=True)
class BackendSettings(travels.Travels):
    """What a backend's processes are started with: a change of it, or of the code version, makes a new release.

    `phpconf` are the classic php.ini settings, checked by the manager; `environment` holds variables and secrets alike;
    `workers` is how many requests a backend works on at once (0: as many as the machine suggests); `jvm_memory` in MB (java).
    """

    kind: str = PHP
    document_root: str = ""
    phpconf: Mapping[str, str] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    workers: int = 0
    jvm_memory: int = 256
    upload_size: int = 64
    max_time: int = 60

    def __post_init__(self) -> None:
        if self.kind not in (PHP, JAVA):
            raise _refuse("The kind of a backend", self.kind, "php or java")
        check_relative("documentRoot", self.document_root)
        check_environment(self.environment)
        if not isinstance(self.phpconf, Mapping):
            raise _refuse("phpconf", self.phpconf, "an object of names and values")
        for name, low, high in (("workers", 0, 1000), ("jvm_memory", 32, 65_536), ("upload_size", 1, 10_240), ("max_time", 1, 3_600)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise _refuse(name, value, f"from {low} to {high}")


@dataclasses.dataclass(frozen=True)
class ProxyConfig:
    """All that a proxy needs: `serial` grows with every configuration a manager hands out; proxies report how far they are by it."""

    serial: int
    code_version: str
    web: tuple[Upstream, ...]
    backends: tuple[Upstream, ...]
    site: SiteSettings
    domains: tuple[Domain, ...] = ()

    def __post_init__(self) -> None:
        check_version(self.code_version)
        if not isinstance(self.serial, int) or self.serial < 0:
            raise _refuse("serial", self.serial, "a number")

    @classmethod
    def from_dict(cls, values: Any) -> ProxyConfig:
        if not isinstance(values, Mapping):
            raise _refuse("A proxy's configuration", values, "an object")
        wanted = ("serial", "code_version", "web", "backends", "site", "domains")
        for name in wanted:
            if name not in values:
                raise errors.InvalidArgument(f"A proxy's configuration must have the field '{name}'.")
        for name in values:
            if name not in wanted:
                raise errors.InvalidArgument(f"A proxy's configuration has no field '{params.shown(name)}'.")
        for name in ("web", "backends", "domains"):
            if not isinstance(values[name], list | tuple):
                raise _refuse(name, values[name], "a list")
        return cls(
            serial=values["serial"],
            code_version=values["code_version"],
            web=tuple(Upstream.from_dict(one) for one in values["web"]),
            backends=tuple(Upstream.from_dict(one) for one in values["backends"]),
            site=SiteSettings.from_dict(values["site"]),
            domains=tuple(Domain.from_dict(one) for one in values["domains"]),
        )

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class CronEntry(travels.Travels):
    """A command run on one backend at the times of `schedule`, five fields as in crontab(5)."""

    schedule: str
    command: str

    def __post_init__(self) -> None:
        if not isinstance(self.schedule, str) or len(self.schedule.split()) != 5:
            raise _refuse("The schedule of a cron entry", self.schedule, "five fields such as '*/10 * * * *'")
        if (
            not isinstance(self.command, str)
            or not self.command.strip()
            or len(self.command) > 4096
            or "\n" in self.command
            or "\0" in self.command
        ):
            raise _refuse("The command of a cron entry", self.command, "one line")
