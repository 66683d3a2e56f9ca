"""The pages, a module for each kind. A new module is named here, and nowhere else."""

from __future__ import annotations

import importlib
from typing import Final

from conpaas.frontend import routing

MODULES: Final = (
    "entry",
    "dashboard",
    "application",
    "manifests",
    "account",
    "identities",
    "credits",
    "operator",
    "service",
    "service_actions",
    "service_logs",
)


def declared() -> list[routing.Page | routing.Stream]:
    """The addresses of all modules, in their order: the first that fits a request answers it."""
    found: list[routing.Page | routing.Stream] = []
    for name in MODULES:
        found += importlib.import_module(f"{__name__}.{name}").ROUTES
    return found
