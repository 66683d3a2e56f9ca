"""Watching the agents: a node that no longer answers is taken out of service and replaced, one that has moved leaves when its time has
come; services at rest do their housekeeping.

One thread decides, a bounded pool asks. A node counts as lost when it has been silent for `lost_after` seconds, when the Director no longer
knows its VM, or when somebody reports it. Silence counts only while somebody else (the Director, another node) was heard: a manager whose
own network fails gives nobody up. While it hears the Director but none of several nodes, it waits five times as long: they may well work
for their clients. What is lost is remembered in the store, so that a replacement that could not be had (credits, quota, a
Director that is down) is tried again, with growing pauses, until it comes.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from conpaas.core import agents, callbacker, config, errors, lifecycle, manager, migration, node, operations, states, workers
from conpaas.core.engine import OperationEngine
from conpaas.core.state import store

_log = logging.getLogger(__name__)

PARALLEL_PINGS = 32
PINGS_PER_SECOND = 100.0
"""Healthy nodes beyond what this rate allows within one interval are asked less often."""

FAILURES = 2
"""Failed calls, at least, before silence counts."""
NOBODY_ANSWERS = 5
"""How many times as long it takes until nodes are lost while none of several answers."""

FIRST_PAUSE = 30.0
LONGEST_PAUSE = 600.0
INVENTORY_PAUSE = 5.0
HOUSEKEEPING_PAUSE = 2.0
"""Seconds between the end of a service's housekeeping and its next one."""
REQUESTER = "health monitor"


@dataclasses.dataclass(frozen=True)
class HealthSettings:
    """Seconds between two calls of a healthy node, and of silence after which a node is lost."""

    interval: float = 2.0
    lost_after: float = 8.0

    @classmethod
    def from_config(cls, configuration: config.Config) -> HealthSettings:
        main = configuration.main
        return cls(
            interval=configuration.get_float(main, "HEALTH_INTERVAL", cls.interval, minimum=0.05),
            lost_after=configuration.get_float(main, "NODE_LOST_AFTER", cls.lost_after, minimum=0.1),
        )


@dataclasses.dataclass
class Watch:
    """What is known of one node. `silent_since` is when the first of the failed calls began; `failures` counts those that began after
    somebody else was heard."""

    due: float = 0.0
    queued: bool = False
    silent_since: float | None = None
    failures: int = 0

    def lost(self, now: float, lost_after: float) -> bool:
        return self.silent_since is not None and now - self.silent_since >= lost_after and self.failures >= FAILURES


class Host(Protocol):
    """What the monitor needs of the application manager."""

    store: store.Store
    engine: OperationEngine
    callbacker: callbacker.Callbacker
    agents: agents.AgentCaller

    def managers(self) -> list[manager.BaseManager]:
        """The managers of all services."""


