"""What is on record of services, nodes, volumes, startup scripts and code versions: a class for each kind, over one database."""

from __future__ import annotations

import dataclasses
import enum
import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from conpaas.core import errors, node, states
from conpaas.core.state import database

STATE_LOG_LIMIT = 1000


class NodeStatus(enum.StrEnum):
    """Where a node on record stands.

    MEMBER: in service. LOST: taken out of service, its VM not yet given back. GONE: its VM is given back, a replacement is still wanted.
    LEAVING: being given back by an operation that is being undone.
    """

    MEMBER = "member"
    LOST = "lost"
    GONE = "gone"
    LEAVING = "leaving"


class VolumeStatus(enum.StrEnum):
    """Where a volume on record stands. CREATING and DELETING: an operation is at it, or failed half-way."""

    CREATING = "creating"
    ATTACHED = "attached"
    DELETING = "deleting"


@dataclasses.dataclass(frozen=True)
class ServiceRecord:
    id: int
    type: str
    state: states.State
    stable_state: states.State
    cloud: str
    created: float


@dataclasses.dataclass(frozen=True)
class LogEntry:
    time: float
    state: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Departure:
    """A node that another one, its heir, has taken the place of; it leaves at a time, in seconds since the epoch."""

    node_id: str
    at: float
    heir: str


@dataclasses.dataclass(frozen=True)
class VolumeRecord:
    """A volume of the application; `size` in MB, `operation` is the id of the one that made it."""

    name: str
    service_id: int
    node_id: str
    vol_id: str | None
    size: int
    dev_name: str
    cloud: str
    status: VolumeStatus
    operation: str

    def as_volume(self) -> node.ServiceVolume:
        return node.ServiceVolume(
            vol_name=self.name, vol_size=self.size, vol_id=self.vol_id, vm_id=self.node_id, dev_name=self.dev_name, cloud=self.cloud
        )


@dataclasses.dataclass(frozen=True)
class CodeRecord:
    """A code version of a service. `path` is where its archive lies, `kind` is for the service to interpret (`tar`, `zip`, `git` …)."""

    id: str
    filename: str
    description: str = ""
    time: float = dataclasses.field(default_factory=time.time)
    kind: str = ""
    path: str = ""
    current: bool = False


class Services:
    """The services of the application; row 0 is the application itself."""

    def __init__(self, db: database.Database) -> None:
        self._db = db

    def create(self, service_type: str, request: str | None = None, service_id: int | None = None, state: str = states.State.INIT) -> int:
        """Add a service and return its id; ids are never used twice. The same `request` key gives the same service again."""
        with self._db.transaction():
            if request is not None and (known := self._db.row("SELECT id FROM services WHERE request = ?", request)):
                return int(known["id"])
            if service_id is None:
                service_id = self._next_id()
            now = time.time()
            self._db.execute(
                "INSERT INTO services (id, type, state, stable_state, request, created) VALUES (?, ?, ?, ?, ?, ?)",
                *(service_id, service_type, str(state), str(state), request, now),
            )
            self.log(service_id, state, "")
            return service_id

    def _next_id(self) -> int:
        row = self._db.row("SELECT value FROM meta WHERE key = 'next_service_id'")
        number = int(row["value"]) if row else 1
        self._db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('next_service_id', ?)", str(number + 1))
        return number

    def remove(self, service_id: int) -> None:
        """Forget a service and all it had, except its operations. Idempotent."""
        with self._db.transaction():
            for statement in (
                "DELETE FROM services WHERE id = ?",
                "DELETE FROM settings WHERE service_id = ?",
                "DELETE FROM state_log WHERE service_id = ?",
                "DELETE FROM code_versions WHERE service_id = ?",
                "DELETE FROM volumes WHERE service_id = ?",
                "DELETE FROM disks WHERE service_id = ?",
                "DELETE FROM scripts WHERE service_id = ?",
                "DELETE FROM measurements WHERE service_id = ?",
            ):
                self._db.execute(statement, service_id)

    def find(self, service_id: int) -> ServiceRecord | None:
        row = self._db.row("SELECT * FROM services WHERE id = ?", service_id)
        return _service(row) if row else None

    def find_request(self, request: str) -> int | None:
        """The service that a request made."""
        row = self._db.row("SELECT id FROM services WHERE request = ?", request)
        return int(row["id"]) if row else None

    def get(self, service_id: int) -> ServiceRecord:
        record = self.find(service_id)
        if record is None:
            raise errors.NotFound(f"There is no service {service_id} in this application.")
        return record

    def all(self) -> list[ServiceRecord]:
        """All services without the application itself, by id."""
        return [_service(row) for row in self._db.rows("SELECT * FROM services WHERE id > 0 ORDER BY id")]

    def set_state(self, service_id: int, state: str, reason: str = "") -> None:
        """Set a state and log why; a stable one is remembered as the state to come back to. Ignored for a service that is gone."""
        with self._db.transaction():
            stable = str(state) if state in states.STABLE else None
            if self._db.execute(
                "UPDATE services SET state = ?, stable_state = coalesce(?, stable_state) WHERE id = ?", str(state), stable, service_id
            ):
                self.log(service_id, state, reason)

    def set_cloud(self, service_id: int, cloud: str) -> None:
        self._db.execute("UPDATE services SET cloud = ? WHERE id = ?", cloud, service_id)

    def log(self, service_id: int, state: str, reason: str) -> None:
        """Add to the state log; the oldest entries beyond `STATE_LOG_LIMIT` are dropped."""
        with self._db.transaction():
            self._db.execute(
                "INSERT INTO state_log (service_id, time, state, reason) VALUES (?, ?, ?, ?)", service_id, time.time(), str(state), reason
            )
            self._db.execute(
                "DELETE FROM state_log WHERE service_id = ?1 AND seq <= "
                "(SELECT seq FROM state_log WHERE service_id = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
                *(service_id, STATE_LOG_LIMIT),
            )

    def history(self, service_id: int) -> list[LogEntry]:
        """The state log, oldest first."""
        rows = self._db.rows("SELECT time, state, reason FROM state_log WHERE service_id = ? ORDER BY seq", service_id)
        return [LogEntry(*row) for row in rows]


