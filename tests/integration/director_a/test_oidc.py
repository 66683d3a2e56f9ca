"""Signing in through an identity provider that runs as a process of its own, over TLS."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib import parse

import pytest
import sqlalchemy as sa
from tests.support import oidc_provider

from conpaas.core.https import identity, x509
from conpaas.director import config, models, users
from conpaas.director.oidc import logins

from . import conftest

HOST = "127.81.0.5"
BACK = "https://front.example/oidc/callback"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


@dataclasses.dataclass
class Provider:
    """The provider's process, and a browser that goes there."""

    issuer: str
    ca: pathlib.Path

    def ask(self, url: str, body: Any = None) -> Any:
        context = ssl.create_default_context(cafile=str(self.ca))
        opener = urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler({}))
        data = None if body is None else json.dumps(body).encode()
        try:
            with opener.open(urllib.request.Request(url, data), timeout=30) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            assert error.code == 302
            return error.headers["Location"]

    def control(self, **wanted: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.ask(f"{self.issuer}/control", wanted)
        return found

    def person(self, sub: str, email: str | None = None, **claims: Any) -> None:
        given = {"email": email, "email_verified": True} if email else {}
        self.control(sub=sub, **given, **claims)

    def visit(self, url: str) -> dict[str, str]:
        """Sign in there; what comes back to the front-end."""
        location = self.ask(url)
        assert location.startswith(f"{BACK}?")
        return dict(parse.parse_qsl(parse.urlsplit(location).query))


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with oidc_provider.running(tmp_path_factory.mktemp("provider"), HOST) as (issuer, ca):
        yield Provider(issuer, ca)


@pytest.fixture
def provider(process: Provider) -> Provider:
    process.control(sub="s1", email="ann@idp.example", email_verified=True, preferred_username="ann")
    logins._client_of.cache_clear()
    return process


@pytest.fixture
def configuration(tmp_path: pathlib.Path, provider: Provider) -> config.DirectorConfig:
    return configured(tmp_path, provider)


def configured(tmp_path: pathlib.Path, provider: Provider, more: str = "") -> config.DirectorConfig:
    path = tmp_path / "state" / "director.cfg"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f"[director]\nSTATE_DIR = {path.parent}\nDIRECTOR_URL = https://{conftest.HOST}:5555\nPORT = 0\nFRONTEND_URL = https://front.example\n"
        f"{more}\n[oidc uni]\nISSUER = {provider.issuer}\nCLIENT_ID = {oidc_provider.CLIENT_ID}\n"
        f"CLIENT_SECRET = {oidc_provider.CLIENT_SECRET}\nLABEL = Our university\nCA = {provider.ca}\n"
    )
    return config.load(path)


class Front:
    """What a front-end does."""

    def __init__(self, running: conftest.Running, provider: Provider) -> None:
        self.running = running
        self.provider = provider

    def begin(self) -> dict[str, str]:
        reply: dict[str, str] = json.loads(self.running.post("/oidc/begin", {"name": "uni", "redirect_uri": BACK}).body)
        return reply

    def come_back(self) -> dict[str, str]:
        begun = self.begin()
        back = self.provider.visit(begun["url"])
        assert back["state"] == begun["state"]
        return back

    def finish(self, back: dict[str, str], **fields: str) -> Any:
        csr = x509.make_csr(x509.new_key(), "x")
        reply = self.running.post("/oidc/finish", {"redirect_uri": BACK, "csr": csr, **back, **fields})
        return json.loads(reply.body)

    def sign_in(self, **fields: str) -> Any:
        return self.finish(self.come_back(), **fields)


@pytest.fixture
def front(running: conftest.Running, provider: Provider) -> Front:
    return Front(running, provider)


def everybody(front: Front) -> list[str]:
    with front.running.director.database.reader() as session:
        return list(session.scalars(sa.select(models.User.username).order_by(models.User.uid)))


def test_the_first_login_makes_an_account_and_the_second_finds_it(front: Front) -> None:
    assert json.loads(front.running.get("/registration").body)["oidc"] == [{"name": "uni", "label": "Our university"}]
    front.provider.person("s1", "ann@idp.example", preferred_username="ann", given_name="Ann", family_name="O'Neil")
    first = front.sign_in()
    assert (first["user"]["username"], first["user"]["email"], first["user"]["fname"]) == ("ann", "ann@idp.example", "Ann")
    assert x509.read_identity(first["certificate"]).uid == first["user"]["uid"]
    front.provider.person("s1", "ann@moved.example", preferred_username="root")
    assert front.sign_in()["user"]["uid"] == first["user"]["uid"]
    assert everybody(front) == ["ann"]


