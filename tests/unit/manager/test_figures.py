"""What charts showed before anybody looked: measured once a minute, kept for a day."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from conpaas import testing
from conpaas.core import errors, expose, figures, manager, pages, services
from conpaas.core.state import store

CHART = pages.Chart("Work", "get_work", (pages.Value("done.count", "done"), pages.Value("late", "late")), unit="/s")
PAGE = pages.Page(panels=(pages.Panel("Work", (CHART, pages.Chart("Again", "get_work", (pages.Value("late", "late"),)))),))


SERVICE = 1


@pytest.fixture
def opened(tmp_path: pathlib.Path) -> Iterator[store.Store]:
    one = store.Store(tmp_path / "state.db")
    assert one.services.create("worker") == SERVICE
    yield one
    one.close()


def begun(kept: store.Store) -> figures.Figures:
    return figures.Figures(PAGE, kept.measurements, SERVICE)


class Measured:
    """A service whose work is what the test says; counts the questions."""

    def __init__(self) -> None:
        self.work: Any = {"done": {"count": 1}, "late": 2.5}
        self.asked = 0

    def __call__(self, method: str) -> Any:
        assert method == "get_work"
        self.asked += 1
        if isinstance(self.work, errors.ConPaaSError):
            raise self.work
        return self.work


def test_a_row_a_minute_whatever_happens(opened: store.Store) -> None:
    kept, service = begun(opened), Measured()
    for second in range(0, 300, 2):
        kept.measure(service, 1000.0 + second)
    assert service.asked == 5
    told = kept.tell("get_work", 3600, 100, 1300.0)
    assert told["columns"] == ["done.count", "late"]
    assert told["rows"] == [[1000 + 60 * number, 1.0, 2.5] for number in range(5)]
    assert kept.tell("get_work", 100, 100, 1300.0)["rows"] == [[1240, 1.0, 2.5]]


def test_what_cannot_be_measured_is_a_gap(opened: store.Store) -> None:
    kept, service = begun(opened), Measured()
    kept.measure(service, 0.0)
    service.work = errors.Unreachable("nobody there")
    for minute in range(1, 6):
        kept.measure(service, 60.0 * minute)
    service.work = {"done": "a lot", "late": True}
    kept.measure(service, 360.0)
    assert kept.tell("get_work", 3600, 100, 400.0)["rows"] == [[0, 1.0, 2.5], [180, None, None], [360, None, None]]


def test_many_rows_are_told_as_means_and_only_a_day_is_kept(opened: store.Store) -> None:
    kept, service = begun(opened), Measured()
    for minute in range(2000):
        service.work = {"done": {"count": minute}, "late": None}
        kept.measure(service, 60.0 * minute)
    now = 60.0 * 1999
    told = kept.tell("get_work", 86_400, 144, now)["rows"]
    assert len(told) == 144 or len(told) == 145
    assert [row[1] for row in told] == sorted(row[1] for row in told)
    assert told[0][1] >= 1999 - figures.KEPT and {row[2] for row in told} == {None}
    middle = told[70]
    assert middle[1] == pytest.approx(middle[0] / 60, abs=1)


def test_a_clock_that_is_put_back_does_not_stop_it(opened: store.Store) -> None:
    kept, service = begun(opened), Measured()
    kept.measure(service, 10_000_000.0)
    kept.measure(service, 0.0)
    assert service.asked == 2
    assert kept.tell("get_work", 60, 10, 0.0)["rows"] == [[0, 1.0, 2.5]]


def test_a_manager_that_starts_again_knows_the_day(opened: store.Store) -> None:
    before, service = begun(opened), Measured()
    for minute in range(2000):
        service.work = {"done": {"count": minute}, "late": None if minute % 2 else 0.5}
        before.measure(service, 60.0 * minute)
    now = 60.0 * 1999
    known = begun(opened)
    assert known.tell("get_work", 86_400, 500, now) == before.tell("get_work", 86_400, 500, now)
    asked = service.asked
    known.measure(service, now + 30)
    assert service.asked == asked, "the minute is not over"
    known.measure(service, now + 60)
    assert service.asked == asked + 1
    assert opened.db.row("SELECT count(*) FROM measurements")[0] == figures.KEPT  # type: ignore[index]


def test_a_chart_with_other_columns_keeps_those_that_it_had(opened: store.Store) -> None:
    begun(opened).measure(Measured(), 60.0)
    chart = pages.Chart("Work", "get_work", (pages.Value("new", "new"), pages.Value("late", "late")))
    known = figures.Figures(pages.Page(panels=(pages.Panel("Work", (chart,)),)), opened.measurements, SERVICE)
    assert known.tell("get_work", 60, 10, 60.0)["rows"] == [[60, None, 2.5]]


@pytest.mark.parametrize("broken", ["", "[1, 2]", "{", '{"late": "much"}', b"\xff\x00"])
def test_a_broken_row_is_left_out_and_logged(opened: store.Store, broken: str | bytes, caplog: pytest.LogCaptureFixture) -> None:
    before, service = begun(opened), Measured()
    before.measure(service, 60.0)
    before.measure(service, 120.0)
    opened.db.execute("UPDATE measurements SET numbers = ? WHERE at = 60", broken)
    assert begun(opened).tell("get_work", 3600, 100, 130.0)["rows"] == [[120, 1.0, 2.5]]
    assert "get_work of service 1 cannot be read" in caplog.text


def test_a_table_that_cannot_be_read_costs_the_past_only(
    opened: store.Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun(opened).measure(Measured(), 60.0)

    def broken(*_: object) -> None:
        raise errors.ConfigurationError("The store cannot be used: database disk image is malformed.")

    monkeypatch.setattr(opened.measurements, "list", broken)
    one = begun(opened)
    one.measure(Measured(), 120.0)
    assert one.tell("get_work", 3600, 100, 130.0)["rows"] == [[120, 1.0, 2.5]]
    assert "malformed" in caplog.text


def test_a_full_disk_costs_the_memory_of_a_chart_only(
    opened: store.Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise errors.StorageFull("There is no room left.")

    monkeypatch.setattr(opened.measurements, "add", full)
    one = begun(opened)
    one.measure(Measured(), 60.0)
    assert one.tell("get_work", 60, 10, 60.0)["rows"] == [[60, 1.0, 2.5]]
    assert "There is no room left." in caplog.text


def test_the_rows_of_a_removed_service_go_with_it(opened: store.Store) -> None:
    one = begun(opened)
    one.measure(Measured(), 60.0)
    opened.services.remove(SERVICE)
    one.measure(Measured(), 120.0)
    assert not opened.db.rows("SELECT * FROM measurements")


class Worker(manager.BaseManager):
    """A service with a chart."""

    @expose.expose("GET")
    def get_work(self) -> dict[str, Any]:
        return {"done": {"count": len(self.nodes)}, "late": 0}


def test_a_service_that_runs_is_measured_and_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services.ServiceType, "load_page", lambda self: PAGE)
    with testing.Harness(Worker) as harness:
        assert harness.call("get_figures", method="get_work")["rows"] == []
        harness.pass_time(200)
        assert harness.manager.figures.tell("get_work", 3600, 100, harness.clock())["rows"] == [], "not before it runs"
        harness.start()
        harness.pass_time(200)
        rows = harness.manager.figures.tell("get_work", 3600, 100, harness.clock())["rows"]
        assert 3 <= len(rows) <= 5 and {tuple(row[1:]) for row in rows} == {(1.0, 0.0)}
        with pytest.raises(errors.ConPaaSError, match="method"):
            harness.call("get_figures", method="list_nodes")


def test_a_page_that_cannot_be_loaded_takes_the_charts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: services.ServiceType) -> pages.Page:
        raise errors.NotFound("no page")

    monkeypatch.setattr(services.ServiceType, "load_page", broken)
    with testing.Harness(Worker) as harness:
        harness.start()
        assert harness.state == "RUNNING"
        assert harness.manager.figures.methods == []


def test_every_service_tells_what_its_machines_do() -> None:
    with testing.Harness(Worker) as harness:
        assert harness.call("get_machines") == {"cpu": None, "memory": None, "disk": None, "received": None, "sent": None, "nodes": {}}
        harness.start()
        told = harness.call("get_machines")
        assert set(told) == {"cpu", "memory", "disk", "received", "sent", "nodes"}
        assert harness.manager.figures.methods == ["get_machines"]
