"""Requests as bytes, replies as bytes: what a client of any kind puts on a TLS connection, without a library that would tidy it up."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import socket
import ssl
import urllib.parse
from typing import Any

TIMEOUT = 60.0

Address = tuple[str, int]


@dataclasses.dataclass(frozen=True)
class Reply:
    """One HTTP reply; `status` is 0 if the server ended the connection in the TLS handshake or before it said anything."""

    status: int
    headers: dict[str, str]
    body: bytes
    reason: str = ""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


def context(ca: pathlib.Path | None, certificate: pathlib.Path | None = None, key: pathlib.Path | None = None) -> ssl.SSLContext:
    """TLS as old clients do it: the chain is checked if there is a CA, names never."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    if ca is not None:
        made.load_verify_locations(ca)
        made.verify_mode = ssl.CERT_REQUIRED
    if certificate is not None:
        made.load_cert_chain(certificate, key)
    return made


def of_directory(directory: pathlib.Path, *, ca: pathlib.Path | None = None) -> ssl.SSLContext:
    """TLS with the `cert.pem`, `key.pem` and `ca_cert.pem` of a directory."""
    return context(ca or directory / "ca_cert.pem", directory / "cert.pem", directory / "key.pem")


def connect(address: Address, tls: ssl.SSLContext, timeout: float = TIMEOUT) -> ssl.SSLSocket:
    plain = socket.create_connection(address, timeout=timeout)
    try:
        return tls.wrap_socket(plain, server_hostname=address[0])
    except (OSError, ValueError):
        plain.close()
        raise


def exchange(address: Address, tls: ssl.SSLContext, request: bytes, timeout: float = TIMEOUT) -> Reply:
    """Send a request and read until the server closes, as the original client does; a refused handshake is a reply of status 0."""
    try:
        with connect(address, tls, timeout) as connection:
            connection.sendall(request)
            return parse(read_all(connection))
    except (ssl.SSLError, ConnectionError) as error:
        return Reply(0, {}, b"", str(error))


def read_all(connection: ssl.SSLSocket) -> bytes:
    """All bytes until the other side closes."""
    chunks: list[bytes] = []
    while True:
        try:
            chunk = connection.recv(65536)
        except ssl.SSLEOFError:
            chunk = b""
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)


def read_reply(connection: ssl.SSLSocket) -> Reply:
    """One reply of a connection that stays open, by its Content-Length; a `100 Continue` before it is skipped."""
    data = b""
    while True:
        head, found, rest = data.partition(b"\r\n\r\n")
        if found and head.split(b" ")[1] == b"100":
            data = rest
            continue
        if found:
            reply = parse(data)
            if len(reply.body) >= int(reply.headers["content-length"]):
                return reply
        chunk = connection.recv(65536)
        if not chunk:
            raise ConnectionError(f"the server closed after {data[:200]!r}")
        data += chunk


def parse(data: bytes) -> Reply:
    if not data:
        return Reply(0, {}, b"", "the server closed without a word")
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Reply(int(first.split(" ")[1]), headers, body)


def call(verb: str, service_id: int, method: str, params: dict[str, Any] | None = None, *, host: str = "manager") -> bytes:
    """The bytes of one RPC; of an upload, each parameter that is bytes is a file. The connection ends after the reply."""
    tail = f"Host: {host}\r\nConnection: close\r\nContent-Type: "
    if verb == "GET":
        fields = {"service_id": service_id, "method": method, "id": 1, "params": json.dumps(params or {})}
        return f"GET /?{urllib.parse.urlencode(fields)} HTTP/1.1\r\n{tail}application/json\r\n\r\n".encode()
    if verb == "POST":
        body = json.dumps({"service_id": service_id, "method": method, "params": params or {}, "id": 1}).encode()
        return f"POST / HTTP/1.1\r\n{tail}application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    return form("/", {"service_id": service_id, "method": method, **(params or {})}, host=host)


def form(path: str, fields: dict[str, Any], *, host: str = "director") -> bytes:
    """The bytes of a POST of a form; each field that is bytes is a file named after the field."""
    boundary = "b0undary"
    body = b""
    for name, value in fields.items():
        disposition = f'form-data; name="{name}"' + (f'; filename="{name}"' if isinstance(value, bytes) else "")
        content = value if isinstance(value, bytes) else str(value).encode()
        body += f"--{boundary}\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Content-Type: multipart/form-data; boundary={boundary}\r\n\r\n".encode() + body
