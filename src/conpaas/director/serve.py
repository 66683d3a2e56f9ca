"""One Director process: the HTTPS server, the background work, and an orderly end on SIGTERM."""

from __future__ import annotations

import ctypes
import gc
import logging
import signal
import threading
from types import FrameType

from conpaas.core import errors
from conpaas.core import log as logs
from conpaas.core.https import limits, server
from conpaas.director import app, config, frontend, runtime

log = logging.getLogger(__name__)

LOG_FILE = "cpsdirector.log"
CERTIFICATE_CHECK = 12 * 3600.0  # seconds
TIDY_INTERVAL = 60.0
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of glibc's mallopt()


class DirectorServer:
    """A Director that listens. `start()` returns at once; `stop()` ends requests, loops and database, and may be repeated."""

    def __init__(self, configuration: config.DirectorConfig, director: runtime.Director | None = None) -> None:
        self.config = configuration
        self.director = director or app.make_director(configuration)
        self._server = server.HttpsServer(
            (configuration.bind, configuration.port),
            app.create_app(configuration, self.director),
            self.director.authority.listening,
            client_certificates="optional",
            limits=limits.Limits(upload_bytes=app.MAX_BODY, json_bytes=app.MAX_BODY, max_workers=configuration.threads, min_workers=2),
        )
        self.director.add_loop("certificates", CERTIFICATE_CHECK, self._renew, everywhere=True)
        self.director.add_loop("memory", TIDY_INTERVAL, _give_memory_back, everywhere=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.port

    def _renew(self) -> None:
        """Renew the Director's own certificates when they near their end, and use them for new connections."""
        self.director.authority.prepare(self.config.certificate_hosts)
        self._server.reload_credentials()

    def start(self) -> None:
        """Listen, then start the background work."""
        self._server.start_in_thread()
        self.director.start()
        # What was made until now stays; without it, collections are quick, and happen before much has piled up.
        gc.collect()
        gc.freeze()
        log.info("the Director listens on %s port %s; clients use %s", self.config.bind, self.port, self.config.director_url)

    def stop(self) -> None:
        """Finish the requests in progress, then end the background work."""
        self._server.stop()
        self.director.stop()
        log.info("the Director has stopped")


def _call_allocator(function: str, *arguments: int) -> None:
    """Call a function of glibc's allocator; another C library has nothing to tune."""
    try:
        call = getattr(ctypes.CDLL(None), function)
    except (OSError, AttributeError):
        return
    call(*arguments)


def _spare_memory() -> None:
    """Have glibc give large blocks (a password check takes 12 MB) back at once, and keep few heaps for many threads."""
    _call_allocator("mallopt", _M_MMAP_THRESHOLD, 1024 * 1024)
    _call_allocator("mallopt", _M_ARENA_MAX, 2)


def _give_memory_back() -> None:
    """Return to the system what the work of the last minute needed and left."""
    gc.collect()
    _call_allocator("malloc_trim", 0)


def run(configuration: config.DirectorConfig) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigurationError, or OSError when the address cannot be bound."""
    _spare_memory()
    try:
        configuration.log_dir.mkdir(parents=True, exist_ok=True)
        logs.init(configuration.log_dir / LOG_FILE, debug=configuration.debug)
    except OSError as error:
        raise errors.ConfigurationError(f"Cannot write the log files in {configuration.log_dir}: {error.strerror}.") from error
    for warning in configuration.warnings:
        log.warning("%s", warning)
    ending = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ending.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    running = DirectorServer(configuration)
    pages = frontend.Keeper(configuration, running.director.authority.ca_path)
    try:
        running.start()
        pages.start()
        # With a time limit: without one, a signal that the kernel hands to another thread is never seen.
        while not ending.wait(1.0):
            continue
    finally:
        pages.stop()
        running.stop()
