"""Killing the agents of a service, and what must live on when they die."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
from typing import Any

from conpaas.core import supervisor
from conpaas.core.clouds.dummy import vm
from conpaas.director.lifecycle import parts
from tests.crash import programs
from tests.support import consistency
from tests.support import platform as platforms

AGENT = "cpsagent"
"""What the supervisor of a VM calls the agent."""


def kill_all(platform: platforms.Platform, aid: str, sid: str) -> int:
    """SIGKILL to the agent of every VM of a service; how many there were. One that died just now may not be back, and stays dead.

    What else runs in the VMs must live on.
    """
    return sum(_Machine(platform, record).kill_agent() for record in platform.vms() if _is_of(record, aid, sid))


def _is_of(record: dict[str, Any], aid: str, sid: str) -> bool:
    return (record["tags"].get(parts.TAG_APPLICATION), record["tags"].get(parts.TAG_SERVICE)) == (aid, sid)


class _Machine:
    """A VM of the cloud."""

    def __init__(self, platform: platforms.Platform, record: dict[str, Any]) -> None:
        self.ip = str(record["ip"])
        self._platform = platform
        self._directory = platform.directory / "cloud" / "vms" / str(record["vmid"])
        self._supervisor = supervisor.Supervisor(self._directory / "root" / "service", pathlib.Path(os.devnull))

    @property
    def alive(self) -> bool:
        return vm.is_held(self._directory)

    def kill_agent(self) -> bool:
        """Kill the agent and nothing else; whether there was one. Returns when the supervisor has seen it, before the next one answers."""
        with contextlib.suppress(OSError, StopIteration):
            pid = consistency.daemon_of(self._platform, self.ip, "agent")
            before, others = self._supervisor.status(AGENT).pid, self._others()
            if pid:
                os.kill(pid, signal.SIGKILL)
                platforms.until(lambda: not self.alive or self._was_seen(before), f"the supervisor on {self.ip} sees its agent dead", 10)
                platforms.until(lambda: not self.alive or self._others() >= others, f"{others} live on at {self.ip}", 10)
                return True
        return False

    def _was_seen(self, dead: int | None) -> bool:
        status = self._supervisor.status(AGENT)
        return status.state is not supervisor.DaemonState.FINISHING and status.pid != dead

    def _others(self) -> set[tuple[str, int | None]]:
        """What runs on behalf of the user: daemons under the supervisor, and programs that a script left."""
        with contextlib.suppress(FileNotFoundError, StopIteration):
            supervised = {(name, self._supervisor.status(name).pid) for name in self._supervisor.list() if name != AGENT}
            return supervised | set(programs.running_on(self._platform, self.ip))
        return set()
