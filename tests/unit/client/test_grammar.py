"""What counts as a command line."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from click import testing

import conpaas
from conpaas.client import main


@pytest.mark.parametrize(
    "line",
    [
        "--output json application list",
        "application --output json list",
        "application list --output json",
        "application list --out=json",
        "-ojson application list",
    ],
)
def test_global_options_stand_anywhere(cps: Any, line: str) -> None:
    assert json.loads(cps(line).out)[0]["name"] == "shop"


@pytest.mark.parametrize("option", ["--director_url", "--username", "--password", "--conf_file"])
def test_classic_options_stand_after_the_verb_too(cps: Any, home: Any, option: str) -> None:
    (home / "x").write_text("[cps-tools]\n")
    assert cps(f"application list {option} x").code == 0


def test_long_options_may_be_shortened(cps: Any, wire: Any) -> None:
    wire.manager |= {"add_nodes": {}, "get_service_info": {"state": "RUNNING"}}
    assert cps("generic add_nodes 1 2 --cou 2 --cl ec2").code == 0
    assert wire.changes() == [("post", 0, "add_nodes", {"service_id": 2, "nodes": {"count": 2}, "cloud": "ec2"})]
    ambiguous = cps("generic add_nodes 1 2 --c 2")
    assert ambiguous.code == 2, "--count and --cloud both begin like that"


def test_the_value_of_an_option_is_not_taken_for_an_option(cps: Any, wire: Any) -> None:
    wire.manager["execute_script"] = {}
    assert cps(["generic", "run", "1", "2", "-p", "--cl"]).code == 0
    assert wire.changes() == [("post", 2, "execute_script", {"command": "run", "parameters": "--cl"})]


@pytest.mark.parametrize(("verb", "same"), [("list-resources", "list_resources"), ("list_resources", "list_resources")])
def test_dashes_are_as_good_as_underscores(cps: Any, wire: Any, verb: str, same: str) -> None:
    wire.director["/list_resources"] = []
    assert cps(f"cloud {verb}").out == "No existing resources\n"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("aplication list", "Did you mean 'application'?"),
        ("application strat 1", "Did you mean 'start'?"),
        ("application list --outptu json", "No such option"),
        ("application start", "Missing argument"),
        ("application", "Missing command"),
        ("", "Missing command"),
        ("application create a b", "unexpected extra argument"),
        ("service add_nodes 1 1 --count many", "is not a valid integer"),
    ],
)
def test_usage_errors(cps: Any, line: str, text: str) -> None:
    done = cps(line)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Usage: cps-tools")
    assert text in done.err.splitlines()[-1]
    assert done.err.splitlines()[-1].startswith("ERROR: ")


def test_usage_errors_are_objects_in_json(cps: Any) -> None:
    assert json.loads(cps("application -o json start").err)["exit_code"] == 2


def test_programs_of_objects_leave_the_object_out(cps: Any) -> None:
    assert cps.program("cloud", "list").out == "default\nec2\n"
    assert cps.program("application", "nothing").err.startswith("Usage: cps-application")
    assert cps.program("pdp").code == 3
    assert main.main_application.__doc__ == "Run `cps-application`; the exit code."
    assert callable(main.main_php)


@pytest.mark.parametrize("line", ["help", "-h", "--help", "application help", "application -h", "application start -h", "generic run -h"])
def test_help_is_never_an_error(cps: Any, line: str) -> None:
    done = cps(line)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Usage: cps-tools")


@pytest.mark.parametrize("name", [n for n in (*main.OBJECTS, "generic", "helloworld", *main.COMMANDS)])
def test_every_command_describes_itself(name: str) -> None:
    shown = testing.CliRunner().invoke(main.tools(), [name, "-h"])
    assert shown.exit_code == 0
    assert "Usage:" in shown.output


def test_every_verb_has_help() -> None:
    group = main.tools()
    for name in (*main.OBJECTS, "generic", "helloworld"):
        command: Any = group.get_command(None, name)  # type: ignore[arg-type]
        assert [verb for verb, found in command.commands.items() if not found.help] == []


def test_version(cps: Any) -> None:
    assert cps("--version").out == f"cps-tools {conpaas.__version__}\n"


def test_help_loads_neither_the_network_nor_the_drawing() -> None:
    loaded = "{'requests', 'rich', 'cryptography'} & set(sys.modules)"
    code = f"import sys; from conpaas.client import main; main.main(['--help']); sys.exit(bool({loaded}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
