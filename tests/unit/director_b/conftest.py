"""A Director's lifecycle on a real database, with a cloud, daemons and managers that live in this process."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pytest
import sqlalchemy as sa

from conpaas.core import errors, faults
from conpaas.core import services as service_registry
from conpaas.core.clouds import base
from conpaas.director import context, credits, db, inventory, models, opstore
from conpaas.director.lifecycle import component, nodes, parts, wanted

DEPLOYMENT = "testing"


class Killed(BaseException):
    """The process dies here."""


class Inline:
    """Runs operations in the thread that submits them; what kills one kills the caller."""

    def submit(self, function: Callable[[], None], name: str) -> None:
        function()

    def close(self) -> None:
        """Nothing runs in the background."""


class MemoryCloud(base.Cloud):
    """A cloud that keeps every promise of `base.Cloud`, and breaks on request.

    `fail_create` / `fail_destroy` name indices / VM ids that fail; `down` makes every call fail.
    """

    driver = "dummy"

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: dict[str, base.CloudNode] = {}
        self.disks: dict[str, base.CloudVolume] = {}
        self.user_data: dict[str, str] = {}
        self.fail_create: set[int] = set()
        self.fail_destroy: set[str] = set()
        self.fail_volumes = False
        self.down = False
        self.made = 0
        self._ids = itertools.count(1)
        self._lock = threading.Lock()

    def _contact(self) -> None:
        if self.down:
            raise errors.CloudError(f"the cloud {self.name} does not answer")

    def check(self) -> list[str]:
        return ["down"] if self.down else []

    def create_nodes(self, request: base.NodeRequest) -> list[base.CloudNode]:
        self._contact()
        reasons = {}
        with self._lock:
            for spec in request.specs:
                if spec.index in self.fail_create:
                    reasons[spec.index] = "no room left"
                elif not any((node.key, node.index) == (request.key, spec.index) for node in self.nodes.values()):
                    self._make(request.key, spec)
            found = sorted((node for node in self.nodes.values() if node.key == request.key), key=lambda node: node.index)
        if reasons:
            raise base.NodesNotCreated(self.name, request.count, found, reasons)
        return found

    def _make(self, key: str, spec: base.NodeSpec) -> None:
        number = next(self._ids)
        vmid, ip = f"vm{number}", f"10.0.{len(self.name)}.{number}"
        self.made += 1
        self.user_data[vmid] = spec.user_data
        self.nodes[vmid] = base.CloudNode(
            vmid=vmid,
            ip=ip,
            private_ip=ip,
            state=base.NodeState.RUNNING,
            tags=dict(spec.tags),
            created=time.time(),
            index=spec.index,
            key=key,
        )

    def list_nodes(self, tags: Mapping[str, str] | None = None) -> list[base.CloudNode]:
        self._contact()
        return [node for node in list(self.nodes.values()) if base.carries(node.tags, tags)]

    def destroy_nodes(self, vmids: Iterable[str]) -> None:
        self._contact()
        wanted = list(vmids)
        with self._lock:
            for vmid in wanted:
                if vmid not in self.fail_destroy:
                    self.nodes.pop(vmid, None)
                    for disk in [disk for disk in self.disks.values() if disk.vmid == vmid]:
                        self.disks[disk.vol_id] = dataclasses.replace(disk, vmid=None, device=None, state=base.VolumeState.AVAILABLE)
        failed = {vmid: "it does not let go" for vmid in wanted if vmid in self.fail_destroy}
        if failed:
            raise base.NodesNotDestroyed(self.name, failed)

    def create_volume(self, request: base.VolumeRequest) -> base.CloudVolume:
        self._contact()
        if self.fail_volumes:
            raise errors.CloudError("no disk space")
        for disk in self.disks.values():
            if disk.key == request.key:
                return disk
        vol_id = f"vol{next(self._ids)}"
        self.disks[vol_id] = base.CloudVolume(
            vol_id, request.name, request.size, base.VolumeState.AVAILABLE, tags=dict(request.tags), created=time.time(), key=request.key
        )
        return self.disks[vol_id]

    def attach_volume(self, vol_id: str, vmid: str, device: str) -> base.CloudVolume:
        self._contact()
        disk = self.disks[vol_id]
        if disk.vmid not in (None, vmid):
            raise errors.CloudError(f"{vol_id} is attached to {disk.vmid}")
        self.disks[vol_id] = dataclasses.replace(disk, vmid=vmid, device=device, state=base.VolumeState.IN_USE)
        return self.disks[vol_id]

    def detach_volume(self, vol_id: str) -> base.CloudVolume:
        self._contact()
        if vol_id not in self.disks:
            raise errors.NotFound(f"there is no volume {vol_id}")
        self.disks[vol_id] = dataclasses.replace(self.disks[vol_id], vmid=None, device=None, state=base.VolumeState.AVAILABLE)
        return self.disks[vol_id]

    def destroy_volume(self, vol_id: str) -> None:
        self._contact()
        if vol_id in self.disks and self.disks[vol_id].vmid is not None:
            raise errors.CloudError(f"{vol_id} is attached")
        self.disks.pop(vol_id, None)

    def list_volumes(self, tags: Mapping[str, str] | None = None) -> list[base.CloudVolume]:
        self._contact()
        return [disk for disk in list(self.disks.values()) if base.carries(disk.tags, tags)]

    def console_log(self, vmid: str) -> str:
        return f"booting {vmid}\nKernel panic: no root\n"


class Daemons:
    """Answers probes: a machine is ready unless its index is in `silent`; `on_probe` is called first."""

    def __init__(self) -> None:
        self.silent: set[int] = set()
        self.on_probe: Callable[[inventory.Machine], None] = lambda machine: None

    def __call__(self, machine: inventory.Machine, uid: int) -> None:
        self.on_probe(machine)
        if machine.request_index in self.silent:
            raise errors.Unreachable("connection refused")


class FakeManagers:
    """The managers of running applications: their services, and how they answer."""

    def __init__(self) -> None:
        self.services: dict[int, dict[int, str]] = {}
        self.silent = False
        self.refuse_removal = ""
        self.told: list[str] = []
        self._ids = itertools.count(1)

    def get(self, aid: int, method: str, service_id: int = 0, params: Any = None, timeout: float | None = None) -> Any:
        if self.silent:
            raise errors.Unreachable("connection refused")
        if method == "get_app_info":
            return {"states": {"0": "RUNNING", **{str(sid): "INIT" for sid in self.services.get(aid, {})}}, "nodes": [], "volumes": []}
        if method == "get_service_info":
            return {"state": "INIT", "type": self.services[aid][service_id]}
        return {"status": "UNDONE", "error": self.refuse_removal} if self.refuse_removal else {"status": "RUNNING"}

    def post(self, aid: int, method: str, service_id: int = 0, params: Any = None, timeout: float | None = None) -> Any:
        if self.silent:
            raise errors.Unreachable("connection refused")
        if method == "add_service":
            sid = next(self._ids)
            self.services.setdefault(aid, {})[sid] = params["service_type"]
            return {"service_id": sid}
        if method == "remove_service" and not self.refuse_removal:
            self.services[aid].pop(params["service_id"])
        if method == "node_lost":
            self.told.append(params["nodeId"])
        return {"operation": "abc"}


class Accounts(component._Credits):
    """Credits with the present time."""

    def __init__(self) -> None:
        super().__init__(models.utcnow)


class World:
    """One user with one application on a Director that can be killed and started again."""

    def __init__(self, directory: pathlib.Path, empty_database: pathlib.Path) -> None:
        shutil.copy(empty_database, directory / "director.db")
        self.database = db.open(f"sqlite:///{directory / 'director.db'}")
        self.clouds: dict[str, MemoryCloud] = {"iaas": MemoryCloud("iaas"), "other": MemoryCloud("other")}
        self.daemons = Daemons()
        self.managers = FakeManagers()
        self.tokens = 0
        own = directory / "conf" / "scripts" / "cloud"
        own.mkdir(parents=True)
        (own / "dummy").write_text("IP_PUBLIC=127.16.0.9\n")
        self.composer = context.Composer(
            director_url="https://127.16.0.1:5555",
            deployment=DEPLOYMENT,
            ca_pem=lambda: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
            code_sha256=lambda: "ab" * 32,
            conf_dir=directory / "conf",
            registry=service_registry.Registry.of([]),
        )
        with self.database.session() as session:
            user = models.User(username="ann", username_key="ann", email="a@x", email_key="a@x", password="")
            session.add(user)
            session.flush()
            self.uid = user.uid
            credits.grant(session, user.uid, 50, models.utcnow())
        self.aid = self.new_application("shop")
        self.life = self.boot()

    def new_application(self, name: str) -> int:
        with self.database.session() as session:
            row = models.Application(name=name, user_id=self.uid)
            session.add(row)
            session.flush()
            return row.aid

    def token(self, *, role: str, uid: int, aid: int, vm: str) -> str:
        self.tokens += 1
        return f"token-{self.tokens}"

    def boot(self, owner: str = "one", **options: Any) -> component.Lifecycle:
        """A Director process; the one before is thought dead."""
        made = parts.Parts(
            database=self.database,
            clouds=self.clouds,
            composer=self.composer,
            accounts=Accounts(),
            tokens=self.token,
            probe=self.daemons,
            settings=parts.Settings(deployment=DEPLOYMENT, node_boot_timeout=0.2, probe_interval=0.01, settle_timeout=60.0),
            pause=lambda seconds: threading.Event().wait(min(seconds, 0.01)),
        )
        store = opstore.DirectorStore(self.database, owner, component.POLICIES)
        defaults: dict[str, Any] = {"pool": Inline(), "heartbeat_interval": None, "undo_delay": 0.001}
        return component.Lifecycle(made, store, self.managers, **{**defaults, **options})  # type: ignore[arg-type]

    def restart(self) -> None:
        """Kill -9 has happened: a new process continues."""
        self.life = self.boot()
        self.life.resume()

    def application(self) -> models.Application:
        with self.database.reader() as session:
            found = session.get(models.Application, self.aid)
            assert found is not None
            return found

    def machines(self) -> list[inventory.Machine]:
        with self.database.reader() as session:
            return inventory.of_application(session, self.aid)

    def disks(self) -> list[inventory.Disk]:
        with self.database.reader() as session:
            return inventory.volumes(session)

    def balance(self) -> int:
        with self.database.reader() as session:
            return credits.balance(session, self.uid)

    def set_balance(self, credit: int) -> None:
        with self.database.session() as session:
            session.execute(sa.delete(models.LedgerEntry))
            credits.grant(session, self.uid, credit, models.utcnow())

    def vms(self) -> set[tuple[str, str]]:
        """Every VM of every cloud."""
        return {(name, vmid) for name, cloud in self.clouds.items() for vmid in cloud.nodes}

    def recorded(self) -> set[tuple[str, str]]:
        return {(machine.cloud, machine.vmid or "?") for machine in self.machines()}

    def start(self) -> None:
        self.life.start(self.aid, "iaas", "ann")

    def node_arguments(self, infos: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
        return {
            "nodes": [item.to_dict() for item in wanted.parse_nodes(repr(infos))],
            "service_type": "helloworld",
            "service_id": 1,
            "manager_ip": "10.0.4.1",
            "context": {},
            "startup_script": "",
            **changes,
        }

    def ask(self, infos: list[dict[str, Any]], key: str = "k1", **changes: Any) -> Any:
        """Ask for nodes as a manager does; the reply, or the error."""
        op_id = self.life.request(nodes.CREATE, self.aid, key, self.node_arguments(infos, **changes), "manager")
        return self.life.result(op_id, 5.0)

    def remove(self, dicts: list[dict[str, Any]], key: str = "r1") -> Any:
        """Give nodes back as a manager does."""
        vms = wanted.parse_vms(repr(dicts))
        with self.database.reader() as session:
            nodes.own_machines(session, self.aid, vms)
        op_id = self.life.request(nodes.REMOVE, self.aid, key, {"vms": [list(pair) for pair in vms]}, "manager")
        return self.life.result(op_id, 5.0)


def kill_at(step: str, when: str, kind: str = "*") -> Any:
    """Die the first time this point is reached."""
    fired = []

    def trigger(component_name: str, kind_name: str, step_name: str, moment: str) -> None:
        if not fired and (step_name, moment) == (step, when) and kind in ("*", kind_name):
            fired.append(True)
            raise Killed

    return faults.trigger(trigger)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A migrated database; copying it is faster than migrating for every test."""
    path = tmp_path_factory.mktemp("empty") / "director.db"
    db.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def world(tmp_path: pathlib.Path, empty_database: pathlib.Path) -> Iterator[World]:
    made = World(tmp_path, empty_database)
    yield made
    made.database.close()


@pytest.fixture
def running(world: World) -> World:
    """The application is RUNNING."""
    world.start()
    assert world.application().status == "RUNNING", world.application().reason
    return world


@pytest.fixture
def killing() -> Any:
    return kill_at


@pytest.fixture
def killed() -> type[BaseException]:
    return Killed
