"""`scripts/quickstart` as a stranger meets it: from nothing to a demo that answers, stopped, started again, reset."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.support import platform, quickstart

ROWS = re.compile(r"^ +\d+ +\d+ (hello|keyvalue|site) +(helloworld|generic|php) +(\w+) +(\d+) ", re.MULTILINE)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("a directory with spaces") / "state"


@pytest.fixture(scope="module")
def quick(state: pathlib.Path) -> Iterator[quickstart.Quickstart]:
    made = quickstart.Quickstart(state, 111)
    try:
        yield made
    finally:
        made.run("--reset")


@pytest.fixture(scope="module")
def first(quick: quickstart.Quickstart) -> str:
    """What the first run printed."""
    return quick.run(*quick.first).stdout


def rows(output: str) -> dict[str, tuple[str, int]]:
    """Service → state, number of nodes."""
    return {name: (state, int(nodes)) for name, _, state, nodes in ROWS.findall(output)}


RUNNING = {"hello": ("RUNNING", 3), "keyvalue": ("RUNNING", 3), "site": ("RUNNING", 1)}


def test_the_first_run_ends_with_a_table_of_all_that_runs(quick: quickstart.Quickstart, first: str) -> None:
    told = quickstart.table(first)
    assert (told["Director"], told["User"], told["State"]) == (f"https://{quick.address}", "demo", str(quick.state))
    assert told["Web pages"] == f"http://127.{quick.net}.255.1:8080/"
    assert "Sign in" in quick.paste(f"curl --silent --fail --location {told['Web pages']}")
    assert len(told["Password"]) >= 20
    assert rows(first) == RUNNING
    assert "New Application" not in first.partition("Password")[2], "the user's first application became the demo"
    assert "read from 2 replicas" in first


def test_the_site_is_there_with_its_pretty_addresses(quick: quickstart.Quickstart, first: str) -> None:
    url = quickstart.table(first)["Demo site"].rstrip("/")
    assert "<h1>Welcome, world</h1>" in quick.paste(f"curl -s --noproxy '*' {url}/")
    assert "<h1>Welcome, visitor</h1>" in quick.paste(f"curl -s --noproxy '*' {url}/hello/visitor")


def test_the_proposed_commands_work_when_pasted(quick: quickstart.Quickstart, first: str, tmp_path: pathlib.Path) -> None:
    commands = quickstart.proposals(first)
    assert len(commands) == 4
    assert quick.paste(commands[0], tmp_path).count("Received helloworld from") == 3
    assert quick.paste(commands[1], tmp_path).count("RUNNING") >= 3
    quick.paste(commands[2], tmp_path)
    quick.paste(commands[3], tmp_path)
    after = rows(quick.run("--status").stdout)
    assert (after["hello"], after["site"]) == (("RUNNING", 4), ("RUNNING", 3))


def test_a_second_run_changes_nothing(quick: quickstart.Quickstart, first: str) -> None:
    before, again = quick.run("--status").stdout, quick.run().stdout
    assert f"The Director runs already: https://{quick.address}" in again
    assert "The application 'demo' runs already." in again
    assert quickstart.table(again) == quickstart.table(first)
    assert rows(again) == rows(before)


def test_another_address_than_the_first_run_s_is_refused(quick: quickstart.Quickstart, first: str) -> None:
    refused = quick.run("--address", "127.111.255.2", check=False)
    assert refused.returncode == 1
    assert f"is at https://{quick.address}, not at 127.111.255.2:5555" in refused.stderr


def test_a_director_that_is_killed_comes_back(quick: quickstart.Quickstart, first: str) -> None:
    before = _director(quick.state)
    os.kill(before, signal.SIGKILL)
    platform.until(lambda: _director(quick.state, missing=before) != before, "runit starts another Director")
    platform.until(lambda: quick.run("--status", check=False).returncode == 0, "the Director answers again")


def _director(state: pathlib.Path, missing: int = 0) -> int:
    text = (state / "service" / "cpsdirector" / "supervise" / "pid").read_text().strip()
    return int(text) if text else missing


def test_stopped_and_started_again_the_data_is_still_there(quick: quickstart.Quickstart, first: str) -> None:
    key = "redis-cli -p 6390 --no-auth-warning -h {} {} kept {}"
    nodes = quick.paste(f"'{quick.state}/bin/cps-tools' --output json service list_nodes demo keyvalue")
    primary = re.findall(r'"ip": "([\d.]+)"[^}]*?"role": "master"|"role": "master"[^}]*?"ip": "([\d.]+)"', nodes)
    address = next(part for part in primary[0] if part)
    secret = (quick.state / "demo" / "keyvalue.password").read_text().strip()
    assert quick.paste(f"REDISCLI_AUTH={secret} " + key.format(address, "set", "42")).strip() == "OK"
    quick.run("--stop")
    assert quick.processes() == []
    status = quick.run("--status", check=False)
    assert status.returncode == 1
    assert f"Nothing runs under {quick.state}" in status.stderr
    quick.run("--stop")
    again = quick.run().stdout
    assert {name: found[0] for name, found in rows(again).items()} == dict.fromkeys(RUNNING, "RUNNING")
    assert quick.paste(f"REDISCLI_AUTH={secret} " + key.format(address, "get", "")).strip() == "42"


def test_reset_leaves_nothing(tmp_path: pathlib.Path) -> None:
    quick = quickstart.Quickstart(tmp_path / "state", 112)
    try:
        told = quick.run(*quick.first, "--no-demo").stdout
        commands = quickstart.proposals(told)
        assert [command.rpartition("/")[2].split()[0] for command in commands] == ["cps-application", "cps-application", "cps-helloworld"]
        for command in commands:
            quick.paste(command)
        (quick.state / "director" / "director.cfg").unlink()  # a state that somebody damaged is no excuse
    finally:
        quick.run("--reset")
    assert quick.processes() == []
    assert not quick.state.exists()
    assert quick.run("--reset").returncode == 0


def test_two_at_once_are_refused_and_an_interrupted_run_goes_on(tmp_path: pathlib.Path) -> None:
    quick = quickstart.Quickstart(tmp_path / "state", 113)
    command = quick.command(*quick.first, "--no-demo")
    try:
        with subprocess.Popen(command, env=quick.environment, stdout=subprocess.DEVNULL, start_new_session=True) as running:
            platform.until((quick.state / "venv" / "bin" / "python").exists, "the first run has begun to install")
            refused = quick.run("--no-demo", check=False)
            os.killpg(running.pid, signal.SIGKILL)
        assert refused.returncode == 1
        assert "Another run is at work" in refused.stderr
        assert quickstart.table(quick.run(*quick.first, "--no-demo").stdout)["User"] == "demo"
    finally:
        quick.run("--reset")


def test_an_address_in_use_is_named_with_who_uses_it(tmp_path: pathlib.Path) -> None:
    script = 'cd "$ROOT"; . scripts/lib/bootstrap.sh; . scripts/lib/platform.sh; check_address 127.114.255.1:5555'
    environment = {"PATH": "/usr/bin:/bin", "ROOT": str(quickstart.ROOT), "STATE": str(tmp_path), "PROGRAM": "quickstart"}
    with socket.create_server(("127.114.255.1", 5555)):
        told = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert f"127.114.255.1:5555 is taken by process {os.getpid()} (" in told.stderr
    assert "--address" in told.stderr


@pytest.mark.parametrize("place", ["/proc/nowhere", "/", "/tmp/a:b"])
def test_a_place_that_will_not_do_is_refused_in_a_sentence(place: str) -> None:
    refused = quickstart.Quickstart(pathlib.Path(place), 114).run("--no-demo", check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
    assert "--state DIR" in refused.stderr


@pytest.mark.parametrize("options", [["--stat"], ["--state"], ["--stop", "--reset"]])
def test_wrong_options_are_named(options: list[str]) -> None:
    command = [str(quickstart.ROOT / "scripts" / "quickstart"), *options]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--with", "drupal"), "--with knows 'wordpress' only."),
        (("--with",), "--with knows 'wordpress' only."),
        (("--with", "wordpress", "--stop"), "--with goes with none of --status, --stop and --reset."),
    ],
)
def test_what_else_cannot_be_deployed(tmp_path: pathlib.Path, options: tuple[str, ...], text: str) -> None:
    refused = quickstart.Quickstart(tmp_path / "state", 114).run(*options, check=False)
    assert (refused.returncode, refused.stderr.splitlines()[0]) == (2, f"error: {text}")
    assert not (tmp_path / "state").exists()
