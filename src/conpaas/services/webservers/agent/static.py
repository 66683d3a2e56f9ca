"""The role `web`: a static web server that serves files of the code versions it is told."""

from __future__ import annotations

import logging
import pathlib
import threading
from collections.abc import Sequence
from typing import Any, Final

from conpaas.core import config, errors, file, paths, supervisor
from conpaas.services.webservers import spec
from conpaas.services.webservers.agent import measure, ports, rotation, server
from conpaas.services.webservers.workload import nginx_config

log: Final = logging.getLogger(__name__)
NAME: Final = "nginx-static"


class StaticRole:
    """The static web server of one node. Every method is idempotent and may be called from several threads."""

    def __init__(
        self, places: paths.Paths, configuration: config.Config, watcher: supervisor.Supervisor, address: str, notes: file.Notes
    ) -> None:
        self._place = server.Place(places, configuration, watcher, address)
        self._ports = ports.Ports(notes, shared=self._place.shared)
        self._rotation = rotation.Rotation(places, watcher)
        self._memory = file.Notes(places.lib / f"{NAME}.json")
        self._lock = threading.RLock()

    def configure(self, versions: Sequence[str], site: spec.SiteSettings) -> int:
        """Serve these code versions, each by its id as name of the host; returns the port."""
        with self._lock:
            former = self._memory.get("wanted")
            self._memory.set(wanted={"versions": list(versions), "site": site.to_dict()})
            try:
                return self._apply(versions, site)
            except (errors.ConPaaSError, OSError):
                self._memory.set(wanted=former)
                raise

    def state(self) -> dict[str, Any]:
        """`state` (INIT, RUNNING, STOPPED), `port`, `code_versions`."""
        wanted = self._memory.get("wanted")
        running = wanted is not None and self._place.nginx(NAME).in_force() is not None
        state = "INIT" if wanted is None else "RUNNING" if running else "STOPPED"
        return {"state": state, "port": self._memory.get("port"), "code_versions": wanted["versions"] if wanted else []}

    def stop(self) -> None:
        """Let requests under way end, and the server with them."""
        with self._lock:
            self._place.nginx(NAME).stop()
            self._rotation.forget(NAME)
            self._memory.set(wanted=None, port=None)

    def performance(self, window: float) -> dict[str, Any]:
        """What the server measured over the last `window` seconds; see `measure.performance`."""
        return measure.performance(self._place.paths.cache / f"{NAME}-timed.log", window)

    def log_files(self) -> dict[str, pathlib.Path]:
        """The logs that may be read from outside."""
        return rotation.shown(self._place.paths, NAME)

    def resume(self) -> None:
        """After a restart of the agent: the server goes on by itself; what was interrupted is finished."""
        with self._lock:
            wanted = self._memory.get("wanted")
            if wanted is None:
                return
            try:
                self._apply(wanted["versions"], spec.SiteSettings.from_dict(wanted["site"]))
            except errors.ConPaaSError as error:
                log.error("the static web server goes on as it was: %s", error)

    def close(self) -> None:
        """The agent ends; the server goes on."""

    def _apply(self, versions: Sequence[str], site: spec.SiteSettings) -> int:
        place = self._place
        missing = [one for one in versions if not place.code(spec.check_version(one)).is_dir()]
        if missing:
            raise errors.NotFound(f"The code version {missing[0]} is not on this node.", hint="enable it again")
        web = place.nginx(NAME)
        address = ports.inner_address(place.address, place.config)
        port = self._ports.choose("web", place.config.get_int("web", "WEB_PORT", 8080), address, held=web.ports())
        listens = [f"[{address}]:{port}" if ":" in address else f"{address}:{port}"]
        roots = [(one, place.code(one) / site.document_root) for one in versions]
        web.apply(nginx_config.static(place.host(NAME), roots, site, listens), 0)
        self._memory.set(port=port)
        self._rotation.cover(NAME)
        return port
