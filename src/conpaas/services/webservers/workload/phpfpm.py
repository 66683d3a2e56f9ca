"""php-fpm: one master in the foreground per release, with a pool of its own; `graceful` means QUIT."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Final

from conpaas.core import errors, file, misc, rendering, supervisor
from conpaas.services.webservers import phpconf, spec, workload
from conpaas.services.webservers.workload import fastcgi, launch

PING_PATH: Final = "/.conpaas/fpm-ping"
STATUS_PATH: Final = "/.conpaas/fpm-status"
GRACE: Final = 300
"""Seconds that requests under way may take when a master is told to end."""
_START_TIMEOUT: Final = 15.0
_MEMORY_PER_WORKER: Final = 64 << 20
_FATAL: Final = re.compile(r"^(?:\[[^\]]*\] )?(PHP (?:Parse|Fatal|Recoverable fatal|Core|Compile) error: .*)$", re.MULTILINE)
_LOG_WINDOW: Final = 512_000


@dataclasses.dataclass(frozen=True)
class Pool:
    """One release's master. `directory` is private to it; `root` is the document root; `prepend` is run before every script, and
    `preload` once, when the master starts.

    `user` serves (None: whoever the caller is). `ip` is listened on, `node_ip` is what the node is known by, if that is another.
    `socket` is another way in, for who is on the same node, with as many workers of its own.
    """

    name: str
    directory: pathlib.Path
    ip: str
    port: int
    root: pathlib.Path
    settings: spec.BackendSettings
    access_log: pathlib.Path
    error_log: pathlib.Path
    php_error_log: pathlib.Path
    temporary: pathlib.Path
    prepend: pathlib.Path | None = None
    preload: pathlib.Path | None = None
    user: str | None = None
    node_ip: str = ""
    socket: pathlib.Path | None = None


class PhpFpm:
    """What to do with the php-fpm at `program`."""

    def __init__(self, program: str) -> None:
        self._program = program

    def prepare(self, pool: Pool) -> supervisor.Daemon:
        """Write and validate the configuration of a pool; returns the daemon to run.

        Raises OperationFailed with php-fpm's own words when it refuses the configuration.
        """
        pool.directory.mkdir(parents=True, exist_ok=True)
        pool.temporary.mkdir(parents=True, exist_ok=True, mode=0o700)
        launch.give(pool.temporary, pool.user)
        if pool.socket is not None:
            pool.socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            launch.give(pool.socket.parent, pool.user)
        for log in (pool.access_log, pool.error_log, pool.php_error_log):
            log.parent.mkdir(parents=True, exist_ok=True)
            launch.begin_log(log, pool.user)
        configuration = pool.directory / "fpm.conf"
        file.write_atomically(configuration, render(pool))
        command = self._command(pool, configuration)
        try:
            misc.run(launch.as_user((*command, "-t"), pool.user), env=launch.BASE)
        except errors.OperationFailed as error:
            reason = str(error).partition(": ")[2]
            raise errors.OperationFailed(f"php-fpm refuses the configuration of {pool.name}: {reason or error}") from error
        # Without a time zone in the environment, each line of the access log costs a look at the machine's.
        environment = {"MY_IP": pool.node_ip or pool.ip, "TMPDIR": str(pool.temporary), "TZ": "UTC", **pool.settings.environment}
        return supervisor.Daemon(
            name=pool.name,
            argv=launch.write(pool.directory / "launch", environment, command, pool.user),
            cwd=pathlib.Path("/"),  # php-fpm goes to a script's directory and back for each request
            user=pool.user,
            stop_signal="QUIT",
            stop_timeout=GRACE + 5.0,
        )

    def wait_ready(self, pool: Pool) -> None:
        """Return once the pool answers. Raises OperationFailed with the end of its log."""
        try:
            misc.wait_until(lambda: pings(pool.ip, pool.port), timeout=_START_TIMEOUT, what="it")
        except errors.OperationFailed as error:
            said = file.tail(pool.error_log, 500).strip()
            raise errors.OperationFailed(f"php-fpm on port {pool.port} does not answer: {said or 'its log is empty'}") from error

    def _command(self, pool: Pool, configuration: pathlib.Path) -> Sequence[str]:
        root = ("-R",) if _is_root(pool) else ()
        preload = ("-d", f"opcache.preload={pool.preload}") if pool.preload is not None and not root else ()
        return (self._program, *root, *preload, "-F", "-y", str(configuration))


def render(pool: Pool) -> str:
    """The configuration of a pool. Raises InvalidArgument when a setting holds what it must not."""
    workers = pool.settings.workers or suggested_workers()
    settings = {name: phpconf.check(name, value) for name, value in pool.settings.phpconf.items()}
    settings = {**settings, "log_errors": settings.get("log_errors", phpconf.DEFAULTS["log_errors"])}
    # PHP's own limit counts time on the processor only; the one on the clock must not undercut it.
    time_limit = max(pool.settings.max_time, int(settings.get("max_execution_time", "0")) + 5)
    return rendering.render(
        workload.PACKAGE,
        "fpm.conf.j2",
        as_root=_is_root(pool),
        ways=_ways(pool),
        workers=workers,
        start=min(4, workers),
        min_spare=min(2, workers),
        max_spare=min(8, workers),
        time_limit=time_limit,
        grace=GRACE,
        ping_path=PING_PATH,
        status_path=STATUS_PATH,
        access_log=pool.access_log,
        error_log=pool.error_log,
        php_error_log=pool.php_error_log,
        temporary=pool.temporary,
        prepend=pool.prepend,
        switches=sorted((name, value) for name, value in settings.items() if name in phpconf.SWITCHES),
        values=sorted((name, value) for name, value in settings.items() if name not in phpconf.SWITCHES),
    )


def _ways(pool: Pool) -> list[tuple[str, str]]:
    """Names of php-fpm's own pools, and what each listens on: each can listen in one place only."""
    ways = [("www", f"[{pool.ip}]:{pool.port}" if ":" in pool.ip else f"{pool.ip}:{pool.port}")]
    return [*ways, ("beside", str(pool.socket))] if pool.socket is not None else ways


def pings(ip: str, port: int) -> bool:
    """Whether a pool answers its ping."""
    with contextlib.suppress(OSError):
        answer = fastcgi.ask((ip, port), {"REQUEST_METHOD": "GET", "SCRIPT_NAME": PING_PATH, "SCRIPT_FILENAME": PING_PATH}, timeout=2.0)
        return answer.status == 200 and b"pong" in answer.body
    return False


def fatal_errors(log: pathlib.Path, offset: int, strip: pathlib.Path, limit: int) -> list[str]:
    """The first fatal errors in a log of PHP's from `offset` on, paths relative to `strip`, each told once."""
    try:
        text = file.read_bounded(log, offset=offset, limit=_LOG_WINDOW).text
    except FileNotFoundError:
        return []
    found: Mapping[str, None] = dict.fromkeys(re.sub(r"\s+", " ", line).replace(f"{strip}/", "") for line in _FATAL.findall(text))
    return [line[:500] for line in found][:limit]


@functools.cache
def suggested_workers() -> int:
    """How many requests at once suit this machine: eight for a processor, as scripts wait more than they compute, if there is memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(2, min(8 * (os.cpu_count() or 1), 64, memory // (2 * _MEMORY_PER_WORKER)))


def _is_root(pool: Pool) -> bool:
    return pool.user is None and os.geteuid() == 0
