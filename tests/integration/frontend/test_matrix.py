"""Every page and action of the front-end × its owner, another user, an operator, nobody: no one sees or changes another's application.

The addresses come from the front-end's own table, so that a page that somebody adds is in here by itself.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import sqlalchemy as sa
from sqlalchemy import orm
from tests.support import frontends

from conpaas.director import models
from conpaas.frontend import pages, routing

SECRET = "zzalice"  # part of everything that belongs to alice
MANAGER = "127.84.1.9"
OWNED = (models.User, models.Application, models.Service, models.Resource, models.Volume, models.LedgerEntry, models.Operation)
ENDS_THE_SESSION = ("/sign-out", "/sign-in", "/account/password")
"""What changes who is calling, and is tested elsewhere."""
ENTRY = ("/register", "/resend-confirmation")
"""What makes accounts, for anybody."""

DECLARED = [one for one in pages.declared() if one.path not in (*ENDS_THE_SESSION, *ENTRY)]
CALLS = [(one, method) for one in DECLARED for method in (one.methods if isinstance(one, routing.Page) else ("GET",))]
NAMES = [f"{method} {one.path}" for one, method in CALLS]


class Manager:
    """Where alice's manager would be: remembers that somebody connected, and hangs up."""

    def __init__(self) -> None:
        self._listener = socket.create_server((MANAGER, 0))
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


class Answer(NamedTuple):
    """What somebody got; `headers` by their names in small letters."""

    status: int
    text: str
    headers: dict[str, str]


class World:
    """alice with an application whose every part can be recognised, bob, an operator, and a visitor."""

    def __init__(self, made: frontends.Whole) -> None:
        self.made = made
        self.manager = Manager()
        self.alice_uid = made.register(SECRET, fname=f"{SECRET}-first", affiliation=f"{SECRET}-works")
        made.register("bob")
        made.register("opal", role="operator")
        self.aid = self._application()
        self.people = {name: made.person(name) for name in (SECRET, "bob", "opal", "")}

    def _application(self) -> int:
        with self.made.director.database.session() as session:
            mine = session.scalars(sa.select(models.Application).filter_by(user_id=self.alice_uid)).one()
            mine.name, mine.status, mine.manager_ip = f"{SECRET}-app", "RUNNING", MANAGER
            if hasattr(mine, "manager_port"):
                mine.manager_port = self.manager.port
            session.add(models.Service(sid=1, application_id=mine.aid, name=f"{SECRET}-service", type="generic"))
            session.add(models.Volume(cloud="iaas", vol_id=f"{SECRET}-volume", name="v", size=1, app_id=mine.aid, state="available"))
            return int(mine.aid)

    def owned(self) -> dict[str, list[tuple[object, ...]]]:
        """Everything that is alice's, as it is on record."""
        with self.made.director.database.reader() as session:
            return {model.__tablename__: self._rows(session, model) for model in OWNED}

    def _rows(self, session: orm.Session, model: type) -> list[tuple[object, ...]]:
        query = sa.select(model.__table__)
        for column, value in (
            ("uid", self.alice_uid),
            ("user_id", self.alice_uid),
            ("application_id", self.aid),
            ("app_id", self.aid),
            ("target", self.aid),
        ):
            if column in model.__table__.c:
                query = query.where(model.__table__.c[column] == value)
                break
        return [tuple(row) for row in session.execute(query)]

    def path(self, rule: str) -> str:
        """An address that aims at alice's things."""
        known = {"aid": str(self.aid), "sid": "1", "uid": str(self.alice_uid), "action": "0-0-0", "node": "1", "file": "x"}
        return re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: known.get(found[1], "x"), rule)

    def call(self, who: str, rule: str, method: str) -> Answer:
        person = self.people[who]
        fields = {"name": "stolen", "typed": f"{SECRET}-app", "serial": "1", "id": "1", "cloud": "nowhere", "type": "generic"}
        if method != "GET":
            reply = person.post(self.path(rule), **fields)
            return Answer(reply.status_code, reply.text, {name.lower(): text for name, text in reply.headers.items()})
        with person.get(self.path(rule), stream=True) as reply:
            # What is about somebody else's application ends by itself; other streams do not.
            endless = reply.headers.get("content-type", "").startswith("text/event-stream") and "{aid" not in rule
            return Answer(reply.status_code, "" if endless else reply.text, {name.lower(): text for name, text in reply.headers.items()})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with frontends.running(tmp_path_factory.mktemp("matrix")) as made:
        built = World(made)
        yield built
        built.manager.close()


