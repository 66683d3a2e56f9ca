"""What a daemon makes of its configuration file."""

from __future__ import annotations

import pathlib

import hypothesis
import pytest
from hypothesis import strategies as st

from conpaas.core import config, errors, paths

AGENT = """\
[agent]
TYPE = helloworld
User_ID = 7
EMPTY =
PASSWORD = 100% %(TYPE)s $HOME ; not a comment # either
RATIO = 2.5
LIST = a, b  c,d
[mysql]
PORT: 3306
[vm]
MY_IP = 10.0.0.9
USER_ID = 8
"""


@pytest.fixture
def read(tmp_path: pathlib.Path):
    def read(text: str | bytes, **options: str) -> config.Config:
        path = tmp_path / "config.cfg"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return config.Config.read(path, **options)

    return read


def test_values_are_literal_and_names_of_any_case(read):
    found = read(AGENT)
    assert found.main == "agent"
    assert found.get("agent", "password") == "100% %(TYPE)s $HOME ; not a comment # either"
    assert found.get("agent", "Type") == "helloworld"
    assert found.get_int("mysql", "port") == 3306


def test_what_only_the_vm_knows_stands_in_the_main_section_and_wins(read):
    found = read(AGENT)
    assert (found.get("agent", "MY_IP"), found.get_int("agent", "USER_ID")) == ("10.0.0.9", 8)
    assert found.sections() == ["agent", "mysql"]


def test_a_copy_may_differ_in_some_values(read):
    found = read(AGENT)
    changed = found.replace(TYPE="generic").replace("own", KEY="1")
    assert (changed.get("agent", "TYPE"), changed.get("own", "key"), changed.get("agent", "MY_IP")) == ("generic", "1", "10.0.0.9")
    assert found.get("agent", "TYPE") == "helloworld"


def test_typed_getters(read):
    found = read(AGENT)
    assert found.get_float("agent", "RATIO") == 2.5
    assert found.get_list("agent", "LIST") == ["a", "b", "c", "d"]
    assert found.get_bool("agent", "ABSENT", True) is True
    assert found.get_path("agent", "ABSENT", pathlib.Path("/x")) == pathlib.Path("/x")
    assert found.get("agent", "EMPTY", "fallback") == "fallback"


@pytest.mark.parametrize(("text", "value"), [("yes", True), ("On", True), ("1", True), ("no", False), ("FALSE", False), ("0", False)])
def test_truth(read, text: str, value: bool):
    assert read(f"[agent]\nX = {text}\n").get_bool("agent", "X") is value


@pytest.mark.parametrize(
    ("getter", "value", "said"),
    [
        ("get_int", "2.0", "should be a whole number"),
        ("get_int", "-1", "should lie between 0 and 9"),
        ("get_int", "10", "should lie between 0 and 9"),
        ("get_float", "nan", "should be at least 0"),
        ("get_float", "much", "should be a number"),
        ("get_bool", "maybe", "should be yes or no"),
        ("get_path", "var/log", "should be an absolute path"),
    ],
)
def test_a_wrong_value_is_told_with_its_place(read, getter: str, value: str, said: str):
    bounds = {"get_int": {"minimum": 0, "maximum": 9}, "get_float": {"minimum": 0}}.get(getter, {})
    with pytest.raises(errors.ConfigurationError, match=said) as failure:
        getattr(read(f"[agent]\nX = {value}\n"), getter)("agent", "X", **bounds)
    assert 'Variable "X" in section "agent"' in str(failure.value)


def test_classic_texts_for_what_is_missing(read, tmp_path: pathlib.Path):
    with pytest.raises(errors.ConfigurationError, match=r"^Failed to find configuration file"):
        config.Config.read(tmp_path / "absent")
    with pytest.raises(errors.ConfigurationError, match=r"^Failed to find configuration file"):
        config.Config.read(tmp_path)
    for broken in ("TYPE = x\n", "[agent\n", "[agent]\nno value here\n", b"[agent]\nX = \xff\n"):
        with pytest.raises(errors.ConfigurationError, match=r"^Failed to read configuration file") as failure:
            read(broken)
        assert "\n" not in str(failure.value)
    with pytest.raises(errors.ConfigurationError, match=r'^Missing configuration section "manager"'):
        read(AGENT, main="manager")
    found = read(AGENT)
    with pytest.raises(errors.ConfigurationError, match=r'^Section "mysql" should contain variables A, B'):
        found.require("mysql", ("A", "B"))
    with pytest.raises(errors.ConfigurationError, match=r'^Missing configuration variable "EMPTY" in section "agent"'):
        found.require("agent", ("TYPE", "EMPTY"))
    with pytest.raises(errors.ConfigurationError, match=r'^Missing configuration variable "X" in section "agent"'):
        found.get("agent", "X")
    with pytest.raises(errors.ConfigurationError, match=r'^Missing configuration section "x"'):
        found.get("x", "y")


def test_a_section_or_key_that_comes_twice_is_the_last_one(read):
    # The classic agent configuration is one file appended to another, each with its own [agent].
    found = read("[agent]\nA = 1\nB = 1\n[agent]\nB = 2\n")
    assert found.section("agent") == {"a": "1", "b": "2"}


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(value=st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=60))
def test_any_line_of_text_comes_back_as_it_was_but_for_spaces_around(value: str):
    path = pathlib.Path("config.cfg")
    text = f"[agent]\nX = {value}\nY = end\n"
    parsed = config.Config.read(_Text(path, text))  # type: ignore[arg-type]
    assert parsed.get("agent", "X", "") == value.strip()
    assert parsed.get("agent", "Y") == "end"


class _Text:
    """A path whose content is in memory."""

    def __init__(self, path: pathlib.Path, text: str) -> None:
        self.path, self.text = path, text

    def is_file(self) -> bool:
        return True

    def read_text(self, encoding: str) -> str:
        return self.text

    def __str__(self) -> str:
        return str(self.path)


class TestPaths:
    def test_the_standard_layout_survives_a_configuration_file(self, tmp_path: pathlib.Path):
        places = paths.Paths.under(tmp_path, daemon="cpsmanager")
        assert paths.Paths.from_config(config.Config({"manager": places.to_config()})) == places

    def test_what_is_absent_follows_from_what_is_there(self):
        keys = {"LOG_FILE": "/var/log/cpsagent.log", "ETC": "/etc/cpsagent", "VAR_TMP": "/var/tmp/cpsagent"}
        keys |= {"VAR_CACHE": "/var/cache/cpsagent", "VAR_RUN": "/var/run/cpsagent"}
        assert paths.Paths.from_config(config.Config({"agent": keys})) == paths.Paths.under(pathlib.Path("/"))

    def test_every_classic_key_is_needed(self):
        for missing in paths.REQUIRED:
            keys = {key: "/x" for key in paths.REQUIRED if key != missing}
            with pytest.raises(errors.ConfigurationError, match=missing):
                paths.Paths.from_config(config.Config({"agent": keys}))

    def test_keys_and_certificates_are_closed_to_others(self, tmp_path: pathlib.Path):
        places = paths.Paths.under(tmp_path)
        places.create()
        places.create()
        assert places.certs.stat().st_mode & 0o777 == places.lib.stat().st_mode & 0o777 == 0o700
        assert places.service.is_dir()
        assert places.log_dir.is_dir()
