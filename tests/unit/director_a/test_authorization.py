"""Every declared endpoint against every kind of caller that is not meant."""

from __future__ import annotations

import re
from typing import Any

import pytest

from conpaas.core.https import identity
from conpaas.director import apipage, config, endpoint, models, runtime, users
from conpaas.director import app as director_app

from . import conftest

apipage.render()  # declares all endpoints
ENDPOINTS = sorted(endpoint.REGISTRY.values(), key=lambda entry: entry.rule)
BY_CERTIFICATE = [entry for entry in ENDPOINTS if entry.auth in {"user", "manager", "operator"}]

NO_CERTIFICATE = (401, "cert_required: no client certificate was presented")
NO_UID = (401, "cert_required: client certificate does NOT provide UID")
NO_LOCATOR = (401, "cert_required: client certificate does NOT provide serviceLocator")


def path_of(entry: endpoint.Endpoint, aid: int) -> str:
    return re.sub(r"<[^>]+>", "x", re.sub(r"<int:[^>]+>", str(aid), entry.rule))


def ask(api: conftest.Api, entry: endpoint.Endpoint, aid: int, peer: identity.PeerIdentity | None) -> list[tuple[int, Any]]:
    """What the endpoint answers to each of its methods: status, and the JSON or text."""
    answers = []
    for verb in entry.methods:
        response = api.call(verb, path_of(entry, aid), peer=peer)
        answers.append((response.status_code, response.get_json() if response.is_json else response.get_data(as_text=True)))
    return answers


@pytest.fixture
def aid(director: runtime.Director, alice: models.User) -> int:
    return conftest.application_of(director, alice)


def refused_role(answer: tuple[int, Any], role: str) -> bool:
    return answer[0] == 403 and answer[1]["error"].startswith(f"A certificate of role '{role}' may not do this")


@pytest.mark.parametrize("entry", BY_CERTIFICATE, ids=lambda entry: entry.rule)
class TestRefusals:
    def test_without_a_certificate(self, api: conftest.Api, aid: int, entry: endpoint.Endpoint) -> None:
        assert set(ask(api, entry, aid, None)) == {NO_CERTIFICATE}

    def test_without_uid(self, api: conftest.Api, aid: int, entry: endpoint.Endpoint) -> None:
        for role in ("frontend", "director", "user", "manager", ""):
            assert set(ask(api, entry, aid, identity.PeerIdentity(role=role, aid=aid))) == {NO_UID}

    def test_other_roles_even_with_the_right_uid_and_application(
        self, api: conftest.Api, alice: models.User, aid: int, entry: endpoint.Endpoint
    ) -> None:
        for role in ("agent", "frontend", "director", "", "USER", "Manager"):
            assert all(refused_role(answer, role) for answer in ask(api, entry, aid, conftest.node_peer(role, alice.uid, aid)))

    def test_users_and_managers_are_not_each_other(self, api: conftest.Api, alice: models.User, aid: int, entry: endpoint.Endpoint) -> None:
        wrong = identity.ROLE_USER if entry.auth == "manager" else identity.ROLE_MANAGER
        assert all(refused_role(answer, wrong) for answer in ask(api, entry, aid, conftest.node_peer(wrong, alice.uid, aid)))

    def test_an_unknown_uid_is_false(self, api: conftest.Api, aid: int, entry: endpoint.Endpoint) -> None:
        role = identity.ROLE_MANAGER if entry.auth == "manager" else identity.ROLE_USER
        answers = ask(api, entry, aid, conftest.node_peer(role, 4711, aid))
        assert answers == [(200, False)] * len(entry.methods)

    def test_a_disabled_account(
        self, director: runtime.Director, api: conftest.Api, alice: models.User, aid: int, entry: endpoint.Endpoint
    ) -> None:
        if entry.disabled_too:
            assert entry.rule == "/callback/revoked_certificates", "nothing else is answered to a disabled account"
            return
        users.set_active(director, "alice", False)
        role = identity.ROLE_MANAGER if entry.auth == "manager" else identity.ROLE_USER
        answers = ask(api, entry, aid, conftest.node_peer(role, alice.uid, aid))
        assert answers == [(200, {"error": "The account 'alice' is disabled."})] * len(entry.methods)

    def test_a_revoked_certificate(
        self, director: runtime.Director, api: conftest.Api, alice: models.User, aid: int, entry: endpoint.Endpoint
    ) -> None:
        role = identity.ROLE_MANAGER if entry.auth == "manager" else identity.ROLE_USER
        peer = conftest.node_peer(role, alice.uid, aid)
        with director.database.session() as session:
            now = director.clock()
            session.add(models.Certificate(serial=peer.serial, role=role, uid=alice.uid, expires=now, fingerprint="", revoked=now))
        assert all(status == 401 and "revoked" in text for status, text in ask(api, entry, aid, peer))


