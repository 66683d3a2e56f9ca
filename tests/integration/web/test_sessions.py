"""Shared sessions on real stores, from PHP as applications use it."""

from __future__ import annotations

import concurrent.futures
import os
import re
import signal
from collections.abc import Iterator

import pytest
from tests.support import backends

from conpaas.core import errors, misc
from conpaas.services.webservers.workload import redis

ONE, TWO = "127.62.2.1", "127.62.2.2"

CODE = {
    # D26: nothing can be put before these first words
    "count.php": "<?php declare(strict_types=1); namespace App; session_start();"
    " $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1; echo $_SESSION['n'];",
    "show.php": "<?php session_start(['read_and_close' => true]); echo $_SESSION['n'] ?? 'nothing';",
    "slow.php": "<?php session_start(); touch(__DIR__ . '/began'); usleep(700000); $_SESSION['n']++; echo 'slow';",
    "hold.php": "<?php session_start(); touch(__DIR__ . '/held'); while (!file_exists(__DIR__ . '/go')) { usleep(5000); clearstatcache(); }"
    " $_SESSION['n']++; echo 'held';",
    "untouched.php": "<?php session_start(); echo $_SESSION['n'] ?? 'nothing';",
    "out.php": "<?php session_start(); session_destroy(); echo 'out';",
    "renew.php": "<?php session_start(); session_regenerate_id(true); echo session_id();",
    "ends.php": "<?php class Held { public $state = 'kept'; function __destruct() { $this->state = 'gone'; } }"
    " register_shutdown_function(function () { $_SESSION['late'] = 'late'; }); session_start();"
    " echo $_SESSION['held']->state ?? 'none', ' ', $_SESSION['late'] ?? 'none'; $_SESSION['held'] = new Held();",
    "own.php": "<?php ini_set('session.save_handler', 'files'); session_start(); echo ini_get('session.save_handler');",
    "big.php": "<?php session_start(); $_SESSION['n'] = str_repeat('x', 500000); echo 'big';",
}


@pytest.fixture
def nodes() -> Iterator[tuple[backends.Node, backends.Node]]:
    """Two nodes, each with a backend and a store."""
    with backends.node(ONE) as one, backends.node(TWO) as two:
        stores = [node.sessions.start_store(backends.SECRET) for node in (one, two)]
        for node in (one, two):
            node.sessions.use_stores(backends.SECRET, stores)
            node.stage("code-a", CODE)
            node.start(1, "code-a")
        yield one, two


class Browser:
    """Keeps the cookie of a session."""

    def __init__(self, cookie: str = "") -> None:
        self.cookie = cookie
        self.headers = ""

    def get(self, node: backends.Node, script: str) -> str:
        answer = node.ask(9000, "code-a", script, HTTP_COOKIE=self.cookie)
        self.headers = answer.headers
        for value in re.findall(r"Set-Cookie: (PHPSESSID=[^;]+)", answer.headers):
            self.cookie = value
        assert answer.status == 200, answer
        return answer.body.decode()


def end_store(node: backends.Node) -> None:
    node.supervisor.stop("session-store")


def start_store_again(node: backends.Node) -> None:
    node.supervisor.restart("session-store")
    wait_for_store(node)


def wait_for_store(node: backends.Node) -> None:
    store = redis.Store("session-store", node.root, node.address, 6379, backends.SECRET, 64)
    misc.wait_until(lambda: redis.answers(store), timeout=10, what="an answer of the store")


def kill_store(node: backends.Node) -> None:
    pid = misc.wait_until(lambda: node.supervisor.status("session-store").pid, timeout=10, what="the store")
    os.kill(pid, signal.SIGKILL)


def keys(node: backends.Node) -> list[bytes]:
    with redis.Client(node.address, 6379, backends.SECRET) as client:
        return list(client.call("KEYS", "*"))


def newest(node: backends.Node) -> list[bytes]:
    """What a store holds of all sessions."""
    with redis.Client(node.address, 6379, backends.SECRET) as client:
        return [client.call("GET", key) for key in keys(node)]


def test_all_backends_know_a_session(nodes: tuple[backends.Node, backends.Node]) -> None:
    browser = Browser()
    assert [browser.get(node, "count.php") for node in (*nodes, *nodes)] == ["1", "2", "3", "4"]
    assert "HttpOnly" not in browser.headers, "the cookie is set once"
    other = Browser()
    other.get(nodes[0], "count.php")
    assert "HttpOnly; SameSite=Lax" in other.headers
    assert other.cookie != browser.cookie
    assert browser.get(nodes[1], "show.php") == "4"


