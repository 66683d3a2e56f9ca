"""One person's whole walk in a real browser, from the registration to the last removal; by hand, and by manifest."""

from __future__ import annotations

import json
import pathlib
import re
import time
from collections.abc import Iterator

import pytest
import requests
from playwright import sync_api

from conpaas.core import data_urls
from tests.support import browser, consistency, sites, tenants, wire
from tests.support import platform as platforms

NET = 161
USER, PASSWORD = "wanda", "a long enough password"
WATCH = {"HEALTH_INTERVAL": "1", "NODE_LOST_AFTER": "4", "REVOCATION_INTERVAL": "1"}
HEAVIEST = 150_000
"""Bytes that a page may transfer, with all that it needs."""
SLOWEST = 1.0
"""Seconds until a page is usable."""

expect = sync_api.expect
expect.set_options(timeout=browser.PATIENCE)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[platforms.Platform]:
    frontend = {"ENABLED": "yes", "PORT": "8080"}
    with platforms.platform(tmp_path_factory.mktemp("walk"), NET, frontend=frontend, manager=WATCH) as made:
        yield made


@pytest.fixture(scope="module")
def site(platform: platforms.Platform) -> str:
    return f"http://127.{platform.net}.255.1:8080"


@pytest.fixture
def page(tmp_path: pathlib.Path) -> Iterator[sync_api.Page]:
    with browser.context(tmp_path / "profile") as context:
        opened = context.new_page()
        complaints = browser.Complaints(opened)
        yield opened
        assert not complaints.found


def press(page: sync_api.Page, button: sync_api.Locator) -> None:
    with page.expect_navigation():
        button.click()


def sign_in(page: sync_api.Page, site: str, user: str, password: str) -> None:
    page.goto(f"{site}/sign-in")
    page.get_by_label("User name").fill(user)
    page.get_by_label("Password").fill(password)
    press(page, page.get_by_role("button", name="Sign in", exact=True))
    expect(page.get_by_role("heading", name="Applications", level=1)).to_be_visible()


def confirm(page: sync_api.Page, opener: str, name: str, button: str) -> None:
    """Open what loses something; its button waits until the name is typed."""
    page.get_by_role("button", name=opener, exact=True).click()
    dialog = page.get_by_role("dialog")
    danger = dialog.get_by_role("button", name=button)
    expect(danger).to_be_disabled()
    dialog.get_by_role("textbox").fill(name)
    danger.click()


def section(page: sync_api.Page, title: str) -> sync_api.Locator:
    return page.get_by_role("region", name=title, exact=True)


def upload(page: sync_api.Page, path: pathlib.Path, note: str) -> sync_api.Locator:
    """Upload a version; its row."""
    versions = section(page, "Code versions")
    versions.get_by_role("heading", name="Upload a version").click()
    versions.get_by_label("Archive").set_input_files(path)
    versions.get_by_label("Description").fill(note)
    versions.get_by_role("button", name="Upload").click()
    row = versions.get_by_role("row", name=re.compile(note))
    expect(row).to_be_visible()
    return row


def enable(page: sync_api.Page, row: sync_api.Locator) -> None:
    press(page, row.get_by_role("button", name=re.compile("^Enable")))


def answer(url: str) -> str:
    return requests.get(url, timeout=10).text


