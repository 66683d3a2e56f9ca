"""The page of a daemon's numbers."""

from __future__ import annotations

import re
import threading

import pytest

from conpaas.core import metrics

SAMPLE = re.compile(r'[a-zA-Z_:][a-zA-Z0-9_:]*(\{[a-zA-Z_]\w*="(\\.|[^"\\\n])*"(,[a-zA-Z_]\w*="(\\.|[^"\\\n])*")*\})? \S+')


@pytest.fixture(autouse=True)
def _own_collectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_collectors", [])


def test_a_process_tells_what_it_uses():
    numbers = {line.split()[0]: float(line.split()[1]) for line in metrics.render().splitlines() if not line.startswith("#")}
    assert numbers["process_resident_memory_bytes"] > 1e6
    assert numbers["process_threads"] >= 1
    assert numbers["process_open_fds"] >= 3
    assert numbers["process_start_time_seconds"] > 1.6e9
    assert numbers["process_cpu_seconds_total"] >= 0


def test_every_line_is_valid_and_every_name_announced_once():
    counter = metrics.Counter("conpaas_calls_total")
    counter.add(method='a"b\\c\nd', result="ok")
    counter.add(2.5, result="failed", method="x")
    metrics.collect(lambda: [("conpaas_nodes", (), 3)])
    lines = metrics.render().splitlines()
    samples = [line for line in lines if not line.startswith("#")]
    assert all(SAMPLE.fullmatch(line) for line in samples), samples
    assert lines.count("# TYPE conpaas_calls_total counter") == 1
    assert lines.count("# TYPE conpaas_nodes gauge") == 1
    assert r'conpaas_calls_total{method="a\"b\\c\nd",result="ok"} 1' in lines


def test_large_counts_lose_nothing():
    counter = metrics.Counter("conpaas_calls_total")
    counter.add(12_345_678.0, method="x")
    assert 'conpaas_calls_total{method="x"} 12345678' in metrics.render()


def test_counts_from_many_threads_add_up():
    counter = metrics.Counter("conpaas_calls_total")
    threads = [threading.Thread(target=lambda: [counter.add(method="x") for _ in range(1000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.samples() == [("conpaas_calls_total", (("method", "x"),), 8000.0)]


def test_one_broken_source_does_not_hide_the_others():
    metrics.collect(lambda: [("conpaas_a", (), 1)])

    def broken() -> list[metrics.Sample]:
        raise OSError("gone")

    metrics.collect(broken)
    metrics.collect(lambda: [("conpaas_b", (), 1)])
    page = metrics.render()
    assert "conpaas_a 1" in page
    assert "conpaas_b 1" in page