def test_a_session_survives_the_loss_of_either_store(nodes: tuple[backends.Node, backends.Node]) -> None:
    one, two = nodes
    browser = Browser()
    browser.get(one, "count.php")
    end_store(one)
    assert [browser.get(node, "count.php") for node in nodes] == ["2", "3"]
    start_store_again(one)
    misc.wait_until(lambda: browser.get(one, "count.php") and newest(one) == newest(two), timeout=10, what="the store is used again")
    last = int(browser.get(two, "untouched.php"))
    end_store(two)
    assert browser.get(two, "count.php") == str(last + 1), "the store that came back has the newest"


def test_a_store_that_is_killed_loses_nothing_for_the_others(nodes: tuple[backends.Node, backends.Node]) -> None:
    browser = Browser()
    number = 0

    def counted() -> bool:
        """Whether all stores have the newest, after one more request that lost nothing."""
        nonlocal number
        number += 1
        assert browser.get(nodes[number % 2], "count.php") == str(number)
        return newest(nodes[0]) == newest(nodes[1])

    assert counted()
    for killed in (*nodes, *nodes):
        kill_store(killed)
        assert browser.get(nodes[0], "show.php") == str(number)
        wait_for_store(killed)
        misc.wait_until(counted, timeout=10, what="the store is used again")


def test_a_store_that_hangs_is_left_alone(nodes: tuple[backends.Node, backends.Node]) -> None:
    browser = Browser()
    browser.get(nodes[0], "count.php")
    pid = nodes[0].supervisor.status("session-store").pid
    assert pid
    os.kill(pid, signal.SIGSTOP)
    try:
        assert [browser.get(nodes[1], "count.php") for _ in range(3)] == ["2", "3", "4"]
    finally:
        os.kill(pid, signal.SIGCONT)
    # What it was asked meanwhile it does now; a lock that nobody waits for any more must not stay.
    misc.wait_until(lambda: not [key for key in keys(nodes[0]) if key.startswith(b"l:")], timeout=5, what="the end of the locks")
    assert browser.get(nodes[0], "count.php") == "5"


def test_requests_with_one_session_take_turns(nodes: tuple[backends.Node, backends.Node]) -> None:  # D27
    browser = Browser()
    browser.get(nodes[0], "count.php")
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda number: Browser(browser.cookie).get(nodes[number % 2], "count.php"), range(200)))
    assert sorted(map(int, answers)) == list(range(2, 202))


def test_turns_are_kept_while_a_store_dies_and_comes_back(nodes: tuple[backends.Node, backends.Node]) -> None:
    browser = Browser()
    browser.get(nodes[0], "count.php")

    def one(number: int) -> str:
        if number in (60, 140):
            kill_store(nodes[0])
        return Browser(browser.cookie).get(nodes[number % 2], "count.php")

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(one, range(200)))
    assert sorted(map(int, answers)) == list(range(2, 202))


def test_a_lock_ends_with_its_store(nodes: tuple[backends.Node, backends.Node]) -> None:
    """A request that ends while a store is away cannot let go of its lock there; nobody waits for it when the store is back."""
    browser = Browser()
    browser.get(nodes[0], "count.php")
    code = nodes[0].code.directory / "code-a"
    with concurrent.futures.ThreadPoolExecutor() as pool:
        holding = pool.submit(Browser(browser.cookie).get, nodes[0], "hold.php")
        misc.wait_until((code / "held").exists, timeout=10, what="the request")
        end_store(nodes[1])
        (code / "go").touch()
        assert holding.result() == "held"
    start_store_again(nodes[1])
    assert not [key for key in keys(nodes[1]) if key.startswith(b"l:")]


def test_a_reader_waits_for_the_writer(nodes: tuple[backends.Node, backends.Node]) -> None:
    browser = Browser()
    browser.get(nodes[0], "count.php")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        slow = pool.submit(Browser(browser.cookie).get, nodes[0], "slow.php")
        misc.wait_until((nodes[0].code.directory / "code-a" / "began").exists, timeout=5, what="the slow request")
        assert browser.get(nodes[1], "show.php") == "2"
        assert slow.result() == "slow"


