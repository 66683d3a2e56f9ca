"""From user-data to an agent that answers: what a VM does at its first boot, at later ones, and when things go wrong."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import signal
import stat
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest

import conpaas
from conpaas.core import config, paths, resources, supervisor
from conpaas.core.https import client, identity

from . import conftest, vm

_addresses = itertools.count(10)


@pytest.fixture
def authority(tmp_path: pathlib.Path) -> vm.Authority:
    (tmp_path / "pki").mkdir()
    return vm.Authority(tmp_path / "pki")


@pytest.fixture
def machine(tmp_path: pathlib.Path, authority: vm.Authority) -> Iterator[vm.Vm]:
    with vm.open_desk(authority, "127.13.0.2") as desk:
        made = vm.Vm(tmp_path / "it's a disk", f"127.13.1.{next(_addresses)}", desk)
        yield made
        made.switch_off()


@pytest.fixture
def manager(authority: vm.Authority) -> Iterator[client.RpcClient]:
    caller = client.RpcClient(authority.credentials("manager"), identity.expect_agent(vm.UID, vm.AID))
    yield caller
    caller.close()


def test_a_booted_vm_answers_with_a_key_made_on_the_spot(machine: vm.Vm, manager: client.RpcClient):
    machine.boot()
    conftest.until(lambda: machine.answers(manager), "the agent answers")
    assert machine.call(manager, "get_helloworld")["result"] == "it's $HOME `here` %(x)s", "no shell and no template touched it"
    certs = machine.root / "etc" / "cpsagent" / "certs"
    assert sorted(path.name for path in certs.iterdir()) == ["ca_cert.pem", "cert.pem", "key.pem"], "the token is gone"
    modes = {
        name: stat.S_IMODE((machine.root / name).stat().st_mode)
        for name in ("etc/cpsagent/certs", "etc/cpsagent/config.cfg", "var/lib/cpsagent")
    }
    assert modes == {"etc/cpsagent/certs": 0o700, "etc/cpsagent/config.cfg": 0o600, "var/lib/cpsagent": 0o700}
    assert stat.S_IMODE((certs / "key.pem").stat().st_mode) == 0o600
    written = config.Config.read(machine.root / "etc/cpsagent/config.cfg", main="agent")
    assert paths.Paths.from_config(written) == paths.Paths.under(machine.root)
    assert "BEGIN" not in (machine.root / "etc/cpsagent/config.cfg").read_text()


def test_a_killed_agent_is_back_and_its_daemons_never_noticed(machine: vm.Vm, manager: client.RpcClient):
    machine.boot()
    conftest.until(lambda: machine.answers(manager), "the agent answers")
    watcher = supervisor.Supervisor(machine.root / "service", machine.root / "var" / "log")
    watcher.ensure(supervisor.Daemon("workload", ("sleep", "86394")))
    workload = watcher.status("workload").pid
    before = machine.pid()
    os.kill(before, signal.SIGKILL)
    conftest.until(lambda: machine.pid() not in (0, before) and machine.answers(manager), "the agent is back")
    assert watcher.status("workload").pid == workload
    before = machine.pid()
    os.kill(before, signal.SIGTERM)
    conftest.until(lambda: machine.pid() not in (0, before) and machine.answers(manager), "and after an orderly end too")
    assert watcher.status("workload").pid == workload
    log = machine.call(manager, "get_log")
    assert "default-cpsagent ends" in log["log"]
    assert log["size"] == log["offset"]


def test_user_data_runs_once_in_the_life_of_an_instance(machine: vm.Vm, manager: client.RpcClient):
    script = 'echo "started" >>"$HOME/trace"; echo $$'
    machine.boot(startup_script=script)
    conftest.until(lambda: machine.answers(manager), "the agent answers")
    key = (machine.root / "etc/cpsagent/certs/key.pem").read_text()
    agent = machine.pid()
    again = machine.run(machine.user_data(startup_script=script))
    assert (again.returncode, again.stderr) == (0, "")
    assert (machine.root / "root" / "trace").read_text().count("started") == 1
    assert machine.pid() == agent
    assert machine.desk.requests == ["/ca/enroll"]
    machine.switch_off()
    machine.vm_id = "i-2"
    machine.boot(startup_script=script)
    assert (machine.root / "root" / "trace").read_text().count("started") == 2, "a copy of the disk is another instance"
    assert (machine.root / "etc/cpsagent/certs/key.pem").read_text() != key


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("echo hello; exit 3", 3),
        ("set -e; cd /; false", 1),
        ("kill -9 $$", 137),
        ("echo '$$ $HOME' \"it's\"; unset PATH; give_up() { :; }; NAME=other", 0),
        ("yes | head -c 6000000", 0),
        ("(exec sleep 20) & echo hello", 0),
    ],
)
def test_no_startup_script_keeps_the_agent_away(machine: vm.Vm, manager: client.RpcClient, script: str, code: int):
    machine.boot(startup_script=script)
    conftest.until(lambda: machine.answers(manager), "the agent answers")
    assert machine.call(manager, "get_startup_status") == {"code": code}
    log = machine.root / "root" / "startup.log"
    assert log.stat().st_size <= 4_000_000
    if "hello" in script:
        conftest.until(lambda: machine.call(manager, "get_log", filename="startup.log")["log"] == "hello\n", "its words can be read")
    if "$$ $HOME" in script:
        conftest.until(lambda: log.read_text() == "$$ $HOME it's\n", "the script arrived as it was written")


def test_a_startup_script_that_never_ends_is_cut_off_with_all_it_started(machine: vm.Vm, manager: client.RpcClient):
    console = machine.boot(startup_script="echo begun; trap '' TERM; sleep 86393 & wait; sleep 86393", startup_timeout=1)
    conftest.until(lambda: machine.answers(manager), "the agent answers")
    assert "did not end in time and was killed" in console or "failed with code 137" in console
    assert machine.call(manager, "get_startup_status")["code"] in (124, 137)
    assert machine.call(manager, "get_log", filename="startup.log")["log"] == "begun\n"
    left = [path for path in pathlib.Path("/proc").glob("[0-9]*") if b"86393" in _arguments(path)]
    assert left == []


def _arguments(process: pathlib.Path) -> bytes:
    with contextlib.suppress(OSError):
        return (process / "cmdline").read_bytes()
    return b""


def test_a_failed_startup_script_is_told_where_people_look(machine: vm.Vm, manager: client.RpcClient):
    console = machine.boot(startup_script="echo 'no such package'; exit 7")
    assert "user-data: the startup script failed with code 7" in console
    conftest.until(lambda: machine.answers(manager), "the agent answers")
    log = machine.call(manager, "get_log")["log"]
    assert "the startup script of this node failed (code 7); its output ends: no such package" in log


def test_the_console_tells_each_step_in_a_line(machine: vm.Vm):
    lines = machine.boot(startup_script="echo not for the console").splitlines()
    assert lines == [
        f"user-data: sets up cpsagent on {machine.address} for test",
        f"user-data: runs the code of its image, version {conpaas.__version__}",
        f"user-data: has a certificate of {machine.desk.url}",
        "user-data: runs the startup script, 240 seconds at most",
        "user-data: the startup script ended in order",
        "user-data: cpsagent is handed to the supervisor",
    ]
    assert machine.run(machine.user_data()).stdout == "user-data: cpsagent was set up at an earlier boot\n"


def test_the_startup_script_is_cut_off_before_the_director_gives_the_vm_up():
    assert [vm.context.startup_timeout(patience) for patience in (300, 7200, 120, 60, 5)] == [240, 7140, 60, 30, 2]


def test_the_code_of_another_version_is_fetched_and_checked(machine: vm.Vm, manager: client.RpcClient, tmp_path: pathlib.Path):
    sha256 = resources.code_tarball(tmp_path / "code")
    machine.image = "0" * 64
    machine.desk.code = (tmp_path / "code").read_bytes()
    machine.boot(code_sha256=sha256)
    conftest.until(lambda: machine.answers(manager), "the agent answers")
    run = (machine.root / "service" / "cpsagent" / "run").read_text()
    assert "root/ConPaaS/src" in run.replace("\\", "")
    maps = pathlib.Path(f"/proc/{machine.pid()}/environ").read_bytes().decode()
    assert f"PYTHONPATH={machine.root}/root/ConPaaS/src" in maps


def test_code_with_a_wrong_checksum_is_refused(machine: vm.Vm, tmp_path: pathlib.Path):
    resources.code_tarball(tmp_path / "code")
    machine.image = ""
    machine.desk.code = (tmp_path / "code").read_bytes() + b"x"
    done = machine.run(machine.user_data())
    assert done.returncode == 1
    assert "is not the version this VM was told to run" in done.stderr
    assert not (machine.root / "root" / "ConPaaS").exists()
    assert not (machine.root / "service" / "cpsagent").exists()


def test_enrolment_is_tried_again_while_the_director_is_away(machine: vm.Vm, manager: client.RpcClient):
    machine.desk.failures = 2
    machine.run(machine.user_data())
    assert machine.desk.requests == ["/ca/enroll"] * 3
    assert (machine.root / "etc/cpsagent/certs/cert.pem").exists()


def test_a_refused_token_is_told_and_can_be_tried_again(machine: vm.Vm):
    done = machine.run(machine.user_data().replace("one time", "other time"))
    assert done.returncode == 1
    assert "unknown token" in done.stderr
    assert not (machine.root / "service" / "cpsagent").exists()
    key = (machine.root / "etc/cpsagent/certs/key.pem").read_text()
    assert machine.run(machine.user_data()).returncode == 0, "it was not set up, so it goes on where it stopped"
    assert (machine.root / "etc/cpsagent/certs/key.pem").read_text() == key


@pytest.mark.parametrize("role", ["agent", "manager"])
@pytest.mark.parametrize("driver", ["dummy", "ec2", "openstack"])
def test_rendered_user_data_is_clean_bash(machine: vm.Vm, tmp_path: pathlib.Path, driver: str, role: str):
    text = machine.user_data(startup_script="echo 'it''s'\n") if role == "agent" else ""
    composer = vm.context.Composer(
        director_url="https://d.example:5555", deployment="x", ca_pem=lambda: "pem", code_sha256=lambda: "0" * 64
    )
    if driver != "dummy" or role == "manager":
        text = (
            composer.manager(driver=driver, user_id=1, app_id=2, token="t")
            if role == "manager"
            else composer.agent(
                driver=driver,
                user_id=1,
                app_id=2,
                service_id=1,
                agent_type="generic",
                manager_ip="10.0.0.1",
                token="t",
                values={},
                startup_script="x",
            )
        )
    (tmp_path / "user-data").write_text(text)
    # SC2016: what is quoted for good is not meant to expand.
    done = subprocess.run(["shellcheck", "--exclude=SC2016", tmp_path / "user-data"], capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_the_agents_numbers_can_be_read(machine: vm.Vm, manager: client.RpcClient, authority: vm.Authority):
    machine.boot()
    conftest.until(lambda: machine.answers(manager), "the agent answers")
    context = vm.ssl.create_default_context(cafile=authority.directory / "manager" / "ca_cert.pem")
    context.check_hostname = False
    context.load_cert_chain(authority.directory / "manager" / "cert.pem", authority.directory / "manager" / "key.pem")
    with urllib.request.urlopen(f"https://{machine.address}:{vm.PORT}/metrics", context=context, timeout=10) as page:
        text = page.read().decode()
    numbers = {line.split()[0]: float(line.split()[-1]) for line in text.splitlines() if not line.startswith("#")}
    assert 5e6 < numbers["process_resident_memory_bytes"] < 60e6
    assert any("requests" in name for name in numbers), text
