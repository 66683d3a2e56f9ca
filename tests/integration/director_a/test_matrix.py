"""Every endpoint of a whole Director, over TLS, called by everybody who has no business there: nothing is told, nothing is changed."""

from __future__ import annotations

import datetime
import http.client
import json
import re
import urllib.parse
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from conpaas.core.https import identity
from conpaas.director import config, endpoint, models

from . import conftest

SERIAL = "a11ce5"
SECRET = "alices"  # part of everything that belongs to alice
NEEDS_CERTIFICATE = {"user", "manager", "operator"}
ENDS_THE_SESSION = "/session_end"  # whoever calls it with bob's certificate calls nothing more
# Closed to strangers, but with an effect of their own on whoever calls: not part of "nothing is changed".
UNCHANGED = (
    models.User,
    models.Application,
    models.Service,
    models.Domain,
    models.Resource,
    models.Volume,
    models.LedgerEntry,
    models.NodeRequest,
    models.Operation,
    models.Certificate,
    models.Invitation,
    models.Confirmation,
    models.Notice,
    models.OidcIdentity,
)


class Caller:
    """One identity on one kept connection."""

    def __init__(self, running: conftest.Running, credentials: identity.Credentials | None) -> None:
        self.connection = http.client.HTTPSConnection(conftest.HOST, running.port, context=running.context(credentials), timeout=60)

    def ask(self, verb: str, path: str, fields: dict[str, str]) -> tuple[int, str]:
        encoded = urllib.parse.urlencode(fields)
        if verb == "POST":
            self.connection.request("POST", path, encoded, {"Content-Type": "application/x-www-form-urlencoded"})
        else:
            self.connection.request(verb, f"{path}?{encoded}")
        response = self.connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")


@pytest.fixture
def whole(configuration: config.DirectorConfig) -> Iterator[conftest.Running]:
    started = conftest.Running(configuration, components=True)
    yield started
    started.server.stop()


def prepare(whole: conftest.Running) -> tuple[models.User, models.User, int, int]:
    """alice with an application, a service, a VM and a volume, all named so that they can be recognised; and bob."""
    alice, bob = conftest.register(whole, "alices"), conftest.register(whole, "bob")
    with whole.director.database.session() as session:
        mine, others = (session.scalars(sa.select(models.Application).filter_by(user_id=user.uid)).one() for user in (alice, bob))
        mine.name, mine.status, mine.manager_ip = "alices-app", "ERROR", "alices-manager"
        session.add(service := models.Service(sid=1, application_id=mine.aid, name="alices-service", type="generic"))
        session.add(models.Service(sid=1, application_id=others.aid, name="bobs-service", type="generic"))
        session.flush()
        session.add(models.Domain(name="alices.example.org", service_rec=service.rec_id))
        now = whole.director.clock()
        vm = models.Resource(
            vmid="alices-vm", cloud="iaas", app_id=mine.aid, role="manager", ip="alices-ip", state="lost", created=now, ended=now
        )
        session.add(vm)
        session.add(models.Volume(cloud="iaas", vol_id="alices-volume", name="alices-v", size=1, app_id=mine.aid, state="available"))
        ends = now + datetime.timedelta(days=1)
        session.add(models.Certificate(serial=SERIAL, role="user", uid=alice.uid, expires=ends, fingerprint="alices-print"))
        session.add(models.OidcIdentity(id=1, uid=alice.uid, issuer="https://alices.example", subject="alices-subject"))
        session.add(models.Invitation(id=1, token_hash="alices-hash", email="alices@example.org", expires=ends))
        return alice, bob, mine.aid, others.aid


def tables(whole: conftest.Running) -> dict[str, list[tuple[object, ...]]]:
    with whole.director.database.reader() as session:
        return {model.__tablename__: [tuple(row) for row in session.execute(sa.select(model.__table__))] for model in UNCHANGED}


def requests(entry: endpoint.Endpoint, aid: int) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Calls of an endpoint that aim at alice's things, with all parameters filled in as well as a stranger can."""
    path = re.sub(r"<int:[^>]+>", str(aid), entry.rule)
    path = re.sub(r"<[^>]+>", "generic", path)
    named = {
        "app_id": str(aid),
        "appid": str(aid),
        "aid": str(aid),
        "service_id": "1",
        "sid": "1",
        "vmid": "alices-vm",
        "vm_id": "alices-vm",
    }
    named |= {"volume_id": "alices-volume", "cloud": "default", "name": "stolen", "size": "1", "device_name": "sdb", "username": "alices"}
    named |= {"nodes": json.dumps([{"vmid": "alices-vm", "cloud_name": "iaas"}]), "nodes_info": json.dumps([{"cloud": "default"}])}
    named |= {
        "domain": "alices.example.org",
        "credit": "5",
        "active": "false",
        "serial": SERIAL,
        "id": "1",
        "role": "operator",
        "email": "stolen@example.org",
        "fname": "stolen",
        "vms": "1",
        "new_password": "a long password",
        "redirect_uri": "https://front.example/",
        "service_type": "generic",
        "manager_ip": "127.15.0.9",
        "csr": "x",
        "wait": "0",
    }
    fields = {param.name: named.get(param.name, "x") for param in entry.params if param.required or param.name in named}
    for verb in entry.methods:
        yield verb, path, fields
        yield verb, path, {}


