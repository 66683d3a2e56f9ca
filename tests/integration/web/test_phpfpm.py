"""Releases in PHP on a real php-fpm."""

from __future__ import annotations

import concurrent.futures
import json
import os
import pathlib
import pwd
import re
import signal
import socket
from collections.abc import Iterator

import pytest
from tests.support import backends

from conpaas.core import errors, misc
from conpaas.services.webservers.agent import beside
from conpaas.services.webservers.workload import phpfpm

ADDRESS = "127.62.1.1"
ODD = """it's "quoted" $HOME ${HOME} ; # % \\ \\n \\\\ `id` äöü 漢字 = & ! end """


@pytest.fixture
def node() -> Iterator[backends.Node]:
    with backends.node(ADDRESS) as made:
        yield made


def php(text: str) -> str:
    return f"<?php {text}"


def test_releases_run_beside_each_other_each_with_its_code_and_settings(node: backends.Node) -> None:
    node.stage("code-a", {"index.php": php("echo 'a ', ini_get('memory_limit'), getenv('COLOUR');")})
    node.stage("code-b", {"index.php": php("echo 'b ', ini_get('memory_limit'), getenv('COLOUR');")})
    first = node.start(1, "code-a", phpconf={"memory_limit": "64M"}, environment={"COLOUR": "red"})
    second = node.start(2, "code-b", phpconf={"memory_limit": "96M"})
    assert (first, second) == (9000, 9001)
    assert node.ask(first, "code-a").body == b"a 64Mred"
    assert node.ask(second, "code-b").body == b"b 96M"
    assert node.start(1, "code-a", phpconf={"memory_limit": "64M"}, environment={"COLOUR": "red"}) == first
    state = node.backend.state()
    assert (state["state"], state["port"]) == ("RUNNING", second)
    assert [(one["release"], one["port"], one["codeVersionId"]) for one in state["releases"]] == [(1, 9000, "code-a"), (2, 9001, "code-b")]


def test_a_release_does_not_change(node: backends.Node) -> None:
    node.stage("code-a", {"index.php": php("echo 1;")})
    node.start(1, "code-a")
    with pytest.raises(errors.WrongState, match="needs a new release"):
        node.start(1, "code-a", max_time=30)


def test_code_that_is_not_there_is_told(node: backends.Node) -> None:
    with pytest.raises(errors.NotFound, match="code-x is not on this node"):
        node.start(1, "code-x")
    node.stage("code-a", {"index.php": ""})
    with pytest.raises(errors.NotFound, match="has no directory 'public'"):
        node.start(1, "code-a", document_root="public")
    assert node.backend.state()["releases"] == []


def test_a_release_ends_after_its_last_request(node: backends.Node) -> None:
    node.stage("code-a", {"index.php": php("file_put_contents(__DIR__ . '/began', ''); sleep(2); echo 'to the end';")})
    port = node.start(1, "code-a")
    began = node.code.directory / "code-a" / "began"
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(node.ask, port, "code-a")
        misc.wait_until(began.exists, timeout=10, what="the request")
        if (agent := os.fork()) == 0:  # an agent that is killed at once
            node.backend.keep([])
            os._exit(0)
        os.waitpid(agent, 0)
        again = node.restarted()
        assert again.backend.state()["releases"][0]["state"] == "ENDING"
        again.backend.resume()
        assert answer.result().body == b"to the end"
    misc.wait_until(lambda: not again.backend.state()["releases"], timeout=10, what="the end of the release")
    assert again.supervisor.list() in ([], ["logrotate"])
    with pytest.raises(OSError):
        socket.create_connection((ADDRESS, port), timeout=1)


def test_a_release_may_come_back_while_it_ends(node: backends.Node) -> None:
    node.stage("code-a", {"index.php": php("if ($_SERVER['QUERY_STRING']) { touch(__DIR__ . '/began'); sleep(3); } echo 'done';")})
    port = node.start(1, "code-a")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        slow = pool.submit(node.ask, port, "code-a", QUERY_STRING="slow")
        misc.wait_until((node.code.directory / "code-a" / "began").exists, timeout=10, what="the request")
        node.backend.keep([])
        other = node.start(1, "code-a")
        assert other != port
        assert node.ask(other, "code-a").body == b"done"
        assert slow.result().body == b"done"


