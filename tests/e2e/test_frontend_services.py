"""The pages of services as a person uses them: a real browser, real managers, real nodes."""

from __future__ import annotations

import io
import pathlib
import re
import tarfile
from collections.abc import Iterator

import pytest
import requests
from playwright import sync_api

from tests.support import browser, keeping, sites
from tests.support import platform as platforms

NET = 83
expect = sync_api.expect
expect.set_options(timeout=browser.PATIENCE)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[platforms.Platform]:
    frontend = {"ENABLED": "yes", "PORT": "8080"}
    with platforms.platform(tmp_path_factory.mktemp("services"), NET, frontend=frontend, packages=keeping.PACKAGES) as made:
        made.cps("application", "create", "garden")
        made.cps("application", "start", "garden")
        yield made


@pytest.fixture(scope="module")
def site(platform: platforms.Platform) -> str:
    return f"http://127.{platform.net}.255.1:8080"


@pytest.fixture(scope="module")
def application(platform: platforms.Platform, site: str) -> str:
    """The address of the application's page."""
    found = platform.data("application", "list")
    number = next(one["aid"] for one in found if one["name"] == "garden")
    return f"{site}/apps/{number}"


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory, platform: platforms.Platform, site: str) -> Iterator[sync_api.BrowserContext]:
    """A browser in which alice is signed in."""
    with browser.context(tmp_path_factory.mktemp("profile")) as opened:
        page = opened.new_page()
        page.goto(f"{site}/sign-in")
        page.get_by_label("User name").fill("alice")
        page.get_by_label("Password").fill(platform.passwords["alice"])
        page.get_by_role("button", name="Sign in", exact=True).click()
        page.wait_for_url("**/apps")
        page.close()
        yield opened


@pytest.fixture
def wanted() -> list[str]:
    """What the browser's console may say in this test, because it is meant to happen."""
    return []


@pytest.fixture
def page(context: sync_api.BrowserContext, wanted: list[str]) -> Iterator[sync_api.Page]:
    opened = context.new_page()
    complaints = browser.Complaints(opened)
    yield opened
    opened.close()
    assert not [one for one in complaints.found if not any(words in one for words in wanted)]


