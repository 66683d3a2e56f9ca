"""Logs of daemons: classic lines `<time> <LEVEL> <logger> <message>` in rotated files.

A manager serves several services, each with a log file of its own. A line goes to a service's file when its
logger belongs to the service (`conpaas.core.manager<n>`) or when it is written while working for the service
(`with log.context(service=n)`), whichever module writes it; all other lines go to the daemon's own file. Within
`log.context(operation=id)` every line carries the operation's id, so one operation can be followed through the
logs of Director, manager and agents.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import logging.handlers
import pathlib
import sys
import threading
from collections.abc import Iterator

MAX_BYTES = 8_000_000
KEPT_FILES = 4
SERVICE_LOGGER = "conpaas.core.manager"

_operation: contextvars.ContextVar[str] = contextvars.ContextVar("operation", default="")
_service: contextvars.ContextVar[int | None] = contextvars.ContextVar("service", default=None)


class LineFormatter(logging.Formatter):
    """Classic line; the message is kept on one line, so that no input can forge another one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        operation = getattr(record, "operation", "") or _operation.get()
        prefix = f"[operation {operation}] " if operation else ""
        record.message = prefix + record.message.replace("\r", "\\r").replace("\n", "\\n")
        return super().formatMessage(record)


class ServiceRouter(logging.Handler):
    """Hands each record to the file of the service it belongs to, else to the daemon's own file."""

    def __init__(self, own: logging.Handler) -> None:
        super().__init__()
        self.own = own
        self._services: dict[int, logging.Handler] = {}
        self._guard = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        service = self._service_of(record)
        target = self.own if service is None else self._services.get(service, self.own)
        target.handle(record)

    def _service_of(self, record: logging.LogRecord) -> int | None:
        if record.name.startswith(SERVICE_LOGGER):
            number = record.name[len(SERVICE_LOGGER) :].partition(".")[0]
            if number.isdecimal():
                return int(number)
        return _service.get()

    def add(self, service: int, handler: logging.Handler) -> None:
        with self._guard:
            old = self._services.get(service)
            self._services[service] = handler
        if old is not None:
            old.close()

    def remove(self, service: int) -> None:
        with self._guard:
            old = self._services.pop(service, None)
        if old is not None:
            old.close()

    def close(self) -> None:
        for service in list(self._services):
            self.remove(service)
        self.own.close()
        super().close()


def init(path: pathlib.Path | None, *, debug: bool = True) -> None:
    """Sends all log lines of this process to `path` (None: to standard error). May be called again, e.g. by tests."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, ServiceRouter)]:
        root.removeHandler(handler)
        handler.close()
    root.addHandler(ServiceRouter(_file_handler(path) if path else _stream_handler()))
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    for chatty in ("urllib3", "requests", "asyncio", "git"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def get(name: str) -> logging.Logger:
    """The logger of a module; safe to call before `init`."""
    return logging.getLogger(name)


def open_service(service: int, path: pathlib.Path) -> logging.Logger:
    """Gives a service its own file and returns its logger. Called again, the file is opened anew."""
    router = _router()
    if router is not None:
        router.add(service, _file_handler(path))
    return logging.getLogger(f"{SERVICE_LOGGER}{service}")


def close_service(service: int) -> None:
    """Closes the file of a service; its later lines go to the daemon's own log. The file stays on disk."""
    router = _router()
    if router is not None:
        router.remove(service)


@contextlib.contextmanager
def context(*, operation: str | None = None, service: int | None = None) -> Iterator[None]:
    """Marks the lines written inside with an operation's id, or routes them to a service's file; None leaves as is.

    Threads started inside do not inherit it unless they are run in a copy of the context (`contextvars.copy_context`).
    """
    operation_token = _operation.set(operation) if operation is not None else None
    service_token = _service.set(service) if service is not None else None
    try:
        yield
    finally:
        if service_token is not None:
            _service.reset(service_token)
        if operation_token is not None:
            _operation.reset(operation_token)


def current_operation() -> str:
    """The id of the operation under way in this context, or an empty text."""
    return _operation.get()


def _router() -> ServiceRouter | None:
    return next((handler for handler in logging.getLogger().handlers if isinstance(handler, ServiceRouter)), None)


def _file_handler(path: pathlib.Path) -> logging.Handler:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(
        path, maxBytes=MAX_BYTES, backupCount=KEPT_FILES, encoding="utf-8", errors="backslashreplace"
    )
    handler.setFormatter(LineFormatter())
    return handler


def _stream_handler() -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    return handler


def _log_uncaught(kind: type[BaseException], value: BaseException, trace: object) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("conpaas").critical("the process ends by an unexpected failure", exc_info=(kind, value, value.__traceback__))
    sys.__excepthook__(kind, value, value.__traceback__)


def _log_uncaught_in_thread(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_value is None or isinstance(failure.exc_value, SystemExit):
        return
    name = failure.thread.name if failure.thread else "unknown"
    value = failure.exc_value
    logging.getLogger("conpaas").error("thread %s ended by an unexpected failure", name, exc_info=(type(value), value, value.__traceback__))
