"""One question about many users: it tells that something changed, to whoever may know it, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event, orm

from conpaas.director import changes, credits, models, runtime, users

from . import conftest


def watch(api: conftest.Api, user: models.User) -> str:
    return str(api.post("/watch", peer=conftest.user_peer(user)).get_json()["watch"])


def versions(api: conftest.Api, *watches: str) -> list[Any]:
    found: list[Any] = api.post("/changes", {"watches": json.dumps(watches)}).get_json()["versions"]
    return found


def rename(session: orm.Session, aid: int) -> None:
    session.get_one(models.Application, aid).name = "another name"


def start(session: orm.Session, aid: int) -> None:
    session.get_one(models.Application, aid).status = "PROLOGUE"


def fail(session: orm.Session, aid: int) -> None:
    session.get_one(models.Application, aid).reason = "no luck"


def add_application(session: orm.Session, aid: int) -> None:
    session.add(models.Application(name="second", user_id=session.get_one(models.Application, aid).user_id))


def add_service(session: orm.Session, aid: int) -> None:
    session.add(models.Service(sid=1, application_id=aid, name="site", type="php"))


def add_machine(session: orm.Session, aid: int) -> None:
    session.add(models.Resource(vmid="vm1", cloud="iaas", app_id=aid, role="manager"))


def add_volume(session: orm.Session, aid: int) -> None:
    session.add(models.Volume(vol_id="v1", cloud="iaas", app_id=aid, name="v", size=1))


def add_operation(session: orm.Session, aid: int) -> None:
    session.add(models.Operation(id="op1", kind="start_application", target=aid, status="RUNNING", started=5.0))


def disable(session: orm.Session, aid: int) -> None:
    session.get_one(models.User, session.get_one(models.Application, aid).user_id).active = False


@pytest.mark.parametrize("change", [rename, start, fail, add_application, add_service, add_machine, add_volume, add_operation, disable])
def test_whatever_a_page_is_made_from_changes_the_version(
    director: runtime.Director,
    api: conftest.Api,
    alice: models.User,
    bob: models.User,
    change: Callable[[orm.Session, int], None],
) -> None:
    both = watch(api, alice), watch(api, bob)
    before = versions(api, *both)
    assert versions(api, *both) == before, "nothing changed"
    aid = conftest.application_of(director, alice)
    with director.database.session() as session:
        change(session, aid)
    after = versions(api, *both)
    assert after[0] != before[0]
    assert after[1] == before[1], "of somebody else nothing did"


def test_credits_change_it(director: runtime.Director, api: conftest.Api, alice: models.User) -> None:
    hers = watch(api, alice)
    before = versions(api, hers)
    with director.database.session() as session:
        credits.adjust(session, alice.uid, 5, director.clock(), "a gift")
    assert versions(api, hers) != before


def test_what_is_no_watch_tells_nothing(api: conftest.Api, alice: models.User, bob: models.User, clock: conftest.Clock) -> None:
    hers = watch(api, alice)
    uid, end, signature = hers.split(".")
    forged = [
        f"{bob.uid}.{end}.{signature}",
        f"{uid}.{int(end) + 1}.{signature}",
        f"{uid}.{end}.{'0' * 64}",
        "",
        ".",
        "x.y.z",
        "é",
        hers + "0",
    ]
    known, *others = versions(api, hers, *forged)
    assert known
    assert others == [None] * len(forged)
    clock.forward(seconds=changes.LIFETIME.total_seconds() + 1)
    assert versions(api, hers) == [None]


@pytest.mark.parametrize("sent", ["", "x", "{}", "[1]", "[null]", json.dumps(["x"] * 1001), json.dumps(["x" * 201])])
def test_what_is_no_list_of_texts_is_said(api: conftest.Api, sent: str) -> None:
    reply = api.post("/changes", {"watches": sent}).get_json()
    assert "watches" in reply["error"]


def test_what_open_pages_ask_all_the_time_is_no_line_in_the_log(
    api: conftest.Api, alice: models.User, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        versions(api, watch(api, alice))
    assert not [line for line in caplog.messages if "/changes" in line or "/watch" in line]


def test_a_watch_is_for_who_is_signed_in(api: conftest.Api) -> None:
    assert api.post("/watch").status_code == 401


def test_many_users_are_a_handful_of_queries(director: runtime.Director, alice: models.User, bob: models.User) -> None:
    third = users.create(director, users.NewUser(username="carol", email="carol@example.org", password=conftest.PASSWORD))
    asked: list[str] = []

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked.extend([statement] if statement.startswith("SELECT") else [])

    event.listen(sa.Engine, "before_cursor_execute", count)
    try:
        with director.database.reader() as session:
            assert len(changes.versions(session, [alice.uid, bob.uid, third.uid, 999])) == 4
    finally:
        event.remove(sa.Engine, "before_cursor_execute", count)
    assert len(asked) <= 6
