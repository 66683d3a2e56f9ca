"""Cron entries by their real daemon; whose minutes are made short."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from tests.support import backends

from conpaas.core import errors, misc
from conpaas.services.webservers import spec

# One "minute" of the daemon lasts a fifth of a second: every entry is due at every look at the clock.
HASTE = """
import datetime, pathlib, sys
from conpaas.services.webservers import schedules
from conpaas.services.webservers.agent import cron_daemon
schedules.following = lambda schedule, moment: moment + datetime.timedelta(seconds=0.2)
cron_daemon.Daemon(pathlib.Path(sys.argv[1])).run()
"""


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[backends.Node]:
    with backends.node("127.62.4.1") as made:
        module = made.root / "haste"
        module.mkdir()
        (module / "hasty_cron.py").write_text(HASTE)
        monkeypatch.setenv("PYTHONPATH", f"{module}:{os.environ.get('PYTHONPATH', '')}")
        monkeypatch.setattr("conpaas.services.webservers.agent.cron._MODULE", "hasty_cron")
        yield made


def entry(command: str) -> spec.CronEntry:
    return spec.CronEntry("* * * * *", command)


def said(node: backends.Node) -> str:
    return node.cron.log_files()["cron.log"].read_text() if node.cron.log_files() else ""


def test_commands_run_where_the_site_runs(node: backends.Node) -> None:
    node.stage("code-a", {"public/index.php": "", "public/job.sh": 'pwd; id -un; echo "$ODD"; echo wrong >&2; exit 3'})
    node.start(1, "code-a", document_root="public", environment={"ODD": "it's $HOME äö"})
    node.cron.set([entry("sh job.sh")])
    misc.wait_until(lambda: "ended with code 3" in said(node), timeout=20, what="the end of the command")
    lines = said(node).splitlines()
    user = node.user or os.environ.get("USER", "root")
    assert lines[1:5] == [str(node.code.directory / "code-a" / "public"), user, "it's $HOME äö", "wrong"]


def test_a_command_never_runs_twice_at_once_not_even_after_a_crash(node: backends.Node) -> None:
    node.stage("code-a", {"index.php": ""})
    node.start(1, "code-a")
    node.cron.set([entry("touch began; while [ ! -e go ]; do sleep 0.1; done; echo finished")])
    misc.wait_until(lambda: "is left out this time" in said(node), timeout=20, what="the second time")
    pid = node.supervisor.status("cron").pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    before = said(node).count("is left out this time")
    misc.wait_until(lambda: said(node).count("is left out this time") > before + 2, timeout=20, what="the new daemon")
    assert said(node).count("starts") == 1
    (node.code.directory / "code-a" / "go").touch()
    misc.wait_until(lambda: said(node).count("starts") > 1, timeout=20, what="the next time")


def test_a_command_that_takes_too_long_is_ended(node: backends.Node) -> None:
    node.stage("code-a", {"index.php": ""})
    node.start(1, "code-a")
    node.cron._time_limit = 1
    node.cron.set([entry("sleep 98712")])
    misc.wait_until(lambda: "was ended by SIGTERM" in said(node), timeout=20, what="the end")
    node.cron.set([])
    assert "took longer than 1 s" in said(node)


def test_a_command_that_says_too_much_is_cut(node: backends.Node) -> None:
    node.stage("code-a", {"index.php": ""})
    node.start(1, "code-a")
    node.cron.set([entry("head -c 3000000 /dev/zero | tr '\\0' 'x'; echo end")])
    misc.wait_until(lambda: "ended with code 0" in said(node), timeout=20, what="the end")
    node.cron.set([])
    runs = said(node).count("starts")
    assert len(said(node)) < runs * 1_100_000


def test_without_entries_there_is_no_daemon_and_its_commands_end(node: backends.Node) -> None:
    node.stage("code-a", {"index.php": ""})
    node.start(1, "code-a")
    node.cron.set([entry("echo $$ >pid; sleep 98713")])
    path = node.code.directory / "code-a" / "pid"
    misc.wait_until(lambda: path.exists() and path.read_text(), timeout=20, what="the command")
    node.restarted().cron.resume()
    assert node.supervisor.status("cron").running
    node.restarted().cron.set([])
    assert "cron" not in node.supervisor.list()
    with pytest.raises(ProcessLookupError):
        os.kill(int(path.read_text()), 0)


def test_entries_are_replaced_and_wrong_ones_refused(node: backends.Node) -> None:
    node.stage("code-a", {"index.php": ""})
    node.start(1, "code-a")
    node.cron.set([entry("echo one")])
    misc.wait_until(lambda: "\none\n" in said(node), timeout=20, what="the first")
    node.cron.set([entry("echo two")])
    misc.wait_until(lambda: "\ntwo\n" in said(node), timeout=20, what="the second")
    with pytest.raises(errors.InvalidArgument, match="schedule"):
        node.cron.set([spec.CronEntry("61 * * * *", "true")])
