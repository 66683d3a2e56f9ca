"""Starting scripts on this node: who may start when, in which environment, and how what runs is ended."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import pwd
import secrets
import threading
import time
from collections.abc import Sequence
from typing import Any

from conpaas.core import config as configuration
from conpaas.core import errors, file, paths
from conpaas.services.generic import scripts
from conpaas.services.generic.agent import membership, runs, versions

_log = logging.getLogger(__name__)

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KILL_MARGIN = 10.0
_QUEUE_INTERVAL = 0.2
_QUEUE_PATIENCE = 30.0  # seconds between looks at a queue that cannot be worked off, at most


@dataclasses.dataclass(frozen=True)
class Settings:
    """How scripts are run: grace between TERM and KILL in seconds, kept output of one run and of all in bytes, how many runs are kept."""

    grace: float
    output_limit: int
    log_limit: int
    runs_kept: int

    @classmethod
    def from_config(cls, config: configuration.Config) -> Settings:
        """Read the section `[generic]`; every key has a default."""
        return cls(
            grace=config.get_float("generic", "SCRIPT_GRACE", 10.0, minimum=0.0),
            output_limit=config.get_int("generic", "RUN_OUTPUT_LIMIT", 16_000_000, minimum=0),
            log_limit=config.get_int("generic", "SCRIPT_LOG_LIMIT", 8_000_000, minimum=4096),
            runs_kept=config.get_int("generic", "RUNS_KEPT", 50, minimum=5),
        )


@dataclasses.dataclass(frozen=True)
class Request:
    """A script asked for. `run` is the id of the run (the same id asked again is the same run); `time_limit` in seconds, 0: none."""

    script: scripts.Script
    run: str
    time_limit: float
    parameters: str = ""
    arguments: Sequence[str] = ()

    @classmethod
    def make(cls, script: scripts.Script, *, run: str | None, time_limit: float | None, **rest: Any) -> Request:
        """Fill in a new run id and the script's default time limit where they are not given."""
        limit = scripts.DEFAULT_TIME_LIMITS[script] if time_limit is None else time_limit
        return cls(script=script, run=run or f"{script.value}-{secrets.token_hex(4)}", time_limit=limit, **rest)


