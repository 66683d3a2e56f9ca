"""One question for all who look: who is told, who is not asked about any more, and a Director that does not know the question."""

from __future__ import annotations

import json
from typing import Any

import pytest

from conpaas.core import errors
from conpaas.frontend import pulse


class Director:
    """Knows versions; watches are the uid as text. Counts what it is asked."""

    def __init__(self) -> None:
        self.now = 100.0
        self.versions: dict[str, str] = {}
        self.asked: list[list[str]] = []
        self.watches = 0
        self.told: list[int] = []
        self.error: Exception | None = None
        self.pulse = pulse.Pulse(self.ask, self.told.append, lambda: self.now)

    def ask(self, path: str, fields: dict[str, Any]) -> Any:
        assert path == "/changes"
        if self.error is not None:
            raise self.error
        self.asked.append(json.loads(fields["watches"]))
        return {"versions": [self.versions.get(one) for one in self.asked[-1]]}

    def version(self, uid: int) -> str:
        return self.pulse.version(uid, lambda: self.watch(uid))

    def watch(self, uid: int) -> Any:
        self.watches += 1
        return {"watch": str(uid), "seconds": 600}


@pytest.fixture
def director() -> Director:
    return Director()


def test_many_who_look_are_one_question(director: Director) -> None:
    director.versions = {str(uid): "a" for uid in range(200)}
    for uid in range(200):
        director.version(uid)
    director.asked.clear()
    director.now += 1
    assert {director.version(uid) for uid in range(200)} == {"a"}
    assert [len(asked) for asked in director.asked] == [200]
    assert director.watches == 200


def test_who_has_news_is_told_by_anybodys_question(director: Director) -> None:
    director.versions = {"1": "a", "2": "a"}
    director.version(1), director.version(2)
    director.versions = {"1": "b", "2": "b"}
    director.now += 1
    assert director.version(1) == "b"
    assert director.told == [2], "who asks knows it already"
    assert director.version(2) == "b"


def test_who_went_away_is_not_asked_about(director: Director) -> None:
    director.versions = {"1": "a", "2": "a"}
    director.version(1), director.version(2)
    director.now += pulse.IDLE + 1
    director.version(2)
    assert director.asked[-1] == ["2"]
    director.now += 1
    assert director.version(1) == "a", "and is again when back"


def test_a_watch_is_renewed_in_time_and_when_it_is_refused(director: Director) -> None:
    director.versions = {"1": "a"}
    director.version(1)
    director.now += 301
    director.version(1)
    assert director.watches == 2
    director.versions = {}
    director.now += 1
    assert director.version(1) == "", "unknown: the page reads all of it"
    director.versions = {"1": "a"}
    director.now += 1
    assert director.version(1) == "a"
    assert director.watches == 3


def test_an_error_is_the_callers_and_the_next_one_asks_again(director: Director) -> None:
    director.versions = {"1": "a"}
    director.error = errors.Unreachable("nobody there")
    with pytest.raises(errors.Unreachable):
        director.version(1)
    director.error = None
    assert director.version(1) == "a"


def test_a_director_that_does_not_know_the_question_is_left_alone_for_a_while(director: Director) -> None:
    director.versions = {"1": "a"}
    director.pulse.give_up()
    assert director.version(1) == ""
    assert not director.asked and not director.watches
    director.now += pulse.OLD + 1
    assert director.version(1) == "a"
