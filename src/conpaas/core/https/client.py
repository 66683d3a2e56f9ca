"""Calling managers, agents and the Director.

Every call has a time limit, and the server's identity is checked before a byte of the request is sent. Failures are
RemoteError (the peer answered with an error) or Unreachable (no answer, or not from the peer it should come from).
"""

from __future__ import annotations

import dataclasses
import json
import logging
import pathlib
import random
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NoReturn

from conpaas.core import errors
from conpaas.core.https import identity, multipart, tls

if TYPE_CHECKING:
    import requests

log = logging.getLogger(__name__)

Address = tuple[str, int]
Files = Mapping[str, pathlib.Path | tuple[str, BinaryIO]]

MAX_REPLY: Final = 64 * 1024 * 1024
"""Bytes of a reply that is not a file."""

_CHUNK: Final = 256 * 1024
_GET_ATTEMPTS: Final = 3
_FIRST_PAUSE: Final = 0.1
_CALL_ID: Final = "1"


class _Channel:
    """A lazily made session: sends one request, and turns what goes wrong into Unreachable."""

    def __init__(
        self,
        make_context: Callable[[], ssl.SSLContext],
        policy: identity.ServerPolicy,
        connect_timeout: float,
        pool_size: int,
        keep_alive: bool = True,
    ) -> None:
        self._make_context = make_context
        self._always = {} if keep_alive else {"Connection": "close"}
        self._policy = policy
        self._connect_timeout = connect_timeout
        self._pool_size = pool_size
        self._session: requests.Session | None = None
        self._lock = threading.Lock()

    def _opened(self) -> requests.Session:
        with self._lock:
            if self._session is None:
                from conpaas.core.https import transport

                self._session = transport.session(self._make_context(), self._policy, self._pool_size)
            return self._session

    def close(self) -> None:
        with self._lock:
            if self._session is not None:
                self._session.close()
                self._session = None

    def send(
        self, verb: str, url: str, peer: str, what: str, timeout: float, *, data: Any = None, headers: Mapping[str, str] | None = None
    ) -> requests.Response:
        """Send a request; the body of the response is not read yet. GETs that found no server are tried again."""
        from conpaas.core.https.lean import requests

        attempts = _GET_ATTEMPTS if verb == "GET" else 1
        for attempt in range(attempts):
            try:
                return self._opened().request(
                    verb,
                    url,
                    data=data,
                    headers={**self._always, **(headers or {})},
                    timeout=(min(self._connect_timeout, timeout), timeout),
                    allow_redirects=False,
                    stream=True,
                )
            except requests.exceptions.Timeout as error:
                raise _timed_out(peer, what, timeout, error) from error
            except (requests.exceptions.SSLError, requests.exceptions.InvalidURL) as error:
                raise errors.Unreachable(f"{peer} is not reachable: {_cause(error)}.", peer=peer, method=what) from error
            except requests.exceptions.RequestException as error:
                if attempt + 1 == attempts:
                    raise errors.Unreachable(f"{peer} is not reachable: {_cause(error)}.", peer=peer, method=what) from error
                log.debug("%s on %s failed, trying again: %s", what, peer, error)
                time.sleep(_FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.5))
        raise AssertionError("not reached")


def _timed_out(peer: str, what: str, timeout: float, error: Exception) -> errors.Unreachable:
    from conpaas.core.https.lean import requests

    if isinstance(error, requests.exceptions.ConnectTimeout):
        return errors.Unreachable(f"{peer} is not reachable: no connection in time.", peer=peer, method=what)
    return errors.Unreachable(f"{peer} did not answer {what} within {timeout:g} seconds.", peer=peer, method=what)


def _cause(error: BaseException) -> str:
    """The innermost reason of a failed request, without the layers that wrapped it."""
    cause: BaseException = error
    seen: set[int] = set()
    while id(cause) not in seen:
        seen.add(id(cause))
        inner = [arg for arg in (*cause.args, getattr(cause, "reason", None)) if isinstance(arg, BaseException)]
        following = inner[-1] if inner else cause.__cause__ or cause.__context__
        if following is None:
            break
        cause = following
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({cause.verify_message})"
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed ({(cause.reason or str(cause)).replace('_', ' ').lower()})"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror[:1].lower() + cause.strerror[1:]
    return str(cause) or type(cause).__name__


def _read(response: requests.Response, peer: str, what: str) -> bytes:
    """The whole body of a response, within MAX_REPLY."""
    pieces, size = [], 0
    for piece in _stream(response, peer, what):
        size += len(piece)
        if size > MAX_REPLY:
            response.close()
            raise errors.TooLarge(f"The answer of {peer} to {what} has more than {MAX_REPLY} bytes.")
        pieces.append(piece)
    return b"".join(pieces)


