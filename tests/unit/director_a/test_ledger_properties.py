"""Whatever happens in whatever order, the ledger holds each VM's started hours once, and nobody spends what is not there."""

from __future__ import annotations

import datetime
import pathlib
import tempfile

import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from conpaas.director import credits, db, models

START = datetime.datetime(2026, 3, 29, 0, 30, tzinfo=datetime.UTC)  # the night in which European clocks jump
EVENTS = st.one_of(
    st.tuples(st.just("wait"), st.integers(0, 400)),
    st.tuples(st.just("pass"), st.integers(1, 3)),
    st.tuples(st.just("start"), st.just(0)),
    st.tuples(st.just("settle"), st.integers(0, 5)),
    st.tuples(st.just("grant"), st.integers(-5, 10)),
)


class World:
    """One user with VMs, and what the ledger must say."""

    def __init__(self, directory: str, credit: int) -> None:
        self.database = db.open(f"sqlite:///{pathlib.Path(directory) / 'd.db'}")
        self.now = START
        self.vms: list[tuple[int, datetime.datetime, datetime.datetime | None]] = []
        with self.database.session() as session:
            session.add(models.User(username="a", username_key="a", email="a", email_key="a", password="x"))
            session.flush()
            session.add(models.Application(name="app", user_id=1))
            credits.grant(session, 1, credit, self.now)

    def happen(self, event: str, number: int) -> None:
        if event == "wait":
            self.now += datetime.timedelta(minutes=number)
            return
        with self.database.session() as session:
            if event == "pass":
                for _ in range(number):
                    credits.charge_started_hours(session, self.now)
            elif event == "grant":
                credits.adjust(session, 1, number, self.now, "test")
            elif event == "start":
                vm = models.Resource(vmid=str(len(self.vms)), cloud="iaas", app_id=1, role="agent", state="running", created=self.now)
                session.add(vm)
                session.flush()
                self.vms.append((vm.rid, self.now, None))
            elif number < len(self.vms) and self.vms[number][2] is None:
                rid, created, _ = self.vms[number]
                credits.settle(session, session.get_one(models.Resource, rid), self.now)
                self.vms[number] = (rid, created, self.now)

    def check(self) -> None:
        with self.database.reader() as session:
            assert credits.balance(session, 1) >= 0
            for rid, created, ended in self.vms:
                hours = session.scalars(
                    sa.select(models.LedgerEntry.hour_index).filter_by(rid=rid).order_by(models.LedgerEntry.hour_index)
                ).all()
                started = ((ended or self.now) - created) // datetime.timedelta(hours=1) + 1
                assert list(hours) == list(range(len(hours))), "each hour once, without gaps"
                assert len(hours) <= started
                if ended is not None:
                    assert len(hours) == started, "a settled account is complete"

    def check_after_a_pass(self) -> None:
        with self.database.session() as session:
            charged = credits.charge_started_hours(session, self.now)
            rich = credits.balance(session, 1) > 0
        if rich:
            assert charged.exhausted == []
            with self.database.reader() as session:
                for rid, created, ended in self.vms:
                    written = session.scalar(sa.select(sa.func.count()).where(models.LedgerEntry.rid == rid))
                    assert written == ((ended or self.now) - created) // datetime.timedelta(hours=1) + 1


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 30), st.lists(EVENTS, max_size=25))
def test_the_ledger_is_exact(credit: int, events: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = World(directory, credit)
        for event, number in events:
            world.happen(event, number)
            world.check()
        world.check_after_a_pass()
        world.database.close()
