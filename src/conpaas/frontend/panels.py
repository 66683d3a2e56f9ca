"""From declared panels and replies to what templates show. Pure: whoever calls brings the replies.

Every part stands on its own: one whose reply is an error is shown as that error, whatever becomes of the others.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from conpaas.core import errors, pages
from conpaas.frontend import declared, paths
from conpaas.frontend.declared import Call, Deed, Field, Part

MAX_ROWS: Final = 200
MAX_TEXT: Final = 20_000
_LINK: Final = re.compile(r"https?://[^\s\"'<>]{1,2000}")
_GOOD: Final = frozenset({"running", "synced", "done", "ok", "healthy", "primary", "true", "stopped (return code 0)"})
_BAD: Final = ("error", "fail", "no answer", "unreachable", "lost", "unknown")

Answer = Any
"""A reply (any JSON value), or the ConPaaSError that came instead."""


@dataclasses.dataclass(frozen=True)
class Node:
    """A node of the service, as choices and addresses need it."""

    id: str
    role: str
    ip: str


@dataclasses.dataclass(frozen=True)
class Around:
    """What is known of the service without its panels: `state` is its own, `services` are the others, number and name."""

    aid: int
    sid: int
    name: str
    state: str
    manager: str = ""
    nodes: tuple[Node, ...] = ()
    services: tuple[tuple[int, str], ...] = ()

    def place(self, name: str) -> str | None:
        """What a place in a text means: `aid`, `sid`, `manager`, or a role (the address of its first node)."""
        fixed = {"aid": str(self.aid), "sid": str(self.sid), "manager": self.manager or None}
        if name in fixed:
            return fixed[name]
        return next((one.ip for one in self.nodes if one.role == name and one.ip), None)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One value with how it is shown. `tone` is of states: good, bad, or empty."""

    label: str
    value: Any
    format: str = "text"
    unit: str = ""
    help: str = ""
    tone: str = ""

    @property
    def empty(self) -> bool:
        return self.value is None or self.value in ("", [])

    @property
    def figure(self) -> str:
        """A number for people: 1,234 or 0.25; what is none stays as it is."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            return str(self.value)
        if isinstance(self.value, int) or abs(self.value) >= 100 or self.value == int(self.value):
            return f"{self.value:,.0f}"
        return f"{self.value:.2f}".rstrip("0").rstrip(".")


@dataclasses.dataclass(frozen=True)
class FieldView:
    """A field as a template shows it. `was` is the present value that was shown (None: it has none)."""

    field: Field
    value: Any = ""
    was: str | None = None
    choices: tuple[tuple[str, str], ...] = ()
    problem: str = ""
    trouble: str = ""
    """Why its choices cannot be told."""
    rows: tuple[Mapping[str, str], ...] = ()

    def chosen(self, value: str) -> bool:
        return value in self.value if isinstance(self.value, list | tuple) else value == str(self.value)


@dataclasses.dataclass(frozen=True)
class DeedView:
    """A button, with the form around it. `hidden` are the parameters that its row gives, `typing` is what confirms it."""

    deed: Deed
    fields: tuple[FieldView, ...] = ()
    hidden: Mapping[str, str] = dataclasses.field(default_factory=dict)
    typing: str = ""
    problem: str = ""
    hint: str = ""
    about: str = ""
    """What the row is called, for those who do not see where a button stands."""
    id: str = ""

    @property
    def plain(self) -> bool:
        """Whether it needs nothing but being pressed."""
        return not self.fields and not self.deed.loses

    @property
    def failed(self) -> bool:
        return bool(self.problem) or any(one.problem for one in self.fields)


@dataclasses.dataclass(frozen=True)
class Row:
    cells: tuple[Cell, ...]
    deeds: tuple[DeedView, ...] = ()
    marked: bool = False


@dataclasses.dataclass(frozen=True)
class PartView:
    """A part as a template shows it; `content` depends on its kind. With a `problem`, nothing else is to be shown."""

    key: str
    kind: str
    title: str
    content: Any = None
    problem: str = ""
    hint: str = ""
    pending: bool = False


@dataclasses.dataclass(frozen=True)
class PanelView:
    key: str
    title: str
    help: str
    parts: tuple[PartView, ...]

    @property
    def pending(self) -> bool:
        return any(one.pending for one in self.parts)


@dataclasses.dataclass(frozen=True)
class TableView:
    columns: tuple[Cell, ...]
    rows: tuple[Row, ...]
    empty: str
    more: int = 0
    deeds: bool = False


@dataclasses.dataclass(frozen=True)
class Attempt:
    """A form that was sent and refused: what was typed, and what is wrong, by the names of fields (`''`: the whole)."""

    key: str
    row: Mapping[str, str]
    values: Mapping[str, Any]
    problems: Mapping[str, str]
    hint: str = ""


class Missing(errors.ConPaaSError):
    """Stands for a reply that has not come yet."""


Replies = Callable[[Call], Answer]


def calls(panel: declared.Panel, state: str) -> list[Call]:
    """What has to be read to show a panel, each thing once."""
    found = {call.key: call for part in panel.parts if part.shown(state) for call in part.calls()}
    return list(found.values())


def view(panel: declared.Panel, around: Around, replies: Replies, attempt: Attempt | None = None) -> PanelView | None:
    """The panel as templates show it; None if nothing of it is to be shown in this state."""
    maker = _Maker(around, replies, attempt)
    parts = [made for part in panel.parts if part.shown(around.state) and (made := maker.part(part)) is not None]
    return PanelView(panel.key, panel.title, panel.help, tuple(parts)) if parts else None


class _Maker:
    def __init__(self, around: Around, replies: Replies, attempt: Attempt | None) -> None:
        self._around = around
        self._replies = replies
        self._attempt = attempt
        self._count = 0

    def part(self, part: Part) -> PartView | None:
        title = str(part.value.get("title") or part.value.get("label") or "")
        reply = self._replies(part.reads) if part.reads is not None else None
        if isinstance(reply, errors.ConPaaSError) and part.kind not in ("form", "text"):
            return PartView(part.key, part.kind, title, problem=str(reply), hint=reply.hint or "", pending=isinstance(reply, Missing))
        makers = {
            "facts": self._facts,
            "table": self._table,
            "form": self._form,
            "buttons": self._buttons,
            "chart": self._facts_of_series,
            "link": self._link,
            "text": self._text,
        }
        content = makers[part.kind](part, reply)
        return None if content is None else PartView(part.key, part.kind, title, content)

    # -- what is shown

    def _facts(self, part: Part, reply: Answer) -> list[Cell] | None:
        cells = [cell(one, reply) for one in _values(part.value, "values")]
        return None if all(one.empty for one in cells) else cells

    def _facts_of_series(self, part: Part, reply: Answer) -> list[Cell]:
        unit = str(part.value.get("unit") or "")
        return [cell({**one, "format": "count", "unit": unit}, reply) for one in _values(part.value, "series")]

    def _table(self, part: Part, reply: Answer) -> TableView:
        columns = _values(part.value, "columns")
        found = paths.rows(pages.pick(reply, str(part.value.get("rows") or "")))
        marked = str(part.value.get("marked") or "")
        rows = tuple(self._row(part, columns, one, marked) for one in found[:MAX_ROWS])
        empty = str(part.value.get("empty") or "")
        headings = tuple(
            Cell(str(one.get("label") or ""), None, str(one.get("format") or "text"), help=str(one.get("help") or "")) for one in columns
        )
        return TableView(headings, rows, empty, max(0, len(found) - MAX_ROWS), any(row.deeds for row in rows))

    def _row(self, part: Part, columns: Sequence[Mapping[str, Any]], row: Mapping[str, Any], marked: str) -> Row:
        cells = tuple(cell(one, row) for one in columns)
        about = str(cells[0].value) if cells and not cells[0].empty else ""
        deeds = [self._deed(deed, row, None, about) for deed in part.deeds if self._is_offered(deed, row)]
        return Row(cells, tuple(deeds), bool(marked and pages.pick(row, marked)))

    def _is_offered(self, deed: Deed, row: Mapping[str, Any]) -> bool:
        return deed.offered(self._around.state) and not (deed.unless and pages.pick(row, deed.unless))

    def _link(self, part: Part, reply: Answer) -> list[str] | None:
        if part.reads is not None:
            found = pages.pick(reply, str(part.value.get("key") or ""))
            urls = [str(one) for one in (found if isinstance(found, list) else [found]) if one]
        else:
            filled = paths.fill(str(part.value.get("url") or ""), self._around.place)
            urls = [filled] if filled else []
        return [url for url in urls if _LINK.fullmatch(url)] or None

    def _text(self, part: Part, reply: Answer) -> list[tuple[str, str]] | None:
        def find(name: str) -> Any:
            own = self._around.place(name)
            return own if own is not None or reply is None or isinstance(reply, errors.ConPaaSError) else pages.pick(reply, name)

        filled = paths.fill(str(part.value.get("text") or ""), find)
        if not filled:
            return None
        lines = [line.strip() for line in filled.splitlines() if line.strip()]
        return [("command", line.removeprefix("$ ")) if line.startswith("$ ") else ("text", line) for line in lines]

    # -- what can be pressed

    def _buttons(self, part: Part, _: Answer) -> list[DeedView] | None:
        return [self._deed(deed, {}, None, "") for deed in part.deeds if deed.offered(self._around.state)] or None

    def _form(self, part: Part, reply: Answer) -> DeedView | None:
        if not part.deeds or not part.deeds[0].offered(self._around.state):
            return None
        trouble = isinstance(reply, errors.ConPaaSError)
        made = self._deed(part.deeds[0], {}, None if trouble else reply, "")
        return dataclasses.replace(made, problem=made.problem or f"The present values cannot be read: {reply}") if trouble else made

    def _deed(self, deed: Deed, row: Mapping[str, Any], present: Answer, about: str) -> DeedView:
        self._count += 1
        hidden = {name: _plain(pages.pick(row, path)) for name, path in deed.row.items()}
        attempt = (
            self._attempt if self._attempt is not None and self._attempt.key == deed.key and dict(self._attempt.row) == hidden else None
        )
        typing = (
            (self._around.name if deed.typed == "name" and "name" not in row else _plain(pages.pick(row, deed.typed))) if deed.typed else ""
        )
        return DeedView(
            deed,
            tuple(self._field(one, present, attempt) for one in deed.fields),
            hidden,
            typing,
            attempt.problems.get("", "") if attempt else "",
            attempt.hint if attempt else "",
            about,
            f"{deed.key.replace('.', '-')}-{self._count}",
        )

    def _field(self, field: Field, present: Answer, attempt: Attempt | None) -> FieldView:
        choices, trouble = self._choices(field)
        found = pages.pick(present, field.present) if field.present and present is not None else None
        was = canonical(field, found) if field.present and present is not None and field.input not in ("secret", "file") else None
        value: Any = field.default if found is None else found
        if attempt is not None and field.input not in ("secret", "file"):
            value = attempt.values.get(field.name, value)
        if field.input == "choice" and value not in (None, "") and str(value) not in {key for key, _ in choices}:
            choices = ((str(value), str(value)), *choices)
        problem = attempt.problems.get(field.name, "") if attempt else ""
        rows = _row_values(field, value) if field.input == "rows" else ()
        return FieldView(field, _form_value(field, value), was, choices, problem, trouble, rows)

    def _choices(self, field: Field) -> tuple[tuple[tuple[str, str], ...], str]:
        own = [(one, one) for one in field.choices]
        if field.choices_from == pages.NODES:
            nodes = {one.id: one for one in self._around.nodes}
            own += [(one.id, f"{one.id} ({one.role}, {one.ip})") for one in nodes.values()]
        elif field.choices_from == pages.SERVICES:
            own += [(str(sid), f"{name} ({sid})") for sid, name in self._around.services]
        elif (call := declared.choices_call(field)) is not None:
            reply = self._replies(call)
            if isinstance(reply, errors.ConPaaSError):
                return tuple(own), str(reply)
            found = pages.pick(reply, field.choices_from.partition(":")[2])
            own += [(str(one), str(one)) for one in (found if isinstance(found, list) else []) if one is not None]
        return tuple(dict(own).items()), ""


def cell(declaration: Mapping[str, Any], reply: Answer) -> Cell:
    """One declared value of a reply."""
    value = pages.pick(reply, str(declaration.get("key") or ""))
    kind = str(declaration.get("format") or "text")
    if kind == "list":
        value = [_plain(one) for one in (value if isinstance(value, list) else [value]) if one is not None]
    elif kind == "link" and not _LINK.fullmatch(str(value)):
        kind = "text"
    elif kind in ("text", "code", "state", "lines"):
        value = None if value is None else _plain(value)[:MAX_TEXT]
    tone = tone_of(value) if kind == "state" else ""
    return Cell(
        str(declaration.get("label") or ""), value, kind, str(declaration.get("unit") or ""), str(declaration.get("help") or ""), tone
    )


def tone_of(value: Any) -> str:
    """Whether a state is `good` or `bad`; empty for what is neither."""
    text = str(value or "").lower()
    if text in _GOOD:
        return "good"
    failed = re.fullmatch(r"stopped \(return code (-?[1-9]\d*)\)", text) is not None
    return "bad" if failed or any(word in text for word in _BAD) else ""


def canonical(field: Field, value: Any) -> str:
    """A value as it stands in a form, to see whether it was changed."""
    if field.input == "boolean":
        return "yes" if value else ""
    if field.input == "rows":
        names = [one.name for one in field.of]
        return "\n".join("\t".join(row[name] for name in names) for row in _row_values(field, value, spare=0))
    shown = _form_value(field, value)
    return "\n".join(shown) if isinstance(shown, list) else str(shown).replace("\r\n", "\n")


def _form_value(field: Field, value: Any) -> Any:
    if field.input == "boolean":
        return bool(value) and value not in ("", "no", "false")
    if field.input == "several":
        return [_plain(one) for one in value] if isinstance(value, list | tuple) else []
    if field.input == "pairs":
        return "\n".join(f"{name}={_plain(one)}" for name, one in value.items()) if isinstance(value, Mapping) else _plain(value)
    return "" if field.input == "rows" else _plain(value)


def _row_values(field: Field, value: Any, spare: int = 2) -> tuple[Mapping[str, str], ...]:
    given = [one for one in value if isinstance(one, Mapping)] if isinstance(value, list | tuple) else []
    empty = {one.name: "" for one in field.of}
    return tuple([{one.name: _plain(row.get(one.name)) for one in field.of} for row in given] + [empty] * spare)


def _values(part: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = part.get(name)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list | tuple) else []


def _plain(value: Any) -> str:
    """Any JSON value as a short text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return " ".join(_plain(one) for one in value.values())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(one) for one in value)
    return str(value)


def single(deed: Deed, around: Around, replies: Replies, attempt: Attempt) -> DeedView:
    """The form of a deed on a page of its own; what its row gave is in the attempt."""
    maker = _Maker(around, replies, attempt)
    return DeedView(deed, tuple(maker._field(one, None, attempt) for one in deed.fields), attempt.row, id=deed.key.replace(".", "-"))
