"""Reading manifests: what is accepted, and what is said about what is not."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import hypothesis
import jsonschema
import pytest
from hypothesis import strategies

from conpaas.core import data_urls, errors, params, services
from conpaas.director.manifest import json_schema, ready_made, schema

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


def without_place(text: str) -> str:
    """A message without its line and column."""
    return re.sub(r"line \d+, column \d+: ", "", text)


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
        ({"ServiceName": "a\0b"}, "a text in it holds a NUL character."),
    ],
)
def test_an_error_names_the_field(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        parse(service(**fields))
    assert without_place(str(caught.value)).startswith(f"{schema.INVALID}: {text}")


def test_a_secret_is_not_in_the_error() -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        parse(service(Start=1, Password="much too long a password"))
    assert without_place(str(caught.value)) == f"{schema.INVALID}: Services[1].Password: the value is not allowed."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"Application": "a",\n "Services": [}', f"{schema.INVALID}: Expecting value."),
        ("", f"{schema.INVALID}: Expecting value."),
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
    assert without_place(str(caught.value)).startswith(said)


LONG = """{
  "Application": "a\\"b",
  "Strange": {"deep": [1, {"x": 2}]},
  "Services": [
    {"Type": "helloworld", "Start": 7},
    {"Type": "shop",
     "StartupInstances": {
       "web": -1, "db": 1
     },
     "Archive": "ftp://example.org/x"
    },
    {"ServiceName": "no type"}
  ]
}"""


def test_everything_wrong_is_told_with_its_line_and_column() -> None:
    with pytest.raises(schema.Invalid) as caught:
        parse(LONG)
    assert [(one.line, one.column, one.field) for one in caught.value.problems] == [
        (3, 3, "Strange"),
        (5, 28, "Services[0].Start"),
        (8, 8, "Services[1].StartupInstances.web"),
        (8, 19, "Services[1].StartupInstances.db"),
        (10, 6, "Services[1].Archive"),
        (12, 5, "Services[2].Type"),
    ]
    assert str(caught.value).splitlines()[1] == "line 5, column 28: Services[0].Start: should be 0 or 1, not 7."


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ('{"Application": "a",\n "Services": [}', 2, 15),
        ('{"Application": "a",\n  "Application": "b"}', 2, 3),
        ('{"Services":\n\n [NaN]}', 3, 3),
        ('{"Application": "a", "Services":\n [{"Type": "zope"}]}', 2, 4),
        ('{"Services": [],\n "Application":\n ""}', 2, 2),
        ('{"Application": "a", "Services": [],\n "Description": ["\\u0000"]}', 2, 18),
        ('{"": 1, "Application": "a",\n "Services": []}', 1, 2),
    ],
)
def test_the_place_of_an_error(text: str, line: int, column: int) -> None:
    with pytest.raises(schema.Invalid) as caught:
        parse(text)
    assert (caught.value.problems[0].line, caught.value.problems[0].column) == (line, column)


def test_at_most_ten_problems_are_told() -> None:
    with pytest.raises(schema.Invalid) as caught:
        parse({"Application": "a", "Services": [{"Type": "shop", "Start": 7}] * 30})
    assert len(caught.value.problems) == schema.MAX_PROBLEMS


def test_what_conpaas_2_said_comes_first_and_the_hint_names_the_place() -> None:
    with pytest.raises(schema.Invalid) as caught:
        parse('{"Application": "a", "Services": [\n{"Type": "zope"}, {"Type": "shop", "Start": 7}]}')
    first, second = str(caught.value).splitlines()
    assert first == "Service zope does not exists"
    assert second == "line 2, column 36: Services[1].Start: should be 0 or 1, not 7."
    assert caught.value.hint == "See Services[0].Type (line 2). There are: helloworld, shop."


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("db", "site"), ""),
        (("db", "other"), 'Services[0].Bindings[0].service: no other service has the ServiceName "site".'),
        (("site", "other"), 'Services[0].Bindings[0].service: no other service has the ServiceName "site".'),
        (("db", "site", "site"), 'Services[0].Bindings[0].service: several services have the ServiceName "site".'),
    ],
)
def test_a_service_is_bound_to_exactly_one_other(names: tuple[str, ...], said: str) -> None:
    first, *others = names
    document = {
        "Application": "a",
        "Services": [
            {"Type": "mysql", "ServiceName": first, "Start": 1, "Bindings": [{"service": "site"}]},
            *({"Type": "php", "ServiceName": name} for name in others),
        ],
    }
    if said:
        with pytest.raises(schema.Invalid) as caught:
            schema.parse(json.dumps(document))
        assert without_place(str(caught.value)) == f"{schema.INVALID}: {said}"
    else:
        assert schema.parse(json.dumps(document)).services[0].fields == {"Bindings": [{"service": "site"}]}


def test_a_cloud_that_there_is_not_is_told_with_its_place() -> None:
    def known(name: str) -> None:
        if name not in ("default", "ec2"):
            raise errors.NotFound(f"There is no cloud {name}.", hint="There are: default, ec2.")

    text = '{"Application": "a", "Services": [\n{"Type": "shop", "Cloud": "ec2"},\n{"Type": "shop", "Cloud": "moon"}, {"Type": "shop"}]}'
    with pytest.raises(schema.Invalid) as caught:
        schema.parse(text, REGISTRY, known)
    assert str(caught.value) == f"{schema.INVALID}: line 3, column 18: Services[1].Cloud: There is no cloud moon."
    assert caught.value.hint == "There are: default, ec2."


def test_the_json_schema_accepts_what_the_director_accepts_and_knows_every_type() -> None:
    document = json_schema.document()
    jsonschema.Draft202012Validator.check_schema(document)
    validator = jsonschema.Draft202012Validator(document)
    for text in EXAMPLES.values():
        validator.validate(json.loads(text))
    for one in ready_made.catalogue():
        validator.validate(one.manifest)
        schema.parse(json.dumps(one.manifest))
    kinds = {kind["properties"]["Type"]["const"]: kind for kind in document["properties"]["Services"]["items"]["oneOf"]}
    assert sorted(kinds) == services.registry.available()
    assert kinds["mysql"]["properties"]["Password"]["running"] is True
    assert kinds["php"]["properties"]["Archive"]["file"] is True
    assert set(kinds["php"]["properties"]["StartupInstances"]["properties"]) == {"proxy", "web", "backend"}
    for wrong in ({"Type": "zope"}, {"Type": "php", "Dump": "https://example.org/x"}, {"Type": "php", "Start": 3}):
        assert not validator.is_valid({"Application": "a", "Services": [wrong]})


# The types of the manifest guide of ConPaaS 2, with the fields that its full example has; what needs a running service runs.
CLASSIC: tuple[dict[str, Any], ...] = (
    {"Type": "php", "Start": 0, "Archive": "http://example.org/a.tar.gz", "StartupInstances": {"proxy": "1", "web": "1", "backend": "1"}},
    {"Type": "java", "Start": 0, "Archive": "http://example.org/p.war", "StartupInstances": {"proxy": "1", "web": "1", "backend": "1"}},
    {"Type": "mysql", "Start": 1, "Dump": "http://example.org/d.sql", "Password": "contrail123", "StartupInstances": {"mysql": "1"}},
    {"Type": "generic", "Start": 0, "StartupInstances": {"master": "1"}, "Archive": "http://example.org/c.tar.gz", "StartRole": "*"},
    {"Type": "helloworld", "Start": 0, "StartupInstances": {"node": "1"}},
)


@pytest.mark.parametrize("fields", CLASSIC, ids=lambda fields: str(fields["Type"]))
def test_the_fields_of_the_classic_guide(fields: dict[str, Any]) -> None:
    both = {"ServiceName": "Meaningful name", "Cloud": "default", "StartupScript": "https://example.org/s.sh"}
    (made,) = schema.parse(json.dumps({"Description": "d", "Application": "a", "Services": [{**both, **fields}]})).services
    assert (made.name, made.cloud, made.script) == tuple(both.values())
    assert made.start is bool(fields["Start"])
    assert made.nodes == {role: 1 for role in fields["StartupInstances"]}
    assert set(made.fields) == set(fields) & {"Archive", "Dump", "Password"}


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
