"""What charts showed before anybody looked: measured once a minute, kept for a day."""

from __future__ import annotations

from typing import Any

import pytest

from conpaas import testing
from conpaas.core import errors, expose, figures, manager, pages, services

CHART = pages.Chart("Work", "get_work", (pages.Value("done.count", "done"), pages.Value("late", "late")), unit="/s")
PAGE = pages.Page(panels=(pages.Panel("Work", (CHART, pages.Chart("Again", "get_work", (pages.Value("late", "late"),)))),))


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


def test_a_row_a_minute_whatever_happens() -> None:
    kept, service = figures.Figures(PAGE), Measured()
    for second in range(0, 300, 2):
        kept.measure(service, 1000.0 + second)
    assert service.asked == 5
    told = kept.tell("get_work", 3600, 100, 1300.0)
    assert told["columns"] == ["done.count", "late"]
    assert told["rows"] == [[1000 + 60 * number, 1.0, 2.5] for number in range(5)]
    assert kept.tell("get_work", 100, 100, 1300.0)["rows"] == [[1240, 1.0, 2.5]]


def test_what_cannot_be_measured_is_a_gap() -> None:
    kept, service = figures.Figures(PAGE), Measured()
    kept.measure(service, 0.0)
    service.work = errors.Unreachable("nobody there")
    for minute in range(1, 6):
        kept.measure(service, 60.0 * minute)
    service.work = {"done": "a lot", "late": True}
    kept.measure(service, 360.0)
    assert kept.tell("get_work", 3600, 100, 400.0)["rows"] == [[0, 1.0, 2.5], [180, None, None], [360, None, None]]


def test_many_rows_are_told_as_means_and_only_a_day_is_kept() -> None:
    kept, service = figures.Figures(PAGE), Measured()
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


def test_a_clock_that_is_put_back_does_not_stop_it() -> None:
    kept, service = figures.Figures(PAGE), Measured()
    kept.measure(service, 10_000_000.0)
    kept.measure(service, 0.0)
    assert service.asked == 2
    assert kept.tell("get_work", 60, 10, 0.0)["rows"] == [[0, 1.0, 2.5]]


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