def add(page: sync_api.Page, application: str, kind: str, name: str) -> None:
    """Add a service, and go to its page."""
    page.goto(application)
    page.get_by_role("button", name="Add a service").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("radio", name=re.compile(kind)).check()
    dialog.locator("input[name=name]").fill(name)
    press(page, dialog.get_by_role("button", name="Add"))
    page.get_by_role("link", name=name, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(name)


def press(page: sync_api.Page, button: sync_api.Locator) -> None:
    """Press what sends a form, and wait for the page that answers it: the one before goes on to follow what happens until then."""
    with page.expect_navigation():
        button.click()


def start(page: sync_api.Page) -> None:
    """Start the service, and see it run without a reload."""
    page.get_by_role("button", name="Start", exact=True).click()
    press(page, page.get_by_role("dialog").get_by_role("button", name="Start"))
    expect(page.get_by_role("heading", level=1)).to_contain_text("Running")


def section(page: sync_api.Page, title: str) -> sync_api.Locator:
    return page.get_by_role("region", name=title, exact=True)


def remove(page: sync_api.Page, name: str) -> None:
    page.get_by_role("button", name="Remove", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Remove")).to_be_disabled()
    dialog.get_by_role("textbox").fill(name)
    dialog.get_by_role("button", name="Remove").click()
    page.wait_for_url(re.compile(r"/apps/\d+$"))
    expect(page.get_by_role("link", name=name, exact=True)).to_have_count(0)


def archive(directory: pathlib.Path, name: str, **files: str) -> pathlib.Path:
    """A tar of files; `__` in a name stands for its dot."""
    path = directory / f"{name}.tar"
    with tarfile.open(path, "w") as tar:
        for filename, text in files.items():
            entry = tarfile.TarInfo(filename.replace("__", "."))
            entry.size, entry.mode = len(text), 0o755
            tar.addfile(entry, io.BytesIO(text.encode()))
    return path


def upload(page: sync_api.Page, path: pathlib.Path, description: str) -> sync_api.Locator:
    """Upload a code version; its row."""
    versions = section(page, "Code versions")
    versions.get_by_role("heading", name="Upload a version").click()
    versions.get_by_label("Archive").set_input_files(path)
    versions.get_by_label("Description").fill(description)
    versions.get_by_role("button", name="Upload").click()
    expect(page.get_by_text("The archive is uploaded as a new version")).to_be_visible()
    row = versions.get_by_role("row", name=re.compile(description))
    expect(row).to_be_visible()
    return row


def answer(url: str) -> str:
    return requests.get(url, timeout=10).text


def test_a_php_site_from_its_first_archive_to_its_removal(page: sync_api.Page, application: str, tmp_path: pathlib.Path) -> None:
    add(page, application, "PHP web hosting", "shop")
    expect(page.get_by_text("Upload an archive with your site, enable it, and start the service.")).to_be_visible()
    browser.inspect(page, "php-not-started")
    start(page)

    first = upload(page, archive(tmp_path, "first", index__php="<?php echo 'tulips ' . (1 + 1);"), "the first one")
    page.evaluate("window.stillTheSamePage = true")
    browser.accessible(page)
    press(page, first.get_by_role("button", name=re.compile("^Enable")))
    page.evaluate("window.stillTheSamePage = true")
    expect(first).to_contain_text("in use")
    assert page.evaluate("window.stillTheSamePage"), "what became of the change shows without a reload"
    url = section(page, "Site").get_by_role("link").first.get_attribute("href")
    assert url is not None
    assert answer(url) == "tulips 2"

    page.get_by_role("button", name="One more Backends").click()
    press(page, page.get_by_role("button", name="Apply"))
    expect(page.get_by_text("1 node is being added.")).to_be_visible()
    expect(section(page, "Nodes").get_by_role("rowheader")).to_have_count(2)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Running")
    browser.inspect(page, "php-running")
    sizes = page.evaluate("performance.getEntries().map((one) => [one.name, one.initiatorType, one.encodedBodySize ?? 0])")
    later = ("/live", "/panel/", "/chart/")
    assert sum(size for name, kind, size in sizes if kind != "fetch" and not any(part in name for part in later)) < 150_000, sizes

    broken = upload(page, archive(tmp_path, "second", index__php="<?php throw new Exception('no bulbs left');"), "the broken one")
    press(page, broken.get_by_role("button", name=re.compile("^Enable")))
    told = page.locator("[data-live='service-state'] .notice.error")
    expect(told).to_contain_text("no bulbs left")
    expect(told).to_contain_text("will not be used")
    expect(first).to_contain_text("in use")
    assert answer(url) == "tulips 2"
    browser.inspect(page, "php-refused")
    told.get_by_role("link", name="Read the log").click()
    expect(page.get_by_role("log")).to_contain_text("no bulbs left")
    browser.inspect(page, "log")
    page.get_by_label("Lines with").fill("NO BULBS")
    page.get_by_role("button", name="Search the whole log").click()
    expect(page.get_by_role("status").filter(has_text="with “NO BULBS”")).to_be_visible()
    page.get_by_role("link", name="shop").click()

    third = upload(page, archive(tmp_path, "third", index__php="<?php echo 'daffodils';"), "the good one")
    press(page, third.get_by_role("button", name=re.compile("^Enable")))
    expect(third).to_contain_text("in use")
    expect(page.locator("[data-live='service-state'] .notice.error")).to_have_count(0)
    assert answer(url) == "daffodils"
    with page.expect_download() as download:
        third.get_by_role("link", name=re.compile("^Download")).click()
    assert download.value.suggested_filename == "third.tar"
    with tarfile.open(download.value.path()) as tar:
        assert tar.getnames() == ["index.php"]
    remove(page, "shop")


def test_a_java_site(page: sync_api.Page, application: str, tmp_path: pathlib.Path) -> None:
    add(page, application, "Java web hosting", "bean")
    browser.inspect(page, "java-not-started")
    war = sites.archive(tmp_path / "bean.war", {"index.jsp": "<%= 6 * 7 %> beans"})
    row = upload(page, war, "the first beans")
    press(page, row.get_by_role("button", name=re.compile("^Enable")))
    expect(row).to_contain_text("in use")
    start(page)
    url = section(page, "Site").get_by_role("link").first.get_attribute("href")
    assert url is not None
    platforms.until(lambda: answer(url).strip() == "42 beans", "the site answers")
    browser.inspect(page, "java-running")
    remove(page, "bean")


def test_settings_secrets_and_refusals_of_a_site_that_does_not_run(
    page: sync_api.Page, application: str, tmp_path: pathlib.Path, wanted: list[str]
) -> None:
    wanted += ["status of 409", "status of 422"]
    add(page, application, "PHP web hosting", "quiet")
    settings = section(page, "Settings")
    settings.get_by_label("Document root").fill("../etc")
    press(page, settings.get_by_role("button", name="Save").nth(1))
    expect(settings.get_by_role("alert")).to_contain_text("documentRoot")
    expect(settings.get_by_label("Document root")).to_have_value("../etc")
    settings.get_by_label("Requests at once").fill("many")
    press(page, settings.get_by_role("button", name="Save").nth(1))
    expect(settings.get_by_text("This must be a whole number.")).to_be_visible()
    browser.inspect(page, "php-refused-fields")
    settings.get_by_label("Document root").fill("public")
    settings.get_by_label("Requests at once").fill("7")
    press(page, settings.get_by_role("button", name="Save").nth(1))
    expect(page.get_by_text("The change is being made")).to_be_visible()
    expect(settings.get_by_label("Document root")).to_have_value("public")
    expect(settings.get_by_label("Requests at once")).to_have_value("7")

    environment = section(page, "Environment")
    environment.get_by_role("heading", name="Set a secret").click()
    form = environment.locator("form").filter(has=page.get_by_role("textbox", name="Value")).last
    form.get_by_label("Name").fill("API_KEY")
    form.get_by_label("Value").fill("hunter2hunter2")
    press(page, form.get_by_role("button", name="Set"))
    expect(environment.get_by_role("row", name=re.compile("API_KEY"))).to_be_visible()
    assert "hunter2hunter2" not in page.content()

    cron = section(page, "Commands at set times")
    cron.get_by_label("Schedule").first.fill("*/10 * * * *")
    cron.get_by_label("Command").first.fill("php cron.php")
    press(page, cron.get_by_role("button", name="Save"))
    expect(cron.get_by_label("Command").first).to_have_value("php cron.php")
    too_bad = tmp_path / "notes.txt"
    too_bad.write_text("no archive")
    versions = section(page, "Code versions")
    versions.get_by_role("heading", name="Upload a version").click()
    versions.get_by_label("Archive").set_input_files(too_bad)
    versions.get_by_role("button", name="Upload").click()
    expect(versions.get_by_role("alert")).to_contain_text("archive")
    remove(page, "quiet")


def test_the_text_of_a_helloworld_service(page: sync_api.Page, application: str) -> None:
    add(page, application, "Hello World", "greeter")
    start(page)
    answers = section(page, "Answers")
    expect(answers).to_contain_text("helloworld")
    text = section(page, "Text")
    text.get_by_label("Text", exact=True).fill("good <b>morning</b> 🌷")
    text.get_by_role("button", name="Save").click()
    expect(page.get_by_text("The text is changed.")).to_be_visible()
    expect(answers).to_contain_text("good <b>morning</b> 🌷")
    browser.inspect(page, "helloworld")
    page.get_by_role("link", name="Startup script").click()
    page.get_by_label("Script", exact=True).fill("#!/bin/sh\necho planted > /tmp/planted\n")
    browser.inspect(page, "startup-script")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("The startup script is kept")).to_be_visible()
    page.get_by_role("button", name="Rename").click()
    page.get_by_role("dialog").get_by_label("Name").fill("waver")
    page.get_by_role("dialog").get_by_role("button", name="Rename").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("waver")
    remove(page, "waver")


def test_scripts_of_a_generic_service(page: sync_api.Page, application: str, tmp_path: pathlib.Path) -> None:
    add(page, application, "Generic service", "worker")
    row = upload(page, archive(tmp_path, "scripts", run__sh='#!/bin/sh\necho "dug by $1"\n'), "digging")
    press(page, row.get_by_role("button", name=re.compile("^Enable")))
    expect(row).to_contain_text("in use")
    start(page)
    scripts = section(page, "Scripts")
    scripts.get_by_role("heading", name="run.sh").click()
    scripts.get_by_label("Parameters").first.fill("'a mole'")
    press(page, scripts.get_by_role("button", name="Run", exact=True))
    run = section(page, "Runs").get_by_role("row", name=re.compile("a mole"))
    expect(run).to_contain_text("STOPPED")
    browser.inspect(page, "generic")
    run.get_by_role("button", name=re.compile("^Output")).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Node").select_option(index=1)
    dialog.get_by_role("button", name="Output").click()
    expect(page.locator("pre")).to_have_text("dug by a mole\n")
    browser.inspect(page, "output")
    page.get_by_role("link", name="Back to worker").click()
    page.get_by_role("link", name=re.compile("^agent output of")).click()
    expect(page.get_by_role("heading", name=re.compile("^agent.out of"))).to_be_visible()
    page.get_by_role("link", name=re.compile("^agent log of")).click()
    expect(page.get_by_role("log")).to_contain_text("INFO")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert "INFO" in pathlib.Path(download.value.path()).read_text()
    page.get_by_role("link", name="worker", exact=True).click()
    remove(page, "worker")


def test_a_database_user_whose_password_is_shown_once(page: sync_api.Page, application: str) -> None:
    add(page, application, "MySQL database", "store")
    start(page)
    users = section(page, "Users")
    users.get_by_role("heading", name="Make a user").click()
    users.get_by_label("Name").fill("gardener")
    users.get_by_role("button", name="Make user").click()
    expect(page.get_by_role("heading", name="The user is made.")).to_be_visible()
    password = page.locator(".once code").inner_text()
    assert len(password) >= 24
    assert password not in page.url
    browser.inspect(page, "shown-once")
    page.get_by_role("link", name="I have copied it").click()
    row = users.get_by_role("row", name=re.compile("gardener"))
    expect(row).to_be_visible()
    assert password not in page.content()
    browser.inspect(page, "mysql")

    row.get_by_role("button", name="Delete gardener").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Delete")).to_be_disabled()
    browser.accessible(page)
    dialog.get_by_role("textbox").fill("gardener")
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("The user is deleted.")).to_be_visible()
    expect(users.get_by_role("row", name=re.compile("gardener"))).to_have_count(0)
    remove(page, "store")


