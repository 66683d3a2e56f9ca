"""The pages that make applications from manifests, with a real Director behind them; nothing is started here."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support import frontends

from conpaas.director import models

NEW = "/apps/new-from-manifest"
FORM = f"{NEW}/form"
WRONG = """{
  "Application": "shop",
  "Services": [
    {"Type": "php", "Start": 7,
     "StartupInstances": {"zz": 3}}
  ]
}"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[frontends.Whole]:
    with frontends.running(tmp_path_factory.mktemp("manifests")) as made:
        made.register("alice")
        yield made


@pytest.fixture
def alice(whole: frontends.Whole) -> frontends.Person:
    return whole.person("alice")


def names(whole: frontends.Whole) -> list[str]:
    with whole.director.database.reader() as session:
        return list(session.scalars(sa.select(models.Application.name).order_by(models.Application.aid)))


def text_of(page: str) -> Any:
    """The manifest in the page's text field."""
    found = re.search(r'<textarea id="manifest"[^>]*>(.*?)</textarea>', page, re.DOTALL)
    assert found, page
    return json.loads(html.unescape(found[1]))


def empty(name: str) -> str:
    return json.dumps({"Application": name, "Services": []})


class TestUploading:
    def test_a_text_makes_an_application(self, whole: frontends.Whole, alice: frontends.Person) -> None:
        reply = alice.post(NEW, manifest=empty("from a text"), cloud="default", action="deploy")
        assert re.fullmatch(r"/apps/\d+", reply.headers["location"])
        assert "from a text" in names(whole)
        assert "The application is being made." in alice.page(reply.headers["location"])

    def test_a_file_makes_an_application(self, whole: frontends.Whole, alice: frontends.Person) -> None:
        content = b"\xef\xbb\xbf" + empty("from a file").encode()  # with the mark that some editors write
        reply = alice.post(NEW, files={"file": ("x.mnf", content)}, manifest="ignored", cloud="default", action="deploy")
        assert reply.status_code == 303, reply.text
        assert "from a file" in names(whole)

    def test_a_large_file_is_no_trouble_and_one_too_large_is_refused(self, whole: frontends.Whole, alice: frontends.Person) -> None:
        large = json.dumps({"Application": "large", "Services": [], "Description": "x" * 3_000_000})
        assert alice.post(NEW, files={"file": ("x.mnf", large)}, action="deploy").status_code == 303
        reply = alice.post(NEW, files={"file": ("x.mnf", "x" * 4_200_000)}, action="check")
        assert reply.status_code == 413
        assert len(reply.content) < 150_000

    def test_checking_makes_nothing(self, whole: frontends.Whole, alice: frontends.Person) -> None:
        before = names(whole)
        text = json.dumps({"Application": "x", "Services": [{"Type": "php", "Start": 1, "StartupInstances": {"backend": 2}}]})
        page = alice.post(NEW, manifest=text, action="check").text
        assert "The manifest is right." in page and "2 backend" in page
        assert text_of(page)["Application"] == "x"
        assert names(whole) == before

    @pytest.mark.parametrize("action", ["check", "deploy"])
    def test_what_is_wrong_is_shown_with_line_and_field(self, whole: frontends.Whole, alice: frontends.Person, action: str) -> None:
        before = names(whole)
        reply = alice.post(NEW, manifest=WRONG.replace("\n", "\r\n"), cloud="default", action=action)
        assert reply.status_code == 400
        for said in ("Line 4, column 21", "Services[0].Start: should be 0 or 1, not 7.", "Line 5, column 27", "there is no such role"):
            assert said in reply.text
        assert re.search(r'<tr id="line-4" class="bad">', reply.text)
        assert names(whole) == before

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "There is no manifest yet."),
            ("{", "Line 1, column 2"),
            ('{"Application": "<script>alert(1)</script>", "Services": [3]}', "Services[0]: should be an object"),
            ('{"Services": []}', "Application is not defined"),
            ('{"Application": "' + "🦉" * 10_000 + '", "Services": []}', "a name of 1 to 256 characters"),
            ("[" * 50_000, "nested too deeply"),
            ("x\u2028y", "Line 1, column 1"),
        ],
    )
    def test_bad_texts_get_a_sentence(self, alice: frontends.Person, text: str, said: str) -> None:
        reply = alice.post(NEW, manifest=text, action="deploy")
        assert reply.status_code == 400
        assert said in reply.text
        assert "<script>alert" not in reply.text
        assert len(reply.content) < 150_000

    def test_a_file_that_is_no_text(self, alice: frontends.Person) -> None:
        reply = alice.post(NEW, files={"file": ("x.mnf", b"\xff\xfe\x00")}, action="deploy")
        assert reply.status_code == 400
        assert "not a text in UTF-8" in reply.text

    def test_an_application_is_written_down_again(self, alice: frontends.Person) -> None:
        address = alice.post(NEW, manifest=empty('"quoted" 🦉'), action="deploy").headers["location"]
        reply = alice.get(f"{address}/manifest")
        assert reply.json() == {"Application": '"quoted" 🦉', "Services": []}
        assert reply.headers["content-disposition"].startswith('attachment; filename="_quoted_')


