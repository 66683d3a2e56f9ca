"""The lifecycle as the rest of the Director sees it: one object that accepts requests, and its installation in a Director."""

from __future__ import annotations

import datetime
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import orm

from conpaas.core import engine, errors
from conpaas.core.clouds import factory
from conpaas.core.operations import Operation, OperationKind, OperationStatus
from conpaas.director import ca, code_tarball, context, credits, inventory, managers, models, opstore, quotas, runtime, sweeper
from conpaas.director.lifecycle import applications, exhaustion, nodes, services, volumes
from conpaas.director.lifecycle import parts as lifecycle_parts
from conpaas.director.manifest import deploy, fetch, ready_made, schema

_log = logging.getLogger(__name__)

NAME = "lifecycle"
ADOPT_INTERVAL = 20.0
POLL_SECONDS = 0.5
LONGEST_HOLD = 60.0
SHORT_HOLD = 1.0
WORKERS_PER_START = 4  # requests of managers for nodes run beside starts of applications, and all of them mostly wait
KINDS = {
    kind.name: kind
    for kind in (
        applications.START,
        applications.STOP,
        applications.DELETE,
        deploy.DEPLOY,
        nodes.CREATE,
        nodes.REMOVE,
        services.REMOVE,
        *volumes.KINDS,
    )
}
POLICIES = {**applications.POLICIES, **nodes.POLICIES, **services.POLICIES, **volumes.POLICIES, **deploy.POLICIES}
PENDING: Mapping[str, Any] = {"pending": True}


