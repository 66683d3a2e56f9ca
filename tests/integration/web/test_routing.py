"""What a proxy with a real php-fpm behind it answers: files, scripts, directories, pretty URLs, and what is nobody's business."""

from __future__ import annotations

import email.utils
import gzip
import json
import pathlib
import shutil
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from conpaas.services.webservers import spec

from . import conftest

SHOW = """<?php
header('X-Powered-By: me');
echo json_encode(['script' => basename(__FILE__), 'dir' => basename(__DIR__), 'get' => $_GET, 'post' => $_POST, 'server' => $_SERVER]);
"""
BIG = b"0123456789" * 100_000
FILES = {
    "index.php": SHOW,
    "other.php": SHOW,
    "page.html": "<p>page</p>",
    "style.css": "body {}\n" * 200,
    "big.bin": BIG,
    "with space.txt": "space",
    "tag-é.txt": "accent",
    "docs/index.html": "docs",
    "old/index.htm": "old",
    "admin/index.php": SHOW,
    "empty/file.txt": "in a directory without index",
    "both/index.html": "html first",
    "both/index.php": SHOW,
    "x.php.d/file.txt": "not a script",
    ".env": "SECRET=1",
    ".git/config": "[core]",
    "docs/.htpasswd": "user:hash",
    ".well-known/security.txt": "Contact: us",
    ".well-known/.hidden": "no",
    "docs/.well-known/x": "known",
    "WEB-INF/web.xml": "<web-app/>",
    "sub/web-inf/lib/x.jar": "jar",
    "META-INF/MANIFEST.MF": "m",
    "Upper.PHP": "<?php secret",
    "script.phtml": "<?php secret",
    "config.php.bak": "<?php secret",
    "config.php~": "<?php secret",
    "page.jsp": "<% secret %>",
}


class Site:
    """A node that has the site and serves it, with files from its own disk (packed) or from a web server of another node (apart)."""

    def __init__(self, directory: pathlib.Path, *, apart: bool) -> None:
        self.proxy = conftest.Node(directory / "proxy")
        self.web = conftest.Node(directory / "web") if apart else None
        self.fpm = conftest.Fpm(directory / "fpm", self.proxy.address)
        for node in [self.proxy, *([self.web] if self.web else [])]:
            node.write("code-1", FILES)
        servers: tuple[spec.Upstream, ...] = (spec.Upstream(self.proxy.address, 8080),)
        if self.web:
            servers = (spec.Upstream(self.web.address, self.web.static().configure(["code-1"], spec.SiteSettings())),)
        self.proxy.proxy().configure(conftest.proxy_config(web=servers, backends=(self.fpm.upstream,), upload_size=1))

    def get(self, target: str, **arguments: Any) -> conftest.Reply:
        return self.proxy.ask(target, **arguments)

    def shown(self, target: str, **arguments: Any) -> dict[str, Any]:
        """What a script saw of a request."""
        reply = self.get(target, **arguments)
        assert reply.status == 200, reply
        return dict(json.loads(reply.body))

    def close(self) -> None:
        self.fpm.kill()
        for node in [self.proxy, *([self.web] if self.web else [])]:
            node.close()


@pytest.fixture(scope="module", params=["packed", "apart"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    directory = pathlib.Path(tempfile.mkdtemp(prefix="conpaas-web-"))
    directory.chmod(0o755)
    made = Site(directory, apart=request.param == "apart")
    yield made
    made.close()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/page.html", b"<p>page</p>"),
        ("/big.bin", BIG),
        ("/with%20space.txt", b"space"),
        ("/tag-%C3%A9.txt", b"accent"),
        ("//page.html", b"<p>page</p>"),
        ("/docs/../page.html?x=1", b"<p>page</p>"),
        ("/docs/", b"docs"),
        ("/old/", b"old"),
        ("/both/", b"html first"),
        ("/empty/file.txt", b"in a directory without index"),
        ("/x.php.d/file.txt", b"not a script"),
        ("/.well-known/security.txt", b"Contact: us"),
        ("/docs/.well-known/x", b"known"),
    ],
)
def test_files_are_served(site: Site, target: str, body: bytes):
    reply = site.get(target)
    assert (reply.status, reply.body) == (200, body)


@pytest.mark.parametrize(
    "target",
    [
        "/.env",
        "/%2eenv",
        "/.git/config",
        "/docs/.htpasswd",
        "/docs/%2Ehtpasswd",
        "/.well-known/.hidden",
        "/.well-known/../.env",
        "/WEB-INF/web.xml",
        "/web-inf/web.xml",
        "/WEB-INF%2fweb.xml",
        "/sub/web-inf/lib/x.jar",
        "/META-INF/MANIFEST.MF",
        "/Upper.PHP",
        "/script.phtml",
        "/config.php.bak",
        "/config.php~",
        "/page.jsp",
        "/x%0a/.env",
        "/WEB-INF",
        "/.conpaas/fpm-ping",
    ],
)
def test_what_is_nobodys_business_is_not_there(site: Site, target: str):  # D5
    reply = site.get(target)
    assert reply.status == 404
    assert b"secret" not in reply.body.lower()


