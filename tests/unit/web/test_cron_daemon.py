"""The daemon of cron entries, where its node is not well."""

from __future__ import annotations

import pathlib

import pytest

from conpaas.core import file, misc
from conpaas.services.webservers import spec
from conpaas.services.webservers.agent import cron, cron_daemon, releases

FULL = pathlib.Path("/dev/full")


@pytest.fixture
def daemon(tmp_path: pathlib.Path) -> cron_daemon.Daemon:
    """One whose log is on a full disk, and that has code to run commands in."""
    notes = file.Notes(tmp_path / "notes.json")
    releases.Records(notes).put(releases.Instance("php.1", 1, "code-a", spec.BackendSettings(), 9000, releases.State.RUNNING))
    (tmp_path / "code-a").mkdir()
    plan = cron.Plan(entries=(), user=None, notes=str(tmp_path / "notes.json"), code=str(tmp_path), log=str(FULL), time_limit=60)
    plan.write(tmp_path / "plan.json")
    return cron_daemon.Daemon(tmp_path)


def test_commands_go_on_when_nothing_can_be_written_down(daemon: cron_daemon.Daemon, tmp_path: pathlib.Path) -> None:
    done = tmp_path / "code-a" / "done"
    daemon.start(spec.CronEntry("* * * * *", "head -c 3000000 /dev/zero; touch done"))
    misc.wait_until(done.exists, timeout=20, what="the end of a command that says much")
    misc.wait_until(lambda: not daemon.busy, timeout=20, what="the end of the command to be seen")
