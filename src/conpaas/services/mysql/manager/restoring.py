"""Restoring a backup, as it is or followed by what was committed later, up to a second.

Nothing of the service is touched until one member has all of the data that are wanted, checked, beside those in use. Only then the
cluster is stopped, the data change places, and that member founds the cluster anew; the others get everything from it.
"""

from __future__ import annotations

import datetime
import logging
import time
from typing import Any, ClassVar, Final

from conpaas.core import agents, errors, expose, node, params
from conpaas.core.https import identity
from conpaas.core.operations import Operation, OperationKind, Step
from conpaas.core.states import State
from conpaas.services.mysql import spec
from conpaas.services.mysql.agent import client
from conpaas.services.mysql.manager import backup_store, backups, bindings, members

log = logging.getLogger(__name__)

RESTORE: Final = OperationKind(
    "restore",
    (
        Step("collect", "collect_restore"),
        Step("prepare", "prepare_restore", "discard_restore"),
        Step("stop", "stop_cluster", "bring_back_cluster"),
        Step("exchange", "exchange_data", "exchange_back"),
        Step("found", "found_anew"),
        Step("rejoin", "rejoin_members"),
    ),
    allowed=(State.RUNNING,),
    transient=State.ADAPTING,
    final=State.RUNNING,
    help="Restoring a backup",
)

LATEST: Final = "latest"
_DRAIN: Final = 10.0
_SLACK: Final = 60
"""Seconds by which logs are taken farther than they need to be: the clocks of members are not quite the same."""
_FORMS: Final = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%SZ", "%Y-%m-%dT%H:%M:%SZ")


