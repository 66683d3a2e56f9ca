"""Every page that is declared fits the manager behind it."""

from __future__ import annotations

import dataclasses
import json

import pytest
from tests.support import keeping

from conpaas.core import pages, services
from conpaas.core.pages import Action, Buttons, Facts, Field, Form, Page, Panel, Role, Table, Value
from conpaas.services.webservers import phpconf
from conpaas.services.webservers.manager import sites
from conpaas.testing import pages as checks

TYPES = ("generic", "helloworld", "java", "mysql", "php")


@pytest.mark.parametrize("name", TYPES)
def test_a_page_calls_only_what_its_manager_answers(name: str) -> None:
    assert checks.page_problems(name) == []


def test_so_does_the_page_of_a_type_from_elsewhere() -> None:
    assert checks.page_problems(keeping.service()) == []


@pytest.mark.parametrize("name", TYPES)
def test_a_page_travels_as_json(name: str) -> None:
    page = services.registry.get(name).load_page()
    assert page.panels
    assert page.next_step
    assert json.loads(json.dumps(page.to_dict()))["panels"][0]["title"] == page.panels[0].title


@pytest.mark.parametrize("name", TYPES)
def test_roles_that_a_page_names_are_all_roles_of_the_type(name: str) -> None:
    kind = services.registry.get(name)
    assert [role.name for role in kind.load_page().roles] == list(kind.roles)


def _problems(monkeypatch: pytest.MonkeyPatch, *parts: pages.Part, roles: tuple[Role, ...] = ()) -> str:
    kind = services.registry.get("helloworld")
    page = Page((Panel("Text", parts),), roles)
    monkeypatch.setattr(services.ServiceType, "load_page", lambda _: page)
    return "\n".join(checks.page_problems(dataclasses.replace(kind)))


TEXT = (Value("string", "Text"),)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (Facts("get_nothing", TEXT), "the panel 'Text': the manager has no GET method 'get_nothing'"),
        (Facts("set_string", TEXT), "no GET method 'set_string'"),
        (Table("list_volumes", "volumes", TEXT), "no GET method 'list_volumes'"),
        (Buttons((Action("set_string", "Set"),)), "the method 'set_string' requires 'string', which may be left out"),
        (Form("Set", Action("set_string", "Set", fields=(Field("string", "Text"),))), "requires 'string'"),
        (Form("Set", Action("set_string", "Set", fixed={"string": "a", "size": 1})), "the method 'set_string' has no parameter 'size'"),
        (Buttons((Action("set_string", "Set", row={"string": "key"}),)), "takes values from a row, and stands in none"),
        (Form("Set", Action("set_string", "Set", verb="UPLOAD")), "the manager has no UPLOAD method 'set_string'"),
        (Form("Set", Action("set_string", "Set", fields=(Field("string", "Text", "choice", required=True),))), "has no choices"),
        (
            Form("Set", Action("set_string", "Set", fields=(Field("string", "Text", "choice", choices_from="no:x", required=True),))),
            "no GET method 'no'",
        ),
    ],
)
def test_a_page_that_does_not_fit_is_found_out(part: pages.Part, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert said in _problems(monkeypatch, part)


def test_a_role_that_the_type_does_not_have_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _problems(monkeypatch, roles=(Role("king", "King"),)) == "the role 'king' is none of the service type's"


def test_a_misspelt_format_or_input_is_refused_when_it_is_declared() -> None:
    with pytest.raises(ValueError, match="the format 'tiem' is not one of"):
        Value("time", "Time", "tiem")
    with pytest.raises(ValueError, match="the input 'filee' is not one of"):
        Field("code", "Code", "filee")


@pytest.mark.parametrize("name", ["php", "java"])
def test_the_settings_of_a_site_are_all_on_its_page(name: str) -> None:
    forms = [part for panel in services.registry.get(name).load_page().panels for part in panel.parts if isinstance(part, Form)]
    groups = {form.action.group: {field.name for field in form.action.fields} for form in forms if form.action.group}
    follows = {"uploadSize"} if name == "php" else set()
    assert groups["settings"] | follows == set(sites.settings_of(name))
    assert name == "java" or groups["phpconf"] == set(phpconf.DEFAULTS)
