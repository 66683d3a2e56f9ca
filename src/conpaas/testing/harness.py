"""Drive a service manager in memory: requests in, state out, with crashes and failures wherever a test wants them."""

from __future__ import annotations

import contextlib
import importlib.util
import pathlib
import shutil
import string
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from conpaas.core import agent as base_agent
from conpaas.core import application, config, errors, expose, faults, log, manager, node, operations, paths, rpc, services, states
from conpaas.core.state import records
from conpaas.testing import simulation
from conpaas.testing import supervisor as simulated

_MEMORY = pathlib.Path("/dev/shm")  # noqa: S108 - only a faster place for a private temporary directory


class SimulatedCrash(BaseException):
    """The manager was killed here. Not an `Exception`, so that no code on the way mistakes it for a failure it may handle."""


class LocalType(services.ServiceType):
    """A service type whose classes need not be installed."""

    manager_class: type[manager.BaseManager]
    agent_class: type | None

    def load_manager(self) -> Any:
        return self.manager_class

    def load_agent(self) -> Any:
        return self.agent_class


def local_type(manager_class: type[manager.BaseManager], agent_class: type | None, name: str) -> LocalType:
    found = LocalType(name=name, manager=manager_class.__qualname__, agent=getattr(agent_class, "__qualname__", ""))
    object.__setattr__(found, "manager_class", manager_class)
    object.__setattr__(found, "agent_class", agent_class)
    return found


