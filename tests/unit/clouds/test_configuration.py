"""From director.cfg to clouds: the texts for what is wrong, and that one bad section leaves the others alone."""

from __future__ import annotations

import configparser

import pytest

from conpaas.core import errors
from conpaas.core.clouds import base, dummy, factory, settings


def sections(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    return parser


def test_the_first_cloud_is_called_iaas_inside_and_default_outside(tmp_path):
    clouds = factory.open_clouds(
        sections(
            f"[iaas]\nDRIVER = Dummy\nOTHER_CLOUDS = second , \nSTATE_DIR = {tmp_path}/1\n[second]\nDRIVER=dummy\nSTATE_DIR = {tmp_path}/2"
        )
    )
    assert list(clouds) == ["iaas", "second"]
    assert clouds.available() == ["default", "second"]
    assert {clouds.find(name) for name in (None, "", "None", "default", "iaas")} == {clouds["iaas"]}
    assert clouds.find("second") is clouds["second"] is not clouds["iaas"]
    assert isinstance(clouds["iaas"], dummy.DummyCloud)


def test_without_a_default_section_the_first_other_cloud_is_the_default(tmp_path):
    clouds = factory.open_clouds(sections(f"[iaas]\nOTHER_CLOUDS = one\n[one]\nDRIVER=dummy\nSTATE_DIR={tmp_path}"))
    assert clouds.find("default") is clouds["one"]


def test_an_unknown_cloud_is_refused_with_the_names_that_exist(tmp_path):
    clouds = factory.open_clouds({"iaas": {"DRIVER": "dummy", "STATE_DIR": str(tmp_path)}})
    with pytest.raises(errors.NotFound, match=r"^Unknown cloud: mars\. Available clouds: \['default'\]$"):
        clouds.find("mars")
    with pytest.raises(KeyError):
        clouds["mars"]


def test_a_bad_section_disables_only_its_own_cloud_and_says_why_each_time(tmp_path):
    clouds = factory.open_clouds(
        {
            "iaas": {"driver": "dummy", "other_clouds": "lost,odd,wrong", "state_dir": str(tmp_path)},
            "odd": {"driver": "abacus"},
            "wrong": {"driver": "dummy", "MAX_VMS": "many"},
        }
    )
    assert [cloud.name for cloud in clouds.working()] == ["iaas"]
    assert set(clouds.problems()) == {"lost", "odd", "wrong"}
    for _ in range(2):
        with pytest.raises(errors.ConfigurationError, match=r"there is no section \[lost\]"):
            clouds["lost"]
        with pytest.raises(errors.ConfigurationError, match=r"Cannot get_cloud_instance\(odd, abacus\): No module found.*'dummy'"):
            clouds.find("odd")
        with pytest.raises(errors.ConfigurationError, match=r"Wrong dummy config param MAX_VMS for wrong: .*'many'"):
            clouds["wrong"]


def test_a_section_without_driver_says_which_drivers_exist():
    with pytest.raises(errors.ConfigurationError, match=r"\[x\] names no DRIVER. Available drivers: \[.*'dummy'"):
        factory.open_cloud("x", {"USER": "u"})


@pytest.mark.parametrize(
    ("section", "text"), [({}, "Missing t config param USER for c"), ({"user": " "}, "Empty t config param USER for c")]
)
def test_missing_and_empty_keys_have_the_classic_texts(section, text):
    with pytest.raises(errors.ConfigurationError) as caught:
        settings.Settings("c", "t", section).require(["USER"])
    assert str(caught.value) == text


@pytest.mark.parametrize("value", ["-1", "x", "nan", "inf", "1.5"])
def test_a_number_that_is_none_is_refused(value):
    with pytest.raises(errors.ConfigurationError, match="Wrong t config param N for c"):
        settings.Settings("c", "t", {"N": value}).integer("N", 0)


def test_values_are_typed_and_have_defaults():
    section = settings.Settings("c", "t", {"On": "Yes", "Kind": "LOOP", "n": " 7 "})
    assert (section.boolean("ON", False), section.boolean("OFF", False)) == (True, False)
    assert (section.choice("KIND", ("loop", "auto"), "auto"), section.choice("OTHER", ("loop", "auto"), "auto")) == ("loop", "auto")
    assert (section.integer("N", 1), section.integer("M", 1), section.number("F", 0.5)) == (7, 1, 0.5)
    assert section.unknown(["ON", "N"]) == ["KIND"]
    with pytest.raises(errors.ConfigurationError, match="must be one of"):
        section.choice("KIND", ("a",), "a")
    with pytest.raises(errors.ConfigurationError, match="true or false"):
        section.boolean("N", True)


def test_a_class_that_is_no_cloud_is_no_driver(monkeypatch):
    monkeypatch.setitem(factory.BUILT_IN, "path", "pathlib:Path")
    with pytest.raises(errors.ConfigurationError, match="is not a subclass"):
        factory.open_cloud("x", {"DRIVER": "path"})


def test_errors_name_every_node():
    node = base.CloudNode("i-1", "", "", base.NodeState.PENDING)
    failed = base.NodesNotCreated("iaas", 3, [node], {2: "no room", 1: "no address"})
    assert str(failed) == "2 of 3 nodes could not be created on cloud iaas: node 1: no address; node 2: no room"
    assert failed.created == (node,)
    assert str(base.NodesNotDestroyed("iaas", {"i-2": "busy"})) == "1 nodes could not be destroyed on cloud iaas: i-2: busy"


def test_tags_match_when_all_wanted_ones_are_there():
    assert base.carries({"a": "1", "b": "2"}, {"a": "1"})
    assert base.carries({}, None)
    assert not base.carries({"a": "1"}, {"a": "1", "b": "2"})
