"""Shared sessions: the store that this node may hold, and the list by which its backends find all stores."""

from __future__ import annotations

import logging
import pathlib
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from conpaas.core import config, errors, file, paths, supervisor
from conpaas.services.webservers import spec
from conpaas.services.webservers.agent import ports, web_user
from conpaas.services.webservers.workload import launch, redis

log: Final = logging.getLogger(__name__)
DAEMON: Final = "session-store"
_NOTE: Final = "session_store"
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{16,256}")


def stores_file(places: paths.Paths) -> pathlib.Path:
    """The list of stores that session handlers read: the secret, then a line with address and port for each store."""
    return places.cache / "sessions" / "stores"


class SessionRole:
    """The session store of a node and its knowledge of the others. Every method is idempotent."""

    def __init__(
        self, places: paths.Paths, configuration: config.Config, supervising: supervisor.Supervisor, address: str, notes: file.Notes
    ) -> None:
        self._redis = redis.Redis(configuration.get("web", "REDIS_SERVER", "/usr/bin/redis-server"))
        self._first_port = configuration.get_int("web", "SESSION_PORT", 6379, minimum=1, maximum=65_535)
        self._memory = configuration.get_int("web", "SESSION_MEMORY", 256, minimum=8)
        self._user = web_user.choose(places, configuration)
        self._directory = places.cache / "session-store"
        self._ports = ports.Ports(notes, shared=ports.is_shared(places))
        self._list = stores_file(places)
        self._supervisor = supervising
        self._address = address
        self._listening = ports.inner_address(address, configuration)
        self._notes = notes
        self._lock = threading.Lock()

    def start_store(self, secret: str, source: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Have a store run, and take over from `source` (`{ip, port}`) every session that is newer there.

        A store may be filled while it and its source are in use, and again later: so a manager fills it, tells the backends, and fills
        it once more to get what they wrote in between. Raises OperationFailed.
        """
        _check_secret(secret)
        with self._lock:
            known = self._notes.get(_NOTE) or {}
            port = known.get("port") or self._ports.choose(DAEMON, self._first_port, self._listening)
            self._notes.set(**{_NOTE: {"port": port, "secret": secret}})
            store = self._ensure()
            self._redis.wait_ready(store)
        if source is not None:
            other = spec.Upstream(str(source.get("ip")), source.get("port", 0))
            self._fill(store, other)
        return {"ip": self._address, "port": port}

    def use_stores(self, secret: str, stores: Sequence[Mapping[str, Any]]) -> None:
        """Tell the backends of this node where sessions are; what runs knows it at once."""
        _check_secret(secret)
        found = [spec.Upstream(str(one.get("ip")), one.get("port", 0)) for one in stores]
        # All backends take the locks of a session in the same order.
        lines = [secret, *sorted({f"{one.ip} {one.port}" for one in found})]
        self._list.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        launch.give(self._list.parent, self._user)
        draft = self._list.with_name("stores.new")
        file.write_atomically(draft, "\n".join(lines) + "\n", mode=0o600)
        launch.give(draft, self._user)
        draft.replace(self._list)

    def stop_store(self) -> None:
        """End the store and forget what is in it."""
        with self._lock:
            self._supervisor.remove(DAEMON)
            file.remove_tree(self._directory)
            self._notes.set(**{_NOTE: None})

    def resume(self) -> None:
        """After a restart of the agent or the node: have the store run if it should."""
        with self._lock:
            if self._notes.get(_NOTE):
                self._ensure()

    def close(self) -> None:
        """The store goes on."""

    def log_files(self) -> dict[str, pathlib.Path]:
        """None of the store's own: users have no business in it."""
        return {}

    def _ensure(self) -> redis.Store:
        known = self._notes.get(_NOTE)
        store = redis.Store(DAEMON, self._directory, self._listening, known["port"], known["secret"], self._memory, self._user)
        former = self._directory / "redis.conf"
        changed = former.exists() and former.read_text() != redis.render(store)
        daemon = self._redis.prepare(store)
        self._supervisor.ensure(daemon)
        if changed:
            self._supervisor.restart(DAEMON)
        return store

    def _fill(self, store: redis.Store, source: spec.Upstream) -> None:
        if (source.ip, source.port) == (self._address, store.port):
            return
        try:
            with (
                redis.Client(source.ip, source.port, store.secret) as there,
                redis.Client(store.ip, store.port, store.secret) as here,
            ):
                seen = redis.merge(there, here)
        except OSError as error:
            raise errors.OperationFailed(f"The sessions cannot be taken over from {source.address}: {error}.") from error
        log.info("%d sessions of %s are known here", seen, source.address)


def _check_secret(secret: str) -> None:
    if not isinstance(secret, str) or not _SECRET.fullmatch(secret):
        raise errors.InvalidArgument("The secret of session stores must be 16 to 256 letters, digits, '_' and '-'.")