def _service(row: sqlite3.Row) -> ServiceRecord:
    return ServiceRecord(
        id=row["id"],
        type=row["type"],
        state=states.State(row["state"]),
        stable_state=states.State(row["stable_state"]),
        cloud=row["cloud"],
        created=row["created"],
    )


class Nodes:
    """The nodes of all services, in order of addition."""

    def __init__(self, db: database.Database) -> None:
        self._db = db
        self._members: dict[int, tuple[node.ServiceNode, ...]] = {}
        db.on_rollback(self._members.clear)

    def add(self, service_id: int, nodes: Iterable[node.ServiceNode], status: NodeStatus = NodeStatus.MEMBER) -> None:
        """Record nodes; those known already keep their place in the order."""
        now = time.time()
        rows = [(one.id, service_id, status, one.role, json.dumps(one.to_dict()), now) for one in nodes]
        with self._db.transaction():
            self._db.execute_many(
                "INSERT INTO nodes (id, service_id, status, role, content, added) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE"
                " SET service_id = excluded.service_id, status = excluded.status, role = excluded.role, content = excluded.content",
                rows,
            )
            self._members.clear()

    def remove(self, service_id: int, ids: Iterable[str]) -> None:
        """Forget nodes and the volumes on them; a node whose heir is forgotten no longer leaves. Idempotent."""
        keys = [(service_id, key) for key in ids]
        with self._db.transaction():
            self._db.execute_many("UPDATE nodes SET leaves_at = NULL, heir = NULL WHERE service_id = ? AND heir = ?", keys)
            self._db.execute_many("DELETE FROM nodes WHERE service_id = ? AND id = ?", keys)
            self._db.execute_many("DELETE FROM volumes WHERE service_id = ? AND node_id = ?", keys)
            self._members.pop(service_id, None)

    def remove_all(self, service_id: int) -> None:
        with self._db.transaction():
            self._db.execute("DELETE FROM nodes WHERE service_id = ?", service_id)
            self._db.execute("DELETE FROM volumes WHERE service_id = ?", service_id)
            self._members.pop(service_id, None)

    def set_status(self, service_id: int, ids: Iterable[str], status: NodeStatus) -> None:
        with self._db.transaction():
            self._db.execute_many("UPDATE nodes SET status = ? WHERE service_id = ? AND id = ?", [(status, service_id, key) for key in ids])
            self._members.pop(service_id, None)

    def set_role(self, service_id: int, node_id: str, role: str) -> None:
        """Give a node, and the disk it has, another role. Idempotent; ignored for a node that is not on record."""
        with self._db.transaction():
            self._change(service_id, node_id, role=role)
            self._db.execute("UPDATE disks SET role = ? WHERE service_id = ? AND node_id = ?", role, service_id, node_id)

    def set_volumes(self, service_id: int, node_id: str, volumes: Iterable[node.ServiceVolume]) -> None:
        """Note which volumes a node has. Idempotent; ignored for a node that is not on record."""
        self._change(service_id, node_id, volumes=tuple(volumes))

    def _change(self, service_id: int, node_id: str, **changes: Any) -> None:
        with self._db.transaction():
            row = self._db.row("SELECT content FROM nodes WHERE service_id = ? AND id = ?", service_id, node_id)
            if row is None:
                return
            changed = dataclasses.replace(node.ServiceNode.from_dict(json.loads(row["content"])), **changes)
            content = json.dumps(changed.to_dict())
            self._db.execute(
                "UPDATE nodes SET role = ?, content = ? WHERE service_id = ? AND id = ?", changed.role, content, service_id, node_id
            )
            self._members.pop(service_id, None)

    def set_departures(self, service_id: int, heirs: Mapping[str, str], at: float | None) -> None:
        """Have nodes leave at a time (None: not at all), each when its heir has taken its place; `heirs` by node id. Idempotent."""
        rows = [(at, heir if at is not None else None, service_id, key) for key, heir in heirs.items()]
        self._db.execute_many("UPDATE nodes SET leaves_at = ?, heir = ? WHERE service_id = ? AND id = ?", rows)

    def set_heirs(self, service_id: int, successors: Mapping[str, str]) -> None:
        """Have the heirs of nodes that leave replaced by others: the new one's id by the former's. Idempotent."""
        rows = [(heir, service_id, former) for former, heir in successors.items()]
        self._db.execute_many("UPDATE nodes SET heir = ? WHERE service_id = ? AND heir = ?", rows)

    def departures(self) -> dict[int, list[Departure]]:
        """Per service, the nodes that are to leave, whatever their status; oldest first."""
        found: dict[int, list[Departure]] = {}
        for row in self._db.rows("SELECT service_id, id, leaves_at, heir FROM nodes WHERE leaves_at IS NOT NULL ORDER BY seq"):
            found.setdefault(row["service_id"], []).append(Departure(row["id"], row["leaves_at"], row["heir"]))
        return found

    def members(self, service_id: int) -> tuple[node.ServiceNode, ...]:
        """The nodes in service, oldest first."""
        with self._db.lock:
            if service_id not in self._members:
                self._members[service_id] = tuple(self.with_status(service_id, NodeStatus.MEMBER))
            return self._members[service_id]

    def with_status(self, service_id: int, *wanted: NodeStatus) -> list[node.ServiceNode]:
        """The nodes of a service that stand at one of these, oldest first; all of them when none is named."""
        rows = self._db.rows("SELECT status, content FROM nodes WHERE service_id = ? ORDER BY seq", service_id)
        return [node.ServiceNode.from_dict(json.loads(row["content"])) for row in rows if not wanted or row["status"] in wanted]

    def find_status(self, service_id: int, node_id: str) -> NodeStatus | None:
        """The status of a node, None when it is not on record."""
        row = self._db.row("SELECT status FROM nodes WHERE service_id = ? AND id = ?", service_id, node_id)
        return NodeStatus(row["status"]) if row else None

    def missing(self) -> dict[int, list[node.ServiceNode]]:
        """Per service, the lost nodes that wait for being replaced."""
        rows = self._db.rows("SELECT service_id, content FROM nodes WHERE status IN (?, ?) ORDER BY seq", NodeStatus.LOST, NodeStatus.GONE)
        found: dict[int, list[node.ServiceNode]] = {}
        for row in rows:
            found.setdefault(row["service_id"], []).append(node.ServiceNode.from_dict(json.loads(row["content"])))
        return found

    def owner(self, node_id: str) -> int | None:
        """The service a node in service belongs to."""
        row = self._db.row("SELECT service_id FROM nodes WHERE id = ? AND status = ?", node_id, NodeStatus.MEMBER)
        return int(row["service_id"]) if row else None

    def ids(self) -> list[str]:
        """The ids of all nodes in service, of all services."""
        return [row["id"] for row in self._db.rows("SELECT id FROM nodes WHERE status = ? ORDER BY seq", NodeStatus.MEMBER)]


