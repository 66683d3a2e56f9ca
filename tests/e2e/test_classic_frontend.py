"""The web front-end of ConPaaS 2 (PHP, 2016), unmodified: every request it makes, replayed through libcurl against a real Director and real
managers, and every field that it reads, looked at. How each test asks and reads is in `tests/support/php_*`."""

from __future__ import annotations

import contextlib
import io
import pathlib
import sqlite3
import tarfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support import consistency, php_browser, php_frontend, php_pages, tenants, wire
from tests.support import platform as platforms
from tests.support.php_walk import Walk, shown

OTHER = "second-cloud"
OFFERED = ("php", "java", "mysql", "xtreemfs", "flink", "generic")
SETTINGS = {
    "max_execution_time": "60",
    "memory_limit": "256M",
    "upload_max_filesize": "8M",
    "post_max_size": "16M",
    "disable_functions": "pcntl_fork, pcntl_exec",
    "display_errors": "On",
}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[platforms.Platform]:
    with platforms.platform(tmp_path_factory.mktemp("php"), 85, director={"TRUST_FRONTEND": "yes"}, other=OTHER) as made:
        yield made


@pytest.fixture(scope="module")
def key() -> str:
    """A public key of the only kind that the front-end's form lets through."""
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    return made.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode() + " alice@example.org"


@pytest.fixture(scope="module")
def replayed() -> set[str]:
    """All requests of this module's tests."""
    return set()


@pytest.fixture(scope="module")
def certs(platform: platforms.Platform) -> pathlib.Path:
    """The front-end's directory of certificates, as its operator makes it."""
    directory = platform.directory / "www" / "conf" / "certs"
    platform.run("cpsdirector", "frontend-certificate", directory, "--host", "www.example.org")
    return directory


Open = Callable[[], php_browser.Browser]


@pytest.fixture
def visit(platform: platforms.Platform, certs: pathlib.Path, replayed: set[str], tmp_path: pathlib.Path) -> Open:
    """A browser on the front-end's log-in page."""

    def visited() -> php_browser.Browser:
        front = php_frontend.FrontEnd(platform.url, certs, tmp_path / "temp")
        front.requests = replayed
        (tmp_path / "uploads").mkdir(exist_ok=True)
        return php_browser.Browser(front, tmp_path / "uploads")

    return visited


@pytest.fixture
def alice(platform: platforms.Platform, visit: Open) -> php_browser.Browser:
    browser = visit()
    assert browser.authenticate("alice", platform.passwords["alice"])
    return browser


@pytest.fixture(scope="module")
def applications() -> dict[str, int]:
    """The ids of applications that tests share, by name."""
    return {}


@pytest.fixture
def aid(alice: php_browser.Browser, applications: dict[str, int]) -> int:
    """The application that most tests put their service into."""
    if "shared" not in applications:
        applications["shared"] = alice.create_application("shared")
        alice.start_application(applications["shared"])
    return applications["shared"]