def _stream(response: requests.Response, peer: str, what: str) -> Iterator[bytes]:
    """The body in pieces; the connection goes back to the pool at its end. Raises Unreachable when it breaks off."""
    import urllib3.exceptions

    try:
        yield from response.raw.stream(_CHUNK, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise errors.Unreachable(f"{peer} broke off its answer to {what}: {_cause(error)}.", peer=peer, method=what) from error
    finally:
        response.close()


def _decoded(body: bytes) -> Any:
    """The JSON in a body, or None if it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _error_text(document: Any) -> tuple[str, str | None] | None:
    """The text and the hint of an error reply, or None if it is not one."""
    if not isinstance(document, dict) or document.get("error") is None:
        return None
    error = document["error"]
    text = error.get("message", error) if isinstance(error, dict) else error
    hint = document.get("hint")
    return str(text), hint if isinstance(hint, str) else None


def _raise_remote(response: requests.Response, body: bytes, peer: str, what: str) -> NoReturn:
    """Raise the error in a reply whose status is not 200."""
    found = _error_text(_decoded(body))
    if found is None:
        text = body[:200].decode("utf-8", "replace").strip() or response.reason
        found = f"{peer} answered {what} with HTTP {response.status_code}: {text}", None
    raise errors.RemoteError(found[0], peer=peer, method=what, hint=found[1])


@dataclasses.dataclass(frozen=True)
class FileStream:
    """A file on its way: how many bytes it has, if that was told, and the pieces, which must be read to the end or closed."""

    size: int | None
    pieces: Iterator[bytes]


class RpcClient:
    """Calls the exposed methods of managers or agents. Thread-safe; connections are kept and used again, unless `keep_alive` is false.

    `server_policy` decides who may answer (identity.expect_manager and the like). `read_timeout` (seconds) is the longest
    silence of the peer; a call's own `timeout` replaces it.
    """

    def __init__(
        self,
        credentials: identity.Credentials,
        server_policy: identity.ServerPolicy,
        *,
        connect_timeout: float = 5.0,
        read_timeout: float = 60.0,
        pool_size: int = 8,
        keep_alive: bool = True,
    ) -> None:
        self._read_timeout = read_timeout
        self._channel = _Channel(lambda: tls.client_context(credentials), server_policy, connect_timeout, pool_size, keep_alive)

    def close(self) -> None:
        """Close the connections. The client can be used again afterwards."""
        self._channel.close()

    def get(
        self, address: Address, method: str, service_id: int = 0, params: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> Any:
        """Call a GET method and return its result; tried again, within bounds, while there is no connection."""
        peer, response = self._call_get(address, method, service_id, params, timeout)
        return self._result(response, _read(response, peer, method), peer, method)

    def _call_get(
        self, address: Address, method: str, service_id: int, params: Mapping[str, Any] | None, timeout: float | None
    ) -> tuple[str, requests.Response]:
        query = {"service_id": service_id, "method": method, "id": _CALL_ID}
        if params:
            query["params"] = json.dumps(params)
        url, peer = _locate(address)
        url = f"{url}?{urllib.parse.urlencode(query)}"
        headers = {"Content-Type": "application/json"}
        response = self._channel.send("GET", url, peer, method, timeout or self._read_timeout, headers=headers)
        return peer, response

    def post(
        self, address: Address, method: str, service_id: int = 0, params: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> Any:
        """Call a POST method and return its result; never sent twice."""
        envelope = {"service_id": service_id, "method": method, "params": params or {}, "id": _CALL_ID}
        url, peer = _locate(address)
        headers = {"Content-Type": "application/json"}
        data = json.dumps(envelope).encode()
        response = self._channel.send("POST", url, peer, method, timeout or self._read_timeout, data=data, headers=headers)
        return self._result(response, _read(response, peer, method), peer, method)

    def upload(
        self,
        address: Address,
        method: str,
        service_id: int = 0,
        fields: Mapping[str, Any] | None = None,
        files: Files | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Call an UPLOAD method and return its result; files are streamed from disk."""
        form = multipart.FormWriter({"service_id": service_id, "method": method, **(fields or {})}, files or {})
        url, peer = _locate(address)
        response = _send_form(self._channel, url, peer, method, timeout or self._read_timeout, form)
        return self._result(response, _read(response, peer, method), peer, method)

    def stream(
        self, address: Address, method: str, service_id: int = 0, params: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> FileStream:
        """Call a GET method that answers with a file, and read it as it comes."""
        peer, response = self._call_get(address, method, service_id, params, timeout)
        if response.status_code != 200 or "Content-disposition" not in response.headers:
            self._result(response, _read(response, peer, method), peer, method)
            raise errors.RemoteError(f"{peer} answered {method} without a file.", peer=peer, method=method)
        told = response.headers.get("Content-Length", "")
        return FileStream(int(told) if told.isdecimal() else None, _stream(response, peer, method))

    def download(
        self,
        address: Address,
        method: str,
        service_id: int = 0,
        params: Mapping[str, Any] | None = None,
        *,
        to: pathlib.Path,
        timeout: float | None = None,
    ) -> int:
        """Call a GET method that answers with a file, and write it to `to`, complete or not at all. Returns its size."""
        pieces = self.stream(address, method, service_id, params, timeout).pieces
        partial = to.with_name(f"{to.name}.part")
        size = 0
        try:
            with partial.open("wb") as file:
                for piece in pieces:
                    size += file.write(piece)
            partial.replace(to)
        finally:
            partial.unlink(missing_ok=True)
        return size

    @staticmethod
    def _result(response: requests.Response, body: bytes, peer: str, method: str) -> Any:
        if response.status_code != 200:
            _raise_remote(response, body, peer, method)
        document = _decoded(body)
        if not isinstance(document, dict):
            raise errors.RemoteError(f"{peer} answered {method} with something that is not a reply.", peer=peer, method=method)
        failed = _error_text(document)
        if failed is not None:
            raise errors.RemoteError(failed[0], peer=peer, method=method, hint=failed[1])
        return document.get("result", document)


def _locate(address: Address) -> tuple[str, str]:
    host, port = address
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"https://{shown}/", shown


def _send_form(
    channel: _Channel, url: str, peer: str, what: str, timeout: float, form: multipart.FormWriter, more: Mapping[str, str] | None = None
) -> requests.Response:
    headers = {**(more or {}), "Content-Type": form.content_type, "Content-Length": str(len(form))}
    return channel.send("POST", url, peer, what, timeout, data=form, headers=headers)


class DirectorClient:
    """Calls the Director's API by path. Without credentials it shows no certificate, and `ca` says whom to trust."""

    def __init__(
        self,
        url: str,
        credentials: identity.Credentials | None = None,
        *,
        ca: pathlib.Path | None = None,
        connect_timeout: float = 5.0,
        read_timeout: float = 60.0,
        pool_size: int = 4,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise errors.ConfigurationError(f"The Director's address must be of the form https://host:port, not '{url}'.")
        self.url = url.rstrip("/")
        self._peer = parts.netloc
        self._read_timeout = read_timeout
        self._channel = _Channel(lambda: tls.client_context(credentials, ca), identity.expect_director(), connect_timeout, pool_size)

    def close(self) -> None:
        """Close the connections. The client can be used again afterwards."""
        self._channel.close()

    def get(self, path: str, /, timeout: float | None = None, **params: Any) -> Any:
        """The decoded answer to a GET; parameters that are None are left out. Tried again while there is no connection."""
        return self._answer(self._get(path, params, timeout), path)

    def raw(self, path: str, /, timeout: float | None = None, **params: Any) -> bytes:
        """The body of the answer to a GET, as it is; raises RemoteError if it is an error reply."""
        response = self._get(path, params, timeout)
        body = _read(response, self._peer, path)
        if response.status_code != 200:
            _raise_remote(response, body, self._peer, path)
        self._check(_decoded(body) if body[:1] == b"{" else None, path)
        return body

    def post(
        self,
        path: str,
        fields: Mapping[str, Any] | None = None,
        files: Files | None = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The decoded answer to a POST of form fields and files; fields that are None are left out. Never sent twice."""
        form = multipart.FormWriter({name: value for name, value in (fields or {}).items() if value is not None}, files or {})
        return self._answer(_send_form(self._channel, self._at(path), self._peer, path, timeout or self._read_timeout, form, headers), path)

    def _at(self, path: str) -> str:
        return f"{self.url}/{path.lstrip('/')}"

    def _get(self, path: str, params: Mapping[str, Any], timeout: float | None) -> requests.Response:
        query = urllib.parse.urlencode({name: value for name, value in params.items() if value is not None})
        url = f"{self._at(path)}?{query}" if query else self._at(path)
        return self._channel.send("GET", url, self._peer, path, timeout or self._read_timeout)

    def _answer(self, response: requests.Response, path: str) -> Any:
        body = _read(response, self._peer, path)
        if response.status_code != 200:
            _raise_remote(response, body, self._peer, path)
        try:
            document = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise errors.RemoteError(
                f"The Director answered {path} with something that is not JSON.", peer=self._peer, method=path
            ) from error
        self._check(document, path)
        return document

    def _check(self, document: Any, path: str) -> None:
        failed = _error_text(document)
        if failed is not None:
            raise errors.RemoteError(failed[0], peer=self._peer, method=path, hint=failed[1])
