"""The end of a user's credits on real VMs: services stop in order, and with new credits everything is there again."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support import consistency, keeping
from tests.support import platform as platforms

from .test_kept_disks import Keeper

KEYS = {"CREDIT_INTERVAL": "1"}


@pytest.fixture
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[platforms.Platform]:
    keys = {"cloud": {"VOLUMES": "directory"}, "packages": keeping.PACKAGES, "director": KEYS}
    with platforms.platform(tmp_path_factory.mktemp("credits"), 81, **keys) as made:
        made.cps("application", "create", "shop")
        made.cps("application", "start", "shop")
        yield made


@pytest.fixture
def keeper(platform: platforms.Platform) -> Keeper:
    return Keeper(platform)


def an_hour_passes(platform: platforms.Platform) -> None:
    with contextlib.closing(sqlite3.connect(platform.state / "director.db", timeout=30)) as connection, connection:
        connection.execute("UPDATE resource SET created = datetime(created, '-1 hour')")


def add_credit(platform: platforms.Platform, credit: int) -> int:
    """The new balance."""
    said = platform.run("cpsdirector", "credit", "add", "alice", str(credit)).out
    return int(said.rpartition(" ")[2].rstrip(".\n"))


def state(platform: platforms.Platform) -> str:
    (service,) = platform.data("service", "list", "-a", "shop")
    return str(service["status"])


def shop(platform: platforms.Platform) -> dict[str, Any]:
    found: list[dict[str, Any]] = platform.data("application", "list")
    return next(one for one in found if one["name"] == "shop")


def test_what_a_user_without_credits_keeps(platform: platforms.Platform, keeper: Keeper) -> None:
    keeper.write("precious")
    application = shop(platform)
    assert add_credit(platform, -10_000) == 0
    an_hour_passes(platform)
    platforms.until(lambda: state(platform) == "STOPPED", "the service is stopped")
    platforms.until(lambda: len(platform.vms()) == 1, "its node is gone")
    assert keeper.disks() == {"disk-1": "(spare)"}
    an_hour_passes(platform)

    refused = keeper.platform.cps("--yes", "service", "start", "shop", "1", check=False)
    assert (refused.code != 0, "Insufficient credits" in refused.out + refused.err) == (True, True)
    assert add_credit(platform, 10) == 10, "nothing is owed for the time without credits"
    keeper.cps("start")
    (node,) = keeper.nodes()
    assert keeper.texts() == {node: "precious"}
    assert shop(platform) == application, "the application is the same, with the same manager"
    assert add_credit(platform, 0) == 9
    assert consistency.complaints(platform) == []


def test_after_that_nothing_is_left(platform: platforms.Platform, keeper: Keeper) -> None:
    add_credit(platform, -10_000)
    an_hour_passes(platform)
    platforms.until(lambda: state(platform) == "STOPPED", "the service is stopped")
    with contextlib.closing(sqlite3.connect(platform.state / "director.db", timeout=30)) as connection, connection:
        connection.execute("UPDATE user SET exhausted = datetime(exhausted, '-72 hours')")
    platforms.until(lambda: not platform.vms(), "the manager is gone")
    platforms.until(lambda: shop(platform)["status"] == "STOPPED", "the application is stopped")
    assert consistency.on_the_cloud(platform).volumes == frozenset()
