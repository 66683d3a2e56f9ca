from __future__ import annotations

import datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import exc

from conpaas.core import errors
from conpaas.director import credits, models, runtime

from . import conftest


def start_vm(director: runtime.Director, aid: int, *, vmid: str = "1", state: str = "running", **fields: Any) -> int:
    with director.database.session() as session:
        vm = models.Resource(vmid=vmid, cloud="iaas", app_id=aid, role="manager", state=state, created=director.clock(), **fields)
        session.add(vm)
        session.flush()
        return vm.rid


def run_pass(director: runtime.Director) -> credits.Charged:
    with director.database.session() as session:
        return credits.charge_started_hours(session, director.clock())


def balance(director: runtime.Director, user: models.User) -> int:
    with director.database.reader() as session:
        return credits.balance(session, user.uid)


def hours(director: runtime.Director, rid: int) -> list[int | None]:
    with director.database.reader() as session:
        return list(session.scalars(sa.select(models.LedgerEntry.hour_index).filter_by(rid=rid).order_by(models.LedgerEntry.hour_index)))


def test_an_account_starts_with_its_grant(director: runtime.Director, alice: models.User) -> None:
    assert balance(director, alice) == 10


@pytest.mark.parametrize(
    ("lived", "charged"),
    [({"seconds": 0}, 1), ({"minutes": 59, "seconds": 59}, 1), ({"hours": 1}, 2), ({"hours": 4, "minutes": 30}, 5)],
)
def test_every_started_hour_costs_one_credit(
    director: runtime.Director, alice: models.User, clock: conftest.Clock, lived: dict[str, float], charged: int
) -> None:
    rid = start_vm(director, conftest.application_of(director, alice))
    clock.forward(**lived)
    run_pass(director)
    assert hours(director, rid) == list(range(charged))
    assert balance(director, alice) == 10 - charged


def test_it_makes_no_difference_how_often_a_pass_runs(director: runtime.Director, alice: models.User, clock: conftest.Clock) -> None:
    start_vm(director, conftest.application_of(director, alice))
    for _ in range(7):  # at 0, 20, … 120 minutes: three hours have started
        run_pass(director)
        run_pass(director)
        clock.forward(minutes=20)
    assert balance(director, alice) == 7


def test_the_table_itself_refuses_a_second_entry_for_an_hour(director: runtime.Director, alice: models.User) -> None:
    rid = start_vm(director, conftest.application_of(director, alice))
    run_pass(director)
    with pytest.raises(exc.IntegrityError), director.database.session() as session:
        session.add(models.LedgerEntry(uid=alice.uid, amount=-1, kind="hour", rid=rid, hour_index=0))


def test_every_vm_is_charged_for_itself(director: runtime.Director, alice: models.User, clock: conftest.Clock) -> None:
    aid = conftest.application_of(director, alice)
    first = start_vm(director, aid, vmid="1")
    clock.forward(minutes=30)
    second = start_vm(director, aid, vmid="2")
    clock.forward(minutes=45)
    run_pass(director)
    assert hours(director, first) == [0, 1]
    assert hours(director, second) == [0]


def test_vms_being_created_cost_nothing(director: runtime.Director, alice: models.User, clock: conftest.Clock) -> None:
    start_vm(director, conftest.application_of(director, alice), state="creating")
    clock.forward(hours=3)
    assert run_pass(director) == credits.Charged()


def test_one_credit_buys_one_hour_of_one_vm(director: runtime.Director, alice: models.User, clock: conftest.Clock) -> None:
    with director.database.session() as session:
        credits.adjust(session, alice.uid, -9, clock(), "down to one")
    start_vm(director, conftest.application_of(director, alice))
    assert run_pass(director) == credits.Charged(entries=1)
    clock.forward(minutes=59, seconds=59)
    assert run_pass(director) == credits.Charged()
    clock.forward(seconds=1)
    assert run_pass(director) == credits.Charged(entries=0, exhausted=[alice.uid])
    assert balance(director, alice) == 0


def test_an_outage_charges_what_can_be_paid_and_then_reports_exhaustion(
    director: runtime.Director, alice: models.User, bob: models.User, clock: conftest.Clock
) -> None:
    start_vm(director, conftest.application_of(director, alice), vmid="1")
    start_vm(director, conftest.application_of(director, bob), vmid="2")
    clock.forward(hours=9, minutes=30)
    assert run_pass(director) == credits.Charged(entries=20)
    clock.forward(days=400)
    assert run_pass(director).exhausted == [alice.uid, bob.uid]
    assert balance(director, alice) == balance(director, bob) == 0


def test_exhausted_users_are_handed_over_and_one_failure_hides_no_other(
    director: runtime.Director, alice: models.User, bob: models.User, clock: conftest.Clock
) -> None:
    stopped = []

    def stop(uid: int) -> None:
        if uid == alice.uid:
            raise errors.OperationFailed("no")
        stopped.append(uid)

    director.on_exhausted(stop)
    start_vm(director, conftest.application_of(director, alice), vmid="1")
    start_vm(director, conftest.application_of(director, bob), vmid="2")
    clock.forward(hours=30)
    director.run_loop_once("credits")
    assert stopped == [bob.uid]


