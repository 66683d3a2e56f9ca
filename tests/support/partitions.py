"""VMs of a platform that are cut off from each other, as by a broken switch: their packets vanish, their processes go on.

All VMs of the dummy cloud share the loopback interface, and what they send often has an address that tells nothing. So a VM's sockets are
told by its control group (cgroup v2), which it enters when it boots, and the packet filter of Linux (nftables) drops what one side sends
to another. That takes root, the program `nft`, and a kernel with both. Elsewhere the processes of VMs are stopped instead (SIGSTOP): to
the others that looks the same, but who is cut off notices nothing of it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence

from conpaas.core import misc
from tests.support import consistency
from tests.support import platform as platforms

_NFT_ROOT = pathlib.Path("/sys/fs/cgroup")
"""What `nft` takes paths of control groups from, wherever they are mounted."""


class Switch:
    """What the VMs of the platform with this `net` are connected by. The platform must be made with `boot`."""

    def __init__(self, net: int) -> None:
        self._net = net
        self._name = f"conpaas-test-{net}"
        self.obstacle = _obstacle()
        """Why packets cannot be filtered here; empty when they can."""
        self.dropped = 0
        """How many packets the last cut has swallowed."""

    @property
    def boot(self) -> str:
        """What a VM does at first: it enters its control group, with the process that starts all its others."""
        if self.obstacle:
            return ""
        group = f'"{_groups() / self._name}/$PRIVATE_IP"'
        return f"mkdir -p {group} && echo $PPID > {group}/cgroup.procs && echo $$ > {group}/cgroup.procs || exit 1"

    @contextlib.contextmanager
    def cut(self, platform: platforms.Platform, *sides: Collection[str]) -> Iterator[None]:
        """While this lasts, no packet passes between one of these sides (addresses of VMs) and another one. What is within a side, and the
        rest of the world, is reached as ever. Where packets cannot be filtered, all sides but the first one are stopped.
        """
        if self.obstacle:
            warnings.warn(f"VMs are stopped instead of cut off: {self.obstacle}", stacklevel=3)
            with frozen(platform, [address for side in sides[1:] for address in side]):
                yield
            return
        groups = [[_groups() / self._name / address for address in side] for side in sides]
        strange = [one.name for side in groups for one in side if not one.exists()]
        assert not strange, f"the VMs {strange} are in no control groups, so they cannot be cut off"
        _nft("-f", "-", rules=_rules(self._name, f"127.{self._net}.0.0/16", groups))
        try:
            yield
        finally:
            self.dropped = self._count()
            _nft("delete", "table", "ip", self._name)
        assert self.dropped, "there was nothing that could be cut"

    def close(self) -> None:
        """Remove the control groups, when the VMs are gone."""
        if not self.obstacle:
            groups = _groups() / self._name
            for one in [*groups.glob("*/"), groups]:
                misc.wait_until(functools.partial(_removed, one), timeout=10, what=f"the end of the last process in {one}")

    def _count(self) -> int:
        listed = json.loads(_nft("--json", "list", "table", "ip", self._name))
        rules = [one["rule"]["expr"] for one in listed["nftables"] if "rule" in one]
        return sum(part["counter"]["packets"] for rule in rules for part in rule if "counter" in part)


@contextlib.contextmanager
def frozen(platform: platforms.Platform, addresses: Collection[str]) -> Iterator[None]:
    """While this lasts, no process of these VMs gets any further."""
    stopped = [pid for address in addresses for pid in consistency.processes_of(platform, address)]
    try:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def switch(net: int) -> Iterator[Switch]:
    """For the length of a `with` block, around that of the platform."""
    made = Switch(net)
    try:
        yield made
    finally:
        made.close()


@functools.cache
def _obstacle() -> str:
    steps: list[tuple[str, Callable[[], object]]] = [
        ("only root may filter packets", lambda: os.geteuid() == 0),
        ("there is no nft (Debian's package nftables)", lambda: shutil.which("nft")),
        ("there is no cgroup2 below /sys/fs/cgroup", lambda: _groups().is_relative_to(_NFT_ROOT)),
        ("the kernel does not filter by control groups", _is_able),
    ]
    return next((words for words, works in steps if not works()), "")


@functools.cache
def _groups() -> pathlib.Path:
    """Where the control groups (version 2) are mounted; the root when they are not."""
    mounts = [line.split() for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()]
    return next((pathlib.Path(words[1]) for words in mounts if words[2] == "cgroup2"), pathlib.Path("/"))


def _is_able() -> bool:
    """Whether a filter like those of `Switch` can be had."""
    name = f"conpaas-probe-{os.getpid()}"
    group = _groups() / name
    try:
        group.mkdir()
        _nft("-f", "-", rules=_rules(name, "127.0.0.0/32", [[group]]))
        _nft("delete", "table", "ip", name)
    except (OSError, AssertionError):
        return False
    finally:
        with contextlib.suppress(OSError):
            group.rmdir()
    return True


def _rules(table: str, network: str, sides: Sequence[Sequence[pathlib.Path]]) -> str:
    """What drops the packets of a network between control groups of different sides: a packet is marked with the side whose socket sends
    it, and goes no further when a socket of another side is to get it."""
    sent = [f"ip saddr != {network} ip daddr != {network} accept"]
    received = ["meta mark 0 accept"]
    for mark, side in enumerate(sides, 1):
        for group in side:
            depth = len(group.relative_to(_groups()).parts)
            socket = f'socket cgroupv2 level {depth} "{group.relative_to(_NFT_ROOT)}"'
            sent.append(f"{socket} meta mark set {mark} accept")
            received.append(f"{socket} meta mark != {mark} counter drop")
    lines = [f"table ip {table}", f"delete table ip {table}", f"table ip {table} {{"]  # whatever a run that was killed has left
    for hook, rules in (("output", sent), ("input", received)):
        lines += [f"chain {hook} {{", f"type filter hook {hook} priority 0", *rules, "}"]
    return "\n".join([*lines, "}", ""])


def _removed(group: pathlib.Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        try:
            group.rmdir()
        except OSError:
            return False
    return True


def _nft(*words: str, rules: str = "") -> str:
    done = subprocess.run(["nft", *words], input=rules, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"nft {' '.join(words)}: {done.stderr}"
    return done.stdout