class Launcher:
    """The scripts of one node. Every decision to start is taken under one lock; what was promised is on disk before it starts."""

    def __init__(
        self, places: paths.Paths, code: versions.CodeVersions, members: membership.Membership, notes: file.Notes, settings: Settings
    ) -> None:
        places.scratch.mkdir(parents=True, exist_ok=True)
        self.store = runs.RunStore(places.lib / "runs", keep=settings.runs_kept)
        self._places = places
        self._code = code
        self._members = members
        self._notes = notes
        self._settings = settings
        self._queue = threading.Lock()  # held to begin and to end the watch of the queue, so that none ends while a run is put in
        self._watched = False

    @property
    def log_files(self) -> dict[str, pathlib.Path]:
        """The logs that the output of all scripts goes to, by stream."""
        return {"stdout": self._places.scratch / "agent.out", "stderr": self._places.scratch / "agent.err"}

    def resume(self) -> None:
        """After a restart of the agent: start what was promised and not started. What runs goes on by itself."""
        for run in self.store.queued():
            if run.spec.activation != self._notes.get("activation"):
                run.cancel("another code version was activated")
            elif run.script is not scripts.Script.NOTIFY:
                self.store.launch(run)
        self._work_off_queue()

    def start(self, request: Request) -> runs.Run | None:
        """Start a script that a user asked for, or init. None: the code has no such script.

        A notify.sh that runs is waited for a while. Raises WrongState while another script runs.
        """
        runs.wait_until(lambda: {run.script for run in self.store.running()} != {scripts.Script.NOTIFY}, scripts.NOTIFY_PATIENCE)
        with self.store.exclusive():
            known = self.store.get(request.run)
            if known is None:
                running = self.store.running()
                if running:
                    names = ", ".join(sorted({run.script.filename for run in running}))
                    raise errors.WrongState(f"Scripts are already running: {names}")
            return self._launch(request)

    def notify(self, request: Request) -> runs.Run | None:
        """Queue notify.sh: it starts as soon as init, another notify or an interrupt has ended; a newer request replaces a waiting one."""
        with self.store.exclusive():
            if self.store.get(request.run) is None:
                if self._code.script(request.script.filename) is None:
                    return None
                waiting = [run for run in self.store.queued() if run.script is scripts.Script.NOTIFY]
                run = self.store.record(self._spec(request))
                for older in waiting:
                    older.cancel(f"replaced by {run.id}")
        self._work_off_queue()
        return self.store.get(request.run)

    def interrupt(self, request: Request) -> tuple[runs.Run | None, list[str]]:
        """Run interrupt.sh, then end everything that runs; without interrupt.sh, or asked again meanwhile, end it at once.

        Returns the run of interrupt.sh, if it was started, and the ids of the runs that end. Daemons left by init and notify are ended only
        if nothing else runs.
        """
        with self.store.exclusive():
            if (known := self.store.get(request.run)) is not None:
                return self._launch(request), list(known.spec.ends)
            targets = self.store.running()
            again = any(run.script is scripts.Script.INTERRUPT or run.note("ending") for run in targets)
            targets = targets or self.store.alive()
            ids = [run.id for run in targets]
            if targets and not again and (run := self._launch(request, ends=tuple(ids))) is not None:
                return run, ids
            for run in targets:
                run.end("interrupt", at_once=again)
            return None, ids

    def end_all(self, reason: str) -> None:
        """End every process that scripts left on this node, and wait for it. Raises OperationFailed naming what does not end."""
        with self.store.exclusive():
            for run in self.store.queued():
                run.cancel(reason)
            ending = self.store.alive()
            for run in ending:
                run.end(reason)
        if not runs.wait_until(lambda: not any(run.alive for run in ending), self._settings.grace + _KILL_MARGIN):
            left = ", ".join(f"{run.script.filename} (run {run.id})" for run in ending if run.alive)
            raise errors.OperationFailed(f"Processes of {left} do not end")

    def statuses(self) -> dict[str, str]:
        """The classic status of each script: of its last run since the code was activated."""
        latest: dict[str, runs.Run] = {}
        for run in self.store.all():
            if run.spec.activation == self._notes.get("activation") and run.note("started"):
                latest[run.script.filename] = run
        names = [script.filename for script in scripts.Script]
        return {name: latest[name].status() if name in latest else scripts.NEVER_STARTED for name in names}

    def find(self, run_id: str | None, script: str | None = None) -> runs.Run:
        """A run by its id, or the last one of a script (by file name). Raises NotFound."""
        if run_id is not None:
            found = self.store.get(run_id)
        else:
            found = next((run for run in reversed(self.store.all()) if run.script.filename == script), None)
        if found is None:
            raise errors.NotFound(f"There is no run {run_id!r} on this node." if run_id else f"{script} was never run on this node.")
        return found

    def _launch(self, request: Request, ends: tuple[str, ...] = ()) -> runs.Run | None:
        run = self.store.get(request.run)
        if run is None:
            if self._code.script(request.script.filename) is None:
                return None
            run = self.store.record(self._spec(request, ends))
        self.store.launch(run)
        return run

    def _spec(self, request: Request, ends: tuple[str, ...] = ()) -> runs.RunSpec:
        path = self._code.directory / request.script.filename
        return runs.RunSpec(
            id=request.run,
            script=request.script.value,
            argv=("bash", str(path), *request.arguments),
            environment=self._environment(request.run),
            directory=str(self._code.directory),
            parameters=request.parameters,
            activation=str(self._notes.get("activation", "")),
            code_version=str(self._notes.get("code_version", "")),
            requested=time.time(),
            time_limit=request.time_limit,
            grace=self._settings.grace,
            output_limit=self._settings.output_limit,
            shared={stream: str(path) for stream, path in self.log_files.items()},
            shared_limit=self._settings.log_limit,
            ends=ends,
        )

    def _environment(self, run_id: str) -> dict[str, str]:
        """All that a script finds in its environment; it starts in the directory of the code, with nothing on its standard input."""
        user = _user_name()
        return {
            **self._members.given(),
            **self._members.environment(),
            "HOME": str(self._places.scratch),
            "PATH": _PATH,
            "LANG": "C.UTF-8",
            "SHELL": "/bin/bash",
            "USER": user,
            "LOGNAME": user,
            "AGENTS_JSON": str(self._members.path),
            "CODE_DIR": str(self._code.directory),
            "CONPAAS_RUN_ID": run_id,
        }

    def _work_off_queue(self) -> None:
        """Start queued notify runs, now if nothing stands in the way, else from a thread that ends with the queue."""
        with self._queue:
            if self._start_queued() and not self._watched:
                self._watched = True
                threading.Thread(target=self._watch_queue, name="queued notify", daemon=True).start()

    def _watch_queue(self) -> None:
        """Look again and again, less often while it fails: what is on the disk stays promised."""
        pause = _QUEUE_INTERVAL
        while True:
            time.sleep(pause)
            with self._queue:
                try:
                    self._watched, pause = self._start_queued(), _QUEUE_INTERVAL
                except (OSError, errors.ConPaaSError) as error:
                    self._watched, pause = self.store.exists(), min(2 * pause, _QUEUE_PATIENCE)
                    _log.warning("the waiting notify.sh could not be started: %s", error)
                if not self._watched:
                    return

    def _start_queued(self) -> bool:
        """Start the waiting notify run if it may; tells whether one still waits."""
        with self.store.exclusive():
            waiting = self.store.queued()
            if not waiting:
                return False
            blocking = (scripts.Script.INIT, scripts.Script.NOTIFY, scripts.Script.INTERRUPT)
            if any(run.script in blocking for run in self.store.running()):
                return True
            for run in waiting:
                self.store.launch(run)
            return False


def wait_ended(run: runs.Run, timeout: float) -> bool:
    """Wait until a run is no longer RUNNING nor queued, at most `timeout` seconds."""
    return runs.wait_until(lambda: not run.running and not run.queued, timeout)


def new_activation() -> str:
    """A fresh id of an activation."""
    return secrets.token_hex(6)


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
