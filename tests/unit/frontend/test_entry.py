"""Who is let in, and where to."""

from __future__ import annotations

import pytest
from tests.support.frontend import Site

from conpaas.core import errors
from conpaas.frontend import pages, routing, sessions, throttle, upstream, visits


def test_who_is_not_signed_in_is_sent_to_the_sign_in_and_back(site: Site) -> None:
    reply = site.browser.get("/apps/7")
    assert (reply.status, reply.headers["location"]) == (303, "/sign-in?next=%2Fapps%2F7")
    assert 'name="next" value="/apps/7"' in site.browser.get(reply.headers["location"]).text


def test_a_form_that_comes_too_late_says_so_and_leads_back_to_its_page(site: Site) -> None:
    site.browser.get("/sign-in")
    for referer, wanted in (("http://front.example.org/apps/7", "next=%2Fapps%2F7&"), ("https://evil.example.org/apps/7", ""), ("", "")):
        reply = site.browser.post("/apps/7/rename", {"name": "x"}, referer=referer)
        assert (reply.status, reply.headers["location"]) == (303, f"/sign-in?{wanted}said=undone")
        assert "Nothing was done: you were signed out" in site.browser.get(reply.headers["location"]).text


def test_a_script_is_told_that_the_session_ended(site: Site) -> None:
    reply = site.browser.get("/apps/7", accept="application/json")
    assert reply.status == 401
    assert "/sign-in" in reply.text


def test_nobody_sees_a_page_of_others(site: Site) -> None:
    for page in pages.declared():
        if isinstance(page, routing.Page) and page.access != "anyone" and "GET" in page.methods:
            path = page.path.replace(":int", "").replace(":path", "").replace("{", "").replace("}", "")
            path = path.replace("aid", "1").replace("sid", "1")
            assert site.browser.get(path).status in (303, 404), path


@pytest.mark.parametrize(
    "address",
    [
        "//evil.example.org",
        "https://evil.example.org",
        "/\\evil.example.org",
        "javascript:alert(1)",
        "/a\nb",
        "/sign-out",
        "x",
        "",
        "/" * 900,
    ],
)
def test_the_way_back_never_leads_elsewhere(address: str) -> None:
    assert visits.local_path(address) == "/"


def test_a_cookie_that_somebody_planted_is_not_taken_over(site: Site, grant: sessions.Grant) -> None:
    """No fixation: an id that was not given out here is no session, and a sign-in gives a new one."""
    name = f"{site.frontend.settings.cookie_prefix}session"
    site.browser.cookies[name] = planted = sessions.new_secret()
    assert site.browser.get("/apps").headers["location"].startswith("/sign-in")
    assert site.browser.cookies.get(name, "") == ""
    site.sign_in(grant)
    assert site.browser.cookies[name] != planted


def test_an_unreachable_director_is_told_at_the_sign_in(site: Site) -> None:
    token = site.browser.get("/sign-in").text.partition('<meta name="csrf" content="')[2].partition('"')[0]
    reply = site.browser.post("/sign-in", {"csrf": token, "username": "<b>alice", "password": "secret password"})
    assert reply.status == 503
    assert "Cannot contact the director" in reply.text
    assert 'value="&lt;b&gt;alice"' in reply.text
    assert "secret password" not in reply.text


@pytest.mark.parametrize("missing", ["username", "password"])
def test_what_is_missing_is_said(site: Site, missing: str) -> None:
    token = site.browser.get("/sign-in").text.partition('<meta name="csrf" content="')[2].partition('"')[0]
    fields = {"csrf": token, "username": "alice", "password": "x", missing: ""}
    reply = site.browser.post("/sign-in", fields)
    assert reply.status == 400
    assert "Give your user name and your password." in reply.text


def test_the_errors_that_end_a_session_are_recognised() -> None:
    revoked = "127.0.0.1:5555 answered /listapp with HTTP 401: cert_required: the client certificate was revoked"
    assert upstream.session_ended(errors.RemoteError(revoked))
    assert upstream.session_ended(errors.RemoteError("The account 'alice' is disabled."))
    assert not upstream.session_ended(errors.RemoteError("Application not found"))


def test_an_address_that_fails_too_often_has_to_wait() -> None:
    now = [0.0]
    guesses = throttle.Throttle(lambda: now[0])
    for _ in range(throttle.FREE):
        guesses.check("10.0.0.1")
        guesses.failed("10.0.0.1")
    with pytest.raises(errors.Forbidden, match="try again in 16 minutes"):
        guesses.check("10.0.0.1")
    guesses.check("10.0.0.2")
    now[0] = throttle.WINDOW + 1
    guesses.check("10.0.0.1")


def test_whoever_has_many_addresses_has_no_more_tries_for_that() -> None:
    guesses = throttle.Throttle(lambda: 0.0)
    for number in range(throttle.FREE):
        guesses.failed(f"2001:db8::{number + 1:x}")
    with pytest.raises(errors.Forbidden, match="Too many failed sign-ins"):
        guesses.check("2001:db8::ffff")
    guesses.check("2001:db8:0:1::1")


def test_failures_of_very_many_addresses_do_not_use_up_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "_MOST", 3)
    guesses = throttle.Throttle(lambda: 0.0)
    for number in range(10):
        guesses.failed(f"10.0.0.{number}")
    assert guesses.known == 3


def test_the_director_is_told_for_whom_something_is_asked(site: Site, grant: sessions.Grant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one person uses up, for everybody who comes by way of this front-end, what an address may try in an hour."""
    told: list[tuple[str, str]] = []

    def post(path: str, _fields: object = None, *, anybody: bool = False, address: str = "") -> dict[str, str]:
        told.append((path, address))
        raise errors.RemoteError("User authentication failed")

    def archive(_username: str, _password: str, address: str = "") -> bytes:
        told.append(("/getcerts", address))
        raise errors.RemoteError("User authentication failed")

    monkeypatch.setattr(site.frontend.upstreams.nobody, "post", post)
    monkeypatch.setattr(site.frontend.upstreams.nobody, "certificates", archive)
    token = site.browser.get("/sign-in").text.partition('<meta name="csrf" content="')[2].partition('"')[0]
    site.browser.post("/resend-confirmation", {"csrf": token, "username": "alice"})
    csrf = site.sign_in(grant).csrf
    site.browser.post("/account/password", {"csrf": csrf, "old": "x", "new": "longer than 8", "again": "longer than 8"})
    site.browser.post("/account/certificates/download", {"csrf": csrf, "password": "x"})
    assert [path for path, _ in told] == ["/resend-confirmation".replace("-", "_"), "/change_password", "/getcerts"]
    assert all(address for _, address in told)
