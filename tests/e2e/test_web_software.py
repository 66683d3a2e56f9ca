"""Software that nobody here wrote, as it comes out of its packages, hosted without a change."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator

import pytest

from tests.support import debian, sites
from tests.support import platform as platforms

APP = "software"
FRONT_CONTROLLER = {
    ".env": "APP_SECRET=never served",
    "src/Kernel.php": (
        "<?php namespace App; final class Kernel { public function handle(string $path): string { return 'route ' . $path; } }"
    ),
    "public/index.php": (
        "<?php declare(strict_types=1); require __DIR__ . '/../src/Kernel.php';"
        " header('Content-Type: text/plain'); echo (new App\\Kernel())->handle($_SERVER['REQUEST_URI']), ' via ', $_SERVER['SCRIPT_NAME'];"
    ),
    "public/build/app.css": "a {}",
}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[platforms.Platform]:
    with platforms.platform(tmp_path_factory.mktemp("software"), 98) as made:
        made.cps("application", "create", APP)
        made.cps("application", "start", APP)
        yield made


@pytest.fixture(scope="module")
def php(platform: platforms.Platform) -> sites.Site:
    made = sites.Site(platform, APP, "php")
    made.cps("start")
    return made


@pytest.fixture(scope="module")
def java(platform: platforms.Platform) -> sites.Site:
    made = sites.Site(platform, APP, "java")
    made.cps("start")
    return made


def test_dokuwiki(php: sites.Site) -> None:
    php.deploy(debian.debian_site("dokuwiki"))
    visitor = php.visitor()
    home = visitor.ask("/doku.php")
    assert home.status == 200 and "DokuWiki" in home.body, home.body[:500]
    assert visitor.ask("/lib/tpl/dokuwiki/images/logo.png").headers["content-type"] == "image/png"
    assert visitor.ask("/lib/exe/css.php?t=dokuwiki").headers["content-type"].startswith("text/css")
    assert visitor.ask("/doku.php/start").status == 200, "the path after the script's name is handed on"


def test_wordpress_up_to_its_set_up_page(php: sites.Site) -> None:
    php.deploy(debian.debian_site("wordpress"))
    visitor = php.visitor()
    first = visitor.ask("/")
    assert first.status == 302 and "setup-config.php" in first.headers["location"], first
    page = visitor.ask("/wp-admin/setup-config.php")
    assert page.status == 200 and "WordPress" in page.body
    step = visitor.ask("/wp-admin/setup-config.php?step=1&language=en_US")
    assert 'name="dbname"' in step.body


def test_a_front_controller_in_a_directory_of_its_own(php: sites.Site, tmp_path: pathlib.Path) -> None:
    php.deploy(sites.archive(tmp_path / "front.zip", FRONT_CONTROLLER))
    php.cps("settings", "documentRoot=public")
    visitor = php.visitor()
    assert visitor.ask("/blog/hello-world?page=2").body == "route /blog/hello-world?page=2 via /index.php"
    assert visitor.ask("/build/app.css").body == "a {}"
    assert visitor.ask("/../.env").status in (400, 404)
    assert "never served" not in visitor.ask("/.env").body
    php.cps("settings", "documentRoot=")


def test_tomcats_own_examples(java: sites.Site) -> None:
    java.deploy(debian.debian_site("tomcat10-examples"))
    visitor = java.visitor()
    assert "Hello World" in visitor.ask("/servlets/servlet/HelloWorldExample").body
    page = visitor.ask("/jsp/snp/snoop.jsp")
    assert page.status == 200 and "snoop.jsp" in page.body
    assert visitor.ask("/WEB-INF/web.xml").status == 404
    assert visitor.ask("/no/such/page").status == 404
    session = visitor.ask(
        "/servlets/servlet/SessionExample", "POST", "dataname=a&datavalue=b", Content_Type="application/x-www-form-urlencoded"
    )
    assert session.status == 200
    java.cps("add_nodes", "--backend", "2")
    seen = [visitor.ask("/servlets/servlet/SessionExample").body for _ in range(4)]
    assert all(re.search(r"a\s*=\s*b", body) for body in seen), "the session is there on every backend"


def test_a_war_with_wildcard_servlets(java: sites.Site, tmp_path: pathlib.Path) -> None:  # D3, D12
    mapping = "".join(
        f"<servlet><servlet-name>{name}</servlet-name><jsp-file>/WEB-INF/{name}.jsp</jsp-file></servlet>"
        f"<servlet-mapping><servlet-name>{name}</servlet-name><url-pattern>{pattern}</url-pattern></servlet-mapping>"
        for name, pattern in (("api", "/api/*"), ("action", "*.do"))
    )
    web_xml = f'<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0">{mapping}</web-app>'
    show = '<%@ page contentType="text/plain" %>{} <%= request.getServletPath() %> <%= request.getPathInfo() %> <%= request.getScheme() %>'
    war = sites.archive(
        tmp_path / "wild.war",
        {
            "WEB-INF/web.xml": web_xml,
            "WEB-INF/api.jsp": show.format("api"),
            "WEB-INF/action.jsp": show.format("action"),
            "plain.txt": "static",
        },
    )
    java.deploy(war)
    visitor = java.visitor()
    assert visitor.ask("/api/v1/things").body.split() == ["api", "/api", "/v1/things", "http"]
    assert visitor.ask("/save.do").body.split()[:2] == ["action", "/save.do"]
    assert visitor.ask("/plain.txt").body == "static"
    assert visitor.ask("/WEB-INF/api.jsp").status == 404


def test_a_broken_war_is_not_switched_to(java: sites.Site, tmp_path: pathlib.Path) -> None:  # D14
    java.deploy(sites.archive(tmp_path / "good.war", {"index.jsp": "good <%= 40 + 2 %>"}))
    broken = java.upload(sites.archive(tmp_path / "broken.war", {"WEB-INF/web.xml": "<web-app", "index.jsp": "x"}))
    refused = java.cps("enable_code", broken, check=False)
    assert refused.code == 1, refused
    assert java.visitor().ask("/").body.strip() == "good 42"
