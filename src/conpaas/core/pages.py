"""What a service type's page in the web front-end shows: declared once, next to the service, as plain data.

    PAGE = Page(
        panels=(
            Panel("Greeting", (
                Facts("get_text", (Value("text", "Text"),)),
                Form("Change", Action("set_text", "Save", fields=(Field("text", "Text", required=True),))),
            )),
        ),
    )

The part that all services have (state, nodes by role, scaling, start and stop, startup script, logs, history) needs no declaration.
Every `method` is an exposed method of the service's manager; with `application=True` it is one of the application manager. A front-end
calls nothing but what is declared here, and it only ever sees `Page.to_dict()`.

Where a value comes from a reply, it is named by its *path*: names and numbers with dots between them (`access.write.host`, `urls.0`); `*`
stands for every item of a list (`users.*.name`), and the empty path for the whole reply. A name that has dots itself (`run.sh`) is found
as the last one of a path. `docs/reference/pages.md` shows each part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, Literal

FORMATS: Final = ("text", "code", "time", "seconds", "size", "megabytes", "count", "percent", "boolean", "state", "lines", "link", "list")
"""How a value is shown: `time` is seconds since the epoch, `seconds` a duration, `size` bytes, `megabytes` MB, `percent` of 100; `lines`
is text of several lines, `list` a list of texts or of small objects."""

INPUTS: Final = ("text", "number", "choice", "several", "secret", "boolean", "lines", "file", "pairs", "rows")
"""How a value is asked for: `several` is a list of texts (chosen ones, or one a line), `lines` text of several lines, `pairs` an object of
names and texts, `rows` a list of objects whose keys are `Field.of`."""

ANYTIME: Final = ("INIT", "RUNNING", "STOPPED", "ADAPTING", "ERROR")
AT_REST: Final = ("INIT", "RUNNING", "STOPPED")
WORKING: Final = ("RUNNING",)

SID: Final = "{sid}"
"""As a value in `fixed`: the number of the service, for calls of the application manager."""
NODES: Final = "@nodes"
"""As `Field.choices_from`: the nodes of the service, by their ids."""
SERVICES: Final = "@services"
"""As `Field.choices_from`: the other services of the application, by their numbers."""


_MAX_DEPTH: Final = 12


@dataclasses.dataclass(frozen=True)
class Value:
    """One value of a reply: `key` is its path. `unit` follows the number."""

    key: str
    label: str
    format: str = "text"
    help: str = ""
    unit: str = ""

    def __post_init__(self) -> None:
        _one_of("format", self.format, FORMATS)


@dataclasses.dataclass(frozen=True)
class Field:
    """One thing that a form asks for; `name` is the parameter's. `present` is the path to its present value in the form's reply.

    A `choice` (and `several`) has its `choices`, or takes them from a reply: `choices_from` is `method:path`, or `NODES`, or `SERVICES`.
    A field that is left empty is sent as its `default` or, without one, not at all. One that shows its present value and is neither
    `required` nor has a default is sent only when it was changed; emptied, a text is sent empty and a number as null. A `secret` is never
    shown; if it is `generated` and left empty, a new one is made up, and shown once. `maximum` of a file is its size in bytes, of a text
    its length.
    """

    name: str
    label: str
    input: str = "text"
    help: str = ""
    required: bool = False
    default: Any = None
    choices: tuple[str, ...] = ()
    choices_from: str = ""
    minimum: int | None = None
    maximum: int | None = None
    placeholder: str = ""
    present: str = ""
    unit: str = ""
    generated: bool = False
    of: tuple[Field, ...] = ()

    def __post_init__(self) -> None:
        _one_of("input", self.input, INPUTS)


@dataclasses.dataclass(frozen=True)
class Action:
    """A call that changes something. `row` fills parameters from the row of a table that it stands in: parameter → path in the row.

    `loses` says what is lost for good; an action with it is confirmed, and with `typed` (a key of the row, or `name`: the service's)
    by typing that. `group` names one parameter that takes all fields as an object. `entry` names one that takes an object of one entry,
    made of the fields (or parameters of `row`, or `fixed`) `name` and `value`; without a `value` that is null. `shows` is the path in the
    reply to what a person must see, once. `states` are those of the service in which it is offered.
    """

    method: str
    label: str
    fields: tuple[Field, ...] = ()
    verb: Literal["POST", "UPLOAD"] = "POST"
    application: bool = False
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    row: Mapping[str, str] = dataclasses.field(default_factory=dict)
    group: str = ""
    entry: str = ""
    loses: str = ""
    typed: str = ""
    done: str = ""
    shows: str = ""
    help: str = ""
    states: tuple[str, ...] = ANYTIME
    unless: str = ""
    """A key of the row: where it is true, the action is not offered (the version in use is not deleted)."""
    kind: Literal["action"] = "action"


@dataclasses.dataclass(frozen=True)
class Download:
    """A file that a GET method answers. `row` as for actions; `filename` may name parameters in braces. With `key`, the method answers
    JSON, and the file is the text at that path."""

    method: str
    label: str
    filename: str
    row: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fields: tuple[Field, ...] = ()
    key: str = ""
    states: tuple[str, ...] = ANYTIME
    unless: str = ""
    kind: Literal["download"] = "download"


@dataclasses.dataclass(frozen=True)
class View:
    """A text that a GET method answers at the path `key`, shown on a page of its own: what a script wrote, a slow log."""

    method: str
    label: str
    key: str
    row: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fields: tuple[Field, ...] = ()
    states: tuple[str, ...] = ANYTIME
    unless: str = ""
    kind: Literal["view"] = "view"


Deed = Action | Download | View
"""What a person can press."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """Some values of one reply, each with its label."""

    method: str
    values: tuple[Value, ...]
    states: tuple[str, ...] = ANYTIME
    kind: Literal["facts"] = "facts"


@dataclasses.dataclass(frozen=True)
class Table:
    """A list in a reply, a row each: `rows` is the path to a list of objects, to a list of texts (whose key is `value`), or to an object,
    whose names get the key `key` (and what is no object itself the key `value`). `marked` is a key that tells which row is the present
    one."""

    method: str
    rows: str
    columns: tuple[Value, ...]
    actions: tuple[Deed, ...] = ()
    marked: str = ""
    empty: str = "There is nothing yet."
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    application: bool = False
    verb: Literal["GET", "POST"] = "GET"
    states: tuple[str, ...] = ANYTIME
    title: str = ""
    kind: Literal["table"] = "table"


@dataclasses.dataclass(frozen=True)
class Form:
    """Fields and a button. `method` is where the present values are read, if they can be."""

    title: str
    action: Action
    method: str = ""
    kind: Literal["form"] = "form"


@dataclasses.dataclass(frozen=True)
class Buttons:
    """Actions, downloads and views that need no table around them."""

    actions: tuple[Deed, ...]
    kind: Literal["buttons"] = "buttons"


@dataclasses.dataclass(frozen=True)
class Chart:
    """Numbers of a reply over time, which stand beside it. The manager calls the method once a minute and keeps a day of them; while the
    page is open, it is called every few seconds."""

    title: str
    method: str
    series: tuple[Value, ...]
    unit: str = ""
    states: tuple[str, ...] = WORKING
    kind: Literal["chart"] = "chart"


@dataclasses.dataclass(frozen=True)
class Link:
    """An address to open, or several: `key` is the path to them in the reply of `method`, or `url` is the address itself, in which
    `{manager}` is the manager's address, and `{proxy}` that of the first node with the role proxy (so for every role)."""

    label: str
    url: str = ""
    method: str = ""
    key: str = ""
    help: str = ""
    states: tuple[str, ...] = WORKING
    kind: Literal["link"] = "link"


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; a line that begins with `$ ` is shown as a command to copy. Places in braces are as in `Link.url`, and `{aid}`,
    `{sid}`, and paths into the reply of `method`, if there is one; a text whose places cannot all be filled is not shown."""

    text: str
    method: str = ""
    states: tuple[str, ...] = ANYTIME
    kind: Literal["text"] = "text"


Part = Facts | Table | Form | Buttons | Chart | Link | Text


@dataclasses.dataclass(frozen=True)
class Panel:
    """A part of the page with a heading. Parts that cannot be read say so; the others are shown."""

    title: str
    parts: tuple[Part, ...]
    help: str = ""


@dataclasses.dataclass(frozen=True)
class Role:
    """What a role is called, and how many nodes of it there may be; one that is not `scalable` has no buttons for it."""

    name: str
    label: str
    help: str = ""
    minimum: int = 0
    scalable: bool = True


@dataclasses.dataclass(frozen=True)
class Page:
    """The page of a service type. `loses` is what stopping a service loses for good, if it loses anything; `node` are values of
    `get_node_info` (paths below `serviceNode`) to show of every node."""

    panels: tuple[Panel, ...] = ()
    roles: tuple[Role, ...] = ()
    loses: str = ""
    next_step: str = ""
    """What a person does with a service that was just added: one sentence."""
    node: tuple[Value, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return dataclasses.asdict(self)


def pick(value: Any, path: str) -> Any:
    """What is at `path` in a reply; None if nothing is there."""
    return _pick(value, path, _MAX_DEPTH)


def _pick(value: Any, path: str, depth: int) -> Any:
    if not path or depth == 0:
        return value
    if isinstance(value, Mapping) and path in value:
        return value[path]
    name, _, rest = path.partition(".")
    if isinstance(value, Mapping):
        return _pick(value[name], rest, depth - 1) if name in value else None
    if isinstance(value, list):
        if name == "*":
            return [_pick(one, rest, depth - 1) for one in value]
        if name.isascii() and name.isdigit() and int(name) < len(value):
            return _pick(value[int(name)], rest, depth - 1)
    return None


def _one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"the {what} '{value}' is not one of {', '.join(known)}")
