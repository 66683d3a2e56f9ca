"""Disks that outlive their nodes, on real VMs: what was written is there again, and in the end nothing is left."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support import consistency
from tests.support import platform as platforms


class Keeper:
    """A started service of the type `keeper`."""

    def __init__(self, platform: platforms.Platform) -> None:
        self.platform = platform
        platform.cps("keeper", "add", "shop")
        self.cps("start")

    def cps(self, verb: str, *words: str) -> platforms.Result:
        return self.platform.cps("--yes", "service", verb, "shop", "1", *words)

    def texts(self) -> dict[str, str]:
        found: dict[str, str] = self.platform.data("keeper", "read", "shop", "1")
        return found

    def write(self, text: str) -> None:
        """On the only node."""
        (one,) = self.texts()
        self.platform.cps("keeper", "write", "shop", "1", one, text)

    def disks(self) -> dict[str, str]:
        """The node of every disk."""
        listed: list[dict[str, Any]] = self.platform.data("keeper", "list_volumes", "shop", "1")
        return {volume["vol_name"]: volume["agent_id"] for volume in listed}

    def lose(self, address: str) -> None:
        """Pull the plug of the only node, and wait for the one that replaces it."""
        (before,) = self.nodes()
        consistency.kill_vm(self.platform, address)
        platforms.until(lambda: self.nodes() not in ([], [before]), "a node takes its place")

    def nodes(self) -> list[str]:
        found: list[dict[str, Any]] = self.platform.data("service", "list_nodes", "shop", "1")
        states = {one["sid"]: one["status"] for one in self.platform.data("service", "list", "-a", "shop")}
        return [one["agent_id"] for one in found] if states[1] == "RUNNING" else []


@pytest.fixture
def keeper(platform: platforms.Platform) -> Keeper:
    return Keeper(platform)


def volumes_left(platform: platforms.Platform) -> frozenset[str]:
    return consistency.on_the_cloud(platform).volumes | consistency.at_the_director(platform).volumes


def test_the_life_of_a_disk(platform: platforms.Platform, keeper: Keeper) -> None:
    (first,) = keeper.texts()
    assert keeper.texts() == {first: f"since {first}"}
    keeper.write("precious")

    (address,) = [one["ip"] for one in platform.data("service", "list_nodes", "shop", "1")]
    keeper.lose(address)
    (second,) = keeper.nodes()
    assert keeper.texts() == {second: "precious"}, "the replacement has what the lost node wrote"

    keeper.cps("stop")
    assert keeper.disks() == {"disk-1": "(spare)"}
    assert len(volumes_left(platform)) == 1
    keeper.cps("start")
    (third,) = keeper.nodes()
    assert keeper.texts() == {third: "precious"}, "a stop and a start keep it"

    keeper.cps("add_nodes", "--count", "1")
    added = next(one for one in keeper.nodes() if one != third)
    assert keeper.texts() == {third: "precious", added: f"since {added}"}
    consistency.assert_consistent(platform)
    keeper.cps("remove_nodes", "--count", "1")
    assert (keeper.disks(), len(volumes_left(platform))) == ({"disk-1": third}, 1), "the removed node took its disk along"
    keeper.cps("add_nodes", "--count", "1")
    assert keeper.texts()[next(one for one in keeper.nodes() if one != third)].startswith("since"), "a new disk is empty"

    consistency.assert_consistent(platform)
    keeper.cps("remove")
    assert volumes_left(platform) == frozenset()
    assert consistency.complaints(platform) == []


@pytest.mark.parametrize("platform", ["loop"], indirect=True)
def test_the_end_of_the_application_is_the_end_of_its_disks(platform: platforms.Platform, keeper: Keeper) -> None:
    keeper.cps("add_nodes", "--count", "1")
    keeper.cps("stop")
    keeper.cps("start")
    assert sorted(keeper.disks().values()) == ["(spare)", *keeper.nodes()]
    platform.cps("--yes", "application", "stop", "shop")
    assert volumes_left(platform) == frozenset()
    assert platform.vms() == []
