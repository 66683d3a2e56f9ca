"""The processes of a VM of the dummy cloud: how they are started, recognised, stopped and killed as one.

Two kinds of isolation. `pidns`: `unshare` gives the VM its own PID and mount namespace (inside a user namespace for an ordinary user);
when its init dies the kernel kills all the rest. `session`: where namespaces are refused, `session` guards the VM's processes.

Whether a VM lives is one lock: the *guard* (unshare, or `session`) holds an open-file-description lock on `<vm>/lock` for as long as
it lives and passes it to nobody. It is taken by the process that boots the VM, before the VM exists, and inherited. So no recorded process
id is trusted, no clock compared, and any process may ask at any time. The guard also keeps an abstract socket that reserves the VM's
address on this host, against other dummy clouds too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import logging
import os
import pathlib
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping

from conpaas.core import errors
from conpaas.core.clouds.dummy import session

PIDNS = "pidns"
SESSION = "session"
ISOLATIONS = (PIDNS, SESSION)

KILL_TIMEOUT = 10.0
SWEEP_ROUNDS = 20
MARKER = "CONPAAS_VM_ID"
MOUNT_POINT = pathlib.Path("/run/conpaas/vm")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_HERE = pathlib.Path(__file__).resolve().parent
_FLOCK = struct.Struct("hhqqi4x")
_log = logging.getLogger(__name__)

_children: list[subprocess.Popen[bytes]] = []
_children_lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Boot:
    """How to boot: seconds before user-data, whether to leave it out, seconds until the VM dies by itself (0: never)."""

    delay_s: float = 0.0
    skip_user_data: bool = False
    lose_after_s: float = 0.0


class Guard:
    """The right to change a VM that is switched off: nobody else boots or removes it meanwhile. A living VM's guard process has it."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Takes the right at once, or answers False: the VM lives, or somebody is booting or removing it."""
        try:
            descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Gives up this process's part in the right; a VM started meanwhile keeps its own."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def fileno(self) -> int:
        if self._descriptor is None:
            raise errors.CloudError(f"The VM {self.directory.name} is not held by this process")
        return self._descriptor


@dataclasses.dataclass(frozen=True)
class Claim:
    """What it takes to boot a VM: its guard and the reservation of its address. Both end with whoever has them, VM included."""

    guard: Guard
    address: socket.socket

    def close(self) -> None:
        """Gives up this process's part; a VM started meanwhile keeps its own."""
        self.guard.release()
        self.address.close()


@contextlib.contextmanager
def guarded(directory: pathlib.Path) -> Iterator[Guard | None]:
    """The VM's guard, or None when it is with somebody else."""
    guard = Guard(directory)
    try:
        yield guard if guard.acquire() else None
    finally:
        guard.release()


def is_held(directory: pathlib.Path) -> bool:
    """Whether the VM lives (or is being booted or removed). Disturbs nobody."""
    try:
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(descriptor)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def was_started(directory: pathlib.Path) -> bool:
    """Whether the VM was switched on since it was last made ready to."""
    return (directory / "pid").exists()


def has_booted(directory: pathlib.Path) -> bool:
    """Whether the VM has begun its user-data, once in its life."""
    return (directory / "booted").exists()


def reserve_address(ip: str) -> socket.socket | None:
    """A reservation of an address on this host that lasts as long as somebody holds the socket; None when it is taken."""
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        holder.bind(f"\0conpaas-dummy/{ip}")
    except OSError:
        holder.close()
        return None
    return holder


def start(claim: Claim, *, isolation: str, boot: Boot, environment: Mapping[str, str]) -> None:
    """Switches the VM on; returns at once. The VM goes on when this process ends. The claim stays with the caller to close."""
    directory = claim.guard.directory
    (directory / "pid").unlink(missing_ok=True)
    passed = (claim.guard.fileno(), claim.address.fileno())
    arguments = _arguments(directory, passed, isolation, boot)
    with (directory / "console.log").open("ab") as console:
        try:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                cwd=directory / "root",
                env=dict(environment),
                pass_fds=passed,
                start_new_session=True,
            )
        except OSError as error:
            raise errors.CloudError(f"The VM {directory.name} could not be started: {error}") from error
    with _children_lock:
        _children.append(process)


def reap() -> None:
    """Takes leave of guards that this process started and that have ended, so that none stays as a zombie."""
    with _children_lock:
        _children[:] = [process for process in _children if process.poll() is None]


def kill(directory: pathlib.Path, marker: str, isolation: str) -> None:
    """Ends every process of the VM and returns when none is left; raises CloudError when that fails within some 30 s."""
    deadline = time.monotonic() + KILL_TIMEOUT
    while is_held(directory):
        if time.monotonic() > deadline:
            raise errors.CloudError(f"The VM {directory.name} is being changed by another process for {KILL_TIMEOUT:g} s now")
        if not _kill_guarded(directory, isolation):
            time.sleep(0.005)
    _sweep(directory, marker, isolation)
    reap()


