"""From director.cfg to clouds: finds the driver of each section and keeps one bad section from disabling the others.

A driver is a `base.Cloud` subclass, either one of ours (`BUILT_IN`) or one announced by an installed package through the entry-point
group `conpaas.clouds` (name = DRIVER value in lower case).
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Iterator, Mapping

from conpaas.core import errors, node
from conpaas.core.clouds import base

ENTRY_POINTS = "conpaas.clouds"
BUILT_IN = {"dummy": "conpaas.core.clouds.dummy:DummyCloud"}

Sections = Mapping[str, Mapping[str, str]]


def drivers() -> list[str]:
    """Names that DRIVER may have."""
    return sorted({*BUILT_IN, *(entry.name for entry in importlib.metadata.entry_points(group=ENTRY_POINTS))})


def load_driver(name: str, driver: str) -> type[base.Cloud]:
    """The class behind a DRIVER value; ConfigurationError names the cloud, and the drivers that exist."""
    target: object = None
    if driver in BUILT_IN:
        module, _, attribute = BUILT_IN[driver].partition(":")
        target = getattr(importlib.import_module(module), attribute)
    else:
        for entry in importlib.metadata.entry_points(group=ENTRY_POINTS, name=driver):
            target = entry.load()
    if target is None:
        raise errors.ConfigurationError(
            f"Cannot get_cloud_instance({name}, {driver}): No module found for cloud_type {driver}. Available drivers: {drivers()}"
        )
    if not (isinstance(target, type) and issubclass(target, base.Cloud)):
        raise errors.ConfigurationError(f"The driver {driver} of cloud {name} is not a subclass of conpaas.core.clouds.base.Cloud")
    return target


def open_cloud(name: str, section: Mapping[str, str]) -> base.Cloud:
    """The cloud of one section. Raises ConfigurationError; contacts nobody."""
    driver = next((str(value).strip().lower() for key, value in section.items() if key.upper() == "DRIVER"), "")
    if not driver:
        raise errors.ConfigurationError(f"The section [{name}] names no DRIVER. Available drivers: {drivers()}")
    return load_driver(name, driver)(name, section)


class Clouds(Mapping[str, base.Cloud]):
    """Configured clouds by internal name (the default one is `iaas`). A cloud whose section is wrong raises that error when it is
    looked up, each time; the others are not touched by it."""

    def __init__(self, sections: Sections) -> None:
        self._clouds: dict[str, base.Cloud] = {}
        self._broken: dict[str, errors.ConfigurationError] = {}
        self._names = _configured(sections)
        for name in self._names:
            try:
                if name not in sections:
                    raise errors.ConfigurationError(f"OTHER_CLOUDS names {name}, but there is no section [{name}]")
                self._clouds[name] = open_cloud(name, sections[name])
            except errors.ConfigurationError as error:
                self._broken[name] = error

    def __getitem__(self, name: str) -> base.Cloud:
        if name in self._broken:
            error = self._broken[name]
            raise errors.ConfigurationError(str(error), hint=error.hint)
        return self._clouds[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def find(self, name: str | None) -> base.Cloud:
        """The cloud that a request means: None, "", "None" and "default" are the first configured one."""
        inside = self.inside_name(name)
        if inside not in self._names:
            raise errors.NotFound(f"Unknown cloud: {name or node.DEFAULT_CLOUD}. Available clouds: {self.available()}")
        return self[inside]

    def inside_name(self, name: str | None) -> str:
        """The internal name for a name from outside; unknown names come back unchanged."""
        if name in (None, "", "None", node.DEFAULT_CLOUD):
            return self._names[0] if self._names else node.INNER_DEFAULT_CLOUD
        return str(name)

    def available(self) -> list[str]:
        """Names towards users, the default cloud first as `default`."""
        return [node.outer_cloud(name) for name in self._names]

    def working(self) -> list[base.Cloud]:
        """Every cloud whose configuration is right."""
        return list(self._clouds.values())

    def local(self) -> list[base.LocalCloud]:
        """Those of `working` whose VMs live on this machine."""
        return [cloud for cloud in self._clouds.values() if isinstance(cloud, base.LocalCloud)]

    def problems(self) -> dict[str, str]:
        """What is wrong with the configuration of which cloud (internal name); {} when all sections are right."""
        return {name: str(error) for name, error in self._broken.items()}


def open_clouds(config: Sections) -> Clouds:
    """All clouds of a director.cfg: `[iaas]` and the sections that its OTHER_CLOUDS lists. Never raises for a bad section.

    `config` is a ConfigParser or any mapping of sections.
    """
    return Clouds(config)


def _configured(sections: Sections) -> list[str]:
    section: Mapping[str, str] = dict(sections).get(node.INNER_DEFAULT_CLOUD, {})
    default = {key.upper(): str(value) for key, value in section.items()}
    names = [node.INNER_DEFAULT_CLOUD] if default.get("DRIVER", "").strip() else []
    for other in default.get("OTHER_CLOUDS", "").split(","):
        if other.strip() and other.strip() not in names:
            names.append(other.strip())
    return names
