"""Agents of a web hosting service in memory, in a world that checks after every call that the site never had a gap.

What must hold at any instant, for every proxy that runs and for every configuration whose requests have not ended there: its servers run
and have the code version, and nobody of them was given back; and once the site is up, somebody plays each role.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import importlib
import pathlib
from collections.abc import Callable
from typing import Any

from conpaas.core import agent, config, errors, expose, params
from conpaas.services.webservers import spec
from conpaas.testing import harness

CONFIG = "[web]\nPROXY_PORT = 80\n"


@dataclasses.dataclass
class Worker:
    """Requests of one configuration at a proxy; they end after so many looks at its state."""

    configuration: spec.ProxyConfig
    polls: int


class World:
    """What all agents of a test share. `drain` is how many looks it takes until old requests end; `pages` are the health path's answers."""

    def __init__(self) -> None:
        self.agents: dict[str, FakeAgent] = {}
        self.calls: list[tuple[str, str]] = []
        self.drain = 2
        self.up = False
        self.cuts_allowed = False
        self.pages: dict[str, tuple[int, str]] = {}
        self.logged: dict[str, list[str]] = {}
        self.refuse: collections.Counter[tuple[str, str]] = collections.Counter()
        self.before: Callable[[FakeAgent, str], None] = lambda _agent, _method: None
        self.dead: set[str] = set()
        self.machines: Callable[[], dict[str, Any]] = dict
        self.violations: list[str] = []

    def at(self, ip: str) -> FakeAgent | None:
        return self.agents.get(ip)

    def called(self, one: FakeAgent, method: str) -> None:
        self.calls.append((method, one.my_ip))
        for key in ((method, one.my_ip), (method, "*")):
            if self.refuse[key] > 0:
                self.refuse[key] -= 1
                raise errors.OperationFailed(f"{method} fails by order of a test")

    def methods(self, ip: str | None = None) -> list[str]:
        """What was called, without questions."""
        asked = ("check_process", "getHttpProxyState", "list_code", "get_log", "get_performance")
        return [method for method, where in self.calls if method not in asked and ip in (None, where)]

    def present(self) -> dict[str, FakeAgent]:
        """Agents of VMs that are there and answer, by address."""
        there: dict[str, FakeAgent] = {}
        for machine in self.machines().values():
            if not machine.answers:
                self.dead.add(machine.node.ip)
            elif machine.node.ip in self.agents:
                there[machine.node.ip] = self.agents[machine.node.ip]
        return there

    def check(self) -> None:
        there = self.present()
        proxies = [one for one in there.values() if one.proxy is not None]
        for one in proxies:
            for worker in one.workers():
                self._check_configuration(one, worker.configuration, there)
        if self.up and there:
            assert proxies or any(self.agents[ip].proxy for ip in self.dead), "nobody is a proxy"
            for one in proxies:
                assert one.proxy is not None
                assert one.proxy.configuration.backends, "a proxy has no backend"
        for one in there.values():
            if one.releases:
                running = [place for place in one.session_stores if (other := there.get(place["ip"])) and other.store is not None]
                dead = [place for place in one.session_stores if place["ip"] in self.dead]
                assert running or dead, f"{one.my_ip} has backends and no session store: {one.session_stores}"

    def _check_configuration(self, proxy: FakeAgent, told: spec.ProxyConfig, there: dict[str, FakeAgent]) -> None:
        version = told.code_version
        where = f"proxy {proxy.my_ip}, configuration {told.serial}"
        assert version in proxy.code, f"{where}: it lacks the code {version}"
        for upstream in told.backends:
            if self._gone(upstream.ip, there, where):
                continue
            found = [one for one in there[upstream.ip].releases.values() if one["port"] == upstream.port]
            assert found, f"{where}: no release listens at {upstream.address}"
            assert found[0]["version"] == version, f"{where}: {upstream.address} runs {found[0]['version']}, not {version}"
        for upstream in told.web:
            if self._gone(upstream.ip, there, where):
                continue
            server = there[upstream.ip].web
            assert server is not None, f"{where}: no web server at {upstream.address}"
            assert version in server["versions"], f"{where}: {upstream.address} does not serve {version}"
            assert version in there[upstream.ip].code, f"{where}: {upstream.address} lacks the code {version}"

    def _gone(self, ip: str, there: dict[str, FakeAgent], where: str) -> bool:
        if ip in there:
            return False
        assert ip in self.dead or self.cuts_allowed, f"{where}: {ip} was given back while requests may go there"
        return True