FAULTS = ("signature", "audience", "azp", "nonce", "missing", "expired", "issuer", "secret", "none", "subject")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_token_that_proves_nothing_lets_nobody_in(front: Front, fault: str) -> None:
    front.provider.control(fault=fault)
    reply = front.sign_in()
    assert reply["error"].startswith("The login through Our university failed: ")
    assert "certificate" not in reply
    assert everybody(front) == []


def test_a_state_is_good_for_one_try(front: Front) -> None:
    back = front.come_back()
    assert "certificate" in front.finish(back)
    assert front.finish(back)["error"] == "The login is not valid, or no longer."


def test_a_failed_try_uses_the_state_up(front: Front) -> None:
    back = front.come_back()
    assert "did not take the code" in front.finish({**back, "code": "guess"})["error"]
    assert front.finish(back)["error"] == "The login is not valid, or no longer."


def test_a_state_that_nobody_began_or_that_was_begun_for_another_place(front: Front) -> None:
    back = front.come_back()
    assert front.finish({**back, "state": "guess"})["error"] == "The login is not valid, or no longer."
    assert front.finish(back, redirect_uri=f"{BACK}2")["error"] == "The login is not valid, or no longer."


def test_a_code_of_another_login_does_not_fit(front: Front) -> None:
    """PKCE: a stolen code is worth nothing with another login's state."""
    hers, his = front.come_back(), front.come_back()
    assert "did not take the code" in front.finish({**his, "code": hers["code"]})["error"]


def test_a_login_takes_ten_minutes_at_most(front: Front) -> None:
    back = front.come_back()
    with front.running.director.database.session() as session:
        session.query(models.OidcLogin).update({"expires": front.running.director.clock()})
    assert front.finish(back)["error"] == "The login is not valid, or no longer."


def test_only_the_front_end_gets_people_back(front: Front) -> None:
    for elsewhere in ("https://evil.example/", "https://front.example.evil/", "https://front.example@evil/x", "javascript:alert(1)"):
        reply = front.running.post("/oidc/begin", {"name": "uni", "redirect_uri": elsewhere})
        assert "not an address of this Director's front-end" in reply.text
    assert "no identity provider" in front.running.post("/oidc/begin", {"name": "x", "redirect_uri": BACK}).text


def test_waiting_logins_are_bounded(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "MAX_WAITING", 3)
    states = [front.come_back() for _ in range(6)]
    with front.running.director.database.reader() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(models.OidcLogin)) <= 4
    assert "certificate" in front.finish(states[-1])


