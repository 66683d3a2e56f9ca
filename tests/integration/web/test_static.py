"""A static web server: one name-based server per code version, and nothing else."""

from __future__ import annotations

import socket

import pytest

from conpaas.core import errors
from conpaas.services.webservers import spec

from . import conftest


def ask(node: conftest.Node, target: str, version: str = "code-1", **headers: str) -> conftest.Reply:
    return node.ask(target, port=8080, headers={"Host": version, **headers})


def test_versions_are_told_apart_by_the_host(node: conftest.Node):
    for version in ("code-1", "code-2", "git-0abc"):
        node.write(version, {"a.txt": version})
    role = node.static()
    assert role.state() == {"state": "INIT", "port": None, "code_versions": []}
    assert role.configure(["code-1", "code-2"], spec.SiteSettings()) == 8080
    assert (ask(node, "/a.txt").text, ask(node, "/a.txt", "code-2").text) == ("code-1", "code-2")
    assert ask(node, "/a.txt").headers["x-code-version"] == "code-1"
    for stranger in ("git-0abc", "www.example.org", "code-11"):
        assert ask(node, "/a.txt", stranger).status == 404
    role.configure(["code-2", "git-0abc"], spec.SiteSettings())
    assert ask(node, "/a.txt").status == 404
    assert ask(node, "/a.txt", "git-0abc").text == "git-0abc"
    assert role.state() == {"state": "RUNNING", "port": 8080, "code_versions": ["code-2", "git-0abc"]}
    assert set(role.log_files()) == {"nginx-static-access.log", "nginx-static-error.log"}


def test_sources_and_secrets_are_never_served(node: conftest.Node):  # D5
    secrets = (
        "index.php",
        "a.PHP",
        "a.phtml",
        "config.php.bak",
        "page.jsp",
        ".env",
        ".git/config",
        "WEB-INF/web.xml",
        "META-INF/x",
        "web-inf/y",
    )
    node.write("code-1", dict.fromkeys(secrets, "secret") | {"index.html": "welcome", "d/index.htm": "d", ".well-known/x": "known"})
    node.static().configure(["code-1"], spec.SiteSettings())
    for name in secrets:
        reply = ask(node, f"/{name}")
        assert (reply.status, "secret" in reply.text) == (404, False), name
    assert ask(node, "/index.php/x").status == 404
    assert (ask(node, "/").text, ask(node, "/d/").text, ask(node, "/.well-known/x").text) == ("welcome", "d", "known")


def test_the_document_root_and_the_age_for_caches(node: conftest.Node):
    node.write("code-1", {"public/a.css": "css", "outside.txt": "no", "public/p.html": "p"})
    role = node.static()
    role.configure(["code-1"], spec.SiteSettings(document_root="public", static_max_age=60))
    assert ask(node, "/a.css").headers["cache-control"] == "public, max-age=60"
    assert ask(node, "/p.html").headers["cache-control"] == "no-cache"
    assert ask(node, "/outside.txt").status == 404
    role.configure(["code-1"], spec.SiteSettings(document_root="public", static_max_age=0))
    assert ask(node, "/a.css").headers["cache-control"] == "no-cache"


def test_versions_that_are_not_here_or_cannot_be_told_apart_are_refused(node: conftest.Node):
    for version in ("code-a", "code-A"):
        node.write(version, {"a": ""})
    role = node.static()
    with pytest.raises(errors.NotFound, match="code-9 is not on this node"):
        role.configure(["code-9"], spec.SiteSettings())
    with pytest.raises(errors.InvalidArgument, match="upper and lower case"):
        role.configure(["code-a", "code-A"], spec.SiteSettings())
    assert role.state()["state"] == "INIT"


def test_it_keeps_its_port_comes_back_and_stops(node: conftest.Node):
    node.write("code-1", {"a.txt": "a"})
    role = node.static()
    with socket.create_server((node.address, 8080)):
        assert role.configure(["code-1"], spec.SiteSettings()) == 8081
    assert node.static().configure(["code-1"], spec.SiteSettings()) == 8081
    node.reboot()
    again = node.static()
    again.resume()
    assert again.state()["state"] == "RUNNING"
    assert node.ask("/a.txt", port=8081, headers={"Host": "code-1"}).text == "a"
    again.stop()
    again.stop()
    assert again.state() == {"state": "INIT", "port": None, "code_versions": []}
    with pytest.raises(OSError):
        node.ask("/", port=8081)


def test_the_log_names_the_visitor_not_the_proxy(node: conftest.Node):
    node.write("code-1", {"a.txt": "a"})
    role = node.static()
    role.configure(["code-1"], spec.SiteSettings())
    ask(node, "/a.txt", **{"X-Real-IP": "192.0.2.7"})
    conftest.until(lambda: node.log("nginx-static-access.log").startswith("192.0.2.7 - - ["), "the request is in the log")
    assert node.log("nginx-static-timed.log").startswith("static 200 ")
    assert role.performance(60)["requests"] == 1
