"""Clouds that fail, a Director that is away, VMs that die: what the user is told, and that nothing is left over."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import consistency, tenants, wire
from tests.support import platform as platforms

APP = "faulty"
NODE_TIMEOUT = "12"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[platforms.Platform]:
    directory = tmp_path_factory.mktemp("faults")
    watch = {"HEALTH_INTERVAL": "1", "NODE_LOST_AFTER": "4"}
    with platforms.platform(directory, 94, director={"NODE_TIMEOUT": NODE_TIMEOUT}, manager=watch) as made:
        made.cps("application", "create", APP)
        made.cps("application", "start", APP)
        yield made


class Service:
    """A service for one test."""

    def __init__(self, platform: platforms.Platform, kind: str = "generic") -> None:
        self.platform = platform
        before = self._sids()
        platform.cps(kind, "add", APP)
        (new,) = self._sids() - before
        self.sid = str(new)

    def _sids(self) -> set[int]:
        return {one["sid"] for one in self.platform.data("service", "list", "-a", APP)}

    def cps(self, verb: str, *words: str, check: bool = True, wait: bool = True) -> platforms.Result:
        options = () if wait else ("--no-wait",)
        return self.platform.cps("--yes", *options, "service", verb, APP, self.sid, *words, check=check)

    def started(self, more: int = 0) -> Service:
        self.cps("start")
        if more:
            self.cps("add_nodes", "--count", str(more))
        return self

    def state(self) -> str:
        return next(str(one["status"]) for one in self.platform.data("service", "list", "-a", APP) if str(one["sid"]) == self.sid)

    def nodes(self) -> dict[str, str]:
        """Addresses by node id."""
        return {one["agent_id"]: one["ip"] for one in self.platform.data("service", "list_nodes", APP, self.sid)}

    def roles(self) -> dict[str, str]:
        return {one["agent_id"]: one["role"] for one in self.platform.data("service", "list_nodes", APP, self.sid)}

    def history(self) -> str:
        return self.cps("get_history").out

    def settle(self, state: str) -> None:
        platforms.until(lambda: self.state() == state, f"the service is {state}, not {self.state()}")

    def operations(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = ask(self.platform, self, "list_operations")["operations"]
        return found


@pytest.fixture
def service(platform: platforms.Platform) -> Iterator[Service]:
    made = Service(platform)
    yield made
    platform.cloud_faults()
    made.cps("remove")
    consistency.assert_consistent(platform)
    assert consistency.complaints(platform) == []


def credit(platform: platforms.Platform) -> int:
    return int(platform.cps("user", "get_credit").out)


def refused(result: platforms.Result, *words: str) -> None:
    """The command failed and says why, for people."""
    assert result.code == 1, result
    assert "ERROR: " in result.err
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err, f"{word!r} is not in {result.err}"


def test_two_of_five_nodes_cannot_be_created(platform: platforms.Platform, service: Service) -> None:
    service.started()
    nodes, before = service.nodes(), credit(platform)
    platform.cloud_faults(fail_create=2)
    refused(service.cps("add_nodes", "--count", "5", check=False), "2 of 5")
    assert (service.state(), service.nodes()) == ("RUNNING", nodes)
    assert "2 of 5" in service.history().splitlines()[-1]
    assert credit(platform) == before
    consistency.assert_consistent(platform)
    platform.cloud_faults()
    service.cps("add_nodes", "--count", "5")
    assert len(service.nodes()) == 6
    assert credit(platform) == before - 5


def test_a_vm_that_never_answers_is_given_back(platform: platforms.Platform, service: Service) -> None:
    before = credit(platform)
    platform.cloud_faults(never_boot=True)
    refused(service.cps("start", check=False), "did not become ready")
    assert (service.state(), service.nodes()) == ("INIT", {})
    assert "did not become ready" in service.history().splitlines()[-1]
    consistency.assert_consistent(platform)
    assert credit(platform) == before
    platform.cloud_faults()
    assert len(service.started().nodes()) == 1


def test_the_director_is_away_while_nodes_are_added(platform: platforms.Platform, service: Service) -> None:
    service.started()
    before = credit(platform)
    platform.cloud_faults(boot_delay_s=2)
    service.cps("add_nodes", "--count", "3", wait=False)
    platforms.until(lambda: len(platform.vms()) > 2, "the cloud has begun")
    vms = {vm["vmid"] for vm in platform.vms()}
    manager = manager_of(platform)
    platform.kill_director()
    try:
        platforms.until(lambda: ask(platform, service, "get_service_info", manager)["state"] == "ADAPTING", "the manager answers")
        platforms.until(lambda: gave_up_waiting(platform, service, manager), "the manager has found the Director away")
        assert ask(platform, service, "get_service_info", manager)["state"] == "ADAPTING"
    finally:
        platform.start()
    service.settle("RUNNING")
    platforms.until(lambda: len(service.nodes()) == 4, "all nodes are there")
    assert {vm["vmid"] for vm in platform.vms()} >= vms
    consistency.assert_consistent(platform)
    assert credit(platform) == before - 3


def manager_of(platform: platforms.Platform) -> str:
    return next(str(one["manager"]) for one in platform.data("application", "list") if one["name"] == APP)


def ask(platform: platforms.Platform, service: Service, method: str, manager: str = "") -> Any:
    """Ask the manager itself; with its address also while no Director can tell it."""
    manager = manager or manager_of(platform)
    request = wire.call("GET", int(service.sid), method)
    return wire.exchange((manager, tenants.MANAGER_PORT), tenants.of_user(platform, "alice"), request).json["result"]


def gave_up_waiting(platform: platforms.Platform, service: Service, manager: str) -> bool:
    """Whether the manager has asked the Director in vain, more than once."""
    log = consistency.vm_of(platform, manager) / "root" / "var" / "log" / f"cpsmanager{service.sid}.log"
    return log.read_text().count("did not answer, trying again") > 1


def test_a_volume_that_cannot_be_attached_is_gone(platform: platforms.Platform, service: Service) -> None:
    (node,) = service.started().nodes()
    platform.cloud_faults(fail_volume_attach=True)
    refused(platform.cps("generic", "create_volume", APP, "data", "8", node, check=False), "attach")
    assert service.state() == "RUNNING"
    assert "attach" in service.history().splitlines()[-1]
    consistency.assert_consistent(platform)
    platform.cloud_faults(fail_volume_create=True)
    refused(platform.cps("generic", "create_volume", APP, "data", "8", node, check=False))
    platform.cloud_faults()
    platform.cps("generic", "create_volume", APP, "data", "8", node)
    assert [one["vol_name"] for one in platform.data("generic", "list_volumes", APP, service.sid)] == ["data"]


def test_vms_that_cannot_be_destroyed_are_destroyed_later(platform: platforms.Platform, service: Service) -> None:
    service.started(more=2)
    before = {vm["vmid"] for vm in platform.vms()}
    platform.cloud_faults(fail_destroy=True)
    service.cps("stop", check=False, wait=False)
    platforms.until(lambda: service.state() in ("STOPPED", "EPILOGUE"), "the service is being stopped")
    assert {vm["vmid"] for vm in platform.vms()} == before
    platform.cloud_faults()
    service.settle("STOPPED")
    consistency.assert_consistent(platform)
    assert len(platform.vms()) == len(before) - 3
    service.cps("start")


# Nodes that die


def replaced(service: Service, before: dict[str, str], victim: str) -> str:
    """Wait until another node has taken the place of one; its id."""

    def new() -> set[str]:
        now = service.nodes()
        return set(now) - set(before) if victim not in now and len(now) == len(before) else set()

    (found,) = platforms.until(new, f"{victim} is replaced")
    service.settle("RUNNING")
    return str(found)


@pytest.mark.parametrize("kind", ["generic", "helloworld"])
def test_a_node_that_dies_is_replaced_and_both_are_in_the_history(platform: platforms.Platform, kind: str) -> None:
    service = Service(platform, kind).started(more=2)
    before = service.nodes()
    victim = list(before)[-1]
    consistency.kill_vm(platform, before[victim])
    new = replaced(service, before, victim)
    assert {victim, new} <= {word.strip(".,:;()") for word in service.history().split()}
    if kind == "helloworld":
        assert len(platform.cps("helloworld", "get_helloworld", APP, service.sid).out.strip().splitlines()) == 3
    consistency.assert_consistent(platform)
    service.cps("remove")
    consistency.assert_consistent(platform)


def test_the_master_of_a_generic_service_is_replaced_by_a_master(platform: platforms.Platform, service: Service) -> None:
    before = service.started(more=1).nodes()
    (master,) = (node for node, role in service.roles().items() if role == "master")
    consistency.kill_vm(platform, before[master])
    new = replaced(service, before, master)
    assert service.roles()[new] == "master"
    assert sorted(service.roles().values()) == ["master", "node"]
    platform.cps("generic", "run", APP, service.sid)
    ran = platforms.until(lambda: finished(platform, service), "run.sh ended everywhere")
    assert sorted(ran) == sorted(service.nodes())


def finished(platform: platforms.Platform, service: Service) -> dict[str, Any]:
    """The scripts of all nodes by node id, when all have run."""
    status: dict[str, Any] = platform.data("generic", "get_script_status", APP, service.sid)
    agents: dict[str, Any] = status.get("agents", status)
    return agents if all(scripts["run.sh"].startswith("STOPPED") for scripts in agents.values()) else {}


def test_an_agent_that_dies_alone_is_started_again_and_nothing_is_replaced(platform: platforms.Platform, service: Service) -> None:
    before = service.started(more=1).nodes()
    for address in before.values():
        pid = consistency.daemon_of(platform, address, "agent")
        os.kill(pid, signal.SIGKILL)
        platforms.until(lambda ip=address, old=pid: consistency.daemon_of(platform, ip, "agent") not in (0, old), "the agent is back")
    platform.cps("generic", "run", APP, service.sid)
    platforms.until(lambda: finished(platform, service), "run.sh ended everywhere")
    assert service.nodes() == before
    assert [one["kind"] for one in service.operations() if one["kind"] == "replace_node"] == []


def test_a_manager_that_dies_alone_comes_back_with_what_it_knew(platform: platforms.Platform, service: Service) -> None:
    before = service.started(more=1).nodes()
    manager = manager_of(platform)
    pid = consistency.daemon_of(platform, manager, "manager")
    os.kill(pid, signal.SIGKILL)
    platforms.until(lambda: consistency.daemon_of(platform, manager, "manager") not in (0, pid), "the manager is back")
    service.settle("RUNNING")
    assert service.nodes() == before


# The manager's VM, last as it ends the application


def test_an_application_whose_manager_is_lost_says_so_and_can_be_started_again(platform: platforms.Platform) -> None:
    service = Service(platform).started(more=1)
    lost = manager_of(platform)
    consistency.kill_vm(platform, lost)
    platforms.until(lambda: consistency.application_status(platform, APP) == "ERROR", "the application is in ERROR")
    (application,) = (one for one in platform.data("application", "list") if one["name"] == APP)
    assert "lost the application's manager" in str(application.get("reason")), application
    assert "lost the application's manager" in platform.cps("application", "list").err
    listed = platform.cps("service", "list", "-a", APP)
    assert "Traceback" not in listed.err
    refused(service.cps("get_state", check=False))
    platform.cps("--yes", "application", "stop", APP)
    assert platform.vms() == []
    consistency.assert_consistent(platform)
    platform.cps("application", "start", APP)
    Service(platform, "helloworld").started()
    consistency.assert_consistent(platform)
    platform.cps("--yes", "application", "delete", APP)
    assert platform.vms() == []
    consistency.assert_consistent(platform)
