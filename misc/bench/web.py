"""Figures of web hosting: our proxies and backends beside the same daemons configured by hand, and what changes cost a site under load."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import pathlib
import re
import secrets
import statistics
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import handmade
import processes
from figure import Figure
from tests.support import load
from tests.support import platform as platforms

from conpaas.core.https import client, identity

GROUPS = ("web", "web-traffic", "java")
APP = "web"
PATIENCE = 240.0
RATE = 300.0
PAGE = "<?php echo 'hello from ', str_repeat('x', 200), \"\\n\";\n"
STATIC = b"s" * 8000
TRAFFIC_S = 180.0
ROUNDS = 20


@dataclasses.dataclass
class Site:
    """One web service of the application, driven by its manager's RPCs."""

    platform: platforms.Platform
    rpc: client.RpcClient
    manager: tuple[str, int]
    sid: int
    kind: str

    def get(self, method: str, sid: int | None = None, **params: Any) -> Any:
        return self.rpc.get(self.manager, method, service_id=self.sid if sid is None else sid, params=params)

    def begin(self, method: str, sid: int = 0, **params: Any) -> str:
        """Have the manager begin something; its operation."""
        arguments = {"service_id": self.sid, **params} if sid == 0 else params
        return str(self.rpc.post(self.manager, method, service_id=sid, params=arguments)["operation"])

    def finish(self, operation: str) -> dict[str, Any]:
        """Wait for an operation's end; its record."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found: dict[str, Any] = self.get("get_operation", 0, operationId=operation)["operation"]
            if found["status"] not in ("RUNNING", "UNDOING"):
                break
            if time.monotonic() > deadline:
                raise SystemExit(f"the operation {found['kind']} has not ended within {PATIENCE:.0f} s")
            time.sleep(0.05)
        if found["status"] != "DONE":
            raise SystemExit(f"{found['kind']} failed: {found['error']}")
        return found

    def perform(self, method: str, sid: int = 0, **params: Any) -> dict[str, Any]:
        return self.finish(self.begin(method, sid, **params))

    def configure(self, method: str, **params: Any) -> dict[str, Any]:
        """A change of this service's own configuration."""
        return self.perform(method, self.sid, **params)

    def upload(self, files: dict[str, bytes]) -> str:
        """A new code version of these files; its id."""
        path = self.platform.directory / f"code-{secrets.token_hex(4)}.tar.gz"
        with tarfile.open(path, "w:gz", compresslevel=1) as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(content), 0o644
                archive.addfile(member, io.BytesIO(content))
        reply = self.rpc.upload(self.manager, "upload_code_version", service_id=self.sid, fields={}, files={"code": path})
        path.unlink()
        return str(reply["codeVersionId"])

    def enable(self, version: str) -> dict[str, Any]:
        return self.configure(f"update_{self.kind}_configuration", codeVersionId=version)

    @property
    def url(self) -> str:
        return str(self.get("get_service_info")["urls"][0])

    @property
    def address(self) -> tuple[str, int]:
        found = re.fullmatch(r"http://([0-9.]+)(?::(\d+))?/?", self.url)
        if found is None:
            raise SystemExit(f"the site has an unexpected address: {self.url}")
        return found[1], int(found[2] or 80)

    def nodes(self) -> dict[str, list[str]]:
        return dict(self.get("list_nodes"))

    def vm_of(self, node: str) -> dict[str, Any]:
        return next(vm for vm in self.platform.vms() if node.endswith(str(vm["vmid"])))


@contextlib.contextmanager
def stage(directory: pathlib.Path, net: int) -> Iterator[Callable[[str], Site]]:
    """A platform with an application started; yields what adds a service of a kind to it."""
    with platforms.platform(directory, net, director={"SWEEP_INTERVAL": "30"}) as platform:
        platform.cps("application", "create", APP)
        platform.cps("application", "start", APP)
        manager_vm = next(vm for vm in platform.vms() if vm["role"] == "manager")
        credentials = identity.Credentials.from_dir(platform.directory / "home" / "alice" / ".conpaas")
        caller = client.RpcClient(credentials, identity.expect_manager())
        address = (str(manager_vm["ip"]), 443)

        def add(kind: str) -> Site:
            reply = caller.post(address, "add_service", service_id=0, params={"service_type": kind})
            return Site(platform, caller, address, int(reply["service_id"]), kind)

        try:
            yield add
        finally:
            caller.close()


