"""Configuration files and the paths they name."""

from __future__ import annotations

import pathlib

import hypothesis
import hypothesis.strategies as st
import pytest

from conpaas.core import config, errors, paths

TEXT = """
[agent]
TYPE = helloworld
PASSWORD = 50%(x)s # not a comment; nor this
EMPTY =
PORT = 5555
RATIO = 0.5
SWITCH = Yes
WORDS = a, b  c
PLACE = /srv/x
MY_IP = from the template

[nginx]
NGINX = /usr/sbin/nginx

[agent]
TYPE = web

[vm]
MY_IP = 10.0.0.1
"""


@pytest.fixture
def read(tmp_path: pathlib.Path) -> config.Config:
    (tmp_path / "config.cfg").write_text(TEXT)
    return config.Config.read(tmp_path / "config.cfg", main="agent")


def test_values_are_literal_and_names_have_no_case(read: config.Config):
    assert read.get("agent", "password") == "50%(x)s # not a comment; nor this"
    assert read.get("nginx", "NGINX") == "/usr/sbin/nginx"


def test_a_section_may_be_continued_later(read: config.Config):
    assert read.get("agent", "TYPE") == "web"


def test_what_only_the_vm_knows_wins(read: config.Config):
    assert read.get("agent", "MY_IP") == "10.0.0.1"
    assert read.sections() == ["agent", "nginx"]


def test_typed_values(read: config.Config):
    assert read.get_int("agent", "PORT", minimum=1, maximum=65535) == 5555
    assert read.get_float("agent", "RATIO") == 0.5
    assert read.get_bool("agent", "SWITCH") is True
    assert read.get_list("agent", "WORDS") == ["a", "b", "c"]
    assert read.get_path("agent", "PLACE") == pathlib.Path("/srv/x")


def test_an_empty_value_is_no_value(read: config.Config):
    assert read.get("agent", "EMPTY", "default") == "default"
    assert read.get_int("agent", "EMPTY", 3) == 3
    assert not read.has("agent", "EMPTY")
    with pytest.raises(errors.ConfigurationError, match=r'Missing configuration variable "EMPTY" in section "agent" of .*config.cfg'):
        read.get("agent", "EMPTY")


@pytest.mark.parametrize(
    ("ask", "problem"),
    [
        (lambda read: read.get_int("agent", "TYPE"), "whole number"),
        (lambda read: read.get_int("agent", "PORT", maximum=80), "between"),
        (lambda read: read.get_float("agent", "TYPE"), "number"),
        (lambda read: read.get_bool("agent", "TYPE"), "yes or no"),
        (lambda read: read.get_path("agent", "TYPE"), "absolute path"),
    ],
)
def test_a_wrong_value_is_told_with_its_place(read: config.Config, ask: object, problem: str):
    with pytest.raises(errors.ConfigurationError, match=f'Variable ".*" in section "agent" of .*config.cfg should .*{problem}'):
        ask(read)  # type: ignore[operator]


@pytest.mark.parametrize("content", ["no section", "[agent\nx=1", "[agent]\n =", b"\xff\xfe[agent]"])
def test_a_damaged_file(tmp_path: pathlib.Path, content: str | bytes):
    (tmp_path / "c").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(errors.ConfigurationError, match="Failed to read configuration file"):
        config.Config.read(tmp_path / "c")


def test_a_missing_file_or_section(tmp_path: pathlib.Path):
    with pytest.raises(errors.ConfigurationError, match="Failed to find configuration file"):
        config.Config.read(tmp_path / "c")
    (tmp_path / "c").write_text("[agent]\nTYPE = x\n")
    with pytest.raises(errors.ConfigurationError, match='Missing configuration section "manager"'):
        config.Config.read(tmp_path / "c", main="manager")


def test_classic_texts_for_what_must_be_there(read: config.Config):
    with pytest.raises(errors.ConfigurationError, match='Missing configuration section "tomcat"'):
        read.require("tomcat", ["X"])
    with pytest.raises(errors.ConfigurationError, match='Section "nginx" should contain variables X, Y'):
        read.require("nginx", ["X", "Y"])
    with pytest.raises(errors.ConfigurationError, match='Missing configuration variable "X" in section "nginx"'):
        read.require("nginx", ["NGINX", "X"])
    read.require("nginx", ["NGINX"])


def test_a_changed_copy_leaves_the_original_alone(read: config.Config):
    copy = read.replace(TYPE="other", MY_IP="10.0.0.2")
    assert (copy.get("agent", "TYPE"), copy.get("agent", "MY_IP")) == ("other", "10.0.0.2")
    assert (read.get("agent", "TYPE"), read.get("agent", "MY_IP")) == ("web", "10.0.0.1")
    assert copy.get("nginx", "NGINX") == read.get("nginx", "NGINX")


@hypothesis.given(value=st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp"))).map(str.strip).filter(bool))
def test_any_line_of_text_survives(value: str):
    made = config.Config({"agent": {"KEY": value}})
    assert made.get("agent", "key") == value


def test_paths_follow_from_the_required_ones():
    given = {name: f"/{name.lower()}/cpsagent" for name in paths.REQUIRED}
    found = paths.Paths.from_config(config.Config({"agent": given}))
    assert (found.certs, found.lib) == (pathlib.Path("/etc/cpsagent/certs"), pathlib.Path("/lib/cpsagent"))
    assert (found.root, found.service) == (pathlib.Path("/"), pathlib.Path("/service"))
    with pytest.raises(errors.ConfigurationError, match="VAR_RUN"):
        paths.Paths.from_config(config.Config({"agent": {**given, "VAR_RUN": ""}}))


@pytest.mark.parametrize("daemon", ["cpsagent", "cpsmanager"])
def test_paths_survive_being_written_down(tmp_path: pathlib.Path, daemon: str):
    made = paths.Paths.under(tmp_path, daemon=daemon)
    assert paths.Paths.from_config(config.Config({"manager": {}, "vm": made.to_config()})) == made
    made.create()
    made.create()
    assert (made.certs.stat().st_mode & 0o777, made.lib.stat().st_mode & 0o777) == (0o700, 0o700)
