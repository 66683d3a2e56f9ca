"""The form of a manifest, checked before anything is created; errors name the line and the field at fault."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from conpaas.core import data_urls, errors, params, services
from conpaas.director.manifest import positions

if TYPE_CHECKING:
    import jsonschema

MAX_TEXT = 4 * 1024 * 1024
"""Characters of a manifest."""
MAX_SERVICES = 50
MAX_NAME = 256
MAX_COUNT = 1000
INVALID = "The uploded manifest is not valid"
NO_NAME = "Application is not defined"
MAX_PROBLEMS = 10
"""How many things that are wrong are told at once."""

# Fields of ConPaaS 2 that are accepted and mean nothing (any more), by where they stand.
LEGACY_TOP = ("Description",)
LEGACY_SERVICE = ("StartRole",)

SAYS = "says"  # a keyword that validators ignore: how to tell a person what is expected
NAME_PATTERN = r"^(?=.*\S)[^\x00-\x1f\x7f-\x9f\u2028\u2029]+(?![\s\S])"
"""One line that is not empty."""
_NAME: Mapping[str, Any] = {"type": "string", "maxLength": MAX_NAME, "pattern": NAME_PATTERN, SAYS: f"a name of 1 to {MAX_NAME} characters"}
_URL: Mapping[str, Any] = {
    "type": "string",
    "maxLength": MAX_TEXT,
    "pattern": "^(https?://[^/]|data:|ready-made:[a-z0-9-]+\\Z)",
    SAYS: "an http, https or data URL",
}
_COUNT: Mapping[str, Any] = {
    "anyOf": [{"type": "integer", "minimum": 0, "maximum": MAX_COUNT}, {"type": "string", "pattern": r"^(1000|[0-9]{1,3})\Z"}],
    SAYS: f"a whole number from 0 to {MAX_COUNT}",
}
_START: Mapping[str, Any] = {"enum": [0, 1, "0", "1", False, True], SAYS: "0 or 1"}
_SERVICE: Mapping[str, Any] = {
    "Type": {"type": "string"},
    "ServiceName": _NAME,
    "Cloud": {"type": "string", "pattern": r"^[A-Za-z0-9_.-]{1,64}\Z", SAYS: "the name of a cloud"},
    "Start": _START,
    "StartupScript": _URL,
    **{name: {} for name in LEGACY_SERVICE},
}
_MANIFEST: Mapping[str, Any] = {
    "type": "object",
    SAYS: "an object with the fields Application and Services",
    "required": ["Application", "Services"],
    "properties": {
        "Application": _NAME,
        "Services": {
            "type": "array",
            "maxItems": MAX_SERVICES,
            "items": {"type": "object", "required": ["Type"], "properties": {"Type": {"type": "string"}}, SAYS: "an object"},
            SAYS: f"a list of at most {MAX_SERVICES} services",
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


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a manifest. `field` is empty where it is the whole; lines and columns count from 1."""

    line: int
    column: int
    field: str
    text: str
    hint: str | None = None

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.text}"


class Invalid(errors.InvalidArgument):
    """What is wrong with a manifest: the first `MAX_PROBLEMS` problems, in the order of the text. `whole`: what ConPaaS 2 said instead."""

    def __init__(self, problems: Sequence[Problem], whole: str = "") -> None:
        first = problems[0]
        said = "\n".join(str(one) for one in (problems[1:] if whole else problems))
        text = "\n".join(filter(None, (whole, said))) if whole else f"{INVALID}: {said}"
        hint = f"See {first.field} (line {first.line}). {first.hint or ''}".strip() if whole else first.hint
        super().__init__(text, hint=hint)
        self.problems = tuple(problems)


@dataclasses.dataclass(frozen=True)
class _Finding:
    """A problem whose place is not looked up yet. `classic` is the text that ConPaaS 2 answered, if it knew this one."""

    path: positions.Path
    text: str
    classic: str = ""
    hint: str | None = None


def parse(text: str, registry: services.Registry = services.registry, known_cloud: Callable[[str], object] = lambda _: None) -> Manifest:
    """Read a manifest. Raises `Invalid` with the classic texts, completed by what is wrong and where.

    `known_cloud` raises ConPaaSError for the name of a cloud that there is not.
    """
    raw = _decode(text)
    found = list(_document(raw, registry)) or [*_peers(raw["Services"], registry), *_clouds(raw["Services"], known_cloud)]
    if found:
        raise _invalid(text, found)
    return Manifest(raw["Application"].strip(), tuple(_made(service, registry) for service in raw["Services"]))


