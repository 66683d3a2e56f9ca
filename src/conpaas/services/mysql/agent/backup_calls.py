"""The calls of a member for backups, and for restoring them."""

from __future__ import annotations

from typing import Any, Final

from conpaas.core import config, expose, params, rpc
from conpaas.services.mysql.agent import backups, database_calls, member
from conpaas.services.mysql.workload import backup

_AFTER: Final = params.Param("after", params.Integer(minimum=0), 0, help="The transaction of the cluster after which to begin.")
_SECONDS: Final = params.Integer(minimum=0)


class BackupCalls(database_calls.DatabaseCalls):
    """Backups."""

    def __init__(self, configuration: config.Config) -> None:
        super().__init__(configuration)
        get = configuration.get
        tools = backup.Tools(
            get(member.SECTION, "MARIABACKUP", backup.Tools.mariabackup),
            get(member.SECTION, "MBSTREAM", backup.Tools.mbstream),
            get(member.SECTION, "ZSTD", backup.Tools.zstd),
        )
        own = self._database
        mariadbd = get(member.SECTION, "MARIADBD", member.MARIADBD)
        self._backups = backups.Backups(tools, mariadbd, lambda: own.layout, lambda: own.account, own.is_stopped)

    @expose.expose("POST")
    def make_backup(self) -> dict[str, Any]:
        """Write a backup of the running server into a file of this node."""
        return self._backups.make()

    @expose.expose("POST")
    def verify_backup(self) -> dict[str, Any]:
        """Restore the backup that was made here beside everything else, and check all of its tables."""
        return self._backups.verify()

    @expose.expose("GET")
    def download_backup(self) -> rpc.FileDownload:
        """Send the backup that was made here."""
        return self._backups.download()

    @expose.expose("POST")
    def forget_backup(self) -> None:
        """Remove the backup that was made here."""
        self._backups.forget()

    @expose.expose("POST", _AFTER)
    def close_binlogs(self, after: int) -> dict[str, Any]:
        """Close the binary log that is being written, and list those with later transactions."""
        return {"binlogs": self._backups.binlogs(after)}

    @expose.expose("GET", params.Param("name", params.Text(max_length=64, non_empty=True), help="The name of a closed binary log."))
    def download_binlog(self, name: str) -> rpc.FileDownload:
        """Send a closed binary log."""
        return self._backups.download_binlog(name)

    @expose.expose("UPLOAD", params.Param("backup", params.Upload(), help="A backup."))
    def prepare_restore(self, backup: params.UploadedFile) -> dict[str, Any]:
        """Make data of a backup beside those in use, and check all of its tables."""
        return self._backups.prepare_restore(backup.path)

    @expose.expose(
        "UPLOAD",
        params.Param("log", params.Upload(), help="A binary log."),
        params.Param("number", params.Integer(minimum=0, maximum=999_999), help="Its place among the logs of this restore."),
    )
    def add_binlog(self, log: params.UploadedFile, number: int) -> None:
        """Take a binary log that is to be carried out on restored data."""
        self._backups.add_binlog(log.path, number)

    @expose.expose("POST", _AFTER, params.Param("until", _SECONDS, None, help="The second (UTC, since 1970) before which to end."))
    def replay_binlogs(self, after: int, until: int | None) -> dict[str, Any]:
        """Carry out the binary logs on the restored data; tells the last transaction that they have then."""
        return {"seqno": self._backups.replay(after, until)}

    @expose.expose("POST", params.Param("on", params.Boolean(), help="Yes: the restored data; no: the former ones."))
    def swap_restored(self, on: bool) -> None:
        """Put the restored data in the place of those of the stopped server, or the former ones back."""
        self._backups.swap(on)

    @expose.expose("POST")
    def discard_restore(self) -> None:
        """Remove what a restore has left."""
        self._backups.discard()