def test_from_the_registration_to_the_last_removal(
    page: sync_api.Page, site: str, platform: platforms.Platform, tmp_path: pathlib.Path
) -> None:
    page.goto(f"{site}/register")
    for label, text in (("User name", USER), ("E-mail", "wanda@example.org"), ("Password", PASSWORD), ("The same again", PASSWORD)):
        page.get_by_label(label, exact=label == "Password").fill(text)
    press(page, page.get_by_role("button", name="Create the account"))

    page.get_by_role("button", name="New application", exact=True).click()
    page.get_by_role("dialog").get_by_label("Name").fill("shop")
    press(page, page.get_by_role("button", name="Create and start"))
    expect(page.get_by_role("heading", level=1)).to_contain_text("Running")
    page.get_by_role("button", name="Add a service").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("radio", name=re.compile("PHP web hosting")).check()
    dialog.locator("input[name=name]").fill("front")
    press(page, dialog.get_by_role("button", name="Add"))
    page.get_by_role("link", name="front", exact=True).click()
    page.get_by_role("button", name="Start", exact=True).click()
    press(page, page.get_by_role("dialog").get_by_role("button", name="Start"))
    expect(page.get_by_role("heading", level=1)).to_contain_text("Running")

    enable(page, upload(page, sites.archive(tmp_path / "one.tar.gz", {"index.php": "<?php echo 'tulips';"}), "tulips"))
    url = section(page, "Site").get_by_role("link").first.get_attribute("href")
    assert url is not None
    platforms.until(lambda: answer(url) == "tulips", "the first version answers")

    other = page.context.new_page()  # somebody who looks on
    other.goto(page.url)
    other.evaluate("window.stillTheSamePage = true")
    page.get_by_role("button", name="One more Backends").click()
    press(page, page.get_by_role("button", name="Apply"))
    expect(section(other, "Nodes").get_by_role("rowheader")).to_have_count(2)
    expect(other.get_by_role("heading", level=1)).to_contain_text("Running")
    assert other.evaluate("window.stillTheSamePage")

    enable(page, upload(page, sites.archive(tmp_path / "two.tar.gz", {"index.php": "<?php echo bulbs_of_nobody();"}), "broken"))
    told = page.locator("[data-live='service-state'] .notice.error")
    expect(told).to_contain_text("bulbs_of_nobody")
    assert answer(url) == "tulips", "visitors notice nothing"
    told.get_by_role("link", name="Read the log").click()
    expect(page.get_by_role("log")).to_contain_text("bulbs_of_nobody")
    page.get_by_role("link", name="front", exact=True).click()
    enable(page, upload(page, sites.archive(tmp_path / "three.tar.gz", {"index.php": "<?php echo 'daffodils';"}), "right again"))
    platforms.until(lambda: answer(url) == "daffodils", "the fixed version answers")

    lost = section(page, "Nodes").get_by_role("rowheader").last.inner_text().split()[0]
    vm = next(one for one in platform.vms() if lost.endswith(str(one["vmid"])))
    consistency.kill_vm(platform, str(vm["ip"]))
    expect(section(other, "Nodes").get_by_role("rowheader", name=lost)).to_have_count(0)
    expect(section(other, "Nodes").get_by_role("rowheader")).to_have_count(2)
    expect(section(other, "History")).to_contain_text("was lost")
    assert answer(url) == "daffodils"
    other.close()

    expect(page.get_by_role("heading", level=1)).to_contain_text("Running")
    page.reload()
    confirm(page, "Remove", "front", "Remove")
    page.wait_for_url(re.compile(r"/apps/\d+$"))
    expect(page.get_by_role("link", name="front", exact=True)).to_have_count(0)
    confirm(page, "Delete", "shop", "Delete")
    page.wait_for_url("**/apps")
    expect(page.get_by_role("link", name="shop", exact=True)).to_have_count(0)


def manifest(name: str, archive: bytes) -> str:
    service = {"Type": "php", "ServiceName": "front", "Start": 1, "Archive": data_urls.encode("site.tar.gz", archive)}
    return json.dumps({"Application": name, "Services": [service]}, indent=1)


def deploy(page: sync_api.Page, site: str, text: str) -> None:
    page.goto(f"{site}/apps/new-from-manifest")
    page.get_by_label("The text").fill(text)
    press(page, page.get_by_role("button", name="Check and deploy"))


