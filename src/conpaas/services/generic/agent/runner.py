"""The process that runs one script and owns every process it ever leaves: `python -m … <run directory> <lock>`.

It is a child subreaper: daemonised children and processes that made their own session become its children and cannot
hide. It outlives the agent, pumps the output into the run's files and the shared logs, applies the time limit, and writes
down how the script and its tree ended. TERM ends the tree in order (TERM, grace, KILL), USR1 at once.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import selectors
import signal
import subprocess
import sys
import time
from typing import IO, Any

from conpaas.core import processes
from conpaas.services.generic import scripts
from conpaas.services.generic.agent import output, runs

_PR_SET_CHILD_SUBREAPER = 36
_TICK = 0.1
_AGAIN = 0.5  # seconds between two tries to write down what did not find room
_NOT_STARTED = 127


class Runner:
    """Runs the script of `run` and supervises its process tree until nothing of it is left."""

    def __init__(self, run: runs.Run) -> None:
        self._run = run
        self._spec = run.spec
        self._selector = selectors.DefaultSelector()
        self._sinks: dict[int, output.Sink] = {}
        self._child: subprocess.Popen[bytes] | None = None
        self._ending = False
        self._told: set[int] = set()
        self._unwritten: dict[str, dict[str, Any]] = {}
        self._kill_at = float("inf")
        self._limit_at = time.monotonic() + self._spec.time_limit if self._spec.time_limit else float("inf")

    def supervise(self) -> None:
        """Start the script and return when its whole process tree is gone and written down."""
        self._listen_to_signals()
        self._run.write_note("started", pid=os.getpid(), at=time.time())
        if self._run.note("ending"):
            self._finish_main(-int(signal.SIGTERM), "it was ended before it began")
        else:
            self._start()
        while self._reap():
            self._check_time()
            self._write_notes()
            self._pump(self._patience())
        self._pump(0)
        for sink in self._sinks.values():
            sink.close()
        ending = self._run.note("ending") or self._unwritten.get("ending", {})
        self._note("end", at=time.time(), reason=ending.get("reason"))
        while self._unwritten:
            time.sleep(_AGAIN)
            self._write_notes()

    def _note(self, name: str, **content: Any) -> None:
        """Write something down; where the disk is full, as soon as there is room. The processes of the run do not suffer from that."""
        self._unwritten[name] = content
        self._write_notes()

    def _write_notes(self) -> None:
        for name, content in list(self._unwritten.items()):
            try:
                self._run.write_note(name, **content)
            except FileNotFoundError:  # the whole run was removed: nobody wants to know any more
                self._unwritten.clear()
                return
            except OSError as error:
                print(f"{name}.json cannot be written yet: {error.strerror}", file=sys.stderr)
                return
            del self._unwritten[name]

    def _listen_to_signals(self) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._selector.register(reader, selectors.EVENT_READ)
        signal.signal(signal.SIGTERM, lambda *_: self._end(at_once=False))
        signal.signal(signal.SIGUSR1, lambda *_: self._end(at_once=True))
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _start(self) -> None:
        try:
            self._child = child = subprocess.Popen(
                self._spec.argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self._spec.directory,
                env={**self._spec.environment, runs.MARK: str(self._run.directory)},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            self._finish_main(_NOT_STARTED, f"it cannot be started: {error}")
            return
        self._watch(child.stdout, "stdout")
        self._watch(child.stderr, "stderr")

    def _watch(self, pipe: IO[bytes] | None, stream: str) -> None:
        assert pipe is not None
        descriptor = os.dup(pipe.fileno())
        pipe.close()
        os.set_blocking(descriptor, False)
        self._sinks[descriptor] = output.Sink(
            self._run.directory / stream,
            self._spec.output_limit,
            pathlib.Path(self._spec.shared[stream]),
            self._spec.shared_limit,
        )
        self._selector.register(descriptor, selectors.EVENT_READ)

    def _reap(self) -> bool:
        """Collect ended children; False once none is left and the script itself has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self._told.discard(pid)
            if self._child is not None and pid == self._child.pid:
                self._child.returncode = os.waitstatus_to_exitcode(status)
                self._finish_main(self._child.returncode, None)

    def _finish_main(self, return_code: int, error: str | None) -> None:
        self._note("main", return_code=return_code, at=time.time(), error=error)
        if self._run.script.leaves_daemons:
            self._limit_at = float("inf")
        if self._run.script is scripts.Script.INTERRUPT:
            self._end_others()
            self._end(at_once=False)

    def _end_others(self) -> None:
        store = runs.RunStore(self._run.directory.parent)
        for run_id in self._spec.ends:
            other = store.get(run_id)
            if other is not None and other.alive:
                other.end(self._run.script.value)

    def _check_time(self) -> None:
        now = time.monotonic()
        if now >= self._limit_at:
            self._limit_at = float("inf")
            if not self._ending:
                self._note("ending", reason=f"time limit of {self._spec.time_limit:g} s", at=time.time())
            self._end(at_once=False)
        if not self._ending:
            return
        tree = self._tree()
        if now >= self._kill_at:
            processes.send(tree, signal.SIGKILL)
            return
        processes.send(tree - self._told, signal.SIGTERM)
        processes.send(tree - self._told, signal.SIGCONT)
        self._told |= tree

    def _end(self, *, at_once: bool) -> None:
        now = time.monotonic()
        if not self._ending:
            self._ending = True
            self._kill_at = now + self._spec.grace
        if at_once:
            self._kill_at = now

    def _tree(self) -> set[int]:
        return processes.descendants(os.getpid()) | self._run.orphans()

    def _patience(self) -> float | None:
        """Seconds to wait for output or an ended child; None: until something happens."""
        if self._ending:
            return _TICK
        if self._unwritten:
            return _AGAIN
        return None if self._limit_at == float("inf") else max(0.0, self._limit_at - time.monotonic())

    def _pump(self, patience: float | None) -> None:
        """Move what the script wrote to the logs; with `patience` 0 everything that is still in the pipes."""
        while events := self._selector.select(patience):
            moved = False
            for key, _ in events:
                moved = self._move(key.fd) or moved
            if patience != 0 or not moved:
                return

    def _move(self, descriptor: int) -> bool:
        try:
            chunk = os.read(descriptor, 65536)
        except BlockingIOError:
            return False
        if descriptor not in self._sinks:
            return bool(chunk)
        if chunk:
            self._sinks[descriptor].write(chunk)
            return True
        self._selector.unregister(descriptor)
        os.close(descriptor)
        self._sinks.pop(descriptor).close()
        return False


def become_subreaper() -> None:
    """Make every orphan below this process its child (Linux); raises OSError where the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def main(arguments: list[str]) -> None:
    """Entry point: the run's directory and the number of the inherited, locked descriptor."""
    directory, lock = pathlib.Path(arguments[0]), int(arguments[1])
    os.set_inheritable(lock, False)
    os.umask(0o022)
    become_subreaper()
    Runner(runs.Run(directory)).supervise()


if __name__ == "__main__":
    main(sys.argv[1:])
