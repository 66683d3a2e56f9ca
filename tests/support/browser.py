"""Headless Chromium for tests of the web front-end: a person's browser, an accessibility scan, and pictures of pages."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator

from axe_playwright_python import sync_playwright as axe
from playwright import sync_api

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = sync_api.ViewportSize(width=1280, height=860)
PHONE = sync_api.ViewportSize(width=360, height=740)
PATIENCE = 25_000.0
"""Milliseconds that anything may take before a test gives up."""

_running: list[sync_api.Playwright] = []


@contextlib.contextmanager
def context(directory: pathlib.Path, *, any_certificate: bool = False) -> Iterator[sync_api.BrowserContext]:
    """A browser with a profile of its own in `directory`; it ends with the `with` block. With `any_certificate` it trusts every server."""
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch_persistent_context(
            directory,
            executable_path=CHROMIUM,
            headless=True,
            args=ARGUMENTS,
            viewport=DESKTOP,
            color_scheme="light",
            ignore_https_errors=any_certificate,
        )
        opened.set_default_timeout(PATIENCE)
        _running.append(playwright)
        try:
            yield opened
        finally:
            _running.remove(playwright)
            opened.close()


@contextlib.contextmanager
def without_scripts(directory: pathlib.Path) -> Iterator[sync_api.Page]:
    """A page of another browser that runs no scripts, while there is a `context`: one thread has one Playwright."""
    opened = _running[-1].chromium.launch_persistent_context(
        directory, executable_path=CHROMIUM, headless=True, args=ARGUMENTS, viewport=DESKTOP, java_script_enabled=False
    )
    opened.set_default_timeout(PATIENCE)
    try:
        yield opened.pages[0]
    finally:
        opened.close()


class Complaints:
    """What a page's console and scripts complained about."""

    def __init__(self, page: sync_api.Page) -> None:
        self.found: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.found.append(str(error)))

    def _heard(self, message: sync_api.ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.found.append(f"{message.text} {message.location.get('url', '')}")


def accessible(page: sync_api.Page) -> None:
    """Fail with what axe found wrong with the page."""
    results = axe.Axe().run(page)
    assert not results.violations_count, f"{page.url}\n{results.generate_report()}"


def fits(page: sync_api.Page) -> None:
    """Fail if the page is wider than the window."""
    wide, window = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= window, f"{page.url} is {wide} pixels wide in a window of {window}"


def inspect(page: sync_api.Page, name: str, directory: pathlib.Path | None = None) -> None:
    """Look at a page in light and dark, on a desktop and on a phone: it is accessible, fits the window, and a picture of it is kept."""
    pictures = directory or pictures_directory()
    for size, viewport in (("desktop", DESKTOP), ("phone", PHONE)):
        page.set_viewport_size(viewport)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
            accessible(page)
            fits(page)
            if pictures is not None:
                page.screenshot(path=pictures / f"{_file_name(name)}-{size}-{scheme}.png", full_page=True)
    page.set_viewport_size(DESKTOP)
    page.emulate_media(color_scheme="light", reduced_motion="no-preference")


def pictures_directory() -> pathlib.Path | None:
    """Where pictures go: a folder of the test results, or nowhere when the tests were not started by scripts/test."""
    wanted = os.environ.get("CONPAAS_TEST_PICTURES")
    if not wanted:
        return None
    directory = pathlib.Path(wanted)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _file_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
