"""What the two daemons of a VM, manager and agent, have in common: options, configuration, log, HTTPS server, an orderly end."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import logging
import pathlib
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from conpaas.core import config, errors, faults, log, metrics, paths, rpc
from conpaas.core.https import identity, server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

USER_KEYS: Final = ("USER_ID", "APP_ID", "MY_IP")
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Part:
    """What a daemon serves: its calls, who may make them, and what to do before and after serving."""

    application: rpc.RpcApplication
    callers: identity.CallerPolicy
    start: Callable[[], None]
    close: Callable[[], None]


Build = Callable[[config.Config, identity.Credentials], Part]


def main(name: str, section: str, port_key: str, default_port: int, build: Build, arguments: Sequence[str] | None = None) -> int:
    """Run the daemon `name` until SIGTERM; the exit code. Problems with its configuration are told on standard error."""
    options = _options(name, arguments)
    try:
        configuration, where = _configured(options.config, section)
    except (errors.ConPaaSError, OSError) as error:
        return _refuse(name, error)
    try:
        if configuration.has(section, "FAULTS"):
            faults.configure(configuration.get(section, "FAULTS"))
        port = options.port or configuration.get_int(section, port_key, default_port, minimum=1, maximum=65535)
        bind = options.bind or configuration.get(section, "BIND", configuration.get(section, "MY_IP"))
        credentials = identity.Credentials.from_dir(where.certs)
        _serve(name, (bind, port), credentials, build(configuration, credentials), where)
    except (errors.ConPaaSError, OSError) as error:
        _log.error("%s", _reason(name, error))
        return _refuse(name, error)
    return 0


def _configured(path: pathlib.Path | None, section: str) -> tuple[config.Config, paths.Paths]:
    """The configuration; from here on the daemon has its directories and its log."""
    if path is None:
        raise errors.ConfigurationError("Failed to find configuration file: none is named (-c FILE)")
    configuration = config.Config.read(path, main=section)
    configuration.require(section, (*paths.REQUIRED, *USER_KEYS))
    where = paths.Paths.from_config(configuration)
    where.create()
    log.init(where.log_file, debug=configuration.get_bool(section, "DEBUG", True))
    return configuration, where


def _reason(name: str, error: Exception) -> str:
    return str(error) if isinstance(error, errors.ConPaaSError) else f"{name} cannot run: {error}"


def _refuse(name: str, error: Exception) -> int:
    print(_reason(name, error), file=sys.stderr)
    return 1


def _options(name: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=name, description="Serves until it gets SIGTERM; usually started by the boot of a VM.")
    parser.add_argument("-c", "--config", type=pathlib.Path, help="the configuration file (mandatory)")
    parser.add_argument("-b", "--bind", help="the address to listen on (default: BIND, or else MY_IP, of the configuration)")
    parser.add_argument("-p", "--port", type=int, help="the port to listen on (default: the one of the configuration)")
    return parser.parse_args(arguments)


def _serve(name: str, bind: tuple[str, int], credentials: identity.Credentials, part: Part, where: paths.Paths) -> None:
    pages = {"/metrics": server.text_page(metrics.render, metrics.CONTENT_TYPE), "/health": server.text_page(lambda: "ok\n")}
    wsgi = server.rpc_wsgi(part.application, part.callers, pages, spool_dir=where.tmp)
    https = server.HttpsServer(bind, _counted(wsgi), credentials)
    ending = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ending.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    part.start()
    https.start_in_thread()
    gc.collect()
    gc.freeze()
    print(*bind, flush=True)
    _log.info("%s listens on %s:%d", name, *bind)
    try:
        # With a time limit: without one, a signal that the kernel hands to another thread is never seen.
        while not ending.wait(1.0):
            continue
    finally:
        _log.info("%s ends", name)
        https.stop()
        part.close()


def _counted(wsgi: WSGIApplication) -> WSGIApplication:
    """The application, with its replies counted by status for the page of metrics."""
    requests = metrics.Counter("conpaas_requests_total")

    def count(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *details: Any) -> Callable[[bytes], object]:
            requests.add(status=status.partition(" ")[0], verb=environ.get("REQUEST_METHOD", ""))
            return start_response(status, headers, *details)

        return wsgi(environ, start)

    return count
