"""Processes as /proc tells them: who descends from whom, who carries a mark in its environment, and how to signal them."""

from __future__ import annotations

import os
import pathlib
import signal
from collections.abc import Iterable

PROC = pathlib.Path("/proc")


def parents() -> dict[int, int]:
    """The parent of every process that exists now, zombies left out."""
    found: dict[int, int] = {}
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        state, parent = text.rpartition(")")[2].split()[:2]
        if state not in ("Z", "X"):
            found[int(entry.name)] = int(parent)
    return found


def descendants(root: int) -> set[int]:
    """Every process below `root`, `root` itself left out."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents().items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    waiting = list(children.get(root, ()))
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting.extend(children.get(pid, ()))
    return found


def with_mark(name: str, value: str) -> set[int]:
    """Processes started with `name=value` in their environment; an ordinary user sees only its own."""
    mark = f"{name}={value}".encode()
    found: set[int] = set()
    for pid in parents():
        if pid == os.getpid():
            continue
        try:
            environment = (PROC / str(pid) / "environ").read_bytes()
        except OSError:
            continue
        if mark in environment.split(b"\0"):
            found.add(pid)
    return found


def users_of(directory: pathlib.Path) -> dict[int, str]:
    """Processes (pid → command line) that have a file of `directory` open, or stand in it."""
    top = os.path.realpath(directory)
    return {pid: command_line(pid) for pid in parents() if any(_inside(path, top) for path in _open_paths(pid))}


def command_line(pid: int) -> str:
    """The command line of a process in one line, at most 200 characters; empty if it is gone."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return ""
    return raw.replace(b"\0", b" ").decode("utf-8", "replace").strip()[:200]


def send(pids: Iterable[int], signum: signal.Signals) -> None:
    """Signal each of `pids`; one that is gone meanwhile is fine, one that belongs to somebody else is left alone."""
    for pid in pids:
        try:
            os.kill(pid, signum)
        except (ProcessLookupError, PermissionError):
            continue


def _open_paths(pid: int) -> list[str]:
    home = PROC / str(pid)
    paths = []
    try:
        links = [home / "cwd", home / "root", *(home / "fd").iterdir()]
    except OSError:
        return []
    for link in links:
        try:
            paths.append(str(link.readlink()))
        except OSError:
            continue
    return paths


def _inside(path: str, top: str) -> bool:
    return path == top or path.startswith(top + "/")
