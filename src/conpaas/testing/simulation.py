"""The world around a manager, in memory: a Director with its cloud, agents, time, and threads that run when told to."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from conpaas.core import agents, callbacker, errors, node, params, rpc
from conpaas.core.https import identity

USER_ID = 1
APP_ID = 1
USER = identity.PeerIdentity(role=identity.ROLE_USER, uid=USER_ID, aid=0, cn="user")
MANAGER = identity.PeerIdentity(role=identity.ROLE_MANAGER, uid=USER_ID, aid=APP_ID, cn="ConPaaS")

MakeAgent = Callable[[node.ServiceNode, int, Mapping[str, str]], object]
"""Makes the agent of a new node: the node, the service id, the values of `get_context_replacement`."""


class Clock:
    """Time that passes only when told to, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class DeferredPool:
    """Takes work like a pool of threads and does it, in order, when `settle` is called."""

    def __init__(self) -> None:
        self._work: collections.deque[Callable[[], None]] = collections.deque()

    def submit(self, function: Callable[[], None], name: str = "") -> None:
        self._work.append(function)

    def close(self) -> None:
        self._work.clear()

    def settle(self) -> None:
        """Do all that was submitted, and what comes of it."""
        while self._work:
            self._work.popleft()()


class ImmediatePool:
    """Does the work at once, in the caller's thread."""

    def submit(self, function: Callable[[], None], name: str = "") -> None:
        function()

    def close(self) -> None:
        """Nothing is left to do."""


@dataclasses.dataclass
class Machine:
    """A simulated VM with its agent. `answers` False: the VM is there, its agent is not to be reached."""

    node: node.ServiceNode
    service_id: int
    rpc: rpc.RpcApplication
    agent: object
    request: str
    answers: bool = True


@dataclasses.dataclass
class Disk:
    vol_id: str
    name: str
    size: int
    cloud: str
    vmid: str | None = None
    device: str | None = None
    keep: bool = False


@dataclasses.dataclass
class _Trouble:
    method: str
    error: Exception
    times: int
    after: bool


