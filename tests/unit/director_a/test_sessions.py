"""Signing in with a key of one's own, signing out, and looking after one's certificates."""

from __future__ import annotations

import dataclasses
import datetime
import json
from typing import Any

import argon2
import pytest

from conpaas.core import pages, services
from conpaas.core.https import identity, x509
from conpaas.director import certificates, models, runtime, throttle, users

from . import conftest


def sign_in(api: conftest.Api, **fields: Any) -> Any:
    csr = x509.make_csr(x509.new_key(), "somebody else")
    return api.post("/session_certificate", {"username": "alice", "password": conftest.PASSWORD, "csr": csr, **fields}).get_json()


def peer_of(reply: Any) -> identity.PeerIdentity:
    return x509.read_identity(reply["certificate"])


def test_a_session_has_a_certificate_of_the_user(director: runtime.Director, api: conftest.Api, alice: models.User) -> None:
    key = x509.new_key()
    reply = sign_in(api, csr=x509.make_csr(key, "root"))
    certificate = x509.load_certificate(reply["certificate"])
    peer = peer_of(reply)
    assert (peer.role, peer.uid, peer.aid, peer.cn) == ("user", alice.uid, 0, "alice")
    assert certificate.public_key() == key.public_key()
    certificate.verify_directly_issued_by(x509.load_certificate(reply["ca"]))
    assert reply["expires"] == certificate.not_valid_after_utc.isoformat()
    assert (reply["user"]["username"], reply["user"]["operator"], reply["user"]["role"]) == ("alice", False, "user")
    assert api.get("/user_config", peer=peer).get_json()["uid"] == alice.uid


@pytest.mark.parametrize(("hours", "lasts"), [({}, 12), ({"hours": "1"}, 1)])
def test_a_session_lasts_half_a_day_at_most(api: conftest.Api, alice: models.User, hours: dict[str, str], lasts: int) -> None:
    certificate = x509.load_certificate(sign_in(api, **hours)["certificate"])
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert datetime.timedelta(0) <= lifetime - datetime.timedelta(hours=lasts) < datetime.timedelta(minutes=10)


@pytest.mark.parametrize("fields", [{"hours": "13"}, {"hours": "0"}, {"csr": "x"}, {"csr": ""}])
def test_what_is_no_session_is_refused(api: conftest.Api, director: runtime.Director, alice: models.User, fields: dict[str, str]) -> None:
    assert "error" in sign_in(api, **fields)
    with director.database.reader() as session:
        assert certificates.listing(session, alice.uid) == []


def test_guessing_at_sessions_is_slowed_down(api: conftest.Api, alice: models.User) -> None:
    replies = [sign_in(api, password="wrong")["error"] for _ in range(7)]
    assert replies[0] == "User authentication failed"
    assert replies[-1].startswith("Too many failed logins")


def test_a_trusted_proxy_tells_who_calls(api: conftest.Api, director: runtime.Director, alice: models.User) -> None:
    director.config = dataclasses.replace(director.config, trusted_proxies=("192.0.2.1",))

    def guess(told: str, address: str = "192.0.2.1") -> str:
        fields = {"username": "alice", "password": "wrong"}
        reply = api.post("/getcerts", fields, address=address, headers={"X-Forwarded-For": told})
        return str(reply.get_json()["error"])

    for _ in range(7):
        guess("203.0.113.9")
    assert guess("203.0.113.9").startswith("Too many failed logins")
    assert guess("203.0.113.8") == "User authentication failed"
    assert guess("203.0.113.9, 203.0.113.7") == "User authentication failed"
    for _ in range(7):
        guess("203.0.113.1", "198.51.100.1")
    assert guess("203.0.113.2", "198.51.100.1").startswith("Too many failed logins")


def test_one_account_cannot_fill_the_table(
    api: conftest.Api, director: runtime.Director, alice: models.User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "SESSIONS_PER_HOUR", 2)
    assert ["error" in sign_in(api) for _ in range(3)] == [False, False, True]


