"""One connection of the server and one request on it, on top of cheroot's.

A connection that has nothing to say waits in the selector; only complete requests and handshake steps occupy a worker.
"""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any, Final

from cheroot import errors as cheroot_errors
from cheroot import server as cheroot_server

from conpaas.core import errors
from conpaas.core.https import identity, streams

if TYPE_CHECKING:
    from conpaas.core.https import engine

log = logging.getLogger(__name__)

_DRAIN_TIME: Final = 2.0
_DRAIN_BYTES: Final = 16 * 1024 * 1024
_TURN: Final = 16
"""Requests that one connection may have served in a row before it queues up again."""

_MAX_LENGTH_DIGITS: Final = 15
_PLAIN_HTTP: Final = "This port speaks HTTPS only.\n"


class Request(cheroot_server.HTTPRequest):
    """Parses a head that has arrived completely, and answers."""

    def __init__(self, server: engine.Engine, conn: Connection) -> None:
        super().__init__(server, conn, proxy_mode=True)
        self.length = 0
        self.expects_continue = False

    def parse(self, head: bytes) -> None:
        """Read the head; `ready` tells whether the request can be answered, otherwise it was refused."""
        self.rfile = io.BytesIO(head)
        try:
            self.ready = self.read_request_line() and self.read_request_headers()
        except ValueError:
            self.simple_response("400 Bad Request", "Malformed request target.")

    def read_request_headers(self) -> bool:
        """Read the headers and decide about body and connection; False when the request was refused."""
        try:
            self.inheaders = parse_headers(self.rfile.read())
        except ValueError as error:
            self.simple_response("400 Bad Request", str(error))
            return False
        length = self.inheaders.get(b"Content-Length", b"0")
        if b"Transfer-Encoding" in self.inheaders:
            self.simple_response("411 Length Required", "Send the body with a Content-Length; chunked bodies are not accepted.")
            return False
        if not length.isdigit() or len(length) > _MAX_LENGTH_DIGITS:
            self.simple_response("400 Bad Request", "The header Content-Length must be a number.")
            return False
        self.length = int(length)
        limits = self.server.limits
        most = limits.upload_bytes if self.conn.ssl_env.get("conpaas.peer") else limits.eager_bytes
        if self.length > most:
            self.simple_response("413 Content Too Large", f"The body may have {most} bytes at most.")
            return False
        options = self.inheaders.get(b"Connection", b"").lower()
        if self.response_protocol == "HTTP/1.1":
            self.close_connection = b"close" in options
            self.expects_continue = self.inheaders.get(b"Expect", b"").lower() == b"100-continue"
        else:
            self.close_connection = b"keep-alive" not in options
        return True

    def respond(self) -> None:
        """Have the WSGI application answer."""
        self.rfile = streams.Body(self.conn.rfile, self.length, self._before_body)
        self.server.gateway(self).respond()
        self.ensure_headers_sent()
        if self.chunked_write:
            self.conn.wfile.write(b"0\r\n\r\n")

    def body_deadline(self) -> float:
        """When the body must have arrived if it starts now (monotonic)."""
        return time.monotonic() + self.server.limits.io_timeout + self.length / self.server.limits.body_rate

    def invite_body(self) -> None:
        """Tell a client that asked whether it may send its body to go on."""
        if self.expects_continue:
            self.expects_continue = False
            self.conn.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.conn.wfile.flush()

    def _before_body(self) -> None:
        self.conn.rfile.start_body(self.body_deadline())
        self.invite_body()

    def send_headers(self) -> None:
        """Send the reply's headers. A body that nobody wanted is read away if it is here already, else the connection ends."""
        if getattr(self.rfile, "remaining", 0) > self.server.limits.eager_bytes:
            self.close_connection = True
            self.conn.must_linger = True
        super().send_headers()

    def simple_response(self, status: str, msg: str = "") -> None:
        """Refuse the request in plain text; the connection is closed afterwards."""
        self.close_connection = True
        self.conn.must_linger = self.length > 0 or not self.ready
        self.sent_headers = True
        text = (msg or status).encode("latin-1", "replace")
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
        self.conn.wfile.write(head.encode() + text)


def parse_headers(block: bytes) -> dict[bytes, bytes]:
    """The headers of a request by title-cased name; raises ValueError with the reason to refuse them.

    Names with an underscore are dropped, since WSGI could not tell them from names with a hyphen. A repeated header is
    joined with a comma, except that a second Content-Length is refused: it has two meanings.
    """
    headers: dict[bytes, bytes] = {}
    for line in block.split(b"\r\n"):
        if not line:
            continue
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip() or b"\n" in line or b"\r" in line or b"\0" in line:
            raise ValueError("A header line must be of the form Name: value, and end with CR LF.")
        if b"_" in name:
            continue
        name = name.title()
        value = value.strip()
        if name in headers:
            if name == b"Content-Length":
                raise ValueError("The header Content-Length is given twice.")
            value = headers[name] + b", " + value
        headers[name] = value
    return headers