def test_strangers_learn_nothing_and_change_nothing(whole: conftest.Running, tmp_path_factory: pytest.TempPathFactory) -> None:
    alice, bob, aid, bobs_aid = prepare(whole)
    holder = conftest.Holder(tmp_path_factory.mktemp("credentials"), whole)
    strangers = {
        "no certificate": None,
        "an agent of the application": holder.node("agent", alice.uid, aid),
        "a manager of hers named for his application": holder.node("manager", alice.uid, bobs_aid),
        "a manager of his named for her application": holder.node("manager", bob.uid, aid),
        "a manager of nobody": holder.node("manager", 4711, 4711),
        "the front-end": whole.director.authority.listening,
        "the Director's calling certificate": whole.director.authority.calling,
    }
    before = tables(whole)
    closed = [entry for entry in endpoint.REGISTRY.values() if entry.auth in NEEDS_CERTIFICATE]
    assert len(closed) > 20
    for who, credentials in strangers.items():
        caller = Caller(whole, credentials)
        for entry in closed:
            for verb, path, fields in requests(entry, aid):
                status, text = caller.ask(verb, path, fields)
                refused = status in {401, 403} or (status, text) == (200, "false")
                assert refused, f"{who} called {verb} {path} and got {status} {text}"
                assert SECRET not in text
    assert tables(whole) == before


def test_another_user_or_manager_reaches_only_what_is_his(whole: conftest.Running, tmp_path_factory: pytest.TempPathFactory) -> None:
    alice, bob, aid, bobs_aid = prepare(whole)
    holder = conftest.Holder(tmp_path_factory.mktemp("credentials"), whole)
    hers = {"application": models.Application.user_id == alice.uid, "ledger": models.LedgerEntry.uid == alice.uid}

    def belongings() -> list[object]:
        with whole.director.database.reader() as session:
            rows: list[object] = [tuple(row) for row in session.execute(sa.select(models.Application.__table__).where(hers["application"]))]
            rows += [tuple(row) for row in session.execute(sa.select(models.LedgerEntry.__table__).where(hers["ledger"]))]
            for model, column in ((models.Service, "application_id"), (models.Resource, "app_id"), (models.Volume, "app_id")):
                query = sa.select(model.__table__).where(model.__table__.c[column] == aid)
                rows += [tuple(row) for row in session.execute(query)]
            for model in (models.Domain, models.OidcIdentity, models.Invitation):
                rows += [tuple(row) for row in session.execute(sa.select(model.__table__))]
            for model in (models.User, models.Certificate):
                rows += [tuple(row) for row in session.execute(sa.select(model.__table__).where(model.__table__.c.uid == alice.uid))]
            return rows

    before = belongings()
    for kind, credentials in (("user", holder.user(bob)), ("manager", holder.node("manager", bob.uid, bobs_aid))):
        caller = Caller(whole, credentials)
        mine = [entry for entry in endpoint.REGISTRY.values() if entry.auth == kind]
        for entry in sorted(mine, key=lambda entry: entry.rule == ENDS_THE_SESSION):
            for verb, path, fields in requests(entry, aid):
                status, text = caller.ask(verb, path, fields)
                assert status == 200 or entry.rule == ENDS_THE_SESSION
                quoted = text.replace(fields.get("vmid", "alices-vm"), "").replace("alices-vm", "").replace("alices-volume", "")
                quoted = quoted.replace(fields.get("domain", "alices-domain"), "")
                assert SECRET not in quoted, f"{kind} bob called {verb} {path} and read {text}"
                assert "internal error" not in text, f"{verb} {path} with {fields}: {text}"
    assert belongings() == before


def test_only_operators_operate(whole: conftest.Running, tmp_path_factory: pytest.TempPathFactory) -> None:
    _, bob, aid, _ = prepare(whole)
    holder = conftest.Holder(tmp_path_factory.mktemp("credentials"), whole)
    his = Caller(whole, holder.user(bob))
    operators = Caller(whole, holder.user(conftest.register(whole, "root", "operator")))
    for entry in [entry for entry in endpoint.REGISTRY.values() if entry.auth == "operator"]:
        for verb, path, fields in requests(entry, aid):
            assert his.ask(verb, path, fields) == (403, '{"error":"Only an operator of this Director may do this."}')
            status, text = operators.ask(verb, path, {})
            assert status == 200
            assert "internal error" not in text
