"""Reading manifests: what is accepted, and what is said about what is not."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from conpaas.core import data_urls, errors, params, services
from conpaas.director.manifest import schema

REGISTRY = services.Registry.of(
    [
        services.ServiceType(name="helloworld", manager="m:M", agent="a:A"),
        services.ServiceType(
            name="shop",
            manager="m:M",
            agent="a:A",
            roles=("web", "backend"),
            manifest_fields=(
                services.ManifestField("Archive", file=services.ManifestFile("upload_code_version", "code")),
                services.ManifestField("Password", params.Text(secret=True, max_length=8), running=True),
                services.ManifestField("Size", params.Integer(minimum=1)),
            ),
        ),
    ]
)


def parse(document: Any) -> schema.Manifest:
    return schema.parse(document if isinstance(document, str) else json.dumps(document), REGISTRY)


def service(**fields: Any) -> dict[str, Any]:
    return {"Application": "a", "Services": [{"Type": "helloworld"}, {"Type": "shop", **fields}]}


def test_a_full_manifest_is_read() -> None:
    made = parse(
        {
            "Description": "anything",
            "Application": " shop ",
            "Services": [
                {
                    "Type": "shop",
                    "ServiceName": "front",
                    "Cloud": "ec2",
                    "Start": "1",
                    "StartupScript": "https://example.org/setup.sh",
                    "StartupInstances": {"web": "3", "backend": 0},
                    "StartRole": "*",
                    "Archive": "http://example.org/x.tar",
                    "Password": "geheim",
                    "Size": 3,
                }
            ],
        }
    )
    assert made.application == "shop"
    (only,) = made.services
    assert only == schema.Service(
        type="shop",
        name="front",
        cloud="ec2",
        start=True,
        script="https://example.org/setup.sh",
        nodes={"web": 3, "backend": 0},
        fields={"Archive": "http://example.org/x.tar", "Password": "geheim", "Size": 3},
    )
    assert schema.Service.from_dict(json.loads(json.dumps(only.to_dict()))) == only


def test_a_service_is_not_started_unless_it_says_so() -> None:
    assert [one.start for one in parse(service(StartupInstances={"web": 2})).services] == [False, False]
    assert not parse(service(Start=0)).services[1].start
    assert not parse(service(Start="0")).services[1].start
    assert parse(service(Start=True)).services[1].start


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"StartupInstances": {"web": -1}}, "Services[1].StartupInstances.web: should be a whole number from 0 to 1000, not -1."),
        ({"StartupInstances": {"web": 1.5}}, "Services[1].StartupInstances.web: should be a whole number from 0 to 1000, not 1.5."),
        ({"StartupInstances": {"web": True}}, "Services[1].StartupInstances.web: should be a whole number"),
        ({"StartupInstances": {"web": "1\n"}}, "Services[1].StartupInstances.web: should be a whole number"),
        ({"StartupInstances": {"db": 1}}, "Services[1].StartupInstances.db: there is no such role; the roles of shop are web, backend."),
        ({"StartupInstances": []}, "Services[1].StartupInstances: should be an object."),
        ({"Start": 2}, "Services[1].Start: should be 0 or 1, not 2."),
        ({"Cloud": "../etc"}, "Services[1].Cloud: should be the name of a cloud"),
        ({"ServiceName": " "}, "Services[1].ServiceName: should be a name of 1 to 256 characters"),
        ({"StartupScript": "file:///etc/passwd"}, "Services[1].StartupScript: should be an http, https or data URL"),
        ({"Archive": "ftp://example.org/x"}, "Services[1].Archive: should be an http, https or data URL"),
        ({"Archive": "data:;base64,?"}, "Services[1].Archive: The content of a data URL is not base64"),
        ({"Archive": "data:x"}, "Services[1].Archive: A data URL has the form"),
        ({"Size": 0}, "Services[1].Size: 0 is less than the minimum of 1."),
        ({"Archiv": "x"}, "Services[1].Archiv: there is no such field; the fields are Archive, Cloud, Password"),
        ({"Start": 0, "Password": "x"}, "Services[1].Password: it can be applied to a running service only; set Start to 1."),
        ({"ServiceName": "a\0b"}, "a text in it holds a NUL character."),
    ],
)
def test_an_error_names_the_field(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        parse(service(**fields))
    assert str(caught.value).startswith(f"{schema.INVALID}: {text}")


def test_a_secret_is_not_in_the_error() -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        parse(service(Start=1, Password="much too long a password"))
    assert str(caught.value) == f"{schema.INVALID}: Services[1].Password: the value is not allowed."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"Application": "a",\n "Services": [}', f"{schema.INVALID}: line 2, column 15: Expecting value."),
        ("", f"{schema.INVALID}: line 1, column 1: Expecting value."),
        ("[]", f"{schema.INVALID}: it should be an object with the fields Application and Services."),
        ('{"Services": []}', schema.NO_NAME),
        ('{"Application": "", "Services": []}', schema.NO_NAME),
        ('{"Application": 3, "Services": []}', f"{schema.INVALID}: Application: should be a name of 1 to 256 characters, not 3."),
        ('{"Application": "a"}', f"{schema.INVALID}: Services: it is missing."),
        ('{"Application": "a", "Services": {}}', f"{schema.INVALID}: Services: should be a list of at most 50 services."),
        ('{"Application": "a", "Services": [3]}', f"{schema.INVALID}: Services[0]: should be an object, not 3."),
        ('{"Application": "a", "Services": [{}]}', f"{schema.INVALID}: Services[0].Type: it is missing."),
        ('{"Application": "a", "Services": [{"Type": "zope"}]}', "Service zope does not exists"),
        ('{"Application": "a", "Services": [], "X": 1}', f"{schema.INVALID}: X: there is no such field; the fields are Application"),
        ('{"Application": "a", "Application": "b"}', f"{schema.INVALID}: the field 'Application' is there twice in one object."),
        ('{"Application": NaN}', f"{schema.INVALID}: NaN is not JSON."),
        ('{"Application": "\\ud800", "Services": []}', f"{schema.INVALID}: a text in it holds half a surrogate pair."),
        ("[" * 100_000, f"{schema.INVALID}: it is nested too deeply."),
    ],
)
def test_what_is_said_about_a_broken_manifest(text: str, said: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        parse(text)
    assert str(caught.value).startswith(said)


def test_too_many_services_are_refused() -> None:
    with pytest.raises(errors.InvalidArgument, match="at most 50 services"):
        parse({"Application": "a", "Services": [{"Type": "helloworld"}] * 51})


ROOT = pathlib.Path(__file__).resolve().parents[3]
EXAMPLES = {path.name: path.read_text() for path in sorted((ROOT / "misc" / "examples").glob("*.mnf"))}
EXAMPLES["manifest.md"] = re.findall(r"```json\n(.*?)```", (ROOT / "docs/reference/manifest.md").read_text(), re.DOTALL)[0]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_are_valid(name: str) -> None:
    assert all(one.start for one in schema.parse(EXAMPLES[name]).services)


JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | strategies.text(),
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("ServiceName", "Cloud", "Start", "StartupScript", "StartupInstances", "Archive", "Password", "Size", "StartRole")


@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(strategies.dictionaries(strategies.sampled_from(FIELDS), JSON, max_size=3), JSON, JSON)
def test_whatever_a_manifest_holds_it_is_read_or_refused_in_words(fields: dict[str, Any], name: Any, whole: Any) -> None:
    for document in (
        service(**fields),
        {"Application": name, "Services": [{"Type": "helloworld"}]},
        whole,
        {"Application": "a", "Services": whole},
    ):
        try:
            made = parse(json.dumps(document))
        except errors.ConPaaSError as error:
            assert str(error)
        else:
            assert made.application


@hypothesis.given(strategies.text(alphabet=strategies.characters(exclude_categories=("Cs",))), strategies.binary())
def test_a_data_url_gives_back_what_was_put_into_it(name: str, content: bytes) -> None:
    assert data_urls.decode(data_urls.encode(name, content)) == (name, content)


def test_a_data_url_may_hold_plain_text() -> None:
    assert data_urls.decode("data:,echo%20hello") == ("", b"echo hello")
