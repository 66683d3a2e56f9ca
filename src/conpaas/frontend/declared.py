"""What a service type declared (`conpaas.core.pages.Page.to_dict()`), as something to look things up in: panels, parts and deeds by key.

The declaration comes from the Director as JSON, so it is read with care: what is not there is empty, what is unknown is left out.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from conpaas.core import pages
from conpaas.core.pages import Field, Role
from conpaas.frontend import paths

KINDS: Final = tuple(part.kind for part in typing.get_args(pages.Part))
DEEDS: Final = tuple(deed.kind for deed in typing.get_args(pages.Deed))


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of a manager: `application` means the application manager. `params` are JSON values."""

    verb: str
    method: str
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    application: bool = False

    @property
    def key(self) -> str:
        """Equal for calls that ask the same."""
        return json.dumps([self.verb, self.method, self.params, self.application], sort_keys=True, default=str)


def choices_call(field: Field) -> Call | None:
    """The call that tells the choices of a field, if one does."""
    method = field.choices_from.partition(":")[0]
    return None if not method or method.startswith("@") else Call("GET", method)


@dataclasses.dataclass(frozen=True)
class Deed:
    """What a person can press: an action, a download or a view. `key` names it in addresses."""

    key: str
    kind: str
    method: str
    label: str
    fields: tuple[Field, ...]
    fixed: Mapping[str, Any]
    row: Mapping[str, str]
    states: tuple[str, ...]
    unless: str
    verb: str
    application: bool
    group: str
    entry: str
    loses: str
    typed: str
    done: str
    shows: str
    help: str
    filename: str
    path: str

    @classmethod
    def read(cls, value: Mapping[str, Any], key: str) -> Deed:
        kind = _text(value, "kind", "action")
        verb = _text(value, "verb", "POST") if kind == "action" else "GET"
        return cls(
            key=key,
            kind=kind if kind in DEEDS else "action",
            method=_text(value, "method"),
            label=_text(value, "label"),
            fields=tuple(_field(one) for one in _objects(value, "fields")),
            fixed=_mapping(value, "fixed"),
            row={name: str(path) for name, path in _mapping(value, "row").items()},
            states=tuple(str(one) for one in _list(value, "states")),
            unless=_text(value, "unless"),
            verb=verb if verb in ("POST", "UPLOAD") else "GET" if kind != "action" else "POST",
            application=bool(value.get("application")),
            group=_text(value, "group"),
            entry=_text(value, "entry"),
            loses=_text(value, "loses"),
            typed=_text(value, "typed"),
            done=_text(value, "done"),
            shows=_text(value, "shows"),
            help=_text(value, "help"),
            filename=_text(value, "filename"),
            path=_text(value, "key"),
        )

    def offered(self, state: str) -> bool:
        return not self.states or state in self.states


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a panel. `reads` is the call it shows the reply of, if it does; `value` the declaration itself."""

    key: str
    kind: str
    value: Mapping[str, Any]
    reads: Call | None
    deeds: tuple[Deed, ...]

    def shown(self, state: str) -> bool:
        states = _list(self.value, "states")
        return not states or state in states

    def calls(self) -> list[Call]:
        """All that is read to show it, the choices of its forms included."""
        found = [self.reads] if self.reads is not None else []
        return found + [call for deed in self.deeds for one in deed.fields if (call := choices_call(one)) is not None]


@dataclasses.dataclass(frozen=True)
class Panel:
    """A part of the page with a heading."""

    key: str
    title: str
    help: str
    parts: tuple[Part, ...]


@dataclasses.dataclass(frozen=True)
class Declaration:
    """The page of one service type."""

    name: str
    label: str
    panels: tuple[Panel, ...]
    roles: tuple[Role, ...]
    loses: str
    next_step: str
    node: tuple[Mapping[str, Any], ...]

    def panel(self, key: str) -> Panel | None:
        return next((one for one in self.panels if one.key == key), None)

    def part(self, key: str) -> Part | None:
        return next((one for one in self._parts() if one.key == key), None)

    def deed(self, key: str) -> Deed | None:
        """What a key means; None for a key that nothing has."""
        return next((one for part in self._parts() for one in part.deeds if one.key == key), None)

    def part_of(self, deed: Deed) -> Part | None:
        return next((part for part in self._parts() if any(one.key == deed.key for one in part.deeds)), None)

    def _parts(self) -> Iterator[Part]:
        for panel in self.panels:
            yield from panel.parts


def read(service_type: Mapping[str, Any], sid: int) -> Declaration:
    """The declaration of a type, as `/service_types` tells it, for one service."""
    page = _mapping(service_type, "page")
    names = _Names()
    named = _objects(page, "roles")
    known = {_text(one, "name") for one in named}
    bare = [{"name": str(one)} for one in _list(service_type, "roles") if str(one) not in known]
    return Declaration(
        name=_text(service_type, "name"),
        label=_text(service_type, "label") or _text(service_type, "name"),
        panels=tuple(_panel(one, names, sid) for one in _objects(page, "panels")),
        roles=tuple(_role(one) for one in [*named, *bare]),
        loses=_text(page, "loses"),
        next_step=_text(page, "next_step"),
        node=tuple(_objects(page, "node")),
    )


class _Names:
    """Gives out keys, each once. They follow from titles and labels, so that a form that is older than the page still means the same."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def new(self, wanted: str) -> str:
        key, number = wanted, 1
        while key in self._taken:
            number += 1
            key = f"{wanted}-{number}"
        self._taken.add(key)
        return key


