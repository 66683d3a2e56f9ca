"""What the unmodified command line of ConPaaS 2 (Python 2.7) sends, byte for byte. The web front-end is in `php_frontend`."""

from __future__ import annotations

import io
import json
import pathlib
import ssl
import urllib.parse
import zipfile
from typing import Any

from tests.support import wire

PORT = 443
JSON = "application/json"
BOUNDARY = "----------_BoUnDaRy_StRiNg_$"

Files = dict[str, tuple[str, bytes]]


class ClassicError(Exception):
    """The reply was an error, as the client would print it."""


def multipart(fields: dict[str, Any], files: Files) -> bytes:
    """A form as this client writes it: no escaping, no charset, values as text."""
    lines: list[bytes] = []
    for name, value in fields.items():
        lines += [f"--{BOUNDARY}".encode(), f'Content-Disposition: form-data; name="{name}"'.encode(), b"", str(value).encode()]
    for name, (filename, content) in files.items():
        kind = "application/x-tar" if filename.endswith((".tar", ".tar.gz")) else "application/octet-stream"
        disposition = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"'
        lines += [f"--{BOUNDARY}".encode(), disposition.encode(), f"Content-Type: {kind}".encode(), b"", content]
    return b"\r\n".join([*lines, f"--{BOUNDARY}--".encode(), b""])


def head(*lines: str) -> bytes:
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class PythonClient:
    """The command line: one connection per request, the whole URL as the target, read to the end of the stream.

    `director` asks the Director, with the user's certificate once there is one; `get`, `post` and `upload` ask a manager.
    """

    def __init__(self, director: wire.Address, public: ssl.SSLContext, username: str) -> None:
        self.director_address = director
        self.public = public
        self.username = username
        self.user: ssl.SSLContext | None = None

    def sign_in(self, password: str, directory: pathlib.Path) -> None:
        """Fetch the user's certificate and use it from now on."""
        packed = self.director("/getcerts", {"username": self.username, "password": password})
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            assert sorted(archive.namelist()) == ["ca_cert.pem", "cert.pem", "key.pem"]
            archive.extractall(directory)
        self.user = wire.of_directory(directory)

    def _exchange(self, address: wire.Address, request: bytes) -> Any:
        reply = wire.exchange(address, self.user or self.public, request)
        if reply.status != 200:
            raise ClassicError(f"HTTP status {reply.status}.")
        try:
            found = reply.json
        except ValueError:
            return reply.body
        if isinstance(found, dict) and "error" in found and "result" not in found:
            raise ClassicError(found["error"])
        return found

    def _multipart(self, address: wire.Address, path: str, fields: dict[str, Any], files: Files) -> Any:
        body = multipart({"service_id": 0, **fields}, files)
        request = head(
            f"POST https://{address[0]}:{address[1]}{path} HTTP/1.1",
            f"Host: {address[0]}:{address[1]}",
            "Accept-Encoding: identity",
            "Connection: close",
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
            f"Content-Length: {len(body)}",
        )
        return self._exchange(address, request + body)

    def director(self, path: str, fields: dict[str, Any] | None = None, *, post: bool = True) -> Any:
        named = {"username": self.username, **(fields or {})}
        if post:
            return self._multipart(self.director_address, path, named, {})
        host, port = self.director_address
        query = urllib.parse.urlencode({"service_id": 0, **named})
        request = head(
            f"GET https://{host}:{port}{path}?{query} HTTP/1.1", f"Host: {host}:{port}", "Accept-Encoding: identity", "Connection: close"
        )
        return self._exchange(self.director_address, request)

    def _result(self, reply: Any) -> Any:
        """As the original takes replies apart: `error` must be there too; a result that has a key `error` is a failure."""
        if not isinstance(reply, dict):
            return reply
        if reply["error"]:
            raise ClassicError(reply["error"])
        result = reply["result"]
        if isinstance(result, dict) and "error" in result:
            raise ClassicError(str(result["error"]))
        return result

    def _before(self) -> None:
        """Each call of a manager is preceded by one that asks for its address."""
        assert isinstance(self.director("/listapp", post=False), list)

    def get(self, manager: str, service_id: int, method: str, params: dict[str, Any] | None = None) -> Any:
        self._before()
        query = {"service_id": service_id, "method": method, "id": 1, **({"params": json.dumps(params)} if params else {})}
        request = head(
            f"GET https://{manager}:{PORT}/?{urllib.parse.urlencode(query)} HTTP/1.1",
            f"Host: {manager}:{PORT}",
            "Accept-Encoding: identity",
            f"Content-Type: {JSON}",
            "Connection: close",
        )
        return self._result(self._exchange((manager, PORT), request))

    def post(self, manager: str, service_id: int, method: str, params: dict[str, Any] | None = None) -> Any:
        self._before()
        body = json.dumps({"service_id": service_id, "method": method, "params": params or {}, "id": "1"}).encode()
        request = head(
            f"POST https://{manager}:{PORT}/ HTTP/1.1",
            f"Host: {manager}:{PORT}",
            "Accept-Encoding: identity",
            f"Content-Length: {len(body)}",
            f"Content-Type: {JSON}",
            "Connection: close",
        )
        return self._result(self._exchange((manager, PORT), request + body))

    def upload(self, manager: str, service_id: int, method: str, fields: dict[str, Any], files: Files) -> Any:
        self._before()
        return self._result(self._multipart((manager, PORT), "/", {"service_id": service_id, "method": method, **fields}, files))
