"""Figures out of a timed log, whatever is in it."""

from __future__ import annotations

import pathlib

import hypothesis
import pytest
from hypothesis import strategies

from conpaas.services.webservers.agent import measure

NOW = 1_800_000_000.0


def line(kind: str = "static", status: int = 200, size: int = 1024, ago: float = 1.0, seconds: float = 0.01, upstream: str = "-") -> str:
    return f"{kind} {status} {size} {upstream} {NOW - ago:.3f} {seconds:.3f}\n"


def figures(tmp_path: pathlib.Path, *lines: str, window: float = 10) -> dict:
    log = tmp_path / "timed.log"
    log.write_text("".join(lines))
    return measure.performance(log, window, NOW)


def test_no_log_no_requests(tmp_path: pathlib.Path):
    found = measure.performance(tmp_path / "none.log", 10, NOW)
    assert (found["requests"], found["request_rate"], found["p99"], found["static"]["requests"]) == (0, 0, 0, 0)


def test_rates_sizes_and_times(tmp_path: pathlib.Path):
    lines = [line(seconds=number / 1000) for number in range(1, 101)]
    found = figures(tmp_path, *lines, line("dynamic", 503, 2048, 2, 1.0, "127.0.0.1:1, 127.0.0.2:1 : 127.0.0.3:1"), line(ago=10.5))
    assert found["requests"] == 101
    assert found["request_rate"] == 10.1
    assert found["error_rate"] == 0.1
    assert found["throughput"] == pytest.approx(10.2)
    assert found["response_time"] == pytest.approx((5050 + 1000) / 101, abs=0.001)
    static = found["static"]
    assert (static["p50"], static["p95"], static["p99"], static["requests"], static["error_rate"]) == (50, 95, 99, 100, 0)
    assert found["dynamic"]["p50"] == 1000
    assert found["window"] == 10


def test_rubbish_is_passed_over(tmp_path: pathlib.Path):
    rubbish = [
        "\n",
        "static 200\n",
        "static x y z 1 2\n",
        "other 200 1 - 1 1\n",
        "static 200 1 - nan inf\n",
        "\0\0\0\0",
        "é" * 50 + "\n",
        line()[:20],
    ]
    assert figures(tmp_path, *rubbish[:-1], "\n", line(), rubbish[-1])["requests"] == 1


def test_a_log_that_was_just_rotated_counts_with_the_one_before(tmp_path: pathlib.Path):
    (tmp_path / "timed.log.1").write_text(line(ago=5) * 3)
    assert figures(tmp_path, line(ago=1))["requests"] == 4
    (tmp_path / "timed.log").unlink()
    assert measure.performance(tmp_path / "timed.log", 10, NOW)["requests"] == 3


def test_of_a_long_log_only_the_end_is_read_and_the_window_says_so(tmp_path: pathlib.Path):
    one = len(line())
    count = measure.LIMIT // one + 5000
    lines = [line(ago=100 * (count - number) / count) for number in range(count)]
    found = figures(tmp_path, *lines, window=100)
    assert found["requests"] < count
    assert found["window"] < 100
    assert found["request_rate"] == pytest.approx(count / 100, rel=0.01)


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(strategies.binary(max_size=300))
def test_any_bytes_are_survived(tmp_path: pathlib.Path, content: bytes):
    log = tmp_path / "timed.log"
    log.write_bytes(content + b"\n" + line().encode())
    assert measure.performance(log, 10, NOW)["requests"] >= 1


@hypothesis.given(strategies.lists(strategies.floats(0, 1000), min_size=1), strategies.floats(0.01, 1))
def test_a_percentile_is_one_of_the_values_that_enough_do_not_exceed(values: list[float], share: float):
    ordered = sorted(values)
    found = measure.percentile(ordered, share)
    assert found in ordered
    assert sum(1 for value in ordered if value <= found) >= share * len(ordered) - 1e-6