def zipped(text: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("index.html", text)
    return packed.getvalue()


def tarred(files: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text.encode()), 0o755
            tar.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


def visited(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read())


# --- people ------------------------------------------------------------------------------------------------------------------------------


def test_a_new_person_registers_and_comes_back(visit: Open) -> None:
    browser = visit()
    assert browser.login_page()
    browser.register("béa", "long enough & ünusual", email="bea@example.org")
    assert [one["status"] for one in browser.dashboard().values()] == ["INIT"]
    assert browser.header()["credit"] == 50
    with shown("already exists"):
        visit().register("béa", "long enough & ünusual")
    with shown("already taken"):
        visit().register("béa", "another password", email="else@example.org")
    with shown("E-mail"):
        visit().register("bob", "another password", email="bea@example.org")
    with shown("max credit 50"):
        visit().register("bob", "another password", credit="51")
    assert not visit().authenticate("béa", "wrong")
    again = visit()
    assert again.authenticate("béa", "long enough & ünusual")
    assert again.header()["fname"] == "Ada"
    assert not again.front.fetch_certificates("béa", "wrong"), "what is no ZIP is ignored"


@pytest.mark.parametrize(
    "empty", [{"uuid": php_browser.NONE}, {"openid": php_browser.NONE}, {"uuid": "4711"}, {"openid": "https://id.example.org/"}]
)
def test_an_identity_without_a_password_opens_nothing(visit: Open, empty: dict[str, str]) -> None:
    front = visit().front
    assert front.login("", "", **empty) is False
    assert front.login(php_browser.NONE, php_browser.NONE, **empty) is False


def test_a_text_that_begins_with_an_at_sign_arrives_as_a_file_and_is_not_taken(alice: php_browser.Browser) -> None:
    secret = alice.file("passwd", b"root:x:0:0")
    with shown("name"):
        alice.front.ask("/createapp", {"name": f"@{secret.path}"})
    assert alice.front.login(f"@{secret.path}", "x") is False
    assert "root:x:0:0" not in [one["name"] for one in alice.applications().values()]


# --- applications ------------------------------------------------------------------------------------------------------------------------


def test_an_application_from_its_first_to_its_last_page(alice: php_browser.Browser) -> None:
    aid = alice.create_application('Élan & "Söhne" <b>')
    with shown("already taken"):
        alice.front.ask("/createapp", {"name": 'Élan & "Söhne" <b>'})
    alice.rename_application(aid, "one life")
    assert alice.application_page(aid).items() >= {"name": "one life", "status": "INIT", "manager": None}.items()
    with shown("no cloud|Unknown cloud|nowhere"):
        alice.front.ask(f"/startapp/{aid}/nowhere")
    with shown("."):
        alice.front.ask("/add/php", {"appid": aid})
    alice.start_application(aid, OTHER)
    with shown("already started"):
        alice.front.ask(f"/startapp/{aid}/default")
    assert alice.application_page(aid)["status"] == "RUNNING"
    (machine,) = [one for one in alice.resources_page() if one["app_id"] == aid]
    assert (machine["app_name"], machine["cloud"]) == ("one life", OTHER)
    alice.stop_application(aid)
    assert alice.application_page(aid)["status"] == "STOPPED"
    alice.delete_application(aid)


def test_pages_reach_nobody_elses_services(alice: php_browser.Browser, aid: int, visit: Open) -> None:
    stranger = visit()
    stranger.register("mallory", "long enough words")
    assert stranger.check_services(aid) == {}, "so that a page that checks nothing finds no manager to ask"
    assert aid not in stranger.dashboard()
    with shown("not found|Invalid|does not exist"):
        stranger.front.ask(f"/download_manifest/{aid}")
    for path, fields in ((f"/stopapp/{aid}", {}), (f"/deleteapp/{aid}", {}), (f"/renameapp/{aid}", {"name": "mine"})):
        with shown("[Aa]pplication.* not found"):
            stranger.front.ask(path, fields)
    assert alice.application_page(aid).items() >= {"name": "shared", "status": "RUNNING"}.items()


@pytest.mark.parametrize("kind", [one for one in OFFERED if one not in php_pages.ROLES])
def test_types_that_are_offered_but_not_installed_are_refused_in_words(alice: php_browser.Browser, aid: int, kind: str) -> None:
    if kind in alice.front.send("/available_services"):
        pytest.skip(f"{kind} is installed now: its page is to be replayed as those of the others are")
    with shown(f"Unknown service type '{kind}'"):
        alice.add_service(aid, kind)


def test_a_helloworld_service_is_not_shown_and_disturbs_nothing(alice: php_browser.Browser, aid: int) -> None:
    reply = alice.front.ask("/add/helloworld", {"appid": aid})
    sid = reply["service"]["sid"]
    assert sid not in alice.check_services(aid)
    alice.front.send("/remove", {"app_id": aid, "service_id": sid})


def test_manifests(alice: php_browser.Browser) -> None:
    site = {"Type": "php", "ServiceName": "site", "Start": 1, "StartupInstances": {"proxy": "1", "web": "1", "backend": "1"}}
    aid = alice.upload_manifest({"Application": "from a file", "Services": [site, {"Type": "generic", "ServiceName": "later"}]})
    assert alice.applications()[aid]["status"] in ("PROLOGUE", "RUNNING")
    alice.wait_for_application(aid, "ADAPTING", "RUNNING")
    rows = alice.wait_for_services(aid)
    assert {row.type: row.state for row in rows.values()} == {"php": "RUNNING", "generic": "INIT"}
    written = alice.download_manifest(aid)
    assert [one["ServiceName"] for one in written["Services"]] == ["site", "later"]
    alice.delete_application(aid)
    for wrong in ("no JSON", "[]", '{"Services": [{"Type": "nonsense"}]}'):
        with shown("."):
            alice.front.ask("/upload_manifest", {"manifest": wrong, "cloud": "default", "thread": 1})
    nothing = alice.upload_manifest({"Application": "of nothing", "Services": []})
    alice.delete_application(nothing)


# --- services ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["php", "java"])
def test_a_site(alice: php_browser.Browser, aid: int, kind: str, key: str) -> None:
    walk = Walk(alice, aid, kind)
    walk.startup_script()
    walk.prepares("first.tar.gz", tarred({"index.html": "first"}))
    site = alice.access(walk.begins())
    assert visited(site) == b"first"
    walk.code("Größe 1 & 'zwei'.zip", zipped(f"mine in {kind}"), key)
    assert visited(site) == f"mine in {kind}".encode()
    if kind == "php":
        settings(walk)
    walk.scales("backend", {"proxy": 1})
    walk.ends()


def settings(walk: Walk) -> None:
    """The form of PHP's settings: all six as texts, and the same ones on the page afterwards."""

    def save(manager: str) -> Any:
        return walk.front.post(manager, walk.sid, "update_php_configuration", {"phpconf": SETTINGS})

    walk.browser.change(walk.aid, walk.sid, "ADAPTING", save)
    assert walk.service.settings == SETTINGS
    with shown("memory_limit"):
        walk.front.post(walk.service.manager, walk.sid, "update_php_configuration", {"phpconf": {**SETTINGS, "memory_limit": "much"}})
    scaling = {"response_time": "700", "cool_down": "10", "strategy": "low", "method": "on_autoscaling"}
    with shown("autoscaling|Unexpected"):
        walk.front.post(walk.service.manager, str(walk.sid), "on_autoscaling", scaling)
    with contextlib.suppress(php_frontend.Shown):
        walk.front.post(walk.service.manager, str(walk.sid), "off_autoscaling", {"method": "off_autoscaling"})


def query(address: str, statement: str) -> list[tuple[Any, ...]]:
    host, port = address.split(":")
    session = pymysql.connect(host=host, port=int(port), user="mysqldb", password=b"classic words")
    with contextlib.closing(session) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def test_a_database(alice: php_browser.Browser, aid: int) -> None:
    walk = Walk(alice, aid, "mysql")
    address = alice.access(walk.begins())
    front, manager = alice.front, walk.service.manager
    with shown("too short"):
        front.post(manager, walk.sid, "set_password", {"user": "mysqldb", "password": "short"})
    front.post(manager, walk.sid, "set_password", {"user": "mysqldb", "password": "classic words"})
    dump = b"CREATE DATABASE blog; USE blog;\nCREATE TABLE posts (id INT PRIMARY KEY);\nINSERT INTO posts VALUES (7);\n"
    front.upload(manager, walk.sid, "load_dump", {"mysqldump_file": alice.file("blog dump.sql", dump)})
    assert query(address, "SELECT id FROM blog.posts") == [(7,)]
    with shown("Could not upload"):
        front.upload(manager, walk.sid, "load_dump", {"mysqldump_file": alice.file("bad.sql", b"nonsense;")})
    monitor(walk)
    walk.scales("mysql", {"mysql": 9})
    balanced(walk)
    walk.ends()


def monitor(walk: Walk) -> None:
    """The charts and the table, as they are fetched every second."""
    front, manager = walk.front, walk.service.manager
    first = php_pages.load(front.get(manager, walk.sid, "getMeanLoad"))
    assert all(new >= old for new, old in zip(php_pages.load(front.get(manager, walk.sid, "getMeanLoad"))[1:], first[1:], strict=True))
    machines = php_pages.ganglia(front.get(manager, walk.sid, "getGangliaParams"))
    ids = walk.service.node_ids
    addresses = {php_pages.node(front.get(manager, walk.sid, "get_node_info", {"serviceNodeId": one}), one)["ip"] for one in ids}
    assert set(machines) == addresses
    for figures in machines.values():
        assert 0 <= figures["cpu_idle"] <= 100
        assert 0 < figures["mem_free"] <= figures["mem_total"]
        assert 0 < figures["disk_free"] <= figures["disk_total"]


def balanced(walk: Walk) -> None:
    """With a load balancer the page names another address; the node goes away again by its own, as the page's old button did."""
    grown = walk.browser.add_nodes(walk.aid, walk.sid, {"glb": 1})
    assert query(walk.browser.access(grown), "SELECT id FROM blog.posts") == [(7,)]
    assert walk.browser.access(walk.page("RUNNING")).endswith(":8010")
    (balancer,) = grown.nodes["glb"]
    ip = php_pages.node(walk.front.get(grown.manager, walk.sid, "get_node_info", {"serviceNodeId": balancer}), balancer)["ip"]
    walk.browser.change(
        walk.aid, walk.sid, "ADAPTING", lambda manager: walk.front.get(manager, walk.sid, "remove_specific_nodes", {"ip": ip})
    )
    assert walk.counts() == {"mysql": 1, "glb": 0}


def scripts() -> bytes:
    """Scripts of which one runs until it is interrupted."""
    texts = {name: f"echo {name} $1" for name in php_pages.SCRIPTS}
    texts["run.sh"] = "echo $$ > $VM_ROOT/tmp/run.new\nmv $VM_ROOT/tmp/run.new $VM_ROOT/tmp/run.pid\nexec sleep 600"
    texts["interrupt.sh"] = "until [ -e $VM_ROOT/tmp/run.pid ]; do sleep 0.1; done\nkill $(cat $VM_ROOT/tmp/run.pid)"
    return tarred({name: f"#!/bin/bash\n{text}\n" for name, text in texts.items()})


def test_a_generic_service(alice: php_browser.Browser, aid: int, key: str) -> None:
    walk = Walk(alice, aid, "generic")
    walk.prepares("v0.tar.gz", scripts())
    walk.begins()
    walk.code("v1.tar.gz", scripts(), key)
    assert status(walk, "run.sh") == {"NEVER STARTED"}
    execute(walk, "run")
    assert status(walk, "run.sh") == {"RUNNING"}
    with shown("."):
        execute(walk, "cleanup")
    execute(walk, "interrupt")
    platforms.until(lambda: "RUNNING" not in status(walk, "run.sh") | status(walk, "interrupt.sh"), "run.sh was interrupted")
    execute(walk, "cleanup")
    platforms.until(lambda: status(walk, "cleanup.sh") == {"STOPPED (return code 0)"}, "cleanup.sh ended")
    walk.scales("node", {"master": 1}, OTHER)
    disks(walk)
    walk.ends()


def execute(walk: Walk, command: str) -> None:
    walk.front.post(walk.service.manager, walk.sid, "execute_script", {"command": command, "parameters": "one 'two drei'"})


def status(walk: Walk, script: str) -> set[str]:
    """The page refreshes this every second, until no script is RUNNING."""
    service = walk.service
    found = php_pages.script_status(walk.front.get(service.manager, walk.sid, "get_script_status"), service.node_ids)
    return {scripts[script] for scripts in found.values()}


def disks(walk: Walk) -> None:
    service = walk.service
    (agent,) = service.node_ids

    def listed() -> dict[str, dict[str, Any]]:
        return php_pages.volumes(walk.front.post(service.manager, 0, "list_volumes", {"service_id": walk.sid}))

    asked = {"volumeName": "data-1", "volumeSize": 8, "agentId": agent}
    walk.browser.change(walk.aid, walk.sid, "ADAPTING", lambda manager: walk.front.post(manager, 0, "create_volume", asked))
    assert {name: (one["vol_size"], one["vm_id"]) for name, one in listed().items()} == {"data-1": (8, agent)}
    with shown("data-1"):
        walk.front.post(service.manager, 0, "create_volume", asked)
    walk.page("RUNNING")
    drop = {"volumeName": "data-1"}
    walk.browser.change(walk.aid, walk.sid, "ADAPTING", lambda manager: walk.front.post(manager, 0, "delete_volume", drop))
    assert listed() == {}


# --- trouble -----------------------------------------------------------------------------------------------------------------------------


def test_a_service_that_failed_to_start_is_shown_as_it_was(platform: platforms.Platform, alice: php_browser.Browser, aid: int) -> None:
    walk = Walk(alice, aid, "php")
    platform.cloud_faults(fail_create=1)
    try:
        asked = {"service_id": walk.sid, "cloud": "default"}
        alice.change(aid, walk.sid, "PROLOGUE", lambda manager: alice.front.post(manager, 0, "start_service", asked), "INIT")
    finally:
        platform.cloud_faults()
    walk.page("INIT")
    alice.remove_service(aid, walk.sid)


def test_an_application_that_failed_to_start_can_be_started_again(platform: platforms.Platform, alice: php_browser.Browser) -> None:
    aid = alice.create_application("second try")
    platform.cloud_faults(fail_create=1)
    try:
        assert alice.front.ask(f"/startapp/{aid}/default") == {}
        alice.wait_for_application(aid, "ERROR")
        assert alice.application_page(aid)["manager"] == ""
        assert alice.check_services(aid) == {}
    finally:
        platform.cloud_faults()
    alice.stop_application(aid)
    alice.start_application(aid)
    alice.delete_application(aid)


@contextlib.contextmanager
def not_heard(platform: platforms.Platform, aid: int) -> Iterator[None]:
    """While this lasts, the Director refuses what the application's manager asks for."""

    def revoked(when: str | None) -> None:
        with contextlib.closing(sqlite3.connect(platform.state / "director.db", timeout=30)) as database, database:
            database.execute("UPDATE certificate SET revoked = ? WHERE role = 'manager' AND aid = ?", (when, aid))

    revoked("2026-01-01 00:00:00.000000")
    try:
        yield
    finally:
        revoked(None)


def test_a_service_in_error_has_a_row_and_a_page(platform: platforms.Platform, alice: php_browser.Browser, aid: int) -> None:
    walk = Walk(alice, aid, "php")
    walk.begins()
    with not_heard(platform, aid):
        asked = {"service_id": walk.sid}
        alice.change(aid, walk.sid, "EPILOGUE", lambda manager: alice.front.post(manager, 0, "stop_service", asked), "ERROR")
    walk.page("ERROR")
    with shown("Wrong service state"):
        alice.front.post(walk.service.manager, 0, "start_service", {"service_id": walk.sid, "cloud": "default"})
    alice.stop_service(aid, walk.sid)
    walk.page("STOPPED")
    alice.remove_service(aid, walk.sid)


def test_a_manager_that_is_away_leaves_rows_and_pages_that_say_so(platform: platforms.Platform, alice: php_browser.Browser) -> None:
    aid = alice.create_application("to be lost")
    alice.start_application(aid)
    sid = alice.add_service(aid, "php")
    manager = alice.applications()[aid]["manager"]
    consistency.kill_vm(platform, manager)
    row = alice.check_services(aid)[sid]
    assert (row.reachable, row.state, row.polling) == (False, "INIT", True)
    with pytest.raises(php_frontend.CurlError):
        alice.service_page(aid, sid)
    platforms.until(lambda: alice.application_page(aid)["status"] == "ERROR", "the loss is noticed")
    assert alice.application_page(aid)["manager"], "the box of the manager"
    alice.stop_application(aid)
    alice.delete_application(aid)


# --- the front-end's certificate ---------------------------------------------------------------------------------------------------------


def refusal(certs: pathlib.Path, manager: str) -> str:
    """What a manager says to the front-end; libcurl throws it away."""
    call = wire.call("GET", 0, "get_service_info")
    return wire.exchange((manager, tenants.MANAGER_PORT), wire.of_directory(certs), call).text


def trust(platform: platforms.Platform, answer: str) -> None:
    """Change the key and start the Director again."""
    lines = [line for line in platform.config.read_text().splitlines() if not line.startswith("TRUST_FRONTEND")]
    lines.insert(lines.index("[director]") + 1, f"TRUST_FRONTEND = {answer}")
    platform.config.write_text("\n".join(lines) + "\n")
    platform.stop()
    platform.start()


def test_managers_honour_the_front_ends_certificate_only_where_the_operator_says_so(
    platform: platforms.Platform, certs: pathlib.Path, alice: php_browser.Browser
) -> None:
    aid = alice.create_application("without trust")
    trust(platform, "no")
    try:
        alice.start_application(aid)
        sid = alice.front.ask("/add/php", {"appid": aid})["service"]["sid"]
        manager = alice.applications()[aid]["manager"]
        with pytest.raises(php_frontend.CurlError, match="403"):
            alice.front.get(manager, sid, "get_service_info")
        said = refusal(certs, manager)
        assert "may not be called by frontend" in said
        assert "TRUST_FRONTEND" in said, "what to do about it"
        assert not alice.check_services(aid)[sid].reachable
        alice.stop_application(aid)
    finally:
        trust(platform, "yes")
    alice.start_application(aid)
    manager = alice.applications()[aid]["manager"]
    assert alice.front.get(manager, 0, "get_service_info")["state"] == "RUNNING"
    alice.delete_application(aid)


# --- all of it ---------------------------------------------------------------------------------------------------------------------------


def test_every_request_of_the_front_end_was_replayed(replayed: set[str], request: pytest.FixtureRequest) -> None:
    ours = {item.function.__name__ for item in request.session.items if isinstance(item, pytest.Function) and item.path == request.path}
    there = {name for name in vars(request.module) if name.startswith("test_")}
    if ours != there:
        pytest.skip("counts only when all tests of this file run")
    assert php_frontend.REQUESTS - replayed == set(php_frontend.NOT_REPLAYED)
