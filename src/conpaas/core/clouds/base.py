"""The one interface to every cloud, and the plain data that travels through it.

A driver (`dummy`, `ec2`, `openstack` …) subclasses `Cloud`. Every driver keeps the same promises, which `tests/integration/clouds` checks:

- **Idempotent.** A request carries a key. Asking again with the same key and index answers the node (or volume) that exists, in whatever
  state it is now, and never makes a second one. Destroying what is gone, and detaching what is detached, succeeds. An attach that is
  already as asked succeeds.
- **True after a crash.** `list_nodes` and `list_volumes` read the cloud, not the memory of this process. A process that died in the middle
  of a call leaves nothing that a later `list_nodes` does not show with its tags.
- **Parallel.** Nodes of one request are made, and destroyed, at the same time (a bounded number at once). Methods may be called from
  several threads and from several processes.
- **Bounded.** No method waits longer than the driver's own time limits; none waits for a node to *answer*, only for the cloud to accept
  it. A node is ready when its agent or manager answers `check_process`, and that is the caller's to ask.
- **Errors are exceptions**: `errors.QuotaExceeded` (nothing was made), `NodesNotCreated`, `NodesNotDestroyed`, `errors.NotFound` (a VM
  or volume that the call needs does not exist), other `errors.CloudError`. Never False or None.

Sizes of volumes are MB; times are seconds since the epoch.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
from collections.abc import Iterable, Mapping
from typing import ClassVar

from conpaas.core import errors
from conpaas.core.clouds import settings


class NodeState(enum.StrEnum):
    """What a cloud says of a VM.

    PENDING: accepted, not yet running its user-data. RUNNING: powered on (its daemons may still be coming up). STOPPED: powered off on
    purpose, keeps its disk and address. TERMINATED: dead and not coming back; it is listed until it is destroyed.
    """

    PENDING = "pending"
    RUNNING = "running"
    STOPPED = "stopped"
    TERMINATED = "terminated"


class VolumeState(enum.StrEnum):
    """AVAILABLE: exists, attached to nothing. IN_USE: attached to a VM."""

    AVAILABLE = "available"
    IN_USE = "in-use"


@dataclasses.dataclass(frozen=True)
class VolumeSpec:
    """A volume made and attached together with a node, and destroyed with it. `device` is bare (`sdb`); `size` in MB."""

    name: str
    size: int
    device: str


@dataclasses.dataclass(frozen=True)
class NodeSpec:
    """One VM of a request; `index` is its place in the request and part of its identity.

    `user_data` is this VM's own text (it carries this VM's one-time token). `inst_type` None means the cloud's configured size.
    """

    index: int
    name: str
    role: str = "node"
    inst_type: str | None = None
    user_data: str = ""
    volumes: tuple[VolumeSpec, ...] = ()
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class NodeRequest:
    """VMs wanted together. `key` is the caller's, unique per request and written down before the cloud is called."""

    key: str
    specs: tuple[NodeSpec, ...]

    @property
    def count(self) -> int:
        return len(self.specs)


@dataclasses.dataclass(frozen=True)
class VolumeRequest:
    """A volume of `size` MB. `vmid`, when known, is the VM that it is meant for (some clouds must place it near)."""

    key: str
    name: str
    size: int
    vmid: str | None = None
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class CloudVolume:
    """A volume as the cloud knows it; `vmid` and `device` are None while it is not attached."""

    vol_id: str
    name: str
    size: int
    state: VolumeState
    vmid: str | None = None
    device: str | None = None
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    created: float = 0.0
    key: str = ""


@dataclasses.dataclass(frozen=True)
class CloudNode:
    """A VM as the cloud knows it. `ip` and `private_ip` are empty strings until the cloud assigned them.

    `key` and `index` are those of the request that made it; `volumes` are the ones attached now.
    """

    vmid: str
    ip: str
    private_ip: str
    state: NodeState
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    created: float = 0.0
    index: int = 0
    key: str = ""
    name: str = ""
    role: str = "node"
    volumes: tuple[CloudVolume, ...] = ()


