"""Agents of a mysql service in memory, in a world that checks after every call that there is one cluster and no row is lost.

What must hold at any instant: no two parts of the cluster go on beside each other, whether their nodes can be reached or not; nobody
begins the cluster whose data lacks what another has; and a load balancer that runs knows somebody who has all data.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

from conpaas.core import agent, config, errors, expose, params, rpc
from conpaas.services.mysql import spec
from conpaas.services.mysql.manager import manager
from conpaas.testing import harness

MAGIC = b"\x28\xb5\x2f\xfd"
NOBODY = "00000000-0000-0000-0000-000000000000"


class World:
    """What all agents of a test share. `joining` is how many looks it takes until a new member has all data."""

    def __init__(self) -> None:
        self.agents: dict[str, FakeAgent] = {}
        self.machines: Callable[[], dict[str, Any]] = dict
        self.joining = 2
        self.calls: list[tuple[str, str]] = []
        self.violations: list[str] = []
        self.refuse: dict[str, int] = {}
        self.users: dict[str, set[str]] = {}
        self.databases: set[str] = set()
        self.later = 0.0
        """Seconds by which the clocks of members are ahead: a test need not wait for them."""
        self.gap = 0

    def alive(self) -> list[FakeAgent]:
        """Agents whose VM is there, even if it gives no answer."""
        there = {machine.node.ip for machine in self.machines().values()}
        return [one for ip, one in self.agents.items() if ip in there]

    def primaries(self) -> list[FakeAgent]:
        return [one for one in self.alive() if one.running and one.primary]

    def commit(self) -> None:
        """A client writes a row: all members of the cluster have it."""
        for one in self.primaries():
            one.seqno += 1

    def called(self, one: FakeAgent, method: str) -> None:
        self.calls.append((method, one.my_ip))
        if self.refuse.get(method, 0) > 0:
            self.refuse[method] -= 1
            raise errors.OperationFailed(f"{method} fails by order of a test")

    def check(self) -> None:
        parts = {frozenset(one.view) for one in self.primaries()}
        assert len(parts) <= 1, f"the cluster is split: {parts}"
        assert len({one.uuid for one in self.primaries()}) <= 1, "two histories"


def watched(function: Callable[..., Any]) -> Callable[..., Any]:
    """A call of the agent, after which the world is looked at."""

    @functools.wraps(function)
    def call(self: FakeAgent, **arguments: Any) -> Any:
        self.world.called(self, function.__name__)
        try:
            answer = function(self, **arguments)
            self.world.check()
        except AssertionError as error:  # an agent's error is only an answer; here it must not go unseen
            self.world.violations.append(f"{function.__name__} on {self.my_ip}: {error}")
            raise
        self.world.commit()
        return answer

    return call


class FakeAgent(agent.BaseAgent):
    """Answers what `mysql.agent.client` asks, and remembers it. Everything is idempotent, as the real ones are."""

    world: World

    def __init__(self, configuration: config.Config) -> None:
        super().__init__(configuration)
        self.running = self.primary = False
        self.uuid, self.seqno = NOBODY, -1
        self.view: set[str] = set()
        self.looks = 0
        self.healthy = True
        self.settings: spec.NodeSettings | None = None
        self.balancer: spec.BalancerConfig | None = None
        self.drained: set[str] = set()
        """Members that it gives no sessions."""
        self.variables: dict[str, str] = {}
        self.restarts = 0
        self.loading: dict[str, Any] = {}
        self.desynced = False
        self.full = False
        """There is no room on its disk."""
        self.restored: dict[str, Any] | None = None
        self.former: dict[str, Any] | None = None
        self.logs: list[dict[str, Any]] = []
        self.sessions_ended: list[str] = []
        self.world.agents[self.my_ip] = self

    # Members

    @expose.expose(
        "POST",
        params.Param("settings", params.Mapping()),
        params.Param("bootstrap", params.Boolean(), False),
        params.Param("device_name", params.Text(), None),
    )
    @watched
    def start_mysqld(self, settings: dict[str, Any], bootstrap: bool, device_name: str | None) -> dict[str, Any]:
        """Start."""
        told = spec.NodeSettings.from_dict(settings)
        self.settings = told
        if self.running and self.primary:
            return {"port": told.own.port, "restart_needed": []}
        if self.full:
            assert not bootstrap, f"{self.my_ip} is to found a cluster on a full disk"
            return {"port": told.own.port, "restart_needed": []}
        self.healthy = True
        if bootstrap:
            self._found()
        else:
            self._join(told)
        return {"port": told.own.port, "restart_needed": []}

    def _found(self) -> None:
        others = [one for one in self.world.alive() if one is not self]
        assert not [one for one in others if one.running and one.primary], f"{self.my_ip} founds a second cluster"
        ahead = [one.my_ip for one in others if one.uuid == self.uuid != NOBODY and one.seqno > self.seqno]
        assert not ahead, f"{self.my_ip} begins without rows of {ahead}"
        known = [one.my_ip for one in others if one.uuid != NOBODY and self.uuid == NOBODY]
        assert not known, f"{self.my_ip} begins empty while {known} have data"
        if self.uuid == NOBODY:
            self.uuid, self.seqno = str(uuid.uuid4()), 0
        self.running = self.primary = True
        self.view = {self.my_ip}
        self.looks = 0

    def _join(self, told: spec.NodeSettings) -> None:
        self.running = True
        wanted = {one.ip for one in told.members}
        donor = next((one for one in self.world.primaries() if one is not self and one.my_ip in wanted), None)
        if donor is None:
            self.primary = False
            return
        self.uuid, self.seqno = donor.uuid, donor.seqno
        self.primary = True
        self.looks = self.world.joining
        for one in self.world.primaries():
            one.view = {other.my_ip for other in self.world.primaries()}

    @expose.expose("GET")
    @watched
    def get_mysqld_state(self) -> dict[str, Any]:
        """State."""
        if self.running and not self.primary and self.settings is not None:
            self._join(self.settings)
        self.looks = max(0, self.looks - 1)
        synced = self.running and self.primary and not self.looks
        return {
            "daemon": "RUNNING" if self.running else "STOPPED" if self.settings else "ABSENT",
            "ready": synced,
            "state": ("Synced" if synced else "Joining" if self.primary else "Initialized") if self.running else None,
            "cluster_status": ("Primary" if self.primary else "non-Primary") if self.running else None,
            "cluster_uuid": self.uuid,
            "cluster_size": len(self.view),
            "data_bytes": 1000,
            "full": self.full,
            "room": "0 of 1000 MB are left on its disk: it takes no part until there is more room." if self.full else None,
            "restart_needed": [],
            "reason": None,
        }

    @expose.expose("GET", params.Param("device_name", params.Text(), None))
    @watched
    def get_position(self, device_name: str | None) -> dict[str, Any]:
        """Position."""
        assert not self.running, "the position of a server that runs"
        return {"uuid": self.uuid, "seqno": self.seqno}

    @expose.expose("POST", params.Param("timeout", params.Integer(), 60))
    @watched
    def stop_mysqld(self, timeout: int) -> None:
        """Stop."""
        self.running = self.primary = False
        self.view = set()
        for one in self.world.primaries():
            one.view = {other.my_ip for other in self.world.primaries()}

    @expose.expose("POST")
    @watched
    def restart_mysqld(self) -> None:
        """Restart."""
        self.restarts += 1

    @expose.expose("POST", params.Param("timeout", params.Integer(), 60))
    @watched
    def drain_mysqld(self, timeout: int) -> dict[str, Any]:
        """Drain."""
        self.healthy = False
        return {"sessions": 0}

    @expose.expose("POST", params.Param("on", params.Boolean()))
    @watched
    def set_health(self, on: bool) -> None:
        """Health."""
        self.healthy = on

    @expose.expose("POST", params.Param("on", params.Boolean()))
    @watched
    def set_desync(self, on: bool) -> None:
        """Desync."""
        assert self.running
        self.desynced = on

    # Backups: of the data only the last transaction is left

    @expose.expose("POST")
    @watched
    def make_backup(self) -> dict[str, Any]:
        """Make."""
        assert self.primary
        text = MAGIC + json.dumps({"history": self.uuid, "seqno": self.seqno}).encode()
        (self.paths.tmp / "made").write_bytes(text)
        return {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest(), "uuid": self.uuid, "time": time.time() + self.world.later}

    @expose.expose("POST")
    @watched
    def verify_backup(self) -> dict[str, Any]:
        """Verify."""
        return self._position((self.paths.tmp / "made").read_bytes())

    @staticmethod
    def _position(content: bytes) -> dict[str, Any]:
        if not content.startswith(MAGIC + b"{"):
            raise errors.OperationFailed("The file is no whole backup: it is damaged.")
        seqno = json.loads(content.removeprefix(MAGIC))["seqno"]
        return {"seqno": seqno, "gtid": f"1-1-{seqno}", "binlog": "mysql-bin.000001:4", "version": "10.11", "tables": 3}

    @expose.expose("GET")
    @watched
    def download_backup(self) -> rpc.FileDownload:
        """Download."""
        return rpc.FileDownload("made", self.paths.tmp / "made")

    @expose.expose("POST")
    @watched
    def forget_backup(self) -> None:
        """Forget."""
        (self.paths.tmp / "made").unlink(missing_ok=True)

    @expose.expose("POST", params.Param("after", params.Integer()))
    @watched
    def close_binlogs(self, after: int) -> dict[str, Any]:
        """Close."""
        if self.seqno <= after:
            return {"binlogs": []}
        told = {
            "name": "log",
            "bytes": 100,
            "after": after + self.world.gap,
            "last": self.seqno,
            "end": round(time.time() + self.world.later),
        }
        (self.paths.tmp / "log").write_text(json.dumps(told))
        return {"binlogs": [told]}

    @expose.expose("GET", params.Param("name", params.Text()))
    @watched
    def download_binlog(self, name: str) -> rpc.FileDownload:
        """Download."""
        return rpc.FileDownload(name, self.paths.tmp / name)

    @expose.expose("UPLOAD", params.Param("backup", params.Upload()))
    @watched
    def prepare_restore(self, backup: params.UploadedFile) -> dict[str, Any]:
        """Prepare."""
        position = self._position(backup.path.read_bytes())
        self.restored, self.logs = {"uuid": str(uuid.uuid4()), "seqno": position["seqno"]}, []
        return position

    @expose.expose("UPLOAD", params.Param("log", params.Upload()), params.Param("number", params.Integer()))
    @watched
    def add_binlog(self, log: params.UploadedFile, number: int) -> None:
        """Add."""
        assert number == len(self.logs)
        self.logs.append(json.loads(log.path.read_text()))

    @expose.expose("POST", params.Param("after", params.Integer()), params.Param("until", params.Integer()))
    @watched
    def replay_binlogs(self, after: int, until: int) -> dict[str, Any]:
        """Replay."""
        assert self.restored is not None
        assert self.restored["seqno"] == after, "it was carried out before"
        for one in self.logs:
            assert one["after"] <= self.restored["seqno"], "a gap"
            self.restored["seqno"] = one["last"]
        return {"seqno": self.restored["seqno"]}

    @expose.expose("POST", params.Param("on", params.Boolean()))
    @watched
    def swap_restored(self, on: bool) -> None:
        """Swap."""
        assert not self.running, "the data of a server that runs"
        own = {"uuid": self.uuid, "seqno": self.seqno}
        if on and self.restored is not None:
            self.uuid, self.seqno = self.restored["uuid"], self.restored["seqno"]
            self.former, self.restored = own, None
        elif not on and self.former is not None:
            self.uuid, self.seqno = self.former["uuid"], self.former["seqno"]
            self.former, self.restored = None, own
        else:
            assert not on or self.former is not None, "nothing was restored"

    @expose.expose("POST")
    @watched
    def discard_restore(self) -> None:
        """Discard."""
        self.former = self.restored = None

    # Load balancers

    @expose.expose("POST", params.Param("configuration", params.Mapping()))
    @watched
    def configure_glbd(self, configuration: dict[str, Any]) -> dict[str, Any]:
        """Start."""
        told = spec.BalancerConfig.from_dict(configuration)
        if self.balancer is not None:
            assert told.serial >= self.balancer.serial, f"{told.serial} after {self.balancer.serial}"
            assert told.serial != self.balancer.serial or told == self.balancer, "one serial, two configurations"
        if self.balancer is None or told.serial > self.balancer.serial:
            self.drained.clear()
        self.balancer = told
        ready = [one for one in told.members if (found := self.world.agents.get(one.ip)) is not None and found.primary]
        assert ready or not self.world.primaries(), "a load balancer knows nobody who works"
        return {"port": 8010, "read_port": 8011}

    @expose.expose("GET")
    @watched
    def get_glbd_state(self) -> dict[str, Any]:
        """State."""
        return {"state": "RUNNING" if self.balancer else "INIT", "serial": self.balancer.serial if self.balancer else None}

    @expose.expose("POST", params.Param("name", params.Text()), params.Param("timeout", params.Integer(), 60))
    @watched
    def drain_member(self, name: str, timeout: int) -> dict[str, Any]:
        """Drain."""
        self.drained.add(name)
        return {"sessions": 0}

    @expose.expose("POST", params.Param("timeout", params.Integer(), 60))
    @watched
    def stop_glbd(self, timeout: int) -> None:
        """Stop."""
        self.balancer = None

    # SQL

    @expose.expose("GET")
    @watched
    def list_users(self) -> dict[str, Any]:
        """Users."""
        assert self.primary
        found = sorted(self.world.users.items())
        return {
            "users": [{"user": name, "databases": [{"name": one, "privileges": "all"} for one in sorted(known)]} for name, known in found]
        }

    @expose.expose(
        "POST",
        params.Param("username", params.Text()),
        params.Param("password", params.Text()),
        params.Param("databases", params.ListOf(params.Text()), ()),
        params.Param("privileges", params.Text(), "all"),
        params.Param("exist_ok", params.Boolean(), False),
    )
    @watched
    def create_user(self, username: str, password: str, databases: list[str], privileges: str, exist_ok: bool) -> None:
        """Create."""
        assert self.primary
        self.world.users[username] = set(databases)

    @expose.expose("POST", params.Param("username", params.Text()))
    @watched
    def drop_user(self, username: str) -> None:
        """Drop."""
        del self.world.users[username]
        self.end_sessions(username=username)

    @expose.expose("POST", params.Param("username", params.Text()))
    @watched
    def end_sessions(self, username: str) -> None:
        """End."""
        self.sessions_ended.append(username)

    @expose.expose("POST", params.Param("username", params.Text()), params.Param("password", params.Text()))
    @watched
    def set_password(self, username: str, password: str) -> None:
        """Password."""
        if username not in self.world.users:
            raise errors.NotFound(f"There is no user '{username}'.")

    @expose.expose(
        "POST", params.Param("username", params.Text()), params.Param("database", params.Text()), params.Param("privileges", params.Text())
    )
    @watched
    def grant(self, username: str, database: str, privileges: str) -> None:
        """Grant."""
        self.world.users[username].add(database)

    @expose.expose("GET")
    @watched
    def list_databases(self) -> dict[str, Any]:
        """Databases."""
        return {"databases": [{"name": name, "bytes": 0, "tables": 0} for name in sorted(self.world.databases)]}

    @expose.expose("POST", params.Param("name", params.Text()), params.Param("exist_ok", params.Boolean(), False))
    @watched
    def create_database(self, name: str, exist_ok: bool) -> None:
        """Create."""
        self.world.databases.add(name)

    @expose.expose("POST", params.Param("name", params.Text()))
    @watched
    def drop_database(self, name: str) -> None:
        """Drop."""
        self.world.databases.discard(name)

    @expose.expose("GET")
    @watched
    def get_load_progress(self) -> dict[str, Any]:
        """Progress."""
        return {"progress": {"running": False, "bytes": 0, "total": 0, "started": 0.0, **self.loading}}

    @expose.expose("POST")
    @watched
    def cancel_load(self) -> dict[str, Any]:
        """Cancel."""
        running = bool(self.loading.get("running"))
        self.loading = {**self.loading, "running": False}
        return {"cancelled": running}

    @expose.expose("POST", params.Param("values", params.Mapping()))
    @watched
    def set_variables(self, values: dict[str, str]) -> dict[str, Any]:
        """Variables."""
        self.variables |= values
        return {"pending_restart": [name for name in values if name == "back_log"]}

    @expose.expose("GET")
    @watched
    def get_variables(self) -> dict[str, Any]:
        """Variables."""
        return {"variables": {"max_connections": "151", **self.variables}}


class MySQLHarness(harness.Harness):
    """A harness of a mysql service with a world around its agents."""

    def __init__(self, **settings: str) -> None:
        self.world = World()
        agent_class = type("WorldAgent", (FakeAgent,), {"world": self.world})
        super().__init__(
            manager.MySQLManager,
            agent_class,
            name="mysql",
            settings={"AGENT_PATIENCE": "0", "MYSQL_REUNION": "0", "MYSQL_UNWELL": "0", **settings},
        )
        self.world.machines = lambda: self.director.machines

    def check(self) -> None:
        super().check()
        self.watch()

    def watch(self) -> None:
        """Assert that there was one cluster at any time."""
        assert self.world.violations == []

    def fakes(self, role: str = spec.MYSQL) -> list[FakeAgent]:
        """The agents of the nodes of a role, in order of addition."""
        return [self.world.agents[one.ip] for one in self.nodes if one.role == role]

    def crash_all(self) -> None:
        """All servers die at once, at different points; none begins again without being told."""
        for number, one in enumerate(self.fakes()):
            one.running = one.primary = False
            one.view = set()
            one.seqno -= number

    def do(self, method: str, **arguments: Any) -> Any:
        """Call something that begins an operation, and run it; raises if it fails."""
        reply = self.call(method, **arguments)
        self.settle()
        if isinstance(reply, dict) and reply.get("operation"):
            done = self.operation(reply["operation"])
            if done.error:
                raise errors.OperationFailed(done.error)
        return reply