class Volumes:
    """The volumes made by `create_volume`; names are unique in the application."""

    def __init__(self, db: database.Database) -> None:
        self._db = db

    def add(self, record: VolumeRecord) -> None:
        """Reserve a name and a device. Raises `errors.InvalidArgument` when either is taken."""
        try:
            self._db.execute(
                "INSERT INTO volumes (name, service_id, node_id, vol_id, size, dev_name, cloud, status, operation, created)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                *(record.name, record.service_id, record.node_id, record.vol_id, record.size, record.dev_name, record.cloud),
                *(record.status, record.operation, time.time()),
            )
        except sqlite3.IntegrityError as error:
            raise errors.InvalidArgument(f"The volume name '{record.name}' or the device '{record.dev_name}' is already in use.") from error

    def update(self, name: str, *, status: VolumeStatus | None = None, vol_id: str | None = None) -> None:
        self._db.execute(
            "UPDATE volumes SET status = coalesce(?, status), vol_id = coalesce(?, vol_id) WHERE name = ?", status, vol_id, name
        )

    def remove(self, name: str) -> None:
        """Forget a volume. Idempotent."""
        self._db.execute("DELETE FROM volumes WHERE name = ?", name)

    def remove_on_node(self, node_id: str) -> None:
        """Forget the volumes of a node, which went away with it."""
        self._db.execute("DELETE FROM volumes WHERE node_id = ?", node_id)

    def find(self, name: str) -> VolumeRecord | None:
        row = self._db.row("SELECT * FROM volumes WHERE name = ?", name)
        return _volume(row) if row else None

    def all(self, service_id: int = 0) -> list[VolumeRecord]:
        """The volumes of a service, or of all services when `service_id` is 0, whatever their status."""
        rows = self._db.rows("SELECT * FROM volumes WHERE ?1 = 0 OR service_id = ?1 ORDER BY created, name", service_id)
        return [_volume(row) for row in rows]

    def names(self) -> list[str]:
        return [row["name"] for row in self._db.rows("SELECT name FROM volumes ORDER BY created, name")]


