"""Names of the devices that volumes appear as in a VM."""

from __future__ import annotations

import string
from collections.abc import Iterable

from conpaas.core import errors

FIRST = "sdb"
"""The first device for volumes, unless `DEV_TARGET` names another."""


def free(first: str, taken: Iterable[str | None]) -> str:
    """The first device name from `first` (such as `sdb`) to `…z` that is not taken.

    Raises `errors.InvalidArgument` when all are taken, `errors.ConfigurationError` when `first` is no such name.
    """
    used = {(name or "").removeprefix("/dev/") for name in taken}
    prefix, letter = first[:-1], first[-1:]
    if letter not in string.ascii_lowercase:
        raise errors.ConfigurationError(f"DEV_TARGET should end in a lower-case letter, such as {FIRST}, not be '{first}'.")
    for candidate in string.ascii_lowercase[string.ascii_lowercase.index(letter) :]:
        if prefix + candidate not in used:
            return prefix + candidate
    raise errors.InvalidArgument(f"All devices of the node from {first} to {prefix}z are in use.")
