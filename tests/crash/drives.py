"""Every kind of operation on services, read from the code, and how a test begins one of each kind.

The kinds that all services have are driven through every service type of this package, and one of the tests' own whose nodes have disks
that outlive them, without an entry for the type. A kind of a type's own needs an entry in `OWN`; `missing` tells which have none.
Of a type in `ALIKE` or `CHOSEN` only its own kinds are driven, and what `CHOSEN` says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from conpaas.core import code_manager, lifecycle, manager, migration, operations, services, volumes
from tests.crash import programs
from tests.support import consistency, keeping, tenants, wire
from tests.support import platform as platforms

APP = "demo"
PLAIN = "generic"
"""The type for what has to be done with one type only."""
RICH = "php"
"""The type that does most in the kinds that all types have."""
GONE = "GONE"


@dataclasses.dataclass
class Stage:
    """A service made for one test, and what a test does to it."""

    platform: platforms.Platform
    type: str = PLAIN
    sid: str = ""
    users: programs.Users = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        has_code = issubclass(service_type(self.type).load_manager(), code_manager.CodeManager)
        self.users = programs.BY_TYPE.get(self.type, programs.Coders if has_code else programs.Users)()

    def add(self) -> Stage:
        before = self.sids()
        self.platform.cps(self.type, "add", APP)
        self.sid = str(next(iter(self.sids() - before)))
        self.users.prepare(self)
        return self

    def started(self, nodes: int = 1, *, at_work: bool = False) -> Stage:
        """The service runs, with `nodes - 1` nodes more than a start gives; `at_work`: its users' programs do, too."""
        self.add().cps("start")
        if nodes > 1:
            self.cps("add_nodes", "--count", str(nodes - 1))
        self.users.move_in(self)
        if at_work:
            self.users.work(self)
        return self

    def cps(self, verb: str, *words: str, check: bool = True) -> platforms.Result:
        return self.platform.cps("service", verb, APP, self.sid, *words, check=check)

    def of_type(self, verb: str, *words: str) -> platforms.Result:
        return self.platform.cps("--yes", self.type, verb, APP, self.sid, *words)

    def data(self, verb: str, *words: str) -> Any:
        return self.platform.data(self.type, verb, APP, self.sid, *words)

    def begin(self, verb: str, *words: str) -> None:
        """Ask for something; the one who should answer may die of it. What counts is how the operation ends."""
        self.platform.cps("--no-wait", "--yes", "--timeout", "60", "service", verb, APP, self.sid, *words, check=False)

    def begin_of_type(self, verb: str, *words: str) -> None:
        """The same for a command of the service's type; `words` begin with the service's id where the command takes one."""
        self.platform.cps("--no-wait", "--yes", "--timeout", "60", self.type, verb, APP, *words, check=False)

    def sids(self) -> set[int]:
        return {service["sid"] for service in self.platform.data("service", "list", "-a", APP)}

    def state(self) -> str:
        listed = {str(one["sid"]): one["status"] for one in self.platform.data("service", "list", "-a", APP)}
        return str(listed.get(self.sid, GONE))

    def nodes(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self.platform.data("service", "list_nodes", APP, self.sid)
        return listed

    def addresses(self) -> set[str]:
        return {one["ip"] for one in self.nodes()}

    def operations(self) -> list[dict[str, Any]]:
        """The operations of the service on record, newest first."""
        manager_ip = next(str(one["manager"]) for one in self.platform.data("application", "list") if one["name"] == APP)
        request = wire.call("GET", int(self.sid), "list_operations")
        reply = wire.exchange((manager_ip, tenants.MANAGER_PORT), tenants.of_user(self.platform, "alice"), request)
        found: list[dict[str, Any]] = reply.json["result"]["operations"]
        return found

    def kinds(self) -> list[str]:
        return [str(op["kind"]) for op in self.operations()]

    def ends_in(self, final: str) -> None:
        """Wait for the state in which the operation must end."""
        platforms.until(lambda: self.state() == final, f"the service is {final}, not {self.state()}")

    def settle(self, final: str) -> None:
        """The operation has ended: check that all else is as if nobody had died, too, and clean up."""
        self.ends_in(final)
        consistency.assert_consistent(self.platform)
        if final != GONE:
            self.users.check(self)
            self.platform.cps("--yes", "service", "remove", APP, self.sid)


Prepare = Callable[[Stage], Callable[[], None]]
"""Brings a stage to where a kind can begin; what it returns begins it."""


@dataclasses.dataclass(frozen=True)
class Drive:
    """How to begin an operation of a kind, and the state in which the service must be in the end.

    `nodes`: whether agents have a part. `unnoticed`: users who are there before it must not notice the operation.
    """

    prepare: Prepare
    final: str = "RUNNING"
    nodes: bool = True
    unnoticed: bool = False


def _start(stage: Stage) -> Callable[[], None]:
    stage.add()
    return lambda: stage.begin("start")


def _stop(stage: Stage) -> Callable[[], None]:
    stage.started(nodes=2, at_work=True)
    return lambda: stage.begin("stop")


def _add(stage: Stage) -> Callable[[], None]:
    stage.started()
    return lambda: stage.begin("add_nodes", "--count", "2")


def _remove(stage: Stage) -> Callable[[], None]:
    stage.started(nodes=3, at_work=True)
    return lambda: stage.begin("remove_nodes", "--count", "1")


def _replace(stage: Stage) -> Callable[[], None]:
    stage.started(nodes=2)
    victim = stage.nodes()[-1]
    return lambda: consistency.kill_vm(stage.platform, victim["ip"])


def _newest(stage: Stage) -> str:
    """A plan by which the newest node moves within its cloud."""
    return f"default:{stage.nodes()[-1]['agent_id']}:default"


def _migrate(stage: Stage) -> Callable[[], None]:
    plan = _newest(stage.started(nodes=2, at_work=True))
    return lambda: stage.begin("migrate_nodes", plan)


def _retire(stage: Stage) -> Callable[[], None]:
    """Begun by the watch over nodes, when the delay is over."""
    plan = _newest(stage.started(nodes=2, at_work=True))
    return lambda: stage.begin("migrate_nodes", plan, "--delay", "1")


def _delete(stage: Stage) -> Callable[[], None]:
    stage.started()
    return lambda: stage.begin("remove")


def _create(stage: Stage) -> Callable[[], None]:
    def begin() -> None:
        before = stage.sids()
        stage.platform.cps(stage.type, "add", APP, check=False)
        platforms.until(lambda: stage.sids() - before, "the Director learns of the new service")
        stage.sid = str(max(stage.sids() - before))

    return begin


def _create_volume(stage: Stage) -> Callable[[], None]:
    agent = stage.started().nodes()[0]["agent_id"]
    return lambda: stage.begin_of_type("create_volume", f"v{stage.sid}", "8", agent)


def _delete_volume(stage: Stage) -> Callable[[], None]:
    agent = stage.started().nodes()[0]["agent_id"]
    stage.platform.cps(stage.type, "create_volume", APP, f"v{stage.sid}", "8", agent)
    return lambda: stage.begin_of_type("delete_volume", f"v{stage.sid}")


def _enable_code(stage: Stage) -> Callable[[], None]:
    stage.started(nodes=2)
    (current,) = (one["codeVersionId"] for one in stage.data("list_codes") if one["current"])
    return lambda: stage.begin_of_type("enable_code", stage.sid, current)


def _execute_script(stage: Stage) -> Callable[[], None]:
    stage.started(nodes=2)
    return lambda: stage.begin_of_type("run", stage.sid)


def _set_string(stage: Stage) -> Callable[[], None]:
    stage.started(nodes=2)
    return lambda: stage.begin_of_type("set_string", stage.sid, "moin")


def _visitors(stage: Stage) -> programs.Visitors:
    assert isinstance(stage.users, programs.Visitors)
    return stage.users


def _enable_version(stage: Stage) -> Callable[[], None]:
    """Two proxies, and a node for each other role."""
    stage.started().of_type("add_nodes", "--web", "1", "--backend", "1", "--proxy", "1")
    second = _visitors(stage).bring_second(stage)
    return lambda: stage.begin_of_type("enable_code", stage.sid, second)


def _enable_packed(stage: Stage) -> Callable[[], None]:
    """The same on a single node with all roles."""
    second = _visitors(stage.started()).bring_second(stage)
    return lambda: stage.begin_of_type("enable_code", stage.sid, second)


def _move_document_root(stage: Stage) -> Callable[[], None]:
    """The change of settings with the most to do: web servers are passed by meanwhile."""
    _visitors(stage.started(nodes=2)).expect("version one of public")
    return lambda: stage.begin_of_type("settings", stage.sid, "documentRoot=public")


def _repair(stage: Stage) -> Callable[[], None]:
    """Begun by the housekeeping, when a server does not move."""
    address = stage.started(nodes=2).nodes()[-1]["ip"]
    return lambda: programs.freeze_server(stage.platform, address, lambda: stage.state() == "ADAPTING")


def _set_variables(stage: Stage) -> Callable[[], None]:
    """One that a server takes while it runs, and one that it has to be started again for."""
    stage.started(nodes=2)
    return lambda: stage.begin_of_type("variables", stage.sid, "set", "max_connections=123", "back_log=99")


def _back_up(stage: Stage) -> Callable[[], None]:
    stage.started(nodes=2)
    return lambda: stage.begin_of_type("backup", stage.sid, "make")


def _restore(stage: Stage) -> Callable[[], None]:
    stage.started(nodes=2).of_type("backup", "make")
    return lambda: stage.begin_of_type("restore", stage.sid)


LIFECYCLE = {
    "start_service": Drive(_start),
    "stop_service": Drive(_stop, "STOPPED"),
    "add_nodes": Drive(_add, unnoticed=True),
    "remove_nodes": Drive(_remove, unnoticed=True),
    "migrate_nodes": Drive(_migrate, unnoticed=True),
    "retire_nodes": Drive(_retire, unnoticed=True),
    "replace_node": Drive(_replace),
    "remove_service": Drive(_delete, GONE),
    "add_service": Drive(_create, "INIT", nodes=False),
}
VOLUMES = {
    "create_volume": Drive(_create_volume),
    "delete_volume": Drive(_delete_volume),
}
OWN = {
    "generic": {"enable_code": Drive(_enable_code), "execute_script": Drive(_execute_script)},
    "helloworld": {"set_string": Drive(_set_string)},
    "php": {
        "configure": Drive(_enable_version, unnoticed=True),
        "configure documentRoot": Drive(_move_document_root, unnoticed=True),
    },
    "java": {"configure": Drive(_enable_packed, unnoticed=True)},
    "mysql": {
        "repair_cluster": Drive(_repair),
        "configure": Drive(_set_variables),
        "backup": Drive(_back_up),
        "restore": Drive(_restore),
    },
}
"""By type and kind. A kind that can be begun in ways that differ has an entry for each: its name, and a word for the way."""
ALIKE = {"java": "php"}
"""Types of which all that is not in `OWN` is the very code of another type, with which it is driven."""
CHOSEN = {"mysql": {"replace_node"}}
"""Of the kinds that all types have, those in which managers die with such a type: where its own part does most. Its nodes come slowest."""
SPARING = {"php", "java", "mysql"}
"""Types whose nodes are slow to come. Of the two points around a step only the one is used that tells more: managers die after it, so that
it is done twice, and agents before it, so that they are away in it."""
# Begins in ERROR only, where nothing leads on purpose on a healthy platform; tests/unit has it.
IN_MEMORY_ONLY = {"recover_service"}


@dataclasses.dataclass(frozen=True)
class Case:
    """An operation of one kind on a service of one type, begun in one way."""

    type: str
    kind: operations.OperationKind
    way: str = ""

    def __str__(self) -> str:
        return "-".join(filter(None, (self.type, self.kind.name, self.way)))

    @property
    def drive(self) -> Drive | None:
        return {**LIFECYCLE, **VOLUMES, **OWN.get(self.type, {})}.get(f"{self.kind.name} {self.way}".rstrip())

    @property
    def own(self) -> bool:
        """Whether the kind is one of the type's own."""
        return self.kind.name in OWN.get(self.type, {})

    @property
    def chosen(self) -> bool:
        """Whether the kind, which all types have, is one that a slow type is driven with."""
        return self.kind.name in CHOSEN.get(self.type, set())

    def deaths(self, telling: str, other: str) -> tuple[str, ...]:
        """When around each step to die."""
        return (telling,) if self.type in SPARING else (telling, other)

    @property
    def steps(self) -> list[str]:
        return [step.name for step in self.kind.steps]


def types() -> list[str]:
    """The service types to drive."""
    own = [name for name in services.registry.available() if services.registry.get(name).manager.startswith("conpaas.services.")]
    return [*own, keeping.TYPE]


def service_type(name: str) -> services.ServiceType:
    """The service type of this name."""
    return keeping.service() if name == keeping.TYPE else services.registry.get(name)


def cases() -> list[Case]:
    """Every kind of operation with every type that has it."""
    found = []
    for name in types():
        of_type = service_type(name).load_manager()
        has_volumes = of_type.check_create_volume is not manager.BaseManager.check_create_volume
        kinds = (*lifecycle.KINDS, *migration.KINDS, *(volumes.KINDS if has_volumes else ()), *of_type.operations)
        found += [Case(name, kind, way) for kind in kinds if kind.name not in IN_MEMORY_ONLY for way in _ways(name, kind.name)]
    return found


def _ways(name: str, kind: str) -> list[str]:
    more = [entry.partition(" ") for entry in OWN.get(name, {})]
    return ["", *(way for of_kind, _, way in more if of_kind == kind and way)]


def missing() -> list[str]:
    """Kinds that nobody knows how to begin."""
    return [str(case) for case in cases() if case.drive is None]


def driven() -> list[Case]:
    """What is worth driving: a type's own kinds, the others with one of the types that share their code. What is missing is in it, too."""
    return [case for case in cases() if case.own or case.drive is None or case.type not in (*ALIKE, *CHOSEN)]


def with_managers() -> list[Case]:
    """The same for the deaths of managers: each kind in one way, those of all types with the plainest, the richest and one with disks."""
    common = (PLAIN, RICH, keeping.TYPE)
    wanted = [case for case in driven() if case.type in common or (case.own and case.type not in ALIKE)]
    return [case for case in (*wanted, *(one for one in cases() if one.chosen)) if not case.way]


def of_kind(name: str) -> Drive:
    """The drive of a kind that the plain type has."""
    (found,) = (case.drive for case in cases() if case.type == PLAIN and case.kind.name == name)
    assert found is not None, f"nobody knows how to begin {name}"
    return found