class SimulatedDirector(callbacker.Callbacker):
    """Keeps the Director's promises: the same request key means the same request, and a failed request leaves nothing behind.

    `credits` is the user's credit; each node costs one. `domains` tells which service holds a name, `foreign_domains` are those of other
    applications, `revoked` the serial numbers of revoked certificates. `network` is the first half of the nodes' addresses. Trouble is
    injected with `fail`, `down` and `lose_answers`.
    """

    def __init__(self, make_agent: MakeAgent, network: str = "10.0") -> None:
        self.network = network
        self.credits = 1_000_000
        self.machines: dict[str, Machine] = {}
        self.disks: dict[str, Disk] = {}
        self.domains: dict[str, int] = {}
        self.foreign_domains: set[str] = set()
        self.revoked: list[str] = []
        self.created = 0
        self.calls: collections.Counter[str] = collections.Counter()
        self._make_agent = make_agent
        self._answers: dict[str, list[node.ServiceNode] | errors.ConPaaSError] = {}
        self._volume_answers: dict[str, str | errors.ConPaaSError] = {}
        self._given_up: dict[str, node.ServiceNode] = {}
        self._trouble: list[_Trouble] = []
        self._failing_nodes = 0
        self.startup_scripts: list[str] = []
        """What new nodes were to run, request by request."""
        self._short = 0
        self._clinging = False

    # Trouble

    def fail(self, method: str, error: Exception | None = None, times: int = 1) -> None:
        """Let the next calls of a method be refused; nothing happens then."""
        self._trouble.append(_Trouble(method, error or errors.RemoteError(f"{method} failed by order of a test"), times, after=False))

    def down(self, calls: int) -> None:
        """Let the next calls, of whatever method, find nobody."""
        self._trouble.append(_Trouble("", errors.Unreachable("connection refused"), calls, after=False))

    def lose_answers(self, method: str, times: int = 1) -> None:
        """Let the next calls of a method do their work, but their answers get lost."""
        self._trouble.append(_Trouble(method, errors.Unreachable("connection reset"), times, after=True))

    def fail_nodes(self, count: int) -> None:
        """Let `count` nodes of the next request not come up; the Director undoes the others then."""
        self._failing_nodes = count

    def give_fewer(self, count: int) -> None:
        """Break a promise: answer the next request with `count` nodes fewer than asked for."""
        self._short = count

    def cling(self) -> None:
        """Let the cloud destroy no VM for the time being: those given back no longer answer, but keep their disks."""
        self._clinging = True

    def no_more_trouble(self) -> None:
        self._trouble.clear()
        self._failing_nodes = self._short = 0
        self._clinging = False
        for one in list(self._given_up.values()):
            self._end(one)

    @contextlib.contextmanager
    def _called(self, method: str) -> Any:
        self.calls[method] += 1
        self._strike(method, after=False)
        yield
        self._strike(method, after=True)

    def _strike(self, method: str, *, after: bool) -> None:
        for trouble in self._trouble:
            if trouble.after == after and trouble.method in ("", method) and trouble.times > 0:
                trouble.times -= 1
                raise trouble.error

    # What a manager asks

    def create_nodes(
        self,
        request: str,
        nodes_info: Sequence[Mapping[str, Any]],
        service_id: int,
        service_type: str,
        context: Mapping[str, str],
        startup_script: str = "",
    ) -> list[node.ServiceNode]:
        with self._called("create_nodes"):
            if request not in self._answers:
                self.startup_scripts.append(startup_script)
                self._answers[request] = self._create(request, json.loads(json.dumps(list(nodes_info))), service_id, dict(context))
            answer = self._answers[request]
            if isinstance(answer, errors.ConPaaSError):
                raise answer
        return list(answer)

    def _create(
        self, request: str, wanted: list[dict[str, Any]], service_id: int, context: dict[str, str]
    ) -> list[node.ServiceNode] | errors.ConPaaSError:
        failing, self._failing_nodes = self._failing_nodes, 0
        short, self._short = self._short, 0
        if failing:
            return errors.RemoteError(f"{failing} of {len(wanted)} nodes did not come up: the cloud refused them; all were given back.")
        if self.credits < len(wanted):
            return errors.InsufficientCredits()
        made = [self._create_one(request, info, service_id, context) for info in wanted[: len(wanted) - short]]
        self.credits -= len(made)
        return made

    def _create_one(self, request: str, info: dict[str, Any], service_id: int, context: dict[str, str]) -> node.ServiceNode:
        self.created += 1
        number = self.created
        vmid, cloud = f"i-{number:04d}", node.inner_cloud(info.get("cloud"))
        disks = [
            self._make_disk(volume["vol_name"] % {"vm_id": vmid}, volume["vol_size"], cloud, vmid, volume.get("dev_name"))
            for volume in info.get("volumes", ())
        ]
        volumes = tuple(node.ServiceVolume(disk.name, disk.size, disk.vol_id, vmid, disk.device, cloud) for disk in disks)
        address = f"{self.network}.{number >> 8 & 255}.{number & 255}"
        made = node.ServiceNode(vmid, address, address, cloud, info.get("role", node.ROLE_REGULAR), volumes=volumes)
        agent = self._make_agent(made, service_id, context)
        application = rpc.RpcApplication()
        application.register(0, agent)
        self.machines[made.id] = Machine(made, service_id, application, agent, request)
        return made

    def remove_nodes(self, nodes: Sequence[node.ServiceNode], request: str, *, disks: bool = False) -> None:
        with self._called("remove_nodes"):
            for one in nodes:
                if self.machines.pop(one.id, None) is not None:
                    self.credits += 1
                for disk in self.disks.values():
                    disk.keep = disk.keep and not (disks and disk.vmid == one.vmid)
                self._given_up[one.id] = one
                if not self._clinging:
                    self._end(one)

    def _end(self, one: node.ServiceNode) -> None:
        """A VM is gone, and its disks with it, except kept ones."""
        self._given_up.pop(one.id, None)
        for disk in [disk for disk in self.disks.values() if disk.vmid == one.vmid]:
            if disk.keep:
                disk.vmid = disk.device = None
            else:
                del self.disks[disk.vol_id]

    def create_volume(self, request: str, size: int, name: str, vm_id: str, cloud: str, service_id: int, *, keep: bool = False) -> str:
        with self._called("create_volume"):
            if request not in self._volume_answers:
                self._volume_answers[request] = self._create_volume(size, name, vm_id, cloud, keep)
            answer = self._volume_answers[request]
            if isinstance(answer, errors.ConPaaSError):
                raise answer
        return answer

    def _create_volume(self, size: int, name: str, vm_id: str, cloud: str, keep: bool) -> str | errors.ConPaaSError:
        if not any(machine.node.vmid == vm_id for machine in self.machines.values()):
            return errors.RemoteError(f"VM {vm_id} does not belong to this application.")
        return self._make_disk(name, size, cloud, None, None, keep=keep).vol_id

    def _make_disk(self, name: str, size: int, cloud: str, vmid: str | None, device: str | None, *, keep: bool = False) -> Disk:
        self.created += 1
        disk = Disk(f"vol-{self.created:04d}", name, size, cloud, vmid, device, keep)
        self.disks[disk.vol_id] = disk
        return disk

    def attach_volume(self, vol_id: str, vm_id: str, device: str, cloud: str) -> None:
        with self._called("attach_volume"):
            disk = self._disk(vol_id)
            if not any(machine.node.vmid == vm_id for machine in self.machines.values()):
                raise errors.RemoteError(f"There is no VM {vm_id}.")
            if disk.vmid not in (None, vm_id) or self._device_taken(disk, vm_id, device):
                raise errors.RemoteError(f"The volume {vol_id} or the device {device} of {vm_id} is in use.")
            disk.vmid, disk.device = vm_id, device

    def _disk(self, vol_id: str) -> Disk:
        if vol_id not in self.disks:
            raise errors.RemoteError(f"There is no volume {vol_id}.")
        return self.disks[vol_id]

    def _device_taken(self, disk: Disk, vmid: str, device: str) -> bool:
        return any(other is not disk and (other.vmid, other.device) == (vmid, device) for other in self.disks.values())

    def detach_volume(self, vol_id: str, cloud: str) -> None:
        with self._called("detach_volume"):
            disk = self.disks.get(vol_id)
            if disk is None:
                return
            holder = next((one for one in self._given_up.values() if one.vmid == disk.vmid), None)
            if disk.keep and holder is not None:
                raise errors.RemoteError(f"The cloud still has {holder.id}, to which the volume is attached.")
            disk.vmid = disk.device = None

    def destroy_volume(self, vol_id: str, cloud: str) -> None:
        with self._called("destroy_volume"):
            disk = self.disks.get(vol_id)
            if disk is not None and disk.vmid is not None:
                raise errors.RemoteError(f"Volume {vol_id} is attached to VM {disk.vmid}; detach it first.")
            self.disks.pop(vol_id, None)

    def claim_domain(self, name: str, service_id: int) -> None:
        with self._called("claim_domain"):
            if name in self.foreign_domains:
                raise errors.RemoteError(f"The domain '{name}' is in use by another application; choose another name.")
            if self.domains.setdefault(name, service_id) != service_id:
                raise errors.RemoteError(f"The domain '{name}' is in use by service {self.domains[name]} of this application.")

    def release_domain(self, name: str, service_id: int) -> None:
        with self._called("release_domain"):
            if self.domains.get(name) == service_id:
                del self.domains[name]

    def credit(self) -> int:
        with self._called("credit"):
            return self.credits

    def revoked_certificates(self) -> list[str]:
        self._called("revoked_certificates")
        return list(self.revoked)

    def list_nodes(self) -> list[callbacker.InventoryEntry]:
        with self._called("list_nodes"):
            return [callbacker.InventoryEntry(machine.node, machine.service_id) for machine in self.machines.values()]

    def close(self) -> None:
        """The simulated Director outlives its managers."""

    # What a test asks

    def machine(self, one: node.ServiceNode | str) -> Machine:
        key = one if isinstance(one, str) else one.id
        if key not in self.machines:
            raise AssertionError(f"there is no machine {key}; there are {', '.join(self.machines) or 'none'}")
        return self.machines[key]

    def ending(self) -> set[str]:
        """The ids of disks that go with VMs which were given back and are not gone yet: the Director's to destroy (`cling`)."""
        vmids = {one.vmid for one in self._given_up.values()}
        return {disk.vol_id for disk in self.disks.values() if disk.vmid in vmids and not disk.keep}

    def vanish(self, one: node.ServiceNode | str) -> None:
        """Let a VM and its disks, except kept ones, disappear from the cloud, as when its host burns down."""
        machine = self.machine(one)
        del self.machines[machine.node.id]
        self._end(machine.node)


