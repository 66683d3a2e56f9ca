"""The daemons of a VM as processes: what they say when they can't run, and how they end."""

from __future__ import annotations

import contextlib
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from conpaas.core import errors, paths
from conpaas.core.https import client, identity

from . import vm

ADDRESS = "127.19.0.1"
REPOSITORY = pathlib.Path(__file__).parents[3]
AGENT = [sys.executable, str(REPOSITORY / "sbin" / "agent" / "default-cpsagent")]
MANAGER = [sys.executable, str(REPOSITORY / "sbin" / "manager" / "default-cpsmanager")]


@pytest.fixture
def authority(tmp_path: pathlib.Path) -> vm.Authority:
    (tmp_path / "pki").mkdir()
    return vm.Authority(tmp_path / "pki")


@pytest.fixture
def port() -> int:
    with socket.create_server((ADDRESS, 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def settings(tmp_path: pathlib.Path, authority: vm.Authority, port: int) -> dict[str, str]:
    """The keys of a working agent's configuration."""
    where = paths.Paths.under(tmp_path / "disk")
    where.create()
    authority.credentials("agent")
    where.certs.rmdir()
    (authority.directory / "agent").rename(where.certs)
    own = {"TYPE": "helloworld", "USER_ID": str(vm.UID), "APP_ID": str(vm.AID), "SERVICE_ID": "1", "MY_IP": ADDRESS}
    return {**where.to_config(), **own, "AGENT_PORT": str(port), "STRING_TO_GENERATE": "hello"}


@pytest.fixture
def write(tmp_path: pathlib.Path) -> Callable[[dict[str, str]], pathlib.Path]:
    def write(keys: dict[str, str]) -> pathlib.Path:
        path = tmp_path / "config.cfg"
        path.write_text("[agent]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()))
        return path

    return write


def refused(*arguments: object, program: list[str] = AGENT) -> str:
    """What the daemon says when it cannot run: one line on standard error, exit code 1."""
    done = subprocess.run([*program, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.strip()


@contextlib.contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A daemon that has said where it listens."""
    process = subprocess.Popen([*AGENT, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_classic_words_for_a_configuration_that_cannot_be_used(tmp_path: pathlib.Path, settings: dict[str, str], write: Callable):
    assert refused().startswith("Failed to find configuration file")
    assert refused(program=MANAGER).startswith("Failed to find configuration file")
    assert refused("-c", tmp_path / "absent") == f"Failed to find configuration file {tmp_path / 'absent'}"
    (tmp_path / "broken").write_text("no section")
    assert refused("-c", tmp_path / "broken").startswith("Failed to read configuration file")
    path = write(settings)
    assert refused("-c", path, program=MANAGER) == f'Missing configuration section "manager" in {path}'
    path = write({key: value for key, value in settings.items() if key != "VAR_TMP"})
    assert refused("-c", path) == f'Missing configuration variable "VAR_TMP" in section "agent" of {path}'
    path = write({"TYPE": "helloworld"})
    assert refused("-c", path).startswith('Section "agent" should contain variables LOG_FILE, ETC, VAR_TMP, VAR_CACHE, VAR_RUN')


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"TYPE": "nonesuch"}, "nonesuch"),
        ({"TYPE": "../helloworld"}, "helloworld"),
        ({"AGENT_PORT": "0"}, 'Variable "AGENT_PORT"'),
        ({"USER_ID": "root"}, 'Variable "USER_ID"'),
        ({"ETC": "etc"}, "should be an absolute path"),
        ({"BIND": "192.0.2.1"}, "192.0.2.1"),
    ],
)
def test_what_stands_in_the_way_is_named_also_in_the_log(settings: dict[str, str], write: Callable, changes: dict[str, str], said: str):
    line = refused("-c", write({**settings, **changes}))
    assert said in line
    if "ETC" not in changes:
        assert line in pathlib.Path(settings["LOG_FILE"]).read_text()


def test_missing_or_foreign_keys_are_told_without_a_traceback(settings: dict[str, str], write: Callable, authority: vm.Authority):
    certs = pathlib.Path(settings["CERT_DIR"])
    key = (certs / "key.pem").read_text()
    authority.credentials("other")
    (certs / "key.pem").write_text((authority.directory / "other" / "key.pem").read_text())
    assert "key" in refused("-c", write(settings)).lower()
    (certs / "key.pem").write_text(key)
    (certs / "cert.pem").unlink()
    assert "cert.pem" in refused("-c", write(settings))


def test_a_port_in_use_is_told_with_its_address(settings: dict[str, str], write: Callable, port: int):
    with socket.create_server((ADDRESS, port)):
        said = refused("-c", write(settings))
    assert f"{ADDRESS}:{port}" in said
    assert "in use" in said


def test_options_go_before_the_configuration(settings: dict[str, str], write: Callable, port: int):
    with running("-c", write({**settings, "AGENT_PORT": "1"}), "-b", "127.19.0.2", "-p", port) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"127.19.0.2 {port}\n", "classic: the address it serves at"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_end_in_order_lets_calls_finish(settings: dict[str, str], write: Callable, authority: vm.Authority, port: int, number: int):
    with running("-c", write(settings)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        caller = client.RpcClient(authority.credentials("manager"), identity.expect_agent(vm.UID, vm.AID))
        assert caller.get((ADDRESS, port), "get_helloworld") == {"result": "hello"}
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        assert (process.returncode, said) == (0, "")
        with pytest.raises(errors.Unreachable):
            caller.get((ADDRESS, port), "check_process")
        caller.close()
    log = pathlib.Path(settings["LOG_FILE"]).read_text().splitlines()
    assert [line.split(" ", 4)[4] for line in log if "cpsagent " in line] == [
        f"default-cpsagent listens on {ADDRESS}:{port}",
        "default-cpsagent ends",
    ]


def test_every_end_is_seen_whichever_thread_gets_the_signal(settings: dict[str, str], write: Callable):
    with running("-c", write(settings)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        threads = [int(task.name) for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir()]
        other = next(thread for thread in threads if thread != process.pid)
        _tell_thread(process.pid, other)
        process.communicate(timeout=30)
        assert process.returncode == 0


def _tell_thread(process: int, thread: int) -> None:
    """SIGTERM for one thread of another process (tgkill)."""
    import ctypes

    assert ctypes.CDLL(None, use_errno=True).syscall(234, process, thread, int(signal.SIGTERM)) == 0


def test_its_pages_are_for_those_who_may_call_it(settings: dict[str, str], write: Callable, authority: vm.Authority, port: int):
    def page(role: str, name: str) -> str:
        if not (authority.directory / role).exists():
            authority.credentials(role)
        place = authority.directory / role
        context = ssl.create_default_context(cafile=place / "ca_cert.pem")
        context.check_hostname = False
        context.load_cert_chain(place / "cert.pem", place / "key.pem")
        with urllib.request.urlopen(f"https://{ADDRESS}:{port}/{name}", context=context, timeout=10) as answer:
            return str(answer.read().decode())

    with running("-c", write(settings)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert page("manager", "health") == "ok\n"
        assert "process_resident_memory_bytes" in page("director", "metrics")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            page("user", "metrics")
