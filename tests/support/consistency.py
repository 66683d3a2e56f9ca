"""What must be true of a whole platform whenever nothing is under way, and pulling plugs."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
import signal
import sqlite3
from typing import Any

from conpaas.core import node
from conpaas.core.clouds.dummy import session
from tests.support import platform as platforms
from tests.support import wire

AGREE_WITHIN = 40.0
"""Seconds in which sweeper and managers must have found whatever was left behind."""


def application_status(platform: platforms.Platform, name: str, user: str = "alice") -> str:
    return next((str(one["status"]) for one in platform.data("application", "list", user=user) if one["name"] == name), "ABSENT")


def vm_of(platform: platforms.Platform, address: str) -> pathlib.Path:
    """The directory of the VM that has this address."""
    record = next(vm for vm in platform.vms() if vm["ip"] == address)
    return platform.clouds[record["cloud"]] / "vms" / str(record["vmid"])


def kill_vm(platform: platforms.Platform, address: str) -> None:
    """Pull the plug of the VM that has this address."""
    os.kill(int((vm_of(platform, address) / "pid").read_text()), signal.SIGKILL)


def processes_of(platform: platforms.Platform, address: str) -> list[int]:
    """The processes inside the VM that has this address: all that descend from its guard, which adopts orphans or has an init that does."""
    try:
        guard = int((vm_of(platform, address) / "pid").read_text())
    except FileNotFoundError:
        return []
    return session.descendants(guard)


def command_of(pid: int) -> list[str]:
    """The words of a process's command line; one empty word when it is gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return [""]


def daemon_of(platform: platforms.Platform, address: str, role: str) -> int:
    """The process of the agent or manager (`role`) inside the VM that has this address; 0 if there is none."""
    for pid in processes_of(platform, address):
        words = command_of(pid)
        if "python" in words[0] and any(f"cps{role}" in pathlib.PurePath(word).name or f"{role}_daemon" in word for word in words[:4]):
            return pid
    return 0


@dataclasses.dataclass(frozen=True)
class View:
    """The ids of the VMs (those that their nodes have) and volumes that somebody believes in."""

    vms: frozenset[str]
    volumes: frozenset[str]


def on_the_cloud(platform: platforms.Platform) -> View:
    volumes = [json.loads(path.read_text()) for where in platform.clouds.values() for path in (where / "volumes").glob("*.json")]
    return View(frozenset(f"{vm['cloud']}{vm['vmid']}" for vm in platform.vms()), frozenset(volume["vol_id"] for volume in volumes))


def at_the_director(platform: platforms.Platform) -> View:
    with database(platform) as connection:
        volumes = {vol_id for (vol_id,) in connection.execute("SELECT vol_id FROM volume")}
    resources = [one for user in platform.passwords for one in platform.data("cloud", "list_resources", user=user)]
    return View(frozenset(f"{node.inner_cloud(one['cloud'])}{one['vmid']}" for one in resources), frozenset(volumes))


def at_the_managers(platform: platforms.Platform) -> View:
    vms: set[str] = set()
    volumes: set[str] = set()
    for user in platform.passwords:
        for application in platform.data("application", "list", user=user):
            if application["status"] == "RUNNING":
                aid = str(application["aid"])
                vms |= {f"{vm['cloud']}{vm['vmid']}" for vm in platform.vms() if vm["ip"] == application["manager"]}
                info = platform.data("application", "get_info", aid, user=user)
                vms |= set(info["nodes"])
                volumes |= _volumes_of(platform, application["manager"], user)
    return View(frozenset(vms), frozenset(volumes))


def _volumes_of(platform: platforms.Platform, manager: str, user: str) -> set[str]:
    """The volumes that a manager has on record."""
    tls = wire.of_directory(platform.directory / "home" / user / ".conpaas")
    found = wire.exchange((manager, 443), tls, wire.call("POST", 0, "list_volumes")).json["result"]["volumes"]
    return {volume["vol_id"] for volume in found}


def database(platform: platforms.Platform) -> sqlite3.Connection:
    """The Director's database, to look only."""
    return sqlite3.connect(f"file:{platform.state / 'director.db'}?mode=ro", uri=True, timeout=10)


def assert_consistent(platform: platforms.Platform) -> None:
    """Cloud, Director and managers agree on every VM and volume, and every started hour was charged exactly once."""

    def views() -> dict[str, View]:
        return {"cloud": on_the_cloud(platform), "Director": at_the_director(platform), "managers": at_the_managers(platform)}

    try:
        platforms.until(lambda: len(set(views().values())) == 1, "cloud, Director and managers agree", AGREE_WITHIN)
    except AssertionError as error:
        raise AssertionError(f"they do not agree: {views()}") from error
    assert_credits(platform)


def assert_credits(platform: platforms.Platform) -> None:
    """Every VM in service was charged, each of its hours once, one credit each, and what people see is the sum."""
    with database(platform) as connection:
        hours = connection.execute("SELECT rid, hour_index, amount FROM ledger WHERE kind = 'hour'").fetchall()
        alive = {rid for (rid,) in connection.execute("SELECT rid FROM resource WHERE state = 'running'")}
        balances: dict[str, int] = dict(
            connection.execute("SELECT username, SUM(amount) FROM ledger JOIN user ON user.uid = ledger.uid GROUP BY username")
        )
    charged = collections.Counter((rid, hour) for rid, hour, _ in hours)
    assert [entry for entry, times in charged.items() if times > 1] == []
    assert {amount for _, _, amount in hours} <= {-1}
    by_vm: dict[Any, list[int]] = collections.defaultdict(list)
    for rid, hour in charged:
        by_vm[rid].append(hour)
    assert all(sorted(indexes) == list(range(len(indexes))) for indexes in by_vm.values())
    assert alive <= by_vm.keys()
    seen = {user: int(platform.cps("user", "get_credit", user=user).out) for user in platform.passwords}
    assert seen == {user: balances[user] for user in platform.passwords}


def logs(platform: platforms.Platform) -> list[pathlib.Path]:
    """The logs of the Director, and of the managers and agents of all VMs."""
    found = [platform.directory / "director.out", *platform.state.glob("log*/*.log")]
    return found + [path for where in platform.clouds.values() for path in sorted((where / "vms").glob("*/root/var/log/cps*.log"))]


def complaints(platform: platforms.Platform) -> list[str]:
    """The lines of all logs that tell of a failure of our own, which nobody foresaw."""
    found = []
    for path in logs(platform):
        lines = path.read_text(errors="replace").splitlines()
        found += [f"{path.name}: {line}" for line in lines if any(word in line for word in ("incident", " CRITICAL ", "Traceback"))]
    return found


def memory(pid: int) -> int:
    """What a process occupies, in MB."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) // 1024
