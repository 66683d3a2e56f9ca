"""A PHP site on a whole platform, as its developer and its visitors see it: deploy, scale, settings, faults, and no request that fails."""

from __future__ import annotations

import os
import pathlib
import re
import signal
from collections.abc import Iterator

import pytest

from tests.support import consistency, load, sites
from tests.support import platform as platforms

APP = "shop"
COUNTER = """<?php session_start(); $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1;
header('Content-Type: text/plain'); echo gethostbyname($_SERVER['SERVER_ADDR'] ?? ''), ' visit ', $_SESSION['n'];"""
PAGE = "<?php header('Content-Type: text/plain'); echo 'version {} on ', getenv('CONPAAS_NODE') ?: 'a node', ' ', getenv('GREETING');"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[platforms.Platform]:
    watch = {"HEALTH_INTERVAL": "1", "NODE_LOST_AFTER": "4"}
    with platforms.platform(tmp_path_factory.mktemp("php"), 97, manager=watch) as made:
        made.cps("application", "create", APP)
        made.cps("application", "start", APP)
        yield made


@pytest.fixture
def site(platform: platforms.Platform) -> Iterator[sites.Site]:
    made = sites.Site(platform, APP)
    made.cps("start")
    yield made
    made.stop()
    consistency.assert_consistent(platform)


def page(tmp_path: pathlib.Path, name: str, **more: str) -> pathlib.Path:
    files = {"index.php": PAGE.format(name), "style.css": "body {}", **{key.replace("__", "."): value for key, value in more.items()}}
    return sites.archive(tmp_path / f"{name}.tar.gz", files)


def test_a_site_from_its_welcome_page_to_three_backends(site: sites.Site, tmp_path: pathlib.Path) -> None:
    assert "Welcome to ConPaaS!" in site.visitor().ask().body
    first = site.deploy(page(tmp_path, "one"))
    visitor = site.visitor()
    assert visitor.ask().body.startswith("version one")
    assert visitor.ask("/style.css").headers["content-type"].startswith("text/css")
    assert visitor.ask("/some/pretty/url?x=1").body.startswith("version one")
    site.cps("add_nodes", "--backend", "1")
    assert {role: len(ids) for role, ids in site.nodes().items()} == {"proxy": 1, "web": 1, "backend": 1}, (
        "the first one takes the role over"
    )
    site.cps("add_nodes", "--backend", "2", "--web", "1")
    assert {role: len(ids) for role, ids in site.nodes().items()} == {"proxy": 1, "web": 1, "backend": 3}
    assert visitor.ask().body.startswith("version one")
    second = site.deploy(page(tmp_path, "two"))
    assert visitor.ask().body.startswith("version two")
    site.cps("rollback")
    assert visitor.ask().body.startswith("version one")
    codes = {one["codeVersionId"]: one["current"] for one in site.data("list_codes")}
    assert codes[first] and not codes[second]
    site.cps("remove_nodes", "--backend", "3", "--web", "1")
    assert {role: len(ids) for role, ids in site.nodes().items()} == {"proxy": 1, "web": 1, "backend": 1}
    assert visitor.ask().body.startswith("version one")


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"index.php": "<?php this is no php"}, r"Parse error|syntax error"),
        ({"index.php": "<?php throw new Exception('out of order');"}, r"out of order"),
        ({"index.php": "<?php sleep(600);"}, r"no answer|did not answer|answer within"),
    ],
    ids=["a syntax error", "an exception", "never answers"],
)
def test_a_version_that_fails_its_check_is_never_switched_to(
    site: sites.Site, tmp_path: pathlib.Path, files: dict[str, str], reason: str
) -> None:
    site.deploy(page(tmp_path, "good"))
    bad = site.upload(sites.archive(tmp_path / "bad.tar.gz", files))
    with load.steady(site.visitor().address, load.Target(good=lambda status, body: body.startswith(b"version good")), rate=50) as outcome:
        refused = site.cps("enable_code", bad, check=False)
    assert refused.code == 1 and "FAILED!" in refused.out + refused.err, refused
    assert re.search(reason, refused.out + refused.err), refused
    assert not outcome.failures, outcome.told()
    assert site.state == "RUNNING"
    assert next(one for one in site.data("list_codes") if one["codeVersionId"] == bad)["current"] is False


