"""The guard of a VM of the dummy cloud where PID namespaces are refused: no process of the VM outlives it.

Run as a program: `session.py <lose after seconds, 0 = never> <descriptors to close in the VM, comma separated> command…`. It makes
itself the reaper of everything that descends from the command (PR_SET_CHILD_SUBREAPER), so that a daemon cannot leave the VM by double
forking. When the command ends, or SIGTERM comes, it freezes and kills all descendants until there is none, and exits.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time

PR_SET_CHILD_SUBREAPER = 36
WAKE_UP = 0.05


def main(arguments: list[str]) -> int:
    """Runs the command of a VM until it ends or until SIGTERM; then ends every process of the VM."""
    lose_after, descriptors, command = float(arguments[0]), arguments[1].split(","), arguments[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        print(f"cannot guard the processes of this VM: {os.strerror(ctypes.get_errno())}", flush=True)
        return 1
    awaited = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    child = os.fork()
    if child == 0:
        _become(command, [int(text) for text in descriptors if text])
    _wait(child, awaited, lose_after)
    while pids := descendants(os.getpid()):
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        signal.sigtimedwait({signal.SIGCHLD}, WAKE_UP)
        _reap()
    return 0


def children() -> dict[int, list[int]]:
    """The living children of every process, by its id."""
    found: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 (pathlib would double the start-up time)
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as stat:  # noqa: PTH123
                state, parent = stat.read().rpartition(b")")[2].split()[:2]
                if state not in b"ZX":
                    found.setdefault(int(parent), []).append(int(name))
    return found


def descendants(ancestor: int) -> list[int]:
    """Living processes that descend from `ancestor`."""
    by_parent = children()
    found, waiting = [], [ancestor]
    while waiting:
        below = by_parent.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _become(command: list[str], descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    try:
        os.execvp(command[0], command)  # noqa: S606 (there is no shell to start)
    finally:
        os._exit(127)


def _wait(child: int, awaited: set[signal.Signals], lose_after: float) -> None:
    """Returns when `child` has ended, a signal asks for the end, or the time is over."""
    deadline = time.monotonic() + lose_after
    while True:
        left = deadline - time.monotonic() if lose_after else 3600.0
        if left <= 0:
            return
        received = signal.sigtimedwait(awaited, left)
        if received is None:
            continue
        if received.si_signo != signal.SIGCHLD or child in _reap():
            return


def _reap() -> set[int]:
    """Takes leave of every child that has ended; returns their ids."""
    ended = set()
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended.add(pid)
    return ended


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
