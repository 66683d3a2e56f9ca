"""What is on record of kept disks: disks of nodes that outlive their VMs, and wait for the next node of their role meanwhile."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterable

from conpaas.core import node
from conpaas.core.state import database


@dataclasses.dataclass(frozen=True)
class DiskRecord:
    """A kept disk of a service; `size` in MB, `operation` is the id of the one that made it.

    `node_id` is the node that has it, as `dev_name`; None: it is spare. `vol_id` is None until the Director has told it, `asked` whether
    it was asked for. `former` is the node that had it before, `spare_since` (seconds since the epoch) when that one gave it up.
    """

    number: int
    service_id: int
    role: str
    size: int
    cloud: str
    operation: str
    asked: bool = False
    vol_id: str | None = None
    node_id: str | None = None
    dev_name: str | None = None
    former: str | None = None
    spare_since: float | None = None

    @property
    def name(self) -> str:
        return f"disk-{self.number}"

    @property
    def key(self) -> str:
        """The key of the request to the Director that makes it."""
        return f"{self.operation}-{self.name}"

    @property
    def vmid(self) -> str:
        """The cloud's id of the VM that has it."""
        return (self.node_id or "").removeprefix(self.cloud)

    def as_volume(self) -> node.ServiceVolume:
        return node.ServiceVolume(self.name, self.size, self.vol_id, self.node_id, self.dev_name, self.cloud)


class Disks:
    """The kept disks of all services. Numbers are never used twice in an application."""

    def __init__(self, db: database.Database) -> None:
        self._db = db

    def reserve(self, service_id: int, operation: str, target: node.ServiceNode, size: int, dev_name: str) -> None:
        """Record that a node is to have a new disk."""
        self._db.execute(
            "INSERT INTO disks (service_id, role, size, cloud, operation, node_id, dev_name) VALUES (?, ?, ?, ?, ?, ?, ?)",
            *(service_id, target.role, size, target.cloud_name, operation, target.id, dev_name),
        )

    def take(self, number: int, target: node.ServiceNode, dev_name: str) -> None:
        """Record that a node is to have a spare disk."""
        self._db.execute("UPDATE disks SET node_id = ?, dev_name = ? WHERE number = ?", target.id, dev_name, number)

    def give_up(self, number: int, at: float) -> None:
        """The node that had a disk is gone: it is spare from now on. Idempotent."""
        self._db.execute(
            "UPDATE disks SET former = node_id, node_id = NULL, dev_name = NULL, spare_since = ? WHERE number = ? AND node_id IS NOT NULL",
            *(at, number),
        )

    def put_back(self, number: int) -> None:
        """A spare disk that was taken is as spare as it was before. Idempotent."""
        self._db.execute("UPDATE disks SET node_id = NULL, dev_name = NULL WHERE number = ?", number)

    def set_asked(self, number: int) -> None:
        """Note that the Director is asked for a disk now."""
        self._db.execute("UPDATE disks SET asked = 1 WHERE number = ?", number)

    def set_vol_id(self, number: int, vol_id: str) -> None:
        self._db.execute("UPDATE disks SET vol_id = ? WHERE number = ?", vol_id, number)

    def remove(self, number: int) -> None:
        """Forget a disk. Idempotent."""
        self._db.execute("DELETE FROM disks WHERE number = ?", number)

    def all(self, service_id: int) -> list[DiskRecord]:
        """The disks of a service, lowest number first."""
        return [_disk(row) for row in self._db.rows("SELECT * FROM disks WHERE service_id = ? ORDER BY number", service_id)]

    def on(self, service_id: int, node_ids: Iterable[str]) -> list[DiskRecord]:
        """The disks of some nodes of a service, lowest number first."""
        wanted = set(node_ids)
        return [record for record in self.all(service_id) if record.node_id in wanted]

    def spare(self, service_id: int) -> list[DiskRecord]:
        """The spare disks of a service: those given up last first, among them the lowest number first."""
        spare = [record for record in self.all(service_id) if record.node_id is None]
        return sorted(spare, key=lambda record: (-(record.spare_since or 0.0), record.number))


def _disk(row: sqlite3.Row) -> DiskRecord:
    values = {field.name: row[field.name] for field in dataclasses.fields(DiskRecord)}
    return DiskRecord(**{**values, "asked": bool(values["asked"])})
