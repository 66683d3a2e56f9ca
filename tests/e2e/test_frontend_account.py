"""Account, credits, manifests and the operator's pages in a real browser, on a whole platform."""

from __future__ import annotations

import json
import pathlib
import secrets
from collections.abc import Iterator

import pytest
from playwright import sync_api

from tests.support import browser
from tests.support import platform as platforms

expect = sync_api.expect
OPERATOR = "opal"
NEW_PASSWORD = "another long password"
GREETERS = {
    "Application": "greeters",
    "Services": [{"Type": "helloworld", "ServiceName": "hello", "Start": 1, "StartupInstances": {"node": 2}, "String": "moin"}],
}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[platforms.Platform]:
    with platforms.platform(tmp_path_factory.mktemp("account"), 84, frontend={"ENABLED": "yes", "PORT": "8080"}) as made:
        made.passwords[OPERATOR] = secrets.token_hex(12)
        words = ("user", "create", OPERATOR, "--operator", "--email", "opal@example.org", "--password-file", "-")
        made.run("cpsdirector", *words, stdin=made.passwords[OPERATOR])
        yield made


@pytest.fixture
def page(tmp_path: pathlib.Path) -> Iterator[sync_api.Page]:
    with browser.context(tmp_path / "profile") as context:
        opened = context.new_page()
        complaints = browser.Complaints(opened)
        yield opened
        refused = "the server responded with a status of 4"  # what the browser says of a form that is answered with what is wrong
        assert not [text for text in complaints.found if refused not in text], complaints.found


@pytest.fixture
def site(platform: platforms.Platform) -> str:
    return f"http://127.{platform.net}.255.1:8080"


def sign_in(page: sync_api.Page, site: str, user: str, password: str) -> None:
    page.goto(f"{site}/sign-in")
    page.get_by_label("User name").fill(user)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.wait_for_url("**/apps")


def test_an_application_by_manifest_with_its_mistakes_and_what_it_costs(
    page: sync_api.Page, site: str, platform: platforms.Platform
) -> None:
    sign_in(page, site, "alice", platform.passwords["alice"])
    page.goto(f"{site}/credits")
    expect(page.get_by_text("nothing runs, so nothing is used")).to_be_visible()
    page.goto(f"{site}/apps/new-from-manifest")
    browser.inspect(page, "manifest-new")
    right = json.dumps(GREETERS, indent=2)
    text = page.get_by_label("The text")
    text.fill(right.replace('"Start": 1', '"Start": 7').replace('"node": 2', '"node": -2'))
    page.get_by_role("button", name="Check and deploy").click()
    expect(page.get_by_text("2 things are wrong with the manifest; nothing was made.")).to_be_visible()
    browser.inspect(page, "manifest-wrong")
    page.get_by_role("link", name="Line 7, column 7").click()
    chosen = text.evaluate("field => field.value.slice(field.selectionStart, field.selectionEnd)")
    assert chosen == '"Start": 7,'
    text.fill(right)
    page.get_by_role("button", name="Only check").click()
    expect(page.get_by_text("The manifest is right.")).to_be_visible()
    browser.inspect(page, "manifest-right")
    page.get_by_role("button", name="Check and deploy").click()
    expect(page.get_by_role("heading", name="greeters")).to_be_visible()
    expect(page.get_by_role("heading", name="greeters").get_by_text("Running")).to_be_visible(timeout=120_000)
    expect(page.get_by_role("rowheader", name="hello")).to_be_visible()
    page.goto(f"{site}/credits")
    expect(page.locator("dd", has_text="3")).not_to_have_count(0)
    expect(page.get_by_text("An hour of a machine")).to_have_count(3)
    browser.inspect(page, "credits")
    with page.expect_download() as download:
        page.get_by_role("link", name="Ledger as CSV").click()
    assert "hour" in pathlib.Path(download.value.path()).read_text()


def test_a_form_writes_a_manifest(page: sync_api.Page, site: str, platform: platforms.Platform) -> None:
    sign_in(page, site, "alice", platform.passwords["alice"])
    page.goto(f"{site}/apps/new-from-manifest")
    expect(page.get_by_text("cpsdirector ready-made prepare wordpress")).to_be_visible()
    page.get_by_role("link", name="Write one with a form").click()
    browser.inspect(page, "manifest-form-empty")
    page.get_by_role("button", name="MySQL database").click()
    page.get_by_role("button", name="PHP web hosting").click()
    page.get_by_label("Name of the application").fill("shop")
    page.get_by_label("backend", exact=True).fill("2")
    for summary in page.get_by_text("Code, settings and more").all():
        summary.click()
    browser.inspect(page, "manifest-form")
    page.get_by_role("button", name="Write the manifest").last.click()
    expect(page.get_by_text("The manifest is right.")).to_be_visible()
    written = json.loads(page.get_by_label("The text").input_value())
    assert [one["Type"] for one in written["Services"]] == ["mysql", "php"]
    assert [one["Start"] for one in written["Services"]] == [1, 1]
    assert written["Services"][1]["StartupInstances"] == {"backend": 2}


