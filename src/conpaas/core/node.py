"""What travels about virtual machines and disks: nodes of a service, the volumes attached to them, and the names of their clouds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from conpaas.core import errors

AGENT_PORT = 5555
MANAGER_PORT = 443

DEFAULT_CLOUD = "default"
"""The name clients use for the operator's first cloud."""

INNER_DEFAULT_CLOUD = "iaas"
"""The name the same cloud has inside: in node ids, in the Director's database, and as a section of its configuration."""

ROLE_DEFAULT = "count"
"""Pseudo-role of generic client calls; replaced by the service's default role."""

ROLE_REGULAR = "node"

DEFAULT_WEIGHT = 100


def inner_cloud(name: str | None) -> str:
    """Return the name a cloud has inside (`default`, empty and None mean the operator's first cloud)."""
    return INNER_DEFAULT_CLOUD if not name or name == DEFAULT_CLOUD else name


def outer_cloud(name: str | None) -> str:
    """Return the name a cloud has for clients."""
    return DEFAULT_CLOUD if not name or name == INNER_DEFAULT_CLOUD else name


def _required(what: str, values: Mapping[str, Any], key: str) -> Any:
    if not isinstance(values, Mapping) or key not in values:
        raise errors.InvalidArgument(f"A {what} must have the field '{key}', got {values!r}.")
    return values[key]


@dataclasses.dataclass(frozen=True, slots=True)
class ServiceVolume:
    """A disk of `vol_size` MB. `vm_id` is the cloud's VM id for volumes made with a node, the node id for volumes of the application."""

    vol_name: str
    vol_size: int
    vol_id: str | None = None
    vm_id: str | None = None
    dev_name: str | None = None
    cloud: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ServiceVolume:
        """Read the wire shape; unknown keys are ignored. Raises `errors.InvalidArgument`."""
        size = _required("volume", values, "vol_size")
        return cls(
            vol_name=str(_required("volume", values, "vol_name")),
            vol_size=int(size),
            vol_id=values.get("vol_id"),
            vm_id=values.get("vm_id"),
            dev_name=values.get("dev_name"),
            cloud=values.get("cloud"),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class ServiceNode:
    """A virtual machine that runs one agent of a service."""

    vmid: str
    ip: str
    private_ip: str
    cloud_name: str
    role: str = ROLE_REGULAR
    weight_backend: int = DEFAULT_WEIGHT
    volumes: tuple[ServiceVolume, ...] = ()

    @property
    def id(self) -> str:
        """The name of the node on the wire (`agentId`, `serviceNodeId`): cloud name and VM id joined."""
        return f"{self.cloud_name}{self.vmid}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "vmid": self.vmid,
            "ip": self.ip,
            "private_ip": self.private_ip,
            "cloud_name": self.cloud_name,
            "weight_backend": self.weight_backend,
            "role": self.role,
            "volumes": [volume.to_dict() for volume in self.volumes],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ServiceNode:
        """Read the wire shape; `id` is recomputed. Raises `errors.InvalidArgument` naming the missing field."""
        return cls(
            vmid=str(_required("node", values, "vmid")),
            ip=str(_required("node", values, "ip")),
            private_ip=str(_required("node", values, "private_ip")),
            cloud_name=str(_required("node", values, "cloud_name")),
            role=values.get("role") or ROLE_REGULAR,
            weight_backend=int(values.get("weight_backend", DEFAULT_WEIGHT)),
            volumes=tuple(ServiceVolume.from_dict(volume) for volume in values.get("volumes") or ()),
        )


def ids_of(nodes: Iterable[ServiceNode]) -> list[str]:
    return [one.id for one in nodes]
