"""Quotas hold where VMs, applications and volumes are asked for, and leave nothing half made."""

from __future__ import annotations

import pathlib
import threading
from typing import Any

import pytest

from conpaas.core import errors, faults
from conpaas.core.clouds import base
from conpaas.director import cloudcheck, findings, models, quotas
from conpaas.director.lifecycle import nodes

from .test_api import Api
from .test_nodes import WITH_VOLUME


def limit(world: Any, **allowed: int) -> None:
    with world.database.session() as session:
        amounts: dict[str, Any] = {"vms": None, "applications": None, "volumes_mb": None, **allowed}
        quotas.set_limits(session.get_one(models.User, world.uid), quotas.Amounts(**amounts))


def used(world: Any) -> quotas.Amounts:
    with world.database.reader() as session:
        return quotas.used(session, world.uid)


def test_managers_are_vms_too(world: Any) -> None:
    limit(world, vms=0)
    with pytest.raises(errors.QuotaExceeded, match=r"The quota of 0 VMs does not allow 1 more: 0 are in use\."):
        world.start()
    assert (world.vms(), world.application().status) == (set(), "INIT")
    limit(world, vms=1)
    world.start()
    assert world.application().status == "RUNNING"


def test_nodes_all_or_none(running: Any) -> None:
    limit(running, vms=3)
    with pytest.raises(errors.OperationFailed, match=r"The quota of 3 VMs does not allow 3 more: 1 is in use\."):
        running.ask([{"role": "web"}] * 3)
    assert len(running.vms()) == 1
    assert len(running.ask([{"role": "web"}] * 2, key="k2")) == 2
    with pytest.raises(errors.OperationFailed, match=r"The quota of 3 VMs"):
        running.ask([{"role": "web"}], key="k3")


def test_what_is_given_back_may_be_asked_for_again(running: Any) -> None:
    limit(running, vms=2)
    for number in range(3):
        running.remove(running.ask([{"role": "web"}], key=f"k{number}"), key=f"r{number}")
    assert used(running).vms == 1


def test_all_applications_of_a_user_count(running: Any) -> None:
    limit(running, vms=1)
    with pytest.raises(errors.QuotaExceeded):
        running.life.start(running.new_application("second"), "iaas", "ann")


def test_volumes_of_nodes(running: Any) -> None:
    limit(running, volumes_mb=1500)
    assert len(running.ask(WITH_VOLUME)) == 1
    with pytest.raises(errors.OperationFailed, match=r"The quota of 1500 MB of volumes does not allow 1024 more: 1024 are in use\."):
        running.ask(WITH_VOLUME, key="k2")
    assert (len(running.disks()), len(running.vms())) == (1, 2)


def test_volumes_by_themselves(world: Any, running: Any, tmp_path: pathlib.Path) -> None:
    api = Api(running, tmp_path)
    limit(running, volumes_mb=100)
    vmid = running.ask([{"role": "web"}])[0]["vmid"]
    fields = {"vm_id": vmid, "cloud": "default", "name": "disk", "service_id": "1"}
    assert "volume_id" in api.post(api.manager, "/create_volume", **fields, size="60")
    refused = api.post(api.manager, "/create_volume", **fields, size="60")
    assert "The quota of 100 MB of volumes does not allow 60 more: 60 are in use." in refused["error"]
    assert [disk.size for disk in running.disks()] == [60]


def test_an_interrupted_request_is_not_counted_twice(running: Any, killing: Any, killed: Any) -> None:
    limit(running, vms=2, volumes_mb=1024)
    for when in ("record", "create", "volumes"):
        with killing(when, faults.AFTER, "create_nodes"), pytest.raises(killed):
            running.ask(WITH_VOLUME, key=when)
        running.restart()
        (node,) = running.ask(WITH_VOLUME, key=when)
        running.remove([node], key=f"r-{when}")
    assert used(running) == quotas.Amounts(vms=1, applications=1, volumes_mb=0)


