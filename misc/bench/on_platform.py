"""Figures measured on a real platform: a Director, a manager and agents in VMs of the `dummy` cloud, all over mutual TLS."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import boot
import lean_client
import processes
import rpc
from figure import Figure
from tests.support import platform as platforms

from conpaas.core import supervisor
from conpaas.core.clouds import factory
from conpaas.core.https import client, identity

GROUPS = ("rpc", "boot", "fanout", "memory", "restart")
"""In the order of measuring: each needs more nodes than the one before."""

APP = "bench"
SERVICE = 1
PATIENCE = 180.0
AT_REST_S = 70.0
LISTENER = "import socket, sys; s = socket.create_server((sys.argv[1], 5599)); [s.accept()[0].close() for _ in iter(int, 1)]"


@dataclasses.dataclass
class Stage:
    """The platform with one application whose service 1 is a `helloworld` that runs on some nodes."""

    platform: platforms.Platform
    rpc: client.RpcClient
    manager_vm: dict[str, Any]
    quick: bool

    @property
    def certificates(self) -> pathlib.Path:
        """The user's certificate, key and CA."""
        return self.platform.directory / "home" / "alice" / ".conpaas"

    @property
    def address(self) -> tuple[str, int]:
        return str(self.manager_vm["ip"]), 443

    @property
    def manager_pid(self) -> int:
        return processes.daemon_of(self.root(self.manager_vm))

    @property
    def agents(self) -> list[dict[str, Any]]:
        """The VMs with agents."""
        return [vm for vm in self.platform.vms() if vm["vmid"] != self.manager_vm["vmid"]]

    def root(self, vm: dict[str, Any]) -> pathlib.Path:
        """The directory of a VM of the cloud."""
        return self.platform.directory / "cloud" / "vms" / str(vm["vmid"])

    def perform(self, method: str, **params: Any) -> dict[str, Any]:
        """Have the manager do something, and return the operation's record when it is done."""
        op_id = self.rpc.post(self.address, method, params={"service_id": SERVICE, **params})["operation"]
        deadline = time.monotonic() + PATIENCE
        while True:
            found: dict[str, Any] = self.rpc.get(self.address, "get_operation", params={"operationId": op_id})["operation"]
            if found["status"] not in ("RUNNING", "UNDOING"):
                break
            if time.monotonic() > deadline:
                raise SystemExit(f"{method} has not ended within {PATIENCE:.0f} s")
            time.sleep(0.05)
        if found["status"] != "DONE":
            raise SystemExit(f"{method} failed: {found['error']}")
        return found

    def have_nodes(self, count: int) -> None:
        """Bring the service to this number of nodes."""
        now = len(self.agents)
        for more in ([25] * ((count - now) // 25)) + [(count - now) % 25] if count > now else []:
            if more:
                self.perform("add_nodes", nodes={"node": more})
        if count < now:
            self.perform("remove_nodes", nodes={"node": now - count})


def measure(directory: pathlib.Path, net: int, groups: list[str], quick: bool) -> list[Figure]:
    """Start a platform, measure these groups of figures, and remove the platform."""
    figures: list[Figure] = []
    with stage(directory, net, quick) as made:
        for group in groups:
            begun = time.monotonic()
            figures += _MEASURES[group](made)
            print(f"measured: {group} ({time.monotonic() - begun:.0f} s)", file=sys.stderr, flush=True)
    return figures


@contextlib.contextmanager
def stage(directory: pathlib.Path, net: int, quick: bool) -> Iterator[Stage]:
    """A platform with its application started and its service running on one node."""
    with platforms.platform(directory, net) as platform:
        platform.cps("application", "create", APP)
        platform.cps("application", "start", APP)
        platform.cps("helloworld", "add", APP)
        platform.cps("service", "start", APP, str(SERVICE))
        manager_vm = next(vm for vm in platform.vms() if vm["role"] == "manager")
        credentials = identity.Credentials.from_dir(platform.directory / "home" / "alice" / ".conpaas")
        caller = client.RpcClient(credentials, identity.expect_manager())
        try:
            yield Stage(platform, caller, manager_vm, quick)
        finally:
            caller.close()


# Calls of the manager


def calls(made: Stage) -> list[Figure]:
    """`get_service_info` asked by lean clients of the manager, which meanwhile watches its node as always."""
    made.have_nodes(1)
    pid, (host, port), certificates = made.manager_pid, made.address, made.certificates
    count = 1000 if made.quick else 4000

    def load(scenario: str, clients: int, requests: int, mode: str) -> rpc.Figure:
        rounds = 1 if made.quick else 3
        runs = [
            rpc.measure(scenario, pid, port, certificates, host=host, clients=clients, requests=requests, mode=mode) for _ in range(rounds)
        ]
        return sorted(runs, key=lambda run: run.cpu_ms)[len(runs) // 2]

    load("warm-up", 2, 500, "keep")
    one = load("one kept", 1, count, "keep")
    new = load("one new", 1, count // 4, "new")
    four = load("four kept", 4, count, "keep")
    with rpc.idle_connections(port, certificates, raw=100, established=100, host=host):
        idle = load("four kept, 200 idle", 4, count, "keep")
    found = [
        Figure("server CPU per request, kept alive", "rpc", one.cpu_ms, "ms", 0.8, notes=f"one client, p50 {one.p50_ms:.2f} ms"),
        Figure("server CPU per request, 4 clients kept alive", "rpc", four.cpu_ms, "ms", 0.8),
        Figure("server CPU per request, new connection each", "rpc", new.cpu_ms, "ms", 2.2, notes=f"p50 {new.p50_ms:.2f} ms"),
        Figure("4 clients kept alive", "rpc", four.per_second, "/s", 1000, least=True),
        Figure("4 clients kept alive, p99", "rpc", four.p99_ms, "ms", 20, notes=f"p50 {four.p50_ms:.2f} ms"),
        Figure("4 clients and 200 idle connections", "rpc", idle.per_second, "/s", 1000, least=True),
        Figure("4 clients and 200 idle connections, p99", "rpc", idle.p99_ms, "ms", 20, notes=f"p50 {idle.p50_ms:.2f} ms"),
    ]
    return [*found, _growth(made, pid)]


def _growth(made: Stage, pid: int) -> Figure:
    """How much the manager's memory grows over many requests, after the first tenth of them; less than 10 bytes a request is none."""
    total = 10_000 if made.quick else 100_000
    host, port = made.address

    def ask(requests: int) -> float:
        each = requests // 4
        return rpc.measure("memory", pid, port, made.certificates, host=host, clients=4, requests=each, mode="keep").rss_mb

    first = ask(total // 10)
    steps = [ask(total // 4) for _ in range(4)]
    notes = f"{first:.1f} MB after {total // 10:,}, then {', '.join(f'{step:.1f}' for step in steps)} MB after each quarter"
    return Figure(f"memory growth over {total:,} requests", "rpc", max(0.0, steps[-1] - first), "MB", 1.0, notes=notes)


# VMs


def boots(made: Stage) -> list[Figure]:
    """From the request until the agents answer: all the way (manager, Director, cloud, VM, agent), and the cloud's part alone."""
    made.have_nodes(1)
    single = _boots(made, 1, 3 if made.quick else 7)
    many = _boots(made, 20, 1 if made.quick else 3)
    alone, alone_many = _cloud_alone(made)
    return [
        Figure("VM asked of the manager → its agent answers", "boot", statistics.median(single), "s", 1.5, notes=_spread(single)),
        Figure("20 VMs at once", "boot", statistics.median(many), "s", 12, notes=_spread(many)),
        Figure("of that the dummy cloud alone: one VM", "boot", alone, "s", notes="until a small service in it listens"),
        Figure("of that the dummy cloud alone: 20 VMs", "boot", alone_many, "s"),
    ]


def _boots(made: Stage, count: int, rounds: int) -> list[float]:
    """Seconds from `add_nodes` until it is done, which is after the Director and then the manager have called every new agent."""
    found = []
    for number in range(rounds + 1):
        begun = time.time()
        done = made.perform("add_nodes", nodes={"node": count})
        if number:  # the first is a warm-up
            found.append(done["finished"] - begun)
        made.perform("remove_nodes", nodes={"node": count})
    return found


def _spread(values: list[float]) -> str:
    return f"{len(values)} times, {min(values):.2f} to {max(values):.2f}"


def _cloud_alone(made: Stage) -> tuple[float, float]:
    """The last answer of one VM (median) and of twenty whose user-data only starts a listener."""
    directory = made.platform.directory / "cloud-alone"
    section = {"DRIVER": "dummy", "STATE_DIR": str(directory), "NETWORK": f"127.{made.platform.net}.128.0/18"}
    cloud = factory.open_cloud("iaas", section)
    user_data = boot.LISTENER.replace("{port}", "5555")
    try:
        ones = [boot.measure(cloud, 1, user_data, 5555).last for _ in range(3 if made.quick else 5)]
        return statistics.median(ones), boot.measure(cloud, 20, user_data, 5555).last
    finally:
        cloud.destroy_nodes([node.vmid for node in cloud.list_nodes()])


# Asking all agents


def fanout(made: Stage) -> list[Figure]:
    """`get_helloworld` of the manager, which asks all its agents at once."""
    found = []
    for count, target in ((10, 0.1), (50, 0.4)):
        made.have_nodes(count)
        times = _ask_all(made, count, 10 if made.quick else 40)
        notes = f"{len(times)} times, {min(times):.3f} to {max(times):.3f}"
        found.append(Figure(f"get_helloworld, {count} agents", "fanout", statistics.median(times), "s", target, notes=notes))
    return found


def _ask_all(made: Stage, count: int, rounds: int) -> list[float]:
    times = []
    message = lean_client.request(made.address[0], "get_helloworld")
    with lean_client.connect(made.address, lean_client.context(made.certificates)) as sock:
        for number in range(rounds + 2):
            begun = time.perf_counter()
            reply = lean_client.exchange(sock, message)
            if number > 1:
                times.append(time.perf_counter() - begun)
            if reply.count(b'"error":null,') + reply.count(b'"error":null}') < count:
                raise SystemExit(f"not all of {count} agents answered: {reply[:300]!r}")
    return times


# Memory


def memory(made: Stage) -> list[Figure]:
    """Resident memory at rest, after all the work before, of every kind of process."""
    made.have_nodes(20)
    time.sleep(1 if made.quick else AT_REST_S)
    agents, supervisors, guards = [], [], []
    for vm in made.agents:
        tree = processes.tree(processes.guard_of(made.root(vm)))
        agent = processes.daemon_of(made.root(vm))
        agents.append(processes.memory([agent]))
        supervisors.append(processes.memory([pid for pid in tree[1:] if pid != agent]))
        guards.append(processes.memory(tree[:1]))
    assert made.platform.process is not None
    director = processes.memory(processes.tree(made.platform.process.pid)[:1])
    found = [
        ("agent", max(agents), 35.0),
        ("supervisor's processes of a VM", max(supervisors), 8.0),
        ("manager", processes.memory([made.manager_pid]), 60.0),
        ("Director", director, 100.0),
    ]
    figures = [
        Figure(f"memory of the {name}", "memory", size.rss, "MB", target, notes=f"proportional {size.pss:.1f} MB")
        for name, size, target in found
    ]
    guard = max(guards)
    return [
        *figures,
        Figure("memory of a VM's guard in the dummy cloud", "memory", guard.rss, "MB", notes=f"proportional {guard.pss:.1f} MB"),
    ]


# Restarts


def restarts(made: Stage) -> list[Figure]:
    """A daemon that the supervisor runs, killed; and an agent killed in its VM."""
    rounds = 3 if made.quick else 10
    back, serving = _killed_daemon(made, rounds)
    made.have_nodes(1)
    agent_back, agent_answers = _killed_agent(made, rounds)
    return [
        Figure(
            "killed daemon: runs again", "restart", statistics.median(back) * 1000, "ms", 100, notes=f"at most {max(back) * 1000:.0f} ms"
        ),
        Figure(
            "killed daemon: accepts connections again", "restart", statistics.median(serving) * 1000, "ms", notes="a listener in Python"
        ),
        Figure(
            "killed agent: runs again",
            "restart",
            statistics.median(agent_back) * 1000,
            "ms",
            100,
            notes=f"at most {max(agent_back) * 1000:.0f} ms",
        ),
        Figure("killed agent: answers again", "restart", statistics.median(agent_answers) * 1000, "ms"),
    ]


def _killed_daemon(made: Stage, rounds: int) -> tuple[list[float], list[float]]:
    directory = made.platform.directory / "supervised"
    services = directory / "service"
    services.mkdir(parents=True)
    host = f"127.{made.platform.net}.200.1"
    with processes.runsvdir(services):
        watcher = supervisor.Supervisor(services, directory / "log")
        watcher.ensure(supervisor.Daemon("listener", (sys.executable, "-I", "-S", "-c", LISTENER, host)))
        try:
            outcomes = [_kill(services / "listener", lambda: _accepts((host, 5599))) for _ in range(rounds)]
        finally:
            watcher.remove("listener")
    return [one for one, _ in outcomes], [other for _, other in outcomes]


def _killed_agent(made: Stage, rounds: int) -> tuple[list[float], list[float]]:
    vm = made.agents[0]
    service = made.root(vm) / "root" / "service" / "cpsagent"
    outcomes = [_kill(service, lambda: _accepts((str(vm["ip"]), 5555)), processes.daemon_of(made.root(vm))) for _ in range(rounds)]
    return [one for one, _ in outcomes], [other for _, other in outcomes]


def _kill(service: pathlib.Path, answers: Callable[[], bool], pid: int | None = None) -> tuple[float, float]:
    """Kill a daemon that has run for a while (runsv makes one that ends within a second wait for a second).

    Returns the seconds until it runs and until it answers.
    """
    _poll(answers)
    time.sleep(1.5)
    before = processes.supervised(service)
    if before is None:
        raise SystemExit(f"{service.name} does not run")
    begun = time.perf_counter()
    processes.kill(pid or before)
    _poll(lambda: processes.supervised(service) not in (None, before))
    back = time.perf_counter() - begun
    _poll(answers)
    return back, time.perf_counter() - begun


def _accepts(address: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0


def _poll(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("what was killed does not come back")
        time.sleep(0.0005)


_MEASURES: dict[str, Callable[[Stage], list[Figure]]] = {
    "rpc": calls,
    "boot": boots,
    "fanout": fanout,
    "memory": memory,
    "restart": restarts,
}
