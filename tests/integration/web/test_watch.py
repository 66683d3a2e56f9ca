"""Backends and web servers that die, freeze and come back under a proxy's eyes."""

from __future__ import annotations

import http.server
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable

import pytest

from conpaas.services.webservers import spec

from . import conftest


@pytest.fixture
def site(node: conftest.Node, make_fpm: Callable[..., conftest.Fpm]) -> tuple[conftest.Node, list[conftest.Fpm]]:
    """A proxy with three real php-fpm."""
    node.write("code-1", {"index.php": "<?php echo $_SERVER['SERVER_ADDR'], getmypid();"})
    pools = [make_fpm() for _ in range(3)]
    return node, pools


def configure(node: conftest.Node, pools: list[conftest.Fpm], serial: int = 1):
    role = node.proxy()
    role.configure(conftest.proxy_config(serial, backends=tuple(pool.upstream for pool in pools)))
    return role


def test_a_frozen_backend_is_out_within_two_seconds_and_comes_back(site):
    node, pools = site
    role = configure(node, pools)
    assert role.state()["down"] == []
    pools[0].signal(signal.SIGSTOP)
    conftest.until(lambda: role.state()["down"] == [pools[0].upstream.address], "it is out")
    for _ in range(12):
        assert node.ask("/", timeout=2).status == 200, "nobody waits for it"
    pools[0].signal(signal.SIGCONT)
    conftest.until(lambda: role.state()["down"] == [], "it is back", 5)
    assert role.state()["serial"] == 1
    assert "weight=100 max_fails=2 fail_timeout=1s;" in (node.paths.cache / "nginx-proxy.conf").read_text()


def test_a_dead_backend_is_out_at_once_and_nothing_fails(site):
    node, pools = site
    role = configure(node, pools)
    pools[1].kill()
    began = time.monotonic()
    failed = 0
    while role.state()["down"] != [pools[1].upstream.address]:
        assert time.monotonic() - began < 15
        failed += node.ask("/").status != 200
    assert failed == 0
    pools[1].start()
    conftest.until(lambda: role.state()["down"] == [], "it is back", 5)


def test_the_last_one_stays(site):
    node, pools = site
    role = configure(node, pools)
    for pool in pools:
        pool.kill()
    conftest.until(lambda: node.ask("/").status == 502, "nobody is left")
    pools[2].start()
    conftest.until(lambda: node.ask("/").status == 200, "whoever comes back serves", 5)
    conftest.until(lambda: len(role.state()["down"]) == 2, "and the others are out", 5)


def test_all_that_are_slow_stay_in(node: conftest.Node, make_toy: Callable[..., conftest.Toy]):
    """Servers that have too much to do answer the watch late. To send their requests to the rest would bring that down, too."""
    node.write("code-1", {"WEB-INF/web.xml": "<web-app/>"})
    slow = threading.Event()
    asked = threading.Semaphore(0)

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.path.startswith("/.conpaas") and slow.is_set():
            asked.release()
            time.sleep(1)
        conftest.send(handler, 200, b"x")

    toys = [make_toy(answer), make_toy(answer), make_toy()]
    role = node.proxy()
    role.configure(conftest.proxy_config(backends=tuple(toy.upstream for toy in toys), kind="java"))
    slow.set()
    for _ in range(10):
        assert asked.acquire(timeout=10)
    assert role.state()["down"] == []


def test_reloads_are_few(site):
    node, pools = site
    role = configure(node, pools)
    master = node.supervisor.status("nginx-proxy").pid
    pools[0].kill()
    conftest.until(lambda: role.state()["down"], "it is out")
    workers = _workers(master)
    began = time.monotonic()
    conftest.until(lambda: time.monotonic() - began > 1.5, "some rounds have passed")
    assert _workers(master) == workers, "what is known changes nothing"


def _workers(master: int | None) -> list[str]:
    children = pathlib.Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return sorted(pid for pid in children if _is_serving(pid))


def _is_serving(pid: str) -> bool:
    try:
        return "shutting down" not in pathlib.Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


def test_a_restarted_agent_goes_on_watching(site):
    node, pools = site
    configure(node, pools).close()
    again = node.proxy()
    again.resume()
    pools[0].kill()
    conftest.until(lambda: again.state()["down"] == [pools[0].upstream.address], "it is out", 5)
    again.close()
    third = node.proxy()
    third.resume()
    pools[0].start()
    conftest.until(lambda: " down;" not in (node.paths.cache / "nginx-proxy.conf").read_text(), "what the former left out is in again", 5)


def test_a_dead_web_server_is_out_too(make_node: Callable[..., conftest.Node]):
    front, *others = (make_node() for _ in range(3))
    for one in (front, *others):
        one.write("code-1", {"a.txt": "a"})
    webs = [one.static() for one in others]
    upstreams = tuple(
        spec.Upstream(one.address, web.configure(["code-1"], spec.SiteSettings())) for one, web in zip(others, webs, strict=True)
    )
    role = front.proxy()
    role.configure(conftest.proxy_config(web=upstreams))
    os.kill(others[0].supervisor.status("nginx-static").pid or 0, signal.SIGSTOP)
    for child in _workers(others[0].supervisor.status("nginx-static").pid):
        os.kill(int(child), signal.SIGSTOP)
    conftest.until(lambda: role.state()["down"] == [upstreams[0].address], "it is out", 3)
    assert front.ask("/a.txt", timeout=2).text == "a"
    for child in [*_workers(others[0].supervisor.status("nginx-static").pid), others[0].supervisor.status("nginx-static").pid]:
        os.kill(int(child or 0), signal.SIGCONT)
    conftest.until(lambda: role.state()["down"] == [], "it is back", 5)


def test_pages_under_way_on_a_backend_that_is_killed_are_made_by_another(site):
    node, pools = site
    node.write("code-1", {"slow.php": "<?php while (!is_file(__DIR__ . '/release')) { usleep(10000); clearstatcache(); } echo 'done';"})
    configure(node, pools)
    answers: list[tuple[str, int]] = []

    def get(method: str) -> None:
        answers.append((method, node.ask("/slow.php", method=method, body=b"x" if method == "POST" else None).status))

    threads = []
    for count, method in enumerate(("GET", "POST"), 1):
        begun = [threading.Thread(target=get, args=(method,)) for _ in pools]
        threads += begun
        for thread in begun:
            thread.start()
        conftest.until(lambda count=count: all(_busy(pool) >= count for pool in pools), f"each backend has a {method} to do")
    pools[0].kill()
    node.write("code-1", {"release": ""})
    for thread in threads:
        thread.join()
    assert [status for method, status in answers if method == "GET"] == [200, 200, 200]
    assert sorted(status for method, status in answers if method == "POST") == [200, 200, 502], "nobody knows how far it was"


def _busy(pool: conftest.Fpm) -> int:
    """How many connections a pool has taken."""
    lines = pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]
    local = "".join(f"{int(part):02X}" for part in reversed(pool.ip.split("."))) + f":{pool.port:04X}"
    return sum(1 for line in lines if line.split()[1] == local and line.split()[3] == "01")
