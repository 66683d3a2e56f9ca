"""The registry of service types: the only door by which the core reaches a service.

A service type is announced by an entry point of the group `conpaas.services` whose object is a `ServiceType`. Looking a type up imports
only that descriptor; the manager and agent classes are imported when they are asked for.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Any

from conpaas.core import errors, machine_page, pages, params

ENTRY_POINT_GROUP = "conpaas.services"

_log = logging.getLogger(__name__)
_ANY_TEXT = params.Text()


def _load(reference: str, service: str) -> Any:
    """Import `module:Class`."""
    module_name, _, attribute = reference.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for name in attribute.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise errors.NotFound(
            f"The class '{reference}' of the service type '{service}' cannot be loaded: {error}.",
            hint="Reinstall the package that brings this service type.",
        ) from error
    return found


@dataclasses.dataclass(frozen=True)
class ManifestFile:
    """Where the file that a field of a manifest names goes: to this UPLOAD method of the service's manager, as this part.

    The method must take a field `request` as well: the same key uploads the same file once.
    """

    method: str
    part: str


@dataclasses.dataclass(frozen=True)
class ManifestField:
    """A field that services of a type may have in a manifest, besides those that all have.

    Its value goes to `apply_manifest` of the service's manager. With `file`, it is the URL of a file: the Director fetches and
    uploads it, and the reply to the upload is what `apply_manifest` gets. A field `running` is applied once the service runs
    (one that is not to be started runs for as long as that takes); the others before it is started. With `peer`, the value is a list of
    objects in which this key is the name of another service of the manifest; `apply_manifest` gets that service's id instead, and
    `export_manifest` tells it.
    """

    name: str
    type: params.ParamType = _ANY_TEXT
    help: str = ""
    file: ManifestFile | None = None
    running: bool = False
    peer: str = ""


@dataclasses.dataclass(frozen=True)
class ServiceType:
    """Describes one kind of service; light enough to be loaded by every process.

    `manager` and `agent` are `module:Class`; `agent_type` is the type its agents report (several service types may share one agent);
    `agent_config` names a resource file of `package` appended to every agent's configuration. `page` is the `module:PAGE` (a
    `pages.Page`) that a web front-end shows; without one it shows what all services have.
    """

    name: str
    manager: str
    agent: str
    roles: tuple[str, ...] = ("node",)
    agent_type: str | None = None
    agent_config: str | None = None
    package: str = ""
    label: str = ""
    description: str = ""
    manifest_fields: tuple[ManifestField, ...] = ()
    page: str = ""

    @property
    def agent_name(self) -> str:
        return self.agent_type or self.name

    def load_manager(self) -> Any:
        """Import and return the manager class. Raises `errors.NotFound`."""
        return _load(self.manager, self.name)

    def load_agent(self) -> Any:
        """Import and return the agent class. Raises `errors.NotFound`."""
        return _load(self.agent, self.name)

    def load_page(self) -> pages.Page:
        """Import and return the declaration of the type's page, with the part that all services have. Raises `errors.NotFound`."""
        found = _load(self.page, self.name) if self.page else pages.Page()
        if not isinstance(found, pages.Page):
            raise errors.NotFound(f"The page '{self.page}' of the service type '{self.name}' is not a pages.Page.")
        return dataclasses.replace(found, panels=(*found.panels, machine_page.PANEL))


class Registry:
    """Service types by name, found on first use. Safe to use from several threads."""

    def __init__(self, find: Callable[[], Iterable[tuple[str, Callable[[], ServiceType]]]]) -> None:
        self._find = find
        self._lock = threading.Lock()
        self._loaders: dict[str, Callable[[], ServiceType]] | None = None
        self._types: dict[str, ServiceType] = {}

    @classmethod
    def of(cls, types: Iterable[ServiceType]) -> Registry:
        """A registry of exactly these types."""
        known = [(service.name, lambda service=service: service) for service in types]
        return cls(lambda: known)

    def available(self) -> list[str]:
        """Names of all installed service types, sorted."""
        return sorted(self._known())

    def get(self, name: str) -> ServiceType:
        """Return a service type. Raises `errors.NotFound` when it is not installed or its descriptor is broken."""
        loaders = self._known()
        with self._lock:
            if name in self._types:
                return self._types[name]
        if name not in loaders:
            raise errors.NotFound(
                f"There is no service type '{name}' here; installed are: {', '.join(sorted(loaders)) or 'none'}.",
                hint="Install the package that brings this service type.",
            )
        try:
            service = loaders[name]()
        except (ImportError, AttributeError) as error:
            raise errors.NotFound(f"The service type '{name}' is installed but cannot be loaded: {error}.") from error
        if not isinstance(service, ServiceType):
            raise errors.NotFound(f"The entry point of the service type '{name}' does not lead to a ServiceType.")
        with self._lock:
            self._types[name] = service
        return service

    def by_agent_type(self, agent_type: str) -> ServiceType:
        """Return the first service type whose agents report this type. Raises `errors.NotFound`."""
        for name in self.available():
            try:
                service = self.get(name)
            except errors.NotFound as error:
                _log.warning("skipping the service type %s: %s", name, error)
                continue
            if service.agent_name == agent_type:
                return service
        raise errors.NotFound(f"No installed service type has agents of type '{agent_type}'.")

    def _known(self) -> Mapping[str, Callable[[], ServiceType]]:
        with self._lock:
            if self._loaders is None:
                self._loaders = dict(self._find())
            return self._loaders


def _entry_points() -> list[tuple[str, Callable[[], ServiceType]]]:
    return [(entry.name, entry.load) for entry in metadata.entry_points(group=ENTRY_POINT_GROUP)]


registry = Registry(_entry_points)
"""The service types installed in this Python environment."""
