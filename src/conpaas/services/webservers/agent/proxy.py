"""The role `proxy`: the nginx that the world talks to, and the watch over the servers behind it."""

from __future__ import annotations

import logging
import pathlib
import threading
from typing import Any, Final

from conpaas.core import config, errors, file, paths, supervisor
from conpaas.services.webservers import spec
from conpaas.services.webservers.agent import beside, measure, ports, rotation, server, trial, watch
from conpaas.services.webservers.workload import nginx_config, tls

log: Final = logging.getLogger(__name__)
NAME: Final = "nginx-proxy"
_PROGRAMS: Final = (".jsp", ".jspx")


class ProxyRole:
    """The proxy of one node. Every method is idempotent and may be called from several threads.

    What was asked for last is on disk before nginx is told, so that an agent that was killed in between finishes it when it comes back.
    """

    def __init__(
        self, places: paths.Paths, configuration: config.Config, watcher: supervisor.Supervisor, address: str, notes: file.Notes
    ) -> None:
        self._place = server.Place(places, configuration, watcher, address)
        self._ports = ports.Ports(notes, shared=self._place.shared)
        self._rotation = rotation.Rotation(places, watcher)
        self._certificates = tls.Certificates(places.lib / NAME)
        self._memory = file.Notes(places.lib / f"{NAME}.json")
        self._lock = threading.RLock()
        self._down: frozenset[str] = frozenset()
        self._unfinished = False
        self._watch = watch.Watch(self._targets, self._leave_out)

    def configure(self, wanted: spec.ProxyConfig) -> dict[str, Any]:
        """Serve by this configuration; returns, once every new request is served by it, `port` and `tls_port` (None without TLS)."""
        with self._lock:
            former = self._memory.get("wanted")
            if former is not None and former["serial"] > wanted.serial:
                log.warning("the proxy goes back from configuration %d to %d", former["serial"], wanted.serial)
            self._memory.set(wanted=wanted.to_dict())
            try:
                found = self._apply(wanted, self._down)
            except (errors.ConPaaSError, OSError):
                self._memory.set(wanted=former)
                raise
            self._unfinished = False
        self._watch.start()
        return found

    def state(self) -> dict[str, Any]:
        """`state` (INIT, RUNNING, STOPPED), `port`, `tls_port`, `code_version`; `serial` is that in force, `oldest_serial` the oldest one
        that still has requests under way (None: nothing serves); `down`: the servers that get no requests."""
        wanted = self._wanted()
        proxy = self._place.nginx(NAME)
        current = proxy.in_force() if wanted else None
        listening = self._memory.get("listening") or {}
        return {
            "state": "INIT" if wanted is None else "RUNNING" if current else "STOPPED",
            "port": listening.get("port"),
            "tls_port": listening.get("tls_port"),
            "serial": current.serial if current else None,
            "oldest_serial": proxy.oldest_serial() if current else None,
            "code_version": wanted.code_version if wanted else None,
            "down": sorted(self._down),
        }

    def stop(self) -> None:
        """Let requests under way end, and the proxy with them."""
        self._watch.stop()
        with self._lock:
            self._place.nginx(NAME).stop()
            self._rotation.forget(NAME)
            self._memory.set(wanted=None, listening=None)
            self._certificates.keep(())
            self._down = frozenset()

    def check_site(self, wanted: spec.ProxyConfig, path: str, seconds: float) -> list[dict[str, Any]]:
        """Ask every backend and web server of a configuration for a path, aside from the proxy that serves: `server`, `status`, `seconds`,
        `reason` of each."""
        root, files_only = self._root(wanted)
        return trial.Trial(self._place, wanted, root=root, files_only=files_only).run(path, seconds)

    def performance(self, window: float) -> dict[str, Any]:
        """What the proxy measured over the last `window` seconds; see `measure.performance`."""
        return measure.performance(self._place.paths.cache / f"{NAME}-timed.log", window)

    def log_files(self) -> dict[str, pathlib.Path]:
        """The logs that may be read from outside."""
        return rotation.shown(self._place.paths, NAME)

    def resume(self) -> None:
        """After a restart of the agent: the proxy goes on by itself, the watch goes on here; what was interrupted is finished by it."""
        if self._wanted() is not None:
            self._unfinished = True
            self._watch.start()

    def close(self) -> None:
        """The agent ends; the proxy goes on."""
        self._watch.stop()

    # Serving by a configuration

    def _wanted(self) -> spec.ProxyConfig | None:
        values = self._memory.get("wanted")
        return spec.ProxyConfig.from_dict(values) if values else None

    def _apply(self, wanted: spec.ProxyConfig, down: frozenset[str]) -> dict[str, Any]:
        root, files_only = self._root(wanted)
        proxy = self._place.nginx(NAME)
        pairs = self._certificates.write(wanted.domains)
        listening, found = self._listening(proxy.ports(), bool(pairs))
        text = nginx_config.proxy(
            self._place.host(NAME),
            wanted,
            root=root,
            files_only=files_only,
            local=not wanted.web or any(one.ip == self._place.address for one in wanted.web),
            listening=listening,
            pairs=pairs,
            down=down,
            sockets=self._sockets(wanted),
        )
        if proxy.apply(text, wanted.serial):
            log.info("the proxy serves %s by configuration %d", wanted.code_version, wanted.serial)
        self._memory.set(listening=found)
        self._certificates.keep([pair for _, pair in pairs])
        self._rotation.cover(NAME)
        return found

    def _sockets(self, wanted: spec.ProxyConfig) -> dict[str, pathlib.Path]:
        """The Unix sockets of this node's own backends, by their addresses."""
        if wanted.site.kind != spec.PHP:
            return {}
        own = {one.address: beside.socket(self._place.paths, one.port) for one in wanted.backends if one.ip == self._place.address}
        return {address: path for address, path in own.items() if path is not None and path.is_socket()}

    def _root(self, wanted: spec.ProxyConfig) -> tuple[pathlib.Path, bool]:
        """The document root, and whether there is nothing but files in a Java version: no WEB-INF, no JSP."""
        code = self._place.code(spec.check_version(wanted.code_version))
        if not code.is_dir():
            raise errors.NotFound(f"The code version {wanted.code_version} is not on this node.", hint="enable it again")
        root = code / wanted.site.document_root
        if wanted.site.kind == spec.PHP:
            return root, False
        is_program = (code / "WEB-INF").is_dir() or any(path.suffix.lower() in _PROGRAMS for path in root.rglob("*.jsp*"))
        return root, not is_program

    def _listening(self, held: set[int], with_tls: bool) -> tuple[nginx_config.Listening, dict[str, Any]]:
        place = self._place
        # A machine of its own listens on all its addresses: the one the world knows may belong to a router.
        address = place.address if place.shared else "0.0.0.0"
        port = self._ports.choose("proxy", place.config.get_int("web", "PROXY_PORT", 80), address, held=held)
        tls_port = None
        if with_tls:
            wanted = place.config.get_int("web", "PROXY_TLS_PORT", 443)
            tls_port = self._ports.choose("proxy_tls", wanted, address, held=held, taken=port)
        listening = nginx_config.Listening(self._addresses(port), self._addresses(tls_port) if tls_port else (), tls_port)
        return listening, {"port": port, "tls_port": tls_port}

    def _addresses(self, port: int) -> tuple[str, ...]:
        address = self._place.address
        if self._place.shared:
            return (f"[{address}]:{port}" if ":" in address else f"{address}:{port}",)
        return (str(port), f"[::]:{port}") if ports.has_ipv6() else (str(port),)

    # The watch

    def _targets(self) -> list[watch.Target]:
        """Whom to ask; finishes first what a killed agent had begun."""
        if self._unfinished:
            self._finish()
        wanted = self._wanted()
        if wanted is None:
            return []
        protocol = watch.Protocol.FASTCGI if wanted.site.kind == spec.PHP else watch.Protocol.HTTP
        ways = self._sockets(wanted)
        backends = [watch.Target(one.ip, one.port, one.address, "backends", protocol, ways.get(one.address)) for one in wanted.backends]
        own = any(one.ip == self._place.address for one in wanted.web)
        web = [] if own else [watch.Target(one.ip, one.port, one.address, "web", watch.Protocol.HTTP) for one in wanted.web]
        return [*(backends if len(backends) > 1 else ()), *(web if len(web) > 1 else ())]

    def _finish(self) -> None:
        with self._lock:
            wanted = self._wanted()
            if not self._unfinished or wanted is None:
                return
            self._unfinished = False
            try:
                self._apply(wanted, self._down)
            except (errors.ConPaaSError, OSError) as error:
                log.error("the proxy goes on as it was: %s", error)

    def _leave_out(self, down: frozenset[str]) -> None:
        with self._lock:
            wanted = self._wanted()
            if wanted is None or down == self._down:
                return
            self._apply(wanted, down)
            self._down = down
