"""The role `backend`: releases run beside each other, each a process of its own; what is no longer used ends in its own time."""

from __future__ import annotations

import collections
import dataclasses
import logging
import pathlib
import threading
from collections.abc import Collection
from typing import Any, Final

from conpaas.core import config, errors, file, paths, supervisor
from conpaas.services.webservers import spec
from conpaas.services.webservers.agent import code, copying, java, php, ports, releases, web_user

log: Final = logging.getLogger(__name__)


class BackendRole:
    """The backends of one node. Safe to use from several threads; every method is idempotent.

    What was promised is in the notes before it is done, so that an agent that is killed and started again goes on with it.
    """

    def __init__(
        self, places: paths.Paths, configuration: config.Config, supervising: supervisor.Supervisor, address: str, notes: file.Notes
    ) -> None:
        user = web_user.choose(places, configuration)
        self._code = code.CodeStore(places, user)
        self._supervisor = supervising
        self._listening = ports.inner_address(address, configuration)
        self._first_port = configuration.get_int("web", "BACKEND_PORT", 9000, minimum=1, maximum=65_535)
        self._records = releases.Records(notes)
        rotating = copying.CopyingRotation(places, supervising)
        self._kinds: dict[str, releases.Kind] = {
            spec.PHP: php.Php(places, configuration, address, user, rotating),
            spec.JAVA: java.Java(places, configuration, address, user, rotating, supervising),
        }
        self._guards: dict[int, threading.Lock] = collections.defaultdict(threading.Lock)
        self._endings: dict[str, threading.Thread] = {}

    def start(self, release: int, version: str, settings: spec.BackendSettings) -> int:
        """Have a release run beside those that run; returns its port once it answers.

        Raises WrongState when the release is known with other code or settings, NotFound when its code is not there, and OperationFailed
        with the daemon's own reason when it does not start; then nothing is left of it.
        """
        tree = self._code.find(version)
        with self._guards[release]:
            instance = self._claim(release, version, settings)
            if instance.state is releases.State.RUNNING and self._supervisor.status(instance.name).running:
                self._kinds[settings.kind].wait_ready(instance)
                return instance.port
            return self._start(instance, tree)

    def keep(self, wanted: Collection[int]) -> None:
        """Let all releases but these finish the requests they have, and end. Returns at once; it goes on if the agent is restarted."""
        with self._records:
            for instance in self._records.all():
                if instance.release not in wanted:
                    self._end(instance)

    def state(self) -> dict[str, Any]:
        """`state` and `port` of the newest release, and all `releases`. `state` is RUNNING, STOPPED, or STARTING while a daemon is down."""
        newest = self._records.newest()
        found = [
            {"release": one.release, "port": one.port, "state": self._shown_state(one), "codeVersionId": one.version}
            for one in self._records.all()
        ]
        if newest is None:
            return {"state": "STOPPED", "port": None, "releases": found}
        return {"state": self._shown_state(newest), "port": newest.port, "releases": found}

    def errors(self, release: int) -> list[str]:
        """The fatal errors that a release has logged since its start, oldest first, at most a few."""
        instance = self._records.find(release)
        if instance is None:
            raise errors.NotFound(f"The release {release} does not run on this node.")
        return self._kinds[instance.settings.kind].errors(instance)

    def newest(self) -> releases.Instance | None:
        """The newest release, None when there is none."""
        return self._records.newest()

    def log_files(self) -> dict[str, pathlib.Path]:
        """The logs by their classic names; none without a release."""
        newest = self._records.newest()
        known = self._records.all()
        if not known:
            return {}
        return self._kinds[known[-1].settings.kind].log_files(newest or known[-1])

    def resume(self) -> None:
        """After a restart of the agent, or of the node: have run what should, and go on ending what should end."""
        for instance in self._records.all():
            if instance.state is releases.State.ENDING:
                self._end(instance)
                continue
            try:
                daemon, _ = self._kinds[instance.settings.kind].prepare(instance, self._code.find(instance.version))
                self._supervisor.ensure(daemon)
                self._kinds[instance.settings.kind].rotate_logs()
            except (errors.ConPaaSError, OSError):
                log.exception("release %d cannot be resumed", instance.release)

    def close(self) -> None:
        """Daemons go on, and so does the ending of releases when the agent comes back."""

    # Starting

    def _claim(self, release: int, version: str, settings: spec.BackendSettings) -> releases.Instance:
        with self._records:
            known = self._records.find(release)
            if known is None:
                name = self._free_name(f"{self._kinds[settings.kind].prefix}.{release}")
                return self._records.put(releases.Instance(name, release, version, settings, self._free_port()))
            if (known.version, known.settings.to_dict()) != (version, settings.to_dict()):
                raise errors.WrongState(f"The release {release} runs with other code or settings; a change needs a new release.")
            return known

    def _start(self, instance: releases.Instance, tree: pathlib.Path) -> int:
        kind = self._kinds[instance.settings.kind]
        try:
            daemon, instance = kind.prepare(instance, tree)
            self._records.put(instance)
            self._supervisor.ensure(daemon)
            kind.wait_ready(instance)
        except BaseException:
            if instance.state is releases.State.STARTING:
                self._drop(instance)
            raise
        self._records.put(dataclasses.replace(instance, state=releases.State.RUNNING))
        kind.rotate_logs()
        log.info("release %d (code version %s) answers on port %d", instance.release, instance.version, instance.port)
        return instance.port

    def _free_name(self, name: str) -> str:
        """A daemon's name that is not taken by an instance of the same release that is still ending.

        With a dot instead of the hyphen, the supervisor would take one's drafts for the other's.
        """
        taken = {one.name for one in self._records.all()}
        return next(one for one in (name, *(f"{name}-{number}" for number in range(1, 1000))) if one not in taken)

    def _free_port(self) -> int:
        taken = {one.port for one in self._records.all()}
        for port in range(self._first_port, min(self._first_port + ports.TRIES, 65_536)):
            if port not in taken and not ports.why_not(self._listening, port):
                return port
        raise errors.OperationFailed(f"No port from {self._first_port} on is free on {self._listening}.")

    # Ending

    def _end(self, instance: releases.Instance) -> None:
        with self._records:
            running = self._endings.get(instance.name)
            if running is not None and running.is_alive():
                return
            self._records.put(dataclasses.replace(instance, state=releases.State.ENDING))
            thread = threading.Thread(target=self._drop, args=(instance,), name=f"end of {instance.name}", daemon=True)
            self._endings[instance.name] = thread
            thread.start()

    def _drop(self, instance: releases.Instance) -> None:
        """Let the daemon end as gracefully as its definition says, and forget it."""
        try:
            self._supervisor.remove(instance.name)
        except (errors.ConPaaSError, OSError):
            log.exception("the daemon %s did not end; the next call or start of the agent tries again", instance.name)
            return
        self._kinds[instance.settings.kind].discard(instance)
        self._records.forget(instance.name)
        log.info("release %d (%s) has ended", instance.release, instance.name)

    def _shown_state(self, instance: releases.Instance) -> str:
        if instance.state is releases.State.RUNNING and not self._supervisor.status(instance.name).running:
            return releases.State.STARTING.name
        return instance.state.name
