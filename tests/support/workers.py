"""Several processes that share the tests."""

from __future__ import annotations

import os


def number() -> int:
    """Which of them this is, from 0; what each has its own of goes by it."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
