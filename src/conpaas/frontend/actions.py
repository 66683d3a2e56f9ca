"""From a form that a person sent to a call of a manager: only what is declared, every field checked, secrets kept to themselves.

The names of form fields: `f.NAME` for what was typed, `was.NAME` for the present value that was shown, `r.NAME` for what the row of a table
gave, `typed` for what confirms a loss.
"""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections.abc import Mapping
from typing import Any, BinaryIO, Final, Protocol

from conpaas.core import errors, pages
from conpaas.frontend import panels
from conpaas.frontend.declared import Call, Deed, Field

MAX_TEXT: Final = 65_536
MAX_ITEMS: Final = 200
SECRET_BYTES: Final = 18
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


class Sent(Protocol):
    """A form: `text` is a field as it was typed (None: there is none), `file` an uploaded file with its name and size."""

    def text(self, name: str) -> str | None: ...
    def texts(self, name: str) -> list[str]: ...
    def file(self, name: str) -> Uploaded | None: ...


@dataclasses.dataclass(frozen=True)
class Uploaded:
    """A file in a form: `stream` is at its begin, `size` in bytes."""

    name: str
    stream: BinaryIO
    size: int


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A call that may be made. `made` are secrets that were made up, by the labels of their fields: to be shown once."""

    call: Call
    files: Mapping[str, tuple[str, BinaryIO]] = dataclasses.field(default_factory=dict)
    made: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)


class Refused(errors.InvalidArgument):
    """What was typed cannot be sent; `problems` says why, by the names of fields (`''`: all of it)."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__(next(iter(problems.values())))
        self.problems = dict(problems)


def prepare(deed: Deed, sent: Sent, name: str = "") -> Prepared:
    """Check what was sent against the declaration of the deed. `name` is the service's. Raises Refused."""
    row = {param: _bounded(sent.text(f"r.{param}") or "") for param in deed.row}
    problems: dict[str, str] = {}
    given: dict[str, Any] = {}
    files: dict[str, tuple[str, BinaryIO]] = {}
    made: dict[str, str] = {}
    for field in deed.fields:
        try:
            _take(field, sent, given, files, made)
        except errors.InvalidArgument as error:
            problems[field.name] = str(error)
    wanted = _confirmation(deed, row, name)
    if wanted and (sent.text("typed") or "").strip() != wanted:
        problems.setdefault("", f"Type {wanted} to confirm; nothing was done.")
    if problems:
        raise Refused(problems)
    if not given and not files and deed.fields and all(_may_stay(one) for one in deed.fields):
        raise Refused({"": "Nothing was changed."})
    return Prepared(Call(deed.verb, deed.method, _arranged(deed, row, given), deed.application), files, made)


def attempt(deed: Deed, sent: Sent, problems: Mapping[str, str], hint: str = "") -> panels.Attempt:
    """What was sent, to be shown again beside what is wrong with it; without secrets and files."""
    row = {param: _bounded(sent.text(f"r.{param}") or "") for param in deed.row}
    values: dict[str, Any] = {}
    for field in deed.fields:
        if field.input in ("secret", "file"):
            continue
        if field.input == "rows":
            values[field.name] = [{one.name: text for one, text in zip(field.of, cells, strict=True)} for cells in _table(field, sent)]
        elif field.input == "several" and field.choices_from + "".join(field.choices):
            values[field.name] = sent.texts(f"f.{field.name}")
        elif field.input == "boolean":
            values[field.name] = bool(sent.text(f"f.{field.name}"))
        else:
            values[field.name] = (sent.text(f"f.{field.name}") or "")[:MAX_TEXT]
    return panels.Attempt(deed.key, row, values, problems, hint)


def _confirmation(deed: Deed, row: Mapping[str, str], name: str) -> str:
    """What has to be typed; empty if nothing has."""
    if not (deed.loses and deed.typed):
        return ""
    for param, path in deed.row.items():
        if path == deed.typed:
            return row[param].strip()
    return name.strip() if deed.typed == "name" else ""


def _may_stay(field: Field) -> bool:
    """Whether a field shows a present value, and is sent only when that was changed."""
    return bool(field.present) and not field.required and field.default is None


def _take(field: Field, sent: Sent, given: dict[str, Any], files: dict[str, tuple[str, BinaryIO]], made: dict[str, str]) -> None:
    """Put what was typed into one field where it belongs. Raises InvalidArgument saying what is wrong."""
    if field.input == "file":
        _take_file(field, sent, files)
        return
    if field.input == "secret":
        _take_secret(field, sent, given, made)
        return
    typed = _canonical(field, sent)
    was = sent.text(f"was.{field.name}")
    if was is not None and _may_stay(field) and typed == was.replace("\r\n", "\n"):
        return
    if not typed and field.input not in ("boolean", "rows"):
        _take_nothing(field, given, cleared=was is not None and _may_stay(field))
        return
    given[field.name] = _value(field, sent, typed)


def _take_nothing(field: Field, given: dict[str, Any], *, cleared: bool) -> None:
    if field.default is not None and not field.required:
        given[field.name] = field.default
    elif field.required:
        raise errors.InvalidArgument("Choose one." if field.input == "choice" else "This is needed.")
    elif cleared:
        given[field.name] = None if field.input == "number" else [] if field.input == "several" else ""


def _take_file(field: Field, sent: Sent, files: dict[str, tuple[str, BinaryIO]]) -> None:
    found = sent.file(f"f.{field.name}")
    if found is None:
        if field.required:
            raise errors.InvalidArgument("Choose a file.")
        return
    if field.maximum is not None and found.size > field.maximum:
        raise errors.InvalidArgument(f"The file has {found.size:,} bytes; at most {field.maximum:,} are taken.")
    files[field.name] = (found.name, found.stream)