def test_a_clock_that_was_wrong_for_a_while_shuts_nobody_out(
    api: conftest.Api, clock: conftest.Clock, alice: models.User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "SESSIONS_PER_HOUR", 1)
    clock.forward(days=30)
    assert ["error" in sign_in(api) for _ in range(2)] == [False, True]
    clock.forward(days=-30)
    assert ["error" in sign_in(api) for _ in range(2)] == [False, True]


def test_a_session_ends_when_its_owner_says_so(api: conftest.Api, alice: models.User) -> None:
    ended, other = peer_of(sign_in(api)), peer_of(sign_in(api))
    assert api.post("/session_end", peer=ended).get_json() == {}
    assert api.get("/user_config", peer=ended).status_code == 401
    assert api.get("/user_config", peer=other).status_code == 200


def test_also_a_certificate_that_is_not_on_record_can_be_ended(api: conftest.Api, alice: models.User) -> None:
    peer = conftest.user_peer(alice)
    assert api.post("/session_end", peer=peer).get_json() == {}
    assert api.get("/user_config", peer=peer).status_code == 401


def test_sessions_end_with_the_password_and_with_the_account(api: conftest.Api, director: runtime.Director, alice: models.User) -> None:
    first = peer_of(sign_in(api))
    fields = {"username": "alice", "password": conftest.PASSWORD, "new_password": "another horse"}
    assert api.post("/change_password", fields).get_json() == {}
    assert api.get("/user_config", peer=first).status_code == 401
    second = peer_of(sign_in(api, password="another horse"))
    users.set_active(director, "alice", False)
    users.set_active(director, "alice", True)
    assert api.get("/user_config", peer=second).status_code == 401


@pytest.mark.parametrize("path", ["/session_certificate", "/getcerts"])
@pytest.mark.parametrize("change", ["password", "disabled"])
def test_nothing_is_signed_for_a_password_that_was_changed_meanwhile(
    api: conftest.Api, director: runtime.Director, alice: models.User, monkeypatch: pytest.MonkeyPatch, path: str, change: str
) -> None:
    check = users.authenticate

    def slow(*arguments: Any) -> models.User:
        found = check(*arguments)
        if change == "password":
            users.set_password(director, alice.uid, "another horse")
        else:
            users.set_active(director, "alice", False)
        return found

    monkeypatch.setattr(users, "authenticate", slow)
    csr = {"csr": x509.make_csr(x509.new_key(), "x")} if path == "/session_certificate" else {}
    reply = api.post(path, {"username": "alice", "password": conftest.PASSWORD, **csr}).get_json()
    assert reply == {"error": "User authentication failed"}
    with director.database.reader() as session:
        assert [row for row in certificates.listing(session, alice.uid) if not row.revoked] == []


def test_an_old_hash_is_renewed_and_a_session_begins(api: conftest.Api, director: runtime.Director, alice: models.User) -> None:
    with director.database.session() as session:
        old = argon2.PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(conftest.PASSWORD)
        session.get_one(models.User, alice.uid).password = old
    assert "certificate" in sign_in(api)
    with director.database.reader() as session:
        assert session.get_one(models.User, alice.uid).password != old


def test_users_see_and_revoke_their_own_certificates(api: conftest.Api, alice: models.User, bob: models.User) -> None:
    first, second = peer_of(sign_in(api)), peer_of(sign_in(api))
    listed = api.get("/certificates", peer=second).get_json()
    assert {row["serial"] for row in listed} == {first.serial, second.serial}
    assert [row["current"] for row in listed if row["serial"] == second.serial] == [True]
    assert api.get("/certificates", peer=conftest.user_peer(bob)).get_json() == []
    refused = api.post("/revoke_own_certificate", {"serial": first.serial}, peer=conftest.user_peer(bob)).get_json()
    assert refused == {"error": "You have no certificate with this serial number."}
    spelled = ":".join(first.serial[at : at + 2] for at in range(0, len(first.serial), 2)).upper()
    assert api.post("/revoke_own_certificate", {"serial": spelled}, peer=second).get_json() == {}
    assert api.get("/user_config", peer=first).status_code == 401
    assert [bool(row["revoked"]) for row in api.get("/certificates", peer=second).get_json() if row["serial"] == first.serial] == [True]


