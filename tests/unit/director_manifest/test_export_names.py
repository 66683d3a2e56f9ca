"""Other services in a manifest that is written: they are named."""

from __future__ import annotations

from typing import Any

import pytest

from conpaas.core import errors, services
from conpaas.director.manifest import export


def named(made: dict[str, Any], titles: dict[int, str]) -> dict[str, Any]:
    export._name_peers(made, titles, services.registry)
    return made


def database(start: int, *bound: int) -> dict[str, Any]:
    return {"Type": "mysql", "Start": start, "Bindings": [{"service": sid, "database": "shop"} for sid in bound]}


def test_services_are_named() -> None:
    made = named(database(1, 2, 3), {1: "db", 2: "site", 3: "other"})
    assert [one["service"] for one in made["Bindings"]] == ["site", "other"]


def test_also_those_of_a_service_that_does_not_run() -> None:
    assert named(database(0, 2), {1: "db", 2: "site"})["Bindings"] == [{"service": "site", "database": "shop"}]


@pytest.mark.parametrize("titles", [{1: "db", 2: "site", 3: "site"}, {1: "site", 2: "site"}, {1: "db"}])
def test_a_name_that_is_not_one_services_is_an_error_that_says_so(titles: dict[int, str]) -> None:
    with pytest.raises(errors.WrongState, match="is not the name of exactly one"):
        named(database(1, 2), titles)


def test_a_type_that_is_not_installed_any_more_stays_as_it_is() -> None:
    assert named({"Type": "zope", "Start": 1}, {}) == {"Type": "zope", "Start": 1}
