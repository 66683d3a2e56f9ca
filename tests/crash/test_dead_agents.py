"""Agents, real ones, killed with SIGKILL at every step of every kind of operation on every type of service.

Kinds and steps are read from the code. In each test one operation is begun; before and after each of its steps the manager is held while
the agents of all nodes of the service die, and goes on while they are away. The operation must end as if nothing had happened: done, its
nodes the same ones, what users run on them untouched.
"""

from __future__ import annotations

import contextlib
import threading

import pytest

from conpaas.core import faults
from tests.crash import agents, drives
from tests.support import consistency
from tests.support import platform as platforms

CASES = [case for case in drives.driven() if case.drive is None or case.drive.nodes]


@pytest.fixture(scope="module")
def aid(platform: platforms.Platform) -> str:
    return next(str(one["aid"]) for one in platform.data("application", "list") if one["name"] == drives.APP)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agents_that_die_at_every_step(platform: platforms.Platform, aid: str, case: drives.Case) -> None:
    drive = case.drive
    assert drive is not None, f"nobody knows how to begin {case}; tests/crash/drives.py wants an entry"
    stage = drives.Stage(platform, case.type)
    begin = drive.prepare(stage)
    points = platform.arm("manager", case.kind.name, case.steps, case.deaths(faults.BEFORE, faults.AFTER), hold=True)
    beginner = threading.Thread(target=begin)  # some commands wait for the operation
    deaths = 0
    try:
        with stage.users.meanwhile(stage) if drive.unnoticed else contextlib.nullcontext():
            beginner.start()
            for _ in range(points):
                reached = f"the manager gets everywhere in {case}, not to {platform.armed('manager')}"
                platforms.until(lambda: platform.held("manager"), reached)
                deaths += agents.kill_all(platform, aid, stage.sid)
                platform.release("manager")
            stage.ends_in(drive.final)
    finally:
        platform.disarm("manager")
        beginner.join()
    assert deaths > 0
    if drive.final != drives.GONE:
        done = stage.operations()
        assert {op["status"] for op in done} == {"DONE"}, done
        assert [op["kind"] for op in done].count("replace_node") == (case.kind.name == "replace_node")
    stage.settle(drive.final)
    assert consistency.complaints(platform) == []