class TestReadyMade:
    def test_what_is_not_prepared_says_how_to(self, whole: frontends.Whole, alice: frontends.Person) -> None:
        page = alice.page(NEW)
        assert "cpsdirector ready-made prepare wordpress" in page and "cpsdirector ready-made prepare mediawiki" in page
        before = names(whole)
        reply = alice.post(f"{NEW}/ready-made", name="wordpress", application="blog", cloud="default")
        assert reply.status_code == 409 and "is not prepared" in reply.text
        assert alice.post(f"{NEW}/ready-made", name="../x").status_code == 404
        assert names(whole) == before

    def test_the_manifest_of_one_is_shown(self, alice: frontends.Person) -> None:
        assert text_of(alice.page(f"{NEW}?ready=wordpress"))["Services"][1]["Archive"] == "ready-made:wordpress"
        assert alice.get(f"{NEW}?ready=nothing").status_code == 404


class TestForm:
    def test_every_type_can_be_added_and_taken_out(self, alice: frontends.Person) -> None:
        first = alice.page(FORM)
        kinds = re.findall(r'value="add:(\w+)"', first)
        assert kinds == ["generic", "helloworld", "java", "mysql", "php"]
        chosen: list[str] = []
        for kind in kinds:
            page = alice.post(FORM, application="x", services=chosen, action=f"add:{kind}").text
            chosen = re.findall(r'name="services" value="([^"]+)"', page)
        assert [one.partition(":")[2] for one in chosen] == kinds
        page = alice.post(FORM, application="x", services=chosen, action="remove:2").text
        assert "2:java" not in page and "3:mysql" in page

    def test_what_was_typed_stays(self, alice: frontends.Person) -> None:
        typed = {"application": "a & b", "services": ["0:php"], "0.ServiceName": "si<te", "0.Environment": "A=1\nB = two", "0.Start": "1"}
        page = alice.post(FORM, **typed, action="add:mysql").text
        assert 'value="a &amp; b"' in page and 'value="si&lt;te"' in page and "B = two" in page
        assert re.search(r'name="0.Start" type="checkbox" value="1" checked', page)

    def test_the_form_writes_a_manifest(self, alice: frontends.Person) -> None:
        filled = {
            "application": "shop",
            "services": ["3:mysql", "0:php"],
            "3.ServiceName": "db",
            "3.Start": "1",
            "3.Password": "a long password",
            "3.Bindings": '[{"service": "site"}]',
            "0.ServiceName": "site",
            "0.StartupInstances.backend": "2",
            "0.Environment": "GREETING = moin = moin\n\nX=",
            "0.Archive": "https://example.org/x.tar.gz",
        }
        reply = alice.post(FORM, **filled, action="write")
        assert "The manifest is right." in reply.text, reply.text
        assert text_of(reply.text) == {
            "Application": "shop",
            "Services": [
                {"Type": "mysql", "ServiceName": "db", "Start": 1, "Password": "a long password", "Bindings": [{"service": "site"}]},
                {
                    "Type": "php",
                    "ServiceName": "site",
                    "Start": 0,
                    "Archive": "https://example.org/x.tar.gz",
                    "Environment": {"GREETING": "moin = moin", "X": ""},
                    "StartupInstances": {"backend": 2},
                },
            ],
        }

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"application": ""}, "Give the application a name."),
            ({"0.Cron": "every day"}, "Cron of service 1: this is not a JSON list"),
            ({"0.Environment": "no sign"}, "the line &#39;no sign&#39; is not of the form name = value."),
            ({"0.StartupInstances.backend": "many"}, "should be a whole number from 0 to 1000, not &#34;many&#34;."),
            ({"0.Archive": "file:///etc/passwd"}, "should be an http, https or data URL"),
        ],
    )
    def test_what_is_wrong_is_said(self, alice: frontends.Person, fields: dict[str, str], said: str) -> None:
        reply = alice.post(FORM, **{"application": "x", "services": ["0:php"], **fields}, action="write")
        assert reply.status_code == 400
        assert said in reply.text

    @pytest.mark.parametrize("services", [["x"], ["0:zope"], ["-1:php"], ["99999999:php"], ["0:php"] * 500, [":"]])
    def test_tampered_forms_do_no_harm(self, alice: frontends.Person, services: list[str]) -> None:
        for action in ("write", "add:zope", "add:", "remove:x", "explode", ""):
            assert alice.post(FORM, application="x", services=services, action=action).status_code in (200, 400)
