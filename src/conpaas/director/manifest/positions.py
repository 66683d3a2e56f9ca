"""Where the parts of a JSON text stand, so that an error can name the line.

The standard library's parser tells positions in syntax errors only. This pass is made when there is something to complain about, over a
text that the parser read (or read up to something that is not JSON).
"""

from __future__ import annotations

import bisect
import dataclasses
import json
import re
from typing import Final

Path = tuple[str | int, ...]

_TOKEN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)
_CONSTANTS: Final = frozenset({"NaN", "Infinity", "-Infinity"})
_OPENING: Final = "{["
_CLOSING: Final = "}]"


@dataclasses.dataclass(frozen=True)
class Place:
    """A place in a text; both count from 1."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}"


@dataclasses.dataclass
class _Level:
    """One object or list that is being read. `key` is the name (or index) of what comes next, or None where a name is expected."""

    object: bool
    key: str | int | None
    names: set[str] = dataclasses.field(default_factory=set)


class Positions:
    """Where things are: a field of an object is where its name is, anything else where it begins."""

    def __init__(self, text: str) -> None:
        self._lines = [0, *(found.end() for found in re.finditer("\n", text))]
        self._offsets: dict[Path, int] = {}
        self.twice: Place | None = None
        """The first name that its object has already."""
        self.constant: Place | None = None
        """The first of the words that Python reads and that are not JSON."""
        self._read(text)

    def find(self, path: Path) -> Place:
        """The place of a part, or of the nearest thing around it that is there."""
        while path and path not in self._offsets:
            path = path[:-1]
        return self._place(self._offsets.get(path, 0))

    def _place(self, offset: int) -> Place:
        line = bisect.bisect_right(self._lines, offset)
        return Place(line, offset - self._lines[line - 1] + 1)

    def _read(self, text: str) -> None:
        levels: list[_Level] = []
        path: list[str | int] = []
        for found in _TOKEN.finditer(text):
            piece, inside = found[0], levels[-1] if levels else None
            if piece in _CLOSING:
                if levels:
                    levels.pop()
                    del path[len(levels) :]
            elif piece == ",":
                if inside is not None:
                    inside.key = None if inside.object else int(inside.key or 0) + 1
            elif piece != ":":
                self._value(found, inside, path, levels)

    def _value(self, found: re.Match[str], inside: _Level | None, path: list[str | int], levels: list[_Level]) -> None:
        """A name, or (the beginning of) a value."""
        piece = found[0]
        if inside is not None:
            named = inside.object and inside.key is None
            if named:
                self._name(piece, inside, found.start())
            path[len(levels) - 1 :] = [] if inside.key is None else [inside.key]
            self._offsets.setdefault(tuple(path), found.start())
            if named:
                return
        else:
            self._offsets.setdefault((), found.start())
        if piece in _CONSTANTS:
            self.constant = self.constant or self._place(found.start())
        if piece in _OPENING:
            levels.append(_Level(piece == "{", None if piece == "{" else 0))

    def _name(self, piece: str, inside: _Level, offset: int) -> None:
        try:
            name = str(json.loads(piece))
        except ValueError:  # the parser has stopped before this
            name = piece
        if name in inside.names:
            self.twice = self.twice or self._place(offset)
        inside.names.add(name)
        inside.key = name
