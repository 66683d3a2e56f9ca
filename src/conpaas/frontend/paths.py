"""Values in replies, by their paths (`conpaas.core.pages` says what a path is), and texts with places for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

_PLACE: Final = re.compile(r"\{([A-Za-z0-9_*.]{1,80})\}")
_MAX_DEPTH: Final = 12


def pick(value: Any, path: str) -> Any:
    """What is at `path` in a reply; None if nothing is there."""
    return _pick(value, path, _MAX_DEPTH)


def _pick(value: Any, path: str, depth: int) -> Any:
    if not path or depth == 0:
        return value
    if isinstance(value, Mapping) and path in value:
        return value[path]
    name, _, rest = path.partition(".")
    if isinstance(value, Mapping):
        return _pick(value[name], rest, depth - 1) if name in value else None
    if isinstance(value, list):
        if name == "*":
            return [_pick(one, rest, depth - 1) for one in value]
        if name.isascii() and name.isdigit() and int(name) < len(value):
            return _pick(value[int(name)], rest, depth - 1)
    return None


def places(text: str) -> list[str]:
    """The names of the places in a text, in their order."""
    return _PLACE.findall(text)


def fill(text: str, find: Callable[[str], Any]) -> str | None:
    """The text with its places filled; None if one of them cannot be."""
    values = {name: find(name) for name in places(text)}
    if any(value is None or isinstance(value, dict | list) for value in values.values()):
        return None
    return _PLACE.sub(lambda match: str(values[match.group(1)]), text)


def slug(text: str) -> str:
    """A text as part of an address: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "x"


def rows(value: Any) -> list[dict[str, Any]]:
    """Rows of a table: of a list of objects or texts (`value`), or of an object (`key`, and `value` or what is in it)."""
    if isinstance(value, Mapping):
        return [{"key": str(key), **(one if isinstance(one, Mapping) else {"value": one})} for key, one in value.items()]
    if isinstance(value, list):
        return [dict(one) if isinstance(one, Mapping) else {"value": one} for one in value]
    return []
