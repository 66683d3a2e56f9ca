"""From values to HTML: whatever a name holds, it stays text; figures are for people."""

from __future__ import annotations

import datetime
import html.parser
from unittest import mock

import pytest

from conpaas.client import replies
from conpaas.frontend import reading, rendering, visits
from conpaas.frontend.pages import application, dashboard

HOSTILE = [
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "</title><script>",
    "{{ 7 * 7 }} {% raw %}",
    "javascript:alert(1)",
    "🐘 \u202e evil \u0000 name",
    "x" * 10_000,
    " ",
]


class Tags(html.parser.HTMLParser):
    """The tags, attributes and texts of a piece of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words += data


def seen_with(name: str) -> reading.Seen:
    """An application in which everything that has a name has this one."""
    node = replies.Node(id=name, role=name, ip=name, cloud=name)
    return reading.Seen(
        application=replies.Application(3, name, "ERROR", name, 443, name, name),
        services=(reading.Service(1, name, name, "RUNNING", (node,)), reading.Service(2, name, name, name)),
        volumes=(replies.Volume(name, 5, name, name, 1),),
        operations=(reading.Operation("a", name, 1, "FAILED", name, name, name, 1.0, 2.0, (reading.Step(name, name),)),),
        machines=(replies.Resource(1, 3, name, name, name, name),),
        manager_trouble=name,
    )


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_name_is_never_anything_but_text(name: str) -> None:
    renderer = rendering.Renderer("", {})
    plain = application.Topic(1, 3, renderer).parts(seen_with("plain"))
    for part, text in application.Topic(1, 3, renderer).parts(seen_with(name)).items():
        got, wanted = Tags(text), Tags(plain[part])
        assert got.tags == wanted.tags, part
        assert [key for key, _ in got.attributes] == [key for key, _ in wanted.attributes], part
        assert not any(key.startswith("on") for key, _ in got.attributes)
    row = dashboard.Row(replies.Application(3, name, "INIT", None, 443, None, ""), 1, 1)
    listed = dashboard.Applications(1, renderer).parts(dashboard.Overview((row,), 5))["apps-list"]
    assert set(Tags(listed).tags) <= {
        "div",
        "table",
        "caption",
        "thead",
        "tr",
        "th",
        "span",
        "tbody",
        "a",
        "td",
        "svg",
        "use",
        "form",
        "input",
        "button",
    }


def test_a_page_that_lists_much_stays_small() -> None:
    """Thirty services, sixty machines and all operations that are kept."""
    seen = seen_with("a name")
    operation = seen.operations[0]
    steps = tuple(reading.Step(f"step_{number}", "DONE") for number in range(6))
    many = reading.Seen(
        application=seen.application,
        services=seen.services * 15,
        machines=seen.machines * 60,
        operations=(reading.Operation("a" * 32, operation.kind, 1, "DONE", "user", "", "", 1.0, 2.0, steps),) * reading.OPERATIONS,
    )
    parts = application.Topic(1, 3, rendering.Renderer("", {})).parts(many)
    assert sum(len(text.encode()) for text in parts.values()) < 110_000
    everywhere = ("style.css", "icons.svg", "logo.svg", "app.js", "confirm.js", "live.js", "morph.js", "theme.js")
    assert sum((rendering.STATIC / name).stat().st_size for name in everywhere) < 60_000


def test_a_node_with_several_roles_has_its_address_shown_once() -> None:
    nodes = tuple(replies.Node(id="one", role=role, ip="10.0.0.7", cloud="default") for role in ("proxy", "web", "backend"))
    seen = reading.Seen(seen_with("a name").application, services=(reading.Service(1, "site", "php", "RUNNING", nodes),))
    assert application.Topic(1, 3, rendering.Renderer("", {})).parts(seen)["app-services"].count("10.0.0.7") == 1


def test_an_application_whose_manager_is_lost_does_not_say_that_nothing_was_started() -> None:
    lost = replies.Application(3, "a name", "ERROR", "10.0.0.1", 443, "default", "The cloud has lost the application's manager.")
    way = mock.Mock()
    way.application.return_value = lost
    way.director.services.return_value = [replies.Service(1, "db", "mysql", lost.aid)]
    way.director.resources.return_value = []
    way.director.get.return_value = []
    parts = application.Topic(1, 3, rendering.Renderer("", {})).parts(reading.read(way, lost.aid))
    assert "Unreachable" in parts["app-services"]
    assert "Start" not in parts["app-services"]
    assert "cannot be asked" in parts["app-volumes"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KB"), (1536, "1.5 KB"), (5 * 1024**3, "5 GB"), (2 * 1024**4, "2 TB"), (None, "–"), ("x", "–")],
)
def test_sizes(value: object, text: str) -> None:
    assert rendering.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 s"),
        (0.25, "0.2 s"),
        (45, "45 s"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (18_600, "5 h 10 min"),
        (273_600, "3 d 4 h"),
        (None, "–"),
    ],
)
def test_durations(value: object, text: str) -> None:
    assert rendering.duration(value) == text


def test_times_are_exact_for_machines_and_readable_without_scripts() -> None:
    element = rendering.moment(1_700_000_000.5)
    assert 'datetime="2023-11-14T22:13:20Z"' in element
    assert "2023-11-14 22:13 UTC" in element
    assert rendering.moment("2023-11-14T23:13:20+01:00") == rendering.moment(1_700_000_000)
    assert rendering.moment(datetime.datetime(2023, 11, 14, 22, 13, 20)) == rendering.moment(1_700_000_000)
    for nothing in (None, "", 0, "yesterday", float("inf"), -5, 10**30):
        assert "time" not in rendering.moment(nothing)


@pytest.mark.parametrize("name", ["a\r\nSet-Cookie: x=1", '"; filename="evil.sh', "../../etc/passwd", "ä 🐘", "", "x" * 500])
def test_a_download_has_a_harmless_name(name: str) -> None:
    header = visits.disposition(name)
    assert header.isascii() and header.isprintable()
    assert header.count('"') == 2
    assert "/" not in header.partition("filename*")[0]


def test_every_state_has_a_word_an_icon_and_a_colour() -> None:
    sprite = (rendering.STATIC / "icons.svg").read_text()
    style = (rendering.STATIC / "style.css").read_text()
    for state in ("INIT", "PROLOGUE", "RUNNING", "ADAPTING", "EPILOGUE", "STOPPED", "ERROR", "UNREACHABLE", "PREINIT"):
        assert rendering.state_label(state) != state
        assert f'id="{rendering.state_icon(state)}"' in sprite
        assert f".{rendering.state_class(state)}" in style
    assert rendering.state_class('"><script>') == "state-init"


def test_credits_that_end_soon_are_told_where_applications_are() -> None:
    renderer = rendering.Renderer("", {})
    calm = dashboard.Applications(1, renderer).parts(dashboard.Overview((), 5))["apps-list"]
    soon = dashboard.Applications(1, renderer).parts(dashboard.Overview((), 5, warning="Your credits last 2 more hours."))["apps-list"]
    assert "See where they go" not in calm
    assert "Your credits last 2 more hours." in soon and 'href="/credits"' in soon