class Lifecycle:
    """Accepts requests, runs them as operations and tells about them. Safe to use from several threads."""

    def __init__(
        self,
        parts: lifecycle_parts.Parts,
        store: opstore.DirectorStore,
        rpc: managers.Managers,
        archives: code_tarball.Archives | None = None,
        files: fetch.Files | None = None,
        *,
        workers: int = 16,
        holds: int = 12,
        **engine_options: Any,
    ) -> None:
        self.parts = parts
        self.store = store
        self.managers = rpc
        self.archives = archives
        self._holds = threading.BoundedSemaphore(holds)
        self.applications = applications.Applications(parts, store)
        self.deployments = deploy.Deployments(parts, store, rpc, files)
        self.nodes = nodes.Nodes(parts)
        self.services = services.Services(parts, rpc)
        self.volumes = volumes.Volumes(parts)
        self.sweeper = sweeper.Sweeper(parts, store, rpc, self.services)
        self._owners: dict[str, object] = dict.fromkeys(KINDS, self.volumes)
        self._owners |= dict.fromkeys((applications.START.name, applications.STOP.name, applications.DELETE.name), self.applications)
        self._owners[deploy.DEPLOY.name] = self.deployments
        self._owners |= {nodes.CREATE.name: self.nodes, nodes.REMOVE.name: self.nodes, services.REMOVE.name: self.services}
        options = {"size": workers, "heartbeat_interval": opstore.HEARTBEAT_SECONDS, **engine_options}
        self.engine = engine.OperationEngine(
            store, kind_of=engine.kinds_by_name(KINDS), owner_of=lambda op: self._owners[op.kind], component="director", **options
        )

    # Applications

    def start(self, aid: int, cloud: str, requester: str) -> Operation:
        """Begin to start an application. Raises the classic refusals: already started, insufficient credits, unknown cloud."""
        self.parts.cloud(cloud)
        with self.parts.database.session() as session:
            application = inventory.lock_application(session, aid)
            if application.status not in applications.START.allowed:
                raise errors.WrongState("Application already started")
            left = inventory.of_application(session, aid)
            if left:
                raise errors.WrongState(
                    f"The application still has {len(left)} machine(s) of its last run.", hint="Stop the application, then start it again."
                )
            applications.require_credits(self.parts, session, application.user_id, 1)
            quotas.require(session, application.user_id, vms=1)
        try:
            return self.engine.submit(applications.START, aid, {"cloud": cloud}, requester)
        except errors.WrongState as error:
            raise errors.WrongState("Application already started") from error

    def deploy(self, aid: int, cloud: str, wanted: Sequence[schema.Service], requester: str) -> Operation:
        """Begin to give an application that was never started its manager and these services."""
        args = {"cloud": cloud, "services": [service.to_dict() for service in wanted]}
        return self.engine.submit(deploy.DEPLOY, aid, args, requester)

    def stop(self, aid: int, requester: str) -> str:
        """Begin to stop an application, whatever it is doing; returns the operation's id, of the one under way if there is one."""
        return self._preempt(applications.STOP, aid, requester)

    def delete(self, aid: int, requester: str) -> str:
        """Begin to stop an application and then forget it; as `stop`, but WrongState while it is merely being stopped."""
        return self._preempt(applications.DELETE, aid, requester)

    def _preempt(self, kind: OperationKind, aid: int, requester: str) -> str:
        try:
            return self.engine.submit(kind, aid, {}, requester).id
        except errors.WrongState:
            for op in self.store.under_way(aid, modes=[opstore.Mode.PREEMPTIVE]):
                if kind is applications.STOP or op.kind == kind.name:
                    return op.id
            raise

    def stop_all_of(self, uid: int) -> None:
        """Stop every application of a user that has machines (the user can pay them no longer)."""
        with self.parts.database.reader() as session:
            query = (
                sa.select(models.Application.aid)
                .join(models.Resource, models.Resource.app_id == models.Application.aid)
                .where(models.Application.user_id == uid, models.Resource.state.in_(("creating", "running")))
                .distinct()
            )
            aids = session.scalars(query).all()
        for aid in aids:
            _log.info("stopping application %s: its owner has no credits left", aid)
            self.stop(aid, "credits")

    def history(self, aid: int, limit: int) -> list[Operation]:
        """The operations of an application, newest first."""
        return self.store.list(aid, limit)

    # Requests of managers

    def request(self, kind: OperationKind, aid: int, key: str, args: Mapping[str, Any], requester: str) -> str:
        """Begin the operation that a manager's request is, unless it has begun already; returns its id.

        Raises InvalidArgument when the key was used for a request of another kind.
        """
        op_id = nodes.operation_id(aid, key)
        known = self._find(op_id)
        if known is None:
            try:
                self.engine.submit(kind, aid, args, requester, operation_id=op_id)
            except opstore.AlreadyThere:
                known = self._find(op_id)
        if known is not None and known.kind != kind.name:
            raise errors.InvalidArgument(f"The request key '{key}' was used for {known.kind} already.")
        return op_id

    def known(self, aid: int, key: str) -> Operation | None:
        """The operation that a request key stands for, if there is one."""
        return self._find(nodes.operation_id(aid, key))

    def _find(self, op_id: str) -> Operation | None:
        try:
            return self.store.get(op_id)
        except errors.NotFound:
            return None

    def result(self, op_id: str, wait: float) -> Any:
        """The result of an operation, or `PENDING` when it has not ended within `wait` seconds; raises what made it fail.

        Only so many callers are held at once that the others find a thread of the server; the rest is sent away sooner.
        """
        op = self._hold(op_id, wait)
        if op is None:
            return dict(PENDING)
        if op.status is not OperationStatus.DONE:
            raise errors.OperationFailed(op.error or f"The operation {op.kind} failed.")
        return op.data.get("result", {})

    def _hold(self, op_id: str, wait: float) -> Operation | None:
        if wait > LONGEST_HOLD:  # somebody who can't ask again
            return self.finished(op_id, wait)
        if not self._holds.acquire(blocking=False):
            return self.finished(op_id, min(wait, SHORT_HOLD))
        try:
            return self.finished(op_id, wait)
        finally:
            self._holds.release()

    def finished(self, op_id: str, wait: float) -> Operation | None:
        """An operation once it has ended, whichever process runs it; None when it has not within `wait` seconds."""
        deadline = time.monotonic() + wait
        while True:
            op = self.engine.wait(op_id, max(0.0, deadline - time.monotonic()))
            if op.status.finished:
                return op
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.parts.pause(min(POLL_SECONDS, left))

    def resume(self) -> None:
        """Continue what an earlier life of this process left, or a process that is gone."""
        self.engine.resume()

    def close(self) -> None:
        """Begin nothing more; what is under way is continued at the next start."""
        self.engine.close()


