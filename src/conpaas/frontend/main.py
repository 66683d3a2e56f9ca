"""The command `cpsfrontend`: serve the web front-end."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import pathlib
import signal
import socket
import sys
import types
from typing import Any, Final

import click
import uvicorn

from conpaas.core import errors, log
from conpaas.frontend import app, live, settings

_PATH = click.Path(path_type=pathlib.Path)
_PR_SET_PDEATHSIG: Final = 1
_GRACE: Final = 5
LOG_FILE: Final = "cpsfrontend.log"
_log = logging.getLogger(__name__)


@click.command(context_settings={"auto_envvar_prefix": "CPSFRONTEND", "help_option_names": ["-h", "--help"]})
@click.option("--director-url", required=True, help="Address of the Director, like https://director.example.org:5555.")
@click.option("--ca", required=True, type=_PATH, help="The Director's CA certificate, ca_cert.pem.")
@click.option("--state", "state_dir", required=True, type=_PATH, help="Private directory for sessions and logs; made if missing.")
@click.option("--bind", default=settings.DEFAULT_BIND, show_default=True, help="Address to listen on.")
@click.option("--port", default=settings.DEFAULT_PORT, show_default=True, type=click.IntRange(0, 65535), help="Port; 0: any free one.")
@click.option("--root-path", default="", help="What a reverse proxy puts before every path, like /conpaas.")
@click.option(
    "--public-url", default="", help="What people type to get here, if not what is listened on, like https://conpaas.example.org."
)
@click.option("--tls-cert", type=_PATH, help="Serve HTTPS with this certificate (PEM, with its chain).")
@click.option("--tls-key", type=_PATH, help="Its private key.")
@click.option("--debug", is_flag=True, help="Write debugging lines to the log.")
@click.option("--log-dir", type=_PATH, help="Directory of the log files. Default: that of --state.")
@click.option("--parent", type=int, hidden=True, help="End when this process, which started this one, ends.")
def main(debug: bool, log_dir: pathlib.Path | None, parent: int | None, **given: Any) -> None:
    """Serve the web front-end of ConPaaS. Every option can be given as an environment variable, like CPSFRONTEND_PORT."""
    if parent is not None:
        _end_with(parent)
    try:
        configured = settings.Settings(**given)
        if not configured.ca.is_file():
            raise errors.ConfigurationError(f"The CA certificate {configured.ca} is missing.")
        listener = _listen(configured)
        log.init((log_dir or configured.state_dir) / LOG_FILE, debug=debug)
        _serve(configured, listener)
    except errors.ConPaaSError as error:
        click.echo(f"error: {error}", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
        sys.exit(1)


def _end_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends, however that ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(0)


def _listen(configured: settings.Settings) -> socket.socket:
    """The bound socket. Raises ConfigurationError."""
    family = socket.AF_INET6 if ":" in configured.bind else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((configured.bind, configured.port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise errors.ConfigurationError(
            f"Cannot listen on {configured.bind} port {configured.port}: {reason}.",
            hint="choose another PORT (or BIND) for the front-end; ports below 1024 need the right to bind them",
        ) from error
    listener.set_inheritable(False)
    return listener


def _serve(configured: settings.Settings, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT."""
    host, port = listener.getsockname()[:2]
    scheme = "https" if configured.tls_cert else "http"
    shown = f"[{host}]" if ":" in host else host
    application = app.make(configured)
    config = uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(configured.public_url),
        ws="none",
        h11_max_incomplete_event_size=64 * 1024,
        timeout_graceful_shutdown=_GRACE,
        timeout_keep_alive=30,
        ssl_certfile=configured.tls_cert,
        ssl_keyfile=configured.tls_key,
        limit_concurrency=2000,
    )
    _log.info("the front-end listens on %s://%s:%s%s", scheme, shown, port, configured.root_path)
    click.echo(f"{scheme}://{shown}:{port}{configured.root_path}/")
    sys.stdout.flush()
    _Server(config, application.state.frontend.hub).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends its streams when it is told to end, and so does not have to wait for them."""

    def __init__(self, config: uvicorn.Config, hub: live.Hub) -> None:
        super().__init__(config)
        self._hub = hub

    def handle_exit(self, sig: int, frame: types.FrameType | None) -> None:
        """The handler of SIGTERM and SIGINT."""
        self._hub.hang_up()
        super().handle_exit(sig, frame)
