"""What a web hosting service remembers across restarts, beyond its nodes and code versions: one accessor for every setting in the store."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from conpaas.core.state import settings
from conpaas.services.webservers import spec
from conpaas.services.webservers.manager import placement, sites

RELEASES_KEPT: Final = 100

_SITE = "site"
_SHAPE = "shape"
_LAST_RELEASE = "last_release"
_RELEASES = "releases"
_IN_FORCE = "in_force"
_SERIAL = "serial"
_DRAINING = "draining"
_UNTIDY = "untidy"
_INCOMPLETE = "incomplete"
_PORTS = "proxy_ports"
_SECRET = "session_secret"  # noqa: S105 - the name of a setting
_STORES = "session_stores"
_CRON_NODE = "cron_node"
_UNCLAIMED = "domains_to_release"


@dataclasses.dataclass(frozen=True)
class Store:
    """A session store on a node."""

    node: str
    ip: str
    port: int

    def address(self) -> dict[str, Any]:
        return {"ip": self.ip, "port": self.port}


@dataclasses.dataclass(frozen=True)
class InForce:
    """The configuration that proxies were given last: its serial, what it says, and the code version in it."""

    serial: int
    digest: str
    version: str


class SiteState:
    """The durable memory. Every assignment is on disk when it returns."""

    def __init__(self, values: settings.Settings) -> None:
        self._values = values

    # What is served

    @property
    def site(self) -> sites.Site:
        return sites.Site.from_dict(self._values[_SITE])

    @property
    def exists(self) -> bool:
        return _SITE in self._values

    def select(self, chosen: sites.Site, requester: str, key: str) -> None:
        """Make a site the one in use, and add it to the history if it brings another release. Idempotent by `key`."""
        with self._values.together():
            history = [entry for entry in self.releases() if entry["key"] != key]
            if not history or history[-1]["number"] != chosen.release.number:
                entry = {"number": chosen.release.number, "codeVersionId": chosen.version, "time": time.time(), "requester": requester}
                history.append({**entry, "key": key})
            self._values[_RELEASES] = history[-RELEASES_KEPT:]
            self._values[_SITE] = chosen.to_dict()

    def unselect(self, former: sites.Site, key: str) -> None:
        """Undo `select`."""
        with self._values.together():
            self._values[_RELEASES] = [entry for entry in self.releases() if entry["key"] != key]
            self._values[_SITE] = former.to_dict()

    def releases(self) -> list[dict[str, Any]]:
        """The history of releases, oldest first."""
        return list(self._values.get(_RELEASES, []))

    def next_release(self) -> int:
        """A number never used before."""
        number = int(self._values.get(_LAST_RELEASE, 1)) + 1
        self._values[_LAST_RELEASE] = number
        return number

    @property
    def shape(self) -> placement.Shape:
        """How many nodes the user wants for each role."""
        return placement.Shape(**self._values.get(_SHAPE, {}))

    @shape.setter
    def shape(self, wanted: placement.Shape) -> None:
        self._values[_SHAPE] = dataclasses.asdict(wanted)

    # What proxies have

    @property
    def in_force(self) -> InForce | None:
        found = self._values.get(_IN_FORCE)
        return InForce(**found) if found else None

    @property
    def draining(self) -> list[str]:
        """Code versions that requests under way may still use."""
        return list(self._values.get(_DRAINING, []))

    def put_in_force(self, configuration: spec.ProxyConfig) -> spec.ProxyConfig:
        """Number a configuration before proxies get it; one that says the same as the last keeps its number."""
        content = json.dumps({**configuration.to_dict(), "serial": 0}, sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()
        former = self.in_force
        if former is not None and former.digest == digest:
            return dataclasses.replace(configuration, serial=former.serial)
        serial = int(self._values.get(_SERIAL, 0)) + 1
        with self._values.together():
            self._values[_SERIAL] = serial
            self._values[_IN_FORCE] = {"serial": serial, "digest": digest, "version": configuration.code_version}
            self._values[_UNTIDY] = True
            if former is not None and former.version != configuration.code_version:
                self._values[_DRAINING] = list(dict.fromkeys([former.version, *self.draining]))
        return dataclasses.replace(configuration, serial=serial)

    def drained(self) -> None:
        """All requests that used former configurations have ended."""
        self._values[_DRAINING] = []

    def forget_proxies(self) -> None:
        """The service has no nodes any more; serials go on."""
        with self._values.together():
            for name in (_IN_FORCE, _DRAINING, _PORTS, _STORES, _CRON_NODE, _UNTIDY, _INCOMPLETE):
                self._values.pop(name, None)

    @property
    def proxy_ports(self) -> dict[str, dict[str, Any]]:
        """`port` and `tls_port` of every proxy, by node id."""
        return dict(self._values.get(_PORTS, {}))

    @proxy_ports.setter
    def proxy_ports(self, ports: Mapping[str, Mapping[str, Any]]) -> None:
        if self.proxy_ports != ports:
            self._values[_PORTS] = {key: dict(value) for key, value in ports.items()}

    # What is left to do

    @property
    def untidy(self) -> bool:
        """Something may run or lie on nodes that is of no use any more."""
        return bool(self._values.get(_UNTIDY, False))

    @untidy.setter
    def untidy(self, value: bool) -> None:
        if value != self.untidy:
            self._values[_UNTIDY] = value

    @property
    def incomplete(self) -> bool:
        """Some node was passed over because it did not answer."""
        return bool(self._values.get(_INCOMPLETE, False))

    @incomplete.setter
    def incomplete(self, value: bool) -> None:
        if value != self.incomplete:
            self._values[_INCOMPLETE] = value

    @property
    def unclaimed(self) -> list[str]:
        """Domains that are still to be given up at the Director."""
        return list(self._values.get(_UNCLAIMED, []))

    @unclaimed.setter
    def unclaimed(self, names: Iterable[str]) -> None:
        self._values[_UNCLAIMED] = sorted(set(names))

    # Sessions, cron

    @property
    def session_secret(self) -> str:
        """The password of the session stores, made once."""
        if _SECRET not in self._values:
            self._values[_SECRET] = secrets.token_hex(24)
        return str(self._values[_SECRET])

    @property
    def stores(self) -> list[Store]:
        """The session stores in use."""
        return [Store(**one) for one in self._values.get(_STORES, [])]

    @stores.setter
    def stores(self, stores: Sequence[Store]) -> None:
        if self.stores != list(stores):
            self._values[_STORES] = [dataclasses.asdict(one) for one in stores]

    @property
    def cron_node(self) -> str | None:
        """The node that runs the cron entries."""
        found = self._values.get(_CRON_NODE)
        return str(found) if found else None

    @cron_node.setter
    def cron_node(self, node_id: str | None) -> None:
        if node_id != self.cron_node:
            self._values[_CRON_NODE] = node_id
