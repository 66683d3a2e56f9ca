"""What the page of a generic service shows, beyond what all services have."""

from __future__ import annotations

from typing import Final

from conpaas.core import code_page
from conpaas.core.pages import (
    NODES,
    SID,
    WORKING,
    Action,
    Field,
    Form,
    Page,
    Panel,
    Role,
    Table,
    Text,
    Value,
    View,
)
from conpaas.services.generic import scripts

_NAMES: Final = tuple(script.filename for script in scripts.Script)
_YEAR: Final = 365 * 86_400


def _run(command: str, label: str, help: str, done: str) -> Form:
    fields = (
        Field("parameters", "Parameters", help="Arguments of the script, in one text; quotes are honoured as in a shell."),
        Field("timeLimit", "Time limit", "number", minimum=0, maximum=_YEAR, unit="s", help="Empty: as set below; 0: none."),
        Field("agentIds", "Only on", "several", choices_from=NODES, help="None chosen: on all nodes."),
    )
    return Form(
        f"{command}.sh", Action("execute_script", label, fields=fields, fixed={"command": command}, states=WORKING, done=done, help=help)
    )


SCRIPTS = Panel(
    "Scripts",
    (
        Table(
            "get_script_status",
            "agents",
            (Value("key", "Node", "code"), *(Value(name, name, "state") for name in _NAMES)),
            states=WORKING,
            empty="No node runs scripts.",
            title="Now",
        ),
        _run("run", "Run", "Starts run.sh on the nodes.", "run.sh is started."),
        _run(
            "interrupt",
            "Interrupt",
            "Runs interrupt.sh, which ends what runs; while that runs, asked again, it kills all scripts.",
            "Interrupting.",
        ),
        _run("cleanup", "Clean up", "Starts cleanup.sh on the nodes.", "cleanup.sh is started."),
    ),
    help="Five scripts in the enabled code version; the platform runs init.sh and notify.sh by itself.",
)

RUNS = Panel(
    "Runs",
    (
        Table(
            "list_runs",
            "runs",
            (
                Value("run_id", "Run", "code"),
                Value("script", "Script"),
                Value("parameters", "Parameters", "code"),
                Value("state", "State", "state"),
                Value("exit_code", "Exit code"),
                Value("requested", "Asked for", "time"),
                Value("codeVersionId", "Code", "code"),
            ),
            actions=(
                View(
                    "get_script_output",
                    "Output",
                    "output",
                    row={"run": "run_id"},
                    fields=(
                        Field("agentId", "Node", "choice", choices_from=NODES, required=True),
                        Field("stream", "Stream", "choice", choices=("stdout", "stderr"), default="stdout"),
                    ),
                    states=WORKING,
                ),
            ),
            empty="No script was run yet.",
        ),
    ),
)

LIMITS = Panel(
    "Time limits",
    (
        Table(
            "get_time_limits",
            "limits",
            (Value("key", "Script"), Value("value", "Limit", "seconds", help="0: none")),
            actions=(
                Action(
                    "set_time_limits",
                    "Change",
                    row={"name": "key"},
                    fields=(Field("value", "Seconds", "number", required=True, minimum=0, maximum=_YEAR, unit="s", help="0: no limit."),),
                    entry="limits",
                    done="The limit is changed, for scripts that are started from now on.",
                ),
            ),
        ),
    ),
)

VOLUMES = Panel(
    "Volumes",
    (
        Table(
            "list_volumes",
            "volumes",
            (
                Value("vol_name", "Name", "code"),
                Value("vol_size", "Size", "megabytes"),
                Value("vm_id", "Node", "code"),
                Value("cloud", "Cloud"),
            ),
            actions=(
                Action(
                    "delete_volume",
                    "Delete",
                    application=True,
                    row={"volumeName": "vol_name"},
                    loses="The volume and all that is on it are destroyed.",
                    typed="vol_name",
                    unless="kept",
                    states=WORKING,
                    done="The volume is being deleted.",
                ),
            ),
            fixed={"service_id": SID},
            application=True,
            verb="POST",
            empty="There are no volumes. A volume is a disk of one node, mounted there for your scripts.",
        ),
        Form(
            "Create a volume",
            Action(
                "create_volume",
                "Create",
                application=True,
                fields=(
                    Field("volumeName", "Name", required=True, maximum=64, help="Letters, digits, - and _."),
                    Field("volumeSize", "Size", "number", required=True, minimum=1, default=1024, unit="MB"),
                    Field("agentId", "Node", "choice", choices_from=NODES, required=True),
                ),
                states=WORKING,
                done="The volume is being created.",
            ),
        ),
    ),
)

PAGE = Page(
    panels=(
        SCRIPTS,
        RUNS,
        code_page.versions(
            "enable_code",
            Text(f"An archive has {', '.join(_NAMES[:-1])} and {_NAMES[-1]} at its top; those that are missing are not run."),
        ),
        code_page.git(),
        VOLUMES,
        LIMITS,
    ),
    roles=(Role("master", "Master", "There is exactly one.", minimum=1, scalable=False), Role("node", "Nodes", "Beside the master.")),
    loses="What programs wrote on the nodes' own disks is gone; volumes that belong to nodes go with them.",
    next_step="Upload an archive with your scripts, enable it, and start the service.",
)
