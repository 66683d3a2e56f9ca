"""What a manager asks for when it wants nodes: the wire form of a request, checked once and turned into frozen records."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from conpaas.core import errors, node

MAX_NODES = 200
MAX_VOLUMES = 16
_LONGEST_TEMPLATE = 256
_KEY = re.compile(r"[A-Za-z0-9._:-]{1,100}\Z")
_ROLE = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_CLOUD = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_DEVICE = re.compile(r"[A-Za-z0-9]{1,16}\Z")
_PADDED = re.compile(r"%(?!%|\([a-z_]{1,16}\)[sd])")
"""What is more than a field's value in a %-template: a width of many digits would fill the memory."""
_VOLUME_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}\Z")
_SERVICE_TYPE = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


@dataclasses.dataclass(frozen=True)
class WantedVolume:
    """A volume to be created and attached together with its node: `vol_size` in MB, `vol_name` a %-template over the volume's fields."""

    vol_name: str
    vol_size: int
    dev_name: str | None = None

    def name_for(self, vmid: str) -> str:
        """The volume's own name once the machine it belongs to is known (`osd-%(vm_id)s` → `osd-i123`)."""
        fields = {"vm_id": vmid, "vol_size": self.vol_size, "dev_name": self.dev_name or "", "vol_name": "volume"}
        if len(self.vol_name) > _LONGEST_TEMPLATE or _PADDED.search(self.vol_name.replace("%%", "")):
            raise errors.InvalidArgument(
                f"Volume name template {self.vol_name[:200]!r} can't be expanded: it may hold fields such as %(vm_id)s."
            )
        try:
            name = self.vol_name % fields
        except (KeyError, ValueError, TypeError) as error:
            raise errors.InvalidArgument(f"Volume name template {self.vol_name!r} can't be expanded: {error}.") from error
        if not _VOLUME_NAME.match(name):
            raise errors.InvalidArgument(f"Volume name {name!r} contains invalid characters")
        return name