def watched(function: Callable[..., Any]) -> Callable[..., Any]:
    """A call of the agent, after which the world is looked at."""

    @functools.wraps(function)
    def call(self: FakeAgent, **arguments: Any) -> Any:
        self.world.before(self, function.__name__)
        self.world.called(self, function.__name__)
        try:
            answer = function(self, **arguments)
            self.world.check()
        except AssertionError as error:  # an agent's error is only an answer; here it must not go unseen
            self.world.violations.append(f"{function.__name__} on {self.my_ip}: {error}")
            raise
        return answer

    return call


class FakeAgent(agent.BaseAgent):
    """Answers what `webservers.agent.client` asks, and remembers it. Everything is idempotent, as the real ones are."""

    world: World

    def __init__(self, configuration: config.Config) -> None:
        super().__init__(configuration)
        self.code: set[str] = set()
        self.releases: dict[int, dict[str, Any]] = {}
        self.next_port = 9000
        self.web: dict[str, Any] | None = None
        self.proxy: Worker | None = None
        self.old: list[Worker] = []
        self.store: dict[str, Any] | None = None
        self.session_stores: list[dict[str, Any]] = []
        self.cron: list[dict[str, Any]] = []
        self.times: set[tuple[str, int]] = set()
        self.figures: dict[str, dict[str, Any]] = {"proxy": {}, "web": {}}
        self.world.agents[self.my_ip] = self

    def log_files(self) -> dict[str, pathlib.Path]:
        nginx = [f"nginx-{server}-{what}.log" for server in ("proxy", "static") for what in ("access", "error")]
        names = [*nginx, "fpm-access.log", "fpm-error.log", "php-error.log", "access_log.txt", "catalina.out", "cron.log"]
        found = {name: self.paths.scratch / name for name in names}
        del found["php-error.log"]  # nobody wrote to it yet
        for path in (*found.values(), self.paths.log_file):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return super().log_files() | found

    def workers(self) -> list[Worker]:
        return [*self.old, *([self.proxy] if self.proxy else [])]

    # Code

    @expose.expose("GET")
    @watched
    def list_code(self) -> dict[str, Any]:
        """List."""
        return {"versions": sorted(self.code)}

    @expose.expose(
        "UPLOAD",
        params.Param("filetype", params.Text()),
        params.Param("codeVersionId", params.Text()),
        params.Param("file", params.Upload()),
        params.Param("time", params.Integer()),
    )
    @watched
    def updatePHPCode(self, filetype: str, code_version_id: str, file: params.UploadedFile, time: int) -> None:
        """Stage."""
        assert file.size > 0
        self.code.add(code_version_id)
        self.times.add((code_version_id, time))

    @expose.expose("POST", params.Param("versions", params.ListOf(params.Text())))
    @watched
    def keep_code(self, versions: list[str]) -> None:
        """Keep."""
        self.code &= set(versions)

    # Backends

    def _start(self, release: int, version: str, settings: dict[str, Any]) -> dict[str, Any]:
        if version not in self.code:
            raise errors.NotFound(f"There is no code version {version} here.")
        spec.BackendSettings.from_dict(settings)
        if release not in self.releases:
            self.releases[release] = {"port": self.next_port, "version": version, "settings": settings}
            self.next_port += 1
        assert self.releases[release]["version"] == version, "one release, two versions"
        assert self.releases[release]["settings"] == settings, "one release, two kinds of settings"
        return {"port": self.releases[release]["port"]}

    _RELEASE = (
        params.Param("release", params.Integer()),
        params.Param("codeVersionId", params.Text()),
        params.Param("settings", params.Mapping()),
    )

    @expose.expose("POST", *_RELEASE)
    @watched
    def createPHP(self, release: int, code_version_id: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Start."""
        assert settings["kind"] == "php"
        return self._start(release, code_version_id, settings)

    @expose.expose("POST", *_RELEASE)
    @watched
    def createTomcat(self, release: int, code_version_id: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Start."""
        assert settings["kind"] == "java"
        return self._start(release, code_version_id, settings)

    @expose.expose("POST", params.Param("keep", params.ListOf(params.Integer())))
    @watched
    def stopPHP(self, keep: list[int]) -> None:
        """Stop."""
        self.releases = {number: one for number, one in self.releases.items() if number in keep}

    @expose.expose("POST", params.Param("keep", params.ListOf(params.Integer())))
    @watched
    def stopTomcat(self, keep: list[int]) -> None:
        """Stop."""
        self.releases = {number: one for number, one in self.releases.items() if number in keep}

    @expose.expose("GET", params.Param("release", params.Integer()))
    @watched
    def get_release_errors(self, release: int) -> dict[str, Any]:
        """Errors."""
        return {"errors": self.world.logged.get(self.releases[release]["version"], [])}

    # Web servers

    @expose.expose("POST", params.Param("code_versions", params.ListOf(params.Text())), params.Param("site", params.Mapping()))
    @watched
    def updateWebServer(self, code_versions: list[str], site: dict[str, Any]) -> dict[str, Any]:
        """Configure."""
        missing = set(code_versions) - self.code
        if missing:
            raise errors.NotFound(f"The code version {missing} is not on this node.")
        spec.SiteSettings.from_dict(site)
        self.web = {"versions": code_versions, "site": site}
        return {"port": 8080}

    @expose.expose("POST")
    @watched
    def stopWebServer(self) -> None:
        """Stop."""
        self.web = None

    # Proxies

    @expose.expose("POST", params.Param("configuration", params.Mapping()))
    @watched
    def updateHttpProxy(self, configuration: dict[str, Any]) -> dict[str, Any]:
        """Configure."""
        told = spec.ProxyConfig.from_dict(configuration)
        current = self.proxy.configuration if self.proxy else None
        if current is not None:
            assert told.serial >= current.serial, f"{told.serial} after {current.serial}"
            assert told.serial != current.serial or told == current, "one serial, two configurations"
        if told != current:
            if self.proxy is not None:
                self.old.append(Worker(self.proxy.configuration, self.world.drain))
            self.proxy = Worker(told, 0)
        return {"port": 80, "tls_port": 443 if any(one.certificate for one in told.domains) else None}

    @expose.expose("POST")
    @watched
    def stopHttpProxy(self) -> None:
        """Stop."""
        self.proxy = None
        self.old = []

    @expose.expose("GET")
    @watched
    def getHttpProxyState(self) -> dict[str, Any]:
        """State."""
        for worker in self.old:
            worker.polls -= 1
        self.old = [worker for worker in self.old if worker.polls > 0]
        current = self.proxy.configuration.serial if self.proxy else None
        oldest = min([worker.configuration.serial for worker in self.workers()], default=None)
        state = "RUNNING" if self.proxy else "INIT"
        return {"return": {"state": state, "port": 80, "tls_port": None, "serial": current, "oldest_serial": oldest}}

    @expose.expose(
        "POST",
        params.Param("configuration", params.Mapping()),
        params.Param("path", params.Text()),
        params.Param("seconds", params.Json()),
    )
    @watched
    def check_site(self, configuration: dict[str, Any], path: str, seconds: float) -> dict[str, Any]:
        """Ask."""
        told = spec.ProxyConfig.from_dict(configuration)
        self.world._check_configuration(self, told, self.world.present())
        status, reason = self.world.pages.get(told.code_version, (200, ""))
        answers = [{"server": one.address, "status": 200, "seconds": 0.0, "reason": ""} for one in told.web]
        answers += [{"server": one.address, "status": status, "seconds": 0.01, "reason": reason} for one in told.backends]
        return {"answers": answers}

    @expose.expose("GET", params.Param("role", params.Text()), params.Param("window", params.Integer()))
    @watched
    def get_performance(self, role: str, window: int) -> dict[str, Any]:
        """Figures."""
        return {"window": window, **self.figures[role]}

    # Sessions

    @expose.expose("POST", params.Param("secret", params.Text()), params.Param("source", params.Json(), None))
    @watched
    def start_session_store(self, secret: str, source: dict[str, Any] | None) -> dict[str, Any]:
        """Start."""
        if self.store is None:
            self.store = {"secret": secret, "sessions": {}}
        assert self.store["secret"] == secret
        if source is not None:
            other = self.world.present().get(source["ip"])
            if other is None or other.store is None:
                raise errors.OperationFailed("The sessions cannot be taken over.")
            self.store["sessions"] |= other.store["sessions"]
        return {"ip": self.my_ip, "port": 6379}

    @expose.expose("POST", params.Param("secret", params.Text()), params.Param("stores", params.ListOf(params.Mapping())))
    @watched
    def use_session_stores(self, secret: str, stores: list[dict[str, Any]]) -> None:
        """Use."""
        self.session_stores = stores

    @expose.expose("POST")
    @watched
    def stop_session_store(self) -> None:
        """Stop."""
        self.store = None

    # Cron

    @expose.expose("POST", params.Param("entries", params.ListOf(params.Mapping())))
    @watched
    def set_cron(self, entries: list[dict[str, Any]]) -> None:
        """Cron."""
        self.cron = entries


class WebHarness(harness.Harness):
    """A harness of a web hosting service with a world around its agents."""

    def __init__(self, kind: str = "php", **settings: str) -> None:
        self.world = World()
        agent_class = type("WorldAgent", (FakeAgent,), {"world": self.world})
        manager = importlib.import_module(f"conpaas.services.{kind}").SERVICE.load_manager()
        super().__init__(manager, agent_class, agent_config=CONFIG, name=kind, settings={"AGENT_PATIENCE": "0", **settings})
        self.world.machines = lambda: self.director.machines

    def start(self, cloud: str = "default") -> Any:
        done = super().start(cloud)
        self.world.up = True
        return done

    def stop(self, *, force: bool = False) -> Any:
        self.world.up = False
        return super().stop(force=force)

    def remove(self) -> Any:
        self.world.up = False
        return super().remove()

    def kill_node(self, one: Any) -> None:
        super().kill_node(one)
        self.world.dead.add(self.director.machine(one).node.ip)

    def check(self) -> None:
        super().check()
        self.watch()

    def watch(self) -> None:
        """Assert that the site never had a gap."""
        assert self.world.violations == []

    def fake(self, number: int) -> FakeAgent:
        """The agent of the node at this place in the order of addition."""
        return self.world.agents[self.nodes[number].ip]

    @property
    def labels(self) -> list[str]:
        return [one.role for one in self.nodes]

    def rest(self, seconds: float = 30) -> None:
        """Let time pass until housekeeping has done its work."""
        self.pass_time(seconds)

    def upload(self, name: str = "app.tar", **files: str) -> str:
        """Upload an archive; returns its id."""
        import io
        import tarfile

        path = self.directory / name
        with tarfile.open(path, "w") as archive:
            for member_name, content in (files or {"index.php": "<?php echo 1;"}).items():
                member = tarfile.TarInfo(member_name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content.encode()))
        return str(self.call("upload_code_version", code=path)["codeVersionId"])

    def do(self, method: str, **arguments: Any) -> Any:
        """Call something that begins an operation, and run it; raises if it fails."""
        reply = self.call(method, **arguments)
        self.settle()
        if "operation" in reply:
            op = self.operation(reply["operation"])
            if op.status != "DONE":
                raise errors.OperationFailed(op.error or str(op.status))
        return reply

    def serving(self) -> spec.ProxyConfig:
        """What the primary proxy works with."""
        proxy = next(one for one in (self.fake(number) for number in range(len(self.nodes))) if one.proxy is not None).proxy
        assert proxy is not None
        return proxy.configuration
