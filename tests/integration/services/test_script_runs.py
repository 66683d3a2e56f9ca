"""Runs of scripts as real process trees: nothing of a run hides, nothing of it is lost, and everything ends."""

from __future__ import annotations

import errno
import os
import pathlib
import pwd
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import conpaas
from conpaas.core import file, misc, processes
from conpaas.services.generic.agent import runs

ASK_AND_WAIT = "pid=$(cat pid); kill -USR1 $pid; while kill -0 $pid 2>/dev/null; do sleep 0.02; done"
SLEEP = "exec sleep 600"


class Scripts:
    """Starts bash texts as runs in a store of its own."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.store = runs.RunStore(directory / "runs")
        self._count = 0

    def start(self, text: str, *, script: str = "run", **changes: Any) -> runs.Run:
        run = self.record(text, script=script, **changes)
        self.store.launch(run)
        return run

    def record(self, text: str, *, script: str = "run", **changes: Any) -> runs.Run:
        self._count += 1
        values = {
            "id": f"{script}-{self._count}",
            "script": script,
            "argv": ("bash", "-c", text),
            "environment": {"PATH": os.environ["PATH"]},
            "directory": str(self.directory),
            "parameters": "",
            "activation": "first",
            "code_version": "code-default",
            "requested": time.time(),
            "time_limit": 0.0,
            "grace": 0.3,
            "output_limit": 10_000,
            "shared": {stream: str(self.directory / f"agent.{stream}") for stream in runs.STREAMS},
            "shared_limit": 100_000,
        }
        return self.store.record(runs.RunSpec(**{**values, **changes}))


@pytest.fixture
def scripts(tmp_path: pathlib.Path) -> Iterator[Scripts]:
    made = Scripts(tmp_path)
    yield made
    for run in made.store.alive():
        run.end("the test is over", at_once=True)
        assert run.wait(20)


def eventually(condition: Callable[[], Any], what: str) -> Any:
    return misc.wait_until(condition, timeout=20, what=what)


def output(run: runs.Run, stream: str = "stdout") -> str:
    return (run.directory / stream).read_text()


def test_the_end_of_a_script_is_told_with_code_output_and_times(scripts: Scripts) -> None:
    run = scripts.start("echo out; echo err >&2; exit 3")
    assert run.wait(20)
    told = run.describe()
    assert (told["status"], told["exit_code"], told["signal"]) == ("STOPPED (return code 3)", 3, None)
    assert told["requested"] <= told["started"] <= told["ended"] <= told["tree_ended"]
    assert (output(run), output(run, "stderr")) == ("out\n", "err\n")
    assert (scripts.directory / "agent.stdout").read_text() == "out\n"


def test_a_script_killed_by_a_signal_names_it(scripts: Scripts) -> None:
    run = scripts.start("kill -SEGV $$")
    assert run.wait(20)
    assert (run.status(), run.describe()["signal"]) == ("STOPPED (return code -11)", "SIGSEGV")


def test_daemonised_children_keep_a_run_running_until_it_is_ended(scripts: Scripts) -> None:
    run = scripts.start(
        f"(setsid bash -c '{SLEEP}' &) ; (({SLEEP}) &) ; nohup bash -c 'trap \"\" TERM HUP; sleep 600' >/dev/null 2>&1 & exit 0"
    )
    eventually(lambda: run.note("main"), "the end of the script")
    assert run.status() == "RUNNING"
    assert run.describe()["daemons"]
    eventually(lambda: len(run.processes()) >= 3, "three daemons")
    run.end("interrupt")
    assert run.wait(20)
    assert run.orphans() == set()
    assert (run.status(), run.describe()["ended_by"]) == ("STOPPED (return code 0)", "interrupt")


def test_daemons_of_init_outlive_its_status(scripts: Scripts) -> None:
    run = scripts.start(f"({SLEEP}) & exit 0", script="init", time_limit=1.0)
    eventually(lambda: run.note("main"), "the end of the script")
    assert (run.status(), run.alive, run.running) == ("STOPPED (return code 0)", True, False)
    assert not run.wait(1.5), "the time limit is the script's, not its daemons'"


def test_processes_that_ignore_term_are_killed_after_the_grace(scripts: Scripts) -> None:
    run = scripts.start("trap '' TERM; echo ready; while :; do sleep 600; done")
    eventually(lambda: run.output_size("stdout"), "the first line")
    run.end("interrupt")
    assert run.wait(20)
    assert run.status() == "STOPPED (return code -9)"


def test_term_comes_once_and_leaves_time_for_an_orderly_end(scripts: Scripts) -> None:
    run = scripts.start("trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done", grace=15.0)
    eventually(lambda: run.output_size("stdout"), "the first line")
    run.end("interrupt")
    assert run.wait(20)
    assert (output(run), run.return_code()) == ("ready\nbye\n", 7)


def test_a_stopped_process_is_ended_too(scripts: Scripts) -> None:
    run = scripts.start("kill -STOP $$; echo never")
    eventually(run.processes, "the script")
    run.end("interrupt", at_once=True)
    assert run.wait(20)
    assert output(run) == ""


def test_the_time_limit_ends_the_tree_and_says_so(scripts: Scripts) -> None:
    run = scripts.start(f"({SLEEP}) & {SLEEP}", time_limit=0.2)
    assert run.wait(20)
    assert run.describe()["ended_by"] == "time limit of 0.2 s"


def test_an_interrupt_ends_the_runs_it_names_after_its_script(scripts: Scripts) -> None:
    target = scripts.start("trap 'echo saved; exit 0' USR1; echo $$ > pid; while :; do sleep 0.05; done")
    other = scripts.start(SLEEP)
    eventually(lambda: (scripts.directory / "pid").exists() and (scripts.directory / "pid").read_text().strip(), "the pid")
    interrupt = scripts.start(ASK_AND_WAIT, script="interrupt", ends=(target.id,))
    assert interrupt.wait(20)
    assert target.wait(20)
    assert (output(target), target.return_code()) == ("saved\n", 0)
    assert other.running


def test_an_interrupt_script_that_hangs_does_not_save_what_it_should_end(scripts: Scripts) -> None:
    target = scripts.start(SLEEP)
    interrupt = scripts.start("trap '' TERM; sleep 600", script="interrupt", ends=(target.id,), time_limit=0.2)
    assert target.wait(20)
    assert interrupt.wait(20)


def test_a_run_goes_on_when_its_starter_is_killed(scripts: Scripts) -> None:
    run = scripts.record("echo begun; while [ ! -e go ]; do sleep 0.05; done; echo done; exit 5")
    program = "import sys, pathlib, time; from conpaas.services.generic.agent import runs; s = runs.RunStore(pathlib.Path(sys.argv[1])); "
    program += "s.launch(s.get(sys.argv[2])); print('launched', flush=True); time.sleep(600)"
    starter = subprocess.Popen([sys.executable, "-c", program, str(scripts.directory / "runs"), run.id], stdout=subprocess.PIPE)
    assert starter.stdout is not None
    assert starter.stdout.readline() == b"launched\n"
    starter.kill()
    starter.wait()
    starter.stdout.close()
    assert run.running
    (scripts.directory / "go").touch()
    assert run.wait(20)
    assert (output(run), run.return_code()) == ("begun\ndone\n", 5)


def test_what_outlives_a_killed_runner_is_found_and_ended(scripts: Scripts) -> None:
    run = scripts.start(f"(setsid bash -c 'trap \"\" TERM; sleep 600' &); {SLEEP}")
    eventually(lambda: len(run.processes()) >= 2, "two processes")
    os.kill(run.note("started")["pid"], signal.SIGKILL)
    eventually(lambda: not run._locked(), "the end of the runner")
    assert run.running
    run.end("interrupt")
    assert run.wait(20)
    assert run.orphans() == set()
    assert run.status() == "STOPPED (return code -9)"


def test_a_lost_run_without_processes_has_ended(scripts: Scripts) -> None:
    run = scripts.start(SLEEP)
    pid = run.note("started")["pid"]
    victims = {pid, *run.processes()}
    processes.send(victims, signal.SIGKILL)
    assert run.wait(20)
    assert run.describe()["error"] == runs.LOST


def test_launching_twice_starts_once(scripts: Scripts) -> None:
    run = scripts.start("echo once")
    scripts.store.launch(run)
    assert run.wait(20)
    scripts.store.launch(run)
    assert output(run) == "once\n"


def test_a_program_that_cannot_be_started_is_an_error_of_the_run(scripts: Scripts) -> None:
    run = scripts.start("", argv=("/nonexistent/program",))
    assert run.wait(20)
    assert run.return_code() == 127
    assert "cannot be started" in run.describe()["error"]


def test_output_beyond_the_limit_is_cut_with_a_note(scripts: Scripts) -> None:
    run = scripts.start("yes | head -c 50000", output_limit=1000)
    assert run.wait(20)
    assert run.output_size("stdout") < 1100
    assert "output cut" in output(run)


def test_the_shared_log_rotates_while_scripts_write(scripts: Scripts) -> None:
    run = scripts.start("for i in {1..400}; do printf '%0999d\\n' $i; done", shared_limit=50_000)
    assert run.wait(20)
    log = scripts.directory / "agent.stdout"
    assert log.stat().st_size <= 50_000 + 65_536
    assert log.with_name("agent.stdout.1").exists()
    assert not log.with_name("agent.stdout.4").exists()


def test_old_runs_are_forgotten_and_living_ones_kept(scripts: Scripts) -> None:
    scripts.store = runs.RunStore(scripts.directory / "runs", keep=3)
    living = scripts.start(SLEEP)
    for _ in range(6):
        assert scripts.start("true").wait(20)
    scripts.record("true")
    kept = scripts.store.all()
    assert kept[0].id == living.id
    assert len(kept) == 5


ORDINARY_USER = """
import os, pathlib, signal, sys, time
from conpaas.services.generic.agent import runs

