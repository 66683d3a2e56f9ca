"""The Director's endpoints, as they are declared."""

from __future__ import annotations

import importlib
import pkgutil

from conpaas.director import api, endpoint

for _module in pkgutil.iter_modules(api.__path__):
    importlib.import_module(f"{api.__name__}.{_module.name}")

RULES = sorted(endpoint.REGISTRY)


def entry(rule: str) -> endpoint.Endpoint:
    return endpoint.REGISTRY[rule]


def address(declared: endpoint.Endpoint, **parts: object) -> str:
    """The path of an endpoint, its placeholders filled in."""
    path = declared.rule.replace("<appid>", "<int:aid>")
    for name, value in parts.items():
        path = path.replace(f"<{name}>", str(value)).replace(f"<int:{name}>", str(value))
    assert "<" not in path, f"tell this test what to put into {declared.rule}"
    return path