def measure(directory: pathlib.Path, net: int, groups: list[str], quick: bool) -> list[Figure]:
    """Start a platform, measure these groups of figures, and remove the platform."""
    directory.chmod(0o755)  # the set-up by hand serves as another user
    figures: list[Figure] = []
    with stage(directory, net) as add:
        php = add("php")
        first_page = _first_page(php)
        if "web" in groups:
            figures += [
                Figure("PHP: service started → first page", "web", first_page, "s", 3),
                *_throughput(php, directory, quick),
                *_changes(php, quick),
            ]
        if "web-traffic" in groups:
            figures += traffic(php, 30.0 if quick else TRAFFIC_S)
        php.perform("stop_service")
        if "java" in groups:
            figures += _java(add("java"), quick)
    return figures


def _first_page(site: Site) -> float:
    """Seconds from the request to start the service until its first page has been had."""
    begun = time.monotonic()
    operation = site.begin("start_service", cloud="default")
    deadline = begun + PATIENCE
    while time.monotonic() < deadline:
        urls = site.get("get_service_info").get("urls") or []
        if urls and _answers(urls[0]):
            seconds = time.monotonic() - begun
            site.finish(operation)
            return seconds
        time.sleep(0.02)
    raise SystemExit("the site does not answer")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:  # noqa: S310 - the address of our own site
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


# Beside the same daemons configured by hand


@dataclasses.dataclass(frozen=True)
class _Told:
    """What `wrk` measured: requests, requests per second, median latency in ms."""

    requests: int
    rate: float
    median: float


@dataclasses.dataclass
class _Contestant:
    """A site at an address and the processes it consists of; `rates` and `costs` (µs of CPU per request) of its rounds."""

    address: tuple[str, int]
    roots: list[int]
    rates: list[float] = dataclasses.field(default_factory=list)
    costs: list[float] = dataclasses.field(default_factory=list)
    medians: list[float] = dataclasses.field(default_factory=list)

    def round(self, path: str, seconds: int) -> None:
        before = self._cpu_ns()
        told = _wrk(self.address, path, seconds, 8)
        self.costs.append((self._cpu_ns() - before) / 1000 / told.requests)
        self.rates.append(told.rate)
        self.medians.append(_wrk(self.address, path, 1, 1).median)

    def _cpu_ns(self) -> int:
        return sum(processes.cpu_ns(root, ("nginx", "php-fpm")) for root in self.roots)


