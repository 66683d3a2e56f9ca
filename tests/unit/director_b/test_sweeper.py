"""The sweeper settles differences between clouds and inventory, and touches nothing that is not this deployment's."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest

from conpaas.core import faults
from conpaas.core.clouds import base
from conpaas.director import domains, models
from conpaas.director.lifecycle import nodes, parts, services

TWO = [{"role": "web", "cloud": "default"}, {"role": "backend", "cloud": "other"}]
OURS = {parts.TAG_DEPLOYMENT: "testing", parts.TAG_REQUEST: "op-unknown"}


def put(world: Any, vmid: str, tags: dict[str, str], age: float) -> None:
    world.clouds["iaas"].nodes[vmid] = base.CloudNode(vmid, "10.9.9.9", "", base.NodeState.RUNNING, tags=tags, created=time.time() - age)


def test_an_untracked_machine_of_ours_is_destroyed_after_the_grace_time(running: Any) -> None:
    put(running, "old", OURS, 1000)
    put(running, "young", OURS, 10)
    (finding,) = running.life.sweeper.sweep()
    assert finding.text == "The untracked VM old on iaas is destroyed."
    assert set(running.clouds["iaas"].nodes) == {"young", running.application().manager_vmid}


def test_machines_of_others_are_never_touched(running: Any) -> None:
    put(running, "foreign", {}, 10**6)
    put(running, "neighbour", {**OURS, parts.TAG_DEPLOYMENT: "another"}, 10**6)
    assert running.life.sweeper.sweep() == []
    assert {"foreign", "neighbour"} < set(running.clouds["iaas"].nodes)


def test_a_machine_of_an_unfinished_request_is_left_alone(running: Any, killing: Any, killed: Any) -> None:
    with killing("create", faults.AFTER, "create_nodes"), pytest.raises(killed):
        running.ask(TWO)
    with running.database.session() as session:
        session.query(models.Resource).filter_by(role="agent").update({"vmid": None})
    for name, cloud in running.clouds.items():
        running.clouds[name].nodes = {vmid: dataclasses.replace(node, created=0.0) for vmid, node in cloud.nodes.items()}
    assert running.life.sweeper.sweep() == []
    running.restart()
    assert running.vms() == running.recorded()


def test_a_vanished_agent_is_lost_after_two_passes_and_costs_no_more(running: Any) -> None:
    (node,) = running.ask([{"role": "web"}])
    del running.clouds["iaas"].nodes[node["vmid"]]
    assert running.life.sweeper.sweep() == []
    (finding,) = running.life.sweeper.sweep()
    assert "is gone from its cloud" in finding.text
    assert running.managers.told == [node["id"]]
    assert [machine.state for machine in running.machines()] == ["running", "lost"]
    assert running.remove([node]) == {}
    assert len(running.machines()) == 1


def test_a_vanished_manager_puts_the_application_in_error_with_a_reason(running: Any) -> None:
    running.clouds["iaas"].nodes.clear()
    for _ in range(2):
        running.life.sweeper.sweep()
    assert running.application().status == "ERROR"
    assert "lost the application's manager" in running.application().reason
    running.life.stop(running.aid, "ann")
    running.start()
    assert running.application().status == "RUNNING"


def test_an_unreachable_cloud_loses_nothing(running: Any) -> None:
    running.clouds["iaas"].down = True
    for _ in range(3):
        (finding,) = running.life.sweeper.sweep()
        assert "could not be compared" in finding.text
    running.clouds["iaas"].down = False
    assert running.life.sweeper.sweep() == []
    assert running.application().status == "RUNNING"


def test_rows_that_no_operation_answers_for_are_cleared(running: Any) -> None:
    with running.database.session() as session:
        long_ago = models.utcnow().replace(year=2020)
        session.add(
            models.Resource(cloud="iaas", app_id=running.aid, role="agent", request_key="op-gone", request_index=0, created=long_ago)
        )
    running.life.sweeper.sweep()
    assert len(running.machines()) == 1
    assert running.balance() == 49


def test_an_orphan_volume_is_destroyed(running: Any) -> None:
    cloud = running.clouds["iaas"]
    cloud.disks["v9"] = base.CloudVolume("v9", "x", 1, base.VolumeState.AVAILABLE, tags=OURS, created=1.0)
    cloud.disks["v8"] = base.CloudVolume("v8", "x", 1, base.VolumeState.AVAILABLE, tags={}, created=1.0)
    running.life.sweeper.sweep()
    assert list(cloud.disks) == ["v8"]


def test_the_operator_sees_findings_and_counts(running: Any) -> None:
    put(running, "old", OURS, 1000)
    running.life.sweeper.sweep()
    told = running.life.sweeper.to_dict()
    assert told["machines"]["running"] == 1
    assert told["findings"][0]["what"] == "untracked"


# Services


def known(world: Any) -> list[tuple[int, str]]:
    with world.database.reader() as session:
        return [(row.sid, row.type) for row in session.query(models.Service).order_by(models.Service.sid)]


def test_a_service_that_only_the_manager_knows_is_recorded(running: Any) -> None:
    running.managers.services = {running.aid: {7: "php"}}
    (finding,) = running.life.sweeper.sweep()
    assert "Service 7" in finding.text
    assert known(running) == [(7, "php")]
    assert running.life.sweeper.sweep() == []


def test_a_service_that_the_manager_forgot_is_dropped(running: Any) -> None:
    services.record(running.database, running.aid, 3, "php")
    running.life.sweeper.sweep()
    assert known(running) == []


def test_a_silent_manager_changes_nothing(running: Any) -> None:
    services.record(running.database, running.aid, 3, "php")
    running.managers.silent = True
    running.life.sweeper.sweep()
    assert known(running) == [(3, "php")]


def remove_service(world: Any, sid: int) -> Any:
    op = world.life.engine.submit(services.REMOVE, world.aid, {"service_id": sid}, "ann")
    return world.life.result(op.id, 5.0)


def test_removing_a_service_follows_the_manager(running: Any) -> None:
    sid = running.life.services.add(running.aid, "php").sid
    assert remove_service(running, sid) == {}
    assert known(running) == []


def test_a_service_that_the_manager_does_not_let_go_keeps_its_record(running: Any) -> None:
    sid = running.life.services.add(running.aid, "php").sid
    running.managers.refuse_removal = "a node does not answer"
    with pytest.raises(Exception, match="a node does not answer"):
        remove_service(running, sid)
    assert known(running) == [(sid, "php")]


@pytest.mark.parametrize("step", ["ask", "wait", "forget"])
@pytest.mark.parametrize("when", [faults.BEFORE, faults.AFTER, faults.RECORDED])
def test_removing_a_service_survives_a_crash_anywhere(running: Any, killing: Any, killed: Any, step: str, when: str) -> None:
    sid = running.life.services.add(running.aid, "php").sid
    with running.database.session() as session:
        domains.claim(session, running.aid, sid, "www.example.org", models.utcnow())
    with killing(step, when, "remove_service"), pytest.raises(killed):
        remove_service(running, sid)
    running.restart()
    assert (known(running), running.managers.services) == ([], {running.aid: {}})
    with running.database.reader() as session:
        assert domains.listing(session) == []


def test_requests_of_removed_applications_are_history_only(running: Any) -> None:
    running.ask(TWO)
    running.life.delete(running.aid, "ann")
    assert running.life.known(running.aid, "k1").kind == nodes.CREATE.name
