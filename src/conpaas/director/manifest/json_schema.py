"""The JSON Schema of manifests, built from the service types that are installed: for editors, and for forms that write manifests."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final

from conpaas.core import errors, services
from conpaas.director.manifest import schema

_log = logging.getLogger(__name__)

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_MEANING: Final[Mapping[str, str]] = {
    "Application": "Its name; if it is taken, a number is added.",
    "Description": "A note to yourself.",
    "ServiceName": "How the service is called. Default: 'New <type> service'.",
    "Cloud": "The cloud where its nodes run. Default: the one given with the upload.",
    "Start": "1: the service is started. Default 0: it is there with its code and settings, and is not started.",
    "StartupScript": "URL of a script that every new node runs first; at most 64 KiB.",
    "StartupInstances": "How many nodes of each role run in the end.",
    "StartRole": "Accepted for compatibility; it means nothing.",
}


def document(registry: services.Registry = services.registry) -> dict[str, Any]:
    """The schema of a whole manifest: what all services have, and one alternative per type with its own fields."""
    kinds = list(_kinds(registry))
    return {
        "$schema": DIALECT,
        "title": "ConPaaS manifest",
        "type": "object",
        "required": ["Application", "Services"],
        "additionalProperties": False,
        "properties": {
            "Application": {
                "type": "string",
                "maxLength": schema.MAX_NAME,
                "pattern": schema.NAME_PATTERN,
                "description": _MEANING["Application"],
            },
            "Description": {"description": _MEANING["Description"]},
            "Services": {
                "type": "array",
                "maxItems": schema.MAX_SERVICES,
                "description": "The services, in the order in which they are started.",
                "items": {
                    "type": "object",
                    "required": ["Type"],
                    "properties": {"Type": {"enum": [kind.name for kind in kinds]}},
                    "oneOf": [service(kind) for kind in kinds],
                },
            },
        },
    }


def _kinds(registry: services.Registry) -> Iterator[services.ServiceType]:
    """The types that can be used; one whose descriptor is broken is none."""
    for name in registry.available():
        try:
            yield registry.get(name)
        except errors.NotFound as error:
            _log.warning("left out of the manifest schema: %s", error)


def service(kind: services.ServiceType) -> dict[str, Any]:
    """The alternative for one type. `running` marks fields for which the service has to run, `file` those that are the URL of a file."""
    own = {field.name: field for field in kind.manifest_fields}
    found: dict[str, Any] = {"title": kind.label or kind.name, "description": kind.description, **schema.service_schema(kind)}
    properties: dict[str, Any] = {}
    for name, value in found["properties"].items():
        field = own.get(name)
        properties[name] = _plain(value) | {"description": field.help if field else _MEANING.get(name, "")}
        if field is not None:
            marks = {"running": field.running, "file": field.file is not None}
            properties[name] |= {mark: True for mark, given in marks.items() if given}
        if field is not None and field.peer:
            properties[name]["peer"] = field.peer
    return found | {"properties": {**properties, "Type": {"const": kind.name, "description": "The type of the service."}}}


def _plain(value: Any) -> Any:
    """A schema without what only our own messages use."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items() if name != schema.SAYS}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
