"""Commands at random from several users' hands, with daemons killed at random; when all is quiet again, everything must be in order."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support import consistency
from tests.support import platform as platforms

APPS = ("left", "right")
SECONDS = float(os.environ.get("CONPAAS_SOAK_SECONDS", "60"))
HANDS = 3
STABLE = {"INIT", "RUNNING", "STOPPED"}
QUIET_WITHIN = 150.0


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[platforms.Platform]:
    watch = {"HEALTH_INTERVAL": "1", "NODE_LOST_AFTER": "6"}
    with platforms.platform(tmp_path_factory.mktemp("soak"), 95, manager=watch) as made:
        for name in APPS:
            made.cps("application", "create", name)
            made.cps("application", "start", name)
            made.cps("generic", "add", name)
            made.cps("helloworld", "add", name)
            for sid in ("1", "2"):
                made.cps("service", "start", name, sid)
        yield made


class Hand:
    """Somebody who types whatever comes to mind; refusals are fine, tracebacks are not."""

    def __init__(self, platform: platforms.Platform, seed: int) -> None:
        self.platform = platform
        self.random = random.Random(seed)
        self.said: list[str] = []
        self.bad: list[str] = []

    def command(self) -> list[str]:
        app, sid = self.random.choice(APPS), self.random.choice("12")
        name = f"v{self.random.randrange(3)}"
        service = [
            ["start", app, sid],
            ["start", app, sid],
            ["stop", app, sid],
            ["add_nodes", app, sid, "--count", "1"],
            ["add_nodes", app, sid, "--count", "2"],
            ["remove_nodes", app, sid, "--count", "1"],
            ["list_nodes", app, sid],
            ["get_history", app, sid],
        ]
        generic = [
            ["enable_code", app, "1", "code-default"],
            ["run", app, "1"],
            ["interrupt", app, "1"],
            ["get_script_status", app, "1"],
            ["delete_volume", app, name],
            ["create_volume", app, name, "4", self.node(app)],
        ]
        if self.random.random() < 0.6:
            return ["service", *self.random.choice(service)]
        return ["generic", *self.random.choice(generic)]

    def node(self, app: str) -> str:
        listed = self.platform.run("cps-tools", "--output", "json", "service", "list_nodes", app, "1", check=False)
        nodes = listed.json if listed.code == 0 else []
        return str(self.random.choice(nodes)["agent_id"]) if nodes else "iaasi-00000000"

    def work(self, until: float) -> None:
        while time.monotonic() < until:
            words = self.command()
            done = self.platform.cps("--yes", "--timeout", "20", *words, check=False)
            self.said.append(f"{' '.join(words)} -> {done.code}")
            if "Traceback" in done.err + done.out or done.code not in (0, 1, 2, 3, 4, 5):
                self.bad.append(f"{' '.join(words)}: {done}")


def kill_something(platform: platforms.Platform, chance: random.Random) -> str:
    """SIGKILL to a Director, a manager or an agent."""
    kind = chance.choice(("director", "manager", "manager", "agent", "agent"))
    if kind == "director":
        assert platform.process is not None
        platform.process.kill()
        return kind
    vms = [vm for vm in platform.vms() if (vm["role"] == "manager") == (kind == "manager")]
    if not vms:
        return f"no {kind}"
    victim = chance.choice(vms)
    try:
        pid = consistency.daemon_of(platform, victim["ip"], kind)
        if pid:
            os.kill(pid, signal.SIGKILL)
    except (StopIteration, ProcessLookupError):
        return f"{kind} {victim['vmid']} was gone"
    return f"{kind} {victim['vmid']}"


def states(platform: platforms.Platform) -> dict[str, str]:
    found = {}
    for name in APPS:
        info = platform.run("cps-tools", "--output", "json", "application", "get_info", name, check=False)
        found.update({f"{name} {sid}": state for sid, state in info.json["states"].items()} if info.code == 0 else {name: "silent"})
    return found


def test_random_commands_and_random_deaths_leave_everything_in_order(platform: platforms.Platform) -> None:
    seed = int(os.environ.get("CONPAAS_SOAK_SEED", random.SystemRandom().randrange(10**6)))
    print(f"seed {seed}: repeat with CONPAAS_SOAK_SEED={seed}")
    chance = random.Random(seed)
    hands = [Hand(platform, seed + number) for number in range(HANDS)]
    end = time.monotonic() + SECONDS
    threads = [threading.Thread(target=hand.work, args=(end,)) for hand in hands]
    deaths = []
    with platform.revived():
        for thread in threads:
            thread.start()
        while not threads[0].join(chance.uniform(1, 5)) and any(thread.is_alive() for thread in threads):
            if time.monotonic() < end:
                deaths.append(kill_something(platform, chance))
        for thread in threads:
            thread.join()
    print("\n".join([*deaths, *(line for hand in hands for line in hand.said)]))
    assert [line for hand in hands for line in hand.bad] == []
    platforms.until(lambda: set(states(platform).values()) <= STABLE, f"all services are at rest, not {states(platform)}", QUIET_WITHIN)
    consistency.assert_consistent(platform)
    for name in APPS:
        for sid in ("1", "2"):
            platform.cps("--yes", "service", "remove", name, sid)
        platform.cps("--yes", "application", "delete", name)
    assert platform.vms() == []
    consistency.assert_consistent(platform)
    assert [line for line in consistency.complaints(platform) if "Traceback" in line] == []
