"""Sites that move from one cloud to another under load, on a whole platform with two clouds: no request fails, no session is lost."""

from __future__ import annotations

import pathlib
import urllib.parse
from collections.abc import Iterator

import pytest

from tests.support import consistency, load, sites
from tests.support import platform as platforms

APP = "shop"
OTHER = "two"
PAGE = """<?php session_start(); $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1; echo 'visit ', $_SESSION['n'];"""
TARGET = load.Target(good=lambda status, body: (status, body) == (200, b"visit 1"))
DELAY = 12


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[platforms.Platform]:
    with platforms.platform(tmp_path_factory.mktemp("moves"), 118, manager={"HEALTH_INTERVAL": "1"}, other=OTHER) as made:
        made.cps("application", "create", APP)
        made.cps("application", "start", APP)
        yield made


@pytest.fixture
def site(platform: platforms.Platform, tmp_path: pathlib.Path) -> Iterator[sites.Site]:
    made = sites.Site(platform, APP)
    made.cps("start")
    made.deploy(sites.archive(tmp_path / "site.tar.gz", {"index.php": PAGE}))
    yield made
    made.stop()
    consistency.assert_consistent(platform)


def address(url: str) -> tuple[str, int]:
    parts = urllib.parse.urlsplit(url)
    return str(parts.hostname), parts.port or 80


def clouds(site: sites.Site) -> dict[str, str]:
    """The clouds of the nodes, by node id."""
    return {row["agent_id"]: row["cloud"] for row in site.data("list_nodes")}


def test_a_site_moves_with_its_address_and_visitors_follow(site: sites.Site) -> None:
    (former,) = clouds(site)
    first = site.url
    visitor = site.visitor()
    assert visitor.ask().body == "visit 1"
    with load.steady(address(first), TARGET, rate=20) as before:
        site.cps("migrate_nodes", f"default:{former}:{OTHER}", "--delay", str(DELAY))
        assert site.state == "RUNNING"
        second = site.url
        assert second != first
    with load.steady(address(second), TARGET, rate=20) as after:
        platforms.until(lambda: former not in clouds(site), f"{former} leaves")
    for outcome in (before, after):
        assert outcome.sent
        assert not outcome.failures, outcome.told()
    assert set(clouds(site).values()) == {OTHER}
    assert site.data("open") == [second]
    visitor.address = address(second)
    assert visitor.ask().body == "visit 2", "the session has moved, too"


def test_what_is_behind_the_address_moves_at_once_and_nobody_notices(site: sites.Site) -> None:
    site.cps("add_nodes", "--backend", "1")
    (backend,) = site.nodes()["backend"]
    with load.steady(address(site.url), TARGET, rate=20) as outcome:
        site.cps("migrate_nodes", f"default:{backend}:{OTHER}")
    assert outcome.sent
    assert not outcome.failures, outcome.told()
    (heir,) = site.nodes()["backend"]
    assert clouds(site)[heir] == OTHER


def test_a_cloud_that_has_no_room_changes_nothing(site: sites.Site) -> None:
    before = clouds(site)
    (former,) = before
    site.platform.cloud_faults(OTHER, fail_create=1)
    refused = site.cps("migrate_nodes", f"default:{former}:{OTHER}", check=False)
    site.platform.cloud_faults(OTHER)
    assert refused.code
    assert clouds(site) == before
    assert site.state == "RUNNING"
    assert site.visitor().ask().body == "visit 1"
