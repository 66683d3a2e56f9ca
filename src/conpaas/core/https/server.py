"""The HTTPS server of managers, agents and the Director, and the RPC application on it.

app = rpc.RpcApplication()
app.register(0, manager)
wsgi = server.rpc_wsgi(app, identity.manager_callers(uid, aid), {"/health": health_page})
server.HttpsServer(("0.0.0.0", 443), wsgi, credentials).serve_forever()
"""

from __future__ import annotations

import functools
import pathlib
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from conpaas.core import errors, rpc
from conpaas.core.https import endpoint, engine, identity, tls
from conpaas.core.https.engine import WsgiApp
from conpaas.core.https.limits import DEFAULT, Limits


class HttpsServer:
    """Serves a WSGI application over TLS 1.2 and 1.3.

    Each request's environ has the caller's identity as `conpaas.peer`; with client certificates "optional" it is None for a
    client that shows none. A certificate that is shown must come from the CA of `credentials` either way.
    """

    def __init__(
        self,
        bind: tuple[str, int],
        wsgi_app: WsgiApp,
        credentials: identity.Credentials,
        client_certificates: tls.ClientCertificates = "required",
        limits: Limits = DEFAULT,
    ) -> None:
        self._make_context = functools.partial(tls.server_context, credentials, client_certificates)
        self._engine = engine.Engine(bind, wsgi_app, self._make_context(), limits)
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port it listens on: the real one once it was started with port 0."""
        return self._engine.port

    def serve_forever(self) -> None:
        """Listen and serve in this thread until stop() is called from another; raises ConfigurationError if it cannot listen."""
        self._listen()
        self._engine.serve()

    def start_in_thread(self) -> None:
        """Listen, and serve in a thread of its own; connections are accepted on return. Raises ConfigurationError."""
        self._listen()
        self._thread = threading.Thread(target=self._engine.serve, name=f"https-{self.port}", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            self._engine.prepare()
        except OSError as error:
            host, port = self._engine.bind_addr
            raise errors.ConfigurationError(f"Cannot listen on {host}:{port}: {error.strerror or error}.") from error

    def reload_credentials(self) -> None:
        """Use renewed certificate files for new connections; raises ConfigurationError and keeps the old ones if they are bad.

        The new context takes the place of the old one: OpenSSL forbids changing a context that other threads shake hands with.
        """
        self._engine.context = self._make_context()

    def stop(self) -> None:
        """Stop listening and close all connections; waits for requests under way, but not long. May be called twice."""
        self._engine.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()


def rpc_wsgi(
    app: rpc.RpcApplication,
    authorize: identity.CallerPolicy,
    extra_paths: Mapping[str, WsgiApp] | None = None,
    *,
    limits: Limits = DEFAULT,
    spool_dir: pathlib.Path | None = None,
) -> WsgiApp:
    """The WSGI application that answers RPC calls on `/`, and further WSGI applications on exact paths.

    `authorize` is asked before anything else, for extra paths too. Uploaded files are spooled in `spool_dir` (default: the
    system's temporary directory) and deleted after the reply.
    """
    return endpoint.RpcEndpoint(app, authorize, extra_paths or {}, limits, spool_dir)


def text_page(render: Callable[[], str], content_type: str = "text/plain; charset=utf-8") -> WsgiApp:
    """A WSGI application that answers with the text `render` makes, for `extra_paths`."""

    def page(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = render().encode()
        start_response("200 OK", [("Content-Type", content_type), ("Content-Length", str(len(body)))])
        return [body]

    return page