@pytest.mark.parametrize("entry", [entry for entry in ENDPOINTS if entry.auth == "manager"], ids=lambda entry: entry.rule)
class TestManagers:
    def test_without_an_application(self, api: conftest.Api, alice: models.User, aid: int, entry: endpoint.Endpoint) -> None:
        assert set(ask(api, entry, aid, conftest.node_peer("manager", alice.uid, None))) == {NO_LOCATOR}

    def test_of_an_application_that_is_gone(self, api: conftest.Api, alice: models.User, aid: int, entry: endpoint.Endpoint) -> None:
        assert ask(api, entry, aid, conftest.node_peer("manager", alice.uid, 4711)) == [(200, False)] * len(entry.methods)

    def test_of_somebody_elses_application(
        self, director: runtime.Director, api: conftest.Api, alice: models.User, bob: models.User, aid: int, entry: endpoint.Endpoint
    ) -> None:
        others = conftest.application_of(director, bob)
        assert ask(api, entry, aid, conftest.node_peer("manager", alice.uid, others)) == [(200, False)] * len(entry.methods)


@pytest.mark.parametrize("entry", [entry for entry in ENDPOINTS if entry.auth == "operator"], ids=lambda entry: entry.rule)
def test_operators_only(api: conftest.Api, alice: models.User, operator: models.User, aid: int, entry: endpoint.Endpoint) -> None:
    refused = (403, {"error": "Only an operator of this Director may do this."})
    assert all(answer == refused for answer in ask(api, entry, aid, conftest.user_peer(alice)))
    assert all(answer[0] == 200 for answer in ask(api, entry, aid, conftest.user_peer(operator)))


@pytest.mark.parametrize("entry", [entry for entry in ENDPOINTS if entry.auth == "password"], ids=lambda entry: entry.rule)
def test_a_password_is_needed_whatever_the_certificate(
    api: conftest.Api, alice: models.User, operator: models.User, entry: endpoint.Endpoint
) -> None:
    without = ({}, {"username": "alice"}, {"username": "alice", "password": "wrong"}, {"uuid": ""}, {"openid": "<none>"}, {"password": "x"})
    for peer in (None, conftest.user_peer(alice), conftest.user_peer(operator), identity.PeerIdentity("frontend")):
        for fields in without:
            assert api.post(entry.rule, fields, peer=peer).get_json() in (False, {"error": "User authentication failed"})


@pytest.mark.parametrize("entry", [entry for entry in ENDPOINTS if entry.auth == "password"], ids=lambda entry: entry.rule)
def test_uuid_and_openid_prove_nothing(director: runtime.Director, api: conftest.Api, alice: models.User, entry: endpoint.Endpoint) -> None:
    with director.database.session() as session:
        session.get_one(models.User, alice.uid).uuid = "the-uuid"
        session.get_one(models.User, alice.uid).openid = "the-openid"
    for fields in ({"uuid": "the-uuid"}, {"openid": "the-openid"}, {"username": "alice", "uuid": "the-uuid"}):
        assert api.post(entry.rule, fields).get_json() in (False, {"error": "User authentication failed"})


def test_every_endpoint_says_what_it_does(configuration: config.DirectorConfig) -> None:
    assert all(entry.help for entry in ENDPOINTS)
    assert {entry.auth for entry in ENDPOINTS} == {"none", "password", "user", "manager", "operator"}
    page = apipage.render()
    assert all(f"`{entry.rule}`" in page for entry in ENDPOINTS)


def test_nothing_is_mounted_that_was_not_declared(director: runtime.Director) -> None:
    rules = {rule.rule for rule in director_app.create_app(director.config, director).url_map.iter_rules()}
    assert rules == set(endpoint.REGISTRY)
