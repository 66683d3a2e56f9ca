"""Logs that are rotated under a working nginx, and the figures drawn from them."""

from __future__ import annotations

import pathlib
import re
import time

import pytest

from conpaas.services.webservers.agent import rotation

from . import conftest


def test_a_log_that_grew_is_renamed_and_the_next_requests_go_to_a_new_one(node: conftest.Node, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rotation, "INTERVAL", 0.2)
    node.write("code-1", {"a.txt": "a"})
    role = node.proxy()
    role.configure(conftest.proxy_config())
    rotation.Rotation(node.paths, node.supervisor).cover("nginx-proxy", size="2k")
    log = node.paths.cache / "nginx-proxy-access.log"
    old = log.with_name(f"{log.name}.1")
    sent = 0

    def goes_on() -> bool:
        """Before nginx has heard of it, requests are still in the renamed file."""
        nonlocal sent
        sent += 1
        assert node.ask(f"/a.txt?n={sent}").status == 200
        return old.exists() and "n=" in node.log(log.name)

    conftest.until(goes_on, "the log was rotated, and nginx goes on in a new one")
    first = int(re.findall(r"n=(\d+) ", node.log(log.name))[0])
    assert f"n={first - 1} " in node.log(old.name), "no line is lost"
    conftest.until(lambda: role.performance(60)["requests"] >= 1, "figures go on")
    assert node.supervisor.status("logrotate").running


def test_covering_twice_is_covering_once_and_forgotten_is_forgotten(node: conftest.Node):
    it = rotation.Rotation(node.paths, node.supervisor)
    log = node.paths.cache / "x.log"
    for _ in range(2):
        it.cover("x", [log], signal="HUP")
    rule = node.paths.etc / "logrotate.d" / "x"
    assert f'"{log}" {{' in rule.read_text()
    assert "kill -HUP" in rule.read_text()
    conftest.until(lambda: node.supervisor.status("logrotate").running, "the loop runs")
    it.forget("x")
    it.forget("x")
    assert not rule.exists()


def test_figures_fit_a_known_set_of_requests(node: conftest.Node, make_fpm):
    node.write("code-1", {"s.php": "<?php usleep(100000); http_response_code((int) $_GET['s']);", "a.bin": b"x" * 10_240})
    fpm = make_fpm(node.address)
    role = node.proxy()
    role.configure(conftest.proxy_config(backends=(fpm.upstream,)))
    began = time.time()
    for _ in range(10):
        node.ask("/a.bin")
    for status in (200, 200, 200, 404, 500, 503):
        node.ask(f"/s.php?s={status}")
    figures = conftest.until(lambda: (found := role.performance(60))["requests"] == 16 and found, "all are in the log", 5)
    assert time.time() - began < 5
    assert figures["request_rate"] == pytest.approx(16 / 60, abs=0.001)
    assert figures["error_rate"] == pytest.approx(2 / 60, abs=0.001)
    assert figures["static"]["requests"] == 10
    assert 10 * 10 / 60 < figures["static"]["throughput"] < 10 * 11 / 60
    assert figures["static"]["error_rate"] == 0
    assert figures["dynamic"]["requests"] == 6
    assert 99 < figures["dynamic"]["p50"] < 300
    assert figures["dynamic"]["p50"] <= figures["dynamic"]["p95"] <= figures["dynamic"]["p99"]
    assert figures["p50"] < 20, "most requests were for a file"


def test_paths_that_cannot_be_written_into_a_rule_are_refused(node: conftest.Node):
    with pytest.raises(Exception, match="cannot be rotated"):
        rotation.Rotation(node.paths, node.supervisor).cover("x", [pathlib.Path('/tmp/a"\n}.log')])
