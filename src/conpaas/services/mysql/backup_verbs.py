"""The verbs of the command line for backups."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any, Final

SETTLED: Final = ("RUNNING",)
_TIMEOUT: Final = 6 * 3600.0
_COLUMNS: Final = ("id", "time", "bytes", "origin", "tables", "verified", "restorable_until")
_ACTIONS: Final = ("list", "make", "delete", "download", "upload", "schedule")
_OFF: Final = "off"


def add(group: Any) -> None:
    """Add the verbs `backup` and `restore`."""
    action = group.argument("action", choices=_ACTIONS, required=False, help="What to do; list by default.")
    word = group.argument("word", required=False, help="The id of a backup, the file to upload, or a schedule (five fields as in crontab).")
    to = group.option("--to", kind="output", help="The file to write; backup-ID.mbstream.zst by default.")
    keep = group.option("--keep", help="How many backups are kept, for schedule.")

    @group.verb("backup", action, word, to, keep)
    def backup(service: Any, action: str | None, word: str | None, to: str | None, keep: str | None) -> None:
        """Make, list, delete, download or upload backups, and have them made by a schedule."""
        chosen = action or "list"
        if chosen == "make":
            service.change("Making a backup", lambda: service.post("create_backup"), until=SETTLED)
        elif chosen == "list":
            _list(service)
        elif chosen == "schedule":
            _schedule(service, word, keep)
        elif word is None:
            service.fail("Say which file to upload." if chosen == "upload" else f"Say which backup to {chosen}.")
        elif chosen == "download":
            _download(service, word, to)
        else:
            _SIMPLE[chosen](service, word)

    id = group.argument("backup", required=False, help="The id of a backup; by default the newest one that will do.")
    until = group.option("--until", help="Go on to the begin of this second, UTC, as '2026-11-25 10:11:12'.")

    @group.verb("restore", id, until)
    def restore(service: Any, backup: str | None, until: str | None) -> None:
        """Replace all databases and accounts by those of a backup, or by what they were at a second."""
        what = f"the backup {backup}" if backup else "the newest backup" if until is None else "a backup"
        service.confirm(f"Replace all databases and accounts by {what}" + (f" and what came later, until {until} UTC?" if until else "?"))
        wanted = {"id": backup or "latest", **({"until": until} if until else {})}
        service.change("Restoring the databases", lambda: service.post("restore_backup", **wanted), until=SETTLED)


def _list(service: Any) -> None:
    found = [one for one in service.field(service.get("list_backups"), "backups", list) if isinstance(one, Mapping)]
    rows = [{**one, **{name: _shown(one.get(name)) for name in ("time", "verified", "restorable_until")}} for one in found]
    service.table(_COLUMNS, rows, "No existing backups.", found)


def _shown(second: Any) -> str:
    if not isinstance(second, int | float):
        return ""
    return f"{datetime.datetime.fromtimestamp(second, datetime.UTC):%Y-%m-%d %H:%M:%S}"


def _schedule(service: Any, schedule: str | None, keep: str | None) -> None:
    if schedule is None and keep is not None:
        service.fail("Say by which schedule.", "'0 3 * * *' for every night at three, UTC, or off")
    if keep is not None and not keep.isdecimal():
        service.fail(f"--keep must be a whole number, not '{keep}'.")
    if schedule is None:
        reply = service.get("get_backup_schedule")
    else:
        number = {"keep": int(keep)} if keep is not None else {}
        reply = service.post("set_backup_schedule", schedule="" if schedule == _OFF else schedule, **number)
    told = {**reply, "schedule": reply.get("schedule") or _OFF, "next": _shown(reply.get("next")) or "never"}
    service.pairs(told)


def _delete(service: Any, id: str) -> None:
    service.confirm(f"Delete the backup {id}?")
    service.post("delete_backup", id=id)
    service.show(f"Backup {id} deleted.", {"backup": id})


def _upload(service: Any, filename: str) -> None:
    reply = service.field(service.upload("upload_backup", {"backup": filename}, _timeout=_TIMEOUT), "backup", dict)
    service.show(f"Backup {reply.get('id')} uploaded.", reply)


def _download(service: Any, id: str, to: str | None) -> None:
    target = to or f"backup-{''.join(one for one in id if one.isalnum() or one in '-_')}.mbstream.zst"
    service.download("download_backup", target, _timeout=_TIMEOUT, id=id)
    if target != "-":
        service.show(f"File '{target}' written.", {"file": target})


_SIMPLE: Final[Mapping[str, Callable[[Any, str], None]]] = {"delete": _delete, "upload": _upload}
