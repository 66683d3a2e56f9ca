"""Starting, stopping and deleting applications, as operations of named steps.

start_application   record → create → wait → publish      any failure destroys the manager's VM; the application is in ERROR with the reason
stop_application    interrupt → give_up → destroy → forget nothing to undo: what a cloud cannot destroy now, the sweeper destroys later
delete_application  as stop, then the rows go
"""

from __future__ import annotations

import logging
from typing import Final

import sqlalchemy as sa
from sqlalchemy import orm

from conpaas.core import errors, operations
from conpaas.core.clouds import base
from conpaas.core.operations import OperationKind, State, Step
from conpaas.director import ca, inventory, models, opstore, quotas
from conpaas.director.lifecycle import boot, removal
from conpaas.director.lifecycle import parts as lifecycle_parts

_log = logging.getLogger(__name__)

START: Final = OperationKind(
    "start_application",
    (
        Step("record", "record_manager", "destroy_manager"),
        Step("create", "create_manager"),
        Step("wait", "wait_for_manager"),
        Step("publish", "publish_manager", "withdraw_manager"),
    ),
    allowed=(State.INIT, State.STOPPED, State.ERROR),
    transient=State.PROLOGUE,
    final=State.RUNNING,
    help="Start the application's manager.",
)
STOP: Final = OperationKind(
    "stop_application",
    (
        Step("interrupt", "interrupt_others"),
        Step("give_up", "give_up_machines", irreversible=True),
        Step("destroy", "destroy_machines", irreversible=True),
        Step("forget", "forget_services", irreversible=True),
    ),
    transient=State.EPILOGUE,
    final=State.STOPPED,
    help="Destroy every machine and volume of the application.",
)
DELETE: Final = OperationKind(
    "delete_application",
    (*STOP.steps, Step("delete", "delete_application", irreversible=True)),
    transient=State.EPILOGUE,
    final=State.STOPPED,
    help="Stop the application and forget it.",
)
DEPLOY: Final = "deploy_manifest"
"""The kind of operation that makes a whole application (`manifest.deploy`)."""
POLICIES: Final = {
    START.name: opstore.Policy(opstore.Mode.EXCLUSIVE, undone=State.ERROR),
    STOP.name: opstore.Policy(opstore.Mode.PREEMPTIVE, undone=State.ERROR),
    DELETE.name: opstore.Policy(opstore.Mode.PREEMPTIVE, undone=State.ERROR),
}

DESTROY_ATTEMPTS = 3
DESTROY_PAUSE = 2.0


def request_key(op: operations.Operation) -> str:
    """The key under which an operation asks clouds for machines."""
    return f"op-{op.id}"


