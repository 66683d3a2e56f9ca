"""WordPress of Debian's package on a php and a mysql service: set up, written in, scaled, hit, and still whole.

A visitor here fills in WordPress's own forms, as a browser would, with whatever hidden fields they have.
"""

from __future__ import annotations

import html.parser
import http.client
import json
import os
import pathlib
import re
import signal
import tarfile
import time
import urllib.parse
from collections.abc import Iterator

import pytest

from tests.support import consistency, debian, sites
from tests.support import platform as platforms

APP = "blog"
TITLE, USER, PASSWORD = "A blog of three", "editor", "a long enough Password 7"
SITE = "src/conpaas/director/ready_made/wordpress/site"
CONFIGURATION = pathlib.Path(__file__).resolve().parents[2] / SITE / "wp-config.php"
_RECOVERY = 45.0
"""Seconds in which everything is readable and writable again after a member and a backend died at once."""
FORM = "application/x-www-form-urlencoded"


class Form(html.parser.HTMLParser):
    """The fields of the form with an id, with the values that are in them."""

    def __init__(self, page: str, form: str) -> None:
        super().__init__()
        self._id, self._inside, self.fields = form, False, {}
        self.feed(page)

    fields: dict[str, str]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self._inside = given.get("id") == self._id
        elif (
            tag == "input" and self._inside and given.get("name") and ("checked" in given or given.get("type") not in ("checkbox", "radio"))
        ):
            self.fields[str(given["name"])] = given.get("value") or ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "form"


class Author(sites.Visitor):
    """Somebody who sets WordPress up and writes in it."""

    def submit(self, page: str, form: str, to: str, **filled: str) -> sites.Reply:
        """Fill in a form of a page and send it; the answer to that."""
        fields = Form(self.ask(page).body, form).fields
        assert fields, f"there is no form '{form}' on {page}"
        return self.ask(to, "POST", urllib.parse.urlencode({**fields, **filled}), Content_Type=FORM)

    def set_up(self) -> None:
        first = self.ask("/")
        assert first.status == 302 and first.headers["location"].endswith("/wp-admin/install.php"), first
        done = self.submit(
            "/wp-admin/install.php",
            "setup",
            "/wp-admin/install.php?step=2",
            weblog_title=TITLE,
            user_name=USER,
            admin_password=PASSWORD,
            admin_password2=PASSWORD,
            pw_weak="1",
            admin_email="editor@example.org",
        )
        assert "Success!" in done.body, done.body[-3000:]

    def log_in(self) -> None:
        done = self.submit("/wp-login.php", "loginform", "/wp-login.php", log=USER, pwd=PASSWORD)
        assert done.status == 302 and "wp-admin" in done.headers["location"], done
        assert "Dashboard" in self.ask("/wp-admin/index.php").body

    def write(self, title: str, text: str) -> str:
        """Publish a post as the editor of the site does; its address."""
        editor = self.ask("/wp-admin/post-new.php").body
        nonce = re.search(r'createNonceMiddleware\( "(\w+)" \)', editor)
        draft = re.search(r"id='post_ID' name='post_ID' value='(\d+)'", editor)
        assert nonce and draft, editor[:2000]
        body = json.dumps({"title": title, "content": f"<p>{text}</p>", "status": "publish"})
        path = f"/index.php?rest_route=/wp/v2/posts/{draft[1]}"
        answer = self.ask(path, "POST", body, Content_Type="application/json", X_WP_Nonce=nonce[1])
        assert answer.status == 200, answer
        parts = urllib.parse.urlsplit(json.loads(answer.body)["link"])
        return f"{parts.path}?{parts.query}" if parts.query else parts.path


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[platforms.Platform]:
    watch = {"HEALTH_INTERVAL": "1", "NODE_LOST_AFTER": "4"}
    with platforms.platform(tmp_path_factory.mktemp("blog"), 126, manager=watch) as made:
        made.cps("application", "create", APP)
        made.cps("application", "start", APP)
        yield made


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """WordPress with the configuration of our example."""
    made = tmp_path_factory.mktemp("code") / "wordpress.tar.gz"
    with tarfile.open(debian.debian_site("wordpress")) as packed, tarfile.open(made, "w:gz", compresslevel=1) as ours:
        for member in packed:
            ours.addfile(member, packed.extractfile(member) if member.isfile() else None)
        ours.add(CONFIGURATION, "wp-config.php")
    return made


def test_a_blog_that_outlives_its_nodes(platform: platforms.Platform, code: pathlib.Path) -> None:
    database, site = sites.Site(platform, APP, "mysql"), sites.Site(platform, APP, "php")
    database.cps("start")
    platform.run("cps-tools", "php", "env", APP, site.sid, "--secret", "WORDPRESS_SECRET", stdin="of a test\n")
    database.cps("bind", site.sid, "--database", "wordpress")
    site.deploy(code)
    site.cps("start")
    assert "MYSQL_PASSWORD" in site.cps("env").out

    author = Author(site.url)
    author.set_up()
    author.log_in()
    first = author.write("Hello from one node", "Written before there were three.")
    reader = site.visitor()
    assert "Written before there were three." in reader.ask(first).body

    database.cps("add_nodes", "--mysql", "2", "--glb", "1")
    platforms.until(lambda: database.data("bindings")[0]["given"] and site.state == "RUNNING", "the site connects through the balancer")
    site.cps("add_nodes", "--backend", "3")
    assert {role: len(ids) for role, ids in database.nodes().items()} == {"mysql": 3, "glb": 1}
    assert len(site.nodes()["backend"]) == 3
    second = author.write("Hello from three nodes", "Written while there are three.")
    assert "Written while there are three." in reader.ask(second).body

    victims = {one: _kill_one(one, role) for one, role in ((database, "mysql"), (site, "backend"))}
    hit = time.monotonic()
    for path, text in ((first, "Written before there were three."), (second, "Written while there are three.")):
        platforms.until(lambda path=path, text=text: text in _page(reader, path), f"{path} is there", _RECOVERY)  # type: ignore[misc]
    platforms.until(lambda: "Dashboard" in _page(author, "/wp-admin/index.php"), "the author is still signed in", _RECOVERY)
    third = author.write("Hello from the survivors", "Written after two nodes died.")
    assert time.monotonic() - hit < _RECOVERY
    assert "Written after two nodes died." in reader.ask(third).body

    for one, (role, node) in victims.items():
        platforms.until(lambda one=one, role=role, node=node: _replaced(one, role, node), f"{node} is replaced")  # type: ignore[misc]
    front = reader.ask("/").body
    assert all(f"Hello from {who}" in front for who in ("one node", "three nodes", "the survivors")), front
    consistency.assert_consistent(platform)


def _page(visitor: sites.Visitor, path: str) -> str:
    """A page, or nothing of it if it was under way on the node that died."""
    try:
        answer = visitor.ask(path)
    except http.client.IncompleteRead:
        return ""
    return answer.body if answer.status == 200 else ""


def _kill_one(service: sites.Site, role: str) -> tuple[str, str]:
    """End the VM of one node as a power failure would: of the members, that with most of the work."""
    node = min(service.nodes()[role])
    os.kill(int((service.vm_directory(node) / "pid").read_text()), signal.SIGKILL)
    return role, node


def _replaced(service: sites.Site, role: str, node: str) -> bool:
    now = service.nodes().get(role, set())
    return service.state == "RUNNING" and node not in now and len(now) == 3
