"""The form of a manifest, checked before anything is created; errors name the line or the field at fault."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from conpaas.core import data_urls, errors, params, services

if TYPE_CHECKING:
    import jsonschema

MAX_TEXT = 4 * 1024 * 1024
"""Characters of a manifest."""
MAX_SERVICES = 50
MAX_NAME = 256
MAX_COUNT = 1000
INVALID = "The uploded manifest is not valid"
NO_NAME = "Application is not defined"

# Fields of ConPaaS 2 that are accepted and mean nothing (any more), by where they stand.
LEGACY_TOP = ("Description",)
LEGACY_SERVICE = ("StartRole",)

_SAYS = "says"  # a keyword that validators ignore: how to tell a person what is expected
_NAME: Mapping[str, Any] = {"type": "string", "maxLength": MAX_NAME, "pattern": r"\S", _SAYS: f"a name of 1 to {MAX_NAME} characters"}
_URL: Mapping[str, Any] = {
    "type": "string",
    "maxLength": MAX_TEXT,
    "pattern": "^(https?://[^/]|data:)",
    _SAYS: "an http, https or data URL",
}
_COUNT: Mapping[str, Any] = {
    "anyOf": [{"type": "integer", "minimum": 0, "maximum": MAX_COUNT}, {"type": "string", "pattern": r"^(1000|[0-9]{1,3})\Z"}],
    _SAYS: f"a whole number from 0 to {MAX_COUNT}",
}
_START: Mapping[str, Any] = {"enum": [0, 1, "0", "1", False, True], _SAYS: "0 or 1"}
_SERVICE: Mapping[str, Any] = {
    "Type": {"type": "string"},
    "ServiceName": _NAME,
    "Cloud": {"type": "string", "pattern": r"^[A-Za-z0-9_.-]{1,64}\Z", _SAYS: "the name of a cloud"},
    "Start": _START,
    "StartupScript": _URL,
    **{name: {} for name in LEGACY_SERVICE},
}
_MANIFEST: Mapping[str, Any] = {
    "type": "object",
    _SAYS: "an object with the fields Application and Services",
    "required": ["Application", "Services"],
    "properties": {
        "Application": _NAME,
        "Services": {
            "type": "array",
            "maxItems": MAX_SERVICES,
            "items": {"type": "object", "required": ["Type"], "properties": {"Type": {"type": "string"}}, _SAYS: "an object"},
            _SAYS: f"a list of at most {MAX_SERVICES} services",
        },
        **{name: {} for name in LEGACY_TOP},
    },
}


@dataclasses.dataclass(frozen=True)
class Service:
    """One service of a checked manifest. `fields` are the type's own."""

    type: str
    name: str | None = None
    cloud: str | None = None
    start: bool = False
    script: str | None = None
    nodes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, for an operation's arguments."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Service:
        """The inverse of `to_dict`."""
        return cls(**raw)

    @property
    def label(self) -> str:
        """How the service is called in messages."""
        return f"'{self.name}' ({self.type})" if self.name else self.type


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A checked manifest."""

    application: str
    services: tuple[Service, ...]


def parse(text: str, registry: services.Registry = services.registry) -> Manifest:
    """Read a manifest. Raises InvalidArgument with the classic texts, completed by what is wrong and where."""
    raw = _decode(text)
    if isinstance(raw, dict) and raw.get("Application") in (None, ""):
        raise errors.InvalidArgument(NO_NAME)
    _check(raw, _MANIFEST, "")
    _refuse_unknown(raw, [*_MANIFEST["properties"]], "")
    found = tuple(_service(service, f"Services[{index}]", registry) for index, service in enumerate(raw["Services"]))
    return Manifest(raw["Application"].strip(), found)


def _wrong(what: str, hint: str | None = None) -> errors.InvalidArgument:
    return errors.InvalidArgument(f"{INVALID}: {what}", hint=hint)


def _decode(text: str) -> Any:
    try:
        raw = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise _wrong(f"line {error.lineno}, column {error.colno}: {error.msg}.") from error
    except (ValueError, RecursionError) as error:
        raise _wrong("it is nested too deeply." if isinstance(error, RecursionError) else f"{error}.") from error
    try:
        plain = json.dumps(raw, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise _wrong("a text in it holds half a surrogate pair.") from error
    if b"\\u0000" in plain and "\0" in "".join(_texts(raw)):
        raise _wrong("a text in it holds a NUL character.")
    return raw


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, unless a name is in it twice."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the field '{params.shown(name)}' is there twice in one object")
        found[name] = value
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _texts(raw: Any) -> Iterable[str]:
    """All texts in a document."""
    if isinstance(raw, str):
        yield raw
    elif isinstance(raw, dict):
        for name, value in raw.items():
            yield name
            yield from _texts(value)
    elif isinstance(raw, list):
        for value in raw:
            yield from _texts(value)


def _check(raw: Any, schema: Mapping[str, Any], where: str) -> None:
    """Validate against a schema; the first error, in the order of the document, is raised."""
    import jsonschema  # only Directors that get manifests need it in memory

    validator = jsonschema.Draft202012Validator(schema)
    found = sorted(validator.iter_errors(raw), key=lambda error: [str(part) for part in error.absolute_path])
    if found:
        raise _wrong(_sentence(found[0], where))


def _sentence(error: jsonschema.ValidationError, where: str) -> str:
    place = _place(where, error.absolute_path)
    broken: Mapping[str, Any] = error.schema if isinstance(error.schema, Mapping) else {}
    if error.validator == "required":
        given: Mapping[str, Any] = error.instance if isinstance(error.instance, Mapping) else {}
        missing = next(name for name in broken["required"] if name not in given)
        return f"{_place(place, [missing])}: it is missing."
    secret = broken.get("format") == "password"
    says = broken.get(_SAYS)
    if says:
        shown = "" if secret or isinstance(error.instance, dict | list) else f", not {params.shown(json.dumps(error.instance))}"
        return f"{f'{place}:' if place else 'it'} should be {says}{shown}."
    return f"{place}: {'the value is not allowed' if secret else params.shown(error.message)}."


def _place(where: str, path: Iterable[Any]) -> str:
    for part in path:
        where += f"[{part}]" if isinstance(part, int) else f".{params.shown(part)}"
    return where.removeprefix(".")


def _refuse_unknown(raw: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for name in raw:
        if name not in known:
            raise _wrong(f"{_place(where, [name])}: there is no such field; the fields are {', '.join(sorted(known))}.")


def _service(raw: Mapping[str, Any], where: str, registry: services.Registry) -> Service:
    kind = raw["Type"]
    if kind not in registry.available():
        raise errors.InvalidArgument(f"Service {params.shown(kind)} does not exists", hint=f"There are: {', '.join(registry.available())}.")
    declared = registry.get(kind)
    schema = service_schema(declared)
    _refuse_unknown(raw, list(schema["properties"]), where)
    nodes = raw.get("StartupInstances", {})
    if isinstance(nodes, dict):
        for role in nodes:
            if role not in declared.roles:
                raise _wrong(
                    f"{_place(where, ['StartupInstances', role])}: there is no such role; "
                    f"the roles of {kind} are {', '.join(declared.roles)}."
                )
    _check(raw, schema, where)
    made = Service(
        type=kind,
        name=raw["ServiceName"].strip() if "ServiceName" in raw else None,
        cloud=raw.get("Cloud"),
        start=bool(int(raw.get("Start", 0))),
        script=raw.get("StartupScript"),
        nodes={role: int(count) for role, count in nodes.items()},
        fields={field.name: raw[field.name] for field in declared.manifest_fields if field.name in raw},
    )
    _check_use(made, declared, where)
    return made


def _check_use(made: Service, declared: services.ServiceType, where: str) -> None:
    """What a schema cannot say."""
    for field in declared.manifest_fields:
        if field.name in made.fields and field.running and not made.start:
            raise _wrong(f"{where}.{field.name}: it can be applied to a running service only; set Start to 1.")
    urls = {field.name: made.fields[field.name] for field in declared.manifest_fields if field.file and field.name in made.fields}
    for name, url in {**urls, **({"StartupScript": made.script} if made.script else {})}.items():
        if url.startswith(data_urls.SCHEME):
            try:
                data_urls.decode(url)
            except errors.InvalidArgument as error:
                raise _wrong(f"{where}.{name}: {error}") from error


def service_schema(declared: services.ServiceType) -> dict[str, Any]:
    """The JSON Schema of a service of a type in a manifest."""
    roles = {"type": "object", "properties": dict.fromkeys(declared.roles, _COUNT), "additionalProperties": False, _SAYS: "an object"}
    own = {field.name: dict(_URL) if field.file else field.type.schema() for field in declared.manifest_fields}
    properties = {**_SERVICE, "StartupInstances": roles, **own}
    return {"type": "object", "required": ["Type"], "properties": properties, "additionalProperties": False}
