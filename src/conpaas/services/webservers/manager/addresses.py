"""Where a site is to be found: the addresses of its proxies, and its domains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from conpaas.core import node
from conpaas.services.webservers import spec

_USUAL: Final = {"http": 80, "https": 443}


def urls(proxies: Sequence[node.ServiceNode], ports: Mapping[str, Mapping[str, Any]], domains: Iterable[spec.Domain]) -> list[str]:
    """The site's URLs: those of its proxies, the primary one's first, then those of its domains; none while no proxy serves.

    `ports` holds `port` and `tls_port` of every proxy that serves, by node id.
    """
    serving = [one for one in proxies if one.id in ports]
    if not serving:
        return []
    primary = ports[serving[0].id]
    by_domain = [
        ("https", one.name, primary.get("tls_port")) if one.certificate else ("http", one.name, primary["port"]) for one in domains
    ]
    return [_url("http", one.ip, ports[one.id]["port"]) for one in serving] + [_url(*found) for found in by_domain]


def _url(scheme: str, host: str, port: int | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}/" if port in (None, _USUAL[scheme]) else f"{scheme}://{shown}:{port}/"