@dataclasses.dataclass(frozen=True)
class WantedNode:
    """One node of a request, in the request's order."""

    index: int
    role: str
    cloud: str
    inst_type: str | None = None
    volumes: tuple[WantedVolume, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, for the operation's arguments."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> WantedNode:
        """The inverse of `to_dict`."""
        volumes = tuple(WantedVolume(**volume) for volume in raw.get("volumes", ()))
        return cls(index=raw["index"], role=raw["role"], cloud=raw["cloud"], inst_type=raw.get("inst_type"), volumes=volumes)


def cloud_name(given: Any) -> str:
    """The inside name of a cloud: nothing, `None` and `default` all mean the first configured one."""
    if given in (None, "", "default", "None", False):
        return node.INNER_DEFAULT_CLOUD
    if not isinstance(given, str) or not _CLOUD.match(given):
        raise errors.InvalidArgument(f"{given!r} is not the name of a cloud.")
    return given


def request_key(given: str) -> str:
    """A request key as a manager may choose it."""
    if not _KEY.match(given):
        raise errors.InvalidArgument("Parameter 'request': a key has 1 to 100 letters, digits or . _ : - characters.")
    return given


def service_type(given: str) -> str:
    """The name of an agent type; it becomes part of file and VM names, hence the narrow alphabet."""
    if not _SERVICE_TYPE.match(given):
        raise errors.InvalidArgument(f"{given!r} is not the name of a service type.")
    return given


def parse_structure(name: str, text: str) -> Any:
    """Decode a parameter that managers send as JSON, or, the old ones, as the `repr` of a Python object.

    Only literals are accepted in the second form; nothing is evaluated.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise errors.InvalidArgument(f"Parameter '{name}': neither JSON nor a Python literal.") from error


def parse_nodes(text: str) -> tuple[WantedNode, ...]:
    """The nodes of a `/create_nodes` request, in order; raises InvalidArgument naming the element at fault."""
    raw = parse_structure("nodes_info", text)
    if not isinstance(raw, list) or not raw:
        raise errors.InvalidArgument("Parameter 'nodes_info': should be a list with at least one node.")
    if len(raw) > MAX_NODES:
        raise errors.TooLarge(f"Parameter 'nodes_info': {len(raw)} nodes in one request, at most {MAX_NODES} are allowed.")
    return tuple(_parse_node(index, item) for index, item in enumerate(raw))


def _parse_node(index: int, raw: Any) -> WantedNode:
    if not isinstance(raw, dict):
        raise errors.InvalidArgument(f"Parameter 'nodes_info': element {index} should be a dict.")
    role = raw.get("role") or "node"
    if not isinstance(role, str) or not _ROLE.match(role):
        raise errors.InvalidArgument(f"Parameter 'nodes_info': element {index} has the invalid role {role!r}.")
    inst_type = raw.get("inst_type") or None
    if inst_type is not None and not isinstance(inst_type, str):
        raise errors.InvalidArgument(f"Parameter 'nodes_info': element {index} has an inst_type that is not a string.")
    volumes = raw.get("volumes") or []
    if not isinstance(volumes, list) or len(volumes) > MAX_VOLUMES:
        raise errors.InvalidArgument(
            f"Parameter 'nodes_info': 'volumes' of element {index} should be a list of at most {MAX_VOLUMES} volumes."
        )
    return WantedNode(
        index=index, role=role, cloud=cloud_name(raw.get("cloud")), inst_type=inst_type, volumes=tuple(map(_parse_volume, volumes))
    )


def _parse_volume(raw: Any) -> WantedVolume:
    if not isinstance(raw, dict) or not isinstance(raw.get("vol_name"), str):
        raise errors.InvalidArgument("Parameter 'nodes_info': a volume should be a dict with 'vol_name' and 'vol_size'.")
    device = raw.get("dev_name") or None
    volume = WantedVolume(
        vol_name=raw["vol_name"], vol_size=volume_size(raw.get("vol_size")), dev_name=device_name(device) if device else None
    )
    volume.name_for("vm")
    return volume


def volume_size(given: Any) -> int:
    """A volume's size in MB."""
    try:
        size = int(given) if not isinstance(given, bool) else 0
    except (TypeError, ValueError):
        size = 0
    if not 0 < size <= 64 * 1024 * 1024:
        raise errors.InvalidArgument(f"{given!r} is not a volume size: a positive number of MB is needed.")
    return size


def device_name(given: Any) -> str:
    """A device name as the classic clients send it: bare, or with `/dev/` in front."""
    bare = given.removeprefix("/dev/") if isinstance(given, str) else ""
    if not _DEVICE.match(bare):
        raise errors.InvalidArgument(f"{given!r} is not a device name such as 'sdb'.")
    return bare


def volume_name(given: str) -> str:
    """A volume's name."""
    if not _VOLUME_NAME.match(given):
        raise errors.InvalidArgument("Volume name contains invalid characters")
    return given


def parse_context(text: str) -> dict[str, str]:
    """The values a service manager supplies for its agents' configuration; numbers and booleans become text, lists are refused."""
    if not text.strip():
        return {}
    raw = parse_structure("context", text)
    if raw is None or raw == []:
        return {}
    if not isinstance(raw, dict):
        raise errors.InvalidArgument("Parameter 'context': should be a dict.")
    values: dict[str, str] = {}
    for key, value in raw.items():
        if not isinstance(key, str):
            raise errors.InvalidArgument(f"Parameter 'context': the name {key!r} is not a string.")
        if value is None:
            values[key] = ""
        elif isinstance(value, str | int | float):
            values[key] = str(value)
        else:
            raise errors.InvalidArgument(f"Parameter 'context': the value of '{key}' should be a string or a number.")
    return values


def parse_vms(text: str) -> tuple[tuple[str, str], ...]:
    """The `(cloud, vmid)` pairs of a `/remove_nodes` request."""
    raw = parse_structure("nodes", text)
    if not isinstance(raw, list) or not raw:
        raise errors.InvalidArgument("Parameter 'nodes': should be a list with at least one node.")
    pairs = []
    for index, item in enumerate(raw):
        if not isinstance(item, dict) or not isinstance(item.get("vmid"), str | int):
            raise errors.InvalidArgument(f"Parameter 'nodes': element {index} should be a dict with 'vmid' and 'cloud_name'.")
        pairs.append((cloud_name(item.get("cloud_name", item.get("cloud"))), str(item["vmid"])))
    return tuple(dict.fromkeys(pairs))