def test_sessions_end_as_php_says(nodes: tuple[backends.Node, backends.Node]) -> None:  # D27
    one, two = nodes
    browser = Browser()
    browser.get(one, "count.php")
    with redis.Client(ONE, 6379, backends.SECRET) as client:
        (key,) = keys(one)
        assert 1400 < client.call("TTL", key) <= 1440
        client.call("EXPIRE", key, "100")
        browser.get(two, "untouched.php")
        assert 1400 < client.call("TTL", key) <= 1440, "a request without a change keeps the session alive"
    old = browser.cookie
    new = browser.get(one, "renew.php")
    assert browser.cookie == f"PHPSESSID={new}" != old
    assert browser.get(two, "count.php") == "2"
    assert Browser(old).get(two, "untouched.php") == "nothing"
    browser.get(two, "out.php")
    assert browser.get(one, "untouched.php") == "nothing"


def test_a_destroyed_session_does_not_come_back_with_a_store(nodes: tuple[backends.Node, backends.Node]) -> None:
    one, two = nodes
    browser = Browser()
    browser.get(one, "count.php")
    cookie = browser.cookie
    end_store(one)
    browser.get(two, "out.php")
    start_store_again(one)
    assert Browser(cookie).get(one, "untouched.php") == "nothing"


def test_an_id_that_we_did_not_give_is_not_taken(nodes: tuple[backends.Node, backends.Node]) -> None:
    browser = Browser("PHPSESSID=chosenbysomebodyelse0123456789")
    browser.get(nodes[0], "count.php")
    assert browser.cookie != "PHPSESSID=chosenbysomebodyelse0123456789"


def test_an_application_with_a_handler_of_its_own_has_that_one(nodes: tuple[backends.Node, backends.Node]) -> None:
    assert Browser().get(nodes[0], "own.php") == "files"
    assert keys(nodes[0]) == []


def test_a_session_is_written_after_shutdown_functions_and_before_objects_go(nodes: tuple[backends.Node, backends.Node]) -> None:
    browser = Browser()
    assert [browser.get(node, "ends.php") for node in nodes] == ["none none", "kept late"]


def test_large_sessions_are_kept(nodes: tuple[backends.Node, backends.Node]) -> None:
    browser = Browser()
    browser.get(nodes[0], "big.php")
    assert len(browser.get(nodes[1], "show.php")) == 500_000


def test_without_any_store_pages_are_served_and_the_log_says_it(nodes: tuple[backends.Node, backends.Node]) -> None:
    one, two = nodes
    browser = Browser()
    browser.get(one, "count.php")
    kept = browser.cookie
    for node in nodes:
        end_store(node)
    assert browser.get(one, "count.php") == "1"
    assert "no session store answers" in one.backend.log_files()["php-error.log"].read_text()
    assert browser.cookie == kept
    start_store_again(two)
    misc.wait_until(lambda: browser.get(one, "untouched.php") == "1", timeout=10, what="the store is asked again")
    assert browser.get(one, "count.php") == "2"


def test_a_store_that_is_added_gets_all_sessions(nodes: tuple[backends.Node, backends.Node]) -> None:  # D27
    one, two = nodes
    two.sessions.stop_store()
    for node in nodes:
        node.sessions.use_stores(backends.SECRET, [{"ip": ONE, "port": 6379}])
    browsers = [Browser() for _ in range(30)]
    for browser in browsers:
        browser.get(one, "count.php")
    source = {"ip": ONE, "port": 6379}
    added = two.sessions.start_store(backends.SECRET, source)
    browsers[0].get(one, "count.php")  # knows nothing of the new one yet
    for node in nodes:
        node.sessions.use_stores(backends.SECRET, [added, source])
    browsers[1].get(two, "count.php")
    assert two.sessions.start_store(backends.SECRET, source) == added
    one.sessions.stop_store()
    assert [browser.get(two, "show.php") for browser in browsers] == ["2", "2", *["1"] * 28]


def test_a_store_asks_for_the_secret_and_keeps_what_it_has(nodes: tuple[backends.Node, backends.Node]) -> None:  # D4, D27
    with pytest.raises(errors.OperationFailed, match="WRONGPASS"):
        redis.Client(ONE, 6379, "not-the-secret-of-it")
    with pytest.raises(errors.InvalidArgument):
        nodes[0].sessions.start_store('x" \n requirepass ""')
    browser = Browser()
    browser.get(nodes[0], "count.php")
    nodes[0].supervisor.stop("session-store")
    nodes[0].restarted().sessions.resume()
    wait_for_store(nodes[0])
    assert len(keys(nodes[0])) == 1
    with pytest.raises(OSError):
        redis.Client("127.62.2.3", 6379, backends.SECRET)
