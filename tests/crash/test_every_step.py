"""Managers and Directors, real ones, killed with SIGKILL at every step of every kind of operation.

Kinds and steps are read from the code. In each test one operation is begun, and the process that carries it out dies before and after
each of its steps, one death after the other; then the operation must have ended as if nothing had happened. That a single death at any
point, with failures and undoing, ends well too is tested in memory (tests/unit), where there is time for all combinations.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conpaas.core import data_urls, faults, lifecycle, services, volumes
from conpaas.director.lifecycle import component
from conpaas.services.generic.manager import default_code
from tests.support import consistency
from tests.support import platform as platforms

APP = "demo"
DEATHS = (faults.BEFORE, faults.AFTER)
STABLE = {"INIT", "RUNNING", "STOPPED", "ERROR"}

pytestmark = pytest.mark.usefixtures("platform")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[platforms.Platform]:
    directory = tmp_path_factory.mktemp("crash")
    with platforms.platform(directory, 71, manager={"HEALTH_INTERVAL": "1", "NODE_LOST_AFTER": "4"}) as made:
        made.cps("application", "create", APP)
        made.cps("application", "start", APP)
        yield made


@dataclasses.dataclass
class Stage:
    """A service made for one test, and what a test does to it."""

    platform: platforms.Platform
    sid: str = ""

    def add(self, kind: str = "generic") -> Stage:
        before = self.sids()
        self.platform.cps(kind, "add", APP)
        self.sid = str(next(iter(self.sids() - before)))
        return self

    def started(self, kind: str = "generic", nodes: int = 1) -> Stage:
        self.add(kind).cps("start")
        if nodes > 1:
            self.cps("add_nodes", "--count", str(nodes - 1))
        return self

    def cps(self, verb: str, *words: str, check: bool = True) -> platforms.Result:
        return self.platform.cps("service", verb, APP, self.sid, *words, check=check)

    def begin(self, verb: str, *words: str) -> None:
        """Ask for something; the one who should answer may die of it."""
        self.platform.cps("--no-wait", "--yes", "--timeout", "60", "service", verb, APP, self.sid, *words, check=False)

    def sids(self) -> set[int]:
        return {service["sid"] for service in self.platform.data("service", "list", "-a", APP)}

    def state(self) -> str:
        listed = {str(one["sid"]): one["status"] for one in self.platform.data("service", "list", "-a", APP)}
        return str(listed.get(self.sid, "GONE"))

    def nodes(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self.platform.data("service", "list_nodes", APP, self.sid)
        return listed


# What each kind needs, how it is begun, and the state it must end in.


def _start(stage: Stage) -> Callable[[], None]:
    stage.add()
    return lambda: stage.begin("start")


def _stop(stage: Stage) -> Callable[[], None]:
    stage.started(nodes=2)
    return lambda: stage.begin("stop")


def _add(stage: Stage) -> Callable[[], None]:
    stage.started()
    return lambda: stage.begin("add_nodes", "--count", "2")


def _remove(stage: Stage) -> Callable[[], None]:
    stage.started(nodes=3)
    return lambda: stage.begin("remove_nodes", "--count", "1")


def _replace(stage: Stage) -> Callable[[], None]:
    stage.started(nodes=2)
    victim = stage.nodes()[-1]
    return lambda: consistency.kill_vm(stage.platform, victim["ip"])


def _delete(stage: Stage) -> Callable[[], None]:
    stage.started()
    return lambda: stage.begin("remove")


def _create(stage: Stage) -> Callable[[], None]:
    return lambda: _add_service(stage)


def _add_service(stage: Stage) -> None:
    before = stage.sids()
    stage.platform.cps("generic", "add", APP, check=False)
    platforms.until(lambda: stage.sids() - before, "the Director learns of the new service")
    stage.sid = str(max(stage.sids() - before))


def _create_volume(stage: Stage) -> Callable[[], None]:
    agent = stage.started().nodes()[0]["agent_id"]
    words = ("--no-wait", "generic", "create_volume", APP, f"v{stage.sid}", "8", agent)
    return lambda: _ignore(stage.platform.cps(*words, check=False))


def _delete_volume(stage: Stage) -> Callable[[], None]:
    agent = stage.started().nodes()[0]["agent_id"]
    stage.platform.cps("generic", "create_volume", APP, f"v{stage.sid}", "8", agent)
    words = ("--no-wait", "--yes", "generic", "delete_volume", APP, f"v{stage.sid}")
    return lambda: _ignore(stage.platform.cps(*words, check=False))


def _enable_code(stage: Stage) -> Callable[[], None]:
    stage.started(nodes=2)
    words = ("--no-wait", "generic", "enable_code", APP, stage.sid, "code-default")
    return lambda: _ignore(stage.platform.cps(*words, check=False))


def _run_script(stage: Stage) -> Callable[[], None]:
    stage.started(nodes=2)
    return lambda: _ignore(stage.platform.cps("--no-wait", "generic", "run", APP, stage.sid, check=False))


def _set_string(stage: Stage) -> Callable[[], None]:
    stage.started("helloworld", nodes=2)
    return lambda: _ignore(stage.platform.cps("--no-wait", "helloworld", "set_string", APP, stage.sid, "moin", check=False))


def _ignore(_result: platforms.Result) -> None:
    """A command whose server dies may fail; what counts is how the operation ends."""


MANAGER_KINDS = {
    "start_service": (_start, "RUNNING"),
    "stop_service": (_stop, "STOPPED"),
    "add_nodes": (_add, "RUNNING"),
    "remove_nodes": (_remove, "RUNNING"),
    "replace_node": (_replace, "RUNNING"),
    "remove_service": (_delete, "GONE"),
    "add_service": (_create, "INIT"),
    "create_volume": (_create_volume, "RUNNING"),
    "delete_volume": (_delete_volume, "RUNNING"),
    "enable_code": (_enable_code, "RUNNING"),
    "execute_script": (_run_script, "RUNNING"),
    "set_string": (_set_string, "RUNNING"),
}
# Begins in ERROR only, where nothing leads on purpose on a healthy platform.
IN_MEMORY_ONLY = {"recover_service"}


def manager_kinds() -> dict[str, list[str]]:
    """Every kind of operation of a manager, with its steps."""
    kinds = [*lifecycle.KINDS, volumes.CREATE, volumes.DELETE]
    for name in ("generic", "helloworld"):
        kinds += services.registry.get(name).load_manager().operations
    return {kind.name: [step.name for step in kind.steps] for kind in kinds}


def test_every_kind_of_operation_is_tested_here() -> None:
    assert set(manager_kinds()) == set(MANAGER_KINDS) | IN_MEMORY_ONLY
    assert set(component.KINDS) == set(DIRECTOR_KINDS)


@pytest.mark.parametrize("kind", MANAGER_KINDS)
def test_a_manager_that_dies_at_every_step(platform: platforms.Platform, kind: str) -> None:
    prepare, final = MANAGER_KINDS[kind]
    stage = Stage(platform)
    begin = prepare(stage)
    platform.arm("manager", kind, manager_kinds()[kind], DEATHS)
    begin()
    platforms.until(lambda: not platform.armed("manager"), f"the manager dies everywhere in {kind}, not at {platform.armed('manager')}")
    platforms.until(lambda: stage.state() == final, f"{kind} ends in {final}, not in {stage.state()}")
    consistency.assert_consistent(platform)
    if final not in ("GONE", "INIT"):
        platform.cps("--yes", "service", "remove", APP, stage.sid)


# The Director


def _application(platform: platforms.Platform, name: str, *, start: bool) -> str:
    platform.cps("application", "create", name)
    if start:
        platform.cps("application", "start", name)
    return name


def _start_application(platform: platforms.Platform) -> tuple[Callable[[], None], Callable[[], bool]]:
    name = _application(platform, "starts", start=False)
    return (
        lambda: _ignore(platform.cps("--no-wait", "application", "start", name, check=False)),
        lambda: consistency.application_status(platform, name) == "RUNNING",
    )


def _stop_application(platform: platforms.Platform) -> tuple[Callable[[], None], Callable[[], bool]]:
    name = _application(platform, "stops", start=True)
    return (
        lambda: _ignore(platform.cps("--no-wait", "--yes", "application", "stop", name, check=False)),
        lambda: consistency.application_status(platform, name) == "STOPPED",
    )


def _delete_application(platform: platforms.Platform) -> tuple[Callable[[], None], Callable[[], bool]]:
    name = _application(platform, "goes", start=True)
    return (
        lambda: _ignore(platform.cps("--no-wait", "--yes", "application", "delete", name, check=False)),
        lambda: consistency.application_status(platform, name) == "ABSENT",
    )


def _deploy_manifest(platform: platforms.Platform) -> tuple[Callable[[], None], Callable[[], bool]]:
    code = platform.directory / "code.tar"
    default_code.build(code)
    greeter = {"Type": "helloworld", "Start": 1, "StartupInstances": {"node": 2}, "StartupScript": "data:,true"}
    worker = {"Type": "generic", "ServiceName": "worker", "Start": 1, "Archive": data_urls.encode("code.tar", code.read_bytes())}
    path = platform.directory / "app.mnf"
    path.write_text(json.dumps({"Application": "deployed", "Services": [greeter, worker]}))

    def ended() -> bool:
        if consistency.application_status(platform, "deployed") not in STABLE:
            return False
        made = platform.data("application", "download_manifest", "deployed")["Services"]
        assert [one["StartupInstances"] for one in made] == [{"node": 2}, {"master": 1}]
        assert made[1]["ServiceName"] == "worker"
        assert data_urls.decode(made[1]["Archive"])[1] == code.read_bytes()
        return True

    return lambda: _ignore(platform.cps("--no-wait", "application", "manifest", path, check=False)), ended


def _by_service(kind: str) -> Callable[[platforms.Platform], tuple[Callable[[], None], Callable[[], bool]]]:
    """A kind of the Director's that a manager's operation leads to."""

    def prepare(platform: platforms.Platform) -> tuple[Callable[[], None], Callable[[], bool]]:
        make, final = MANAGER_KINDS[kind]
        stage = Stage(platform)
        return make(stage), lambda: stage.state() == final

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