class Harness:
    """One application with one service, in one process, without network or threads.

        with Harness("helloworld") as harness:
            harness.start()
            harness.add_nodes({"node": 2})
            assert "Received" in harness.call("get_helloworld")["helloworld"]

    `service` is the name of an installed service type, or a manager class; with a class, `agent` is its agents' class and `agent_config`
    the text of its agents' configuration (`$NAME` is filled from `get_context_replacement`). Agents are real objects, called through the
    same dispatch and validation as over the wire. Everything a manager keeps is in `directory`, a temporary one by default.

    Requests (`start`, `add_nodes` …) run to their end and raise `errors.OperationFailed` if the operation failed; `call` may begin
    operations that `settle` then runs. `check` asserts that nothing leaked.
    """

    def __init__(
        self,
        service: str | type[manager.BaseManager],
        agent: type | None = None,
        *,
        agent_config: str = "",
        name: str = "service",
        directory: pathlib.Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._own_directory = directory is None
        self.directory = directory or pathlib.Path(tempfile.mkdtemp(prefix="conpaas-", dir=_MEMORY if _MEMORY.is_dir() else None))
        self._settings = dict(settings or {})
        self.type: services.ServiceType = services.registry.get(service) if isinstance(service, str) else local_type(service, agent, name)
        self._agent_config = agent_config or _read_agent_config(self.type)
        self.clock = simulation.Clock()
        self.director = simulation.SimulatedDirector(self._make_agent)
        self.agents = simulation.SimulatedAgents(self.director)
        self._trap: tuple[str, str, str] | None = None
        self._failing: tuple[str, str, str] | None = None
        self.points: list[tuple[str, str, str]] = []
        self._faults = contextlib.ExitStack()
        self._faults.enter_context(faults.trigger(self._at_fault_point))
        self.app = self._boot()
        self.service_id: int = self.call("add_service", 0, service_type=self.type.name)["service_id"]

    def _boot(self) -> application.ApplicationManager:
        self.pool = simulation.DeferredPool()
        self.alive = True
        app = application.ApplicationManager(
            self._config("cpsmanager", "manager", self.directory / "manager"),
            self.director,
            self.agents,
            registry=services.Registry.of([self.type]),
            pool=self.pool,
            undo_delay=0.0,
            clock=self.clock,
            wall_clock=self.clock,
        )
        app.start(watch=False)
        return app

    def _config(self, daemon: str, section: str, root: pathlib.Path, extra: Mapping[str, str] | None = None) -> config.Config:
        where = paths.Paths.under(root, daemon=daemon)
        where.create()
        common = {"USER_ID": str(simulation.USER_ID), "APP_ID": str(simulation.APP_ID), "DEPLOYMENT_NAME": "test", "MY_IP": "10.0.0.1"}
        return config.Config({section: {**common, **where.to_config(), **self._settings, **(extra or {})}}, main=section)

    def _make_agent(self, one: node.ServiceNode, service_id: int, context: Mapping[str, str]) -> object:
        agent_class = self.type.load_agent()
        if agent_class is None:
            return _SilentAgent()
        filled = string.Template(self._agent_config).substitute(context)
        where = self.directory / "nodes" / one.id
        base = self._config("cpsagent", "agent", where, {"MY_IP": one.ip, "PRIVATE_IP": one.private_ip, "VM_ID": one.vmid})
        text = "[agent]\n" + "".join(f"{key} = {value}\n" for key, value in base.section("agent").items())
        text += f"TYPE = {self.type.agent_name}\nSERVICE_ID = {service_id}\nMANAGER_IP = 10.0.0.1\n{filled}"
        path = where / "config.cfg"
        path.write_text(text)
        made = agent_class(config.Config.read(path, main="agent"))
        if isinstance(made, base_agent.BaseAgent):
            made.supervisor = simulated.SimulatedSupervisor()
        return made

    # Life and death of the manager

    def __enter__(self) -> Harness:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the manager and remove all files."""
        self._faults.close()
        self.app.close()
        log_service = self.service_id if hasattr(self, "service_id") else 0
        log.close_service(log_service)
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def crash_at(self, kind: str, step: str, when: str) -> None:
        """Let the manager be killed (`SimulatedCrash` is raised) when an operation gets there. `when` is one of `faults.WHENS`."""
        self._trap = (kind, step, when)

    def fail_at(self, kind: str, step: str, when: str) -> None:
        """Let a step fail once when an operation gets there: `before` it did anything, or `after` it did all."""
        self._failing = (kind, step, when)

    def _at_fault_point(self, component: str, kind: str, step: str, when: str) -> None:
        here = (kind, step, when)
        self.points.append(here)
        if here == self._trap:
            self._trap = None
            self.kill()
            raise SimulatedCrash(" ".join(here))
        if here == self._failing:
            self._failing = None
            raise errors.OperationFailed(f"'{step}' failed by order of a test")

    def kill(self) -> None:
        """Kill the manager here and now: nothing it had in memory survives."""
        self.alive = False
        self.pool.close()
        self.app.store.close()

    def restart(self) -> None:
        """Start a new manager on the same files; it continues or undoes what was under way, to the end."""
        if self.alive:
            self.kill()
        self.app = self._boot()
        self.settle()

    def settle(self) -> None:
        """Run everything that was begun."""
        self.pool.settle()

    def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass: agents are watched, lost nodes are replaced."""
        for _ in range(max(1, round(seconds / step))):
            self.clock.now += step
            self.app.health.look()
            self.settle()
            self.app.health.look()
            self.settle()

    # Requests

    def call(self, method: str, service_id: int | None = None, /, **params: Any) -> Any:
        """Call an exposed method as the user (GET, POST or UPLOAD, with `pathlib.Path` for files); on the service unless told otherwise.

        Raises `errors.RemoteError` with the text a user would see. Files that come back are returned as their content.
        """
        target = self.service_id if service_id is None else service_id
        served: object = self.app if target == 0 else self.app.find_manager(target)
        verb = next((verb for verb, name in expose.exposed_methods(served) if name == method), "POST")
        with tempfile.TemporaryDirectory() as spool:
            given: dict[str, Any] = params
            if verb == "UPLOAD":
                files = {key: value for key, value in params.items() if isinstance(value, pathlib.Path)}
                fields = {key: value for key, value in params.items() if key not in files}
                given = {**simulation.form_fields(fields), **simulation.uploaded(files, spool)}
            reply = self.app.rpc.dispatch(rpc.RpcCall(verb, target, method, 1, given, simulation.USER))
            if reply.download is not None:
                return reply.download.path.read_bytes()
            return simulation.result_of(reply, method=method)

    def request(self, method: str, /, **params: Any) -> operations.Operation:
        """Call a method of service 0 that begins an operation, and run that to its end, whatever that is."""
        begun = self.call(method, 0, **params)["operation"]
        self.settle()
        return self.operation(begun)

    def _demand(self, method: str, /, **params: Any) -> operations.Operation:
        op = self.request(method, **params)
        if op.status is not operations.OperationStatus.DONE:
            raise errors.OperationFailed(op.error or f"{method} ended {op.status}")
        return op

    def start(self, cloud: str = "default") -> operations.Operation:
        return self._demand("start_service", service_id=self.service_id, cloud=cloud)

    def stop(self, *, force: bool = False) -> operations.Operation:
        return self._demand("stop_service", service_id=self.service_id, force=force)

    def add_nodes(self, nodes: Mapping[str, int], cloud: str = "default") -> operations.Operation:
        return self._demand("add_nodes", service_id=self.service_id, nodes=dict(nodes), cloud=cloud)

    def remove_nodes(self, nodes: Mapping[str, int] | None = None, *, node_ids: Iterable[str] | None = None) -> operations.Operation:
        chosen = {"nodes": dict(nodes)} if nodes is not None else {"nodeIds": list(node_ids or ())}
        return self._demand("remove_nodes", service_id=self.service_id, **chosen)

    def migrate_nodes(self, moves: Mapping[str, str], delay: int = 0) -> operations.Operation:
        """Move nodes, by id, to clouds; with a delay the former ones are still there when this returns (`pass_time`)."""
        by_id = {one.id: one for one in self.nodes}
        plan = [{"from_cloud": by_id[key].cloud_name, "vmid": by_id[key].vmid, "to_cloud": cloud} for key, cloud in moves.items()]
        return self._demand("migrate_nodes", service_id=self.service_id, nodes=plan, delay=delay)

    def create_volume(self, name: str, size: int, on: node.ServiceNode) -> operations.Operation:
        return self._demand("create_volume", volumeName=name, volumeSize=size, agentId=on.id)

    def delete_volume(self, name: str) -> operations.Operation:
        return self._demand("delete_volume", volumeName=name)

    def recover(self) -> operations.Operation:
        return self._demand("recover_service", service_id=self.service_id)

    def remove(self) -> operations.Operation:
        return self._demand("remove_service", service_id=self.service_id)

    # State

    @property
    def manager(self) -> manager.BaseManager:
        found = self.app.find_manager(self.service_id)
        if found is None:
            raise AssertionError("the service was removed")
        return found

    @property
    def state(self) -> states.State:
        return self.manager.state

    @property
    def nodes(self) -> list[node.ServiceNode]:
        return self.manager.nodes

    @property
    def history(self) -> list[tuple[str, str]]:
        """State and reason, oldest first."""
        return [(entry.state, entry.reason) for entry in self.app.store.services.history(self.service_id)]

    def operation(self, operation_id: str) -> operations.Operation:
        return self.app.store.operations.get(operation_id)

    def operations(self) -> list[operations.Operation]:
        """The operations on the service, newest first."""
        return self.app.store.operations.list(self.service_id, 200)

    def agent(self, one: node.ServiceNode | str) -> Any:
        """The agent object of a node."""
        return self.director.machine(one).agent

    def kill_node(self, one: node.ServiceNode | str) -> None:
        """Let a node's agent no longer answer; the Director still has the VM on record."""
        self.director.machine(one).answers = False

    def revive_node(self, one: node.ServiceNode | str) -> None:
        self.director.machine(one).answers = True

    def check(self) -> None:
        """Assert that nothing is under way and nothing leaked: every VM and volume is on record exactly once, and the other way round."""
        store = self.app.store
        unfinished = store.operations.unfinished()
        assert not unfinished, f"still under way: {unfinished}"
        recorded: list[str] = []
        for service in store.services.all():
            assert service.state in states.STABLE, f"service {service.id} is left in {service.state}"
            ids = node.ids_of(store.nodes.with_status(service.id, records.NodeStatus.MEMBER, records.NodeStatus.LOST))
            if service.state in (states.State.INIT, states.State.STOPPED):
                assert not ids, f"service {service.id} is {service.state} but has the nodes {ids}"
            recorded += ids
        machines = sorted(self.director.machines)
        assert sorted(recorded) == machines, f"on record are the nodes {sorted(recorded)}, there are {machines}"
        self._check_volumes()

    def _check_volumes(self) -> None:
        """A volume whose deletion failed half-way is still listed, to be deleted again, but may be gone already."""
        records_ = self.app.store.volumes.all()
        half_gone = {record.vol_id for record in records_ if record.status == records.VolumeStatus.DELETING} - set(self.director.disks)
        known = {record.vol_id for record in records_} - half_gone
        known |= {volume.vol_id for machine in self.director.machines.values() for volume in machine.node.volumes}
        known |= self._check_disks()
        there = set(self.director.disks) - self.director.ending()
        assert known == there, f"on record are the volumes {sorted(map(str, known))}, there are {sorted(there)}"

    def _check_disks(self) -> set[str | None]:
        """Kept disks are on the nodes that have them on record, which know it, or on none. Returns their ids."""
        store = self.app.store
        found = [record for service in store.services.all() for record in store.disks.all(service.id)]
        for record in found:
            disk = self.director.disks.get(record.vol_id or "")
            assert disk is not None, f"{record.name} is on record as {record.vol_id}, which is not there"
            told = f"{record.name} is on record at {record.node_id}, and at {disk.vmid} as {disk.device}"
            assert (disk.vmid or "", disk.device) == (record.vmid, record.dev_name), told
            nodes = [one.id for one in store.nodes.with_status(record.service_id) if record.as_volume() in one.volumes]
            assert nodes == ([record.node_id] if record.node_id else []), f"{record.name} of {record.node_id} is known to {nodes}"
        return {record.vol_id for record in found}


class _SilentAgent:
    """An agent of a service whose agent class a test does not care for."""

    @expose.expose("GET")
    def check_process(self) -> None:
        """Answer, to show that the agent works."""


def _read_agent_config(service: services.ServiceType) -> str:
    if not service.agent_config:
        return ""
    spec = importlib.util.find_spec(service.package)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = pathlib.Path(place) / service.agent_config
        if path.is_file():
            return path.read_text()
    raise errors.NotFound(f"The agent configuration {service.agent_config} is not in the package {service.package}.")


@contextlib.contextmanager
def expect_crash() -> Iterator[None]:
    """The block must end in a `SimulatedCrash`."""
    try:
        yield
    except SimulatedCrash:
        return
    raise AssertionError("the manager was not killed")