def test_an_account_and_its_certificates(page: sync_api.Page, site: str, platform: platforms.Platform) -> None:
    sign_in(page, site, "alice", platform.passwords["alice"])
    page.get_by_role("link", name="Account").click()
    browser.inspect(page, "account")
    page.get_by_label("First name").fill("Alice <b>")
    page.get_by_role("button", name="Save the profile").click()
    expect(page.get_by_text("Your profile is saved.")).to_be_visible()
    expect(page.get_by_label("First name")).to_have_value("Alice <b>")
    section = page.get_by_role("region", name="Certificates")
    section.get_by_role("button", name="Revoke").last.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("There is no way back")).to_be_visible()
    browser.accessible(page)
    dialog.get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("The certificate is revoked")).to_be_visible()
    page.get_by_label("Your password").fill(platform.passwords["alice"])
    with page.expect_download() as download:
        page.get_by_role("button", name="Download a certificate").click()
    assert download.value.suggested_filename == "conpaas-alice.zip"
    page.get_by_label("Present password").fill(platform.passwords["alice"])
    page.get_by_label("New password").fill(NEW_PASSWORD)
    page.get_by_label("The same again").fill(NEW_PASSWORD)
    page.get_by_role("button", name="Change the password").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    platform.passwords["alice"] = NEW_PASSWORD
    sign_in(page, site, "alice", NEW_PASSWORD)


def test_what_an_operator_sees_and_does(page: sync_api.Page, site: str, platform: platforms.Platform) -> None:
    sign_in(page, site, OPERATOR, platform.passwords[OPERATOR])
    page.get_by_role("link", name="Operator").click()
    browser.inspect(page, "operator-accounts")
    page.get_by_role("searchbox").fill("alice")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="alice", exact=True).click()
    browser.inspect(page, "operator-account")
    page.get_by_label("Credits to add").fill("5")
    page.get_by_role("button", name="Change the credits").click()
    expect(page.get_by_text("The credits of alice are changed.")).to_be_visible()
    page.get_by_role("button", name="Disable the account").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Disable")).to_be_disabled()
    dialog.get_by_role("textbox").fill("alice")
    dialog.get_by_role("button", name="Disable").click()
    expect(page.get_by_role("button", name="Enable the account")).to_be_visible()
    page.get_by_role("button", name="Enable the account").click()
    page.get_by_role("link", name="Accounts").first.click()
    page.get_by_role("link", name="New account").click()
    page.get_by_label("User name").fill("nils")
    page.get_by_label("E-mail").fill("alice@example.org")
    page.get_by_role("button", name="Make the account").click()
    expect(page.get_by_text("already registered")).to_be_visible()
    browser.inspect(page, "operator-new-account")
    page.get_by_label("E-mail").fill("nils@example.org")
    page.get_by_role("button", name="Make the account").click()
    expect(page.get_by_role("heading", name="The account is made")).to_be_visible()
    browser.inspect(page, "operator-account-made")
    password = page.locator("dl code").nth(2).inner_text()
    page.get_by_role("link", name="I have copied it").click()
    page.get_by_role("button", name="Make up another password").click()
    page.get_by_role("dialog").get_by_role("textbox").fill("nils")
    page.get_by_role("button", name="Change the password").click()
    expect(page.get_by_role("heading", name="The password is changed")).to_be_visible()
    newer = page.locator("dl code").nth(2).inner_text()
    assert newer != password
    page.get_by_role("link", name="Accounts").first.click()
    page.get_by_role("button", name="Invite somebody").click()
    page.get_by_role("dialog").get_by_label("E-mail").fill("guest@example.org")
    page.get_by_role("button", name="Make the invitation").click()
    expect(page.get_by_text("/invitation/")).to_be_visible()
    browser.inspect(page, "operator-invited")
    invitation = page.locator("code", has_text="/invitation/").inner_text()
    page.get_by_role("link", name="Clouds").click()
    page.get_by_role("button", name="Check the cloud default").click()
    expect(page.get_by_text("The cloud answers")).to_be_visible()
    browser.inspect(page, "operator-clouds")
    page.get_by_role("link", name="Machines").click()
    browser.inspect(page, "operator-machines")
    page.get_by_role("link", name="Findings").click()
    browser.inspect(page, "operator-findings")
    page.get_by_role("button", name="Sign out").click()
    page.goto(invitation)
    expect(page.get_by_text("You were invited.")).to_be_visible()
    browser.inspect(page, "invitation")
    page.goto(f"{site}/confirm/{'x' * 43}")
    browser.inspect(page, "confirm")
    sign_in(page, site, "nils", newer)