def test_debug_mode_does_not_let_a_broken_version_pass(site: sites.Site, tmp_path: pathlib.Path) -> None:
    site.deploy(page(tmp_path, "good"))
    site.cps("debug", "on")
    bad = site.upload(sites.archive(tmp_path / "bad.tar.gz", {"index.php": "<?php broken("}))
    assert site.cps("enable_code", bad, check=False).code == 1
    assert site.visitor().ask().body.startswith("version good")


def test_settings_reach_the_code_and_secrets_stay_secret(site: sites.Site, tmp_path: pathlib.Path) -> None:
    show = "<?php echo getenv('GREETING'), '|', getenv('TOKEN'), '|', ini_get('memory_limit'), '|', ini_get('display_errors');"
    site.deploy(sites.archive(tmp_path / "env.tar.gz", {"index.php": show, "public/index.php": "<?php echo 'from public';"}))
    text = 'it\'s "quoted" $HOME; 100% # \\ ü'
    site.cps("env", f"GREETING={text}")
    site.platform.run("cps-tools", "php", "env", APP, site.sid, "--secret", "TOKEN", stdin="hunter2\n")
    site.cps("set_php_config", "memory_limit=256M")
    site.cps("debug", "on")
    assert site.visitor().ask().body == f"{text}|hunter2|256M|1"
    listed = site.cps("env").out
    assert text in listed and "TOKEN" in listed and "hunter2" not in listed
    refused = site.cps("set_php_config", "memory_limit=1M\nauto_prepend_file=/etc/passwd", check=False)
    assert refused.code != 0 and "memory_limit" in refused.err
    site.cps("settings", "documentRoot=public")
    assert site.visitor().ask().body == "from public"


def test_what_must_not_be_served_is_not(site: sites.Site, tmp_path: pathlib.Path) -> None:
    secret = {".env": "K=V", ".git/config": "x", "WEB-INF/web.xml": "x", "sub/.htpasswd": "x", ".well-known/hello.txt": "hello"}
    site.deploy(sites.archive(tmp_path / "secrets.tar.gz", {"index.html": "home", "lib.php": "<?php echo 'ran';", **secret}))
    visitor = site.visitor()
    assert {path: visitor.ask(f"/{path}").status for path in secret} == {
        path: (200 if path.startswith(".well-known") else 404) for path in secret
    }
    assert visitor.ask("/lib.php").body == "ran"


def test_sessions_survive_any_node_and_every_change(site: sites.Site, tmp_path: pathlib.Path) -> None:  # D27
    site.deploy(sites.archive(tmp_path / "counter.tar.gz", {"index.php": COUNTER}))
    site.cps("add_nodes", "--backend", "3")
    visitor = site.visitor()
    counts = [int(visitor.ask().body.rpartition(" ")[2]) for _ in range(9)]
    assert counts == list(range(1, 10)), "shared by all backends"
    backends = sorted(site.nodes()["backend"])
    for node in backends:
        kill(site, node)
        assert int(visitor.ask().body.rpartition(" ")[2]) == counts[-1] + 1
        counts.append(counts[-1] + 1)
        await_replacement(site, "backend", node, 3)
    site.deploy(sites.archive(tmp_path / "counter2.tar.gz", {"index.php": COUNTER + " echo ' again';"}))
    assert f"visit {counts[-1] + 1} again" in visitor.ask().body


def kill(site: sites.Site, node: str) -> None:
    """End a node's VM as a power failure would."""
    guard = int((site.vm_directory(node) / "pid").read_text())
    os.kill(guard, signal.SIGKILL)


def lose(site: sites.Site, role: str, node: str) -> None:
    """Kill a node and wait until it is replaced."""
    count = len(site.nodes()[role])
    kill(site, node)
    await_replacement(site, role, node, count)


