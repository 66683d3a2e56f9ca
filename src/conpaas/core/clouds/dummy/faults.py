"""Failures on request, for the dummy cloud: to drive every failure path by hand or from a test.

Each setting may stand in the cloud's section of director.cfg (upper case) and, changeable while everything runs, in
`<STATE_DIR>/faults.json` (lower case), which wins:

    {"fail_create": 2, "boot_delay_s": 5}

| setting             | effect                                                                                                |
|---------------------|-------------------------------------------------------------------------------------------------------|
| boot_delay_s        | seconds that a VM stays pending before it runs its user-data                                          |
| fail_create         | a number: so many nodes of each request fail, the last ones; a list: the nodes with these indexes fail |
| never_boot          | the VM is running, but never runs its user-data, so nothing in it ever answers                        |
| lose_after_s        | a VM dies by itself so many seconds after it was booted                                               |
| fail_destroy        | destroying VMs fails (true: all; a list: these vmids)                                                 |
| fail_volume_create, fail_volume_attach, fail_volume_detach | that call fails                                                |
| volume_delay_s      | seconds that each call about a volume takes longer                                                    |
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from typing import Any

from conpaas.core import errors
from conpaas.core.clouds import settings as cloud_settings

FILE = "faults.json"


@dataclasses.dataclass(frozen=True)
class Faults:
    """The failures wanted now; see the module's text. Nothing is wanted by default."""

    boot_delay_s: float = 0.0
    fail_create: int | tuple[int, ...] = 0
    never_boot: bool = False
    lose_after_s: float = 0.0
    fail_destroy: bool | tuple[str, ...] = False
    fail_volume_create: bool = False
    fail_volume_attach: bool = False
    fail_volume_detach: bool = False
    volume_delay_s: float = 0.0

    def failing(self, indexes: list[int]) -> set[int]:
        """Which of the nodes of a request are to fail."""
        if isinstance(self.fail_create, tuple):
            return set(self.fail_create) & set(indexes)
        return set(sorted(indexes, reverse=True)[: self.fail_create])

    def refuses_to_destroy(self, vmid: str) -> bool:
        return self.fail_destroy if isinstance(self.fail_destroy, bool) else vmid in self.fail_destroy


KEYS = tuple(field.name.upper() for field in dataclasses.fields(Faults))


def from_settings(settings: cloud_settings.Settings) -> Faults:
    """The faults of a section of director.cfg; raises ConfigurationError for values of the wrong type."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Faults):
        text = settings.text(field.name.upper())
        if text:
            values[field.name] = _from_text(text)
    return _checked(Faults(), values, f"The section [{settings.name}]")


def current(configured: Faults, directory: pathlib.Path) -> Faults:
    """`configured`, overridden by faults.json of this moment. Raises ConfigurationError when that file is wrong."""
    path = directory / FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8") or "{}")
    except FileNotFoundError:
        return configured
    except ValueError as error:
        raise errors.ConfigurationError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise errors.ConfigurationError(f"{path} must hold one JSON object")
    return _checked(configured, values, str(path))


def _from_text(text: str) -> Any:
    if re.fullmatch(r"true|yes|on|false|no|off", text.lower()):
        return text.lower() in {"true", "yes", "on"}
    parts = [_number(part.strip()) for part in text.strip("[]").split(",") if part.strip()]
    return parts[0] if len(parts) == 1 and not text.startswith("[") else parts


def _number(text: str) -> Any:
    try:
        return int(text) if re.fullmatch(r"-?[0-9]+", text) else float(text)
    except ValueError:
        return text


def _checked(base: Faults, values: dict[str, Any], where: str) -> Faults:
    changes: dict[str, Any] = {}
    for name, value in values.items():
        if name.upper() not in KEYS:
            raise errors.ConfigurationError(f"{where} asks for an unknown fault {name!r}; known are {[key.lower() for key in KEYS]}")
        changes[name.lower()] = _convert(name.lower(), value, where)
    return dataclasses.replace(base, **changes)


def _convert(name: str, value: Any, where: str) -> Any:
    truth = isinstance(value, bool)
    if name == "fail_destroy" and isinstance(value, str):
        return (value,)
    if name in {"boot_delay_s", "lose_after_s", "volume_delay_s"} and not truth and isinstance(value, int | float) and value >= 0:
        return float(value)
    if name == "fail_create" and not truth:
        if isinstance(value, int) and value >= 0:
            return value
        if isinstance(value, list) and all(isinstance(item, int) for item in value):
            return tuple(value)
    if name == "fail_destroy" and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if name not in {"boot_delay_s", "lose_after_s", "volume_delay_s", "fail_create"} and truth:
        return value
    raise errors.ConfigurationError(f"{where} gives the fault {name} a value of the wrong kind: {value!r}")
