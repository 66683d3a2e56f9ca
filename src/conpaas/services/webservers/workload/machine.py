"""How much of the machine an nginx takes."""

from __future__ import annotations

import dataclasses
import os
import resource
from typing import Final

MAX_WORKERS: Final = 16
MAX_WORKERS_SHARED: Final = 2
_OPEN_FILES: Final = 65_536
_CONNECTIONS: Final = 8192


@dataclasses.dataclass(frozen=True)
class Share:
    """Worker processes, and open files and connections of each."""

    workers: int
    open_files: int
    connections: int


def share(*, shared: bool, workers: int = 0) -> Share:
    """As many workers as processors, bounded; few when several nodes share the machine. `workers` other than 0 is somebody's own choice."""
    bound = MAX_WORKERS_SHARED if shared else MAX_WORKERS
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    # Each connection of a client may need one to a backend and an open file.
    return Share(workers or min(len(os.sched_getaffinity(0)), bound), files, min(_CONNECTIONS, files // 2))
