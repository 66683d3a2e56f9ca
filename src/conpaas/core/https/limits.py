"""What a server spends on one peer at most, and on all of them."""

from __future__ import annotations

import dataclasses

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    head_bytes: int = 64 * KIB
    """A request line with all its headers (the arguments of a GET call are in the request line)."""

    json_bytes: int = 8 * MIB
    """The body of a JSON call."""

    upload_bytes: int = 4 * GIB
    """Any other body."""

    eager_bytes: int = 64 * KIB
    """A body up to this size is received before a worker is used. A client without certificate may send no more than this."""

    field_bytes: int = MIB
    """One form field that is not a file."""

    fields: int = 200
    """Parts of one upload."""

    handshake_timeout: float = 10.0
    """From the connection to the end of the TLS handshake."""

    head_timeout: float = 15.0
    """From the first to the last byte of a request's head."""

    io_timeout: float = 30.0
    """Without any progress while a body is read or a reply written."""

    idle_timeout: float = 75.0
    """Between two requests on one connection."""

    body_rate: int = 4 * KIB
    """Bytes per second: a body that takes longer than `io_timeout` plus its length at this rate is given up."""

    connections: int = 1000
    """Open and idle at the same time; beyond, the connection that has waited longest is closed. Kept below the process's own limit."""

    min_workers: int = 6
    max_workers: int = 64
    """Requests served at the same time; idle connections and unfinished heads or handshakes need no worker."""

    backlog: int = 512
    """Connections that the kernel holds until they are accepted."""


DEFAULT = Limits()
