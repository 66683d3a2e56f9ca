"""Rates come from what counters grew by, and a server that was started again does not make them negative."""

from __future__ import annotations

import pathlib
from typing import Any

from conpaas.services.mysql.agent import figures, statement_time
from conpaas.services.mysql.manager import performance


def sample(when: float, **status: Any) -> statement_time.Sample:
    return statement_time.Sample(when, {name: str(value) for name, value in status.items()})


def test_rates_are_growth_a_second() -> None:
    found = figures.summary(
        sample(10, Questions=100, Slow_queries=1, wsrep_flow_control_paused_ns=0),
        sample(
            20, Questions=300, Slow_queries=2, wsrep_flow_control_paused_ns=5e9,
            Innodb_buffer_pool_reads=5, Innodb_buffer_pool_read_requests=100, Threads_connected=7,
        ),
    )  # fmt: skip
    assert found["seconds"] == 10
    assert found["rates"]["queries"] == 20
    assert found["rates"]["slow_queries"] == 0.1
    assert found["ratios"] == {"pool_hits": 0.95, "flow_control_paused": 0.5}
    assert found["values"] == {"threads_connected": 7.0}


def test_counters_are_told_as_the_classic_calls_want_them() -> None:
    found = figures.summary(sample(950), sample(1000, Questions=100, Uptime=50, Com_select=3, wsrep_local_recv_queue_avg="0.25"))
    assert (found["seconds"], found["rates"]["queries"]) == (50, 2)
    assert found["classic"] == {"load": "0.25", "select": "3", "insert": "0", "delete": "0", "update": "0"}


def test_nothing_is_negative_and_words_are_no_numbers() -> None:
    found = figures.summary(sample(1, Questions=100), sample(2, Questions=5, Com_insert="x"))
    assert min(found["rates"].values()) == 0
    assert found["ratios"]["pool_hits"] == 1


def test_rates_are_over_a_window_whoever_else_looks() -> None:
    watched = figures.Figures(pathlib.Path("/nowhere"), pathlib.Path("/nowhere"))
    compared = [watched._before(sample(when, Uptime=when)) for when in range(60)]
    assert compared[0] is None
    for now, before in enumerate(compared[11:], 11):
        assert before is not None
        assert 10 <= now - before.when <= 12
    assert len(watched._samples) <= 8
    assert watched._before(sample(60, Uptime=1)) is None


def test_a_statement_s_time_is_what_was_counted_between_two_looks() -> None:
    assert statement_time.between(sample(10, Questions=100, Busy_time=1.0), sample(20, Questions=300, Busy_time=1.5)) == 2.5
    assert statement_time.between(sample(10, Questions=100, Busy_time=1.0), sample(20, Questions=100, Busy_time=1.0)) is None


def test_members_that_have_not_counted_time_yet_are_no_reason_to_call_the_others_fast() -> None:
    figures_of = [{"rates": {"queries": 10.0}, "latency": 4.0}, {"rates": {"queries": 30.0}, "latency": None}]
    assert performance.together(figures_of)["response_time"] == 4
    assert performance.together(figures_of)["request_rate"] == 40
    assert performance.together(figures_of[1:])["response_time"] == 0