def _take_secret(field: Field, sent: Sent, given: dict[str, Any], made: dict[str, str]) -> None:
    """A secret is taken as it was typed; no sentence ever repeats it."""
    typed = sent.text(f"f.{field.name}") or ""
    if not typed and field.generated:
        given[field.name] = made[field.label] = secrets.token_urlsafe(SECRET_BYTES)
    elif not typed and field.required:
        raise errors.InvalidArgument("This is needed.")
    elif typed and len(typed) < (field.minimum or 0):
        raise errors.InvalidArgument(f"At least {field.minimum} characters are needed.")
    elif len(typed) > (field.maximum or MAX_TEXT):
        raise errors.InvalidArgument(f"At most {field.maximum or MAX_TEXT} characters are taken.")
    elif typed:
        given[field.name] = typed


def _canonical(field: Field, sent: Sent) -> str:
    """What was typed, in the form that `panels.canonical` gives present values."""
    if field.input == "boolean":
        return "yes" if sent.text(f"f.{field.name}") else ""
    if field.input == "rows":
        return "\n".join("\t".join(cells) for cells in _table(field, sent))
    if field.input == "several":
        return "\n".join(_several(field, sent))
    typed = (sent.text(f"f.{field.name}") or "").replace("\r\n", "\n")
    return typed if field.input in ("lines", "pairs") else typed.strip()


def _several(field: Field, sent: Sent) -> list[str]:
    if field.choices or field.choices_from:
        return [one for one in sent.texts(f"f.{field.name}") if one]
    return [line.strip() for line in (sent.text(f"f.{field.name}") or "").splitlines() if line.strip()]


def _table(field: Field, sent: Sent) -> list[list[str]]:
    """The rows that are not empty."""
    found = []
    for number in range(MAX_ITEMS):
        cells = [(sent.text(f"f.{field.name}.{number}.{one.name}") or "").strip() for one in field.of]
        if any(cells):
            found.append(cells)
    return found


def _value(field: Field, sent: Sent, typed: str) -> Any:
    """The JSON value of what was typed. Raises InvalidArgument."""
    if field.input == "boolean":
        return typed == "yes"
    if field.input == "rows":
        return _objects(field, sent)
    if field.input == "several":
        return _chosen(field, typed.split("\n"))
    if field.input == "pairs":
        return _pairs(typed)
    if field.input == "number":
        return _number(field, typed)
    limit = field.maximum or MAX_TEXT
    if len(typed) > limit:
        raise errors.InvalidArgument(f"This has {len(typed)} characters; at most {limit} are taken.")
    if field.minimum is not None and len(typed) < field.minimum:
        raise errors.InvalidArgument(f"At least {field.minimum} characters are needed.")
    return _chosen(field, [typed])[0] if field.input == "choice" else typed


def _number(field: Field, typed: str) -> int:
    if not _NUMBER.fullmatch(typed):
        raise errors.InvalidArgument("This must be a whole number.")
    number = int(typed)
    if field.minimum is not None and number < field.minimum:
        raise errors.InvalidArgument(f"This must be {field.minimum} or more.")
    if field.maximum is not None and number > field.maximum:
        raise errors.InvalidArgument(f"This must be {field.maximum} or less.")
    return number


def _chosen(field: Field, values: list[str]) -> list[str]:
    """Choices that come from a reply are the manager's to check: they may have changed meanwhile."""
    if len(values) > MAX_ITEMS:
        raise errors.InvalidArgument(f"At most {MAX_ITEMS} can be chosen.")
    if field.choices and not field.choices_from and not set(values) <= set(field.choices):
        raise errors.InvalidArgument(f"Choose {'one' if field.input == 'choice' else 'some'} of {', '.join(field.choices)}.")
    return [_bounded(one) for one in values]


def _pairs(typed: str) -> dict[str, str]:
    found = {}
    for line in typed.splitlines():
        name, equals, value = line.partition("=")
        if line.strip() and (not equals or not name.strip()):
            raise errors.InvalidArgument(f"Write NAME=VALUE, one a line, not '{line.strip()[:60]}'.")
        if line.strip():
            found[name.strip()] = value
    return found


def _objects(field: Field, sent: Sent) -> list[dict[str, str]]:
    found = []
    for cells in _table(field, sent):
        row = {one.name: cell for one, cell in zip(field.of, cells, strict=True) if cell}
        missing = [one.label for one in field.of if one.required and one.name not in row]
        if missing:
            raise errors.InvalidArgument(f"A row lacks its {missing[0].lower()}.")
        found.append(row)
    return found


def _arranged(deed: Deed, row: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as the method takes them."""
    if deed.group:
        return {**row, **deed.fixed, deed.group: dict(given)}
    whole = {**given, **row, **deed.fixed}
    if not deed.entry:
        return whole
    name = str(whole.pop("name", ""))
    return {**{key: value for key, value in whole.items() if key != "value"}, deed.entry: {name: whole.get("value")}}


def _bounded(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise Refused({"": f"A value has more than {MAX_TEXT} characters."})
    return text


def seen_once(deed: Deed, prepared: Prepared, reply: Any) -> dict[str, str]:
    """What a person must see of an action that was done, by its label; it is kept nowhere."""
    shown = pages.pick(reply, deed.shows) if deed.shows else None
    told = {deed.label: str(shown)} if shown not in (None, "", [], {}) else {}
    return {**prepared.made, **told}
