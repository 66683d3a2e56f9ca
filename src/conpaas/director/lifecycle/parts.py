"""What the lifecycle of applications, nodes and volumes is made from; assembled once per Director process."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from conpaas.core import errors
from conpaas.core.clouds import base
from conpaas.director import context, db, inventory

T = TypeVar("T")
R = TypeVar("R")

PARALLEL = 16

# Tags on every VM and volume. Only what carries this deployment's tag is ever touched.
TAG_DEPLOYMENT = "conpaas-deployment"
TAG_USER = "conpaas-user"
TAG_APPLICATION = "conpaas-application"
TAG_SERVICE = "conpaas-service"
TAG_ROLE = "conpaas-role"
TAG_REQUEST = "conpaas-request"
TAG_INDEX = "conpaas-index"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Bounds and ports; times in seconds."""

    deployment: str = "conpaas"
    node_boot_timeout: float = 300.0
    probe_interval: float = 0.25
    settle_timeout: float = 600.0
    agent_port: int = 5555
    manager_port: int = 443


class Probe(Protocol):
    """Tells whether the daemon on a machine is ready."""

    def __call__(self, machine: inventory.Machine, uid: int) -> None:
        """Return when the machine's daemon answers with the right identity, else raise ConPaaSError telling what is wrong."""


class Accounts(Protocol):
    """Credits, as the lifecycle needs them. Both run inside the caller's transaction."""

    def balance(self, session: Any, uid: int) -> int:
        """How many credits a user has."""

    def start(self, session: Any, rids: Sequence[int]) -> None:
        """These machines are the user's from now on: their first hour is charged (once, however often it is called)."""

    def stop(self, session: Any, rids: Sequence[int]) -> None:
        """These machines cost no more from now on; hours already started are charged."""


class Tokens(Protocol):
    """Hands out one-time enrolment tokens, in a transaction of its own."""

    def __call__(self, *, role: str, uid: int, aid: int, vm: str) -> str:
        """A fresh token with which the VM labelled `vm` gets its certificate."""


@dataclasses.dataclass(frozen=True)
class Parts:
    """Everything an operation may use."""

    database: db.Database
    clouds: Mapping[str, base.Cloud]
    composer: context.Composer
    accounts: Accounts
    tokens: Tokens
    probe: Probe
    settings: Settings
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], Any] = dataclasses.field(default_factory=lambda: threading.Event().wait)

    def cloud(self, name: str) -> base.Cloud:
        """The cloud of this name; its absence is told with the classic text."""
        try:
            return self.clouds[name]
        except KeyError:
            raise errors.NotFound(f"Unknown cloud: {name}. Available clouds: {sorted(self.clouds)}") from None


def machine_tags(settings: Settings, machine: inventory.Machine, uid: int) -> dict[str, str]:
    """The tags of one VM."""
    return {
        TAG_DEPLOYMENT: settings.deployment,
        TAG_USER: str(uid),
        TAG_APPLICATION: str(machine.app_id),
        TAG_SERVICE: str(machine.service_id),
        TAG_ROLE: machine.role,
        TAG_REQUEST: machine.request_key,
        TAG_INDEX: str(machine.request_index),
    }


def each(items: Iterable[T], function: Callable[[T], R]) -> list[tuple[T, R | None, errors.ConPaaSError | None]]:
    """Call a function for every item at once, at most PARALLEL together; an error of our own is the item's outcome, others pass."""
    todo = list(items)
    if len(todo) == 1:
        return [(todo[0], *_outcome(function, todo[0]))]
    if not todo:
        return []
    with concurrent.futures.ThreadPoolExecutor(min(PARALLEL, len(todo)), thread_name_prefix="lifecycle") as pool:
        futures = [(item, pool.submit(_outcome, function, item)) for item in todo]
        return [(item, *future.result()) for item, future in futures]


def _outcome(function: Callable[[T], R], item: T) -> tuple[R | None, errors.ConPaaSError | None]:
    try:
        return function(item), None
    except errors.ConPaaSError as error:
        return None, error
