"""Linking an identity of a real OpenID Connect provider to an account, signing in with it, and taking it away."""

from __future__ import annotations

import html
import pathlib
import re
from collections.abc import Iterator
from urllib import parse

import pytest
import requests
from tests.support import frontends, oidc_provider

HOST = "127.84.1.5"
NAME = "uni"


class Provider:
    """The provider's process, and the browser that goes there."""

    def __init__(self, issuer: str, ca: pathlib.Path) -> None:
        self.issuer, self.ca = issuer, ca
        self.web = requests.Session()
        self.web.trust_env, self.web.verify = False, str(ca)

    def person(self, sub: str) -> None:
        """Who signs in from now on."""
        self.web.post(f"{self.issuer}/control", json={"sub": sub, "email": f"{sub}@idp.example", "email_verified": True}, timeout=30)

    def visit(self, address: str) -> str:
        """Sign in there; where the browser is sent back to."""
        return str(self.web.get(address, allow_redirects=False, timeout=30).headers["location"])


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with oidc_provider.running(tmp_path_factory.mktemp("provider"), HOST) as (issuer, ca):
        yield Provider(issuer, ca)


@pytest.fixture(scope="module")
def whole(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[frontends.Whole]:
    secret = f"CLIENT_ID = {oidc_provider.CLIENT_ID}\nCLIENT_SECRET = {oidc_provider.CLIENT_SECRET}\n"
    section = f"[oidc {NAME}]\nISSUER = {provider.issuer}\n{secret}LABEL = Our <university>\nCA = {provider.ca}\n"
    directory = tmp_path_factory.mktemp("identities")
    with frontends.running(directory, sections=section) as made:
        yield made


def away(reply: requests.Response) -> str:
    """The provider's address on the page that sends a browser there."""
    found = re.search(r'href="(https://[^"]+)" rel="noreferrer"', reply.text)
    assert found, reply.text
    return html.unescape(found[1])


def back(person: frontends.Person, location: str) -> requests.Response:
    parts = parse.urlsplit(location)
    return person.get(f"{parts.path}?{parts.query}")


def test_an_identity_is_linked_signs_in_and_is_taken_away(whole: frontends.Whole, provider: Provider) -> None:
    whole.register("alice")
    alice, guest = whole.person("alice"), whole.person()
    provider.person("alice-at-uni")
    assert "Our &lt;university&gt;" in alice.page("/account")
    location = provider.visit(away(alice.post("/account/identities", name=NAME)))
    assert back(alice, location).headers["location"] == "/account#ways"
    page = alice.page("/account")
    assert "You can sign in with this identity from now on." in page
    (number,) = re.findall(r'name="id" value="(\d+)"', page)

    assert back(guest, provider.visit(away(guest.post("/oidc/start", name=NAME)))).headers["location"] == "/apps"
    assert "Signed in as <strong>alice</strong>" in guest.page("/account")

    assert alice.post("/account/identities/unlink", id=number).status_code == 303
    assert 'name="id"' not in alice.page("/account")
    assert alice.post("/account/identities/unlink", id=number).status_code in (404, 409)


def test_somebody_invited_comes_in_through_a_provider(provider: Provider, tmp_path: pathlib.Path) -> None:
    """By invitation only: the invitation goes along to the provider and back, and makes one account, of the address it is for."""
    secret = f"CLIENT_ID = {oidc_provider.CLIENT_ID}\nCLIENT_SECRET = {oidc_provider.CLIENT_SECRET}\n"
    section = f"[oidc {NAME}]\nISSUER = {provider.issuer}\n{secret}LABEL = Our <university>\nCA = {provider.ca}\n"
    with frontends.running(tmp_path, sections=section, REGISTRATION="invitation") as made:
        made.register("opal", role="operator")
        page = made.person("opal").post("/operator/invitations", email="erna@idp.example", credit="7").text
        found = re.search(rf"{re.escape(made.url)}/invitation/([\w-]+)", page)
        assert found
        token = found[1]

        provider.person("uninvited")
        guest = made.person()
        assert "by invitation only" in back(guest, provider.visit(away(guest.post("/oidc/start", name=NAME)))).text

        invited = made.person()
        page = invited.page(f"/invitation/{token}")
        assert f'name="invitation" value="{token}"' in page and "Sign in with Our &lt;university&gt;" in page
        provider.person("somebody-else")
        refused = back(invited, provider.visit(away(invited.post("/oidc/start", name=NAME, invitation=token))))
        assert "The invitation is for another e-mail address." in refused.text
        assert f'value="{token}"' in refused.text, "the way to try again is on the page"

        provider.person("erna")
        reply = back(invited, provider.visit(away(invited.post("/oidc/start", name=NAME, invitation=token))))
        assert reply.headers["location"] == "/apps"
        invited.csrf = ""
        assert "erna@idp.example" in invited.page("/account")
        assert "7" in invited.page("/credits")
        provider.person("uninvited")
        again = made.person()
        assert "not valid, or no longer" in back(again, provider.visit(away(again.post("/oidc/start", name=NAME, invitation=token)))).text


def test_what_another_browser_was_sent_away_for_links_nothing(whole: frontends.Whole, provider: Provider) -> None:
    whole.register("bob")
    whole.register("mallory")
    bob, mallory = whole.person("bob"), whole.person("mallory")
    provider.person("mallory-at-uni")
    location = provider.visit(away(mallory.post("/account/identities", name=NAME)))
    assert back(bob, location).status_code == 403  # bob's browser was not sent away: mallory cannot get into bob's account
    assert 'name="id"' not in bob.page("/account")
    spoilt = f"{location}x"
    assert back(mallory, spoilt).status_code == 403


def test_a_provider_that_is_not_there(whole: frontends.Whole) -> None:
    whole.register("carol")
    carol = whole.person("carol")
    reply = carol.post("/account/identities", name="nobody")
    assert reply.status_code in (400, 404, 409)


def test_an_account_that_came_through_a_provider_gets_a_password(whole: frontends.Whole, provider: Provider) -> None:
    provider.person("dora")
    dora = whole.person()
    assert back(dora, provider.visit(away(dora.post("/oidc/start", name=NAME)))).headers["location"] == "/apps"
    dora.csrf = ""  # the session has another
    page = dora.page("/account")
    assert "Your account has no password yet" in page and "Present password" not in page
    (number,) = re.findall(r'name="id" value="(\d+)"', page)
    refused = dora.post("/account/identities/unlink", id=number)
    assert "This is the only way to sign in to your account." in refused.text
    assert dora.post("/account/first-password", first=frontends.PASSWORD, first_again="something else").status_code == 400
    assert dora.post("/account/first-password", first=frontends.PASSWORD, first_again=frontends.PASSWORD).status_code == 303
    page = dora.page("/account")
    assert "Your account has a password now." in page and "Present password" in page and "no password yet" not in page
    found = re.search(r"Signed in as <strong>([^<]+)</strong>", dora.page("/account"))
    assert found
    assert whole.person(found[1]).get("/account").status_code == 200
    assert dora.post("/account/first-password", first="another one here", first_again="another one here").status_code in (400, 409)
