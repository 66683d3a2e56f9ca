"""The part of the page of a mysql service that is about backups."""

from __future__ import annotations

from typing import Final

from conpaas.core.pages import WORKING, Action, Buttons, Download, Facts, Field, Form, Panel, Table, Value

BACKUP_LIMIT: Final = 50_000_000_000

BACKUPS = Panel(
    "Backups",
    (
        Table(
            "list_backups",
            "backups",
            (
                Value("id", "Backup", "code"),
                Value("time", "Made", "time"),
                Value("bytes", "Size", "size"),
                Value("origin", "From"),
                Value("tables", "Tables", "count"),
                Value("verified", "Restored and checked", "time"),
                Value("restorable_until", "Can be followed until", "time"),
            ),
            actions=(
                Action(
                    "restore_backup",
                    "Restore",
                    row={"id": "id"},
                    fields=(
                        Field(
                            "until",
                            "Go on until",
                            placeholder="2026-11-25 10:11:12",
                            help="UTC; what was committed before that second is brought back too. Empty: the backup only.",
                        ),
                    ),
                    loses="All databases and accounts are replaced by those of the backup; what came later is lost.",
                    typed="id",
                    states=WORKING,
                    done="The backup is being restored.",
                ),
                Download("download_backup", "Download", "backup-{id}.mbstream.zst", row={"id": "id"}),
                Action(
                    "delete_backup",
                    "Delete",
                    row={"id": "id"},
                    loses="The backup and the logs that only it needs are deleted.",
                    done="The backup is deleted.",
                ),
            ),
            empty="There are no backups. Make one, or have them made by a schedule.",
        ),
        Buttons(
            (Action("create_backup", "Make a backup", states=WORKING, done="A backup is being made; it counts once it was restored."),)
        ),
        Form(
            "By a schedule",
            Action(
                "set_backup_schedule",
                "Save",
                fields=(
                    Field(
                        "schedule",
                        "Schedule",
                        default="",
                        present="schedule",
                        placeholder="0 3 * * *",
                        help="Five fields as in crontab(5), UTC; empty: no backups by schedule.",
                    ),
                    Field(
                        "keep",
                        "Keep",
                        "number",
                        required=True,
                        minimum=1,
                        maximum=1000,
                        present="keep",
                        help="So many; older ones are deleted.",
                    ),
                ),
                done="The schedule is saved.",
            ),
            method="get_backup_schedule",
        ),
        Facts("get_backup_schedule", (Value("next", "Next one", "time"),)),
        Form(
            "Upload a backup",
            Action(
                "upload_backup",
                "Upload",
                verb="UPLOAD",
                fields=(
                    Field(
                        "backup",
                        "Backup",
                        "file",
                        required=True,
                        maximum=BACKUP_LIMIT,
                        help="What was downloaded of this or another service.",
                    ),
                ),
                done="The backup is kept; it is tried out when it is restored.",
            ),
        ),
    ),
)