class Applications:
    """The steps of operations on whole applications. Every step may run again after a crash."""

    def __init__(self, parts: lifecycle_parts.Parts, store: opstore.DirectorStore) -> None:
        self._parts = parts
        self._store = store

    # Starting

    def record_manager(self, op: operations.Operation) -> None:
        cloud = op.args["cloud"]
        self._parts.cloud(cloud)
        with self._parts.database.session() as session:
            application = inventory.lock_application(session, op.target)
            refuse_if_interrupted(session, op)
            if not inventory.of_request(session, request_key(op)):
                left = inventory.of_application(session, op.target)
                if left:
                    raise errors.OperationFailed(
                        f"The application still has {len(left)} machine(s) of its last run; they are being destroyed.",
                        hint="Stop the application, then start it again.",
                    )
                require_credits(self._parts, session, application.user_id, 1)
                quotas.require(session, application.user_id, vms=1)
            row = models.Resource(
                cloud=cloud,
                app_id=op.target,
                service_id=0,
                role=inventory.MANAGER,
                node_role=inventory.MANAGER,
                request_key=request_key(op),
                request_index=0,
            )
            inventory.expect(session, [row])

    def create_manager(self, op: operations.Operation) -> None:
        owner = owner_of(self._parts, op.target)
        boot.create(self._parts, request_key(op), lambda machine: self._specification(machine, owner), lambda: self._check(op))

    def _specification(self, machine: inventory.Machine, uid: int) -> base.NodeSpec:
        settings = self._parts.settings
        name = f"{settings.deployment}-u{uid}-a{machine.app_id}-mgr"
        token = self._parts.tokens(role=inventory.MANAGER, uid=uid, aid=machine.app_id, vm=name)
        driver = self._parts.cloud(machine.cloud).driver
        user_data = self._parts.composer.manager(driver=driver, user_id=uid, app_id=machine.app_id, token=token)
        return base.NodeSpec(
            index=machine.request_index,
            name=name,
            role=inventory.MANAGER,
            user_data=user_data,
            tags=lifecycle_parts.machine_tags(settings, machine, uid),
        )

    def wait_for_manager(self, op: operations.Operation) -> None:
        boot.wait(self._parts, request_key(op), owner_of(self._parts, op.target), lambda: self._check(op))

    def publish_manager(self, op: operations.Operation) -> None:
        with self._parts.database.session() as session:
            application = inventory.lock_application(session, op.target)
            refuse_if_interrupted(session, op)
            (machine,) = inventory.of_request(session, request_key(op))
            inventory.set_state(session, [machine.rid], "running")
            self._parts.accounts.start(session, [machine.rid])
            application.cloud = machine.cloud
            application.manager_ip = machine.ip
            application.manager_port = self._parts.settings.manager_port
            application.manager_vmid = machine.vmid

    def withdraw_manager(self, op: operations.Operation) -> None:
        with self._parts.database.session() as session:
            withdraw(session, op.target)

    def destroy_manager(self, op: operations.Operation) -> None:
        with self._parts.database.reader() as session:
            machines = inventory.of_request(session, request_key(op))
        removal.give_up(self._parts, machines)
        problems = removal.destroy(self._parts, machines)
        if problems:
            raise errors.OperationFailed(" ".join(problems))
        with self._parts.database.session() as session:
            ca.revoke_application(session, op.target, models.utcnow())

    # Stopping

    def interrupt_others(self, op: operations.Operation) -> None:
        """Wait until everything else on this application has noticed that it is being stopped, and has undone itself."""
        deadline = self._parts.clock() + self._parts.settings.settle_timeout
        while True:
            others = [other for other in self._store.under_way(op.target) if other.id != op.id]
            if not others:
                return
            if self._parts.clock() >= deadline:
                kinds = ", ".join(sorted({other.kind for other in others}))
                raise errors.OperationFailed(f"Still under way: {kinds}.", hint="Stop the application again.")
            self._parts.pause(self._parts.settings.probe_interval)

    def give_up_machines(self, op: operations.Operation) -> None:
        with self._parts.database.session() as session:
            inventory.lock_application(session, op.target)
            withdraw(session, op.target)
            machines = inventory.of_application(session, op.target)
        removal.give_up(self._parts, machines)

    def destroy_machines(self, op: operations.Operation) -> None:
        problems: list[str] = []
        for attempt in range(DESTROY_ATTEMPTS):
            if attempt:
                self._parts.pause(DESTROY_PAUSE)
            problems = self._destroy_all(op.target)
            if not problems:
                return
        raise errors.OperationFailed(f"{' '.join(problems)} It is tried again until it succeeds.")

    def _destroy_all(self, aid: int) -> list[str]:
        with self._parts.database.reader() as session:
            machines = inventory.of_application(session, aid)
        problems = removal.destroy(self._parts, machines, extra_tags={lifecycle_parts.TAG_APPLICATION: str(aid)})
        with self._parts.database.reader() as session:
            disks = inventory.volumes(session, aid=aid)
        return problems + removal.destroy_volumes(self._parts, disks)

    def forget_services(self, op: operations.Operation) -> None:
        with self._parts.database.session() as session:
            session.execute(sa.delete(models.Service).where(models.Service.application_id == op.target))
            ca.revoke_application(session, op.target, models.utcnow())

    def delete_application(self, op: operations.Operation) -> None:
        with self._parts.database.session() as session:
            session.execute(sa.delete(models.Application).where(models.Application.aid == op.target))

    # Being interrupted

    def _check(self, op: operations.Operation) -> None:
        with self._parts.database.reader() as session:
            refuse_if_interrupted(session, op)


def refuse_if_interrupted(session: orm.Session, op: operations.Operation) -> None:
    """Raise OperationFailed if the operation's application is being stopped or deleted, or its deployment is being undone."""
    row = models.Operation
    ending = sa.and_(row.kind.in_((STOP.name, DELETE.name)), row.status.in_(("RUNNING", "UNDOING")))
    undone = sa.and_(row.kind == DEPLOY, row.status == "UNDOING")
    query = sa.select(row.kind).where(row.target == op.target, row.id != op.id, sa.or_(ending, undone))
    kind = session.scalar(query.limit(1))
    if kind == DEPLOY:
        raise errors.OperationFailed("The deployment of the application's manifest failed meanwhile.")
    if kind is not None:
        raise errors.OperationFailed(f"The application was {'deleted' if kind == DELETE.name else 'stopped'} meanwhile.")


def require_credits(parts: lifecycle_parts.Parts, session: orm.Session, uid: int, machines: int) -> None:
    """Raise InsufficientCredits unless the user can pay the first hour of `machines` more; holds the user locked until the end.

    Machines under creation count as spent, so that requests side by side cannot spend the same credit.
    """
    inventory.lock_user(session, uid)
    if parts.accounts.balance(session, uid) - inventory.reserved(session, uid) < machines:
        raise errors.InsufficientCredits


def withdraw(session: orm.Session, aid: int) -> None:
    """The application has no manager any more."""
    nothing = dict.fromkeys(("manager_ip", "manager_port", "manager_vmid", "cloud"))
    session.execute(sa.update(models.Application).where(models.Application.aid == aid).values(**nothing))


def owner_of(parts: lifecycle_parts.Parts, aid: int) -> int:
    """The user id of an application's owner."""
    with parts.database.reader() as session:
        application = session.get(models.Application, aid)
        if application is None:
            raise errors.NotFound("Application not found")
        return application.user_id
