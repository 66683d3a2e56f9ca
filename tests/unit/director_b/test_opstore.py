"""Leases: what a process left is continued by its next life at once, by others when the lease has run out, and never by two."""

from __future__ import annotations

import pathlib
import time
from typing import Any

import pytest

from conpaas.core import errors, faults, operations
from conpaas.director import opstore
from conpaas.director.lifecycle import component


@pytest.fixture
def interrupted(world: Any, killing: Any, killed: Any) -> Any:
    """The process `one` died while it started an application."""
    with killing("wait", faults.BEFORE), pytest.raises(killed):
        world.start()
    return world


def store(world: Any, owner: str, now: float = 0.0) -> opstore.DirectorStore:
    return opstore.DirectorStore(world.database, owner, component.POLICIES, clock=lambda: time.time() + now)


def test_a_restarted_process_takes_its_own_over_at_once(interrupted: Any) -> None:
    assert [op.kind for op in store(interrupted, "one").unfinished()] == ["start_application"]


def test_another_process_waits_for_the_lease_to_run_out(interrupted: Any) -> None:
    assert store(interrupted, "two").unfinished() == []
    assert len(store(interrupted, "two", opstore.LEASE_SECONDS + 1).unfinished()) == 1


def test_a_lease_of_a_clock_that_was_wrong_runs_out_at_once(interrupted: Any) -> None:
    assert len(store(interrupted, "two", -30 * 86_400.0).unfinished()) == 1


def test_what_was_handed_out_is_not_handed_out_again(interrupted: Any) -> None:
    mine = store(interrupted, "one")
    assert len(mine.unfinished()) == 1
    assert mine.unfinished() == []


def test_a_process_that_lost_its_lease_changes_nothing_more(interrupted: Any) -> None:
    stale = store(interrupted, "one")
    (op,) = stale.unfinished()
    store(interrupted, "two", opstore.LEASE_SECONDS + 1).unfinished()
    for act in (stale.save, stale.heartbeat, lambda op: stale.step_done(op, "wait"), lambda op: stale.note(op, "x")):
        with pytest.raises(operations.LeaseLost):
            act(op)
    op.status = operations.OperationStatus.DONE
    with pytest.raises(operations.LeaseLost):
        stale.finish(op, component.KINDS[op.kind])
    assert interrupted.application().status == "PROLOGUE"


def test_a_heartbeat_keeps_the_lease(interrupted: Any) -> None:
    late = store(interrupted, "one", opstore.LEASE_SECONDS - 1)
    (op,) = late.unfinished()
    late.heartbeat(op)
    assert store(interrupted, "two", opstore.LEASE_SECONDS + 1).unfinished() == []


def test_a_finished_operation_belongs_to_nobody(world: Any) -> None:
    world.start()
    (op,) = world.life.history(world.aid, 1)
    with pytest.raises(operations.LeaseLost):
        store(world, "one").save(op)


def test_an_operation_reads_as_it_was_written(world: Any) -> None:
    world.start()
    (op,) = world.life.history(world.aid, 5)
    assert (op.requester, op.args, str(op.status)) == ("ann", {"cloud": "iaas"}, "DONE")
    assert [step.name for step in op.steps] == ["record", "create", "wait", "publish"]
    assert all(step.at is not None for step in op.steps)
    with pytest.raises(errors.NotFound, match="no operation nope"):
        world.life.store.get("nope")


def test_every_living_process_has_an_identity_of_its_own_and_keeps_it_over_restarts(tmp_path: pathlib.Path) -> None:
    first, second = opstore.Owner.claim(tmp_path), opstore.Owner.claim(tmp_path)
    assert first.name != second.name
    first.release()
    again = opstore.Owner.claim(tmp_path)
    assert again.name == first.name
    second.release()
    again.release()


def test_old_history_is_forgotten_and_what_is_under_way_is_not(interrupted: Any) -> None:
    interrupted.life.stop(interrupted.new_application("second"), "ann")
    interrupted.life.store.prune(time.time() + 1)
    assert [op.kind for op in interrupted.life.store.under_way()] == ["start_application"]
    assert interrupted.life.history(interrupted.aid + 1, 10) == []