def test_new_keys_of_the_provider_are_fetched(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "certificate" in front.sign_in()
    monkeypatch.setattr("conpaas.director.oidc.provider.FRESH", 0.0)
    front.provider.control(rotate=True)
    assert "certificate" in front.sign_in()
    fetched = front.provider.control()["fetched"]
    assert "certificate" in front.sign_in()
    assert front.provider.control()["fetched"] == fetched


@pytest.mark.parametrize("fault", ["moved", "description"])
def test_a_broken_provider_is_one_sentence(front: Front, fault: str) -> None:
    back = {"state": "", "code": ""}
    if fault == "moved":
        back = front.come_back()
    front.provider.control(fault=fault)
    text = json.dumps(front.finish(back)) if fault == "moved" else json.dumps(front.begin())
    assert "The identity provider Our university cannot be used at present" in text


def test_an_address_hands_over_no_account(front: Front) -> None:
    alice = conftest.register(front.running, "alice")
    front.provider.person("s9", "Alice@example.org", preferred_username="alice")
    refused = front.sign_in()
    assert refused["error"] == "There is an account with this e-mail address already."
    holder = sign_in_by_password(front, "alice")
    assert json.loads(front.running.post("/oidc/link", {"redirect_uri": BACK, **front.come_back()}, holder).body) == {}
    assert front.sign_in()["user"]["uid"] == alice.uid
    assert json.loads(front.running.post("/oidc/link", {"redirect_uri": BACK, **front.come_back()}, holder).body) == {}
    (linked,) = json.loads(front.running.get("/oidc/identities", holder).body)
    assert linked["label"] == "Our university"
    assert json.loads(front.running.post("/oidc/unlink", {"id": str(linked["id"])}, holder).body) == {}
    assert "already" in front.sign_in()["error"]


def sign_in_by_password(front: Front, name: str) -> identity.Credentials:
    with front.running.director.database.reader() as session:
        user = users.get(session, name)
    return conftest.Holder(pathlib.Path(front.running.director.config.state_dir), front.running).user(user)


def test_an_identity_signs_in_to_one_account(front: Front) -> None:
    front.sign_in()
    conftest.register(front.running, "bob")
    bob = sign_in_by_password(front, "bob")
    reply = json.loads(front.running.post("/oidc/link", {"redirect_uri": BACK, **front.come_back()}, bob).body)
    assert reply["error"] == "This identity signs in to another account."
    assert json.loads(front.running.post("/oidc/unlink", {"id": "1"}, bob).body)["error"].startswith("There is no such identity")


def test_the_only_way_in_stays(front: Front) -> None:
    front.sign_in()
    ann = sign_in_by_password(front, "ann")
    (linked,) = json.loads(front.running.get("/oidc/identities", ann).body)
    assert "only way" in front.running.post("/oidc/unlink", {"id": str(linked["id"])}, ann).text
    assert json.loads(front.running.post("/set_first_password", {"new_password": conftest.PASSWORD}, ann).body) == {}
    assert "has a password" in front.running.post("/set_first_password", {"new_password": "another horse"}, ann).text
    assert json.loads(front.running.post("/oidc/unlink", {"id": str(linked["id"])}, ann).body) == {}
    login = front.running.post("/login", {"username": "ann", "password": conftest.PASSWORD})
    assert json.loads(login.body)["username"] == "ann"


def test_a_name_that_is_taken_or_none_gets_another(front: Front) -> None:
    conftest.register(front.running, "ann")
    front.provider.person("s1", "ann@idp.example", preferred_username="Ann")
    assert front.sign_in()["user"]["username"] == "Ann2"
    front.provider.person("s2", "x@idp.example", preferred_username="<script>'; drop")
    assert front.sign_in()["user"]["username"] == "script.drop"
    front.provider.person("s3", "y@idp.example", preferred_username="frontend")
    assert front.sign_in()["user"]["username"] == "user"


def test_without_an_address_there_is_no_account(front: Front) -> None:
    front.provider.person("s4")
    assert "gave no e-mail address" in front.sign_in()["error"]


def test_a_disabled_account_stays_out(front: Front) -> None:
    front.sign_in()
    users.set_active(front.running.director, "ann", False)
    assert front.sign_in()["error"] == "The account 'ann' is disabled."


@pytest.mark.parametrize("mode", ["closed", "invitation"])
def test_new_accounts_follow_the_registration_mode(tmp_path: pathlib.Path, provider: Provider, mode: str) -> None:
    running = conftest.Running(configured(tmp_path, provider, f"REGISTRATION = {mode}"))
    try:
        front = Front(running, provider)
        assert "error" in front.sign_in()
        assert everybody(front) == []
    finally:
        running.server.stop()


def test_an_address_that_the_provider_did_not_check_is_confirmed_here(tmp_path: pathlib.Path, provider: Provider) -> None:
    running = conftest.Running(configured(tmp_path, provider, "CONFIRM_EMAIL = yes"))
    try:
        front = Front(running, provider)
        provider.control(sub="s1", email="ann@idp.example", email_verified=False)
        assert "not confirmed yet" in front.sign_in()["error"]
        provider.person("s2", "bea@idp.example")
        assert "certificate" in front.sign_in()
    finally:
        running.server.stop()


def test_a_provider_with_another_certificate_is_not_asked(tmp_path: pathlib.Path, provider: Provider) -> None:
    other = tmp_path / "other.pem"
    other.write_text(x509.certificate_pem(x509.new_ca()[1]))
    running = conftest.Running(configured(tmp_path, dataclasses.replace(provider, ca=other)))
    try:
        assert "CERTIFICATE_VERIFY_FAILED" in json.dumps(Front(running, provider).begin())
    finally:
        running.server.stop()


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[oidc x]\nISSUER = https://a\nCLIENT_ID = c\n", "CLIENT_SECRET is missing."),
        ("[oidc x]\nISSUER = http://a.example\nCLIENT_ID = c\nCLIENT_SECRET = s\n", "ISSUER must be an https URL"),
        ("[oidc x]\nISSUER = https://a\nCLIENT_ID = c\nCLIENT_SECRET = s\nSCOPES = email\n", "SCOPES must name openid."),
        ("[oidc x]\nISSUER = https://a\nCLIENT_ID = c\nCLIENT_SECRET = s\nCOLOUR = red\n", "'COLOUR' is not a key"),
        ("[oidc x/y]\nISSUER = https://a\nCLIENT_ID = c\nCLIENT_SECRET = s\n", "the name of a provider"),
    ],
)
def test_wrong_settings_are_named(tmp_path: pathlib.Path, text: str, wrong: str) -> None:
    path = tmp_path / "x.cfg"
    path.write_text(text)
    (problem,) = config.problems(path)
    assert wrong in problem


def test_a_director_without_providers_loads_nothing_for_them() -> None:
    code = "import sys\nfrom conpaas.director import app, apipage\napipage.render()\n"
    code += "print([name for name in sys.modules if name.split('.')[0] in ('authlib', 'joserfc', 'smtplib') or name == 'urllib.request'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
