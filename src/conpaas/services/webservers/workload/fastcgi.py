"""A FastCGI client, as small as asking a pool whether it answers needs."""

from __future__ import annotations

import dataclasses
import re
import socket
import struct
from collections.abc import Mapping
from typing import Final

_HEADER: Final = struct.Struct(">BBHHBx")
_BEGIN, _END, _PARAMS, _STDIN, _STDOUT, _STDERR = 1, 3, 4, 5, 6, 7
_RESPONDER: Final = b"\0\1\0\0\0\0\0\0"
_STATUS: Final = re.compile(rb"^Status:\s*([0-9]{3})", re.IGNORECASE | re.MULTILINE)
_MAX_ANSWER: Final = 16 << 20
_MAX_RECORD: Final = 65_535


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a responder answered. `errors` is what it wrote to the stream of errors."""

    status: int
    headers: str
    body: bytes
    errors: str = ""


def ask(address: tuple[str, int], params: Mapping[str, str], body: bytes = b"", *, timeout: float = 5.0) -> Answer:
    """Send one request and return the whole answer; raises OSError when there is none within `timeout` seconds (between two packets)."""
    with socket.create_connection(address, timeout=timeout) as connection:
        connection.sendall(_record(_BEGIN, _RESPONDER) + _stream(_PARAMS, _pairs(params)) + _stream(_STDIN, body))
        stream = connection.makefile("rb")
        parts: dict[int, list[bytes]] = {_STDOUT: [], _STDERR: []}
        size = 0
        while True:
            header = stream.read(_HEADER.size)
            if len(header) < _HEADER.size:
                raise OSError("the connection was closed in the middle of an answer")
            _, kind, _, length, padding = _HEADER.unpack(header)
            content = stream.read(length + padding)[:length]
            if kind == _END:
                break
            size += length
            if size > _MAX_ANSWER:
                raise OSError(f"the answer is longer than {_MAX_ANSWER} bytes")
            if kind in parts:
                parts[kind].append(content)
    head, _, rest = b"".join(parts[_STDOUT]).partition(b"\r\n\r\n")
    status = _STATUS.search(head)
    said = b"".join(parts[_STDERR]).decode(errors="replace")
    return Answer(int(status[1]) if status else 200, head.decode("latin-1"), rest, said)


def _record(kind: int, content: bytes) -> bytes:
    return _HEADER.pack(1, kind, 1, len(content), 0) + content


def _stream(kind: int, content: bytes) -> bytes:
    pieces = [_record(kind, content[start : start + _MAX_RECORD]) for start in range(0, len(content), _MAX_RECORD)]
    return b"".join((*pieces, _record(kind, b"")))


def _pairs(params: Mapping[str, str]) -> bytes:
    made = bytearray()
    for name, value in params.items():
        pair = name.encode(), value.encode()
        for part in pair:
            made += bytes([len(part)]) if len(part) < 128 else struct.pack(">I", len(part) | 1 << 31)
        made += b"".join(pair)
    return bytes(made)