def test_the_same_by_manifest(page: sync_api.Page, site: str, platform: platforms.Platform, tmp_path: pathlib.Path) -> None:
    platform.add_user("mani")
    sign_in(page, site, "mani", platform.passwords["mani"])
    deploy(page, site, manifest("meadow", b"poppies, but no archive"))
    expect(page.get_by_role("heading", level=1)).to_contain_text("Error", timeout=90_000)
    expect(page.get_by_role("alert")).to_contain_text("Service 1, 'front' (php)")
    expect(page.get_by_role("alert")).to_contain_text("Archive: Invalid arguments (Invalid archive format)")
    platforms.until(lambda: not platform.vms(), "it is undone as a whole")
    browser.inspect(page, "manifest-failed")
    confirm(page, "Delete", "meadow", "Delete")
    page.wait_for_url("**/apps")

    deploy(page, site, manifest("meadow", sites.archive(tmp_path / "site.tar.gz", {"index.php": "<?php echo 'poppies';"}).read_bytes()))
    expect(page.get_by_role("heading", level=1)).to_contain_text("Running", timeout=90_000)
    page.get_by_role("link", name="front", exact=True).click()
    url = section(page, "Site").get_by_role("link").first.get_attribute("href")
    assert url is not None
    platforms.until(lambda: answer(url) == "poppies", "the site answers")
    page.get_by_role("button", name="One more Backends").click()
    press(page, page.get_by_role("button", name="Apply"))
    expect(section(page, "Nodes").get_by_role("rowheader")).to_have_count(2)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Running")
    page.get_by_role("link", name="meadow", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Manifest").click()
    written = pathlib.Path(download.value.path()).read_text()
    assert json.loads(written)["Services"][0]["StartupInstances"]
    confirm(page, "Delete", "meadow", "Delete")
    page.wait_for_url("**/apps")

    deploy(page, site, written)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Running", timeout=90_000)
    page.get_by_role("link", name="front", exact=True).click()
    expect(section(page, "Nodes").get_by_role("rowheader")).to_have_count(2)
    again = section(page, "Site").get_by_role("link").first.get_attribute("href")
    assert again is not None
    platforms.until(lambda: answer(again) == "poppies", "what was written down makes the same again")


def test_charts_show_what_was_before_the_page_was_opened(page: sync_api.Page, site: str, platform: platforms.Platform) -> None:
    """With the application of the test before: its manager has measured since then."""
    sign_in(page, site, "mani", platform.passwords["mani"])
    page.get_by_role("link", name="meadow", exact=True).click()
    page.get_by_role("link", name="front", exact=True).click()
    charts = section(page, "Performance")
    with page.expect_response(re.compile(r"/before\?minutes=1440$")) as told:
        charts.get_by_role("button", name="1 day").click()
    rows = told.value.json()["rows"]
    assert rows and rows[0][0] < time.time()
    expect(charts.get_by_role("img").first).to_be_visible()
    expect(charts.get_by_role("button", name="1 day")).to_have_attribute("aria-pressed", "true")
    browser.inspect(page, "charts")


def test_no_page_is_heavy_or_slow(page: sync_api.Page, site: str, platform: platforms.Platform) -> None:
    """Every page that a link leads to, with all that it loads, into an empty cache; and how long until it is usable."""
    sign_in(page, site, "mani", platform.passwords["mani"])
    client = page.context.new_cdp_session(page)
    client.send("Network.enable")
    client.send("Network.setCacheDisabled", {"cacheDisabled": True})
    received: dict[str, int] = {}
    client.on("Network.loadingFinished", lambda event: received.__setitem__(event["requestId"], event["encodedDataLength"]))
    waiting, seen = ["/apps"], set[str]()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        received.clear()
        page.goto(f"{site}{path}", wait_until="load")
        usable = page.evaluate("performance.timing.domContentLoadedEventEnd - performance.timing.navigationStart") / 1000
        assert sum(received.values()) < HEAVIEST, (path, sum(received.values()))
        assert usable < SLOWEST, (path, usable)
        links = page.evaluate("[...document.querySelectorAll('a[href]:not([download])')].map((one) => one.href)")
        paths = {one.removeprefix(site).partition("#")[0].partition("?")[0] for one in links if one.startswith(f"{site}/")}
        files = ("/manifest", "/download", "/credits.csv", ".csv")
        waiting += sorted(one for one in paths - seen - set(waiting) if not one.endswith(files) and "/download/" not in one)
    assert len(seen) >= 12, seen


def test_a_manager_refuses_who_was_signed_out_elsewhere(site: str, platform: platforms.Platform) -> None:
    """A stolen certificate opens a manager no longer than a moment after the password was changed."""
    found = next(one for one in platform.data("application", "list", user="mani") if one["name"].startswith("meadow"))
    stolen = tenants.of_user(platform, "mani")

    def ask() -> int:
        return wire.exchange((found["manager"], tenants.MANAGER_PORT), stolen, wire.call("GET", 0, "get_service_info")).status

    assert ask() == 200
    platform.run("cpsdirector", "user", "passwd", "mani", "--password-file", "-", stdin="another long password")
    platforms.until(lambda: ask() == 403, "the manager refuses the certificate")