def await_replacement(site: sites.Site, role: str, node: str, count: int) -> None:
    def replaced() -> bool:
        now = site.nodes().get(role, set())
        return site.state == "RUNNING" and node not in now and len(now) == count

    platforms.until(replaced, f"the {role} {node} is replaced")


def test_no_request_fails_while_everything_changes(site: sites.Site, tmp_path: pathlib.Path) -> None:  # D9, D10
    one, two = page(tmp_path, "one"), page(tmp_path, "two")
    site.deploy(one)
    site.cps("add_nodes", "--backend", "2", "--web", "1")
    targets = [
        load.Target("/", good=lambda status, body: status == 200 and body.startswith(b"version")),
        load.Target("/style.css", good=lambda status, body: body == b"body {}"),
        load.Target("/pretty?a=b", good=lambda status, body: status == 200 and body.startswith(b"version")),
    ]
    with load.steady(site.visitor().address, *targets, rate=100, timeout=20) as outcome:
        site.cps("add_nodes", "--backend", "1")
        site.deploy(two)
        site.cps("rollback")
        site.cps("debug", "on")
        site.cps("env", "GREETING=hello")
        lose(site, "backend", sorted(site.nodes()["backend"])[-1])
        lose(site, "web", sorted(site.nodes()["web"])[-1])
        site.cps("add_nodes", "--proxy", "1")
        site.cps("remove_nodes", "--proxy", "1")
        site.cps("remove_nodes", "--backend", "3", "--web", "1")
    assert not outcome.failures, outcome.told()
    assert outcome.sent > 500


def test_two_changes_at_once_and_a_domain_of_somebody_else(platform: platforms.Platform, site: sites.Site, tmp_path: pathlib.Path) -> None:
    first, second = site.upload(page(tmp_path, "one")), site.upload(page(tmp_path, "two"))
    platform.cps("--no-wait", "php", "enable_code", APP, site.sid, first)
    clash = platform.cps("php", "enable_code", APP, site.sid, second, check=False)
    assert clash.code != 0 and "Wrong service state" in clash.err, clash
    platforms.until(lambda: site.state == "RUNNING", "the first is enabled")
    other = sites.Site(platform, APP)
    site.cps("domains", "add", "www.example.org")
    refused = other.cps("domains", "add", "www.example.org", check=False)
    assert refused.code != 0 and "www.example.org" in refused.err, refused
    site.cps("domains", "remove", "www.example.org")
    other.cps("domains", "add", "www.example.org")
    other.cps("remove")


def test_logs_and_figures_are_measured(site: sites.Site, tmp_path: pathlib.Path) -> None:  # D29
    broken = "<?php error_log('something odd'); if (($_GET['x'] ?? '') === 'bad') { http_response_code(503); } echo 'ok';"
    site.deploy(sites.archive(tmp_path / "log.tar.gz", {"index.php": broken}))
    with load.steady(site.visitor().address, load.Target("/"), rate=50) as outcome:
        platforms.until(lambda: outcome.sent >= 100, "a hundred requests")
    for _ in range(5):
        assert site.visitor().ask("/?x=bad").status == 503

    def measured() -> bool:
        found = site.data("performance")["service"] if "service" in site.data("performance") else site.data("performance")
        return bool(found["request_rate"] > 0 and found["error_rate"] > 0 and found["response_time"] > 0)

    platforms.until(measured, "the figures show it")
    (node,) = site.nodes()["proxy"]
    platforms.until(lambda: "GET /?x=bad" in site.cps("get_agent_log", node, "-f", "nginx-proxy-access.log").out, "the access log has it")
    names = {row["filename"] for row in site.data("list_agent_logs", node)}
    assert {"nginx-proxy-access.log", "fpm-access.log", "fpm-error.log", "cpsagent.log"} <= names
    found = [name for name in sorted(names) if "something odd" in site.cps("get_agent_log", node, "-f", name).out]
    assert found, f"the application's own words are in none of {sorted(names)}"