def stop_services(directory: pathlib.Path, timeout: float) -> None:
    """Asks every service of the VM to end, and waits for them at most `timeout` seconds."""
    waiting = []
    for control in (directory / "root" / "service").glob("*/supervise/control"):
        with contextlib.suppress(OSError):
            descriptor = os.open(control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(descriptor, b"d")
                waiting.append(control.with_name("stat"))
            finally:
                os.close(descriptor)
    deadline = time.monotonic() + timeout
    while waiting and time.monotonic() < deadline:
        waiting = [stat for stat in waiting if not _is_down(stat)]
        if waiting:
            time.sleep(0.02)


def processes(marker: str) -> list[int]:
    """Processes that carry the VM's marker in their environment (those that overwrote theirs are missing)."""
    wanted = f"{MARKER}={marker}".encode()
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 (pathlib is several times slower here)
        if name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in pathlib.Path("/proc", name, "environ").read_bytes().split(b"\0"):
                    found.append(int(name))
    return found


def mount_point(isolation: str) -> pathlib.Path | None:
    """Where VMs see their disks, each its own in a mount namespace; None where they see them where they are."""
    if isolation != PIDNS or os.geteuid() != 0:
        return None
    try:
        for directory in (MOUNT_POINT.parent, MOUNT_POINT):
            directory.mkdir(exist_ok=True)
            directory.chmod(0o755)  # whatever the umask of this process
    except OSError as error:
        _log.info("VMs see their disks where they are: %s", error)
        return None
    return MOUNT_POINT


@functools.cache
def best_isolation() -> str:
    """`pidns` where this user may have namespaces, else `session`."""
    try:
        subprocess.run([*_unshare(), "true"], check=True, capture_output=True, timeout=10, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError) as error:
        _log.info("no PID namespaces here, VMs are kept together by their sessions: %s", error)
        return SESSION
    return PIDNS


def _unshare() -> list[str]:
    own_user = [] if os.geteuid() == 0 else ["--user", "--map-current-user"]
    return ["unshare", *own_user, "--pid", "--fork", "--kill-child=SIGKILL", "--mount", "--mount-proc"]


def _arguments(directory: pathlib.Path, passed: tuple[int, ...], isolation: str, boot: Boot) -> list[str]:
    """The command that becomes the guard. Its shell writes down its own id first, which stays the guard's."""
    descriptors = [str(descriptor) for descriptor in passed]
    mode = "skip" if boot.skip_user_data else "run"
    init = ["bash", str(_HERE / "init.sh"), str(directory), f"{boot.delay_s:g}", mode, *descriptors]
    if isolation == SESSION:
        guard = [sys.executable, "-I", "-S", str(_HERE / "session.py"), f"{boot.lose_after_s:g}", ",".join(descriptors)]
    else:
        guard = [*(["timeout", "--signal=KILL", f"{boot.lose_after_s:g}"] if boot.lose_after_s else []), *_unshare()]
    return ["/bin/sh", "-c", 'echo $$ > "$0/pid" && exec "$@"', str(directory), *guard, *init]


def _kill_guarded(directory: pathlib.Path, isolation: str) -> bool:
    """Ends the guard and with it the VM; False when there is no guard to be found yet."""
    try:
        pid = int((directory / "pid").read_text())
        guard = os.pidfd_open(pid)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return False
    try:
        if not is_held(directory):  # else `pid` is the guard's own: it has lived since before the descriptor was opened
            return True
        if isolation == SESSION:
            signal.pidfd_send_signal(guard, signal.SIGTERM)
        else:
            _kill_init(pid, guard)
        if not _has_ended(guard, KILL_TIMEOUT / 2):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(guard, signal.SIGKILL)
            _has_ended(guard, KILL_TIMEOUT / 2)
    except ProcessLookupError:
        _log.debug("the guard of %s ended by itself", directory.name)
    finally:
        os.close(guard)
    return True


def _kill_init(pid: int, guard: int) -> None:
    """Kills the init below an `unshare`: when that has ended, the kernel has ended all else. Without an init yet, kills the guard."""
    children = session.descendants(pid)[:1]
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    if not children:
        signal.pidfd_send_signal(guard, signal.SIGKILL)


def _sweep(directory: pathlib.Path, marker: str, isolation: str) -> None:
    """Kills what belongs to the VM although its guard is gone (somebody killed the guard), until nothing does."""
    for _ in range(SWEEP_ROUNDS):
        left = set(processes(marker))
        if isolation == SESSION:
            left |= _orphans_using(directory / "root")
        if not left:
            return
        descriptors = []
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                descriptors.append(os.pidfd_open(pid))
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for descriptor in descriptors:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, number)
        for descriptor in descriptors:
            _has_ended(descriptor, 1.0)
            os.close(descriptor)
    raise errors.CloudError(f"The processes {processes(marker)} of the VM {directory.name} cannot be killed")


def _orphans_using(root: pathlib.Path) -> set[int]:
    """Daemons that lost their guard and work in the VM's disk (a server may overwrite its environment, and with it the marker), with
    all their descendants. A person's shell or pager that looks at the disk is no orphan."""
    found: set[int] = set()
    orphans = [pid for pid in session.children().get(1, []) if pid != os.getpid()]
    for pid in orphans:
        if any(place.is_relative_to(root) for place in _places(pid)):
            found |= {pid, *session.descendants(pid)}
    return found


def _places(pid: int) -> Iterator[pathlib.Path]:
    """Where a process works and which files it has open, as far as this user may know."""
    process = pathlib.Path("/proc", str(pid))
    with contextlib.suppress(OSError):
        for link in [process / "cwd", process / "exe", *(process / "fd").iterdir()]:
            with contextlib.suppress(OSError):
                yield link.readlink()


def _has_ended(process: int, timeout: float) -> bool:
    """Waits for the process behind a descriptor (of pidfd_open) to end, at most `timeout` seconds."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def _is_down(stat: pathlib.Path) -> bool:
    try:
        return stat.read_text().strip() == "down"
    except OSError:
        return True