def _wrk(address: tuple[str, int], path: str, seconds: int, connections: int) -> _Told:
    """Have `wrk` ask for a path; any error ends the measurement."""
    url = f"http://{address[0]}:{address[1]}{path}"
    command = ["wrk", "--latency", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(f"{url} does not answer as it should:\n{said}")
    requests = re.search(r"(\d+) requests in", said)
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", said)
    median = re.search(r"50%\s+([0-9.]+)(us|ms|s)", said)
    if requests is None or rate is None or median is None:
        raise SystemExit(f"wrk says something unexpected:\n{said}")
    return _Told(int(requests[1]), float(rate[1]), float(median[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[median[2]])


def _workers(site: Site) -> handmade.Workers:
    """The numbers of processes that our own set-up has, read from its configuration."""
    vm = site.platform.directory / "cloud" / "vms"
    texts = [path.read_text(errors="replace") for path in vm.glob("*/root/var/**/*.conf")]

    def find(pattern: str) -> str:
        return next((match[1] for text in texts if (match := re.search(pattern, text, re.MULTILINE))), "")

    children = int(find(r"^\s*pm\.max_children\s*=\s*(\d+)"))
    spare = [int(find(rf"^\s*pm\.{name}\s*=\s*(\d+)") or 1) for name in ("start_servers", "min_spare_servers", "max_spare_servers")]
    return handmade.Workers(find(r"^\s*worker_processes\s+(\w+)") or "auto", find(r"^\s*pm\s*=\s*(\w+)") or "dynamic", children, *spare)


def _throughput(site: Site, directory: pathlib.Path, quick: bool) -> list[Figure]:
    files = {"index.php": PAGE.encode(), "static.txt": STATIC}
    site.enable(site.upload(files))
    figures = _compare(site, directory / "by-hand-packed", files, "packed on one node", 1, quick)
    site.perform("add_nodes", nodes={"backend": 1, "web": 1}, cloud="default")
    figures += _compare(site, directory / "by-hand-apart", files, "on separate nodes", 3, quick)
    site.perform("remove_nodes", nodes={"backend": 1, "web": 1})
    return figures


def _compare(site: Site, directory: pathlib.Path, files: dict[str, bytes], where: str, machines: int, quick: bool) -> list[Figure]:
    """Rounds of ours and the others in turn; the ratios of the medians, and the median of the differences."""
    pages = directory / "site"
    pages.mkdir(parents=True)
    for name, content in files.items():
        (pages / name).write_bytes(content)
    workers = _workers(site)
    vms = site.platform.directory / "cloud" / "vms"
    ours = [processes.guard_of(vms / str(vm["vmid"])) for vm in site.platform.vms()]
    figures = []
    with contextlib.ExitStack() as stack:

        def by_hand(number: int, name: str, *, by_socket: bool) -> _Contestant:
            addresses = [f"127.{site.platform.net}.250.{number if machines == 1 else number + role}" for role in range(3)]
            (directory / name).mkdir()
            made = handmade.site(directory / name, pages, (addresses[0], addresses[1], addresses[2]), workers, by_socket=by_socket)
            return _Contestant(*stack.enter_context(made))

        others = [by_hand(1, "tcp", by_socket=False), *([by_hand(4, "socket", by_socket=True)] if machines == 1 else [])]
        for name, path in (("PHP page", "/index.php"), ("static file", "/static.txt")):
            rivals = others if path == "/index.php" else others[:1]
            contestants = [_Contestant(site.address, ours), *(_Contestant(one.address, one.roots) for one in rivals)]
            figures += _contest(f"{name}, {where}", path, contestants, quick)
    return figures


def _contest(what: str, path: str, contestants: list[_Contestant], quick: bool) -> list[Figure]:
    """Ours is the first, the set-up by hand the second; where there is a third, that one has php-fpm on a Unix socket."""
    for one in contestants:
        _wrk(one.address, path, 1, 8)
    for number in range(3 if quick else ROUNDS):
        first = number % len(contestants)
        for one in (*contestants[first:], *contestants[:first]):
            one.round(path, 1)
    mine, hand, *third = contestants
    rates = f"{statistics.median(mine.rates):,.0f} and {statistics.median(hand.rates):,.0f} requests/s"
    notes = f"{rates}; {_rounds(mine.rates, hand.rates)}"
    costs = f"{statistics.median(mine.costs):.0f} and {statistics.median(hand.costs):.0f} µs"
    added = statistics.median(one - other for one, other in zip(mine.medians, hand.medians, strict=True))
    figures = [
        Figure(f"{what}: ours : by hand", "web", _ratio(mine.rates, hand.rates), "×", 0.95, least=True, notes=notes),
        Figure(f"{what}: CPU per request, ours : by hand", "web", _ratio(mine.costs, hand.costs), "×", notes=costs),
        Figure(f"{what}: added at the median", "web", max(0.0, added), "ms", 0.5),
    ]
    for other in third:
        by_hand = f"{statistics.median(other.rates):,.0f} requests/s and {statistics.median(other.costs):.0f} µs by hand"
        notes = f"{by_hand}; CPU per request {_ratio(mine.costs, other.costs):.2f} ×; {_rounds(mine.rates, other.rates)}"
        figures.append(Figure(f"{what}: ours : by hand with a Unix socket", "web", _ratio(mine.rates, other.rates), "×", notes=notes))
    return figures


def _ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of ours to that of theirs: single rounds are up to a third apart on a machine that does other work."""
    return statistics.median(ours) / statistics.median(theirs)


def _rounds(ours: list[float], theirs: list[float]) -> str:
    """The ratios of single rounds: their quartiles."""
    low, _, high = statistics.quantiles([one / other for one, other in zip(ours, theirs, strict=True)], n=4)
    return f"half of the rounds {low:.2f} to {high:.2f}"


# What changes take


def _changes(site: Site, quick: bool) -> list[Figure]:
    """A large version on five nodes, and one more backend."""
    site.perform("add_nodes", nodes={"backend": 3, "web": 1}, cloud="default")
    rounds = 1 if quick else 3
    enabled, added = [], []
    for _ in range(rounds):
        big = {f"data/{number}.bin": os.urandom(1_000_000) for number in range(20)}
        version = site.upload({"index.php": PAGE.encode(), **big})
        begun = time.monotonic()
        site.enable(version)
        enabled.append(time.monotonic() - begun)
    for _ in range(rounds):
        begun = time.monotonic()
        site.perform("add_nodes", nodes={"backend": 1}, cloud="default")
        added.append(time.monotonic() - begun)
        site.perform("remove_nodes", nodes={"backend": 1})
    site.perform("remove_nodes", nodes={"backend": 3, "web": 1})
    return [
        Figure("20 MB version enabled on 5 nodes", "web", statistics.median(enabled), "s", 5, notes=_spread(enabled)),
        Figure("PHP: node asked for → takes traffic", "web", statistics.median(added), "s", 4, notes=_spread(added)),
    ]


def _java(site: Site, quick: bool) -> list[Figure]:
    first = _first_page(site)
    added = []
    for _ in range(1 if quick else 3):
        begun = time.monotonic()
        site.perform("add_nodes", nodes={"backend": 1}, cloud="default")
        added.append(time.monotonic() - begun)
        site.perform("remove_nodes", nodes={"backend": 1})
    return [
        Figure("Java: service started → first page", "java", first, "s", 12),
        Figure("Java: node asked for → takes traffic", "java", statistics.median(added), "s", 12, notes=_spread(added)),
    ]


def _spread(values: list[float]) -> str:
    return f"{len(values)} times, {min(values):.2f} to {max(values):.2f}"


# Under load


def traffic(site: Site, seconds: float) -> list[Figure]:
    """Steady requests while all that may happen to a site happens to this one; none may fail."""
    first = site.upload({"index.php": PAGE.encode(), "static.txt": STATIC})
    second = site.upload({"index.php": PAGE.replace("hello", "howdy").encode(), "static.txt": STATIC})
    site.enable(first)
    site.perform("add_nodes", nodes={"backend": 2, "web": 2, "proxy": 1}, cloud="default")
    done: list[str] = []
    targets = [load.Target("/index.php"), load.Target("/static.txt"), load.Target("/?x=1")]
    begun = time.monotonic()
    with load.steady(site.address, *targets, rate=RATE, timeout=20) as outcome:
        while time.monotonic() - begun < seconds:
            for name, change in _EVENTS:
                if time.monotonic() - begun >= seconds and len(done) >= len(_EVENTS):
                    break
                change(site, first, second)
                done.append(name)
    print(outcome.told(), flush=True)
    p50, p99, longest = (outcome.percentile(share) * 1000 for share in (0.5, 0.99, 1.0))
    notes = f"{outcome.sent:,} requests in {time.monotonic() - begun:.0f} s during {len(done)} changes; p50 {p50:.1f}, p99 {p99:.1f},"
    notes += f" longest {longest:.0f} ms; {outcome.reconnects} repeated on a new connection"
    failed = Figure("failed requests while nodes and versions change", "web-traffic", len(outcome.failures), "", 0.0, notes=notes)
    return [failed]


def _kill(role: str) -> Callable[[Site, str, str], None]:
    """Kill a node of a role that is not the site's address, and wait until it was replaced."""

    def act(site: Site, first: str, second: str) -> None:
        before = site.nodes()
        victim = before[role][-1]
        processes.kill(processes.tree(processes.guard_of(site.platform.directory / "cloud" / "vms" / str(site.vm_of(victim)["vmid"])))[1])
        deadline = time.monotonic() + PATIENCE
        while True:
            info, now = site.get("get_service_info"), site.nodes()
            if info["state"] == "RUNNING" and victim not in now.get(role, []) and len(now.get(role, [])) == len(before[role]):
                return
            if time.monotonic() > deadline:
                raise SystemExit(f"the killed {role} {victim} is not replaced: {now}")
            time.sleep(0.1)

    return act


def _nodes(method: str, role: str) -> Callable[[Site, str, str], None]:
    def act(site: Site, first: str, second: str) -> None:
        cloud = {"cloud": "default"} if method == "add_nodes" else {}
        site.perform(method, nodes={role: 1}, **cloud)

    return act


def _debug(mode: str) -> Callable[[Site, str, str], None]:
    return lambda site, first, second: site.configure("update_php_configuration", phpconf={"display_errors": mode}) and None


def _certificate(site: Site, first: str, second: str) -> None:
    directory = site.platform.directory
    key, certificate = directory / "site.key", directory / "site.pem"
    made_by = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
    named = ["-subj", "/CN=www.example.org", "-addext", "subjectAltName=DNS:www.example.org"]
    subprocess.run([*made_by, *named, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    fields = {"domain": "www.example.org"}
    files = {"certificate": certificate, "key": key}
    reply = site.rpc.upload(site.manager, "set_domain", service_id=site.sid, fields=fields, files=files)
    site.finish(str(reply["operation"]))


_EVENTS: tuple[tuple[str, Callable[[Site, str, str], Any]], ...] = (
    ("a backend is added", _nodes("add_nodes", "backend")),
    ("a version is enabled", lambda site, first, second: site.enable(second)),
    ("a backend is killed", _kill("backend")),
    ("the version is rolled back", lambda site, first, second: site.configure("rollback")),
    ("a backend is removed", _nodes("remove_nodes", "backend")),
    ("debug mode is switched on", _debug("On")),
    ("a web node is added", _nodes("add_nodes", "web")),
    ("a web node is killed", _kill("web")),
    ("a web node is removed", _nodes("remove_nodes", "web")),
    ("debug mode is switched off", _debug("Off")),
    ("a certificate is changed", _certificate),
    ("a proxy is added", _nodes("add_nodes", "proxy")),
    ("a proxy is killed", _kill("proxy")),
    ("a proxy is removed", _nodes("remove_nodes", "proxy")),
)