class Connection(cheroot_server.HTTPConnection):
    """A connection from accept to close. `deadline` (monotonic) is when it is closed if it still waits then."""

    RequestHandlerClass = Request

    # The inherited constructor is not called: it builds caches for Unix sockets that keep a closed connection in memory.
    def __init__(self, server: engine.Engine, sock: socket.socket, address: tuple[str, int]) -> None:
        self.server = server
        self.socket = sock
        self.remote_addr, self.remote_port = address[:2]
        self.rfile = streams.Reader(sock, server.limits.io_timeout)
        self.wfile = streams.Writer(sock, server.limits.io_timeout)
        self.requests_seen = 0
        self.ssl_env: dict[str, Any] = {}
        self.established = False
        self.has_more = False
        self.expired = False
        self.must_linger = False
        self._draining = False
        self._drained = 0
        self._request: Request | None = None
        self.deadline = time.monotonic() + server.limits.handshake_timeout

    def communicate(self) -> bool:
        """Do what can be done with the input that has arrived; False when the connection is to be closed. Never raises."""
        if self._draining:
            return self._drain()
        return self._work() or (self.must_linger and self._start_draining())

    def _work(self) -> bool:
        try:
            self.has_more = False
            if self.expired:
                self._try_refusing("408 Request Timeout")
                self.must_linger = False
                return False
            if self.established or self._handshake():
                return self._serve()
            return True
        except (streams.PeerGone, OSError, cheroot_errors.FatalSSLAlert) as error:
            log.debug("%s is gone: %r", self.remote_addr, error)
        except errors.Forbidden as error:
            log.info("refused %s: %s", self.remote_addr, error)
        except BaseException:
            # Also SystemExit: whatever a handler raises, no request may stop the server.
            log.exception("serving %s failed", self.remote_addr)
            self._try_refusing("500 Internal Server Error")
        return False

    def _handshake(self) -> bool:
        """Take the handshake one step further; False when the peer has to send more. Raises OSError when it failed."""
        if not isinstance(self.socket, ssl.SSLSocket):
            self.socket = self.server.context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
            self.rfile.socket = self.wfile.socket = self.socket
        self.socket.settimeout(0)
        try:
            self.socket.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            if error.reason == "HTTP_REQUEST":
                self._answer_plain_http()
            raise
        peer = identity.of_peer(self.socket)
        self.ssl_env = {"wsgi.url_scheme": "https", "HTTPS": "on", "SSL_PROTOCOL": self.socket.version(), "conpaas.peer": peer}
        self.established = True
        return True

    def _serve(self) -> bool:
        """Answer the requests that are complete; False when the connection is to be closed."""
        for _ in range(_TURN):
            try:
                if not self._complete():
                    return True
            except cheroot_errors.MaxSizeExceeded:
                self._try_refusing("431 Request Header Fields Too Large")
                return False
            if not self._answer():
                return False
            if not self.rfile.has_data():
                self.deadline = time.monotonic() + self.server.limits.idle_timeout
                return True
        self.has_more = True
        return True

    def _complete(self) -> bool:
        """Go on receiving a request, without blocking; True when it can be answered: its head is here, and a body if small."""
        self.socket.settimeout(0)
        limits = self.server.limits
        request = self._request
        if request is None:
            head = self.rfile.take_head(limits.head_bytes)
            if head is None:
                self._wait_for_head()
                return False
            self.rfile.head_deadline = 0.0
            self.requests_seen += 1
            request = self._request = self.RequestHandlerClass(self.server, self)
            request.parse(head)
            if request.ready and 0 < request.length <= limits.eager_bytes:
                self.deadline = request.body_deadline()
                request.invite_body()
                self.socket.settimeout(0)
        return not request.ready or request.length > limits.eager_bytes or self.rfile.fill(request.length)

    def _wait_for_head(self) -> None:
        limits = self.server.limits
        if not self.rfile.partial:
            self.deadline = time.monotonic() + limits.idle_timeout
        elif not self.rfile.head_deadline:
            self.deadline = self.rfile.head_deadline = time.monotonic() + limits.head_timeout

    @property
    def owes_answer(self) -> bool:
        """True when a part of a request has arrived."""
        return self.established and (self._request is not None or self.rfile.partial)

    def _answer(self) -> bool:
        """Answer the request; False when the connection is to be closed."""
        request = self._request
        assert request is not None
        if request.ready:
            try:
                request.respond()
            except TimeoutError:
                if request.sent_headers:
                    raise
                request.simple_response("408 Request Timeout", "The body took too long to arrive.")
        self.wfile.flush()
        self._request = None
        return bool(request.ready and not request.close_connection)

    def _try_refusing(self, status: str) -> None:
        """Answer with an error, unless part of the reply is out already or there is nobody to answer."""
        request, self._request = self._request or self.RequestHandlerClass(self.server, self), None
        if not self.established or request.sent_headers:
            return
        with contextlib.suppress(OSError):
            request.simple_response(status)
            self.wfile.flush()

    def _answer_plain_http(self) -> None:
        head = f"HTTP/1.1 400 Bad Request\r\nContent-Length: {len(_PLAIN_HTTP)}\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
        with contextlib.suppress(OSError):
            socket.socket.send(self.socket, (head + _PLAIN_HTTP).encode())
        self.must_linger = True

    def close(self) -> None:
        """Say goodbye and close; never blocks, never raises."""
        self.rfile.close()
        try:
            self._say_goodbye()
            self.socket.close()
        except OSError as error:
            log.debug("closing the connection of %s: %s", self.remote_addr, error)

    def _say_goodbye(self) -> None:
        if self.established:
            self.established = False
            self.socket.settimeout(0)
            with contextlib.suppress(OSError, ValueError):
                self.socket.unwrap()

    def _start_draining(self) -> bool:
        """End our side only: what the peer still sends is thrown away, so that it reads the reply instead of a reset."""
        try:
            self._say_goodbye()
            self.socket = socket.socket(fileno=self.socket.detach())
            self.socket.setblocking(False)
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            log.debug("closing the connection of %s: %s", self.remote_addr, error)
            return False
        self._draining = True
        self.deadline = time.monotonic() + _DRAIN_TIME
        return self._drain()

    def _drain(self) -> bool:
        """Throw away what has arrived; False at its end."""
        try:
            while self._drained < _DRAIN_BYTES:
                data = self.socket.recv(streams.CHUNK)
                if not data:
                    return False
                self._drained += len(data)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False
