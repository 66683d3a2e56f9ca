"""Every field of a manifest, for every service type, on a whole platform: what was asked for is there, and a download makes it again."""

from __future__ import annotations

import collections
import json
import pathlib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from conpaas.core import data_urls
from tests.support import consistency, sites
from tests.support import platform as platforms

READY_MADE = pathlib.Path(__file__).resolve().parents[2] / "src" / "conpaas" / "director" / "ready_made"
SCRIPT = "#!/bin/bash\ntrue\n"
DUMP = "CREATE DATABASE IF NOT EXISTS shop; USE shop; CREATE TABLE goods (name VARCHAR(40)); INSERT INTO goods VALUES ('a red kite');\n"
PAGE = """<?php
$link = new mysqli(getenv('MYSQL_HOST'), getenv('MYSQL_USER'), getenv('MYSQL_PASSWORD'), getenv('MYSQL_DATABASE'), getenv('MYSQL_PORT'));
$row = $link->query('SELECT name FROM goods')->fetch_row();
echo json_encode(['goods' => $row[0], 'greeting' => getenv('GREETING'), 'limit' => ini_get('memory_limit')]);
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[platforms.Platform]:
    with platforms.platform(tmp_path_factory.mktemp("types"), 117) as made:
        yield made


def url_of(path: pathlib.Path) -> str:
    return data_urls.encode(path.name, path.read_bytes())


def manifest(name: str, directory: pathlib.Path) -> dict[str, Any]:
    """One of each type that is started, one of each that is not."""
    site = url_of(sites.archive(directory / "site.tar.gz", {"index.php": PAGE}))
    war = url_of(sites.archive(directory / "shop.war", {"index.jsp": "hello"}))
    script = data_urls.encode("setup.sh", SCRIPT.encode())
    return {
        "Application": name,
        "Services": [
            {
                "Type": "mysql",
                "ServiceName": "db",
                "Start": 1,
                "Cloud": "default",
                "Variables": {"max_connections": "60"},
                "Password": "contrail123",
                "Dump": data_urls.encode("dump.sql", DUMP.encode()),
                "Bindings": [{"service": "site", "database": "shop"}],
            },
            {
                "Type": "php",
                "ServiceName": "site",
                "Start": 1,
                "StartupInstances": {"proxy": "1", "web": "1", "backend": "2"},
                "StartupScript": script,
                "Archive": site,
                "Environment": {"GREETING": "moin"},
                "PhpConf": {"memory_limit": "96M"},
            },
            {"Type": "java", "ServiceName": "tomcat", "Start": 0, "Archive": war, "StartupInstances": {"backend": 3}},
            {
                "Type": "mysql",
                "ServiceName": "spare",
                "Start": 0,
                "Variables": {"max_connections": "70"},
                "Password": "contrail456",
                "Dump": data_urls.encode("dump.sql", DUMP.replace("red", "blue").encode()),
                "Bindings": [{"service": "tomcat", "database": "shop"}],
            },
            {"Type": "helloworld", "ServiceName": "quiet", "Start": 0, "String": "shh", "StartupScript": script},
        ],
    }


def upload(platform: platforms.Platform, document: dict[str, Any], directory: pathlib.Path) -> platforms.Result:
    path = directory / "app.mnf"
    path.write_text(json.dumps(document))
    return platform.cps("application", "manifest", path)


def services(platform: platforms.Platform, name: str) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in platform.data("service", "list", "-a", name)}


def roles(platform: platforms.Platform, name: str, sid: int) -> dict[str, int]:
    return dict(collections.Counter(one["role"] for one in platform.data("service", "list_nodes", name, str(sid))))


def page(platform: platforms.Platform, name: str) -> dict[str, Any]:
    (address,) = platform.data("php", "open", name, "site")
    with urllib.request.urlopen(address, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def check(platform: platforms.Platform, name: str) -> None:
    """An application of the manifest is as it says, apart from its data."""
    found = services(platform, name)
    assert {title: (one["type"], one["status"]) for title, one in found.items()} == {
        "db": ("mysql", "RUNNING"),
        "site": ("php", "RUNNING"),
        "tomcat": ("java", "INIT"),
        "spare": ("mysql", "STOPPED"),
        "quiet": ("helloworld", "INIT"),
    }
    assert roles(platform, name, found["db"]["sid"]) == {"mysql": 1}
    assert collections.Counter(roles(platform, name, found["site"]["sid"]))["backend"] == 2
    assert platform.data("mysql", "bindings", name, "db")[0]["database"] == "shop"
    versions = platform.data("java", "list_codes", name, "tomcat")
    assert [one["filename"] for one in versions if one.get("current")] == ["shop.war"]
    exported = json.loads(platform.cps("application", "download_manifest", name).out)["Services"]
    assert [one["Start"] for one in exported] == [1, 1, 0, 0, 0]
    assert (exported[0]["Bindings"], exported[0]["Variables"]) == (
        [{"service": "site", "database": "shop", "prefix": "MYSQL"}],
        {"max_connections": "60"},
    )
    assert (exported[1]["Environment"], exported[1]["PhpConf"]) == ({"GREETING": "moin"}, {"memory_limit": "96M"})
    assert [data_urls.decode(exported[index]["StartupScript"])[1].decode() for index in (1, 4)] == [SCRIPT, SCRIPT]
    assert exported[3]["Variables"] == {"max_connections": "70"}
    assert exported[3]["Bindings"] == [{"service": "tomcat", "database": "shop", "prefix": "MYSQL"}]
    assert exported[4]["String"] == "shh"


def check_spare(platform: platforms.Platform, name: str, dump: pathlib.Path) -> None:
    """The data that the manifest named for a service that is not to run are there once it is started."""
    platform.cps("mysql", "start", name, "spare")
    platform.cps("mysql", "dump", name, "spare", "--to", dump)
    assert "a blue kite" in dump.read_text()
    platform.cps("--yes", "mysql", "stop", name, "spare")


def test_every_field_of_every_type(platform: platforms.Platform, tmp_path: pathlib.Path) -> None:
    upload(platform, manifest("shop", tmp_path), tmp_path)
    check(platform, "shop")
    assert page(platform, "shop") == {"goods": "a red kite", "greeting": "moin", "limit": "96M"}
    check_spare(platform, "shop", tmp_path / "spare.sql")
    consistency.assert_consistent(platform)
    exported = json.loads(platform.cps("application", "download_manifest", "shop").out)
    platform.cps("--yes", "application", "delete", "shop")
    again = {**exported, "Application": "again"}
    again["Services"][0]["Dump"] = data_urls.encode("dump.sql", DUMP.encode())  # data is not in a manifest
    upload(platform, again, tmp_path)
    check(platform, "again")
    assert page(platform, "again") == {"goods": "a red kite", "greeting": "moin", "limit": "96M"}
    platform.cps("--yes", "application", "delete", "again")
    assert not platform.vms()


def ready_made(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((READY_MADE / name / "application.json").read_text())["manifest"]
    return found


def address_of(platform: platforms.Platform, application: str) -> str:
    (address,) = platform.data("php", "open", application, "site")
    return str(address)


def test_wordpress_comes_up_once_it_is_prepared(platform: platforms.Platform, tmp_path: pathlib.Path) -> None:
    document = ready_made("wordpress")
    missing = platform.cps("application", "manifest", write(tmp_path, document), check=False)
    assert "The ready-made file wordpress is not on this Director." in missing.out + missing.err
    platform.cps("--yes", "application", "delete", "WordPress")
    platform.run("cpsdirector", "ready-made", "prepare", "wordpress")
    assert "wordpress    prepared" in platform.run("cpsdirector", "ready-made", "list").out
    upload(platform, document, tmp_path)
    with urllib.request.urlopen(f"{address_of(platform, 'WordPress')}wp-admin/install.php", timeout=60) as answer:
        assert b'id="setup"' in answer.read()
    platform.cps("--yes", "application", "delete", "WordPress")


class Writer:
    """Somebody who uses a MediaWiki through its API."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._open = urllib.request.build_opener(urllib.request.HTTPCookieProcessor()).open

    def ask(self, path: str, **fields: str) -> str:
        body = urllib.parse.urlencode(fields).encode() if fields else None
        with self._open(self.address + path, body, timeout=90) as answer:
            return str(answer.read().decode())

    def call(self, **fields: str) -> Any:
        return json.loads(self.ask("api.php", format="json", **fields))

    def token(self, kind: str) -> str:
        return str(self.call(action="query", meta="tokens", type=kind)["query"]["tokens"][f"{kind}token"])


