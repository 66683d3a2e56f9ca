"""The WSGI application that speaks the RPC dialects: JSON over GET and POST, and multipart uploads, all on `/`."""

from __future__ import annotations

import http
import json
import logging
import os
import pathlib
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO, Final, NoReturn

from conpaas.core import errors, rpc
from conpaas.core.https import engine, identity, limits, multipart

JSON_TYPES: Final = frozenset({"application/json", "application/json-rpc", "application/jsonrequest"})
FORM_TYPE: Final = "multipart/form-data"
FILE_TYPE: Final = "application/octet-stream"

_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
_MAX_QUERY_FIELDS: Final = 100
_CHUNK: Final = 64 * 1024
_STATUS: Final = {status.value: f"{status.value} {status.phrase}" for status in http.HTTPStatus}

log = logging.getLogger(__name__)

StartResponse = Callable[..., Any]


class _Refused(Exception):
    """The request is answered with this reply, without a call."""

    def __init__(self, reply: rpc.RpcReply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def _refuse(status: int, text: str, call_id: Any = rpc.MISSING) -> NoReturn:
    raise _Refused(rpc.failure(call_id, text, status, "refused"))


class RpcEndpoint:
    """Turns HTTP requests into calls of an RpcApplication; see `server.rpc_wsgi`."""

    def __init__(
        self,
        app: rpc.RpcApplication,
        authorize: identity.CallerPolicy,
        extra_paths: Mapping[str, engine.WsgiApp],
        bounds: limits.Limits,
        spool_dir: pathlib.Path | None,
    ) -> None:
        self._app = app
        self._authorize = authorize
        self._extra_paths = dict(extra_paths)
        self._limits = bounds
        self._spool_dir = spool_dir

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (WSGI)."""
        try:
            caller = self._caller(environ)
            path = environ["PATH_INFO"]
            if path in self._extra_paths:
                return self._extra_paths[path](environ, start_response)
            reply = self._answer(environ, path, caller)
        except _Refused as refused:
            reply = refused.reply
        return send(reply, start_response)

    def _caller(self, environ: dict[str, Any]) -> identity.PeerIdentity:
        peer: identity.PeerIdentity | None = environ.get("conpaas.peer")
        if peer is None:
            _refuse(403, "A client certificate is needed to call this server.")
        try:
            self._authorize(peer)
        except errors.Forbidden as error:
            log.info("refused %s: %s", environ.get("REMOTE_ADDR"), error)
            raise _Refused(rpc.failure(None, error, 403, "refused")) from error
        return peer

    def _answer(self, environ: dict[str, Any], path: str, caller: identity.PeerIdentity) -> rpc.RpcReply:
        """Check path, content type and verb, in the classic order, then read the call and make it."""
        if path != "/":
            raise _Refused(rpc.plain(404, f"There is nothing at {path[:100]}; calls go to /."))
        content_type = environ.get("CONTENT_TYPE", "")
        if not content_type:
            raise _Refused(rpc.plain(415, "The header Content-Type is missing."))
        verb = environ["REQUEST_METHOD"]
        if verb not in {"GET", "POST"}:
            raise _Refused(rpc.plain(405, "Only GET and POST are allowed."))
        media_type, _, options = content_type.partition(";")
        media_type = media_type.strip().lower()
        if media_type in JSON_TYPES:
            _check_charset(options)
            call = _get_call(environ, caller) if verb == "GET" else self._post_call(environ, caller)
            return self._app.dispatch(call)
        if media_type == FORM_TYPE and verb == "POST":
            return self._upload(environ, content_type, caller)
        raise _Refused(rpc.plain(415, f"A {verb} request may not have the content type {media_type[:100]}."))

    def _post_call(self, environ: dict[str, Any], caller: identity.PeerIdentity) -> rpc.RpcCall:
        length = _content_length(environ, self._limits.json_bytes)
        body = environ["wsgi.input"].read(length)
        if len(body) < length:
            _refuse(400, "The request body ended early.")
        try:
            document = _decode(body.decode())
        except (ValueError, RecursionError) as error:
            _refuse(400, f"The request body is not valid JSON: {_short(error)}.")
        if not isinstance(document, dict):
            _refuse(400, "The request body must be a JSON object.")
        get = document.get
        params = get("params", {})
        missing = rpc.MISSING
        return rpc.RpcCall("POST", get("service_id", missing), get("method", missing), get("id", missing), params, caller)

    def _upload(self, environ: dict[str, Any], content_type: str, caller: identity.PeerIdentity) -> rpc.RpcReply:
        length = _content_length(environ, self._limits.upload_bytes)
        boundary = _boundary(content_type)
        try:
            with multipart.FormReader(boundary, self._spool_dir, self._limits) as form:
                fields: dict[str, Any] = dict(form.read(environ["wsgi.input"], length))
                service_id = fields.pop("service_id", rpc.MISSING)
                method = fields.pop("method", rpc.MISSING)
                return self._app.dispatch(rpc.RpcCall("UPLOAD", service_id, method, rpc.UPLOAD_ID, fields, caller))
        except errors.TooLarge as error:
            raise _Refused(rpc.failure(rpc.UPLOAD_ID, error, 413, "refused")) from error
        except errors.StorageFull as error:
            return rpc.failure(rpc.UPLOAD_ID, error)
        except errors.InvalidArgument as error:
            raise _Refused(rpc.failure(rpc.UPLOAD_ID, error, 400, "refused")) from error


def _get_call(environ: dict[str, Any], caller: identity.PeerIdentity) -> rpc.RpcCall:
    """The call in a query string: the last of repeated fields wins, blank ones do not count."""
    try:
        fields = dict(urllib.parse.parse_qsl(environ["QUERY_STRING"], errors="strict", max_num_fields=_MAX_QUERY_FIELDS))
    except ValueError:
        _refuse(400, "The query string is not URL-encoded UTF-8, or has too many fields.")
    get = fields.get
    call_id, missing = get("id", rpc.MISSING), rpc.MISSING
    params: Any = {}
    if "params" in fields:
        try:
            params = _decode(fields["params"])
        except (ValueError, RecursionError) as error:
            _refuse(400, f"Field 'params' is not valid JSON: {_short(error)}.", call_id)
    return rpc.RpcCall("GET", get("service_id", missing), get("method", missing), call_id, params, caller)


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is not allowed")


_decode = json.JSONDecoder(parse_constant=_not_json).decode


def _short(error: BaseException) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]


def _check_charset(options: str) -> None:
    for option in options.split(";"):
        name, _, value = option.partition("=")
        charset = value.strip().strip('"').lower()
        if name.strip().lower() == "charset" and charset not in _CHARSETS:
            raise _Refused(rpc.plain(415, f"JSON must be in UTF-8, not in {charset[:40]}."))


def _content_length(environ: dict[str, Any], limit: int) -> int:
    text = environ.get("CONTENT_LENGTH", "")
    if not text.isdigit():
        raise _Refused(rpc.plain(411, "The header Content-Length is missing."))
    length = int(text)
    if length > limit:
        error = errors.TooLarge(f"The request body has {length} bytes, more than the {limit} that are accepted.")
        raise _Refused(rpc.failure(None, error, 413, "refused"))
    return length


def _boundary(content_type: str) -> bytes:
    """The boundary of a multipart body, as the header gives it: quoted or not."""
    _, found, rest = content_type.partition("boundary=")
    boundary = rest.partition('"')[2].partition('"')[0] if rest.startswith('"') else rest.partition(";")[0].strip()
    if not found or not boundary:
        _refuse(400, "The content type of the upload names no boundary.", rpc.UPLOAD_ID)
    return boundary.encode("latin-1", "replace")


def send(reply: rpc.RpcReply, start_response: StartResponse) -> Iterable[bytes]:
    """Start the WSGI response for a reply and return its body."""
    if reply.download is not None:
        return _send_file(reply.download, start_response)
    body = reply.body or b""
    headers = [("Content-Type", reply.content_type), ("Content-Length", str(len(body)))]
    if reply.status == 405:
        headers.append(("Allow", "GET, POST"))
    start_response(_STATUS[reply.status], headers)
    return [body]


def _send_file(download: rpc.FileDownload, start_response: StartResponse) -> Iterable[bytes]:
    try:
        file = download.path.open("rb")
        if download.remove:
            download.path.unlink()
    except OSError as error:
        return send(rpc.internal_failure(None, f"download of {download.path}", error), start_response)
    size = os.fstat(file.fileno()).st_size
    name = "".join(letter if letter.isprintable() and letter not in '"\\' and ord(letter) < 256 else "_" for letter in download.name)
    # "attachement" is how the header has always been spelt on this wire.
    disposition = f'attachement; filename="{name}"'
    headers = [("Content-Type", FILE_TYPE), ("Content-Length", str(size)), ("Content-disposition", disposition)]
    start_response(_STATUS[200], headers)
    return _FileBody(file, size)


class _FileBody:
    """The content of a file as a WSGI body of exactly the announced size."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size

    def __iter__(self) -> Iterator[bytes]:
        while self._left > 0:
            data = self._file.read(min(_CHUNK, self._left))
            if not data:
                # The reply cannot be completed; only closing the connection tells the client.
                raise ConnectionAbortedError("the file became shorter while it was being sent")
            self._left -= len(data)
            yield data

    def close(self) -> None:
        self._file.close()
