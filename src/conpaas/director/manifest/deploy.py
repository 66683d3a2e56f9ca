"""Making an application as a manifest describes it: one operation of the Director, which a crash anywhere does not lose.

fetch → (the steps of start_application) → add → prepare → run → tidy

fetch    gets the files that the manifest names, before anything costs money
add      makes the services and names them
prepare  hands over startup scripts and what the types' own fields say
run      starts the services that are to be started, in the manifest's order: each runs, with all its nodes, before the next begins;
         one that is not to be started, but has fields that only a running service takes, runs for as long as that takes

A failure destroys every machine of the application, which is then in ERROR with the reason.
"""

from __future__ import annotations

import collections
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Final

import sqlalchemy as sa

from conpaas.core import errors, node, operations, services
from conpaas.core.operations import OperationKind, Step
from conpaas.core.states import State
from conpaas.director import inventory, managers, models, opstore
from conpaas.director.lifecycle import applications
from conpaas.director.lifecycle import parts as lifecycle_parts
from conpaas.director.lifecycle import services as lifecycle_services
from conpaas.director.manifest import conversation, fetch, schema

DEPLOY: Final = OperationKind(
    applications.DEPLOY,
    (
        Step("fetch", "fetch_files", "discard_files"),
        *applications.START.steps,
        Step("add", "add_services", "give_up_everything"),
        Step("prepare", "prepare_services"),
        Step("run", "run_services"),
        Step("tidy", "discard_files"),
    ),
    allowed=(State.INIT,),
    transient=State.PROLOGUE,
    final=State.RUNNING,
    help="Make an application as its manifest describes it.",
)
POLICIES: Final = {DEPLOY.name: opstore.Policy(opstore.Mode.EXCLUSIVE, undone=State.ERROR, secrets=("services",))}
SCRIPT: Final = "StartupScript"
ROUNDS: Final = 20
"""How often a manager that is lost while something is begun is asked again."""


class Part:
    """One service of the manifest, and how far it has come (`progress` is part of the operation's record)."""

    def __init__(self, op: operations.Operation, index: int, wanted: schema.Service, talk: conversation.Conversation) -> None:
        self.op = op
        self.index = index
        self.wanted = wanted
        self.talk = talk
        self.progress: dict[str, Any] = op.data.setdefault("services", {}).setdefault(str(index), {})

    @property
    def sid(self) -> int:
        """The service's number, once it is added."""
        return int(self.progress["sid"])

    @property
    def label(self) -> str:
        """How the service is called in messages."""
        return f"Service {self.index + 1}, {self.wanted.label}"

    def keep(self, **progress: Any) -> None:
        """Write down how far the service has come."""
        self.progress.update(progress)
        self.op.save()