def _panel(value: Mapping[str, Any], names: _Names, sid: int) -> Panel:
    title = _text(value, "title")
    key = names.new(paths.slug(title))
    parts = [_part(one, key, names, sid) for one in _objects(value, "parts") if one.get("kind") in KINDS]
    return Panel(key, title, _text(value, "help"), tuple(parts))


def _part(value: Mapping[str, Any], panel: str, names: _Names, sid: int) -> Part:
    kind = str(value["kind"])
    title = _text(value, "title") or _text(value, "label") or kind
    key = names.new(f"{panel}.{paths.slug(title)}")
    found = [_mapping(value, "action")] if kind == "form" else _objects(value, "actions")
    deeds = [Deed.read(one, names.new(f"{key}.{paths.slug(_text(one, 'label'))}")) for one in found]
    return Part(key, kind, value, _reading(value, sid), tuple(with_sid(one, sid) for one in deeds))


def with_sid(deed: Deed, sid: int) -> Deed:
    """The same with the service's number where it is asked for."""
    return dataclasses.replace(deed, fixed=_numbered(deed.fixed, sid))


def _numbered(fixed: Mapping[str, Any], sid: int) -> dict[str, Any]:
    return {name: sid if value == pages.SID else value for name, value in fixed.items()}


def _reading(value: Mapping[str, Any], sid: int) -> Call | None:
    method = _text(value, "method")
    if not method:
        return None
    verb = "POST" if value.get("verb") == "POST" else "GET"
    return Call(verb, method, _numbered(_mapping(value, "fixed"), sid), bool(value.get("application")))


def _field(value: Mapping[str, Any]) -> Field:
    kind = _text(value, "input", "text")
    return Field(
        name=_text(value, "name"),
        label=_text(value, "label") or _text(value, "name"),
        input=kind if kind in pages.INPUTS else "text",
        help=_text(value, "help"),
        required=bool(value.get("required")),
        default=value.get("default"),
        choices=tuple(str(one) for one in _list(value, "choices")),
        choices_from=_text(value, "choices_from"),
        minimum=_integer(value, "minimum"),
        maximum=_integer(value, "maximum"),
        placeholder=_text(value, "placeholder"),
        present=_text(value, "present"),
        unit=_text(value, "unit"),
        generated=bool(value.get("generated")),
        of=tuple(_field(one) for one in _objects(value, "of")),
    )


def _role(value: Mapping[str, Any]) -> Role:
    name = _text(value, "name")
    scalable = value.get("scalable")
    return Role(
        name,
        _text(value, "label") or name.capitalize(),
        _text(value, "help"),
        _integer(value, "minimum") or 0,
        True if scalable is None else bool(scalable),
    )


def _text(value: Mapping[str, Any], name: str, default: str = "") -> str:
    found = value.get(name)
    return found if isinstance(found, str) else default


def _integer(value: Mapping[str, Any], name: str) -> int | None:
    found = value.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _list(value: Mapping[str, Any], name: str) -> Sequence[Any]:
    found = value.get(name)
    return found if isinstance(found, list | tuple) else ()


def _mapping(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name)
    return found if isinstance(found, Mapping) else {}


def _objects(value: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    return [one for one in _list(value, name) if isinstance(one, Mapping)]
