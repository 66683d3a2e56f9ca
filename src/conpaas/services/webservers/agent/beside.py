"""The Unix sockets by which a proxy reaches the backends of its own node, at two thirds of the processor time that TCP takes."""

from __future__ import annotations

import pathlib
from typing import Final

from conpaas.core import paths

_LONGEST: Final = 107
"""Bytes that the address of a socket holds."""


def socket(places: paths.Paths, port: int) -> pathlib.Path | None:
    """Where the release that has this port of the node listens, too; None where directories lie too deep for a socket."""
    path = places.cache / "php" / "beside" / f"{port}.sock"
    return path if len(str(path).encode()) <= _LONGEST else None
