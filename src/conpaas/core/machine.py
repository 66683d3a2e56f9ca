"""What the machine that a node lives on has and does: processors, memory, disk and network, as the kernel counts them.

On a cloud of driver `dummy` all nodes share one machine, and all tell the same.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

_WINDOW: Final = 1.0
"""Rates are over at least so many seconds, however often somebody looks."""
_IDLE: Final = (3, 4)
"""Fields of a line of /proc/stat, after its name, that are time without work: idle, and idle while a disk is waited for."""
_COUNTED: Final = 8
"""Fields of it that add up to all time; those of guests are in the others."""
_RECEIVED, _PACKETS_IN, _SENT, _PACKETS_OUT = 0, 1, 8, 9


@dataclasses.dataclass(frozen=True)
class Sample:
    """The counters at one moment (monotonic seconds, which begin when the machine does)."""

    when: float
    idle: float = 0
    busy: float = 0
    bytes_in: float = 0
    bytes_out: float = 0
    packets_in: float = 0
    packets_out: float = 0


class Machine:
    """Looks at this machine; `disk` is a directory on the disk that counts. Thread-safe."""

    def __init__(self, disk: pathlib.Path, proc: pathlib.Path = pathlib.Path("/proc"), now: Callable[[], float] = time.monotonic) -> None:
        self._disk = disk
        self._proc = proc
        self._now = now
        self._lock = threading.Lock()
        self._samples: tuple[Sample, Sample] | None = None

    def figures(self) -> dict[str, Any]:
        """`cpu_idle` in percent, memory and disk in bytes, the network a second; at the first look since the machine was started."""
        before, now = self._two(self._sample())
        seconds = max(now.when - before.when, 0.001)
        idle, busy = max(now.idle - before.idle, 0.0), max(now.busy - before.busy, 0.0)
        rates = {
            name: round(max(getattr(now, name) - getattr(before, name), 0.0) / seconds, 3)
            for name in ("bytes_in", "bytes_out", "packets_in", "packets_out")
        }
        room = os.statvfs(self._disk)
        return {
            "cpu_idle": round(100 * idle / (idle + busy), 2) if idle + busy else 100.0,
            **self._memory(),
            "disk_free": room.f_bavail * room.f_frsize,
            "disk_total": room.f_blocks * room.f_frsize,
            **rates,
        }

    def _two(self, sample: Sample) -> tuple[Sample, Sample]:
        """Two samples to compare; both stay until the newer one is a window old."""
        with self._lock:
            if self._samples is None:
                self._samples = (Sample(0.0), sample)
            elif sample.when - self._samples[1].when >= _WINDOW:
                self._samples = (self._samples[1], sample)
            return self._samples

    def _sample(self) -> Sample:
        times = [float(one) for one in self._read("stat").splitlines()[0].split()[1 : 1 + _COUNTED]]
        idle = sum(times[index] for index in _IDLE)
        network = [0.0, 0.0, 0.0, 0.0]
        for line in self._read("net/dev").splitlines()[2:]:
            name, _, counters = line.partition(":")
            if name.strip() != "lo":
                values = counters.split()
                for index, field in enumerate((_RECEIVED, _SENT, _PACKETS_IN, _PACKETS_OUT)):
                    network[index] += float(values[field])
        return Sample(self._now(), idle, sum(times) - idle, *network)

    def _memory(self) -> dict[str, int]:
        """Bytes; what programs could have at once counts as free."""
        lines = dict(line.split(":", 1) for line in self._read("meminfo").splitlines())
        return {"memory_free": int(lines["MemAvailable"].split()[0]) * 1024, "memory_total": int(lines["MemTotal"].split()[0]) * 1024}

    def _read(self, name: str) -> str:
        return (self._proc / name).read_text(encoding="ascii")


def together(figures: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """What the machines of several nodes do: `cpu`, `memory` and `disk` in use, means in percent; `received` and `sent`, sums in KB/s.

    Nobody knows (None) when there are none.
    """
    if not figures:
        return dict.fromkeys(("cpu", "memory", "disk", "received", "sent"))

    def mean(used: Callable[[Mapping[str, Any]], float]) -> float:
        return round(sum(used(one) for one in figures) / len(figures), 2)

    return {
        "cpu": mean(lambda one: 100 - float(one["cpu_idle"])),
        "memory": mean(lambda one: _used(one, "memory")),
        "disk": mean(lambda one: _used(one, "disk")),
        "received": round(sum(float(one["bytes_in"]) for one in figures) / 1024, 3),
        "sent": round(sum(float(one["bytes_out"]) for one in figures) / 1024, 3),
    }


def _used(one: Mapping[str, Any], what: str) -> float:
    return 100 * (1 - float(one[f"{what}_free"]) / max(1.0, float(one[f"{what}_total"])))
