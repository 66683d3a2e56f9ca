"""A domain name belongs to one service of the whole Director."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from conpaas.director import domains, models, runtime

from . import conftest

NAME = "www.example.org"
TAKEN = f"The domain '{NAME}' is in use by another application; choose another name, or ask the operator if it is yours."


def service_of(director: runtime.Director, user: models.User, sid: int = 1) -> int:
    """Give the user's application a service; returns the application's id."""
    aid = conftest.application_of(director, user)
    with director.database.session() as session:
        session.add(models.Service(sid=sid, application_id=aid, name="site", type="php"))
    return aid


def ask(api: conftest.Api, what: str, user: models.User, aid: int, name: str = NAME, sid: int = 1) -> Any:
    peer = conftest.node_peer("manager", user.uid, aid)
    return api.post(f"/callback/{what}_domain", {"domain": name, "service_id": sid, "app_id": aid}, peer=peer).get_json()


def held(director: runtime.Director) -> list[tuple[str, str, int]]:
    with director.database.reader() as session:
        return [(one.name, one.username, one.service_id) for one in domains.listing(session)]


def test_the_first_claim_counts_and_the_second_learns_nothing_about_it(
    director: runtime.Director, api: conftest.Api, alice: models.User, bob: models.User
) -> None:
    hers, his = service_of(director, alice), service_of(director, bob)
    assert ask(api, "claim", alice, hers) == ask(api, "claim", alice, hers, "WWW.Example.ORG.") == {}
    assert ask(api, "claim", bob, his) == {"error": TAKEN}
    assert held(director) == [(NAME, "alice", 1)]


def test_a_second_service_of_the_same_application_is_told_which_one_has_it(
    director: runtime.Director, api: conftest.Api, alice: models.User
) -> None:
    aid = service_of(director, alice)
    service_of(director, alice, 2)
    ask(api, "claim", alice, aid)
    assert "is in use by service 1 of this application; remove it there first" in ask(api, "claim", alice, aid, sid=2)["error"]


def test_only_the_holder_gives_a_name_back(director: runtime.Director, api: conftest.Api, alice: models.User, bob: models.User) -> None:
    hers, his = service_of(director, alice), service_of(director, bob)
    ask(api, "claim", alice, hers)
    assert ask(api, "release", bob, his) == ask(api, "release", alice, hers, sid=2) == {}
    assert held(director) == [(NAME, "alice", 1)]
    assert ask(api, "release", alice, hers) == ask(api, "release", alice, hers) == {}
    assert ask(api, "claim", bob, his) == {}


@pytest.mark.parametrize("gone", [models.Service, models.Application])
def test_a_name_goes_with_its_service_and_its_application(
    director: runtime.Director, api: conftest.Api, alice: models.User, gone: type[models.Base]
) -> None:
    aid = service_of(director, alice)
    ask(api, "claim", alice, aid)
    with director.database.session() as session:
        session.execute(sa.delete(gone))
    assert held(director) == []


@pytest.mark.parametrize("name", ["localhost", "-a.example.org", "a b.example.org", "a/b.org", "*.example.org", "müsli.de"])
def test_what_is_no_name_is_refused(director: runtime.Director, api: conftest.Api, alice: models.User, name: str) -> None:
    aid = service_of(director, alice)
    assert "A domain must be a full name such as www.example.org" in ask(api, "claim", alice, aid, name)["error"]


def test_a_service_that_is_not_there_gets_nothing(
    director: runtime.Director, api: conftest.Api, alice: models.User, bob: models.User
) -> None:
    hers, his = service_of(director, alice), service_of(director, bob, 2)
    assert ask(api, "claim", alice, hers, sid=2)["error"] == f"Application {hers} has no service 2 on record."
    peer = conftest.node_peer("manager", bob.uid, his)
    reply = api.post("/callback/claim_domain", {"domain": NAME, "service_id": 1, "app_id": hers}, peer=peer).get_json()
    assert "A manager may ask for its own application only" in reply["error"]
    assert held(director) == []
