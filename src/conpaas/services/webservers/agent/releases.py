"""What a backend remembers of its releases, and what a kind of backend (PHP, Java) must be able to do."""

from __future__ import annotations

import dataclasses
import enum
import pathlib
import threading
from collections.abc import Mapping
from typing import Any, Final, Protocol

from conpaas.core import file, supervisor
from conpaas.services.webservers import spec

_KEY: Final = "releases"


class State(enum.StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    ENDING = "ending"


@dataclasses.dataclass(frozen=True)
class Instance:
    """A release on this node. `name` is its daemon's; `log_offset` is where its own part of the log of errors begins, in bytes."""

    name: str
    release: int
    version: str
    settings: spec.BackendSettings
    port: int
    state: State = State.STARTING
    log_offset: int = 0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Instance:
        settings = spec.BackendSettings.from_dict(values["settings"])
        return cls(**{**values, "settings": settings, "state": State(values["state"])})

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "settings": self.settings.to_dict(), "state": self.state.value}


class Records:
    """The releases on this node as they are on disk. Safe to use from several threads."""

    def __init__(self, notes: file.Notes) -> None:
        self._notes = notes
        self._lock = threading.RLock()

    def __enter__(self) -> Records:
        """Hold others off while deciding on what is there."""
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def all(self) -> list[Instance]:
        """Oldest first."""
        with self._lock:
            found = [Instance.from_dict(values) for values in self._notes.get(_KEY, {}).values()]
        return sorted(found, key=lambda one: (one.release, one.name))

    def find(self, release: int) -> Instance | None:
        """The instance of a release that is not about to end."""
        return next((one for one in self.all() if one.release == release and one.state is not State.ENDING), None)

    def newest(self) -> Instance | None:
        """The newest release that is not about to end."""
        return next((one for one in reversed(self.all()) if one.state is not State.ENDING), None)

    def put(self, instance: Instance) -> Instance:
        with self._lock:
            self._notes.set(**{_KEY: {**self._notes.get(_KEY, {}), instance.name: instance.to_dict()}})
        return instance

    def forget(self, name: str) -> None:
        with self._lock:
            self._notes.set(**{_KEY: {key: value for key, value in self._notes.get(_KEY, {}).items() if key != name}})


class Kind(Protocol):
    """What differs between PHP and Java. `prefix` begins the names of its daemons."""

    prefix: str

    def prepare(self, instance: Instance, code: pathlib.Path) -> tuple[supervisor.Daemon, Instance]:
        """Write and check all that the release needs; returns its daemon, and the instance as it is to be remembered. Idempotent."""

    def rotate_logs(self) -> None:
        """Have the logs of all releases kept from growing."""

    def wait_ready(self, instance: Instance) -> None:
        """Return once the release answers. Raises OperationFailed with the reason why it does not."""

    def errors(self, instance: Instance) -> list[str]:
        """The fatal errors that the release has logged since its start, oldest first, at most a few."""

    def discard(self, instance: Instance) -> None:
        """Remove what `prepare` wrote, once the daemon is gone."""

    def log_files(self, newest: Instance | None) -> dict[str, pathlib.Path]:
        """The logs by their classic names."""
