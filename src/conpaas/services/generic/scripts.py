"""The five scripts of an application: their names, who may ask for them, and how long they may take."""

from __future__ import annotations

import enum
import shlex

from conpaas.core import errors


class Script(enum.StrEnum):
    """A script at the top of a code version, named as the command that runs it."""

    INIT = "init"
    NOTIFY = "notify"
    RUN = "run"
    INTERRUPT = "interrupt"
    CLEANUP = "cleanup"

    @property
    def filename(self) -> str:
        """The script's file at the top of the code version."""
        return f"{self.value}.sh"

    @property
    def leaves_daemons(self) -> bool:
        """True if processes it leaves behind belong to the code version (they end with it), not to the run of the script."""
        return self in (Script.INIT, Script.NOTIFY)


USER_COMMANDS = (Script.RUN, Script.INTERRUPT, Script.CLEANUP)

NO_LIMIT = 0.0
DEFAULT_TIME_LIMITS: dict[str, float] = {
    Script.INIT: 600.0,
    Script.NOTIFY: 600.0,
    Script.RUN: NO_LIMIT,
    Script.INTERRUPT: 600.0,
    Script.CLEANUP: 600.0,
}

NOTIFY_PATIENCE = 15.0
"""Seconds that a request for another script waits for a notify.sh under way, which nobody asked for by hand, before it is refused."""

NEVER_STARTED = "NEVER STARTED"
RUNNING = "RUNNING"


def stopped(return_code: int) -> str:
    """The status text of a script that ended; a negative code is the number of the signal that killed it."""
    return f"STOPPED (return code {return_code})"


def split(parameters: str) -> list[str]:
    """The words of `parameters`, quotes honoured as in a shell. Raises InvalidArgument naming what is malformed."""
    try:
        return shlex.split(parameters)
    except ValueError as error:
        raise errors.InvalidArgument(f"Parameter 'parameters': {parameters[:200]!r} cannot be split into words ({error}).") from error
