"""How much data a node has, and how far a transfer of data has come."""

from __future__ import annotations

import os
import pathlib
import re
import threading
import time
from collections.abc import Iterator
from typing import Final

_AGE: Final = 10.0
"""Seconds for which a measurement holds."""
_ENTRIES: Final = 200_000
_OWN: Final = re.compile(r"galera\.cache|gcache\.page\.\d+|ib_logfile\d+|mysql-bin\..*|ibtmp1")
_METHOD: Final = re.compile(r"WSREP_SST: \[INFO\] (\w+) (SST|IST) started on joiner")
_IST: Final = re.compile(r"Receiving IST\.\.\. *([0-9.]+)% ")
_DONE: Final = re.compile(r"WSREP_SST: \[INFO\] (\w+) (SST|IST) completed on joiner")


class Footprint:
    """The size of what a new member would have to be sent. Measured at most every few seconds, as every file is looked at."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[pathlib.Path, tuple[float, int]] = {}

    def of(self, data: pathlib.Path) -> int:
        """In bytes; 0 when there are no data."""
        with self._lock:
            at, size = self._known.get(data, (-_AGE, 0))
            if time.monotonic() - at < _AGE:
                return size
            size = measure(data)
            self._known[data] = (time.monotonic(), size)
            return size


def measure(data: pathlib.Path) -> int:
    """The bytes of all files of a data directory that travel to a new member."""
    total = 0
    for count, entry in enumerate(_entries(data)):
        if count >= _ENTRIES:
            break
        if not _OWN.fullmatch(entry.name):
            try:
                total += entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
    return total


def transfer(data: pathlib.Path, logged: str) -> str | None:
    """What a node that joins is receiving, from what its server logged since its start; None when it is not receiving."""
    started = list(_METHOD.finditer(logged))
    if not started or _synced(logged):
        return None
    if ist := _IST.findall(logged):
        return f"what was missed, {float(ist[-1]):.0f} % so far"
    if _DONE.search(logged, started[-1].end()):
        return "the transfer is done, the server opens its data"
    return f"what is missing, by {started[-1].group(1)}; {measure(data) // 2**20} MB are here"


def _synced(logged: str) -> bool:
    return "Synchronized with group, ready for connections" in logged


def _entries(directory: pathlib.Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as found:
            entries = list(found)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _entries(pathlib.Path(entry.path))
        else:
            yield entry