class NodesNotCreated(errors.CloudError):
    """Some nodes of a request could not be made. `created` are those that exist now (the caller keeps or destroys them); `reasons` maps
    the index of each failed node to one sentence. A node may be in both: it exists, but could not be completed."""

    def __init__(self, cloud: str, wanted: int, created: Iterable[CloudNode], reasons: Mapping[int, str]) -> None:
        self.created = tuple(created)
        self.reasons = dict(sorted(reasons.items()))
        details = "; ".join(f"node {index}: {reason}" for index, reason in self.reasons.items())
        super().__init__(f"{len(self.reasons)} of {wanted} nodes could not be created on cloud {cloud}: {details}")


class NodesNotDestroyed(errors.CloudError):
    """Some VMs could not be destroyed and must be tried again; `reasons` maps vmid to one sentence. The others are gone."""

    def __init__(self, cloud: str, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(sorted(reasons.items()))
        details = "; ".join(f"{vmid}: {reason}" for vmid, reason in self.reasons.items())
        super().__init__(f"{len(self.reasons)} nodes could not be destroyed on cloud {cloud}: {details}")


def carries(tags: Mapping[str, str], wanted: Mapping[str, str] | None) -> bool:
    """Whether `tags` has every pair of `wanted` (None and {} match everything)."""
    return all(tags.get(name) == value for name, value in (wanted or {}).items())


class Cloud(abc.ABC):
    """A cloud: one section of director.cfg and the driver it names. See the module's text for what every method promises.

    A constructor reads and checks configuration only; it contacts nobody, so that a cloud that is down never stops the Director.
    """

    driver: ClassVar[str]
    required: ClassVar[tuple[str, ...]] = ()

    def __init__(self, name: str, section: Mapping[str, str]) -> None:
        self.name = name
        self.settings = settings.Settings(name, self.driver, section)
        self.settings.require(self.required)

    @abc.abstractmethod
    def check(self) -> list[str]:
        """Contacts the cloud and answers what is wrong with it or its configuration, a sentence each; [] when all is well."""

    @abc.abstractmethod
    def create_nodes(self, request: NodeRequest) -> list[CloudNode]:
        """Makes the VMs that do not exist yet, and answers all of the request, in order of index, perhaps still PENDING.

        All or an exception: QuotaExceeded before anything is made, NodesNotCreated naming each failure and what exists.
        """

    @abc.abstractmethod
    def list_nodes(self, tags: Mapping[str, str] | None = None) -> list[CloudNode]:
        """All VMs that carry every given tag, oldest first, whoever made them and whatever their state."""

    @abc.abstractmethod
    def destroy_nodes(self, vmids: Iterable[str]) -> None:
        """Ends VMs and frees what they hold: processes, disk, address, and the volumes made with them (`NodeSpec.volumes`).

        Volumes attached later are detached and live on. Unknown ids count as destroyed. Raises NodesNotDestroyed after trying all.
        """

    @abc.abstractmethod
    def create_volume(self, request: VolumeRequest) -> CloudVolume:
        """Makes a volume, or answers the one that the same key made before."""

    @abc.abstractmethod
    def attach_volume(self, vol_id: str, vmid: str, device: str) -> CloudVolume:
        """Makes the volume appear in the VM as `device` (bare, `sdb`). Raises CloudError when it is attached elsewhere."""

    @abc.abstractmethod
    def detach_volume(self, vol_id: str) -> CloudVolume:
        """Takes the volume from its VM; its data stays. Raises CloudError while the VM still has it mounted."""

    @abc.abstractmethod
    def destroy_volume(self, vol_id: str) -> None:
        """Deletes a volume and its data. Raises CloudError while it is attached; an unknown id counts as destroyed."""

    @abc.abstractmethod
    def list_volumes(self, tags: Mapping[str, str] | None = None) -> list[CloudVolume]:
        """All volumes that carry every given tag, oldest first."""

    @abc.abstractmethod
    def console_log(self, vmid: str) -> str:
        """The end (up to 64 KB) of what the VM wrote to its console, "" when there is nothing yet; NotFound for an unknown VM."""


class LocalCloud(Cloud):
    """A cloud whose VMs live on the Director's own machine: they can be switched off with it, and come back with it."""

    @abc.abstractmethod
    def halt_all(self) -> None:
        """Switches every VM off, its services first; `resume` switches them on again with their disks. Raises CloudError."""

    @abc.abstractmethod
    def resume(self) -> list[str]:
        """Switches on the VMs that were halted or went down with the host; to be called when a Director starts.

        VMs that run are not touched, nor those that were killed; no user-data runs again. Returns the ids of the VMs switched on; raises
        CloudError, after trying all, when some could not be.
        """
