"""What a declared page shows: pure, from replies to what templates get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from conpaas.core import errors, pages, services
from conpaas.core.pages import Action, Buttons, Chart, Download, Facts, Field, Form, Link, Page, Panel, Part, Table, Text, Value, View
from conpaas.frontend import declared, gathering, panels, paths

AROUND = panels.Around(
    7,
    3,
    "shop",
    "RUNNING",
    "10.0.0.1",
    (panels.Node("n1", "proxy", "10.0.0.2"), panels.Node("n2", "backend", "10.0.0.3")),
    ((4, "database"),),
)


def declaration(*parts: Part, **more: Any) -> declared.Declaration:
    page = Page((Panel("Things", parts),), **more).to_dict()
    return declared.read({"name": "toy", "label": "Toy", "roles": ["node"], "page": page}, 3)


def shown(*parts: Part, replies: Mapping[str, Any] | None = None, around: panels.Around = AROUND) -> tuple[panels.PartView, ...]:
    panel = declaration(*parts).panels[0]
    made = panels.view(panel, around, lambda call: (replies or {}).get(call.method))
    return made.parts if made is not None else ()


# -- paths


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a.b", 1),
        ("list.0", "x"),
        ("users.*.name", ["ann", "bob"]),
        ("run.sh", "RUNNING"),
        ("", {"a": {"b": 1}, "list": ["x"], "users": [{"name": "ann"}, {"name": "bob"}], "run.sh": "RUNNING"}),
        ("a.c", None),
        ("list.7", None),
        ("list.-1", None),
        ("a.b.c.d", None),
    ],
)
def test_a_path_finds_a_value_or_nothing(path: str, value: Any) -> None:
    reply = {"a": {"b": 1}, "list": ["x"], "users": [{"name": "ann"}, {"name": "bob"}], "run.sh": "RUNNING"}
    assert pages.pick(reply, path) == value


def test_rows_come_from_lists_of_objects_of_texts_and_from_objects() -> None:
    assert paths.rows([{"a": 1}, "x"]) == [{"a": 1}, {"value": "x"}]
    assert paths.rows({"one": {"a": 1}, "two": 2}) == [{"key": "one", "a": 1}, {"key": "two", "value": 2}]
    assert paths.rows("nonsense") == []


# -- parts


def test_facts_show_values_and_are_left_out_when_there_are_none() -> None:
    part = Facts("get", (Value("a.b", "B", "count", unit="/s"), Value("none", "None")))
    (made,) = shown(part, replies={"get": {"a": {"b": 1234.5}}})
    assert [(one.label, one.figure, one.unit) for one in made.content if not one.empty] == [("B", "1,234", "/s")]
    assert shown(part, replies={"get": {}}) == ()


def test_a_part_that_cannot_be_read_says_so_and_the_others_are_shown() -> None:
    failed = errors.RemoteError("The node does not answer.", hint="Wait.")
    one, two = shown(Facts("bad", (Value("a", "A"),)), Facts("good", (Value("a", "A"),)), replies={"bad": failed, "good": {"a": 1}})
    assert (one.problem, one.hint, one.pending) == ("The node does not answer.", "Wait.", False)
    assert (two.problem, two.content[0].value) == ("", "1")


def test_a_reply_of_any_shape_is_survived() -> None:
    parts = (
        Facts("get", (Value("a.b", "A"),)),
        Table("get", "rows", (Value("x.y", "X"),), actions=(Action("drop", "Drop", row={"id": "x"}),)),
        Form(
            "Change",
            Action("set", "Set", fields=(Field("a", "A", present="a"), Field("c", "C", "choice", choices_from="get:b.*.c"))),
            method="get",
        ),
        Chart("Chart", "get", (Value("q", "q"),)),
        Link("Open", method="get", key="urls"),
        Text("{a.b} {missing}", method="get"),
    )
    for reply in (
        None,
        [],
        {},
        "text",
        5,
        {"rows": "x", "urls": {"a": 1}, "b": 3},
        {"rows": [None, 5, [1]], "urls": [None, "javascript:alert(1)"]},
    ):
        assert all(part.kind != "link" for part in shown(*parts, replies={"get": reply}))


def test_a_table_has_deeds_in_each_row_where_they_are_offered() -> None:
    part = Table(
        "list",
        "versions",
        (Value("id", "Version"),),
        actions=(
            Action("enable", "Enable", row={"version": "id"}, unless="current"),
            Action("delete", "Delete", row={"version": "id"}, loses="The code.", typed="id", states=("STOPPED",)),
            Download("download", "Download", "{version}.tar", row={"version": "id"}),
        ),
        marked="current",
    )
    (made,) = shown(part, replies={"list": {"versions": [{"id": "v2", "current": True}, {"id": "v1"}]}})
    current, former = made.content.rows
    assert (current.marked, former.marked) == (True, False)
    assert [(one.deed.label, one.hidden, one.about) for one in current.deeds] == [("Download", {"version": "v2"}, "v2")]
    assert [one.deed.label for one in former.deeds] == ["Enable", "Download"]


def test_what_is_typed_to_confirm_is_of_the_row_or_the_name_of_the_service() -> None:
    drop = Table("list", "", (Value("value", "Name"),), actions=(Action("drop", "Drop", row={"x": "value"}, loses="All.", typed="value"),))
    clear = Buttons((Action("clear", "Clear", loses="All.", typed="name"),))
    table, buttons = shown(drop, clear, replies={"list": ["one"]})
    assert table.content.rows[0].deeds[0].typing == "one"
    assert buttons.content[0].typing == "shop"


def test_a_part_is_shown_in_its_states_only() -> None:
    part = Facts("get", (Value("a", "A"),), states=("STOPPED",))
    assert shown(part, replies={"get": {"a": 1}}) == ()
    assert panels.calls(declaration(part).panels[0], "RUNNING") == []


def test_links_lead_to_web_addresses_only() -> None:
    replies = {"get": {"urls": ["http://10.0.0.2/", "javascript:alert(1)", "data:text/html,x", "https://shop.example.org/"]}}
    given, composed = shown(Link("Open", method="get", key="urls"), Link("Open", "http://{proxy}:8081/"), replies=replies)
    assert given.content == ["http://10.0.0.2/", "https://shop.example.org/"]
    assert composed.content == ["http://10.0.0.2:8081/"]
    assert shown(Link("Open", "http://{king}/")) == ()


def test_texts_and_commands_have_their_places_filled_or_are_not_shown() -> None:
    (made,) = shown(Text("Of {sid}.\n$ mysql -h {write.host}", method="get"), replies={"get": {"write": {"host": "10.0.0.9"}}})
    assert made.content == [("text", "Of 3."), ("command", "mysql -h 10.0.0.9")]
    assert shown(Text("{write.host}", method="get"), replies={"get": errors.RemoteError("no")}) == ()


def test_choices_come_from_the_declaration_from_replies_nodes_and_services() -> None:
    fields = (
        Field("database", "D", "choice", choices=("*",), choices_from="list:databases.*.name"),
        Field("node", "N", "choice", choices_from="@nodes"),
        Field("service", "S", "choice", choices_from="@services"),
    )
    (made,) = shown(Form("F", Action("grant", "Grant", fields=fields)), replies={"list": {"databases": [{"name": "shop"}]}})
    assert [one.choices for one in made.content.fields] == [
        (("*", "*"), ("shop", "shop")),
        (("n1", "n1 (proxy, 10.0.0.2)"), ("n2", "n2 (backend, 10.0.0.3)")),
        (("4", "database (4)"),),
    ]


def test_a_form_shows_present_values_and_never_a_secret() -> None:
    fields = (
        Field("size", "Size", "number", present="size"),
        Field("key", "Key", "secret", present="key"),
        Field("on", "On", "boolean", present="on"),
    )
    (made,) = shown(
        Form("F", Action("set", "Set", fields=fields), method="get"), replies={"get": {"size": 5, "key": "hunter2", "on": True}}
    )
    size, key, on = made.content.fields
    assert (size.value, size.was) == ("5", "5")
    assert (key.was, on.was) == (None, "yes")
    assert "hunter2" not in repr((size, on))


def test_what_was_refused_is_shown_again_beside_its_field_and_at_its_row_only() -> None:
    action = Action("set", "Change", row={"id": "value"}, fields=(Field("text", "Text"), Field("word", "Word", "secret")))
    table = Table("list", "", (Value("value", "Name"),), actions=(action,))
    panel = declaration(table).panels[0]
    deed = panel.parts[0].deeds[0]
    attempt = panels.Attempt(deed.key, {"id": "two"}, {"text": "typed"}, {"text": "Too short.", "": "Nothing was done."})
    made = panels.view(panel, AROUND, lambda _: ["one", "two"], attempt)
    assert made is not None
    first, second = (row.deeds[0] for row in made.parts[0].content.rows)
    assert not first.failed
    assert (second.problem, second.fields[0].value, second.fields[0].problem) == ("Nothing was done.", "typed", "Too short.")


@pytest.mark.parametrize(
    ("state", "tone"),
    [
        ("RUNNING", "good"),
        ("STOPPED (return code 0)", "good"),
        ("STOPPED (return code 3)", "bad"),
        ("STOPPED (return code -9)", "bad"),
        ("no answer", "bad"),
        ("NEVER STARTED", ""),
        (None, ""),
    ],
)
def test_states_have_a_tone(state: Any, tone: str) -> None:
    assert panels.tone_of(state) == tone


# -- the declaration


def test_keys_follow_from_labels_and_are_never_twice() -> None:
    action = Action("set", "Save")
    made = declaration(Form("Text", action), Form("Text", action), Buttons((action, action)))
    keys = [deed.key for part in made.panels[0].parts for deed in part.deeds]
    assert keys == ["things.text.save", "things.text-2.save", "things.buttons.save", "things.buttons.save-2"]
    assert all(made.deed(key) is not None for key in keys)
    assert made.deed("things.text.drop") is None


def test_the_number_of_the_service_is_put_where_it_is_asked_for() -> None:
    made = declaration(Table("list", "", (), fixed={"service_id": "{sid}"}, application=True, verb="POST"))
    assert made.panels[0].parts[0].reads == declared.Call("POST", "list", {"service_id": 3}, True)


@pytest.mark.parametrize(
    "page", [{}, {"panels": None}, {"panels": [None, 5, {"title": 3, "parts": [{"kind": "x"}, {}, {"kind": "form"}]}]}, {"roles": [5]}]
)
def test_a_declaration_of_any_shape_is_survived(page: Any) -> None:
    made = declared.read({"name": "toy", "page": page, "roles": ["node"]}, 1)
    assert [role.name for role in made.roles][-1:] in (["node"], [])
    for panel in made.panels:
        panels.view(panel, AROUND, lambda _: None)


@pytest.mark.parametrize("name", services.registry.available())
@pytest.mark.parametrize("state", ["INIT", "RUNNING", "ERROR"])
def test_the_pages_of_all_types_are_shown_whatever_is_answered(name: str, state: str) -> None:
    kind = services.registry.get(name)
    made = declared.read({"name": name, "label": kind.label, "roles": list(kind.roles), "page": kind.load_page().to_dict()}, 1)
    around = panels.Around(1, 1, "x", state)
    for panel in made.panels:
        for answer in (None, {}, [], errors.RemoteError("no"), panels.Missing("not yet")):
            panels.view(panel, around, lambda _, answer=answer: answer)


# -- reading


def test_replies_that_fail_or_take_long_stand_for_themselves() -> None:
    calls = [declared.Call("GET", "good"), declared.Call("GET", "bad")]

    def ask(call: declared.Call) -> Any:
        if call.method == "bad":
            raise errors.RemoteError("no")
        return {"a": 1}

    find = gathering.gather(calls, ask, patience=10)
    assert find(calls[0]) == {"a": 1}
    assert str(find(calls[1])) == "no"
    assert isinstance(find(declared.Call("GET", "other")), panels.Missing)


def test_a_view_is_a_page_of_its_own_with_what_its_row_gave() -> None:
    view = View(
        "read", "Output", "text", row={"run": "id"}, fields=(Field("node", "Node", "choice", choices_from="@nodes", required=True),)
    )
    made = declaration(Table("list", "", (Value("id", "Run"),), actions=(view,)))
    deed = made.deed("things.table.output")
    assert deed is not None
    form = panels.single(deed, AROUND, lambda _: None, panels.Attempt(deed.key, {"run": "r1"}, {}, {}))
    assert (form.hidden, form.fields[0].choices[0][0]) == ({"run": "r1"}, "n1")