class HealthMonitor:
    """Watches the nodes of all services that run."""

    def __init__(
        self,
        host: Host,
        settings: HealthSettings,
        *,
        pool: workers.Executor | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._host = host
        self._settings = settings
        self._pool = pool or workers.WorkerPool("health", PARALLEL_PINGS)
        self._clock = clock
        self._wall_clock = wall_clock
        self._changed = threading.Condition()
        self._watches: dict[str, Watch] = {}
        self._reported: dict[str, str] = {}
        self._pauses: dict[int, tuple[int, float]] = collections.defaultdict(lambda: (0, 0.0))
        self._inventory: tuple[float, set[str] | None] = (float("-inf"), None)
        self._heard = float("-inf")
        self._housekeeping: dict[int, float] = {}
        self._woken = False
        self._closed = False

    def start(self) -> None:
        """Watch from now on, in a thread of its own."""
        threading.Thread(target=self._run, name="health", daemon=True).start()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._pool.close()

    def wake(self) -> None:
        """Look again now instead of at the next interval."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def report_lost(self, node_id: str, reason: str) -> bool:
        """Treat a node as lost whatever it answers; whether such a node is in service."""
        if self._host.store.nodes.owner(node_id) is None:
            return False
        with self._changed:
            self._reported[node_id] = reason
        self.wake()
        return True

    def finished(self, op: operations.Operation) -> None:
        """Hear of the end of an operation: a replacement or a departure that failed is not tried again at once."""
        if op.kind in (lifecycle.REPLACE.name, migration.RETIRE.name):
            with self._changed:
                attempts, _ = self._pauses.pop(op.target, (0, 0.0))
                if op.status is not operations.OperationStatus.DONE:
                    pause = min(FIRST_PAUSE * 2**attempts, LONGEST_PAUSE)
                    self._pauses[op.target] = (attempts + 1, self._clock() + pause)
        self.wake()

    def unanswering(self) -> list[str]:
        """The ids of nodes that did not answer when last called."""
        with self._changed:
            return sorted(key for key, watch in self._watches.items() if watch.silent_since is not None)

    def _run(self) -> None:
        while not self._closed:
            try:
                self.look()
            except errors.ConPaaSError as error:
                _log.error("the health of the nodes could not be looked at: %s", error)
            except Exception:  # noqa: BLE001 - watching must go on
                if self._closed:
                    return
                _log.exception("looking at the health of the nodes failed")
            with self._changed:
                self._changed.wait_for(lambda: self._woken or self._closed, self._settings.interval / 2)
                self._woken = False

    def look(self) -> None:
        """One round: call the nodes that are due, act on those that are lost. It never waits for a node."""
        now = self._clock()
        watched: dict[str, tuple[manager.BaseManager, node.ServiceNode]] = {}
        for service in self._host.managers():
            if service.state in (states.State.RUNNING, states.State.ADAPTING):
                watched.update({one.id: (service, one) for one in service.nodes})
        with self._changed:
            self._watches = {key: self._watches.get(key) or Watch() for key in watched}
            self._reported = {key: reason for key, reason in self._reported.items() if key in watched}
        self._call_due([one for _, one in watched.values()], now)
        lost = self._find_lost(watched, now)
        for service in self._host.managers():
            if service.state is states.State.RUNNING:
                self._act(service, [(one, reason) for owner, one, reason in lost if owner is service], now)
        self._keep_house(now)

    def _keep_house(self, now: float) -> None:
        """Let services that are at rest do their housekeeping, in the pool, one call at a time per service."""
        for service in self._host.managers():
            key = service.service_id
            if self._housekeeping.get(key, now) > now or service.state is not states.State.RUNNING or not service.idle:
                continue
            self._housekeeping[key] = float("inf")
            self._pool.submit(lambda service=service: self._do_housekeeping(service), f"housekeeping-{key}")  # type: ignore[misc]

    def _do_housekeeping(self, service: manager.BaseManager) -> None:
        try:
            self._at_rest(service, "forgetting what is gone", service.forget_gone_sources)
            self._at_rest(service, "housekeeping", service.housekeeping)
            self._at_rest(service, "measuring", lambda: service.measure(self._wall_clock()))
        finally:
            self._housekeeping[service.service_id] = self._clock() + HOUSEKEEPING_PAUSE

    def _at_rest(self, service: manager.BaseManager, what: str, call: Callable[[], object]) -> None:
        """Make a call that a service at rest gets now and then; one that fails is made again."""
        try:
            if not self._closed and service.state is states.State.RUNNING and service.idle:
                call()
        except errors.ConPaaSError as error:
            _log.warning("service %d: %s failed: %s", service.service_id, what, error)
        except Exception:  # noqa: BLE001 - it is tried again
            if not self._closed:
                _log.exception("service %d: %s failed", service.service_id, what)

    def _call_due(self, nodes: Iterable[node.ServiceNode], now: float) -> None:
        with self._changed:
            interval = max(self._settings.interval, len(self._watches) / PINGS_PER_SECOND)
            due = [one for one in nodes if not self._watches[one.id].queued and self._watches[one.id].due <= now]
            for one in due:
                self._watches[one.id].queued = True
        for one in due:
            self._pool.submit(lambda one=one: self._call(one, interval), f"health-{one.id}")  # type: ignore[misc]

    def _call(self, one: node.ServiceNode, interval: float) -> None:
        """Ask one agent whether it is there. An error it answers with shows that it is."""
        begun = self._clock()
        with self._changed:
            watch = self._watches.get(one.id)
            if watch is None or self._closed:
                return
            heard = self._heard
        failure: errors.ConPaaSError | None = None
        try:
            self._host.agents.get(one, "check_process", _timeout=max(0.5, self._settings.lost_after / 4))
        except errors.Unreachable as error:
            failure = error
        except errors.ConPaaSError as error:
            _log.debug("node %s answered with an error: %s", one.id, error)
        with self._changed:
            watch.queued = False
            if failure is None:
                self._heard = self._clock()
                if self._nobody_answers():  # it did until now: the way to the others may be there again, too
                    for other in self._watches.values():
                        other.silent_since, other.failures = self._heard, 0
                watch.silent_since, watch.failures = None, 0
                watch.due = self._clock() + interval
                return
            if watch.silent_since is None:
                watch.silent_since = begun
                _log.warning("node %s does not answer: %s", one.id, failure)
            elif watch.silent_since <= heard:
                watch.failures += 1
            watch.due = self._clock() + self._settings.interval / 2

    def _nobody_answers(self) -> bool:
        """Whether there are several nodes, and all are silent. To be called with the lock."""
        return len(self._watches) > 1 and all(watch.silent_since is not None for watch in self._watches.values())

    def _find_lost(
        self, watched: dict[str, tuple[manager.BaseManager, node.ServiceNode]], now: float
    ) -> list[tuple[manager.BaseManager, node.ServiceNode, str]]:
        with self._changed:
            reasons = dict(self._reported)
            silent = {key: watch.silent_since for key, watch in self._watches.items() if watch.silent_since is not None}
            patience = self._settings.lost_after * (NOBODY_ANSWERS if self._nobody_answers() else 1)
            expired = [key for key, watch in self._watches.items() if watch.lost(now, patience)]
        if silent:
            asked, known = self._known_to_director(now)
            if known is not None:
                reasons |= {key: "its VM is gone" for key, since in silent.items() if since <= asked and key not in known}
            reasons |= {key: "it does not answer" for key in expired if key not in reasons}
        return [(*watched[key], reason) for key, reason in reasons.items() if key in watched]

    def _known_to_director(self, now: float) -> tuple[float, set[str] | None]:
        """When the Director was asked, and the ids of its running VMs (None: no answer). It is asked at most every few seconds."""
        asked, known = self._inventory
        if now - asked >= INVENTORY_PAUSE:
            try:
                known = {entry.node.id for entry in self._host.callbacker.list_nodes() if entry.running}
                self._heard = self._clock()
            except errors.ConPaaSError as error:
                _log.info("the Director's inventory cannot be had: %s", error)
                known = None
            self._inventory = (now, known)
        return self._inventory

    def _act(self, service: manager.BaseManager, lost: list[tuple[node.ServiceNode, str]], now: float) -> None:
        """Replace what was lost just now; else, when the pause is over, what still waits for a replacement; else let go what is due."""
        if lost:
            reasons = ", ".join(dict.fromkeys(reason for _, reason in lost))
            self._replace(service, [one for one, _ in lost], reasons)
            return
        attempts, not_before = self._pauses.get(service.service_id, (0, 0.0))
        missing = self._host.store.nodes.missing().get(service.service_id, [])
        if missing and now >= not_before:
            self._replace(service, missing[:1] if attempts else missing, "still missing")
        elif not missing and now >= not_before:
            self._retire(service)

    def _replace(self, service: manager.BaseManager, nodes: list[node.ServiceNode], reason: str) -> None:
        args: dict[str, Any] = {"nodes": [one.to_dict() for one in nodes], "reason": reason}
        self._submit(lifecycle.REPLACE, service, args, f"{', '.join(node.ids_of(nodes))} replaced")

    def _retire(self, service: manager.BaseManager) -> None:
        """Let nodes go that have moved and whose time is over, once all others answer: nobody leaves whom the service may still need."""
        due = {one.node_id: one.heir for one in service.departures if one.at <= self._wall_clock()}
        staying = {one.id for one in service.nodes} - set(due)
        if due and staying.isdisjoint(self.unanswering()):
            self._submit(migration.RETIRE, service, {"heirs": due}, f"{', '.join(due)} let go")

    def _submit(self, kind: operations.OperationKind, service: manager.BaseManager, args: dict[str, Any], what: str) -> None:
        try:
            self._host.engine.submit(kind, service.service_id, args, REQUESTER)
        except errors.WrongState as error:
            _log.info("service %d: %s later: %s", service.service_id, what, error)
