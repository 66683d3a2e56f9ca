"""The lifecycle against real VMs of the dummy cloud, over TLS."""

from __future__ import annotations

import threading
from typing import Any

import pytest


def start_helloworld(deployment: Any, ann: Any, eventually: Any) -> int:
    assert ann.post("/startapp/1", {}) == {}
    deployment.wait_for("RUNNING")
    sid: int = ann.post("/add/helloworld", {})["service"]["sid"]
    deployment.manager("start_service", service_id=sid, cloud="default")
    eventually(lambda: deployment.life.managers.get(1, "get_service_info", sid)["state"] == "RUNNING", "the service runs")
    return sid


def test_from_start_to_delete(deployment: Any, ann: Any, eventually: Any) -> None:
    sid = start_helloworld(deployment, ann, eventually)
    vms = {node.vmid for node in deployment.cloud.list_nodes()}
    assert vms == {resource["vmid"] for resource in ann.get("/list_resources")}
    assert len(vms) == 2
    assert ann.get("/user_credit") == 48
    assert ann.post("/remove", {"app_id": 1, "service_id": sid}) == {}
    assert ann.get("/list/1") == []
    assert ann.post("/deleteapp/1", {}) == {}
    assert (ann.get("/listapp"), deployment.cloud.list_nodes()) == ([], [])


def test_parallel_starts_make_one_manager(deployment: Any, refusal: type[Exception]) -> None:
    outcomes: list[str] = []
    callers = [deployment.client_of("ann") for _ in range(4)]

    def start(caller: Any) -> None:
        try:
            caller.post("/startapp/1", {})
            outcomes.append("accepted")
        except refusal as error:
            outcomes.append(str(error))
        finally:
            caller.close()

    threads = [threading.Thread(target=start, args=(caller,)) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["Application already started"] * 3 + ["accepted"]
    deployment.wait_for("RUNNING")
    assert len(deployment.cloud.list_nodes()) == 1


def test_a_stop_during_the_boot_leaves_nothing(deployment: Any, ann: Any, eventually: Any) -> None:
    ann.post("/startapp/1", {})
    eventually(deployment.cloud.list_nodes, "the VM exists")
    assert ann.post("/stopapp/1", {}) == {}
    assert (deployment.application().status, deployment.cloud.list_nodes()) == ("STOPPED", [])
    assert ann.get("/user_credit") in (49, 50)  # 49 if the manager was ready before the stop came
    ann.post("/startapp/1", {})
    deployment.wait_for("RUNNING")


def test_a_vm_that_cannot_boot_is_reported_with_its_console(deployment: Any, ann: Any) -> None:
    own = deployment.directory / "conf" / "scripts" / "manager" / "default-manager-start"
    own.parent.mkdir(parents=True)
    own.write_text("#!/bin/bash\necho the moon is made of cheese\nkill -9 1\n")
    object.__setattr__(deployment.life.parts.settings, "node_boot_timeout", 4.0)
    ann.post("/startapp/1", {})
    deployment.wait_for("ERROR")
    assert "made of cheese" in deployment.application().reason
    assert (deployment.cloud.list_nodes(), ann.get("/user_credit")) == ([], 50)


def test_a_killed_agent_is_replaced_and_the_sweeper_reports_it(deployment: Any, ann: Any, eventually: Any) -> None:
    sid = start_helloworld(deployment, ann, eventually)
    (lost,) = [node.vmid for node in deployment.cloud.list_nodes() if node.vmid != deployment.application().manager_vmid]
    deployment.cloud.destroy_nodes([lost])
    for _ in range(2):
        deployment.life.sweeper.sweep()

    def replaced() -> bool:
        found = deployment.life.managers.get(1, "list_nodes", sid)
        nodes = [node for role in found.values() for node in role]
        return (
            len(nodes) == 1 and nodes != [f"iaas{lost}"] and deployment.life.managers.get(1, "get_service_info", sid)["state"] == "RUNNING"
        )

    eventually(replaced, "another node has taken its place")
    eventually(lambda: lost not in {resource["vmid"] for resource in ann.get("/list_resources")}, "the lost one is forgotten")
    assert len(deployment.cloud.list_nodes()) == 2


@pytest.mark.parametrize("stopper", ["same", "other"])
def test_two_directors_side_by_side_serve_one_application(deployment: Any, beside: Any, ann: Any, stopper: str) -> None:
    port = deployment.server.port
    other = beside(deployment.directory, state="second", port=port + 1)
    try:
        ann.post("/startapp/1", {})
        other.wait_for("RUNNING")
        caller = (deployment if stopper == "same" else other).client_of("ann")
        assert caller.post("/stopapp/1", {}) == {}
        caller.close()
        assert deployment.application().status == "STOPPED"
        assert deployment.cloud.list_nodes() == []
    finally:
        other.close()
