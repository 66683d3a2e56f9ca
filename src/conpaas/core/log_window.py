"""Reading a log through a window: the parameters and the answer of every call that hands out part of a log."""

from __future__ import annotations

import pathlib
from typing import Any, Final

from conpaas.core import file, params

LIMIT: Final = 4_000_000
"""Bytes of a log in one answer."""

PARAMS: Final = (
    params.Param("offset", params.Integer(minimum=0), default=None, help="where to begin, in bytes; without it, the end of the log"),
    params.Param("limit", params.Integer(minimum=1, maximum=LIMIT), default=LIMIT, help="at most this many bytes"),
)


def answer(path: pathlib.Path, offset: int | None, limit: int) -> dict[str, Any]:
    """The reply: the text, the offset to ask from next, and the size of the log now (bytes). Raises OSError when it can't be read."""
    excerpt = file.read_bounded(path, offset=offset, limit=limit)
    return {"log": excerpt.text, "offset": excerpt.offset, "size": excerpt.size}
