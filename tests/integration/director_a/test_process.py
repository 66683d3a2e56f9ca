"""`cpsdirector serve` as a process: how it starts, ends, survives being killed, and what it costs."""

from __future__ import annotations

import json
import pathlib
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from conpaas.core import errors, misc
from conpaas.core.https import client

from . import conftest

HOST = "127.15.0.2"
PASSWORD = "correct horse"


class Command:
    """`cpsdirector` on a state directory of its own; processes that it started end with the test."""

    def __init__(self, state: pathlib.Path) -> None:
        self.state = state
        self.port = conftest.free_port(HOST)
        self.processes: list[subprocess.Popen[bytes]] = []

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "conpaas.director.main", "--state", str(self.state), *arguments]

    def run(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(self.argv(*arguments), input=stdin, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def serve(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self.argv("serve"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.processes.append(process)
        api = self.api()

        def answers() -> bool:
            assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
            try:
                return bool(api.get("health")["status"] == "ok")
            except errors.Unreachable:
                return False

        misc.wait_until(answers, timeout=60, what="the Director answers", interval=0.1)
        api.close()
        return process

    def api(self) -> client.DirectorClient:
        return client.DirectorClient(f"https://{HOST}:{self.port}", ca=self.state / "certs" / "ca_cert.pem")


@pytest.fixture
def command(tmp_path: pathlib.Path) -> Iterator[Command]:
    made = Command(tmp_path / "state")
    made.run("init", "--host", HOST, "--port", str(made.port))
    with (made.state / "director.cfg").open("a") as written:
        written.write("\n[frontend]\nENABLED = no\n")
    made.run("user", "create", "alice", "--email", "a@example.org", "--credit", "7", "--password-file", "-", stdin=f"{PASSWORD}\n")
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def login(command: Command) -> Callable[[], dict[str, object]]:
    def call() -> dict[str, object]:
        api = command.api()
        try:
            reply: dict[str, object] = api.post("login", {"username": "alice", "password": PASSWORD})
            return reply
        finally:
            api.close()

    return call


def test_sigterm_ends_it_in_order(command: Command) -> None:
    process = command.serve()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    log = (command.state / "log" / "cpsdirector.log").read_text()
    assert log.rstrip().endswith("the Director has stopped")
    assert "ERROR" not in log


def test_killed_at_any_time_it_goes_on_where_it_was(command: Command, login: Callable[[], dict[str, object]]) -> None:
    for _ in range(2):
        process = command.serve()
        assert login()["credit"] == 7
        process.kill()
        process.wait()
    ca = (command.state / "certs" / "ca_cert.pem").read_bytes()
    command.serve()
    assert login()["credit"] == 7
    assert (command.state / "certs" / "ca_cert.pem").read_bytes() == ca


def test_administration_while_it_runs(command: Command, login: Callable[[], dict[str, object]]) -> None:
    command.serve()
    assert "answers, version" in command.run("status")
    command.run("credit", "add", "alice", "5")
    assert login()["credit"] == 12
    command.run("user", "disable", "alice")
    assert login() is False


def test_it_stays_below_100_megabytes(command: Command, login: Callable[[], dict[str, object]]) -> None:
    process = command.serve()
    for _ in range(20):
        login()
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    resident = int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024
    assert resident < 100, f"{resident:.0f} MB"


def test_an_address_in_use_is_one_sentence(command: Command) -> None:
    command.serve()
    second = subprocess.run(command.argv("serve"), capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert second.stderr.startswith(f"ERROR: Cannot listen on {HOST}:{command.port}: Address already in use")
    assert second.stderr.count("\n") == 1


def test_a_director_that_nobody_configured_is_one_sentence(tmp_path: pathlib.Path) -> None:
    config = tmp_path / "director.cfg"
    config.write_text("[director]\nDATABASE_URI = mysql+nothing://x\nSTATE_DIR = s\n")
    argv = [sys.executable, "-m", "conpaas.director.main", "--config", str(config), "serve"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("ERROR: No driver for the database")


def test_the_source_trees_command_is_the_same(command: Command) -> None:
    script = pathlib.Path(__file__).parents[3] / "sbin" / "cpsdirector"
    done = subprocess.run(
        [sys.executable, str(script), "--state", str(command.state), "user", "list", "--json"], capture_output=True, check=True
    )
    assert [user["username"] for user in json.loads(done.stdout)] == ["alice"]