def told(reply: Answer, *, itself: bool = False) -> bool:
    """Whether anything of alice's is in the reply, beyond what was in the request."""
    return SECRET in (reply.text.replace(f"{SECRET}-app", "") if itself else reply.text)


@pytest.mark.parametrize(("page", "method"), CALLS, ids=NAMES)
def test_others_learn_nothing_and_change_nothing(world: World, page: routing.Page | routing.Stream, method: str) -> None:
    before, connections = world.owned(), world.manager.connections
    access = page.access if isinstance(page, routing.Page) else "user"
    for who in ("bob", ""):
        reply = world.call(who, page.path, method)
        assert reply.status != 500, reply.text
        assert not told(reply, itself=method == "POST"), f"{who or 'nobody'}: {reply.text}"
        if access == "operator" or (not who and access == "user"):
            assert reply.status in (303, 401, 403), (who, reply.status)
            assert reply.status != 303 or "/sign-in" in reply.headers["location"]
        elif "{aid" in page.path:
            nothing = isinstance(page, routing.Stream) and "event: update" not in reply.text and "event: end" in reply.text
            elsewhere = reply.status == 303 and reply.headers["location"] == world.path(page.path).partition("/do/")[0]  # asked in its turn
            assert reply.status == 404 or nothing or elsewhere, (who, reply.status, reply.text)
    if access != "operator":
        reply = world.call("opal", page.path, method)
        assert reply.status != 500, reply.text
        assert not told(reply, itself=method == "POST"), f"the operator: {reply.text}"
    assert world.owned() == before
    assert world.manager.connections == connections


@pytest.mark.parametrize(
    "page", [one for one in DECLARED if isinstance(one, routing.Page) and "POST" in one.methods], ids=lambda one: one.path
)
def test_a_form_without_the_sessions_token_does_nothing(world: World, page: routing.Page) -> None:
    before = world.owned()
    owner = world.people["opal" if page.access == "operator" else SECRET]
    for fields in ({}, {"csrf": "0" * 64}, {"csrf": world.people["bob"].token()}):
        reply = owner.raw_post(world.path(page.path), {"name": "x", **fields})
        assert reply.status_code == 403, (fields, reply.status_code)
    reply = owner.raw_post(world.path(page.path), {"csrf": owner.token()}, headers={"Origin": "https://evil.example.org"})
    assert reply.status_code == 403
    assert world.owned() == before


GETS = [(one, method) for one, method in CALLS if method == "GET" and isinstance(one, routing.Page)]


@pytest.mark.parametrize(("page", "method"), GETS, ids=[one.path for one, _ in GETS])
def test_the_owner_gets_a_page_or_a_sentence(world: World, page: routing.Page, method: str) -> None:
    who = "opal" if page.access == "operator" else SECRET
    reply = world.call(who, page.path, method)
    assert reply.status != 500, reply.text
    assert "Traceback" not in reply.text
    assert len(reply.text.encode()) < 150_000
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    if "text/html" in reply.headers.get("content-type", ""):
        assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", reply.text), reply.text


STREAMS = [one.path for one in DECLARED if isinstance(one, routing.Stream) and "{aid" in one.path]


@pytest.mark.parametrize("rule", STREAMS)
def test_who_listens_beside_the_owner_hears_nothing(world: World, rule: str) -> None:
    with world.people[SECRET].get(world.path(rule), stream=True) as hers:
        lines = hers.iter_lines(decode_unicode=True)
        assert any(line.startswith("event:") for line in lines), "the owner hears something"
        for who in ("bob", "opal"):
            reply = world.call(who, rule, "GET")
            assert SECRET not in reply.text
            asked = world.people[who].get(world.path(rule), headers={"Accept": "application/json"})
            assert asked.status_code == 404
            assert SECRET not in asked.text