class SimulatedAgents(agents.AgentCaller):
    """Calls the agents of a simulated Director's machines, through the same dispatch and validation as over the wire."""

    def __init__(self, director: SimulatedDirector) -> None:
        super().__init__(ImmediatePool())
        self._director = director
        self.calls: collections.Counter[str] = collections.Counter()

    def _reply(self, target: node.ServiceNode, verb: str, method: str, given: dict[str, Any]) -> rpc.RpcReply:
        machine = self._director.machines.get(target.id)
        if machine is None or not machine.answers:
            raise errors.Unreachable(f"{target.ip} does not answer", peer=target.ip, method=method)
        self.calls[method] += 1
        if verb != "UPLOAD":
            given = json.loads(json.dumps(given))
        reply = machine.rpc.dispatch(rpc.RpcCall(verb, 0, method, 1, given, MANAGER))
        if not machine.answers:
            raise errors.Unreachable(f"{target.ip} died before it answered", peer=target.ip, method=method)
        return reply

    def _call(self, target: node.ServiceNode, verb: str, method: str, params: dict[str, Any], timeout: float | None) -> Any:
        return result_of(self._reply(target, verb, method, params), target.ip, method)

    def _upload(
        self, target: node.ServiceNode, method: str, files: Mapping[str, pathlib.Path], fields: dict[str, Any], timeout: float | None
    ) -> Any:
        with tempfile.TemporaryDirectory() as spool:
            return result_of(self._reply(target, "UPLOAD", method, {**form_fields(fields), **uploaded(files, spool)}), target.ip, method)

    def _download(self, target: node.ServiceNode, method: str, params: dict[str, Any], to: pathlib.Path, timeout: float | None) -> None:
        reply = self._reply(target, "GET", method, params)
        if reply.download is None:
            result_of(reply, target.ip, method)
            raise errors.RemoteError(f"{method} did not answer with a file.", peer=target.ip, method=method)
        shutil.copyfile(reply.download.path, to)


def form_fields(fields: Mapping[str, Any]) -> dict[str, str]:
    """Values as a form carries them."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}


def uploaded(files: Mapping[str, pathlib.Path], spool: str) -> dict[str, params.UploadedFile]:
    """Copies of files as a server hands them to a method."""
    found = {}
    for name, path in files.items():
        copy = pathlib.Path(spool) / f"upload-{name}"
        shutil.copyfile(path, copy)
        found[name] = params.UploadedFile(path.name, copy, copy.stat().st_size)
    return found


def result_of(reply: rpc.RpcReply, peer: str = "", method: str = "") -> Any:
    """The result in a reply. Raises `errors.RemoteError` with the text of an error, as a client would."""
    body = (reply.body or b"").decode()
    if reply.status != 200:
        raise errors.RemoteError(f"HTTP {reply.status}: {body}", peer=peer, method=method)
    envelope = json.loads(body)
    if envelope.get("error") is not None:
        raise errors.RemoteError(envelope["error"], peer=peer, method=method)
    return envelope["result"]
