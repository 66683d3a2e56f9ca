"""A daemon's numbers in the Prometheus text format: what the process uses, and what its parts count."""

from __future__ import annotations

import logging
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[tuple[str, str], ...]
Sample = tuple[str, Labels, float]
"""Name (`_total` at its end marks a counter), labels, value."""

_log = logging.getLogger(__name__)
_started = time.time()
_collectors: list[Callable[[], Iterable[Sample]]] = []


class Counter:
    """A count that only grows, by labels. Safe to use from several threads."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._guard = threading.Lock()
        self._values: dict[Labels, float] = {}
        collect(self.samples)

    def add(self, amount: float = 1.0, **labels: str) -> None:
        key = tuple(sorted(labels.items()))
        with self._guard:
            self._values[key] = self._values.get(key, 0.0) + amount

    def samples(self) -> list[Sample]:
        with self._guard:
            return [(self._name, labels, value) for labels, value in self._values.items()]


def collect(source: Callable[[], Iterable[Sample]]) -> None:
    """Have `source()` asked at every reading; it should be quick."""
    _collectors.append(source)


def process_samples() -> list[Sample]:
    """What every process tells of itself."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    times = os.times()
    return [
        ("process_resident_memory_bytes", (), float(pages * os.sysconf("SC_PAGE_SIZE"))),
        ("process_cpu_seconds_total", (), round(times.user + times.system, 3)),
        ("process_start_time_seconds", (), round(_started, 3)),
        ("process_open_fds", (), float(len(os.listdir("/proc/self/fd")))),  # noqa: PTH208 - one system call
        ("process_threads", (), float(threading.active_count())),
    ]


def render() -> str:
    """All samples as one page."""
    by_name: dict[str, list[str]] = {}
    for source in (process_samples, *_collectors):
        for name, labels, value in _asked(source):
            shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
            number = int(value) if float(value).is_integer() else value
            by_name.setdefault(name, []).append(f"{name}{{{shown}}} {number}" if shown else f"{name} {number}")
    lines = []
    for name, samples in by_name.items():
        lines.append(f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}")
        lines.extend(samples)
    return "\n".join(lines) + "\n"


def _asked(source: Callable[[], Iterable[Sample]]) -> list[Sample]:
    """What one source tells; nothing, and a line in the log, when it fails: the page is wanted most when something is broken."""
    try:
        return list(source())
    except Exception:  # noqa: BLE001 - whatever a part of the daemon raises
        _log.exception("some numbers of this daemon cannot be had")
        return []


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