class Deployments(applications.Applications):
    """The steps of deploying a manifest; those that start the manager are those of every application."""

    def __init__(
        self,
        parts: lifecycle_parts.Parts,
        store: opstore.DirectorStore,
        rpc: managers.Managers,
        files: fetch.Files | None,
        registry: services.Registry = services.registry,
    ) -> None:
        super().__init__(parts, store)
        self._rpc = rpc
        self._files = files
        self._registry = registry

    # Files

    def fetch_files(self, op: operations.Operation) -> None:
        self._for_each(op, lambda part: [self._path(part, name) for name in self._urls(part.wanted)])

    def discard_files(self, op: operations.Operation) -> None:
        if self._files is not None:
            self._files.discard(op.id)

    def _urls(self, wanted: schema.Service) -> dict[str, str]:
        """The URLs of the files that a service needs, by field."""
        declared = self._registry.get(wanted.type).manifest_fields
        urls = {field.name: str(wanted.fields[field.name]) for field in declared if field.file and field.name in wanted.fields}
        return urls | ({SCRIPT: wanted.script} if wanted.script else {})

    def _path(self, part: Part, name: str) -> tuple[str, pathlib.Path]:
        """What a file is called, and where it is. It is fetched (again) if this Director does not have it."""
        url = self._urls(part.wanted)[name]
        if self._files is None:
            raise errors.ConfigurationError("This Director has no place to keep fetched files.")
        limit = fetch.MAX_SCRIPT if name == SCRIPT else fetch.MAX_FILE
        try:
            return self._files.get(part.op.id, f"{part.index}-{name}", url, limit, part.talk.check)
        except errors.ConPaaSError as error:
            raise errors.OperationFailed(f"{name}: {error}", hint=error.hint) from error

    def _file(self, part: Part, name: str) -> tuple[str, BinaryIO]:
        label, path = self._path(part, name)
        return label, path.open("rb")

    # Services

    def add_services(self, op: operations.Operation) -> None:
        self._adapt(op)
        self._for_each(op, self._add)

    def _add(self, part: Part) -> None:
        aid, wanted = part.op.target, part.wanted
        if "sid" not in part.progress:
            part.op.note(f"{part.label}: adding it")
            reply = part.talk.post("add_service", service_type=wanted.type, request=f"{part.op.id}-{part.index}")
            part.keep(sid=int(reply["service_id"]))
        lifecycle_services.record(self._parts.database, aid, part.sid, wanted.type)
        if wanted.name:
            self._name(aid, part.sid, wanted.name)

    def _adapt(self, op: operations.Operation) -> None:
        """The manager runs, and may ask for nodes from now on."""
        with self._parts.database.session() as session:
            application = inventory.lock_application(session, op.target)
            applications.refuse_if_interrupted(session, op)
            application.status = str(State.ADAPTING)

    def _name(self, aid: int, sid: int, name: str) -> None:
        row = models.Service
        with self._parts.database.session() as session:
            session.execute(sa.update(row).where(row.application_id == aid, row.sid == sid).values(name=name))

    def prepare_services(self, op: operations.Operation) -> None:
        self._for_each(op, self._prepare)

    def _prepare(self, part: Part) -> None:
        if part.wanted.script:
            part.talk.upload("upload_startup_script", 0, {"sid": part.sid}, "script", lambda: self._file(part, SCRIPT))
        self._apply(part, running=False)

    def _apply(self, part: Part, *, running: bool) -> None:
        """Hand over what the type's own fields say: those for a service that runs, or the others."""
        values: dict[str, Any] = {}
        for field in self._registry.get(part.wanted.type).manifest_fields:
            if field.name not in part.wanted.fields or field.running != running:
                continue
            values[field.name] = part.wanted.fields[field.name]
            if field.peer:
                values[field.name] = [{**entry, field.peer: self._peer(part, entry[field.peer])} for entry in values[field.name]]
            if field.file is not None:
                part.op.note(f"{part.label}: uploading {field.name}")
                key = {"request": f"{part.op.id}-{part.index}-{field.name}"}
                opened = functools.partial(self._file, part, field.name)
                try:
                    values[field.name] = part.talk.upload(field.file.method, part.sid, key, field.file.part, opened)
                except errors.RemoteError as error:
                    raise errors.OperationFailed(f"{field.name}: {error}", hint=error.hint) from error
        if not values:
            return
        part.talk.settled(part.sid)
        reply = part.talk.post("apply_manifest", part.sid, fields=values)
        if reply.get("operation"):
            part.talk.follow(str(reply["operation"]))

    def _peer(self, part: Part, name: str) -> int:
        """The number of another service of the manifest; the check of the manifest has seen to it that there is exactly one."""
        return next(one.sid for one in self._parts_of(part.op) if one.index != part.index and one.wanted.name == name)

    def run_services(self, op: operations.Operation) -> None:
        self._for_each(op, self._run)

    def _run(self, part: Part) -> None:
        if part.wanted.start:
            self._start(part)
            self._grow(part)
            self._apply(part, running=True)
        elif any(field.running and field.name in part.wanted.fields for field in self._registry.get(part.wanted.type).manifest_fields):
            self._run_to_set_up(part)

    def _run_to_set_up(self, part: Part) -> None:
        if "set_up" not in part.progress:
            self._start(part)
            self._apply(part, running=True)
            part.keep(set_up=True)
        self._stop(part)

    def _stop(self, part: Part) -> None:
        """Until the service is stopped."""
        self._bring(part, "stop", State.STOPPED, lambda state: state is State.RUNNING, "stopping it, as it is set up")

    def _start(self, part: Part) -> None:
        """Until the service runs. It is started once; whether that happened before a crash, its state tells."""
        self._bring(part, "start", State.RUNNING, lambda state: state is not State.ERROR, "starting it", cloud=self._cloud(part))

    def _bring(self, part: Part, verb: str, wanted: State, may: Callable[[State], bool], told: str, **arguments: Any) -> None:
        """Have the service in the state `wanted`. It is asked for once, from a state in which it `may` be; raises OperationFailed."""
        for _ in range(ROUNDS):
            state = part.talk.settled(part.sid)
            if state is wanted:
                return
            if verb in part.progress:
                part.talk.follow(part.progress[verb])
            if verb in part.progress or not may(state):
                raise errors.OperationFailed(f"It is in state {state}: {part.talk.reason(part.sid)}")
            part.op.note(f"{part.label}: {told}")
            begun = part.talk.ask(f"{verb}_service", service_id=part.sid, **arguments)
            if begun is not None:
                part.keep(**{verb: begun})
        raise errors.OperationFailed("Its manager does not stay reachable.")

    def _grow(self, part: Part) -> None:
        """Until the service has been given the nodes that are asked for."""
        for _ in range(ROUNDS):
            state = part.talk.settled(part.sid)
            if "grow" in part.progress:
                return part.talk.follow(part.progress["grow"])
            if state is not State.RUNNING:
                raise errors.OperationFailed(f"It is in state {state}: {part.talk.reason(part.sid)}")
            have = self._counts(part.op.target, part.sid)
            missing = {role: count - have[role] for role, count in part.wanted.nodes.items() if count > have[role]}
            if not missing:
                return self._refuse_surplus(part, have)
            part.op.note(f"{part.label}: adding {', '.join(f'{count} {role}' for role, count in missing.items())}")
            begun = part.talk.ask("add_nodes", service_id=part.sid, nodes=missing, cloud=self._cloud(part))
            if begun is not None:
                part.keep(grow=begun)
        raise errors.OperationFailed("Its manager does not stay reachable.")

    def _refuse_surplus(self, part: Part, have: Mapping[str, int]) -> None:
        for role, count in part.wanted.nodes.items():
            if have[role] > count:
                raise errors.OperationFailed(f"It starts with {have[role]} nodes of role {role}; StartupInstances asks for {count}.")

    def _counts(self, aid: int, sid: int) -> collections.Counter[str]:
        with self._parts.database.reader() as session:
            machines = inventory.of_application(session, aid, states=("running",))
        return collections.Counter(machine.node_role for machine in machines if machine.service_id == sid)

    def _cloud(self, part: Part) -> str:
        cloud = part.wanted.cloud or str(part.op.args["cloud"])
        return node.DEFAULT_CLOUD if cloud == node.INNER_DEFAULT_CLOUD else cloud

    def _parts_of(self, op: operations.Operation) -> list[Part]:
        talk = conversation.Conversation(self._parts, self._rpc, op)
        return [Part(op, index, schema.Service.from_dict(raw), talk) for index, raw in enumerate(op.args["services"])]

    def _for_each(self, op: operations.Operation, work: Callable[[Part], object]) -> None:
        """Do something with the parts, one after the other; what goes wrong with one names it."""
        for part in self._parts_of(op):
            try:
                work(part)
            except errors.ConPaaSError as error:
                raise errors.OperationFailed(f"{part.label}: {error}", hint=error.hint) from error

    # Undoing

    def give_up_everything(self, op: operations.Operation) -> None:
        """Undo: what managers asked for ends first (it is refused its next step), then every machine goes."""
        deadline = self._parts.clock() + self._parts.settings.settle_timeout
        while self._store.under_way(op.target, modes=[opstore.Mode.SHARED]):
            if self._parts.clock() >= deadline:
                raise errors.OperationFailed("What the application's services asked for does not end.")
            self._parts.pause(self._parts.settings.probe_interval)
        self.give_up_machines(op)
        self.destroy_machines(op)
        self.forget_services(op)
