"""Places in texts, names in addresses, rows of tables: what declared pages need besides the paths of `conpaas.core.pages`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

_PLACE: Final = re.compile(r"\{([A-Za-z0-9_*.]{1,80})\}")


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