def test_nobody_gets_out_of_the_document_root(site: Site):
    for target in ("/../../../../etc/passwd", "/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/docs/..%2f..%2f..%2f..%2fetc/passwd"):
        assert site.get(target).status in (400, 404) or b"root:" not in site.get(target).body


@pytest.mark.parametrize(
    ("target", "script", "name", "path_info"),
    [
        ("/", "index.php", "/index.php", ""),
        ("/index.php", "index.php", "/index.php", ""),
        ("/other.php?a=1", "other.php", "/other.php", ""),
        ("/admin/", "index.php", "/admin/index.php", ""),
        ("/admin/index.php", "index.php", "/admin/index.php", ""),
        ("/other.php/some/path.html?a=1", "other.php", "/other.php", "/some/path.html"),
        ("/index.php/a.php/b", "index.php", "/index.php", "/a.php/b"),
        ("/a/pretty/url", "index.php", "/index.php", ""),
        ("/a/pretty/url/", "index.php", "/index.php", ""),
        ("/missing.php", "index.php", "/index.php", ""),
        ("/missing.php/x", "index.php", "/index.php", ""),
        ("/empty/", "index.php", "/index.php", ""),
        ("/missing.css", "index.php", "/index.php", ""),
    ],
)
def test_scripts_run(site: Site, target: str, script: str, name: str, path_info: str):
    seen = site.shown(target)
    assert seen["script"] == script
    server = seen["server"]
    assert (server["SCRIPT_NAME"], server.get("PATH_INFO", "")) == (name, path_info)
    assert server["REQUEST_URI"] == target
    assert server["SCRIPT_FILENAME"].endswith("/www/code-1" + name)
    assert server["PHP_SELF"] == name + path_info


def test_query_strings_arrive_and_the_front_controller_learns_the_uri(site: Site):
    assert site.shown("/other.php?a=1&b[]=2&q=mine")["get"] == {"a": "1", "b": ["2"], "q": "mine"}
    assert site.shown("/pretty/url")["get"] == {"q": "/pretty/url"}, "as classic"
    assert site.shown("/caf%C3%A9")["get"] == {"q": "/café"}
    assert site.shown("/search?q=mine&page=2")["get"] == {"q": "mine", "page": "2"}, "a query of the site's own making stays as it is"
    assert site.shown("/signed?signature=abc")["server"]["QUERY_STRING"] == "signature=abc"
    assert not site.shown("/")["get"]


def test_a_directory_without_its_slash_leads_to_it(site: Site):
    for name in ("docs", "old", "admin", "both"):
        reply = site.get(f"/{name}?a=1")
        assert (reply.status, reply.headers["location"]) == (301, f"/{name}/?a=1"), "relative links on its page would break"
    assert site.shown("/empty")["script"] == "index.php", "one without an index may be a route of the site"


def test_redirects_cannot_lead_elsewhere(site: Site):
    reply = site.get("//docs")
    assert (reply.status, reply.headers["location"]) == (301, "/docs/")
    assert "evil" not in str(site.get("/docs%0d%0aLocation:%20http://evil/").headers)
    for begin in ("/\\", "//\\\\", "///\\"):  # browsers read a backslash as a slash, and what follows two of them as the name of a host
        reply = site.get(f"{begin}evil.example/../docs")
        assert (reply.status, reply.headers["location"]) == (301, "/evil.example/../docs/")


