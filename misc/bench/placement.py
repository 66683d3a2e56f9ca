"""Which cores work for whom while servers are measured: all of them for everybody, or one for those that answer."""

from __future__ import annotations

import contextlib
import enum
import os
import pathlib
from collections.abc import Collection, Iterable, Iterator

import processes


class Placement(enum.Enum):
    """`OWN`: servers that answer have the last core, as if they had a machine of their own; clients, load balancers and members that only
    follow have the others. `SHARED`: all have all cores, as on one machine."""

    OWN = "own cores"
    SHARED = "shared cores"


@contextlib.contextmanager
def placed(placement: Placement, servers: Iterable[int], others: Iterable[int]) -> Iterator[None]:
    """Have these processes and all below them, and this thread with what it starts, on the cores where they belong; at the end, on all."""
    every = os.sched_getaffinity(0)
    if placement is Placement.SHARED:
        yield
        return
    *rest, last = sorted(every)
    if not rest:
        raise SystemExit("servers with a core of their own need a machine of two cores at least")
    servers, others = tuple(servers), tuple(others)
    try:
        _pin(others, rest)
        _pin(servers, {last})
        os.sched_setaffinity(0, rest)
        yield
    finally:
        os.sched_setaffinity(0, every)
        _pin((*servers, *others), every)


def _pin(roots: Iterable[int], cores: Collection[int]) -> None:
    for root in roots:
        for pid in processes.tree(root):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
                    os.sched_setaffinity(int(thread.name), cores)
