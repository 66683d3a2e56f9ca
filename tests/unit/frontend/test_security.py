"""What protects every request, whatever page it is for."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from tests.support import asgi
from tests.support.frontend import Site

from conpaas.frontend import pages, rendering, routing, security, sessions, settings

FORM = "application/x-www-form-urlencoded"


def token_of(reply: asgi.Reply) -> str:
    return reply.text.partition('<meta name="csrf" content="')[2].partition('"')[0]


@pytest.mark.parametrize("path", ["/sign-in", "/nowhere", "/", "/apps", "/health", f"/static/{rendering.static_hash()}/style.css"])
def test_every_reply_has_the_protecting_headers(site: Site, path: str) -> None:
    reply = site.browser.get(path)
    for name, value in security.HEADERS.items():
        assert reply.headers[name.lower()] == value
    assert "server" not in reply.headers
    assert "unsafe" not in reply.headers["content-security-policy"]


def test_pages_are_not_kept_and_static_files_are(site: Site) -> None:
    assert site.browser.get("/sign-in").headers["cache-control"] == "no-store"
    assert "immutable" in site.browser.get(f"/static/{rendering.static_hash()}/app.js").headers["cache-control"]
    assert site.browser.get("/static/0000/app.js").headers["cache-control"] == "no-store"
    assert site.browser.get(f"/static/{rendering.static_hash()}/..%2fapp.py").status == 404


@pytest.mark.parametrize("path", sorted(path.name for path in rendering.TEMPLATES.rglob("*.html")))
def test_no_template_has_inline_script_or_style(path: str) -> None:
    for template in rendering.TEMPLATES.rglob(path):
        text = template.read_text()
        assert " style=" not in text and "<style" not in text
        assert not any(f" on{event}=" in text for event in ("click", "load", "submit", "change", "input", "error"))
        assert all("src=" in script.partition(">")[0] for script in text.split("<script")[1:])
        assert "|safe" not in text.replace(" ", "")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example.org"},
        {"origin": "null"},
        {"origin": f"http://{asgi.HOST}.evil.example.org"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"origin": f"http://{asgi.HOST}", "sec_fetch_site": "cross-site"},
    ],
)
def test_what_another_site_sends_is_refused(site: Site, headers: dict[str, str]) -> None:
    token = token_of(site.browser.get("/sign-in"))
    reply = site.browser.post("/theme", {"csrf": token, "theme": "dark"}, **headers)
    assert reply.status == 403
    assert not reply.cookies


@pytest.mark.parametrize("headers", [{}, {"origin": f"http://{asgi.HOST}"}, {"sec_fetch_site": "same-origin"}])
def test_what_our_own_pages_send_is_not(site: Site, headers: dict[str, str]) -> None:
    token = token_of(site.browser.get("/sign-in"))
    assert site.browser.post("/theme", {"csrf": token, "theme": "dark"}, **headers).status == 303


def test_behind_a_proxy_the_public_origin_counts(make: Callable[..., Site]) -> None:
    site = make(public_url="https://conpaas.example.org")
    token = token_of(site.browser.get("/sign-in"))
    fields = {"csrf": token, "theme": "dark"}
    assert site.browser.post("/theme", fields, origin="https://conpaas.example.org").status == 303
    assert site.browser.post("/theme", fields, origin=f"http://{asgi.HOST}").status == 403


def test_every_page_that_changes_something_wants_the_token(site: Site, grant: sessions.Grant) -> None:
    site.sign_in(grant)
    stranger = sessions.csrf_token(sessions.new_secret())
    tried = 0
    for page in pages.declared():
        if not isinstance(page, routing.Page) or "POST" not in page.methods:
            continue
        path = re.sub(r"\{\w+(:\w+)?\}", "1", page.path)
        for fields, headers in (({}, {}), ({"csrf": stranger}, {}), ({}, {"x_csrf_token": stranger}), ({"csrf": ""}, {})):
            reply = site.browser.post(path, fields, **headers)
            assert reply.status == 403 and ("Nothing was done" in reply.text or "Only an operator" in reply.text), path
        tried += 1
    assert tried >= 15


def test_the_token_of_before_the_sign_in_is_worth_nothing_after_it(site: Site, grant: sessions.Grant) -> None:
    token = token_of(site.browser.get("/sign-in"))
    site.sign_in(grant)
    assert site.browser.post("/theme", {"csrf": token, "theme": "dark"}).status == 403


def test_a_body_that_is_too_large_is_refused_before_it_is_read(site: Site) -> None:
    announced = site.browser.send("POST", "/theme", headers={"content_type": FORM, "content_length": str(settings.FORM_BYTES + 1)})
    assert announced.status == 413
    piece = b"x" * (settings.FORM_BYTES // 2)
    assert site.browser.send("POST", "/theme", body=[piece, piece, piece], headers={"content_type": FORM}).status == 413


@pytest.mark.parametrize("body", [b"\xff\xfe&&&=%%%", b"--x\r\nbroken", b"a=" + b"&" * 5000])
@pytest.mark.parametrize("kind", [FORM, "multipart/form-data; boundary=x", "multipart/form-data", "application/json", ""])
def test_a_body_that_is_no_form_is_an_error_page(site: Site, body: bytes, kind: str) -> None:
    reply = site.browser.send("POST", "/theme", body=[body], headers={"content_type": kind})
    assert reply.status in (400, 403)
    assert "Traceback" not in reply.text


def test_cookies_cannot_be_read_by_scripts_or_sent_by_other_sites(make: Callable[..., Site]) -> None:
    plain = make().browser.get("/sign-in").headers["set-cookie"]
    assert "HttpOnly" in plain and "SameSite=lax" in plain and "Secure" not in plain
    hosted = make(public_url="https://conpaas.example.org").browser.get("/sign-in").headers["set-cookie"]
    assert hosted.startswith("__Host-conpaas-") and "Secure" in hosted and "Path=/" in hosted
    below = make(public_url="https://example.org", root_path="/paas").browser.get("/sign-in").headers["set-cookie"]
    assert below.startswith("__Secure-conpaas-") and "Path=/paas" in below


def test_below_a_root_path_all_addresses_are_below_it(make: Callable[..., Site]) -> None:
    site = make(root_path="/paas")
    stripped, kept = site.browser.get("/sign-in"), site.browser.get("/paas/sign-in")
    assert stripped.status == kept.status == 200
    for part in ('href="', 'src="', 'action="'):
        for address in (piece.partition('"')[0] for piece in kept.text.split(part)[1:]):
            assert address.startswith(("/paas/", "#")), address
    assert site.browser.get("/paas/apps").headers["location"].startswith("/paas/sign-in")