def test_methods_and_bodies_reach_scripts(site: Site):
    seen = site.shown("/a/route", method="POST", body=b"name=value&x=1", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (seen["server"]["REQUEST_METHOD"], seen["post"]) == ("POST", {"name": "value", "x": "1"})
    assert site.shown("/", method="DELETE")["server"]["REQUEST_METHOD"] == "DELETE"
    assert site.get("/page.html", method="POST", body=b"x").status == 405
    head = site.get("/other.php", method="HEAD")
    assert (head.status, head.body) == (200, b"")


def test_scripts_know_the_client_and_the_host(site: Site):
    server = site.shown(
        "/",
        headers={
            "Host": "www.Example.org:8123",
            "X-Forwarded-For": "10.9.8.7",
            "X-Forwarded-Host": "evil.example",
            "X-Forwarded-Proto": "https",
            "X-Real-IP": "1.1.1.1",
            "Proxy": "http://evil",
        },
    )["server"]
    assert server["HTTP_HOST"] == "www.example.org:8123"
    assert server["SERVER_NAME"] == "www.example.org"
    assert server["REMOTE_ADDR"].startswith("127.")
    assert server["HTTP_X_FORWARDED_FOR"] == f"10.9.8.7, {server['REMOTE_ADDR']}"
    assert server["HTTP_X_FORWARDED_PROTO"] == "http"
    assert not {"HTTP_X_REAL_IP", "HTTP_X_FORWARDED_HOST", "HTTP_PROXY"} & set(server), "what anybody may claim (the last is httpoxy)"
    assert "HTTPS" not in server


def test_a_client_that_names_no_host_means_the_address(site: Site):
    with socket.create_connection((site.proxy.address, 80), timeout=10) as client:
        client.sendall(b"GET /index.php HTTP/1.0\r\n\r\n")
        server = json.loads(client.makefile("rb").read().partition(b"\r\n\r\n")[2])["server"]
    assert server["HTTP_HOST"] == server["SERVER_NAME"] == site.proxy.address


def test_requests_have_an_id_from_end_to_end(site: Site):
    reply = site.get("/")
    assert json.loads(reply.body)["server"]["HTTP_X_REQUEST_ID"] == reply.headers["x-request-id"]
    reply = site.get("/", headers={"X-Request-ID": "abcdef-0123456789"})
    assert json.loads(reply.body)["server"]["HTTP_X_REQUEST_ID"] == reply.headers["x-request-id"] == "abcdef-0123456789"
    assert site.get("/", headers={"X-Request-ID": "a b<script>"}).headers["x-request-id"] != "a b<script>"
    ids = [site.get("/").headers["x-request-id"] for _ in range(5)]
    assert len(set(ids)) == 5
    assert site.get("/", headers={"X-Request-ID": ids[0]}).headers["x-request-id"] == ids[0], "another proxy takes it over"


def test_files_can_be_had_in_part_and_only_if_changed(site: Site):
    whole = site.get("/big.bin", method="HEAD")
    assert (whole.status, whole.headers["content-length"], whole.body) == (200, str(len(BIG)), b"")
    part = site.get("/big.bin", headers={"Range": "bytes=5-9"})
    assert (part.status, part.body, part.headers["content-range"]) == (206, b"56789", f"bytes 5-9/{len(BIG)}")
    assert site.get("/big.bin", headers={"Range": "bytes=99999999-"}).status == 416
    assert site.get("/big.bin", headers={"If-None-Match": whole.headers["etag"]}).status == 304
    assert site.get("/big.bin", headers={"If-Modified-Since": whole.headers["last-modified"]}).status == 304
    assert email.utils.parsedate_to_datetime(whole.headers["last-modified"])


def test_text_is_compressed_for_those_who_take_it(site: Site):
    reply = site.get("/style.css", headers={"Accept-Encoding": "gzip"})
    assert reply.headers["content-encoding"] == "gzip"
    assert gzip.decompress(reply.body) == b"body {}\n" * 200
    assert "accept-encoding" in reply.headers["vary"].lower()
    assert "content-encoding" not in site.get("/style.css").headers
    assert "content-encoding" not in site.get("/big.bin", headers={"Accept-Encoding": "gzip"}).headers
    assert site.get("/other.php", headers={"Accept-Encoding": "gzip"}).headers["content-encoding"] == "gzip"


def test_headers_for_caches_and_browsers(site: Site):
    assert site.get("/style.css").headers["cache-control"] == "public, max-age=3600"
    assert site.get("/page.html").headers["cache-control"] == "no-cache", "a page is asked for again after a new version"
    for target in ("/style.css", "/", "/.env"):
        headers = site.get(target).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "SAMEORIGIN"
        assert headers["server"] == "nginx", "no version"
        assert "x-powered-by" not in headers
        assert "x-code-version" not in headers


def test_an_upload_beyond_the_limit_is_refused(site: Site):  # D30
    assert site.get("/", method="POST", body=b"x" * (1 << 20)).status == 200
    assert site.get("/", method="POST", body=b"x" * ((1 << 20) + 1)).status == 413


def test_every_request_is_in_both_logs_in_the_classic_shape(site: Site):  # D29
    site.get("/log-me?x=1", headers={"User-Agent": "tester", "Referer": "http://there/"})
    line = conftest.until(
        lambda: next((line for line in site.proxy.log("nginx-proxy-access.log").splitlines() if "log-me" in line), None), "it is in the log"
    )
    assert line.startswith("127.")
    assert '"GET /log-me?x=1 HTTP/1.1" 200 ' in line
    assert line.endswith('"http://there/" "tester"')
    lines = conftest.until(
        lambda: [line for line in site.proxy.log("nginx-proxy-timed.log").splitlines() if line.startswith("dynamic 200 ")], "it is in both"
    )
    timed = lines[-1].split()
    assert float(timed[-2]) > 1e9, "the last two fields are when and how long, as collectors of the classic read them"
    assert 0 <= float(timed[-1]) < 10
