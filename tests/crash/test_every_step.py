"""Managers and Directors, real ones, killed with SIGKILL at every step of every kind of operation.

Kinds and steps are read from the code. In each test one operation is begun, and the process that carries it out dies before and after
each of its steps, one death after the other; then the operation must have ended as if nothing had happened. That a single death at any
point, with failures and undoing, ends well too is tested in memory (tests/unit), where there is time for all combinations.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Callable

import pytest

from conpaas.core import data_urls, faults
from conpaas.director.lifecycle import component
from conpaas.services.generic.manager import default_code
from tests.crash import drives
from tests.support import consistency
from tests.support import platform as platforms

DEATHS = (faults.BEFORE, faults.AFTER)
STABLE = {"INIT", "RUNNING", "STOPPED", "ERROR"}


def test_every_kind_of_operation_is_tested_here() -> None:
    assert drives.missing() == []
    assert set(component.KINDS) == set(DIRECTOR_KINDS)


@pytest.mark.parametrize("case", drives.with_managers(), ids=str)
def test_a_manager_that_dies_at_every_step(platform: platforms.Platform, case: drives.Case) -> None:
    drive = case.drive
    assert drive is not None
    stage = drives.Stage(platform, case.type)
    begin = drive.prepare(stage)
    with stage.users.meanwhile(stage) if drive.unnoticed else contextlib.nullcontext():
        platform.arm("manager", case.kind.name, case.steps, case.deaths(faults.AFTER, faults.BEFORE))
        begin()
        platforms.until(lambda: not platform.armed("manager"), f"the manager dies everywhere in {case}, not at {platform.armed('manager')}")
        stage.ends_in(drive.final)
    stage.settle(drive.final)


# The Director


def _begin(platform: platforms.Platform, *words: str | pathlib.Path) -> None:
    """Ask for something; the Director, who should answer, may die of it. What counts is how the operation ends."""
    platform.cps("--no-wait", "--yes", *words, check=False)


def _application(platform: platforms.Platform, name: str, *, start: bool) -> str:
    platform.cps("application", "create", name)
    if start:
        platform.cps("application", "start", name)
    return name


def _start_application(platform: platforms.Platform) -> tuple[Callable[[], None], Callable[[], bool]]:
    name = _application(platform, "starts", start=False)
    return (
        lambda: _begin(platform, "application", "start", name),
        lambda: consistency.application_status(platform, name) == "RUNNING",
    )


def _stop_application(platform: platforms.Platform) -> tuple[Callable[[], None], Callable[[], bool]]:
    name = _application(platform, "stops", start=True)
    return (
        lambda: _begin(platform, "application", "stop", name),
        lambda: consistency.application_status(platform, name) == "STOPPED",
    )


def _delete_application(platform: platforms.Platform) -> tuple[Callable[[], None], Callable[[], bool]]:
    name = _application(platform, "goes", start=True)
    return (
        lambda: _begin(platform, "application", "delete", name),
        lambda: consistency.application_status(platform, name) == "ABSENT",
    )


def _deploy_manifest(platform: platforms.Platform) -> tuple[Callable[[], None], Callable[[], bool]]:
    code = platform.directory / "code.tar"
    default_code.build(code)
    greeter = {"Type": "helloworld", "Start": 1, "StartupInstances": {"node": 2}, "StartupScript": "data:,true"}
    archive = data_urls.encode("code.tar", code.read_bytes())
    worker = {"Type": "generic", "ServiceName": "worker", "Start": 1, "Archive": archive}
    shop = {"Type": "php", "Start": 1, "Archive": archive, "WebSettings": {"drainTime": 7}}
    path = platform.directory / "app.mnf"
    path.write_text(json.dumps({"Application": "deployed", "Services": [greeter, worker, shop]}))

    def ended() -> bool:
        if consistency.application_status(platform, "deployed") not in STABLE:
            return False
        made = platform.data("application", "download_manifest", "deployed")["Services"]
        assert [one["StartupInstances"] for one in made] == [{"node": 2}, {"master": 1}, {"proxy": 1}]
        assert made[1]["ServiceName"] == "worker"
        assert [data_urls.decode(one["Archive"])[1] for one in made[1:]] == [code.read_bytes()] * 2
        assert made[2]["WebSettings"] == {"drainTime": 7}
        return True

    return lambda: _begin(platform, "application", "manifest", path), ended


def _by_service(kind: str) -> Callable[[platforms.Platform], tuple[Callable[[], None], Callable[[], bool]]]:
    """A kind of the Director's that a manager's operation leads to."""

    def prepare(platform: platforms.Platform) -> tuple[Callable[[], None], Callable[[], bool]]:
        drive = drives.of_kind(kind)
        stage = drives.Stage(platform)
        return drive.prepare(stage), lambda: stage.state() == drive.final

    return prepare


DIRECTOR_KINDS = {
    "start_application": _start_application,
    "stop_application": _stop_application,
    "delete_application": _delete_application,
    "deploy_manifest": _deploy_manifest,
    "create_nodes": _by_service("add_nodes"),
    "remove_nodes": _by_service("remove_nodes"),
    "remove_service": _by_service("remove_service"),
    "create_volume": _by_service("create_volume"),
    "attach_volume": _by_service("create_volume"),
    "detach_volume": _by_service("delete_volume"),
    "destroy_volume": _by_service("delete_volume"),
}


@pytest.mark.parametrize("kind", DIRECTOR_KINDS)
def test_a_director_that_dies_at_every_step(platform: platforms.Platform, kind: str) -> None:
    begin, ended = DIRECTOR_KINDS[kind](platform)
    with platform.revived():
        platform.arm("director", kind, [step.name for step in component.KINDS[kind].steps], DEATHS)
        begin()
        dies = f"the Director dies everywhere in {kind}, not at {platform.armed('director')}"
        platforms.until(lambda: not platform.armed("director"), dies)
        platforms.until(platform.answers, "the Director answers again")
        platforms.until(ended, f"{kind} ends")
    consistency.assert_consistent(platform)


def test_a_director_that_is_away_while_a_site_gets_and_loses_a_domain(platform: platforms.Platform) -> None:
    """Names are held at the Director: by the call and by a step of `configure`, and given back when that is over."""
    stage = drives.Stage(platform, drives.RICH).started()
    name = f"crash{stage.sid}.example.org"

    def held() -> list[str]:
        return [str(one["name"]) for one in platform.run("cpsdirector", "domain", "list", "--json").json]

    def change(verb: str, step: str) -> None:
        platform.arm("manager", "configure", [step], (faults.BEFORE,), hold=True)
        stage.begin_of_type("domains", stage.sid, verb, name)
        platforms.until(lambda: platform.held("manager"), f"the manager gets to {step}")
        platform.kill_director()
        with platform.revived():
            platform.release("manager")
            platforms.until(platform.answers, "the Director answers again")
            stage.ends_in("RUNNING")

    with stage.users.meanwhile(stage):
        change("add", "claim")
        assert [one["domain"] for one in stage.data("domains")] == [name]
        assert held() == [name]
        change("remove", "select")
        platforms.until(lambda: held() == [], "the name is given back")
    stage.settle("RUNNING")
