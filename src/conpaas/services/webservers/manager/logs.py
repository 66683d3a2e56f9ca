"""The logs a node shows, by its roles; agents know them by the same names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from conpaas.services.webservers import spec
from conpaas.services.webservers.manager import placement

_CACHE: Final = "/var/cache/cpsagent"

Entry = dict[str, str]


def _entry(filename: str, description: str, path: str | None = None) -> Entry:
    return {"filename": filename, "description": description, "path": path or f"{_CACHE}/{filename}"}


_OF_ROLE: Final[Mapping[str, tuple[Entry, ...]]] = {
    spec.PROXY: (
        _entry("nginx-proxy-access.log", "Nginx proxy access"),
        _entry("nginx-proxy-error.log", "Nginx proxy error"),
    ),
    spec.WEB: (
        _entry("nginx-static-access.log", "Nginx web access"),
        _entry("nginx-static-error.log", "Nginx web error"),
    ),
}
_OF_BACKEND: Final[Mapping[str, tuple[Entry, ...]]] = {
    spec.PHP: (
        _entry("fpm-access.log", "PHP access"),
        _entry("fpm-error.log", "PHP error"),
        _entry("php-error.log", "PHP messages of the code"),
    ),
    spec.JAVA: (
        _entry("access_log.txt", "Tomcat access", f"{_CACHE}/tomcat_instance/logs/access_log.txt"),
        _entry("catalina.out", "Tomcat output", f"{_CACHE}/tomcat_instance/logs/catalina.out"),
    ),
}
_CRON: Final = _entry("cron.log", "output of cron entries")
_STARTUP: Final = _entry("startup.log", "startup script", "/var/tmp/cpsagent/startup.log")  # noqa: S108 - where it is on a node


def of_label(label: str, kind: str) -> list[Entry]:
    """The logs of a node with this role label, in the order of its roles: proxy, web, backend."""
    roles = placement.roles_of(label)
    found = [entry for role in (spec.PROXY, spec.WEB) if role in roles for entry in _OF_ROLE[role]]
    if spec.BACKEND in roles:
        found += [*_OF_BACKEND[kind], _CRON]
    return [dict(entry) for entry in [*found, _STARTUP]]