def test_environment_arrives_as_it_is(node: backends.Node) -> None:
    node.stage("code-a", {"index.php": php("echo json_encode([getenv('ODD'), $_SERVER['ODD'], getenv('EMPTY')]);")})
    port = node.start(1, "code-a", environment={"ODD": ODD, "EMPTY": "", "LONG": "x" * 8192})
    assert json.loads(node.ask(port, "code-a").body) == [ODD, ODD, ""]


def test_secrets_are_not_for_other_users(node: backends.Node) -> None:
    node.stage("code-a", {"index.php": php("echo 1;")})
    node.start(1, "code-a", environment={"SECRET": "sesame-open"})
    readable = [path for path in node.root.rglob("*") if path.is_file() and path.name[0] != "." and path.stat().st_mode & 0o044]
    assert not [path for path in readable if b"sesame-open" in path.read_bytes()]


def test_the_web_user_serves_on_the_address_of_the_node_only(node: backends.Node) -> None:  # D4
    node.stage("code-a", {"index.php": php("echo posix_geteuid(), ' ', is_writable(__DIR__) ? 'rw' : 'ro';")})
    port = node.start(1, "code-a")
    uid = os.geteuid() if node.user is None else pwd.getpwnam(node.user).pw_uid
    assert node.ask(port, "code-a").body == f"{uid} rw".encode()
    with pytest.raises(OSError):
        socket.create_connection(("127.62.1.2", port), timeout=1)


def test_a_node_whose_address_belongs_to_a_router_serves_on_its_inner_one() -> None:
    """As on EC2, or with the floating addresses of OpenStack: the world knows an address that the machine itself does not have."""
    with backends.node("192.0.2.77", "127.66.5.9") as node:
        node.stage("code-a", {"index.php": php("echo getenv('MY_IP');")})
        assert node.ask(node.start(1, "code-a"), "code-a").body == b"192.0.2.77"
        store = node.sessions.start_store(backends.SECRET)
        assert store["ip"] == "192.0.2.77", "the others come by way of the router"
        socket.create_connection(("127.66.5.9", store["port"]), timeout=1).close()


def test_a_release_listens_on_a_socket_for_its_own_node_until_it_ends(node: backends.Node) -> None:
    node.stage("code-a", {"index.php": php("echo 'here';")})
    path = beside.socket(node.paths, node.start(1, "code-a"))
    assert path is not None
    assert path.is_socket()
    assert path.parent.stat().st_mode & 0o077 == 0, "it is for the web user alone"
    assert _takes_connections(path)
    master = node.supervisor.status("php-fpm.1").pid
    assert master is not None
    os.kill(master, signal.SIGKILL)
    misc.wait_until(lambda: node.supervisor.status("php-fpm.1").pid not in (None, master), timeout=10, what="another master")
    misc.wait_until(lambda: _takes_connections(path), timeout=10, what="its listening")
    node.backend.keep([])
    misc.wait_until(lambda: not node.backend.state()["releases"], timeout=10, what="the end of the release")
    assert not path.exists()