def test_a_type_that_the_front_end_never_heard_of_has_its_page(page: sync_api.Page, application: str) -> None:
    add(page, application, "keeper", "diary")
    expect(page.get_by_text("Start it, and it remembers.")).to_be_visible()
    start(page)
    expect(section(page, "Nodes")).to_contain_text("Rememberers")
    memory = section(page, "Memory")
    expect(memory).to_contain_text("since ")
    memory.get_by_role("button", name=re.compile("^Remember")).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Text").fill("it rained")
    dialog.get_by_role("button", name="Remember").click()
    expect(page.get_by_text("It is remembered.")).to_be_visible()
    expect(memory).to_contain_text("it rained")
    browser.inspect(page, "a-type-from-elsewhere")
    remove(page, "diary")


class Visitor:
    """Somebody who signs in and then writes requests by hand."""

    def __init__(self, site: str, user: str, password: str) -> None:
        self.site = site
        self.session = requests.Session()
        self.session.headers["Origin"] = site
        self._sign_in(user, password)

    def _sign_in(self, user: str, password: str) -> None:
        fields = {"csrf": self._token("/sign-in"), "username": user, "password": password}
        assert self.session.post(f"{self.site}/sign-in", fields, timeout=30).url.endswith("/apps")
        self.token = self._token("/apps")

    def _token(self, path: str) -> str:
        found = re.search(r'name="csrf" content="([0-9a-f]+)"', self.session.get(self.site + path, timeout=30).text)
        assert found is not None
        return found.group(1)

    def get(self, path: str, **headers: str) -> requests.Response:
        return self.session.get(self.site + path, headers=headers, timeout=60)

    def post(self, path: str, token: str | None = None, **fields: str) -> requests.Response:
        """Send a form; underscores in pairs stand for dots."""
        given = {"csrf": self.token if token is None else token, **{name.replace("__", "."): value for name, value in fields.items()}}
        return self.session.post(self.site + path, given, timeout=60, allow_redirects=False)