def _volume(row: sqlite3.Row) -> VolumeRecord:
    values = {field.name: row[field.name] for field in dataclasses.fields(VolumeRecord)}
    return VolumeRecord(**{**values, "status": VolumeStatus(values["status"])})


class Scripts:
    """The startup scripts of the services."""

    def __init__(self, db: database.Database) -> None:
        self._db = db

    def get(self, service_id: int) -> str | None:
        row = self._db.row("SELECT content FROM scripts WHERE service_id = ?", service_id)
        return row["content"] if row else None

    def set(self, service_id: int, content: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO scripts (service_id, content) VALUES (?, ?)", service_id, content)


class Codes:
    """The code versions of the services."""

    def __init__(self, db: database.Database) -> None:
        self._db = db

    def add(self, service_id: int, record: CodeRecord) -> None:
        """Record a code version; one with the same id is replaced but stays current if it was."""
        with self._db.transaction():
            self._db.execute(
                "INSERT INTO code_versions (service_id, id, filename, description, time, kind, path) VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (service_id, id) DO UPDATE SET filename = excluded.filename, description = excluded.description,"
                " time = excluded.time, kind = excluded.kind, path = excluded.path",
                *(service_id, record.id, record.filename, record.description, record.time, record.kind, record.path),
            )
            if record.current:
                self.set_current(service_id, record.id)

    def list(self, service_id: int) -> Sequence[CodeRecord]:
        """All code versions, newest first."""
        return [_code(row) for row in self._db.rows("SELECT * FROM code_versions WHERE service_id = ? ORDER BY time DESC, id", service_id)]

    def find(self, service_id: int, version_id: str) -> CodeRecord | None:
        row = self._db.row("SELECT * FROM code_versions WHERE service_id = ? AND id = ?", service_id, version_id)
        return _code(row) if row else None

    def current(self, service_id: int) -> CodeRecord | None:
        row = self._db.row("SELECT * FROM code_versions WHERE service_id = ? AND current = 1", service_id)
        return _code(row) if row else None

    def delete(self, service_id: int, version_id: str) -> None:
        """Forget a code version. Idempotent."""
        self._db.execute("DELETE FROM code_versions WHERE service_id = ? AND id = ?", service_id, version_id)

    def set_current(self, service_id: int, version_id: str) -> None:
        """Make one version the current one. Raises `errors.NotFound`."""
        with self._db.transaction():
            self._db.execute("UPDATE code_versions SET current = 0 WHERE service_id = ? AND current = 1", service_id)
            if not self._db.execute("UPDATE code_versions SET current = 1 WHERE service_id = ? AND id = ?", service_id, version_id):
                raise errors.NotFound(f"There is no code version '{version_id}'.")


def _code(row: sqlite3.Row) -> CodeRecord:
    values = {field.name: row[field.name] for field in dataclasses.fields(CodeRecord)}
    return CodeRecord(**{**values, "current": bool(values["current"])})