def _takes_connections(path: pathlib.Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0


def test_where_directories_lie_too_deep_for_a_socket_a_release_does_without(node: backends.Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "_LONGEST", 10)
    node.stage("code-a", {"index.php": php("echo 'here';")})
    assert node.ask(node.start(1, "code-a"), "code-a").body == b"here"


def test_fatal_errors_of_a_release_are_told(node: backends.Node) -> None:
    node.stage("code-a", {"index.php": "<?php\n\nthis is not php;\n", "old.php": php("nothing_like_this();")})
    first = node.start(1, "code-a")
    assert node.backend.errors(1) == []
    assert node.ask(first, "code-a", "old.php").status == 500
    second = node.start(2, "code-a", phpconf={"display_errors": "On"})
    for _ in range(3):
        node.ask(second, "code-a")
    assert node.backend.errors(1) == ["PHP Fatal error: Uncaught Error: Call to undefined function nothing_like_this() in old.php:1"]
    told = node.backend.errors(2)
    assert len(told) == 1
    assert told[0].startswith("PHP Parse error: syntax error, unexpected ")
    assert told[0].endswith(" in index.php on line 3")
    log = node.backend.log_files()["php-error.log"].read_text()
    assert "nothing_like_this" in log, "the log goes on from release to release"
    with pytest.raises(errors.NotFound):
        node.backend.errors(3)


def test_a_setting_that_php_would_read_as_another_is_refused(node: backends.Node) -> None:
    node.stage("code-a", {"index.php": ""})
    for value in ('64M"\nauto_prepend_file="/etc/passwd', "64M;", "64M\n", '"', "On"):
        with pytest.raises(errors.InvalidArgument, match="memory_limit"):
            node.start(1, "code-a", phpconf={"memory_limit": value})
    with pytest.raises(errors.InvalidArgument, match="auto_prepend_file"):
        node.start(1, "code-a", phpconf={"auto_prepend_file": "x"})
    assert node.backend.state()["releases"] == []


def test_a_master_that_is_killed_comes_back(node: backends.Node) -> None:
    node.stage("code-a", {"index.php": php("echo 'here';")})
    port = node.start(1, "code-a")
    pid = node.supervisor.status("php-fpm.1").pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    node.wait_for_another("php-fpm.1", pid)
    misc.wait_until(lambda: phpfpm.pings(ADDRESS, port), timeout=10, what="an answer")
    assert node.ask(port, "code-a").body == b"here"


def test_a_script_runs_in_its_directory_and_may_take_its_time_to_read(node: backends.Node) -> None:
    node.stage("code-a", {"index.php": php("echo getcwd(), ini_get('max_input_time'), ini_get('max_execution_time');")})
    port = node.start(1, "code-a")
    assert node.ask(port, "code-a").body.decode() == f"{node.code.directory / 'code-a'}-130"


def test_a_port_that_somebody_else_has_is_left_to_them(node: backends.Node) -> None:
    node.stage("code-a", {"index.php": php("echo 1;")})
    with socket.create_server((ADDRESS, 9000)):
        assert node.start(1, "code-a") == 9001
    assert node.restarted().start(2, "code-a") == 9000


def test_a_failed_start_leaves_nothing_and_says_why(node: backends.Node) -> None:
    node.stage("code-a", {"index.php": php("echo 1;")})
    node.backend._kinds["php"]._fpm._program = "/bin/false"  # type: ignore[attr-defined]
    with pytest.raises(errors.OperationFailed, match="refuses the configuration of php-fpm"):
        node.start(1, "code-a")
    assert node.backend.state()["releases"] == []
    assert node.supervisor.list() in ([], ["logrotate"])


def test_requests_are_logged_with_time_and_duration(node: backends.Node) -> None:
    node.stage("code-a", {"index.php": php("echo 1;")})
    port = node.start(1, "code-a")
    node.ask(port, "code-a", QUERY_STRING="a=b")
    log = node.backend.log_files()["fpm-access.log"]
    line = misc.wait_until(log.read_text, timeout=5, what="the line").strip()
    assert re.match(r"192\.0\.2\.7 -  \d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000 ", line)
    assert '"GET /index.php?a=b" 200' in line
    assert float(line.split()[-1]) < 1e4


def test_where_no_other_user_reaches_the_node_its_own_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conpaas.services.webservers.agent.web_user.choose", lambda *_: None)
    with backends.node(ADDRESS) as node:
        node.root.chmod(0o700)
        node.stage("code-a", {"index.php": php("session_start(); echo posix_geteuid(), getenv('X');")})
        node.sessions.use_stores(backends.SECRET, [node.sessions.start_store(backends.SECRET)])
        port = node.start(1, "code-a", environment={"X": "y"})
        assert node.ask(port, "code-a").body == f"{os.geteuid()}y".encode()
        node.backend.keep([])
        misc.wait_until(lambda: not node.backend.state()["releases"], timeout=10, what="the end of the release")


def test_a_site_cannot_lend_itself_the_rights_of_the_agent(node: backends.Node) -> None:
    """The directory of its logs is the site's own, and so is what it puts there in the place of a log."""
    node.stage("code-a", {"index.php": php("echo 1;")})
    node.start(1, "code-a")
    private = node.root / "private"
    private.write_text("the agent's own key")
    private.chmod(0o600)
    owner = private.stat().st_uid
    logs = node.paths.cache / "php" / "log"
    (logs / "fpm-access.log").unlink()
    (logs / "fpm-access.log").symlink_to(private)
    (logs / "zz.php-error.log").symlink_to(private)
    (logs / "php-fpm.2.php-error.log").symlink_to(node.root / "made")
    os.utime(private, (4e9, 4e9))  # it looks like the newest of all logs
    node.start(2, "code-a", max_time=30)
    assert (private.stat().st_uid, private.stat().st_mode & 0o777) == (owner, 0o600)
    assert private.read_text() == "the agent's own key"
    assert not (node.root / "made").exists()
    assert all("key" not in path.read_text() for path in logs.iterdir() if not path.is_symlink())