def test_new_credits_end_the_exhaustion(director: runtime.Director, alice: models.User, clock: conftest.Clock) -> None:
    start_vm(director, conftest.application_of(director, alice))
    clock.forward(hours=10, minutes=1)
    assert run_pass(director).exhausted == [alice.uid]
    with director.database.session() as session:
        credits.adjust(session, alice.uid, 5, clock(), "gift")
    assert run_pass(director) == credits.Charged(entries=1)
    assert balance(director, alice) == 4


def test_settling_charges_the_last_hours_once_and_ends_the_account(
    director: runtime.Director, alice: models.User, clock: conftest.Clock
) -> None:
    rid = start_vm(director, conftest.application_of(director, alice))
    clock.forward(hours=2, minutes=10)
    for _ in range(2):
        with director.database.session() as session:
            credits.settle(session, session.get_one(models.Resource, rid), clock())
    clock.forward(hours=5)
    run_pass(director)
    assert hours(director, rid) == [0, 1, 2]
    assert balance(director, alice) == 7


def test_hours_that_nobody_can_pay_are_waived_when_settled(director: runtime.Director, alice: models.User, clock: conftest.Clock) -> None:
    rid = start_vm(director, conftest.application_of(director, alice))
    clock.forward(hours=11, minutes=5)
    run_pass(director)
    with director.database.session() as session:
        credits.settle(session, session.get_one(models.Resource, rid), clock())
        credits.adjust(session, alice.uid, 3, clock(), "later")
    run_pass(director)
    assert balance(director, alice) == 3
    assert hours(director, rid) == list(range(12))


def test_time_in_which_the_host_was_off_is_not_charged(director: runtime.Director, alice: models.User, clock: conftest.Clock) -> None:
    rid = start_vm(director, conftest.application_of(director, alice))
    clock.forward(minutes=30)
    for act, hours_later in ((credits.pause, 20), (credits.pause, 4), (credits.unpause, 0), (credits.unpause, 0)):
        with director.database.session() as session:
            act(session, "iaas", clock())
        clock.forward(hours=hours_later)
        run_pass(director)
    clock.forward(minutes=29, seconds=59)
    run_pass(director)
    assert hours(director, rid) == [0]
    clock.forward(seconds=1)
    run_pass(director)
    assert hours(director, rid) == [0, 1]


def test_a_vm_given_up_while_the_host_was_off_pays_until_then(
    director: runtime.Director, alice: models.User, clock: conftest.Clock
) -> None:
    rid = start_vm(director, conftest.application_of(director, alice))
    clock.forward(minutes=90)
    with director.database.session() as session:
        credits.pause(session, "iaas", clock())
        credits.pause(session, "other", clock())
    clock.forward(days=3)
    with director.database.session() as session:
        credits.settle(session, session.get_one(models.Resource, rid), clock())
    assert hours(director, rid) == [0, 1]


def test_the_ledger_outlives_the_vm(director: runtime.Director, alice: models.User, clock: conftest.Clock) -> None:
    rid = start_vm(director, conftest.application_of(director, alice))
    run_pass(director)
    with director.database.session() as session:
        session.delete(session.get_one(models.Resource, rid))
    assert start_vm(director, conftest.application_of(director, alice)) != rid
    run_pass(director)
    assert balance(director, alice) == 8


@pytest.mark.parametrize(("delta", "left"), [(5, 15), (-3, 7), (-10, 0), (-99, 0), (0, 10)])
def test_adjusting_never_goes_below_zero(director: runtime.Director, alice: models.User, delta: int, left: int) -> None:
    with director.database.session() as session:
        assert credits.adjust(session, alice.uid, delta, director.clock(), "why") == left
    assert balance(director, alice) == left


def test_taking_is_all_or_nothing(director: runtime.Director, alice: models.User) -> None:
    with director.database.session() as session:
        assert not credits.take(session, alice.uid, 11, director.clock(), "too many")
        assert credits.take(session, alice.uid, 10, director.clock(), "all")
        assert not credits.take(session, alice.uid, 1, director.clock(), "none is left")
    assert balance(director, alice) == 0


def test_requiring_more_than_there_is_has_the_classic_text(director: runtime.Director, alice: models.User) -> None:
    with director.database.reader() as session:
        credits.require(session, alice.uid, 10)
        with pytest.raises(errors.InsufficientCredits, match=r"^Insufficient credits$"):
            credits.require(session, alice.uid, 11)


def test_a_clock_that_goes_back_charges_nothing(director: runtime.Director, alice: models.User, clock: conftest.Clock) -> None:
    start_vm(director, conftest.application_of(director, alice))
    clock.now -= datetime.timedelta(hours=2)
    assert run_pass(director) == credits.Charged()


def test_a_user_is_charged_alone_when_named(director: runtime.Director, alice: models.User, bob: models.User) -> None:
    start_vm(director, conftest.application_of(director, alice), vmid="1")
    start_vm(director, conftest.application_of(director, bob), vmid="2")
    with director.database.session() as session:
        assert credits.charge_started_hours(session, director.clock(), uid=bob.uid).entries == 1
    assert (balance(director, alice), balance(director, bob)) == (10, 9)
