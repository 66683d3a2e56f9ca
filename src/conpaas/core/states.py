"""The states a service passes through."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from conpaas.core import errors


class State(enum.StrEnum):
    """The state of a service."""

    INIT = "INIT"
    PROLOGUE = "PROLOGUE"
    RUNNING = "RUNNING"
    ADAPTING = "ADAPTING"
    EPILOGUE = "EPILOGUE"
    STOPPED = "STOPPED"
    ERROR = "ERROR"


STABLE = (State.INIT, State.RUNNING, State.STOPPED, State.ERROR)
"""States a service stays in; the others end with the operation that set them."""


def wrong_state(allowed: Iterable[str], current: str) -> errors.WrongState:
    """The classic refusal."""
    return errors.WrongState(
        f"Wrong service state: was expecting one of {[str(state) for state in allowed]} but current state is '{current}'"
    )
