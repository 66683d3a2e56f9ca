"""Where the parts of a JSON text stand."""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from conpaas.director.manifest import positions

FLOATS = strategies.floats(allow_nan=False, allow_infinity=False)
JSON = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers()
    | strategies.floats(allow_nan=False, allow_infinity=False)
    | strategies.text(),
    lambda inner: strategies.lists(inner, max_size=4) | strategies.dictionaries(strategies.text(), inner, max_size=4),
    max_leaves=20,
)


def parts(value: Any, path: positions.Path = ()) -> list[tuple[positions.Path, Any]]:
    """Every part of a document by its path, with what its text begins with."""
    found = [(path, value)]
    if isinstance(value, dict):
        for name, inner in value.items():
            found += parts(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += parts(inner, (*path, index))
    return found


@hypothesis.settings(deadline=None)
@hypothesis.given(JSON, strategies.sampled_from([None, 0, 2, "\t"]), strategies.booleans())
def test_every_part_of_every_document_is_found(document: Any, indent: Any, plain: bool) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=plain)
    lines = text.split("\n")
    where = positions.Positions(text)
    for path, value in parts(document):
        place = where.find(path)
        rest = "\n".join([lines[place.line - 1][place.column - 1 :], *lines[place.line :]])
        named = bool(path) and isinstance(path[-1], str)
        begin = json.JSONDecoder().raw_decode(rest)[0]
        assert begin == (path[-1] if named else value)
    assert where.twice is None
    assert where.constant is None


@pytest.mark.parametrize(
    ("text", "path", "line", "column"),
    [
        ("", (), 1, 1),
        ("  3", (), 1, 3),
        ('{"a": {}}', ("a", "missing", 3), 1, 2),
        ('[1,\n\n {"b": [2, 3]}]', (1, "b", 1), 3, 12),
        ('{"a\\"b": 1, "\\u0061": 2}', ('a"b',), 1, 2),
        ('{"a\\"b": 1, "\\u0061": 2}', ("a",), 1, 13),
        ('{"": 1, "x": [""]}', ("",), 1, 2),
        ('{"a": "x,:{}[]\\\\", "b": 1}', ("b",), 1, 20),
        ("[" * 5000, (0,) * 100, 1, 101),
        ("}}]],::", (), 1, 1),
    ],
)
def test_places(text: str, path: positions.Path, line: int, column: int) -> None:
    assert positions.Positions(text).find(path) == positions.Place(line, column)


def test_names_that_are_there_twice_and_words_that_are_not_json() -> None:
    where = positions.Positions('{"a": {"b": 1},\n "b": 2,\n "\\u0061": NaN, "a": Infinity}')
    assert where.twice == positions.Place(3, 2)
    assert where.constant == positions.Place(3, 12)


@hypothesis.given(strategies.text(alphabet='{}[],:"\\ \n1ax', max_size=200))
def test_no_text_is_too_odd(text: str) -> None:
    where = positions.Positions(text)
    assert where.find(("a", 0)).line >= 1
