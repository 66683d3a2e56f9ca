"""What the kernel tells about processes: who belongs together, memory; and runit's view of a daemon."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator

_RUNSVDIR = 'echo $$ >"$0/.runsvdir.pid"; touch -d @1000000000 "$0"; exec runsvdir -P "$0" "log: $(printf \'%0400d\' 0)"'


@dataclasses.dataclass(frozen=True, order=True)
class Memory:
    """Megabytes: resident, and proportional (what is shared counts by its share)."""

    rss: float
    pss: float


def tree(root: int) -> list[int]:
    """A process and all its descendants, the process first."""
    children: dict[int, list[int]] = defaultdict(list)
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            children[int(stat.read_text().rpartition(")")[2].split()[1])].append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found += children[pid]
    return found


def memory(pids: Iterable[int]) -> Memory:
    """What these processes have together."""
    total = {"Rss": 0, "Pss": 0}
    for pid in pids:
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, _, value = line.partition(":")
            if name in total:
                total[name] += int(value.split()[0])
    return Memory(total["Rss"] * 1024 / 1e6, total["Pss"] * 1024 / 1e6)


def cpu_ns(root: int, programs: tuple[str, ...]) -> int:
    """Nanoseconds that the processes below `root` whose names begin so have used, with those of them that have ended."""
    tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    total = 0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            process = pathlib.Path(f"/proc/{pid}")
            if (process / "comm").read_text().startswith(programs):
                ended = (process / "stat").read_text().rpartition(")")[2].split()[13:15]
                total += int((process / "schedstat").read_text().split()[0]) + sum(map(int, ended)) * tick
    return total


def cpu_seconds(roots: Iterable[int]) -> float:
    """Seconds that these processes and all below them have used, with all their threads, also those that have ended."""
    total = 0
    for root in roots:
        for pid in tree(root):
            with contextlib.suppress(OSError):
                total += sum(map(int, pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


def guard_of(vm: pathlib.Path) -> int:
    """The process on the host that keeps a VM of the dummy cloud together."""
    return int((vm / "pid").read_text())


def daemon_of(vm: pathlib.Path) -> int:
    """The manager or the agent of a VM of the dummy cloud, as the host numbers it."""
    for pid in tree(guard_of(vm)):
        if b"_daemon\0" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise SystemExit(f"no daemon runs in {vm}")


def supervised(service: pathlib.Path) -> int | None:
    """The process id of a daemon, as its runsv numbers it; None while it does not run."""
    content = (service / "supervise" / "status").read_bytes()
    return int.from_bytes(content[12:16], "little") or None if len(content) == 20 and content[19] == 1 else None


def kill(pid: int) -> None:
    """End a process as a crash would."""
    os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def runsvdir(services: pathlib.Path) -> Iterator[None]:
    """A supervisor over a service directory, as the boot of a VM starts it; what it runs should be removed before it ends."""
    process = subprocess.Popen(["sh", "-c", _RUNSVDIR, str(services)], stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        process.send_signal(signal.SIGHUP)
        process.wait()
