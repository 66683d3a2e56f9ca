"""A supervisor that runs nothing: it remembers which daemons an agent asked for, so that a test can look."""

from __future__ import annotations

from conpaas.core import errors, supervisor


class SimulatedSupervisor(supervisor.Supervisor):
    """Takes the place of an agent's supervisor. `daemons` are the definitions by name, `events` what was asked, in order."""

    def __init__(self) -> None:
        self.daemons: dict[str, supervisor.Daemon] = {}
        self.events: list[tuple[str, str]] = []
        self._down: set[str] = set()

    def reserve(self, places: int) -> None:
        """Nothing has to be found first here."""

    def ensure(self, daemon: supervisor.Daemon) -> None:
        self.events.append(("ensure", daemon.name))
        self.daemons[daemon.name] = daemon
        self._down.discard(daemon.name)

    def stop(self, name: str, timeout: float | None = None) -> None:
        self.events.append(("stop", name))
        if name in self.daemons:
            self._down.add(name)

    def remove(self, name: str) -> None:
        self.events.append(("remove", name))
        self.daemons.pop(name, None)
        self._down.discard(name)

    def restart(self, name: str) -> None:
        self._require(name)
        self.events.append(("restart", name))
        self._down.discard(name)

    def signal(self, name: str, signal_name: str) -> None:
        self._require(name)
        self.events.append((signal_name, name))

    def status(self, name: str) -> supervisor.DaemonStatus:
        if name not in self.daemons:
            return supervisor.DaemonStatus(supervisor.DaemonState.ABSENT)
        if name in self._down:
            return supervisor.DaemonStatus(supervisor.DaemonState.DOWN)
        return supervisor.DaemonStatus(supervisor.DaemonState.RUNNING, pid=1)

    def list(self) -> list[str]:
        return sorted(self.daemons)

    def _require(self, name: str) -> None:
        if name not in self.daemons:
            raise errors.NotFound(f"There is no daemon '{name}' on this node.")
