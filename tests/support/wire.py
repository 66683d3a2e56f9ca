"""Requests as bytes, replies as bytes: what a client of any kind puts on a TLS connection, without a library that would tidy it up."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import socket
import ssl
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