def test_certificates_are_forgotten_a_while_after_their_end(director: runtime.Director, api: conftest.Api, alice: models.User) -> None:
    sign_in(api)
    for days, left in ((20, 1), (40, 0)):
        with director.database.session() as session:
            certificates.prune(session, models.utcnow() + datetime.timedelta(days=days))
            assert session.query(models.Certificate).filter_by(uid=alice.uid).count() == left


def test_anybody_learns_how_to_register(api: conftest.Api) -> None:
    reply = api.get("/registration").get_json()
    assert (reply["mode"], reply["confirmation"], reply["oidc"], reply["max_credit"]) == ("open", False, [], 50)


def test_service_types_tell_their_page(api: conftest.Api, alice: models.User) -> None:
    listed = {one["name"]: one for one in api.get("/service_types", peer=conftest.user_peer(alice)).get_json()}
    assert {"generic", "php", "java", "mysql", "helloworld"} <= set(listed)
    assert {"label", "description", "roles", "page"} <= set(listed["php"])
    assert {"panels", "roles", "loses", "next_step"} <= set(listed["php"]["page"])


def test_a_broken_service_type_hides_no_other(api: conftest.Api, alice: models.User, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = services.registry.get("helloworld")
    odd = dataclasses.replace(sound, name="odd", page="conpaas.nowhere:PAGE")

    def broken() -> services.ServiceType:
        raise SyntaxError("this package is not even Python")

    known = services.Registry(lambda: [("helloworld", lambda: sound), ("odd", lambda: odd), ("broken", broken)])
    monkeypatch.setattr(services, "registry", known)
    listed = {one["name"]: one for one in api.get("/service_types", peer=conftest.user_peer(alice)).get_json()}
    assert set(listed) == {"helloworld", "odd"}
    assert listed["odd"]["page"] == json.loads(json.dumps(pages.Page().to_dict()))


def test_a_manager_is_told_which_certificates_of_its_user_were_revoked(
    api: conftest.Api, director: runtime.Director, alice: models.User, bob: models.User
) -> None:
    manager = conftest.node_peer(identity.ROLE_MANAGER, alice.uid, conftest.application_of(director, alice))

    def told() -> list[str]:
        return list(api.post("/callback/revoked_certificates", peer=manager).get_json()["serials"])

    ended, other = peer_of(sign_in(api)), peer_of(sign_in(api))
    peer_of(sign_in(api, username="bob"))
    users.set_active(director, "bob", False)
    assert told() == []
    api.post("/session_end", peer=ended)
    assert told() == [ended.serial]
    users.set_password(director, alice.uid, "another long password")
    assert sorted(told()) == sorted([ended.serial, other.serial])
    users.set_active(director, "alice", False)
    assert sorted(told()) == sorted([ended.serial, other.serial]), "also, and then above all, while the account is disabled"
    assert "error" in api.post("/credit", peer=manager).get_json()
    assert api.post("/callback/revoked_certificates", peer=other).status_code in (401, 403)


def test_a_certificate_that_has_ended_by_itself_is_no_longer_told(
    api: conftest.Api, director: runtime.Director, clock: conftest.Clock, alice: models.User
) -> None:
    manager = conftest.node_peer(identity.ROLE_MANAGER, alice.uid, conftest.application_of(director, alice))
    with director.database.session() as session:
        fields = {"role": "user", "uid": alice.uid, "fingerprint": "f", "issued": clock.now, "revoked": clock.now}
        session.add(models.Certificate(serial="c0ffee", expires=clock.now + datetime.timedelta(hours=1), **fields))
    assert api.post("/callback/revoked_certificates", peer=manager).get_json() == {"serials": ["c0ffee"]}
    clock.forward(hours=2)
    assert api.post("/callback/revoked_certificates", peer=manager).get_json() == {"serials": []}
