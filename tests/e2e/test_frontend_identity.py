"""Coming in through an identity provider and by a confirmed address, in a real browser: the provider and the mail server are processes."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator

import pytest
import requests
from playwright import sync_api

from tests.support import browser, frontends, oidc_provider, smtp

HOST = "127.84.1.7"
PASSWORD = "a long enough password"
expect = sync_api.expect


@pytest.fixture
def page(tmp_path: pathlib.Path) -> Iterator[sync_api.Page]:
    with browser.context(tmp_path / "profile", any_certificate=True) as context:
        opened = context.new_page()
        complaints = browser.Complaints(opened)
        yield opened
        refused = "the server responded with a status of 4"  # what the browser says of a form that is answered with what is wrong
        assert not [text for text in complaints.found if refused not in text], complaints.found


def test_in_and_out_through_an_identity_provider(page: sync_api.Page, tmp_path: pathlib.Path) -> None:
    (tmp_path / "provider").mkdir()
    with oidc_provider.running(tmp_path / "provider", HOST) as (issuer, ca):
        client = f"CLIENT_ID = {oidc_provider.CLIENT_ID}\nCLIENT_SECRET = {oidc_provider.CLIENT_SECRET}\n"
        section = f"[oidc uni]\nISSUER = {issuer}\n{client}LABEL = Our <university>\nCA = {ca}\n"

        def control(**wanted: object) -> None:
            requests.post(f"{issuer}/control", json=wanted, verify=str(ca), timeout=30).raise_for_status()

        person = {"sub": "s7", "email": "erna@idp.example", "email_verified": True, "preferred_username": "erna"}
        with frontends.running(tmp_path, sections=section) as made:
            page.goto(f"{made.url}/sign-in")
            browser.inspect(page, "sign-in-with-a-provider")
            control(**person, fault="signature")
            page.get_by_role("button", name="Sign in with Our <university>").click()
            expect(page.get_by_role("alert")).to_be_visible()
            browser.inspect(page, "provider-refused")

            control(**person)
            page.get_by_role("button", name="Sign in with Our <university>").click()
            page.wait_for_url("**/apps")
            page.get_by_role("link", name="Account", exact=True).click()
            expect(page.get_by_text("Signed in as erna")).to_be_visible()
            expect(page.get_by_text("Your account has no password yet")).to_be_visible()
            browser.inspect(page, "account-with-an-identity")
            page.get_by_role("button", name="Sign out").click()
            expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
            page.go_back()
            page.goto(f"{made.url}/account")
            expect(page.get_by_role("heading", name="Sign in")).to_be_visible()

            page.get_by_role("button", name="Sign in with Our <university>").click()
            page.wait_for_url("**/apps")
            page.goto(f"{made.url}/account")
            expect(page.get_by_text("Signed in as erna")).to_be_visible()


def test_an_address_is_confirmed_by_the_link_in_the_message(page: sync_api.Page, tmp_path: pathlib.Path) -> None:
    with smtp.running(HOST) as mailbox:
        mail = f"[mail]\nNOTIFY = smtp\nSMTP_HOST = {HOST}\nSMTP_PORT = {mailbox.port}\nMAIL_FROM = conpaas@director.example\n"
        with frontends.running(tmp_path, sections=mail, CONFIRM_EMAIL="yes") as made:
            page.goto(f"{made.url}/register")
            for label, text in (("User name", "zoë"), ("E-mail", "zoe@example.org"), ("First name", "Zoë")):
                page.get_by_label(label).fill(text)
            page.get_by_label("Password", exact=True).fill(PASSWORD)
            page.get_by_label("The same again").fill(PASSWORD)
            page.get_by_role("button", name="Create the account").click()
            expect(page.get_by_text("We have sent you a message with a link.")).to_be_visible()
            browser.inspect(page, "sign-in-after-registration")
            link = _link(mailbox, made.url)

            _sign_in(page)
            expect(page.get_by_role("alert")).to_be_visible()
            browser.inspect(page, "sign-in-not-confirmed")
            page.get_by_text("The confirmation did not arrive?").click()
            page.get_by_placeholder("User name").fill("zoë")
            page.get_by_role("button", name="Send it again").click()
            expect(page.get_by_text("We have sent you a message with a link.")).to_be_visible()
            again = _link(mailbox, made.url)

            page.goto(link)
            browser.inspect(page, "confirm-address")
            page.goto(again)
            page.get_by_role("button", name="Confirm").click()
            expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
            page.goto(link)
            page.get_by_role("button", name="Confirm").click()
            expect(page.get_by_text("The link is not valid, or no longer.")).to_be_visible()
            page.get_by_role("link", name="To the sign-in").click()
            _sign_in(page)
            page.wait_for_url("**/apps")


def _sign_in(page: sync_api.Page) -> None:
    page.get_by_label("User name").first.fill("zoë")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()


def _link(mailbox: smtp.Mailbox, url: str) -> str:
    mail = mailbox.next()
    assert mail["to"] == ["zoe@example.org"]
    found = re.search(rf"{re.escape(url)}/confirm/\S+", mail["text"])
    assert found, mail
    return found[0]
