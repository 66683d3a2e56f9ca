"""What a mysql service remembers across restarts, beyond its nodes and disks: one accessor for every setting in the store."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from conpaas.core.state import settings
from conpaas.services.mysql import spec

_CLUSTER: Final = "cluster"
_AUTHORITY: Final = "authority"
_ISSUED: Final = "issued"
_FOUNDER: Final = "founder"
_UUID: Final = "cluster_uuid"
_ORDER: Final = "order"
_VARIABLES: Final = "variables"
_BALANCERS: Final = "balancers"
_SERIAL: Final = "serial"
_INCOMPLETE: Final = "incomplete"
_SHAPE: Final = "shape"
_PORTS: Final = "ports"
_BYTES: Final = "data_bytes"
_HOLDERS: Final = "holders"


@dataclasses.dataclass(frozen=True)
class Issued:
    """A member's certificate and the names in it."""

    certificate: str
    key: str = dataclasses.field(repr=False)
    names: tuple[str, ...]
    expires: float


class ClusterMemory:
    """The durable memory. Every assignment is on disk when it returns."""

    def __init__(self, values: settings.Settings) -> None:
        self._values = values

    # The cluster

    def name(self, app_id: str, service_id: int) -> str:
        """The cluster's name, unlike that of any other cluster; made once."""
        if _CLUSTER not in self._values:
            self._values[_CLUSTER] = f"conpaas-{app_id}-{service_id}-{secrets.token_hex(4)}"
        return str(self._values[_CLUSTER])

    @property
    def founder(self) -> str | None:
        """The node that was told last to found the cluster, or to bring it back: the one record of who may."""
        found = self._values.get(_FOUNDER)
        return str(found) if found else None

    @founder.setter
    def founder(self, node_id: str) -> None:
        if node_id != self.founder:
            self._values[_FOUNDER] = node_id

    @property
    def uuid(self) -> str | None:
        """The cluster's history, by Galera's own name for it; None: it was never founded."""
        found = self._values.get(_UUID)
        return str(found) if found else None

    @uuid.setter
    def uuid(self, value: str) -> None:
        if value != self.uuid:
            self._values[_UUID] = value

    @property
    def holders(self) -> frozenset[str]:
        """The nodes that belonged to the cluster when it was last seen at work: whoever did not, lacks rows."""
        return frozenset(self._values.get(_HOLDERS, []))

    @holders.setter
    def holders(self, ids: Iterable[str]) -> None:
        if set(ids) != self.holders:
            self._values[_HOLDERS] = sorted(ids)

    def begin_history(self, founder: str) -> None:
        """The data of this node become the cluster's, whatever history it had."""
        with self._values.together():
            self._values.pop(_UUID, None)
            self._values[_FOUNDER] = founder

    def return_to(self, uuid: str, founder: str | None) -> None:
        """The cluster has its former history again."""
        with self._values.together():
            self._values[_UUID] = uuid
            if founder is not None:
                self._values[_FOUNDER] = founder

    def in_order(self, ids: Sequence[str]) -> list[str]:
        """Nodes in the order in which they become the writer: those known before as they were, new ones after them."""
        known = [one for one in self._values.get(_ORDER, []) if one in ids]
        return [*known, *(one for one in ids if one not in known)]

    def put_in_order(self, ids: Sequence[str]) -> None:
        if list(ids) != self._values.get(_ORDER):
            self._values[_ORDER] = list(ids)

    @property
    def shape(self) -> dict[str, int]:
        """How many nodes of each role the service has, also while it is stopped."""
        return dict(self._values.get(_SHAPE, {}))

    @shape.setter
    def shape(self, counts: Mapping[str, int]) -> None:
        if dict(counts) != self.shape:
            self._values[_SHAPE] = dict(counts)

    @property
    def data_bytes(self) -> int:
        """How much data a member had when it was last asked."""
        return int(self._values.get(_BYTES, 0))

    @data_bytes.setter
    def data_bytes(self, value: int) -> None:
        if value != self.data_bytes:
            self._values[_BYTES] = value

    # Certificates

    @property
    def authority(self) -> dict[str, str] | None:
        """`certificate` and `key` of the service's own CA, in PEM."""
        found = self._values.get(_AUTHORITY)
        return dict(found) if found else None

    @authority.setter
    def authority(self, pair: Mapping[str, str]) -> None:
        self._values[_AUTHORITY] = dict(pair)

    def issued(self, node_id: str) -> Issued | None:
        found = self._values.get(_ISSUED, {}).get(node_id)
        return Issued(found["certificate"], found["key"], tuple(found["names"]), found["expires"]) if found else None

    def put_issued(self, node_id: str, issued: Issued) -> None:
        self._values[_ISSUED] = {**self._values.get(_ISSUED, {}), node_id: dataclasses.asdict(issued)}

    def keep_nodes(self, ids: Iterable[str]) -> None:
        """Forget certificates and ports of all nodes but these."""
        kept = set(ids)
        with self._values.together():
            for name in (_ISSUED, _PORTS):
                known = self._values.get(name, {})
                left = {key: value for key, value in known.items() if key in kept}
                if left != known:
                    self._values[name] = left

    # Settings

    @property
    def variables(self) -> dict[str, str]:
        """Server variables that the user set."""
        return dict(self._values.get(_VARIABLES, {}))

    @variables.setter
    def variables(self, values: Mapping[str, str]) -> None:
        self._values[_VARIABLES] = dict(values)

    # Load balancers

    def numbered(self, members: tuple[spec.Member, ...], health_port: int) -> spec.BalancerConfig:
        """The configuration of load balancers with a number; one that says the same as the last keeps its number."""
        content = spec.BalancerConfig(0, members, health_port)
        digest = hashlib.sha256(json.dumps(content.to_dict(), sort_keys=True).encode()).hexdigest()
        if self._values.get(_BALANCERS) != digest:
            with self._values.together():
                self._values[_SERIAL] = int(self._values.get(_SERIAL, 0)) + 1
                self._values[_BALANCERS] = digest
        return dataclasses.replace(content, serial=int(self._values[_SERIAL]))

    def renumber(self) -> None:
        """Have the next configuration be a new one, whatever it says: what load balancers were told beside it counts no more then."""
        self._values.pop(_BALANCERS, None)

    @property
    def ports(self) -> dict[str, dict[str, int]]:
        """What nodes listen on, by node id: `port`, and `read_port` of load balancers."""
        return dict(self._values.get(_PORTS, {}))

    def put_ports(self, node_id: str, ports: Mapping[str, int]) -> None:
        known = self.ports
        if known.get(node_id) != dict(ports):
            self._values[_PORTS] = {**known, node_id: dict(ports)}

    # What is left to do

    @property
    def incomplete(self) -> bool:
        """Some node is not as it should be, because it did not answer."""
        return bool(self._values.get(_INCOMPLETE, False))

    @incomplete.setter
    def incomplete(self, value: bool) -> None:
        if value != self.incomplete:
            self._values[_INCOMPLETE] = value