class _Credits:
    """`parts.Accounts` on the ledger."""

    def __init__(self, clock: Callable[[], datetime.datetime]) -> None:
        self._clock = clock

    def balance(self, session: orm.Session, uid: int) -> int:
        return credits.balance(session, uid)

    def start(self, session: orm.Session, rids: Sequence[int]) -> None:
        now = self._clock()
        fresh = sa.and_(models.Resource.rid.in_(list(rids)), models.Resource.state == "creating")
        session.execute(sa.update(models.Resource).where(fresh).values(state="running", created=now))
        session.expire_all()
        owners = (
            sa.select(models.Application.user_id)
            .join(models.Resource, models.Resource.app_id == models.Application.aid)
            .where(models.Resource.rid.in_(list(rids)))
        )
        for uid in session.scalars(owners.distinct()).all():
            credits.charge_started_hours(session, now, uid)

    def stop(self, session: orm.Session, rids: Sequence[int]) -> None:
        now = self._clock()
        for row in session.scalars(sa.select(models.Resource).where(models.Resource.rid.in_(list(rids)))).all():
            credits.settle(session, row, now)


def install(director: runtime.Director) -> None:
    """Make the lifecycle of a Director, have unfinished operations continued at start, and the sweeper run."""
    config = director.config
    owner = opstore.Owner.claim(config.state_dir)
    callers = managers.Callers(lambda: director.authority.calling)
    archives = code_tarball.Archives(config.state_dir / "code")
    settings = lifecycle_parts.Settings(
        deployment=config.deployment_name,
        node_boot_timeout=float(config.node_timeout),
        agent_port=config.agent_port,
        manager_port=config.manager_port,
    )
    composer = context.Composer(
        director_url=config.director_url,
        deployment=config.deployment_name,
        ca_pem=lambda: director.authority.ca_pem,
        code_sha256=lambda: archives.current().sha256,
        manager_port=config.manager_port,
        agent_port=config.agent_port,
        allow_frontend=config.trust_frontend,
        startup_timeout=context.startup_timeout(config.node_timeout),
        conf_dir=config.conf_dir,
    )

    def tokens(*, role: str, uid: int, aid: int, vm: str) -> str:
        with director.database.session() as session:
            return ca.new_token(session, role=role, uid=uid, aid=aid, vm=vm, now=director.clock())

    parts = lifecycle_parts.Parts(
        database=director.database,
        clouds=factory.open_clouds(config.parser()),
        composer=composer,
        accounts=_Credits(director.clock),
        tokens=tokens,
        probe=managers.Probe(callers, {inventory.MANAGER: settings.manager_port, inventory.AGENT: settings.agent_port}),
        settings=settings,
    )
    store = opstore.DirectorStore(director.database, owner.name, POLICIES)
    rpc = managers.Managers(director.database, callers)
    files = fetch.Files(
        config.state_dir / "manifests", fetch.Fetcher(private=config.fetch_private, ready_made=config.state_dir / ready_made.DIRECTORY)
    )
    lifecycle = Lifecycle(
        parts, store, rpc, archives, files, workers=WORKERS_PER_START * config.operation_workers, holds=max(1, config.threads // 2)
    )
    director.components[NAME] = lifecycle
    director.on_exhausted(exhaustion.Exhaustion(director, parts, rpc, lifecycle.stop_all_of).handle)
    director.add_startup(lambda: files.keep_only(op.id for op in store.under_way()))
    director.add_startup(lifecycle.resume)
    director.add_loop("operations", ADOPT_INTERVAL, lifecycle.resume, everywhere=True)
    director.add_loop("sweeper", config.sweep_interval, lifecycle.sweeper.sweep)
    director.add_shutdown(owner.release)
    director.add_shutdown(callers.close)
    director.add_shutdown(lifecycle.close)


def current() -> Lifecycle:
    """The lifecycle of the Director that serves the present request."""
    return cast(Lifecycle, runtime.current().components[NAME])
