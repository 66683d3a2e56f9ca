"""The web front-end as a person uses it: a real browser, the front-end that the Director runs, a real manager and real nodes."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator

import pytest
from playwright import sync_api

from tests.support import browser
from tests.support import platform as platforms

PASSWORD = "a long enough password"
HOSTILE = "\"'><script>alert(1)</script> 🐘"
EXPECTED = ("/nowhere", "ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "503 (Service Unavailable)")
"""What a browser's console may say in these tests: an address that does not exist, a server that was killed, one that waits for it."""

expect = sync_api.expect
expect.set_options(timeout=browser.PATIENCE)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[platforms.Platform]:
    with platforms.platform(tmp_path_factory.mktemp("frontend"), 82, frontend={"ENABLED": "yes", "PORT": "8080"}) as made:
        yield made


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sync_api.BrowserContext]:
    with browser.context(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def site(platform: platforms.Platform) -> str:
    return f"http://127.{platform.net}.255.1:8080"


@pytest.fixture
def page(context: sync_api.BrowserContext) -> Iterator[sync_api.Page]:
    opened = context.new_page()
    complaints = browser.Complaints(opened)
    yield opened
    opened.close()
    unexpected = [text for text in complaints.found if not any(words in text for words in EXPECTED)]
    assert not unexpected, unexpected


def sign_in(page: sync_api.Page, site: str, user: str, password: str) -> None:
    page.context.clear_cookies()
    page.goto(f"{site}/sign-in")
    page.get_by_label("User name").fill(user)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.wait_for_url("**/apps")


def confirm(page: sync_api.Page, opener: str, name: str, button: str) -> None:
    """Open a dialog that loses something, see that its button waits for the name, and go through with it."""
    page.get_by_role("button", name=opener, exact=True).click()
    dialog = page.get_by_role("dialog")
    danger = dialog.get_by_role("button", name=button)
    expect(danger).to_be_disabled()
    dialog.get_by_role("textbox").fill(name)
    danger.click()


def test_from_registration_to_a_deleted_application(page: sync_api.Page, site: str) -> None:
    page.goto(site)
    browser.inspect(page, "sign-in")
    page.get_by_role("link", name="Create one").click()
    browser.inspect(page, "register")
    for label, text in (("User name", "carol"), ("E-mail", "carol@example.org"), ("First name", "Carol"), ("Last name", "C.")):
        page.get_by_label(label).fill(text)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("The same again").fill(PASSWORD)
    page.get_by_role("button", name="Create the account").click()
    page.wait_for_url("**/apps")
    page.get_by_role("link", name="New Application").click()  # the Director gives everybody one to begin with
    browser.inspect(page, "application-not-started")
    confirm(page, "Delete", "New Application", "Delete")
    page.wait_for_url("**/apps")
    expect(page.get_by_role("heading", name="No application yet")).to_be_visible()
    browser.inspect(page, "applications-none")

    page.get_by_role("button", name="New application", exact=True).click()
    browser.accessible(page)
    page.get_by_role("dialog").get_by_label("Name").fill(HOSTILE)
    page.get_by_role("button", name="Create and start").click()
    page.wait_for_url(re.compile(r"/apps/\d+$"))
    application = page.url
    expect(page.get_by_role("heading", level=1)).to_contain_text(HOSTILE)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Running")
    browser.inspect(page, "application-empty")

    page.get_by_role("button", name="Add a service").first.click()
    browser.accessible(page)
    page.get_by_role("dialog").get_by_role("radio", name=re.compile("Hello World")).check()
    page.get_by_role("dialog").get_by_label("Name").fill("greeter")
    page.get_by_role("dialog").get_by_role("button", name="Add").click()
    row = page.get_by_role("region", name="Services").get_by_role("row", name=re.compile("greeter"))
    expect(row).to_contain_text("Not started")
    page.evaluate("window.stillTheSamePage = true")
    row.get_by_role("button", name="Start greeter").click()
    page.evaluate("window.stillTheSamePage = true")
    expect(row).to_contain_text("Running")
    expect(row).to_contain_text("127.82.")
    assert page.evaluate("window.stillTheSamePage")
    expect(page.locator("[data-live='app-head']")).to_contain_text("2 credits per hour")
    browser.inspect(page, "application")
    page.set_viewport_size(browser.PHONE)
    what_for = page.locator("td[data-label='What for']", has_text="greeter")
    lines = what_for.evaluate(
        "e => new Set([...e.childNodes].map(n => { const r = document.createRange(); r.selectNode(n);"
        " return Math.round(r.getBoundingClientRect().bottom / 8); })).size"
    )
    assert lines == 1, "what a machine is for stands in one line, also on a phone"
    page.set_viewport_size(browser.DESKTOP)

    page.goto(f"{application}/log")
    expect(page.get_by_role("log")).to_contain_text("start_service")
    browser.inspect(page, "manager-log")
    page.goto(f"{site}/apps")
    expect(page.get_by_role("row", name=re.compile("script"))).to_contain_text("Running")
    browser.inspect(page, "applications")

    page.goto(application)
    confirm(page, "Stop", HOSTILE, "Stop and lose all services")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Stopped")
    browser.inspect(page, "application-stopped")
    confirm(page, "Delete", HOSTILE, "Delete")
    page.wait_for_url("**/apps")
    expect(page.get_by_role("heading", name="No application yet")).to_be_visible()
    page.goto(f"{site}/nowhere")
    expect(page.get_by_role("heading", name="Not found")).to_be_visible()
    browser.inspect(page, "not-found")


def test_what_others_do_shows_without_a_reload(page: sync_api.Page, site: str, platform: platforms.Platform) -> None:
    sign_in(page, site, "alice", platform.passwords["alice"])
    platform.cps("application", "create", "elsewhere")
    expect(page.get_by_role("link", name="elsewhere")).to_be_visible()
    platform.cps("application", "delete", "elsewhere", "--yes")
    expect(page.get_by_role("link", name="elsewhere")).to_have_count(0)


def test_a_very_long_name_stays_readable(page: sync_api.Page, site: str, platform: platforms.Platform) -> None:
    name = ("🐘 Lopadotemachoselachogaleokranioleipsano " * 9)[:250].strip()
    sign_in(page, site, "alice", platform.passwords["alice"])
    platform.cps("application", "create", name)
    page.get_by_role("link", name=name).click()
    browser.inspect(page, "application-long-name")
    page.get_by_role("button", name="Delete", exact=True).click()
    page.set_viewport_size(browser.PHONE)
    browser.accessible(page)
    browser.fits(page)
    page.set_viewport_size(browser.DESKTOP)
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox").fill(dialog.locator(".type-this").inner_text())
    dialog.get_by_role("button", name="Delete").click()
    page.wait_for_url("**/apps")


def test_a_name_that_another_tab_gave_is_the_one_to_type(page: sync_api.Page, site: str, platform: platforms.Platform) -> None:
    sign_in(page, site, "alice", platform.passwords["alice"])
    platform.cps("application", "create", "former name")
    page.get_by_role("link", name="former name").click()
    platform.cps("application", "rename", "former name", "newer name")
    expect(page).to_have_title(re.compile("newer name"))
    expect(page.locator("#delete .type-this")).to_have_text("newer name")
    platform.cps("application", "delete", "newer name", "--yes")


def test_more_open_pages_than_a_browser_has_connections_all_follow(page: sync_api.Page, site: str, platform: platforms.Platform) -> None:
    """Browsers open six connections to a host: four pages have streams, the others ask now and then, and pages still load."""
    sign_in(page, site, "alice", platform.passwords["alice"])
    crowd = [page.context.new_page() for _ in range(9)]
    for one in crowd:
        one.goto(f"{site}/apps")
    platform.cps("application", "create", "for all to see")
    for one in (page, *crowd):
        expect(one.get_by_role("link", name="for all to see")).to_be_visible()
    platform.cps("application", "delete", "for all to see", "--yes")
    for one in (page, *crowd):
        expect(one.get_by_role("link", name="for all to see")).to_have_count(0)
        if one is not page:
            one.close()


def test_it_works_without_scripts(
    context: sync_api.BrowserContext, site: str, platform: platforms.Platform, tmp_path: pathlib.Path
) -> None:
    with browser.without_scripts(tmp_path / "profile") as page:
        sign_in(page, site, "alice", platform.passwords["alice"])
        page.get_by_role("button", name="New application", exact=True).click()
        page.get_by_role("dialog").get_by_label("Name").fill("plain")
        page.get_by_role("button", name="Create and start").click()
        page.wait_for_url(re.compile(r"/apps/\d+$"))
        page.get_by_role("button", name="Delete", exact=True).click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("textbox").fill("plan")
        dialog.get_by_role("button", name="Delete").click()
        expect(page.get_by_text("what you typed is not the name")).to_be_visible()
        page.go_back()
        page.get_by_role("dialog").get_by_role("textbox").fill("plain")
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        page.wait_for_url("**/apps")


def test_a_lost_director_is_shown_and_heals(page: sync_api.Page, site: str, platform: platforms.Platform) -> None:
    """The front-end goes with the Director that runs it; the open page says so, and goes on by itself when both are back."""
    sign_in(page, site, "alice", platform.passwords["alice"])
    platform.kill_director()
    try:
        expect(page.locator("[data-live-status]")).to_contain_text("Reconnecting")
    finally:
        platform.start()
    expect(page.locator("[data-live-status]")).to_be_hidden()
    platform.cps("application", "create", "after")
    expect(page.get_by_role("link", name="after")).to_be_visible()
