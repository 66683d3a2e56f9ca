"""Starting, stopping and deleting applications: what is left in the cloud, in the database and on the account."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest

from conpaas.core import errors, faults
from conpaas.core.clouds import base
from conpaas.director import domains, inventory, models
from conpaas.director.lifecycle import applications

START_POINTS = [*itertools.product(("record", "create", "wait", "publish"), (faults.BEFORE, faults.AFTER, faults.RECORDED))]
STOP_POINTS = [*itertools.product(("interrupt", "give_up", "destroy", "forget"), (faults.BEFORE, faults.AFTER, faults.RECORDED))]


def test_a_started_application_has_one_recorded_manager_and_costs_one_credit(world: Any) -> None:
    world.start()
    application = world.application()
    (manager,) = world.machines()
    assert (application.status, application.manager_ip, application.manager_vmid) == ("RUNNING", manager.ip, manager.vmid)
    assert (manager.role, manager.state) == ("manager", "running")
    assert world.vms() == world.recorded()
    assert world.balance() == 49


def test_the_manager_gets_its_own_user_data_with_a_token(world: Any) -> None:
    world.start()
    (user_data,) = world.clouds["iaas"].user_data.values()
    assert "token-1" in user_data
    assert "conpaas.core.manager_daemon" in user_data


def test_a_running_application_is_not_started_again(running: Any) -> None:
    with pytest.raises(errors.WrongState, match=r"^Application already started$"):
        running.start()
    assert len(running.vms()) == 1


def test_a_start_without_credits_changes_nothing(world: Any) -> None:
    world.set_balance(0)
    with pytest.raises(errors.InsufficientCredits, match=r"^Insufficient credits$"):
        world.start()
    assert (world.application().status, world.vms()) == ("INIT", set())


def test_the_last_credit_pays_one_start(world: Any) -> None:
    world.set_balance(1)
    world.start()
    assert (world.application().status, world.balance()) == ("RUNNING", 0)


def test_an_unknown_cloud_is_named(world: Any) -> None:
    with pytest.raises(errors.NotFound, match="Unknown cloud: mars"):
        world.life.start(world.aid, "mars", "ann")
    assert world.application().status == "INIT"


@pytest.mark.parametrize("trouble", ["create", "silent", "terminated"])
def test_a_failed_start_leaves_no_machine_no_charge_and_a_reason(world: Any, trouble: str) -> None:
    if trouble == "create":
        world.clouds["iaas"].fail_create = {0}
    elif trouble == "silent":
        world.daemons.silent = {0}
    else:

        def die(machine: inventory.Machine) -> None:
            node = world.clouds["iaas"].nodes[machine.vmid]
            world.clouds["iaas"].nodes[machine.vmid] = dataclasses.replace(node, state=base.NodeState.TERMINATED)
            raise errors.Unreachable("connection refused")

        world.daemons.on_probe = die
    world.start()
    application = world.application()
    assert application.status == "ERROR"
    expected = {"create": "no room left", "silent": "Kernel panic: no root", "terminated": "ended while it was booting"}
    assert expected[trouble] in application.reason
    assert (world.vms(), world.machines(), world.balance()) == (set(), [], 50)


def test_after_a_failed_start_the_next_one_works(world: Any) -> None:
    world.clouds["iaas"].fail_create = {0}
    world.start()
    world.clouds["iaas"].fail_create = set()
    world.start()
    assert (world.application().status, world.application().reason) == ("RUNNING", None)


@pytest.mark.parametrize(("step", "when"), START_POINTS)
def test_a_start_survives_a_crash_anywhere(world: Any, killing: Any, killed: Any, step: str, when: str) -> None:
    with killing(step, when), pytest.raises(killed):
        world.start()
    world.restart()
    assert world.application().status == "RUNNING"
    assert world.vms() == world.recorded()
    assert len(world.vms()) == 1
    assert world.clouds["iaas"].made == 1
    assert world.balance() == 49


@pytest.mark.parametrize("step", ["record", "create", "wait"])
@pytest.mark.parametrize("when", [faults.UNDO, faults.UNDO_AFTER, faults.UNDO_RECORDED])
def test_undoing_a_start_survives_a_crash_anywhere(world: Any, killing: Any, killed: Any, step: str, when: str) -> None:
    world.daemons.silent = {0}
    with killing(step, when), pytest.raises(killed):
        world.start()
    world.restart()
    assert world.application().status == "ERROR"
    assert (world.vms(), world.machines(), world.balance()) == (set(), [], 50)


def test_what_the_cloud_cannot_destroy_stays_recorded_and_free_of_charge(world: Any) -> None:
    world.daemons.silent = {0}
    world.daemons.on_probe = lambda machine: world.clouds["iaas"].fail_destroy.add(machine.vmid)
    world.start()
    assert world.application().status == "ERROR"
    assert "could not be undone" in world.application().reason
    assert [machine.state for machine in world.machines()] == ["deleting"]
    assert world.balance() == 50
    with pytest.raises(errors.WrongState, match="still has 1 machine"):
        world.start()
    world.clouds["iaas"].fail_destroy = set()
    world.life.sweeper.sweep()
    assert (world.vms(), world.machines()) == (set(), [])
    world.daemons.silent = set()
    world.start()
    assert world.application().status == "RUNNING"


def test_stopping_destroys_everything_and_forgets_the_services(running: Any) -> None:
    sid = running.life.services.add(running.aid, "helloworld").sid
    with running.database.session() as session:
        domains.claim(session, running.aid, sid, "www.example.org", models.utcnow())
    running.life.stop(running.aid, "ann")
    application = running.application()
    assert (application.status, application.manager_ip, application.manager_vmid) == ("STOPPED", None, None)
    assert (running.vms(), running.machines()) == (set(), [])
    with running.database.reader() as session:
        assert session.query(models.Service).count() == 0
        assert domains.listing(session) == []
    assert running.balance() == 49


def test_a_restarted_application_gets_a_fresh_manager(running: Any) -> None:
    first = running.application().manager_vmid
    running.life.stop(running.aid, "ann")
    running.start()
    assert running.application().status == "RUNNING"
    assert running.application().manager_vmid != first
    assert running.balance() == 48


def test_stopping_twice_is_no_error(running: Any) -> None:
    running.life.stop(running.aid, "ann")
    running.life.stop(running.aid, "ann")
    assert running.application().status == "STOPPED"


@pytest.mark.parametrize(("step", "when"), STOP_POINTS)
def test_a_stop_survives_a_crash_anywhere(running: Any, killing: Any, killed: Any, step: str, when: str) -> None:
    with killing(step, when), pytest.raises(killed):
        running.life.stop(running.aid, "ann")
    running.restart()
    assert running.application().status == "STOPPED"
    assert (running.vms(), running.machines(), running.balance()) == (set(), [], 49)


@pytest.mark.parametrize(("step", "when"), [*STOP_POINTS, ("delete", faults.BEFORE), ("delete", faults.AFTER), ("delete", faults.RECORDED)])
def test_a_delete_survives_a_crash_anywhere(running: Any, killing: Any, killed: Any, step: str, when: str) -> None:
    with killing(step, when), pytest.raises(killed):
        running.life.delete(running.aid, "ann")
    running.restart()
    with running.database.reader() as session:
        assert session.get(models.Application, running.aid) is None
    assert (running.vms(), running.machines()) == (set(), [])


def test_an_application_that_the_cloud_cannot_end_is_in_error_and_can_be_stopped_again(
    running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applications, "DESTROY_PAUSE", 0.0)
    running.clouds["iaas"].fail_destroy = {running.application().manager_vmid}
    running.life.stop(running.aid, "ann")
    assert running.application().status == "ERROR"
    assert "does not let go" in running.application().reason
    running.clouds["iaas"].fail_destroy = set()
    running.life.stop(running.aid, "ann")
    assert (running.application().status, running.vms()) == ("STOPPED", set())


def test_a_stop_during_the_start_undoes_the_start(world: Any) -> None:
    """The start notices at its next probe; the stop waits for it, in a process of its own."""
    other = world.boot("two", pool=None)
    stopped = []

    def stop(machine: inventory.Machine) -> None:
        if not stopped:
            stopped.append(other.stop(world.aid, "ann"))
        raise errors.Unreachable("not yet")

    world.daemons.on_probe = stop
    world.start()
    (newest, *_rest) = other.history(world.aid, 10)
    assert other.finished(newest.id, 10.0) is not None
    assert world.application().status == "STOPPED"
    assert (world.vms(), world.machines(), world.balance()) == (set(), [], 50)
    assert [op.status for op in other.history(world.aid, 10)] == ["DONE", "UNDONE"]


def test_a_start_left_by_a_dead_process_is_undone_by_the_stop_that_came_meanwhile(world: Any, killing: Any, killed: Any) -> None:
    with killing("wait", faults.BEFORE), pytest.raises(killed):
        world.start()
    other = world.boot("two", pool=None)
    other.stop(world.aid, "ann")
    world.restart()
    (newest, *_rest) = other.history(world.aid, 10)
    assert other.finished(newest.id, 10.0) is not None
    assert (world.application().status, world.vms(), world.machines()) == ("STOPPED", set(), [])


def test_an_exhausted_user_loses_the_machines_of_all_applications(running: Any) -> None:
    running.life.stop_all_of(running.uid)
    assert (running.application().status, running.vms()) == ("STOPPED", set())
    running.life.stop_all_of(running.uid)
    assert running.application().status == "STOPPED"


def test_the_history_tells_steps_and_reason(world: Any) -> None:
    world.clouds["iaas"].fail_create = {0}
    world.start()
    (op,) = world.life.history(world.aid, 10)
    assert (op.kind, str(op.status)) == ("start_application", "UNDONE")
    assert "no room left" in op.error
    assert [(step.name, str(step.status)) for step in op.steps][:2] == [("record", "UNDONE"), ("create", "UNDONE")]


def test_two_parallel_starts_make_exactly_one_manager(world: Any) -> None:
    lives = [world.boot(name, pool=None) for name in ("a", "b", "c")]
    refused = 0
    for life in lives:
        try:
            life.start(world.aid, "iaas", "ann")
        except errors.WrongState as error:
            refused += 1
            assert str(error) == "Application already started"
    (op,) = lives[0].history(world.aid, 10)
    assert lives[0].finished(op.id, 10.0) is not None
    assert (refused, world.clouds["iaas"].made, world.application().status) == (2, 1, "RUNNING")


def test_a_broken_cloud_without_machines_does_not_hinder_a_stop(running: Any) -> None:
    running.clouds["other"].down = True
    running.life.stop(running.aid, "ann")
    assert (running.application().status, running.vms()) == ("STOPPED", set())


def test_a_machine_that_no_row_tells_of_goes_with_its_application(running: Any) -> None:
    """Whatever carries the application's tag is destroyed with it."""
    cloud = running.clouds["other"]
    (manager,) = running.clouds["iaas"].nodes.values()
    cloud.nodes["stray"] = dataclasses.replace(manager, vmid="stray")
    running.life.stop(running.aid, "ann")
    assert running.vms() == set()
