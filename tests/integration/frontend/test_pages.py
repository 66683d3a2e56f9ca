"""The front-end that a real Director runs: who may see and do what, and how sessions and processes end."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import socket
from collections.abc import Iterator

import pytest
from tests.support import platform as platforms
from tests.support.pages import Visitor, text_of

from conpaas.frontend import pages, routing

NET = 82
SITE = f"http://127.{NET}.255.1:8080"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[platforms.Platform]:
    with platforms.platform(tmp_path_factory.mktemp("pages"), NET, frontend={"ENABLED": "yes"}) as made:
        made.add_user("bob")
        command = ("user", "create", "olga", "--email", "olga@example.org", "--operator", "--password-file", "-")
        made.run("cpsdirector", *command, stdin="password of olga")
        made.passwords["olga"] = "password of olga"
        platforms.until(lambda: answers(SITE), "the front-end answers")
        yield made


def answers(site: str) -> bool:
    try:
        return Visitor(site).get("/health").status_code == 200
    except OSError:
        return False


@pytest.fixture
def alice(platform: platforms.Platform) -> Iterator[Visitor]:
    visitor = Visitor(SITE)
    assert visitor.sign_in("alice", platform.passwords["alice"]).status_code == 303
    yield visitor
    visitor.close()


def signed_in(platform: platforms.Platform, user: str) -> Visitor:
    visitor = Visitor(SITE)
    assert visitor.sign_in(user, platform.passwords[user]).headers["location"] == "/apps"
    return visitor


def frontend_pid(platform: platforms.Platform) -> int:
    """The process of the front-end of this platform's Director."""
    wanted = os.fsencode(platform.state / "frontend")
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if b"conpaas.frontend" in command and wanted in command:
            return int(process.name)
    return 0


def create(visitor: Visitor, name: str) -> int:
    """A new application; its number."""
    reply = visitor.post("/apps", name=name)
    found = re.fullmatch(r"/apps/(\d+)", reply.headers.get("location", ""))
    assert found, reply.content
    return int(found[1])


def test_every_page_of_an_application_is_its_owners_alone(platform: platforms.Platform, alice: Visitor) -> None:
    """Generated from what the modules of pages declare: owner, another user, an operator, nobody, for every address."""
    aid = create(alice, "private matters")
    strangers = [signed_in(platform, "bob"), signed_in(platform, "olga")]
    nobody = Visitor(SITE)
    nobody.get("/sign-in")
    tried = 0
    for page in pages.declared():
        if "{aid" not in page.path:
            continue
        path = re.sub(r"\{aid(:\w+)?\}", str(aid), page.path)
        path = re.sub(r"\{\w+(:\w+)?\}", "1", path)
        for method in page.methods if isinstance(page, routing.Page) else ("GET",):
            for stranger in strangers:
                reply = (
                    stranger.get(path) if method == "GET" else stranger.post(path, typed="private matters", name="taken", type="helloworld")
                )
                if reply.status_code == 303 and method == "GET":  # an address that leads to another of the application, and tells nothing
                    assert reply.headers["location"].startswith(f"/apps/{aid}"), path
                    reply = stranger.get(reply.headers["location"])
                assert reply.status_code == 404 or _nothing_told(reply.content), (path, method, reply.status_code)
                assert b"private matters" not in reply.content
            reply = nobody.get(path) if method == "GET" else nobody.post(path, typed="private matters")
            assert reply.status_code in (303, 401) and "/sign-in" in reply.headers.get("location", "/sign-in"), path
            tried += 1
    assert tried >= 12
    page_now = text_of(alice.get(f"/apps/{aid}"))
    assert "private matters" in page_now and "Not started" in page_now
    assert alice.post(f"/apps/{aid}/delete", typed="private matters").headers["location"] == "/apps"


def _nothing_told(body: bytes) -> bool:
    """A stream that is over before anything was told."""
    return b"event: end" in body and b"event: update" not in body


def test_what_loses_data_wants_the_name(alice: Visitor) -> None:
    aid = create(alice, "precious")
    for typed in ("", "Precious", "precious2"):
        reply = alice.post(f"/apps/{aid}/delete", typed=typed)
        assert reply.status_code == 400 and "what you typed is not the name" in text_of(reply)
    assert alice.get(f"/apps/{aid}").status_code == 200
    assert alice.post(f"/apps/{aid}/delete", typed="precious").status_code == 303
    assert alice.get(f"/apps/{aid}").status_code == 404


@pytest.mark.parametrize("name", ["", " ", "x" * 10_000])
def test_a_name_that_does_not_fit_is_an_error_with_a_sentence(alice: Visitor, name: str) -> None:
    reply = alice.post("/apps", name=name)
    assert reply.status_code == 400
    assert "A name has 1 to 255 characters." in text_of(reply)


