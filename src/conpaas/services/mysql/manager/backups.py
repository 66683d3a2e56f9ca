"""Backups of the whole cluster: made on one member, restored and checked there, and kept by the manager."""

from __future__ import annotations

import datetime
import logging
import pathlib
import secrets
import time
from typing import Any, ClassVar, Final

from conpaas.core import agents, errors, expose, file, node, params, rpc, service_parts
from conpaas.core.https import identity
from conpaas.core.operations import Operation, OperationKind, Step
from conpaas.core.states import State
from conpaas.services.mysql.agent import client
from conpaas.services.mysql.manager import backup_store, base, members
from conpaas.services.webservers import schedules

log = logging.getLogger(__name__)

BACKUP: Final = OperationKind(
    "backup",
    (
        Step("make", "make_backup", "unmake_backup"),
        Step("verify", "verify_backup"),
        Step("fetch", "fetch_backup", "drop_backup"),
        Step("record", "record_backup", "drop_backup"),
        Step("tidy", "tidy_backup"),
    ),
    allowed=(State.RUNNING,),
    help="Making a backup",
)

_KEEP: Final = 7
_ASIDE: Final = "backup_aside"
_SCHEDULE: Final = "backup_schedule"
_LOG_PERIOD: Final = 300.0
"""Seconds between two rounds in which binary logs are fetched."""
_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ID: Final = params.Param("id", params.Text(max_length=64, non_empty=True), help="The id of a backup.")