def _add(platform: platforms.Platform, kind: str) -> str:
    """Add a service without a browser; its page's path."""
    added = platform.data(kind, "add", "garden")
    return f"/apps/{added['aid']}/services/{added['sid']}"


ADDRESSES = ("", "/live", "/log", "/log/x/y", "/startup-script", "/panel/text", "/chart/x", "/download/x", "/text/x")
ACTIONS = ("start", "stop", "remove", "rename", "scale", "migrate", "startup-script", "text.change-the-text.save", "nonsense")


def test_nobody_else_sees_a_service_or_does_anything_to_it(platform: platforms.Platform, site: str) -> None:
    here = _add(platform, "helloworld")
    platform.add_user("mallory")
    mallory = Visitor(site, "mallory", platform.passwords["mallory"])
    number = re.findall(r"\d+", here)[0]
    nothing = mallory.get(here.replace(f"/apps/{number}/", "/apps/999999/")).text
    for address in ADDRESSES:
        reply = mallory.get(here + address)
        assert reply.status_code == 404, address
        assert "helloworld" not in reply.text
    differing = rf"{mallory.token}|\b{number}\b|999999"
    assert re.sub(differing, "", mallory.get(here).text) == re.sub(differing, "", nothing)
    for action in ACTIONS:
        assert mallory.post(f"{here}/do/{action}", f__string="mine", name="mine", confirm="x").status_code == 404, action
    assert "mine" not in Visitor(site, "alice", platform.passwords["alice"]).get(here).text


def test_what_is_not_declared_cannot_be_done(platform: platforms.Platform, site: str) -> None:
    here = _add(platform, "helloworld")
    alice = Visitor(site, "alice", platform.passwords["alice"])
    for action in ("set_string", "apply_manifest", "text.change-the-text", "text.change-the-text.drop", "%2e%2e", "🌷"):
        assert alice.post(f"{here}/do/{action}", f__string="mine").status_code in (404, 405), action
    refused = alice.post(f"{here}/do/text.change-the-text.save", f__string="x" * 1001)
    assert (refused.status_code, "at most 1000 are taken" in refused.text) == (422, True)
    hostile = "</textarea><script>alert(1)</script>\"'&"
    assert alice.post(f"{here}/do/text.change-the-text.save", f__string=hostile, method="apply_manifest", fields="{}").status_code == 303
    page = alice.get(here).text
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert alice.post(f"{here}/do/text.change-the-text.save", token="0" * 64, f__string="forged").status_code == 403
    assert alice.get(f"{here}/do/start").url == f"{site}{here}", "to look at the address of a form does nothing"
    assert "Not started" in alice.get(here).text
    assert "forged" not in alice.get(here).text
