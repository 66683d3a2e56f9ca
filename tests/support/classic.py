"""What the unmodified clients of ConPaaS 2 send, byte for byte: the command line (Python 2.7) and the web front-end (PHP with curl)."""

from __future__ import annotations

import abc
import json
import pathlib
import ssl
import urllib.parse
from typing import Any

from tests.support import wire

PORT = 443
JSON = "application/json"
PYTHON_BOUNDARY = "----------_BoUnDaRy_StRiNg_$"
CURL_BOUNDARY = "------------------------4c1d6fcd8d2a1e59"

Files = dict[str, tuple[str, bytes]]


class ClassicError(Exception):
    """The reply was an error, as the client would print it."""


class Client(abc.ABC):
    """One classic client: `director` asks the Director, `get`, `post` and `upload` ask a manager."""

    def __init__(self, director: wire.Address, public: ssl.SSLContext, username: str) -> None:
        self.director_address = director
        self.public = public
        self.username = username
        self.user: ssl.SSLContext | None = None

    # To be defined by each kind

    @abc.abstractmethod
    def director(self, path: str, fields: dict[str, Any] | None = None, *, post: bool = True) -> Any:
        """Call the Director as this client does: with the user's certificate once there is one."""

    @abc.abstractmethod
    def get(self, manager: str, service_id: int, method: str, params: dict[str, Any] | None = None) -> Any: ...

    @abc.abstractmethod
    def post(self, manager: str, service_id: int, method: str, params: dict[str, Any] | None = None) -> Any: ...

    @abc.abstractmethod
    def upload(self, manager: str, service_id: int, method: str, fields: dict[str, Any], files: Files) -> Any: ...

    @abc.abstractmethod
    def add_nodes_counts(self) -> dict[str, int]:
        """How this client asks for one more node of a generic service."""

    # What they have in common

    def sign_in(self, password: str, directory: pathlib.Path) -> None:
        """Fetch the user's certificate and use it from now on."""
        import io
        import zipfile

        packed = self.director("/getcerts", {"username": self.username, "password": password})
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            assert sorted(archive.namelist()) == ["ca_cert.pem", "cert.pem", "key.pem"]
            archive.extractall(directory)
        self.user = wire.of_directory(directory)


def multipart(boundary: str, fields: dict[str, Any], files: Files, text: Any = str) -> bytes:
    """A form as both clients write it: no escaping, no charset, values as text."""
    lines: list[bytes] = []
    for name, value in fields.items():
        lines += [f"--{boundary}".encode(), f'Content-Disposition: form-data; name="{name}"'.encode(), b"", text(value).encode()]
    for name, (filename, content) in files.items():
        kind = "application/x-tar" if filename.endswith((".tar", ".tar.gz")) else "application/octet-stream"
        disposition = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"'
        lines += [f"--{boundary}".encode(), disposition.encode(), f"Content-Type: {kind}".encode(), b"", content]
    return b"\r\n".join([*lines, f"--{boundary}--".encode(), b""])


def head(*lines: str) -> bytes:
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class PythonClient(Client):
    """The command line: one connection per request, the whole URL as the target, read to the end of the stream."""

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
        body = multipart(PYTHON_BOUNDARY, {"service_id": 0, **fields}, files)
        request = head(
            f"POST https://{address[0]}:{address[1]}{path} HTTP/1.1",
            f"Host: {address[0]}:{address[1]}",
            "Accept-Encoding: identity",
            "Connection: close",
            f"Content-Type: multipart/form-data; boundary={PYTHON_BOUNDARY}",
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

    def add_nodes_counts(self) -> dict[str, int]:
        return {"count": 1}


class PhpClient(Client):
    """The web front-end: curl, its own certificate towards managers, `[]` for no arguments, everything at the Director is a POST."""

    def __init__(self, director: wire.Address, frontend: ssl.SSLContext, username: str) -> None:
        super().__init__(director, frontend, username)
        self.frontend = frontend

    def _exchange(self, address: wire.Address, tls: ssl.SSLContext, request: bytes) -> Any:
        with wire.connect(address, tls) as connection:
            connection.sendall(request)
            reply = wire.read_reply(connection)
        if reply.status >= 400:
            raise ClassicError(f"The requested URL returned error: {reply.status}")
        try:
            return reply.json
        except ValueError:
            return reply.body

    def _form(self, address: wire.Address, tls: ssl.SSLContext, path: str, fields: dict[str, Any], files: Files) -> Any:
        lines = [f"POST {path} HTTP/1.1", f"Host: {address[0]}:{address[1]}", "Accept: */*"]
        if not fields and not files:
            request = head(*lines, "Content-Length: 0", "Content-Type: application/x-www-form-urlencoded")
            return self._exchange(address, tls, request)
        body = multipart(CURL_BOUNDARY, fields, files)
        request = head(*lines, f"Content-Length: {len(body)}", f"Content-Type: multipart/form-data; boundary={CURL_BOUNDARY}")
        return self._exchange(address, tls, request + body)

    def director(self, path: str, fields: dict[str, Any] | None = None, *, post: bool = True) -> Any:
        found = self._form(self.director_address, self.user or self.frontend, path, fields or {}, {})
        if isinstance(found, dict) and "error" in found:
            raise ClassicError(found["error"])
        return found

    def _result(self, reply: Any) -> Any:
        if not isinstance(reply, dict):
            return reply
        assert reply, "an empty object is a parse error to this client"
        if reply.get("error") is not None:
            raise ClassicError(reply["error"])
        assert reply["result"] is not None
        return reply["result"]

    def get(self, manager: str, service_id: int, method: str, params: dict[str, Any] | None = None) -> Any:
        query = {"method": method, "service_id": service_id, "params": json.dumps(params or []), "id": 1}
        request = head(f"GET /?{urllib.parse.urlencode(query)} HTTP/1.1", f"Host: {manager}", "Accept: */*", f"Content-Type: {JSON}")
        return self._result(self._exchange((manager, PORT), self.frontend, request))

    def post(self, manager: str, service_id: int, method: str, params: dict[str, Any] | None = None) -> Any:
        call = {"method": method, "service_id": service_id, "params": params or [], "jsonrpc": "2.0", "id": 1}
        body = json.dumps(call).encode()
        request = head("POST / HTTP/1.1", f"Host: {manager}", "Accept: */*", f"Content-Type: {JSON}", f"Content-Length: {len(body)}")
        return self._result(self._exchange((manager, PORT), self.frontend, request + body))

    def upload(self, manager: str, service_id: int, method: str, fields: dict[str, Any], files: Files) -> Any:
        reply = self._form((manager, PORT), self.frontend, "/", {"method": method, "service_id": service_id, **fields}, files)
        return self._result(reply)

    def add_nodes_counts(self) -> dict[str, int]:
        return {"node": 1}