class BackupCalls(base.MySQLBase):
    """Backups, their schedule, and the operation `backup`."""

    operations: ClassVar[tuple[OperationKind, ...]] = (BACKUP,)

    def __init__(self, context: service_parts.ManagerContext) -> None:
        super().__init__(context)
        chosen = self.config.get(self.config.main, "BACKUP_DIR", "")
        own = f"{self.config.get(self.config.main, 'APP_ID', '0')}-{self.service_id}"
        directory = pathlib.Path(chosen) / own if chosen else self.data_dir / "backups"
        self.store = backup_store.BackupStore(self.settings, directory)
        self._log_period = self.config.get_float(self.config.main, "BACKUP_LOG_PERIOD", _LOG_PERIOD, minimum=1.0)
        self._logs_due = 0.0
        self._arriving: set[str] = set()

    # Calls

    @expose.expose("POST")
    def create_backup(self, caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """Make a backup of all databases and accounts."""
        return self._begin_backup(caller)

    @expose.expose("GET")
    def list_backups(self) -> dict[str, Any]:
        """List the backups, newest first; `restorable_until` is the second up to which each can be followed by the logs that are kept."""
        return {"backups": [{**one.to_dict(), "restorable_until": self._reach(one)} for one in self.store.all()]}

    @expose.expose("POST", _ID)
    def delete_backup(self, id: str) -> dict[str, Any]:
        """Delete a backup, and the binary logs that no other backup needs."""
        if not self.idle:
            raise errors.WrongState("The service is busy with another request; try again when that has finished.")
        self.store.get(id)
        self.store.delete(id)
        self.store.prune_logs()
        return {}

    @expose.expose("GET", _ID)
    def download_backup(self, id: str) -> rpc.FileDownload:
        """Download a backup, to be kept elsewhere or to be restored into another service."""
        known = self.store.get(id)
        return rpc.FileDownload(f"backup-{known.id}{backup_store.SUFFIX}", self._whole(known))

    @expose.expose("UPLOAD", params.Param("backup", params.Upload(), help="A backup of this or of another mysql service."))
    def upload_backup(self, backup: params.UploadedFile) -> dict[str, Any]:
        """Keep a backup that was downloaded before. It is tried out when it is restored, before anything is changed."""
        with backup.open() as stream:
            if stream.read(len(_MAGIC)) != _MAGIC:
                raise errors.InvalidArgument("The file is no backup of a mysql service.", hint="upload what download_backup gave")
        id = new_id()
        self.store.prepare(backup.size)
        part = self.store.part(id)
        self._arriving.add(id)
        try:
            with backup.open() as stream, part.open("wb") as copy:
                while piece := stream.read(1 << 20):
                    copy.write(piece)
            self.store.keep(part, id)
            record = backup_store.Backup(id, time.time(), backup.size, file.sha256(self.store.path(id)), backup_store.UPLOADED)
            self.store.put(record)
        except BaseException:
            self.store.delete(id)
            raise
        finally:
            self._arriving.discard(id)
        return {"backup": record.to_dict()}

    @expose.expose(
        "POST",
        params.Param("schedule", params.Text(max_length=100), help="Five fields as in crontab(5), UTC; empty: no backups by schedule."),
        params.Param("keep", params.Integer(minimum=1, maximum=1000), _KEEP, help="How many backups are kept."),
    )
    def set_backup_schedule(self, schedule: str, keep: int) -> dict[str, Any]:
        """Have backups made by a schedule; all but the newest ones are deleted whenever one was made."""
        due = self._following(schedules.check(schedule)) if schedule.strip() else None
        self.settings[_SCHEDULE] = {"schedule": schedule.strip(), "keep": keep, "next": due}
        return self.get_backup_schedule()

    @expose.expose("GET")
    def get_backup_schedule(self) -> dict[str, Any]:
        """Tell when backups are made, how many are kept, and when the next one is due (seconds since 1970)."""
        return {"schedule": "", "keep": _KEEP, "next": None, **self.settings.get(_SCHEDULE, {})}

    def _begin_backup(self, caller: identity.PeerIdentity | str | None) -> dict[str, Any]:
        id = new_id()
        operation = self.submit(BACKUP.name, {"id": id}, caller)
        return {"operation": operation.id, "state": str(self.state), "backup": id}

    def _whole(self, known: backup_store.Backup) -> pathlib.Path:
        """The file of a backup. Raises OperationFailed when it is not there any more."""
        path = self.store.path(known.id)
        if not path.is_file() or path.stat().st_size != known.bytes:
            raise errors.OperationFailed(f"The file of the backup {known.id} is gone, or is another one.", hint="delete the backup")
        return path

    def _reach(self, known: backup_store.Backup) -> float | None:
        chain = self.store.chain(known.history, known.seqno) if known.history else []
        return float(chain[-1].end) if chain else None

    @staticmethod
    def _following(schedule: str) -> float:
        return schedules.following(schedule, datetime.datetime.now(datetime.UTC)).timestamp()

    # The operation

    def make_backup(self, op: Operation) -> None:
        """On a member that is not the writer if there is a choice, which meanwhile holds up nobody and gets no sessions."""
        chosen, spare = self.spare_member()
        op.data["node"] = chosen.id
        op.save()
        if spare:
            self.settings[_ASIDE] = chosen.id
            client.set_health(self.agents, chosen, on=False)
            client.set_desync(self.agents, chosen, on=True)
        op.note(f"Making a backup on {chosen.id}")
        op.data["made"] = client.make_backup(self.agents, chosen)

    def unmake_backup(self, op: Operation) -> None:
        self._forget(op)
        self._release()

    def verify_backup(self, op: Operation) -> None:
        """A backup counts once it was restored."""
        op.note("Restoring the backup beside the database, and checking all tables")
        op.data["position"] = client.verify_backup(self.agents, self.answering(op.data["node"]))
        op.data["verified"] = time.time()

    def fetch_backup(self, op: Operation) -> None:
        id, made = op.args["id"], op.data["made"]
        if self.store.path(id).is_file() and file.sha256(self.store.path(id)) == made["sha256"]:
            return
        self.store.prepare(int(made["bytes"]))
        part = self.store.part(id)
        client.fetch_backup(self.agents, self.answering(op.data["node"]), part)
        if file.sha256(part) != made["sha256"]:
            raise errors.OperationFailed("The backup was damaged on its way from the member.", hint="make another one")
        self.store.keep(part, id)

    def drop_backup(self, op: Operation) -> None:
        self.store.delete(op.args["id"])

    def record_backup(self, op: Operation) -> None:
        made, position = op.data["made"], op.data["position"]
        known = {name: position[name] for name in ("seqno", "gtid", "binlog", "version", "tables")}
        self.store.put(
            backup_store.Backup(
                id=op.args["id"],
                time=float(made["time"]),
                bytes=int(made["bytes"]),
                sha256=made["sha256"],
                origin=backup_store.MADE,
                history=made["uuid"],
                verified=op.data["verified"],
                **known,
            )
        )

    def tidy_backup(self, op: Operation) -> None:
        """The backup is there: what is left to do now cannot make it fail."""
        self._forget(op)
        self._release()
        for gone in self.store.prune(int(self.get_backup_schedule()["keep"])):
            op.note(f"The backup {gone} is deleted, there are enough newer ones")
        self.store.prune_logs()
        self.store.tidy(self._arriving)

    def spare_member(self) -> tuple[node.ServiceNode, bool]:
        """The member to have extra work, and whether another one goes on meanwhile. Raises OperationFailed when none can.

        Agents that do not answer are given some time, as they may only restart.
        """
        own = self.members_in_order()
        deadline = time.monotonic() + self.patience
        while True:
            looks = self.cluster.glance(own)
            synced = [one for one in own if _is_synced(looks[one.id])]
            silent = any(isinstance(look, errors.Unreachable) for look in looks.values())
            if not silent or time.monotonic() >= deadline:
                break
            time.sleep(agents.RETRY_PAUSE)
        if not synced:
            raise errors.OperationFailed("No member of the cluster takes requests now.")
        return synced[-1], len(synced) > 1

    def _forget(self, op: Operation) -> None:
        """What stays on the member takes room there only until the next backup."""
        try:
            client.forget_backup(self.agents, self.get_node(op.data.get("node", "")))
        except errors.ConPaaSError as error:
            log.warning("the backup stays on the disk of the member for now: %s", error)

    def _release(self) -> None:
        """Have the member that was set aside serve again; if that cannot be done now, housekeeping tries again."""
        aside = self.settings.get(_ASIDE)
        chosen = next((one for one in self.nodes if one.id == aside), None)
        if chosen is not None:
            try:
                client.set_desync(self.agents, chosen, on=False)
                client.set_health(self.agents, chosen, on=True)
            except errors.ConPaaSError as error:
                log.warning("the member %s stays out of service for now: %s", chosen.id, error)
                return
        if aside is not None:
            del self.settings[_ASIDE]

    # Seeing to it

    def tend_backups(self) -> None:
        """From housekeeping, while the service runs and nothing else is under way."""
        self._release()
        plan = self.get_backup_schedule()
        if plan["next"] is not None and time.time() >= plan["next"]:
            try:
                self._begin_backup("schedule")
            except errors.WrongState:
                return  # somebody was faster; it is still due
            if self.get_backup_schedule() == plan:  # nobody has set another one meanwhile
                self.settings[_SCHEDULE] = {**plan, "next": self._following(plan["schedule"])}
            return
        if time.monotonic() >= self._logs_due:
            self._logs_due = time.monotonic() + self._log_period
            try:
                self.fetch_logs()
            except errors.ConPaaSError as error:
                log.warning("the binary logs cannot be fetched now: %s", error)

    def fetch_logs(self) -> None:
        """Fetch what was committed since the newest backup or log, if there is a backup to begin from."""
        history = self.memory.uuid
        covered = self.store.covered(history) if history else None
        if history is None or covered is None:
            return
        source, _ = self.spare_member()
        for told in client.close_binlogs(self.agents, source, covered):
            after, last = int(told["after"]), int(told["last"])
            if after > covered:
                log.warning("the transactions %d to %d are in no binary log any more", covered + 1, after)
            covered = last
            if self.store.has_log(history, after, last):
                continue
            part = self.store.log_part(history)
            self.store.prepare(int(told["bytes"]))
            client.fetch_binlog(self.agents, source, str(told["name"]), part)
            self.store.add_log(history, part, after, last, int(told["end"]))


def _is_synced(look: Any) -> bool:
    return not isinstance(look, errors.ConPaaSError) and members.is_synced(look)


def new_id() -> str:
    """The id of a backup: its second in UTC, and something that no other one has."""
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
