from __future__ import annotations

import pathlib

import pytest

from conpaas.core import errors
from conpaas.director import config

EXAMPLE = pathlib.Path(__file__).parents[3] / "config" / "director" / "director.cfg.example"


def written(tmp_path: pathlib.Path, text: str) -> pathlib.Path:
    path = tmp_path / "director.cfg"
    path.write_text(text)
    return path


def test_a_state_directory_is_enough(tmp_path: pathlib.Path) -> None:
    loaded = config.load(state=tmp_path)
    assert loaded.director_url == "https://127.0.0.1:5555"
    assert (loaded.bind, loaded.port) == ("127.0.0.1", 5555)
    assert loaded.database_uri == f"sqlite:///{tmp_path}/director.db"
    assert loaded.cert_dir == tmp_path / "certs"
    assert loaded.cloud_names == ("iaas",)
    assert loaded.sections["iaas"] == {"driver": "dummy", "state_dir": f"{tmp_path}/clouds/iaas"}


def test_the_example_explains_every_key_and_is_valid(tmp_path: pathlib.Path) -> None:
    text = EXAMPLE.read_text()
    assert config.problems(EXAMPLE) == []
    assert [key.name for key in config.KEYS if f"{key.name} = " not in text] == []


def test_what_the_example_calls_a_default_is_one(tmp_path: pathlib.Path) -> None:
    uncommented = EXAMPLE.read_text().replace("#DEPLOYMENT_NAME", "DEPLOYMENT_NAME").replace("#THREADS", "THREADS").replace("#MAX_", "MAX_")
    loaded, plain = config.load(written(tmp_path, uncommented)), config.load(state=tmp_path / "none")
    assert (loaded.deployment_name, loaded.threads, loaded.max_credit) == (plain.deployment_name, plain.threads, plain.max_credit)


@pytest.mark.parametrize(
    ("section", "line", "text"),
    [
        ("conpaas", "MAX_CREDIT = many", "MAX_CREDIT must be a whole number from 0 to 1000000000, not 'many'."),
        ("conpaas", "MAX_CREDIT = -1", "MAX_CREDIT must be a whole number"),
        ("conpaas", "DEPLOYMENT_NAME = a b", "DEPLOYMENT_NAME must be up to 40 letters"),
        ("conpaas", "SUPPORT_OPENID = maybe", "SUPPORT_OPENID must be true or false, not 'maybe'."),
        ("director", "DIRECTOR_URL = http://example.org", "DIRECTOR_URL must be a URL like https://"),
        ("director", "DIRECTOR_URL = https://example.org:x", "DIRECTOR_URL must be a URL like https://"),
        ("director", "BIND = everywhere", "BIND must be an IP address"),
        ("director", "DATABASE_URI = nonsense", "DATABASE_URI must be a database URL"),
        ("director", "REGISTRATION = sometimes", "REGISTRATION must be one of open, invitation, closed, not 'sometimes'."),
        ("director", "PROT = 1", "'PROT' is not a key that the Director knows."),
    ],
)
def test_a_wrong_value_names_file_section_and_key(tmp_path: pathlib.Path, section: str, line: str, text: str) -> None:
    path = written(tmp_path, f"[{section}]\n{line}\n")
    with pytest.raises(errors.ConfigurationError) as caught:
        config.load(path)
    assert str(path) in str(caught.value)
    assert f"[{section}]" in str(caught.value)
    assert text in str(caught.value)
    assert config.problems(path) == [str(caught.value)]


def test_all_problems_are_told_at_once(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path, "[conpaas]\nMAX_CREDIT = x\n[director]\nBIND = y\nPORT = z\n")
    assert len(config.problems(path)) == 3
    with pytest.raises(errors.ConfigurationError, match="and 2 more: run 'cpsdirector check-config'"):
        config.load(path)


@pytest.mark.parametrize("text", ["no section\n", "[a\n", "[a]\nx = 1\nx = 2\n"])
def test_a_file_that_is_no_configuration_is_one_sentence(tmp_path: pathlib.Path, text: str) -> None:
    problems = config.problems(written(tmp_path, text))
    assert len(problems) == 1
    assert "Cannot parse the configuration file" in problems[0]


def test_a_missing_file_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"Cannot read the configuration file .*absent\.cfg"):
        config.load(tmp_path / "absent.cfg")


def test_classic_files_load(tmp_path: pathlib.Path) -> None:
    text = """
[conpaas]
CONF_DIR: /etc/cpsdirector
CERT_DIR: /etc/cpsdirector/certs
VPN_BASE_NETWORK: 172.16.0.0
max_credit: 20
[iaas]
DRIVER: EC2
PASSWORD: 50%of%(that
OTHER_CLOUDS = one , two,
[one]
DRIVER: openstack
[director]
DEBUG: true
DIRECTOR_URL: https://director.example.org
DATABASE_URI: sqlite:////etc/cpsdirector/director.db
"""
    loaded = config.load(written(tmp_path, text))
    assert loaded.max_credit == 20
    assert loaded.sections["iaas"]["password"] == "50%of%(that"
    assert loaded.other_clouds == ("one", "two")
    assert loaded.cloud_names == ("iaas", "one")
    assert loaded.director_url == "https://director.example.org:5555"
    assert loaded.bind == "0.0.0.0"
    assert any("no section [two]" in warning for warning in loaded.warnings)
    assert loaded.parser().get("iaas", "PASSWORD") == "50%of%(that"


def test_relative_paths_start_at_the_file(tmp_path: pathlib.Path) -> None:
    loaded = config.load(written(tmp_path, "[director]\nSTATE_DIR = state\nLOG_DIR = logs\n"))
    assert loaded.state_dir == tmp_path / "state"
    assert loaded.log_dir == tmp_path / "logs"
    assert loaded.cert_dir == tmp_path / "state" / "certs"


def test_dummy_clouds_follow_the_directors_ports(tmp_path: pathlib.Path) -> None:
    text = "[director]\nSTATE_DIR = s\nMANAGER_PORT = 8443\n[iaas]\nDRIVER = dummy\nAGENT_PORT = 7777\n"
    section = config.load(written(tmp_path, text)).sections["iaas"]
    assert section["manager_port"] == "8443"
    assert section["agent_port"] == "7777"


def test_the_environment_names_the_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "[conpaas]\nDEPLOYMENT_NAME = mine\n")
    monkeypatch.setenv("DIRECTOR_CFG", str(path))
    assert config.load().deployment_name == "mine"
    assert config.load(state=tmp_path / "other").deployment_name == "conpaas"


@pytest.mark.parametrize(
    ("url", "bind"), [("https://127.9.9.9", "127.9.9.9"), ("https://localhost:1", "127.0.0.1"), ("https://8.8.8.8", "0.0.0.0")]
)
def test_only_a_loopback_url_is_bound_to_loopback(tmp_path: pathlib.Path, url: str, bind: str) -> None:
    assert config.load(written(tmp_path, f"[director]\nDIRECTOR_URL = {url}\n")).bind == bind
