"""Where settings come from, and what is not accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from conpaas.client import settings
from conpaas.core import errors


def load(home: Path, options: dict[str, Any] | None = None, text: str | None = None, **environ: str) -> settings.Settings:
    if text is not None:
        (home / ".conpaas").mkdir(exist_ok=True)
        path = home / ".conpaas" / "cps-tools.conf"
        path.write_text(text)
        path.chmod(0o600)
    return settings.load(options or {}, {"HOME": str(home), **environ})


def test_the_command_line_wins_over_the_environment_over_the_file(home: Path) -> None:
    text = "[cps-tools]\ndirector_url = file\nusername = file\npassword = file\n"
    found = load(home, {"director_url": "line"}, text, CPS_DIRECTOR_URL="env", CPS_USERNAME="env")
    assert (found.director_url, found.username, found.password) == ("line", "env", "file")


def test_a_named_file_is_read_alone_and_must_exist(home: Path) -> None:
    other = home / "other.conf"
    other.write_text("[cps-tools]\nusername = other\n")
    found = load(home, {"conf_file": str(other)}, "[cps-tools]\ndirector_url = usual\n")
    assert (found.director_url, found.username) == (None, "other")
    with pytest.raises(errors.ConfigurationError, match="does not exist"):
        load(home, {"conf_file": str(home / "nothing")})
    assert settings.load({"conf_file": str(home / "new")}, {"HOME": str(home)}, need_file=False).config_file == home / "new"


def test_the_environment_may_name_a_file_with_certificates_beside_it(home: Path) -> None:
    (home / "ctx").mkdir()
    (home / "ctx" / "c.conf").write_text("[cps-tools]\nusername = ctx\n")
    found = load(home, CPS_CONFIG=str(home / "ctx" / "c.conf"))
    assert (found.username, found.directory) == ("ctx", home / "ctx")


def test_unknown_keys_and_readable_passwords_are_remarked_on(home: Path) -> None:
    load(home, text="[cps-tools]\npassword = x\nshade = blue\n[other]\n")
    path = home / ".conpaas" / "cps-tools.conf"
    path.chmod(0o644)
    remarks = settings.load({}, {"HOME": str(home)}).remarks
    assert remarks[0] == "Skipping unknown sections: ['other']"
    assert remarks[1] == "Skipping unknown options from section \"cps-tools\": ['shade']"
    assert "chmod 600" in remarks[2]


@pytest.mark.parametrize("text", ["debug = perhaps", "timeout = soon", "output = xml"])
def test_bad_values_are_named(home: Path, text: str) -> None:
    with pytest.raises(errors.ConPaaSError):
        load(home, text=f"[cps-tools]\n{text}\n")


@pytest.mark.parametrize("text", ["no section", "[cps-tools\n", "[cps-tools]\n[cps-tools]\n", "[cps-tools]\na = 1\na = 2\n"])
def test_a_file_that_makes_no_sense_is_an_error_and_no_traceback(home: Path, text: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="is not valid"):
        load(home, text=text)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("host", "https://host:5555"),
        ("host:99", "https://host:99"),
        ("https://host", "https://host:5555"),
        ("http://host:8/", "https://host:8"),
        ("https://10.0.0.1:5555/path", "https://10.0.0.1:5555"),
        ("https://[::1]:7", "https://[::1]:7"),
    ],
)
def test_urls_get_scheme_and_port(given: str, url: str) -> None:
    assert settings.normalise_url(given) == url


@pytest.mark.parametrize("given", ["", "https://", "ftp://host", "host:port", "https://host:99999", "[::1"])
def test_urls_that_are_none(given: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="is not valid"):
        settings.normalise_url(given)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1h", 3600), ("1.5m", 90), ("0", None)])
def test_durations(text: str, seconds: float | None) -> None:
    assert settings.duration(text) == seconds


@hypothesis.given(strategies.text(strategies.characters(exclude_categories=["C", "Z"]), min_size=1))
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], max_examples=30)
def test_what_is_saved_is_read_again(home: Path, value: str) -> None:
    path = home / "saved.conf"
    settings.save(path, {"username": value, "director_url": "https://x:1"})
    assert settings.load({"conf_file": str(path)}, {"HOME": str(home)}).username == value


def test_saving_keeps_other_keys(home: Path) -> None:
    path = home / "saved.conf"
    path.write_text("[cps-tools]\ndebug = true\npassword = x\n")
    settings.save(path, {"username": "bob", "password": None})
    assert path.read_text() == "[cps-tools]\ndebug = true\nusername = bob\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_missing_values_have_the_classic_texts(home: Path) -> None:
    found = load(home)
    with pytest.raises(errors.ConfigurationError, match="the director URL address is not specified"):
        _ = found.url
    with pytest.raises(errors.ConfigurationError, match="the user name is not specified"):
        _ = found.user
