"""What a form may send: only what is declared, checked, and secrets kept to themselves."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from conpaas.core.pages import Action, Field, Form, Page, Panel, View
from conpaas.frontend import actions, declared


@dataclasses.dataclass
class Sent:
    """A form."""

    fields: dict[str, Any]

    def text(self, name: str) -> str | None:
        value = self.fields.get(name)
        return value if isinstance(value, str) else None

    def texts(self, name: str) -> list[str]:
        value = self.fields.get(name, [])
        return value if isinstance(value, list) else [value]

    def file(self, name: str) -> actions.Uploaded | None:
        value = self.fields.get(name)
        return actions.Uploaded("x.tar", io.BytesIO(value), len(value)) if isinstance(value, bytes) else None


def deed(action: Action | View) -> declared.Deed:
    part = Form("Form", action) if isinstance(action, Action) else None
    if part is None:
        return declared.Deed.read(dataclasses.asdict(action), "key")
    page = Page((Panel("Panel", (part,)),)).to_dict()
    return declared.read({"name": "toy", "page": page}, 3).panels[0].parts[0].deeds[0]


def call(action: Action, **fields: Any) -> dict[str, Any]:
    return dict(actions.prepare(deed(action), Sent({name.replace("__", "."): value for name, value in fields.items()}), "shop").call.params)


def refused(action: Action, **fields: Any) -> dict[str, str]:
    with pytest.raises(actions.Refused) as caught:
        call(action, **fields)
    return caught.value.problems


# -- what is sent


def test_only_declared_fields_are_sent() -> None:
    action = Action("set", "Set", fields=(Field("text", "Text", required=True),), fixed={"kind": "a"})
    assert call(action, f__text=" hello ", f__admin="yes", kind="b", admin="yes") == {"text": "hello", "kind": "a"}


def test_what_a_row_gives_cannot_be_more_than_what_is_declared() -> None:
    action = Action("drop", "Drop", row={"user": "user"}, fixed={"force": False})
    assert call(action, r__user="ann", r__force="yes") == {"user": "ann", "force": False}


def test_a_field_left_empty_is_not_sent_or_is_its_default() -> None:
    fields = (Field("a", "A"), Field("b", "B", default=""), Field("c", "C", "number", default=7))
    assert call(Action("set", "Set", fields=fields), f__a="", f__b="", f__c="") == {"b": "", "c": 7}


def test_group_and_entry_make_objects() -> None:
    group = Action("set", "Set", fields=(Field("x", "X"), Field("on", "On", "boolean")), group="settings")
    assert call(group, f__x="1", f__on="yes") == {"settings": {"x": "1", "on": True}}
    entry = Action("set", "Set", fields=(Field("value", "V", "number", required=True),), row={"name": "key"}, entry="weights")
    assert call(entry, r__name="n1", f__value="5") == {"weights": {"n1": 5}}
    removal = Action("set", "Set", row={"name": "key"}, entry="variables")
    assert call(removal, r__name="x") == {"variables": {"x": None}}


def test_the_number_of_the_service_is_sent_as_a_number() -> None:
    action = Action("create", "Create", application=True, fixed={"service_id": "{sid}"})
    prepared = actions.prepare(deed(action), Sent({}))
    assert (prepared.call.application, prepared.call.params) == (True, {"service_id": 3})


SHOWN = (Field("size", "Size", "number", present="size"), Field("root", "Root", present="root"), Field("on", "On", "boolean", present="on"))


def test_of_what_was_shown_only_what_was_changed_is_sent() -> None:
    action = Action("set", "Set", fields=SHOWN)
    was = {"was__size": "5", "was__root": "public", "was__on": "yes"}
    assert call(action, **was, f__size="6", f__root="public", f__on="yes") == {"size": 6}
    assert call(action, **was, f__size="", f__root="", f__on="yes") == {"size": None, "root": ""}
    assert call(action, **was, f__size="5", f__root="public") == {"on": False}
    assert refused(action, **was, f__size="5", f__root="public", f__on="yes") == {"": "Nothing was changed."}


def test_lines_that_a_browser_sent_in_its_own_way_are_not_a_change() -> None:
    action = Action("set", "Set", fields=(Field("text", "Text", "lines", present="text"), Field("b", "B", present="b")))
    assert call(action, was__text="a\nb", f__text="a\r\nb", was__b="", f__b="x") == {"b": "x"}


def test_rows_pairs_and_lists() -> None:
    rows = Field(
        "entries",
        "E",
        "rows",
        required=True,
        present="entries",
        of=(Field("schedule", "Schedule", required=True), Field("command", "Command")),
    )
    action = Action("set", "Set", fields=(rows,))
    given = {
        "f__entries__0__schedule": "* * * * *",
        "f__entries__0__command": "ls",
        "f__entries__1__schedule": " ",
        "f__entries__1__command": "",
    }
    assert call(action, **given) == {"entries": [{"schedule": "* * * * *", "command": "ls"}]}
    assert call(action, was__entries="a\tb") == {"entries": []}
    assert refused(action, f__entries__0__command="ls") == {"entries": "A row lacks its schedule."}
    assert call(Action("set", "Set", fields=(Field("e", "E", "pairs"),)), f__e="A=1\n\nB=x=y") == {"e": {"A": "1", "B": "x=y"}}
    assert refused(Action("set", "Set", fields=(Field("e", "E", "pairs"),)), f__e="nonsense") == {
        "e": "Write NAME=VALUE, one a line, not 'nonsense'."
    }
    several = Action("set", "Set", fields=(Field("d", "D", "several", choices=("a", "b")),))
    assert call(several, f__d=["a", "b"]) == {"d": ["a", "b"]}
    assert refused(several, f__d=["c"]) == {"d": "Choose some of a, b."}
    assert call(Action("set", "Set", fields=(Field("d", "D", "several"),)), f__d="x\n y \n") == {"d": ["x", "y"]}


# -- what is refused


@pytest.mark.parametrize(
    ("field", "typed", "said"),
    [
        (Field("x", "X", required=True), "  ", "This is needed."),
        (Field("x", "X", "choice", choices=("a",), required=True), "", "Choose one."),
        (Field("x", "X", "choice", choices=("a", "b")), "c", "Choose one of a, b."),
        (Field("x", "X", "number"), "many", "This must be a whole number."),
        (Field("x", "X", "number"), "1e9", "This must be a whole number."),
        (Field("x", "X", "number"), "٣", "This must be a whole number."),
        (Field("x", "X", "number", minimum=1), "0", "This must be 1 or more."),
        (Field("x", "X", "number", maximum=9), "10", "This must be 9 or less."),
        (Field("x", "X", maximum=3), "four", "This has 4 characters; at most 3 are taken."),
        (Field("x", "X", "secret", minimum=8), "short", "At least 8 characters are needed."),
        (Field("x", "X", "file", required=True), "", "Choose a file."),
        (Field("x", "X", "file", required=True, maximum=2), b"abc", "The file has 3 bytes; at most 2 are taken."),
    ],
)
def test_what_does_not_fit_is_said_beside_its_field(field: Field, typed: Any, said: str) -> None:
    action = Action("set", "Set", fields=(field,), verb="UPLOAD" if field.input == "file" else "POST")
    assert refused(action, f__x=typed) == {"x": said}


def test_a_loss_is_confirmed_by_what_was_shown() -> None:
    row = Action("drop", "Drop", row={"name": "name"}, loses="All.", typed="name")
    assert refused(row, r__name="shop", typed="Shop") == {"": "Type shop to confirm; nothing was done."}
    assert call(row, r__name="shop", typed=" shop ") == {"name": "shop"}
    whole = Action("clear", "Clear", loses="All.", typed="name")
    assert refused(whole) == {"": "Type shop to confirm; nothing was done."}
    assert call(whole, typed="shop") == {}


# -- secrets


SECRET = Action(
    "create", "Create", fields=(Field("user", "User", required=True), Field("password", "Password", "secret", generated=True, minimum=8))
)


def test_a_secret_left_empty_is_made_up_and_told_once() -> None:
    prepared = actions.prepare(deed(SECRET), Sent({"f.user": "ann"}))
    told = actions.seen_once(deed(SECRET), prepared, {})
    assert told == {"Password": prepared.call.params["password"]}
    assert len(told["Password"]) >= 24
    again = actions.prepare(deed(SECRET), Sent({"f.user": "ann"}))
    assert again.call.params["password"] != told["Password"]


def test_a_secret_that_was_typed_is_told_to_nobody() -> None:
    form = deed(SECRET)
    sent = Sent({"f.user": "", "f.password": "hunter2hunter2"})
    with pytest.raises(actions.Refused) as caught:
        actions.prepare(form, sent)
    assert "hunter2" not in repr((caught.value.problems, actions.attempt(form, sent, caught.value.problems)))
    prepared = actions.prepare(form, Sent({"f.user": "ann", "f.password": "hunter2hunter2"}))
    assert actions.seen_once(form, prepared, {}) == {}
    assert prepared.call.params["password"] == "hunter2hunter2"


def test_what_a_reply_has_to_show_is_told_once() -> None:
    action = Action("rotate", "Token", shows="token.text")
    prepared = actions.prepare(deed(action), Sent({}))
    assert actions.seen_once(deed(action), prepared, {"token": {"text": "abc"}}) == {"Token": "abc"}


# -- anything at all


EVERY = Action(
    "set",
    "Set",
    row={"id": "id"},
    fields=(
        Field("text", "T", maximum=100),
        Field("number", "N", "number", minimum=0, maximum=9),
        Field("choice", "C", "choice", choices=("a", "b")),
        Field("several", "S", "several", choices=("a", "b")),
        Field("lines", "L", "lines", maximum=100),
        Field("pairs", "P", "pairs"),
        Field("rows", "R", "rows", of=(Field("x", "X", required=True),)),
        Field("on", "O", "boolean"),
        Field("secret", "Z", "secret", maximum=100),
    ),
)
NAMES = (
    "f.text",
    "f.number",
    "f.choice",
    "f.several",
    "f.lines",
    "f.pairs",
    "f.rows.0.x",
    "f.on",
    "f.secret",
    "was.text",
    "r.id",
    "typed",
    "f.x",
)


@hypothesis.given(
    strategies.dictionaries(strategies.sampled_from(NAMES), strategies.text(max_size=300) | strategies.lists(strategies.text(), max_size=5))
)
@hypothesis.settings(deadline=None, max_examples=200)
def test_whatever_is_sent_it_is_refused_or_fits_the_declaration(fields: dict[str, Any]) -> None:
    form = deed(EVERY)
    try:
        params = actions.prepare(form, Sent(fields)).call.params
    except actions.Refused as error:
        assert set(error.problems) <= {"", *(field.name for field in EVERY.fields)}
        actions.attempt(form, Sent(fields), error.problems)
        return
    assert set(params) <= {"id", *(field.name for field in EVERY.fields)}
    assert params.get("number") in (None, *range(10))
    assert params.get("choice") in (None, "a", "b")
    assert set(params.get("several", [])) <= {"a", "b"}
    assert len(params.get("text", "")) <= 100