class RestoreCalls(backups.BackupCalls, bindings.BindingCalls):
    """The operation `restore`, and what begins it."""

    operations: ClassVar[tuple[OperationKind, ...]] = (*backups.BackupCalls.operations, RESTORE)

    @expose.expose(
        "POST",
        params.Param("id", params.Text(max_length=64, non_empty=True), LATEST, help="A backup; latest is the newest one that will do."),
        params.Param("until", params.Text(max_length=32), None, help="Go on to the begin of this second, UTC, as 2026-11-25 10:11:12."),
    )
    def restore_backup(self, id: str, until: str | None, caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """Replace all databases and accounts by those of a backup; with `until`, and what was committed later before that second."""
        self.check_state(State.RUNNING)
        second = None if until is None else parse_second(until)
        if second is not None and second > time.time():
            raise errors.InvalidArgument(f"{shown(second)} is in the future.")
        chosen = self._chosen(id, second)
        self._whole(chosen)
        operation = self.submit(RESTORE.name, {"id": chosen.id, "until": second}, caller)
        return {"operation": operation.id, "state": str(self.state), "backup": chosen.id}

    def _chosen(self, id: str, until: int | None) -> backup_store.Backup:
        """The backup to begin with. Raises NotFound, and InvalidArgument when it cannot be followed to that second."""
        if id == LATEST:
            fitting = [one for one in self.store.all() if until is None or (one.history and one.time <= until)]
            if not fitting:
                when = "" if until is None else f" that is older than {shown(until)}"
                raise errors.NotFound(f"There is no backup{when}.")
            return fitting[0]
        known = self.store.get(id)
        if until is not None and known.history is None:
            raise errors.InvalidArgument(f"The backup {id} was uploaded, so there are no binary logs that go on from it.")
        if until is not None and until < known.time:
            raise errors.InvalidArgument(
                f"The backup {id} was made at {shown(known.time)}, after {shown(until)}.", hint="choose an older backup, or latest"
            )
        return known

    # Before anything is touched

    def collect_restore(self, op: Operation) -> None:
        """Choose the member, and have all logs that are needed, and those that whoever regrets the restore would need."""
        target, works = self._target()
        op.data["node"] = target.id
        known, until = self.store.get(op.args["id"]), op.args["until"]
        current = works and known.history == self.memory.uuid
        try:
            if works:
                op.note("Fetching the newest binary logs")
                self.fetch_logs()
        except errors.ConPaaSError as error:
            if until is not None and current:
                raise
            op.note(f"What was committed last cannot be had again after this restore: {error}")
        if until is not None:
            self._check_reach(known, until, current=current)

    def _target(self) -> tuple[node.ServiceNode, bool]:
        """The member to restore on, and whether the cluster works: one that lost its data is why people restore. Raises OperationFailed."""
        try:
            return self.spare_member()[0], True
        except errors.OperationFailed:
            looks = self.cluster.glance(self.members_in_order())
            answering = [key for key, look in looks.items() if not isinstance(look, errors.ConPaaSError)]
            if not answering:
                raise errors.OperationFailed(
                    "No node of the service answers, so there is none to restore the backup on.",
                    hint="wait until nodes are replaced, or download the backup and restore it into a new service",
                ) from None
            return self.get_node(answering[0]), False

    def _check_reach(self, known: backup_store.Backup, until: int, *, current: bool) -> None:
        """Raise OperationFailed when the logs do not lead from a backup to a second. `current`: the newest ones were fetched just now."""
        assert known.history is not None
        chain = self.store.chain(known.history, known.seqno)
        rest = [one for one in self.store.logs(known.history) if one.last > (chain[-1].last if chain else known.seqno)]
        reached = chain[-1].end if chain else known.time
        if until > reached and (rest or not current):
            raise errors.OperationFailed(
                f"The binary logs that go on from the backup {known.id} reach to {shown(reached)} only, not to {shown(until)}.",
                hint="restore to an earlier second, or from a later backup",
            )

    def prepare_restore(self, op: Operation) -> None:
        """Have the wanted data on one member, beside those in use. Begins anew after a crash."""
        known, until = self.store.get(op.args["id"]), op.args["until"]
        target = self.answering(op.data["node"])
        op.note(f"Restoring the backup {known.id} on {target.id}, beside the database, and checking all tables")
        client.prepare_restore(self.agents, target, self._whole(known))
        if until is None:
            return
        assert known.history is not None
        for number, one in enumerate(self.store.chain(known.history, known.seqno)):
            client.add_binlog(self.agents, target, one.path, number)
            if one.end > until + _SLACK:
                break
        op.note(f"Carrying out what was committed before {shown(until)}")
        client.replay_binlogs(self.agents, target, known.seqno, until)

    def discard_restore(self, op: Operation) -> None:
        """What stays on the member takes room there only until the next restore."""
        try:
            client.discard_restore(self.agents, self.get_node(op.data["node"]))
        except errors.ConPaaSError as error:
            log.warning("what the restore has left stays on the disk of the member: %s", error)

    # The exchange

    def stop_cluster(self, op: Operation) -> None:
        """End everything in order, the member with the restored data last, which then has all of the former data, too."""
        nodes = self.nodes
        with self.guard:
            try:
                self.fetch_logs()  # what was committed since they were collected: whoever regrets the restore can have that, too
            except errors.ConPaaSError as error:
                log.warning("the binary logs of the last moments cannot be fetched: %s", error)
            op.note("Stopping the cluster")
            self.memory.incomplete = True
            target = op.data["node"]
            order = self.memory.in_order([one.id for one in members.of_role(nodes, spec.MYSQL)])
            self.memory.put_in_order([target, *(one for one in order if one != target)])
            self.cluster.shut_down(nodes, _DRAIN if members.of_role(nodes, spec.GLB) else 0.0)
            own = members.of_role(nodes, spec.MYSQL)
            looks = self.cluster.look(self.cluster.round(), own)
            running = sorted(key for key, look in looks.items() if look["daemon"] in ("RUNNING", "STARTING"))
        if running or len(looks) < len(own):
            silent = sorted({one.id for one in own} - set(looks))
            raise errors.OperationFailed(
                f"{', '.join(running or silent)} cannot be stopped, and would go on with the former data beside the restored ones."
            )

    def bring_back_cluster(self, op: Operation) -> None:
        """The cluster goes on with its former data."""
        with self.guard:
            nodes = self.nodes
            self.cluster.converge(self.cluster.round(tolerated=nodes, lenient=True), nodes, self.note)

    def exchange_data(self, op: Operation) -> None:
        target = self.get_node(op.data["node"])
        with self.guard:
            if "former" not in op.data:
                op.data["former"] = {"uuid": self.memory.uuid, "founder": self.memory.founder}
                op.save()
            self._persistently(target, lambda: client.swap_restored(self.agents, target, on=True))
            self.memory.begin_history(target.id)

    def exchange_back(self, op: Operation) -> None:
        """The member has its former data again, and no server on the others."""
        former = op.data.get("former")
        if former is None:
            return
        target = self.get_node(op.data["node"])
        with self.guard:
            self.memory.return_to(former["uuid"], former["founder"])
            self._persistently(target, lambda: client.stop_mysqld(self.agents, target))
            self._persistently(target, lambda: client.swap_restored(self.agents, target, on=False))

    def found_anew(self, op: Operation) -> None:
        target = self.get_node(op.data["node"])
        with self.guard:
            self.cluster.establish(self.cluster.round(), [target], self.nodes, self.note)

    def rejoin_members(self, op: Operation) -> None:
        """The data are restored: who does not come now, housekeeping sees to."""
        with self.guard:
            nodes = self.nodes
            try:
                self.cluster.converge(self.cluster.round(tolerated=nodes), nodes, self.note)
                self.provide_default_user()
                self.renew_bindings()
            except errors.ConPaaSError as error:
                self.memory.incomplete = True
                op.note(f"The data are restored, but not everybody has them yet: {error}")
        self.discard_restore(op)
        op.note("Everything is restored; make a backup now, so that there is one of what comes from here on")

    def _persistently(self, target: node.ServiceNode, call: Any) -> None:
        agents.persistently(call, self.patience)


def parse_second(text: str) -> int:
    """A second, UTC, of a text. Raises InvalidArgument."""
    for form in _FORMS:
        try:
            return int(datetime.datetime.strptime(text.strip(), form).replace(tzinfo=datetime.UTC).timestamp())
        except ValueError:
            continue
    raise errors.InvalidArgument(f"The time {params.shown(text)!r} must be UTC, as 2026-11-25 10:11:12.")


def shown(second: float) -> str:
    """A second as people read it."""
    return f"{datetime.datetime.fromtimestamp(second, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