def _invalid(text: str, found: Sequence[_Finding]) -> Invalid:
    where = positions.Positions(text)
    located = sorted(((where.find(one.path), one) for one in found), key=lambda pair: (pair[0].line, pair[0].column))[:MAX_PROBLEMS]
    problems = [Problem(place.line, place.column, _place("", one.path), one.text, one.hint) for place, one in located]
    return Invalid(problems, located[0][1].classic)


def _decode(text: str) -> Any:
    try:
        raw = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise Invalid([Problem(error.lineno, error.colno, "", f"{error.msg}.")]) from error
    except RecursionError as error:
        raise Invalid([Problem(1, 1, "", "it is nested too deeply.")]) from error
    except ValueError as error:
        where = positions.Positions(text)
        place = (where.constant if isinstance(error, _NotJSONError) else where.twice) or positions.Place(1, 1)
        raise Invalid([Problem(place.line, place.column, "", f"{error}.")]) from error
    wrong = next((_Finding(path, said) for path, one in _texts(raw) if (said := _unreadable(one))), None)
    if wrong is not None:
        raise _invalid(text, [wrong])
    return raw


class _NotJSONError(ValueError):
    """A word that Python's parser reads although it is not JSON."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, unless a name is in it twice."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the field '{params.shown(name)}' is there twice in one object")
        found[name] = value
    return found


def _no_constant(name: str) -> Any:
    raise _NotJSONError(f"{name} is not JSON")


def _unreadable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return "a text in it holds half a surrogate pair."
    return "a text in it holds a NUL character." if "\0" in text else ""


def _texts(raw: Any, path: positions.Path = ()) -> Iterator[tuple[positions.Path, str]]:
    """All texts in a document, with their places; names of fields too."""
    if isinstance(raw, str):
        yield path, raw
    elif isinstance(raw, dict):
        for name, value in raw.items():
            yield (*path, name), name
            yield from _texts(value, (*path, name))
    elif isinstance(raw, list):
        for index, value in enumerate(raw):
            yield from _texts(value, (*path, index))


def _document(raw: Any, registry: services.Registry) -> Iterator[_Finding]:
    """Everything that is wrong with a document."""
    broken = list(_check(raw, _MANIFEST, ()))
    if isinstance(raw, dict):
        if raw.get("Application") in (None, ""):
            yield _Finding(("Application",), NO_NAME, NO_NAME)
            broken = [one for one in broken if one.path != ("Application",)]
        yield from _unknown(raw, [*_MANIFEST["properties"]], ())
    yield from broken
    services_given = raw.get("Services") if isinstance(raw, dict) else None
    if not isinstance(services_given, list) or len(services_given) > MAX_SERVICES:
        return
    for index, service in enumerate(services_given):
        if isinstance(service, dict) and isinstance(service.get("Type"), str):
            yield from _service(service, ("Services", index), registry)


def _check(raw: Any, schema: Mapping[str, Any], path: positions.Path) -> Iterator[_Finding]:
    """What a schema says about a value."""
    import jsonschema  # only Directors that get manifests need it in memory

    for error in jsonschema.Draft202012Validator(schema).iter_errors(raw):
        yield _sentence(error, path)


def _sentence(error: jsonschema.ValidationError, path: positions.Path) -> _Finding:
    path = (*path, *error.absolute_path)
    place = _place("", path)
    broken: Mapping[str, Any] = error.schema if isinstance(error.schema, Mapping) else {}
    if error.validator == "required":
        given: Mapping[str, Any] = error.instance if isinstance(error.instance, Mapping) else {}
        missing = next(name for name in broken["required"] if name not in given and f"'{name}'" in error.message)
        return _Finding((*path, missing), f"{_place(place, [missing])}: it is missing.")
    secret = broken.get("format") == "password"
    says = broken.get(SAYS)
    if says:
        shown = "" if secret or isinstance(error.instance, dict | list) else f", not {params.shown(json.dumps(error.instance))}"
        return _Finding(path, f"{f'{place}:' if place else 'it'} should be {says}{shown}.")
    return _Finding(path, f"{place}: {'the value is not allowed' if secret else params.shown(error.message)}.")


def _place(where: str, path: Iterable[Any]) -> str:
    for part in path:
        where += f"[{part}]" if isinstance(part, int) else f".{params.shown(part)}"
    return where.removeprefix(".")


def _unknown(raw: Mapping[str, Any], known: Sequence[str], path: positions.Path) -> Iterator[_Finding]:
    for name in raw:
        if name not in known:
            text = f"{_place('', (*path, name))}: there is no such field; the fields are {', '.join(sorted(known))}."
            yield _Finding((*path, name), text)


def _service(raw: Mapping[str, Any], path: positions.Path, registry: services.Registry) -> Iterator[_Finding]:
    kind = raw["Type"]
    if kind not in registry.available():
        text = f"Service {params.shown(kind)} does not exists"
        yield _Finding((*path, "Type"), text, text, f"There are: {', '.join(registry.available())}.")
        return
    declared = registry.get(kind)
    schema = service_schema(declared)
    yield from _unknown(raw, list(schema["properties"]), path)
    nodes = raw.get("StartupInstances", {})
    strange = [role for role in nodes if role not in declared.roles] if isinstance(nodes, dict) else []
    for role in strange:
        at = (*path, "StartupInstances", role)
        yield _Finding(at, f"{_place('', at)}: there is no such role; the roles of {kind} are {', '.join(declared.roles)}.")
    known = {name: value for name, value in raw.items() if name in schema["properties"]}
    if strange:
        known["StartupInstances"] = {role: count for role, count in nodes.items() if role not in strange}
    wrong = list(_check(known, schema, path))
    yield from wrong
    if not wrong:
        yield from _use(_made(known, registry), declared, path)


def _use(made: Service, declared: services.ServiceType, path: positions.Path) -> Iterator[_Finding]:
    """What a schema cannot say about a service."""
    place = _place("", path)
    urls = {field.name: made.fields[field.name] for field in declared.manifest_fields if field.file and field.name in made.fields}
    for name, url in {**urls, **({"StartupScript": made.script} if made.script else {})}.items():
        if url.startswith(data_urls.SCHEME):
            try:
                data_urls.decode(url)
            except errors.InvalidArgument as error:
                yield _Finding((*path, name), f"{place}.{name}: {error}")


def _peers(raw: Sequence[Any], registry: services.Registry) -> Iterator[_Finding]:
    """Names of other services that do not lead to exactly one, in a document that is right otherwise."""
    titles = [one.get("ServiceName", "").strip() for one in raw]
    for index, service in enumerate(raw):
        for field in registry.get(service["Type"]).manifest_fields:
            for number, entry in enumerate(service.get(field.name, []) if field.peer else []):
                name = entry.get(field.peer)
                path = ("Services", index, field.name, number, field.peer)
                there = [i for i, title in enumerate(titles) if title == name and i != index]
                if len(there) != 1:
                    what = "several services have" if there else "no other service has"
                    yield _Finding(path, f"{_place('', path)}: {what} the ServiceName {params.shown(json.dumps(name))}.")


def _clouds(raw: Sequence[Any], known_cloud: Callable[[str], object]) -> Iterator[_Finding]:
    """Clouds that there are not, in a document that is right otherwise."""
    for index, service in enumerate(raw):
        try:
            known_cloud(service.get("Cloud", "default"))
        except errors.ConPaaSError as error:
            path = ("Services", index, "Cloud")
            yield _Finding(path, f"{_place('', path)}: {error}", hint=error.hint)


def _made(raw: Mapping[str, Any], registry: services.Registry) -> Service:
    declared = registry.get(raw["Type"])
    return Service(
        type=raw["Type"],
        name=raw["ServiceName"].strip() if "ServiceName" in raw else None,
        cloud=raw.get("Cloud"),
        start=bool(int(raw.get("Start", 0))),
        script=raw.get("StartupScript"),
        nodes={role: int(count) for role, count in raw.get("StartupInstances", {}).items()},
        fields={field.name: raw[field.name] for field in declared.manifest_fields if field.name in raw},
    )


def service_schema(declared: services.ServiceType) -> dict[str, Any]:
    """The JSON Schema of a service of a type in a manifest."""
    roles = {"type": "object", "properties": dict.fromkeys(declared.roles, _COUNT), "additionalProperties": False, SAYS: "an object"}
    own = {field.name: dict(_URL) if field.file else field.type.schema() for field in declared.manifest_fields}
    properties = {**_SERVICE, "StartupInstances": roles, **own}
    return {"type": "object", "required": ["Type"], "properties": properties, "additionalProperties": False}
