"""Daemons under a real runit."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import pathlib
import signal
import socket
import sys

import pytest

from conpaas.core import errors, supervisor

from . import conftest

ADDRESS = "127.13.0.1"

# Listens, has a child that keeps the socket, and says on which signal it ended.
SERVER = """
import os, signal, socket, sys, time
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pause()
def end(number, frame):
    print("ended by", signal.Signals(number).name, flush=True)
    os._exit(0)
for number in (signal.SIGTERM, signal.SIGQUIT):
    signal.signal(number, end)
signal.signal(signal.SIGHUP, lambda *_: print("reloaded", flush=True))
print("serves", flush=True)
while True:
    signal.pause()
"""


def sleeper(name: str = "sleeper", **changes: object) -> supervisor.Daemon:
    return supervisor.Daemon(**{"name": name, "argv": ("sleep", "86397"), "stop_timeout": 5.0, **changes})  # type: ignore[arg-type]


def server(port: int, **changes: object) -> supervisor.Daemon:
    return sleeper("server", argv=(sys.executable, "-S", "-c", SERVER, ADDRESS, str(port)), **changes)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((ADDRESS, port), timeout=1):
        return True
    return False


def free_port() -> int:
    with socket.create_server((ADDRESS, 0)) as probe:
        return int(probe.getsockname()[1])


def output(tmp_path: pathlib.Path, name: str) -> str:
    path = tmp_path / "log" / name / "current"
    return path.read_text() if path.exists() else ""


def alive(pid: int | None) -> bool:
    if pid is None:
        return False
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_daemon_runs_and_says_where_it_is(watcher: supervisor.Supervisor):
    assert watcher.status("sleeper").state is supervisor.DaemonState.ABSENT
    watcher.ensure(sleeper())
    status = watcher.status("sleeper")
    assert status.running
    assert alive(status.pid)
    assert 0 <= status.seconds < 5, "seconds count from the start"
    assert watcher.list() == ["sleeper"]


def test_asking_again_changes_nothing(watcher: supervisor.Supervisor):
    watcher.ensure(sleeper())
    before = watcher.status("sleeper").pid
    watcher.ensure(sleeper())
    assert watcher.status("sleeper").pid == before


def test_a_changed_definition_takes_effect_and_the_old_process_is_gone(watcher: supervisor.Supervisor, tmp_path: pathlib.Path):
    watcher.ensure(sleeper())
    before = watcher.status("sleeper").pid
    watcher.ensure(sleeper(argv=("sh", "-c", "echo $COLOUR; exec sleep 86396"), env={"COLOUR": "it's $HOME `red` \\ \n"}))
    assert not alive(before)
    conftest.until(lambda: "it's $HOME `red` \\" in output(tmp_path, "sleeper"), "the value arrives as it is")
    watcher.ensure(sleeper(log=tmp_path / "elsewhere"))
    assert watcher.status("sleeper").running
    conftest.until((tmp_path / "elsewhere" / "current").exists, "the new place has the log")


def test_arguments_are_words_never_shell(watcher: supervisor.Supervisor, tmp_path: pathlib.Path):
    hostile = f"$(touch {tmp_path}/owned); `touch {tmp_path}/owned` 'x' \"y\" \n &"
    watcher.ensure(sleeper(argv=(sys.executable, "-c", "import sys,signal; print(repr(sys.argv[1]), flush=True); signal.pause()", hostile)))
    conftest.until(lambda: repr(hostile) in output(tmp_path, "sleeper"), "the argument arrives as it is")
    assert not (tmp_path / "owned").exists()


def test_a_killed_daemon_comes_back_although_its_children_held_the_port(watcher: supervisor.Supervisor, tmp_path: pathlib.Path):
    port = free_port()
    watcher.ensure(server(port))
    conftest.until(lambda: "serves" in output(tmp_path, "server"), "the server answers, and minds signals")
    before = watcher.status("server").pid
    assert before
    conftest.until(lambda: watcher.status("server").seconds > 1, "it has run for a second, after which runit restarts at once")
    os.kill(before, signal.SIGKILL)
    after = conftest.until(lambda: (status := watcher.status("server")).running and status.pid != before and status.pid, "it is back")
    conftest.until(lambda: answers(port), "and answers")
    conftest.until(lambda: output(tmp_path, "server").count("serves") == 2, "the first new process got the port")
    assert watcher.status("server").pid == after


def test_stopping_ends_every_process_and_lasts(watcher: supervisor.Supervisor, services: pathlib.Path, tmp_path: pathlib.Path):
    port = free_port()
    watcher.ensure(server(port))
    conftest.until(lambda: "serves" in output(tmp_path, "server"), "the server answers, and minds signals")
    watcher.stop("server")
    assert watcher.status("server").state is supervisor.DaemonState.DOWN
    assert not answers(port)
    assert (services / "server" / "down").exists(), "it stays down when the VM boots again"
    conftest.until(lambda: "ended by SIGTERM" in output(tmp_path, "server"), "it was asked before it was killed")
    watcher.stop("server")
    watcher.ensure(server(port))
    conftest.until(lambda: answers(port), "the server answers again")
    assert not (services / "server" / "down").exists()


def test_a_daemon_may_want_another_signal_to_stop(watcher: supervisor.Supervisor, tmp_path: pathlib.Path):
    port = free_port()
    watcher.ensure(server(port, stop_signal="QUIT"))
    conftest.until(lambda: "serves" in output(tmp_path, "server"), "the server answers, and minds signals")
    watcher.stop("server")
    conftest.until(lambda: "ended by SIGQUIT" in output(tmp_path, "server"), "it got the signal it wants")
    assert "SIGTERM" not in output(tmp_path, "server")
    watcher.stop("server")
    assert watcher.status("server").pid is None, "stopping a stopped one starts nothing"


def test_a_deaf_daemon_and_children_in_groups_of_their_own_are_killed(watcher: supervisor.Supervisor, tmp_path: pathlib.Path):
    script = f"trap '' TERM; set -m; sleep 86395 & echo $! >{tmp_path}/child; touch {tmp_path}/ready; while :; do wait; done"
    watcher.ensure(sleeper(argv=("bash", "-c", script), stop_timeout=0.1))
    conftest.until((tmp_path / "ready").exists, "it runs")
    child = int((tmp_path / "child").read_text())
    pid = watcher.status("sleeper").pid
    watcher.stop("sleeper")
    assert not alive(pid)
    conftest.until(lambda: not alive(child), "its child is gone")


def test_removing_forgets_the_daemon_and_its_supervisor(watcher: supervisor.Supervisor, services: pathlib.Path):
    watcher.ensure(sleeper())
    watcher.remove("sleeper")
    assert watcher.list() == []
    assert watcher.status("sleeper").state is supervisor.DaemonState.ABSENT
    conftest.until(lambda: not conftest.runsvs(services), "runsv has ended")
    assert [path.name for path in services.iterdir()] == [".runsvdir.pid"]
    watcher.remove("sleeper")
    watcher.ensure(sleeper())
    assert watcher.status("sleeper").running


def test_restart_and_signals(watcher: supervisor.Supervisor, tmp_path: pathlib.Path):
    port = free_port()
    watcher.ensure(server(port))
    conftest.until(lambda: "serves" in output(tmp_path, "server"), "the server answers, and minds signals")
    before = watcher.status("server").pid
    watcher.signal("server", "HUP")
    conftest.until(lambda: "reloaded" in output(tmp_path, "server"), "the signal arrives")
    assert watcher.status("server").pid == before
    watcher.restart("server")
    assert watcher.status("server").pid not in (None, before)
    conftest.until(lambda: answers(port), "the server answers again")
    watcher.stop("server")
    with pytest.raises(errors.NotFound, match="does not run"):
        watcher.signal("server", "HUP")
    with pytest.raises(errors.NotFound, match="no daemon"):
        watcher.restart("nobody")


def test_a_daemon_that_ends_at_once_is_told_with_its_words(watcher: supervisor.Supervisor):
    broken = sleeper("broken", argv=("sh", "-c", "echo 'port 80 is taken' >&2; exit 3"))
    with pytest.raises(errors.OperationFailed, match="ends as soon as it is started"):
        watcher.ensure(broken)

    def told() -> bool:
        """Asked in the instant in which it runs, there is nothing to tell."""
        try:
            watcher.ensure(broken)
        except errors.OperationFailed as error:
            return "port 80 is taken" in str(error)
        return False

    conftest.until(told, "the daemon's own words are in the error")
    watcher.ensure(sleeper("broken"))
    assert watcher.status("broken").running


def test_supervision_of_an_agent_and_a_daemon_costs_little_memory(watcher: supervisor.Supervisor, services: pathlib.Path):
    for name in ("agent", "daemon"):
        watcher.ensure(sleeper(name))
    runit = [services.parent, services]
    used = {}
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, StopIteration):
            words = (process / "cmdline").read_bytes().split(b"\0")
            ours = any((process / "cwd").readlink().is_relative_to(place) for place in runit) or os.fsencode(services) in words
            if ours and words[0] in (b"runsvdir", b"runsv", b"svlogd"):
                lines = (process / "status").read_text().splitlines()
                used[process.name] = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    assert len(used) == 5, "runsvdir, and runsv and svlogd of each"
    assert sum(used.values()) < 9_000, "kB; 6,900 when this was written"


def test_many_threads_may_ask_at_once(watcher: supervisor.Supervisor):
    daemons = [sleeper(f"s{number % 3}") for number in range(9)]
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        list(pool.map(watcher.ensure, daemons))
    assert watcher.list() == ["s0", "s1", "s2"]
    assert all(watcher.status(name).running for name in watcher.list())


def test_restarting_what_another_thread_is_removing_is_refused_at_once(watcher: supervisor.Supervisor, services: pathlib.Path):
    watcher.ensure(sleeper(argv=("sh", "-c", "trap '' TERM; echo deaf; exec sleep 86397"), stop_timeout=0.5))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        removal = pool.submit(watcher.remove, "sleeper")
        conftest.until(lambda: (services / "sleeper" / "down").exists() or removal.done(), "the removal is under way")
        with pytest.raises(errors.NotFound):
            watcher.restart("sleeper")
        removal.result()


def test_what_a_crash_left_half_built_is_ignored_and_cleared(watcher: supervisor.Supervisor, services: pathlib.Path):
    (services / ".new-sleeper.abc" / "service").mkdir(parents=True)
    watcher.ensure(sleeper())
    (services / "sleeper" / "run").write_text("")
    watcher.ensure(sleeper())
    assert watcher.status("sleeper").running
    assert "sleep" in (services / "sleeper" / "run").read_text()
    assert sorted(path.name for path in services.iterdir()) == [".runsvdir.pid", "sleeper"]


def test_daemons_outlive_the_supervisor_object_and_are_found_again(
    watcher: supervisor.Supervisor, services: pathlib.Path, tmp_path: pathlib.Path
):
    watcher.ensure(sleeper())
    pid = watcher.status("sleeper").pid
    again = supervisor.Supervisor(services, tmp_path / "log")
    again.ensure(sleeper())
    assert again.status("sleeper").pid == pid


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\nb", "-x", "x" * 65])
def test_a_name_cannot_lead_elsewhere(tmp_path: pathlib.Path, name: str):
    with pytest.raises(errors.InvalidArgument):
        supervisor.Supervisor(tmp_path, tmp_path).ensure(sleeper(name))


@pytest.mark.parametrize("variable", ["", "A B", "A=1; rm", "1A", "A\n"])
def test_a_variable_name_cannot_be_shell(tmp_path: pathlib.Path, variable: str):
    with pytest.raises(errors.InvalidArgument):
        supervisor.Supervisor(tmp_path, tmp_path).ensure(sleeper(env={variable: "x"}))


def test_without_runsvdir_a_daemon_can_be_stopped_and_removed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(supervisor, "START_TIMEOUT", 0.05)
    (tmp_path / "service").mkdir()
    watcher = supervisor.Supervisor(tmp_path / "service", tmp_path / "log")
    with pytest.raises(errors.OperationFailed, match="The start of the daemon 'sleeper' did not happen"):
        watcher.ensure(sleeper())
    watcher.stop("sleeper")
    watcher.remove("sleeper")
    assert watcher.list() == []


def reserved(tmp_path: pathlib.Path) -> dict[int, pathlib.Path]:
    """The reserved places that a runsv watches, by the ids of those."""
    found = {}
    for place in (tmp_path / "service").glob("reserved-*"):
        with contextlib.suppress(OSError):
            if (place / "log" / "supervise" / "status").exists():
                found[place.stat().st_ino] = place
    return found


def test_a_daemon_starts_in_a_reserved_place(watcher: supervisor.Supervisor, tmp_path: pathlib.Path):
    watcher.reserve(2)
    conftest.until(lambda: len(reserved(tmp_path)) == 2, "two places are watched")
    before = reserved(tmp_path)
    assert watcher.list() == [], "a place is no daemon"
    watcher.ensure(sleeper(argv=("sh", "-c", "echo here; exec sleep 86395")))
    assert watcher.status("sleeper").running
    assert (tmp_path / "service" / "sleeper").stat().st_ino in before, "runsvdir had nothing to find first"
    conftest.until(lambda: "here" in output(tmp_path, "sleeper"), "its log is written")
    conftest.until(lambda: len(reserved(tmp_path)) == 2, "the place is replaced")
    pid = watcher.status("sleeper").pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    conftest.until(lambda: watcher.status("sleeper").pid not in (None, pid), "it is started again when it dies")
    watcher.remove("sleeper")
    assert watcher.status("sleeper").state is supervisor.DaemonState.ABSENT


def test_a_place_that_a_crash_left_half_filled_is_used_all_the_same(watcher: supervisor.Supervisor, tmp_path: pathlib.Path):
    watcher.reserve(1)
    conftest.until(lambda: reserved(tmp_path), "the place is watched")
    (place,) = reserved(tmp_path).values()
    (place / "run").write_text("#!/bin/sh\nexit 7\n")
    watcher.ensure(sleeper())
    assert watcher.status("sleeper").running
    watcher.reserve(0)