def test_a_wiki_comes_up_and_is_written_in(platform: platforms.Platform, tmp_path: pathlib.Path) -> None:
    platform.run("cpsdirector", "ready-made", "prepare", "mediawiki")
    upload(platform, ready_made("mediawiki"), tmp_path)
    admin = Writer(address_of(platform, "MediaWiki"))
    password = "a long enough Password 7"
    assert 'id="setup"' in admin.ask("setup.php")
    assert "Done." in admin.ask("setup.php", name="Admin", password=password)
    with pytest.raises(urllib.error.HTTPError) as refused:
        admin.ask("setup.php", name="Mallory", password=password)
    refused.value.close()
    assert refused.value.code == 403
    login = {"username": "Admin", "password": password, "loginreturnurl": admin.address, "logintoken": admin.token("login")}
    assert admin.call(action="clientlogin", **login)["clientlogin"]["status"] == "PASS"
    rights = admin.call(action="query", meta="userinfo", uiprop="groups")["query"]["userinfo"]["groups"]
    assert {"sysop", "bureaucrat"} <= set(rights)
    edit = {"title": "Main Page", "text": "Written here: ''a red kite''.", "token": admin.token("csrf")}
    assert admin.call(action="edit", **edit)["edit"]["result"] == "Success"
    platform.cps("php", "add_nodes", "MediaWiki", "site", "--backend", "1")
    assert "<i>a red kite</i>" in Writer(admin.address).ask("index.php/Main_Page")
    platform.cps("--yes", "application", "delete", "MediaWiki")


def write(directory: pathlib.Path, document: dict[str, Any]) -> pathlib.Path:
    path = directory / "ready.mnf"
    path.write_text(json.dumps(document))
    return path
