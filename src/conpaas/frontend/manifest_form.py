"""A manifest as a form: from the Director's JSON Schema to inputs, and from what was typed to the document.

The form knows no service type. Inputs are called `<number of the service>.<field>` and, for nodes, `<number>.StartupInstances.<role>`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from conpaas.client import replies
from conpaas.core import errors

MAX_SERVICES: Final = 20
"""Services in a form; a manifest may have more."""
_FIRST: Final = ("ServiceName", "Start", "StartupInstances", "Cloud", "StartupScript")
_NODES: Final = "StartupInstances"
_LEFT_OUT: Final = ("Type", "StartRole")
_LABELS: Final = {
    "ServiceName": "Name",
    "Start": "Start it",
    "StartupScript": "Startup script",
    "Archive": "Code archive",
    "PhpConf": "PHP settings",
    "WebSettings": "Web settings",
    "Dump": "Database dump",
}
_Read = Callable[[str], str | None]


@dataclasses.dataclass(frozen=True)
class Input:
    """One input. `kind` is text, url, password, boolean, number, count, pairs or json."""

    name: str
    field: str
    label: str
    kind: str
    value: str
    help: str = ""
    running: bool = False
    maximum: int | None = None


@dataclasses.dataclass(frozen=True)
class Card:
    """The inputs of one service."""

    number: int
    type: str
    label: str
    description: str
    inputs: tuple[Input, ...]
    nodes: tuple[Input, ...]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A service type as the schema has it."""

    name: str
    label: str
    description: str
    properties: Mapping[str, Any]

    @property
    def fields(self) -> list[str]:
        """The fields in the order of the form: what all services have, then the type's own."""
        own = [name for name in self.properties if name not in (*_FIRST, *_LEFT_OUT)]
        return [name for name in _FIRST if name in self.properties and name != _NODES] + own

    @property
    def roles(self) -> list[str]:
        """What nodes of it can be."""
        return list(replies.mapping(self.properties.get(_NODES, {}).get("properties") or {}))


def kinds(schema: Mapping[str, Any]) -> dict[str, Kind]:
    """The service types of a manifest's schema."""
    services = replies.mapping(replies.mapping(schema.get("properties")).get("Services"))
    found = {}
    for one in replies.sequence(replies.mapping(services.get("items")).get("oneOf")):
        properties = replies.mapping(replies.mapping(one).get("properties"))
        name = replies.text(replies.mapping(properties.get("Type")).get("const"))
        found[name] = Kind(name, replies.text(one.get("title"), name), replies.text(one.get("description")), properties)
    return found


def _kind_of(name: str, schema: Mapping[str, Any]) -> str:
    if name == "Start":
        return "boolean"
    if schema.get("file") or name == "StartupScript":
        return "url"
    if schema.get("format") == "password" or "password" in name.lower():
        return "password"
    plain = {"string": "text", "integer": "number", "boolean": "boolean", "object": "pairs", "array": "json"}
    return plain.get(replies.text(schema.get("type")), "text")


def card(kind: Kind, number: int, read: _Read) -> Card:
    """The inputs of a service with what `read` finds under their names."""
    inputs = []
    for field in kind.fields:
        schema = kind.properties[field]
        name = f"{number}.{field}"
        label = _LABELS.get(field, field)
        said = replies.text(schema.get("description"))
        inputs.append(Input(name, field, label, _kind_of(field, schema), read(name) or "", said, bool(schema.get("running"))))
    nodes = tuple(
        Input(f"{number}.{_NODES}.{role}", role, role, "count", read(f"{number}.{_NODES}.{role}") or "", maximum=1000)
        for role in kind.roles
    )
    return Card(number, kind.name, kind.label, kind.description, tuple(inputs), nodes)


def document(application: str, chosen: list[tuple[int, Kind]], read: _Read) -> dict[str, Any]:
    """The manifest that a filled-in form means; what is left empty is not in it. Raises InvalidArgument naming the field."""
    return {"Application": application, "Services": [_service(kind, number, read) for number, kind in chosen]}


def _service(kind: Kind, number: int, read: _Read) -> dict[str, Any]:
    made: dict[str, Any] = {"Type": kind.name}
    for field in kind.fields:
        shape = _kind_of(field, kind.properties[field])
        text = (read(f"{number}.{field}") or "").strip()
        if field == "Start":
            made[field] = 1 if text else 0
        elif text:
            made[field] = _value(shape, text, f"{_LABELS.get(field, field)} of service {number + 1}")
    nodes = {role: count for role in kind.roles if (count := _count((read(f"{number}.{_NODES}.{role}") or "").strip())) is not None}
    if nodes:
        made[_NODES] = nodes
    return made


def _count(text: str) -> Any:
    """A number of nodes; what is no number stays as it is, for the Director to complain about."""
    return None if not text else int(text) if text.isascii() and text.isdigit() and len(text) < 9 else text


def _value(shape: str, text: str, what: str) -> Any:
    if shape == "number":
        return _count(text)
    if shape == "boolean":
        return True
    if shape == "pairs":
        return _pairs(text, what)
    if shape == "json":
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise errors.InvalidArgument(f"{what}: this is not a JSON list ({error}).") from error
    return text


def _pairs(text: str, what: str) -> dict[str, str]:
    """Lines of the form `name = value`."""
    found = {}
    for line in text.splitlines():
        name, separator, value = line.partition("=")
        if not line.strip():
            continue
        if not separator or not name.strip():
            raise errors.InvalidArgument(f"{what}: the line '{line.strip()[:80]}' is not of the form name = value.")
        found[name.strip()] = value.strip()
    return found
