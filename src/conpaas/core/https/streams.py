"""Buffered input and output of a connection.

Input does not block until a request's head is complete, so that a slow peer costs a buffer and not a worker thread.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from typing import Final

from cheroot import errors as cheroot_errors
from cheroot import server as cheroot_server

CHUNK: Final = 64 * 1024


class PeerGone(Exception):
    """The peer closed the connection."""


class Reader:
    """Input of one connection. `socket` may be replaced once by its TLS wrapper before anything is read.

    `head_deadline` (monotonic, 0 when none) is when a head that has begun must have arrived.
    """

    def __init__(self, sock: socket.socket, io_timeout: float) -> None:
        self.socket = sock
        self.closed = False
        self.bytes_read = 0
        self.deadline = 0.0
        self.head_deadline = 0.0
        self._io_timeout = io_timeout
        self._buffer = b""
        self._scanned = 0

    def has_data(self) -> bool:
        """True when there is input that the kernel will not announce again: here, or decrypted in the TLS layer."""
        if self._buffer:
            return True
        return isinstance(self.socket, ssl.SSLSocket) and self.socket.pending() > 0

    def take_head(self, limit: int) -> bytes | None:
        """The next request's head with its final empty line, or None if it is not complete and nothing more has arrived.

        Raises PeerGone at the end of input, MaxSizeExceeded when the head is longer than `limit`.
        """
        while True:
            end = self._end_of_head()
            if end:
                head, self._buffer, self._scanned = self._buffer[:end], self._buffer[end:], 0
                return head
            if len(self._buffer) >= limit:
                raise cheroot_errors.MaxSizeExceeded
            data = self._receive_now()
            if data is None:
                return None
            self._buffer = self._buffer + data if self._buffer else data

    def fill(self, size: int) -> bool:
        """Receive what has arrived, without blocking; True when `size` bytes are there. Raises PeerGone."""
        while len(self._buffer) < size:
            data = self._receive_now()
            if data is None:
                return False
            self._buffer += data
        return True

    @property
    def partial(self) -> bool:
        """True when part of a request's head has arrived."""
        return bool(self._buffer)

    def _end_of_head(self) -> int:
        """Where the body starts, or 0. A bare line feed ends a line too, for the parser to refuse it with a reason."""
        if self._buffer.startswith((b"\r", b"\n")):
            self._buffer = self._buffer.lstrip(b"\r\n")
        found = self._buffer.find(b"\r\n\r\n", self._scanned)
        if found >= 0:
            return found + 4
        found = self._buffer.find(b"\n\n", self._scanned)
        if found >= 0:
            return found + 2
        self._scanned = max(0, len(self._buffer) - 3)
        return 0

    def _receive_now(self) -> bytes | None:
        try:
            data = self.socket.recv(CHUNK)
        except (ssl.SSLWantReadError, BlockingIOError):
            return None
        if not data:
            raise PeerGone
        self.bytes_read += len(data)
        return data

    def start_body(self, deadline: float) -> None:
        """From now on reads block, until `deadline` (monotonic) at most."""
        self.deadline = deadline

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer only at the end of input; raises TimeoutError."""
        if len(self._buffer) >= size:
            data, self._buffer = self._buffer[:size], self._buffer[size:]
            return data
        parts, missing = [self._buffer], size - len(self._buffer)
        self._buffer = b""
        while missing:
            data = self._receive_waiting(min(missing, CHUNK))
            if not data:
                break
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def readline(self, size: int) -> bytes:
        """Up to and including a line feed, but no more than `size` bytes; raises TimeoutError."""
        while (end := self._buffer.find(b"\n", 0, size) + 1) == 0 and len(self._buffer) < size:
            data = self._receive_waiting(CHUNK)
            if not data:
                break
            self._buffer += data
        end = end or min(size, len(self._buffer))
        line, self._buffer = self._buffer[:end], self._buffer[end:]
        return line

    def _receive_waiting(self, size: int) -> bytes:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the body takes too long to arrive")
        self.socket.settimeout(min(left, self._io_timeout))
        data = self.socket.recv(size)
        self.bytes_read += len(data)
        return data

    def close(self) -> None:
        """Forget what was read."""
        self.closed = True
        self._buffer = b""


class Writer:
    """Output of one connection: small pieces are collected, so that a reply is one TLS record and one packet."""

    def __init__(self, sock: socket.socket, io_timeout: float) -> None:
        self.socket = sock
        self.bytes_written = 0
        self._io_timeout = io_timeout
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> int:
        """Add to the reply; sends when enough has been collected."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= CHUNK:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Send what was collected; raises OSError (TimeoutError when the peer does not take it)."""
        if not self._pieces:
            return
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces, self._size = [], 0
        self.socket.settimeout(self._io_timeout)
        self.socket.sendall(data)
        self.bytes_written += len(data)


class Body(cheroot_server.KnownLengthRFile):
    """A request's body as WSGI input. `before` is called once, before the first byte is waited for."""

    def __init__(self, reader: Reader, length: int, before: Callable[[], None]) -> None:
        super().__init__(reader, length)
        self._before: Callable[[], None] | None = before

    def read(self, size: int | None = None) -> bytes:
        """Up to `size` bytes (None or negative: the rest); raises TimeoutError."""
        self._begin()
        return super().read(None if size is None or size < 0 else size)

    def readline(self, size: int | None = None) -> bytes:
        """One line of the body; raises TimeoutError."""
        self._begin()
        return super().readline(None if size is None or size < 0 else size)

    def _begin(self) -> None:
        if self._before is not None:
            before, self._before = self._before, None
            before()

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line