home = pathlib.Path(sys.argv[1])
store = runs.RunStore(home / "runs")
TEXT = "(setsid bash -c 'trap : TERM; while :; do sleep 600; done' &); exec sleep 600"

def start(name):
    shared = {stream: str(home / stream) for stream in runs.STREAMS}
    spec = runs.RunSpec(id=name, script="run", argv=("bash", "-c", TEXT), environment={"PATH": "/usr/bin:/bin"}, directory=str(home),
        parameters="", activation="", code_version="", requested=time.time(), time_limit=0.0, grace=0.3, output_limit=1000,
        shared=shared, shared_limit=10000)
    run = store.record(spec)
    store.launch(run)
    assert runs.wait_until(lambda: len(run.processes()) >= 3, 20), run.processes()
    return run

for name, lose_the_runner in (("watched", False), ("lost", True)):
    run = start(name)
    if lose_the_runner:
        os.kill(run.note("started")["pid"], signal.SIGKILL)
        assert runs.wait_until(lambda: not run._locked(), 20)
    run.end("interrupt")
    assert run.wait(20)
    assert run.orphans() == set()
"""


def ordinary_python(user: int) -> str | None:
    """An interpreter that an ordinary user may execute."""
    for candidate in (sys.executable, "/usr/bin/python3"):
        try:
            words = [candidate, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
            if subprocess.run(words, user=user, capture_output=True, cwd="/", check=False).returncode == 0:
                return candidate
        except OSError:
            continue
    return None


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_everything_works_for_an_ordinary_user() -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    python = ordinary_python(nobody)
    if python is None:
        pytest.skip("no Python that an ordinary user may execute")
    home = pathlib.Path(tempfile.mkdtemp(prefix="conpaas-runs-"))
    os.chown(home, nobody, nobody)
    source = pathlib.Path(conpaas.__file__).parent.parent
    environment = {"PYTHONPATH": str(source), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        words = [python, "-c", ORDINARY_USER, str(home)]
        done = subprocess.run(words, user=nobody, group=nobody, env=environment, capture_output=True, text=True, cwd=home, check=False)
        assert done.returncode == 0, done.stderr
    finally:
        file.remove_tree(home)


FULL_DISK = """
import errno, sys
from conpaas.core import file

whole, left = file.write_atomically, {"main.json": 3, "end.json": 3}

def write(path, *arguments, **options):
    if left.get(path.name, 0):
        left[path.name] -= 1
        raise OSError(errno.ENOSPC, "No space left on device")
    return whole(path, *arguments, **options)

file.write_atomically = write
from conpaas.services.generic.agent import runner
runner.main(sys.argv[1:])
"""


def test_a_full_disk_loses_neither_the_end_of_a_script_nor_its_daemons(
    scripts: Scripts, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runner_on_a_full_disk.py").write_text(FULL_DISK)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(runs, "_RUNNER", "runner_on_a_full_disk")
    run = scripts.record("until [ -e go ]; do sleep 0.05; done && echo a daemon still says this & exit 3", script="init")
    scripts.store.launch(run)
    eventually(lambda: run.note("main"), "the end of the script")
    assert run.return_code() == 3
    (pathlib.Path(run.spec.directory) / "go").touch()
    assert run.wait(20)
    assert "a daemon still says this" in output(run)
    assert run.note("end")


def test_a_run_can_be_ended_where_nothing_can_be_written(scripts: Scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    run = scripts.start(SLEEP)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(file, "write_atomically", full)
        run.end("interrupt")
    assert run.wait(20)