def test_requests_side_by_side_cannot_both_take_the_last(running: Any) -> None:
    limit(running, vms=2)
    outcomes: list[str] = []
    lives = [running.boot(name, pool=None) for name in ("a", "b")]

    def ask(life: Any, key: str) -> None:
        op_id = life.request(nodes.CREATE, running.aid, key, running.node_arguments([{"role": "web"}]), "manager")
        try:
            outcomes.append(f"{len(life.result(op_id, 10.0))} node")
        except errors.OperationFailed as error:
            outcomes.append("quota" if "The quota of 2 VMs" in str(error) else str(error))

    threads = [threading.Thread(target=ask, args=(life, f"k{number}")) for number, life in enumerate(lives)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["1 node", "quota"]


def test_applications_by_manifest(world: Any, tmp_path: pathlib.Path) -> None:
    api = Api(world, tmp_path)
    limit(world, applications=2)
    manifest = '{"Application": "another", "Services": []}'
    assert "aid" in api.post(api.ann, "/upload_manifest", manifest=manifest)
    assert "The quota of 2 applications" in api.post(api.ann, "/upload_manifest", manifest=manifest)["error"]


# Findings and checks of clouds


def test_findings_are_kept_and_bounded(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "KEPT", 5)
    monkeypatch.setattr(findings, "SPARE", 2)
    with running.database.session() as session:
        for number in range(30):
            findings.record(session, float(number), "lost", f"text {number}", "iaas", f"vm{number}")
        for at in (100.0, 200.0):
            findings.record(session, at, "lost", "text 29", "iaas", "vm29")
        found = findings.listing(session, 100)
    assert 5 <= len(found) <= 7
    assert found[0] == {"at": "1970-01-01T00:03:20+00:00", "cloud": "iaas", "vmid": "vm29", "kind": "lost", "text": "text 29"}


def test_the_sweeper_writes_down_what_it_finds(running: Any) -> None:
    (node,) = running.ask([{"role": "web"}])
    del running.clouds["iaas"].nodes[node["vmid"]]
    running.clouds["other"].down = True
    running.life.sweeper.sweep()
    running.life.sweeper.sweep()
    with running.database.reader() as session:
        found = findings.listing(session, 10)
    assert [(one["kind"], one["cloud"], one["vmid"]) for one in sorted(found, key=lambda one: str(one["kind"]))] == [
        ("cloud", "other", None),
        ("lost", "iaas", node["vmid"]),
    ]


class Slow:
    """A cloud that answers when it is let."""

    name = "slow"

    def __init__(self) -> None:
        self.let = threading.Event()

    def check(self) -> list[str]:
        assert self.let.wait(60)
        return []


def test_a_silent_cloud_holds_nobody_up_and_one_thread_at_most() -> None:
    cloud = Slow()
    verdict = cloudcheck.check(cloud, patience=0.01)  # type: ignore[arg-type]
    assert (verdict.ok, "did not answer" in verdict.text) == (False, True)
    with pytest.raises(errors.WrongState, match="under way already"):
        cloudcheck.check(cloud, patience=0.01)  # type: ignore[arg-type]
    (worker,) = [thread for thread in threading.enumerate() if thread.name == "check-slow"]
    cloud.let.set()
    worker.join()
    assert cloudcheck.check(cloud).ok  # type: ignore[arg-type]


def test_an_operator_checks_a_cloud(world: Any, tmp_path: pathlib.Path) -> None:
    api = Api(world, tmp_path)
    with world.database.session() as session:
        session.get_one(models.User, world.uid).role = "operator"
    assert api.post(api.ann, "/operator/check_cloud", cloud="default")["ok"] is True
    world.clouds["other"].down = True
    down = api.post(api.ann, "/operator/check_cloud", cloud="other")
    assert (down["ok"], down["text"]) == (False, "down")
    assert "Unknown cloud" in api.post(api.ann, "/operator/check_cloud", cloud="nowhere")["error"]


def test_a_check_that_fails_says_why(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[str]:
        raise RuntimeError("certificate expired")

    cloud: base.Cloud = world.clouds["iaas"]
    monkeypatch.setattr(cloud, "check", broken)
    verdict = cloudcheck.check(cloud)
    assert (verdict.ok, verdict.text) == (False, "certificate expired")