def test_a_name_that_is_taken_is_an_error_with_the_way_out(alice: Visitor) -> None:
    aid = create(alice, "twice")
    reply = alice.post("/apps", name="twice")
    assert reply.status_code == 409
    assert 'Application name "twice" is already taken.' in text_of(reply)
    assert "Choose another name." in text_of(reply)
    alice.post(f"/apps/{aid}/delete", typed="twice")


def test_a_wrong_password_does_not_sign_in(platform: platforms.Platform) -> None:
    visitor = Visitor(SITE)
    reply = visitor.sign_in("alice", "wrong")
    assert reply.status_code == 403
    assert "User name and password do not fit." in text_of(reply)
    assert visitor.get("/apps").headers["location"].startswith("/sign-in")


def test_signing_out_ends_the_session_and_its_certificate(platform: platforms.Platform) -> None:
    visitor = signed_in(platform, "alice")
    kept = dict(visitor.cookies)
    assert visitor.post("/sign-out").headers["location"] == "/sign-in?said=out"
    for name, value in kept.items():
        visitor._session.cookies.set(name, value)
    assert visitor.get("/apps").headers["location"].startswith("/sign-in")


def test_a_changed_password_ends_all_sessions(platform: platforms.Platform) -> None:
    platform.add_user("dora")
    visitor = signed_in(platform, "dora")
    platform.run("cpsdirector", "user", "passwd", "dora", "--password-file", "-", stdin="another password")
    reply = visitor.get("/apps")
    assert (reply.status_code, reply.headers["location"]) == (303, "/sign-in?next=%2Fapps&said=ended")
    assert "Please sign in again." in text_of(visitor.get(reply.headers["location"]))


def test_a_disabled_account_is_out_at_once(platform: platforms.Platform) -> None:
    platform.add_user("emil")
    visitor = signed_in(platform, "emil")
    platform.run("cpsdirector", "user", "disable", "emil")
    assert visitor.get("/apps").headers["location"].startswith("/sign-in")
    assert visitor.sign_in("emil", platform.passwords["emil"]).status_code >= 400


def test_the_page_that_was_wanted_comes_after_the_sign_in(platform: platforms.Platform) -> None:
    visitor = Visitor(SITE)
    assert visitor.get("/apps/77").headers["location"] == "/sign-in?next=%2Fapps%2F77"
    visitor.get("/sign-in?next=%2Fapps%2F77")
    reply = visitor.post("/sign-in", username="alice", password=platform.passwords["alice"], next="/apps/77")
    assert reply.headers["location"] == "/apps/77"


def test_a_front_end_that_dies_is_started_again_and_sessions_are_kept(platform: platforms.Platform, alice: Visitor) -> None:
    first = platforms.until(lambda: frontend_pid(platform), "the front-end runs")
    os.kill(first, signal.SIGKILL)
    platforms.until(lambda: frontend_pid(platform) not in (0, first) and answers(SITE), "it was started again")
    assert alice.get("/apps").status_code == 200


def test_the_front_end_ends_with_the_director_however_that_ends(platform: platforms.Platform) -> None:
    for end in (platform.kill_director, platform.stop):
        platforms.until(lambda: frontend_pid(platform), "the front-end runs")
        end()
        platforms.until(lambda: not frontend_pid(platform), "the front-end is gone")
        platform.start()
    platforms.until(lambda: answers(SITE), "the front-end answers")


def test_an_open_page_does_not_keep_the_front_end_from_ending(platform: platforms.Platform, alice: Visitor) -> None:
    with alice._session.get(f"{SITE}/apps/live", stream=True, timeout=60) as stream:
        pieces = stream.iter_lines()
        platforms.until(lambda: next(pieces) == b"event: update", "the stream begins")
        pid = frontend_pid(platform)
        os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(OSError):
            rest = b"\n".join(pieces)
            assert b"event: end" not in rest  # the browser is to come back
    platforms.until(lambda: frontend_pid(platform) not in (0, pid) and answers(SITE), "it was started again")


def test_a_port_that_is_taken_does_not_concern_the_director(platform: platforms.Platform) -> None:
    platform.stop()
    platforms.until(lambda: not frontend_pid(platform), "the front-end is gone")
    with socket.create_server((f"127.{NET}.255.1", 8080)):
        platform.start()
        log = platform.state / "log" / "cpsdirector.log"
        said = f"Cannot listen on 127.{NET}.255.1 port 8080: Address already in use."
        platforms.until(lambda: said in log.read_text(), "the log says so")
        assert platform.answers()
    platforms.until(lambda: answers(SITE), "the front-end came up when the port was free")
