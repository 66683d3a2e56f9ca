"""Releases in Java on a real Tomcat, and the sessions they share."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import http.client
import os
import signal
import time
from collections.abc import Iterator

import pytest
from tests.support import backends, servlets

from conpaas.core import errors, misc
from conpaas.services.webservers.workload import redis, tomcat

ONE, TWO = "127.62.3.1", "127.62.3.2"
ODD = """it's "quoted" $HOME ${HOME} ; # % \\ \\n \\\\ `id` äöü 漢字 = & ! end """


@pytest.fixture
def node() -> Iterator[backends.Node]:
    with backends.node(ONE) as made:
        made.sessions.use_stores(backends.SECRET, [made.sessions.start_store(backends.SECRET)])
        yield made


@pytest.fixture
def nodes() -> Iterator[tuple[backends.Node, backends.Node]]:
    """Two nodes, each with a backend and a store."""
    with backends.node(ONE) as one, backends.node(TWO) as two, concurrent.futures.ThreadPoolExecutor() as pool:
        stores = [node.sessions.start_store(backends.SECRET) for node in (one, two)]
        for node in (one, two):
            node.sessions.use_stores(backends.SECRET, stores)
            node.stage("code-a", servlets.application())
        list(pool.map(lambda node: node.start(1, "code-a", kind="java"), (one, two)))
        yield one, two


def wait_for_line(node: backends.Node, text: str) -> None:
    """Wait until the newest release's Tomcat has said so: its output reaches the log through a pipe, after the answer or before."""
    log = node.backend.log_files()["catalina.out"]
    misc.wait_until(lambda: text in log.read_text(), timeout=10, what=f"the line {text!r} in {log.name}")


@dataclasses.dataclass
class Browser:
    cookie: str = ""
    status: int = 0

    def get(self, node: backends.Node, path: str, port: int = 9000, **headers: str) -> str:
        connection = http.client.HTTPConnection(node.address, port, timeout=30)
        connection.request(
            "GET", path, headers={"Cookie": self.cookie, **{name.replace("_", "-"): value for name, value in headers.items()}}
        )
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        if answer.headers["Set-Cookie"]:
            self.cookie = answer.headers["Set-Cookie"].partition(";")[0]
        self.status = answer.status
        return body


def kill_store(node: backends.Node) -> None:
    pid = misc.wait_until(lambda: node.supervisor.status("session-store").pid, timeout=10, what="the store")
    os.kill(pid, signal.SIGKILL)


def test_applications_at_the_root_with_pages_servlets_and_wildcards(node: backends.Node) -> None:  # D12
    jsp = '<%@ page session="false" %><%= 6 * 7 %>'
    node.stage("code-a", servlets.application(**{"index.jsp": jsp, "sub/page.jsp": jsp}))
    began = time.monotonic()
    assert node.start(1, "code-a", kind="java", environment={"ODD": ODD}) == 9000
    assert time.monotonic() - began < 15
    browser = Browser()
    assert browser.get(node, "/index.html") == "welcome"
    assert browser.get(node, "/sub/page.jsp") == "42"
    assert browser.get(node, "/page/deep/er") == "/page /deep/er"
    assert browser.get(node, "/any/thing.do") == "/any/thing.do null"
    odd, home, names = browser.get(node, "/page/env").split("|")
    assert (odd, home) == (ODD, "null")
    assert names == "[LANG, ODD, PATH]" or "PWD" in names
    assert browser.get(node, "/page/client", X_Real_IP="192.0.2.9", X_Forwarded_Proto="https") == "192.0.2.9 https true"
    assert browser.cookie == ""
    assert (browser.get(node, "/nothing"), browser.status)[1] == 404
    assert "Tomcat" not in (text := browser.get(node, "/page/fail")), text
    assert "on purpose" not in text
    assert browser.status == 500
    assert (browser.get(node, "/WEB-INF/web.xml"), browser.status)[1] == 404
    wait_for_line(node, "on purpose")
    misc.wait_until(lambda: "GET /page/fail" in node.backend.log_files()["access_log.txt"].read_text(), timeout=40, what="the log")


def test_an_application_knows_the_address_that_a_visitor_used(node: backends.Node) -> None:
    node.stage("code-a", servlets.application())
    node.start(1, "code-a", kind="java")
    browser = Browser()

    def address(scheme: str, host: str, port: int) -> str:
        return browser.get(node, "/page/url", Host=host, X_Forwarded_Proto=scheme, X_Forwarded_Port=str(port))

    assert address("http", "shop.example", 80) == "http://shop.example/page/url"
    assert address("http", "shop.example:8000", 8000) == "http://shop.example:8000/page/url"
    assert address("https", "shop.example", 443) == "https://shop.example/page/url"
    assert address("https", "shop.example:8443", 8443) == "https://shop.example:8443/page/url"


def test_what_browsers_send_and_nginx_hands_on_is_understood(node: backends.Node) -> None:
    node.stage("code-a", servlets.application())
    node.start(1, "code-a", kind="java")
    many_cookies = Browser("; ".join(f"cookie{number}={'x' * 4000}" for number in range(6)))
    assert many_cookies.get(node, "/page/a") == "/page /a"
    assert Browser().get(node, "/page/a?filter[name]={a|b}^`\\") == "/page /a", "browsers do not encode these"


def test_an_answer_to_a_body_that_the_application_does_not_read_arrives(node: backends.Node) -> None:
    node.stage("code-a", servlets.application())
    node.start(1, "code-a", kind="java", upload_size=8)
    connection = http.client.HTTPConnection(node.address, 9000, timeout=30)
    for _ in range(2):  # on the same connection, as a proxy keeps it
        connection.request("POST", "/page/unread", b"x" * 7_000_000)
        answer = connection.getresponse()
        assert (answer.status, answer.read(), answer.headers["Connection"]) == (200, b"/page /unread", None)
    connection.close()


def test_an_application_that_does_not_start_is_an_error_with_its_reason(node: backends.Node) -> None:
    node.stage("code-b", servlets.application(more=servlets.LISTENER))
    with pytest.raises(errors.OperationFailed, match="the database is not configured"):
        node.start(1, "code-b", kind="java")
    assert node.backend.state()["releases"] == []
    node.stage("code-c", {"WEB-INF/web.xml": "<web-app><servlet></web-app>"})
    with pytest.raises(errors.OperationFailed, match=r"web\.xml"):
        node.start(2, "code-c", kind="java")
    with pytest.raises(errors.OperationFailed, match=r"(?i)heap"):
        node.stage("code-d", {"index.html": ""})
        node.start(3, "code-d", kind="java", environment={"JAVA_TOOL_OPTIONS": "-Xms1g"}, jvm_memory=32)
    assert node.backend.state()["releases"] == []


def test_a_release_ends_after_its_last_request_and_the_next_starts_faster(node: backends.Node) -> None:  # D12
    node.stage("code-a", servlets.application())
    node.start(1, "code-a", kind="java")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(Browser().get, node, "/page/slow")
        misc.wait_until((node.code.directory / "code-a" / "began").exists, timeout=10, what="the request")
        second = node.start(2, "code-a", kind="java")
        node.backend.keep([2])
        assert answer.result() == "to the end"
    misc.wait_until(lambda: len(node.backend.state()["releases"]) == 1, timeout=20, what="the end of the release")
    assert node.backend.state()["port"] == second == 9001
    assert list((node.paths.cache / "java" / "shared").glob("classes-*.jsa"))
    assert node.start(3, "code-a", kind="java") == 9000
    assert "SharedArchiveFile" in (node.paths.cache / "java" / "tomcat.3" / "launch").read_text()
    assert node.backend.errors(3) == []


def test_a_jvm_that_is_killed_comes_back(node: backends.Node) -> None:
    node.stage("code-a", servlets.application())
    node.start(1, "code-a", kind="java")
    browser = Browser()
    assert browser.get(node, "/page/count") == "1"
    pid = node.supervisor.status("tomcat.1").pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    node.wait_for_another("tomcat.1", pid)
    misc.wait_until(lambda: tomcat.health(ONE, 9000) == "UP", timeout=30, what="an answer")
    assert browser.get(node, "/page/count") == "2"


def test_resources_of_the_application_are_taken_over_and_the_rest_is_not(node: backends.Node) -> None:
    context = '<Context path="/x"><Parameter name="p" value="${ODD}"/><Manager className="no.such.Manager"/></Context>'
    jsp = '<%@ page session="false" %><%= application.getInitParameter("p") %>'
    node.stage("code-a", servlets.application(**{"META-INF/context.xml": context, "p.jsp": jsp}))
    node.start(1, "code-a", kind="java", environment={"ODD": "from the environment"})
    assert Browser().get(node, "/p.jsp") == "from the environment"
    bomb = '<!DOCTYPE x [<!ENTITY a "b">]><Context>&a;</Context>'
    node.stage("code-b", servlets.application(**{"META-INF/context.xml": bomb}))
    with pytest.raises(errors.InvalidArgument, match="document type"):
        node.start(2, "code-b", kind="java")


def test_all_backends_know_a_session_and_either_store_may_be_lost(nodes: tuple[backends.Node, backends.Node]) -> None:  # D12
    one, two = nodes
    browser = Browser()
    assert [browser.get(node, "/page/count") for node in (*nodes, *nodes)] == ["1", "2", "3", "4"]
    assert [browser.get(node, "/page/cart") for node in (*nodes, *nodes)] == ["1", "2", "3", "4"]
    one.supervisor.stop("session-store")
    assert [browser.get(node, "/page/count") for node in nodes] == ["5", "6"]
    one.supervisor.restart("session-store")

    def used_again() -> bool:
        browser.get(two, "/page/cart")
        browser.get(one, "/page/cart")
        return newest(one) == newest(two) != []

    misc.wait_until(used_again, timeout=10, what="the store is used again")
    two.supervisor.stop("session-store")
    assert [browser.get(node, "/page/count") for node in nodes] == ["7", "8"]


def newest(node: backends.Node) -> list[bytes]:
    try:
        with redis.Client(node.address, 6379, backends.SECRET) as client:
            return [client.call("GET", key) for key in sorted(client.call("KEYS", "s:*"))]
    except OSError:
        return []


def keys(node: backends.Node, pattern: str) -> list[bytes]:
    with contextlib.suppress(OSError, errors.OperationFailed), redis.Client(node.address, 6379, backends.SECRET) as client:
        return list(client.call("KEYS", pattern))
    return []


def test_requests_with_one_session_lose_nothing(nodes: tuple[backends.Node, backends.Node]) -> None:
    browser = Browser()
    browser.get(nodes[0], "/page/count")

    def one(number: int) -> str:
        if number == 100:
            kill_store(nodes[1])
        return Browser(browser.cookie).get(nodes[number % 2], "/page/count" if number % 4 < 3 else "/page/cart")

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(one, range(200)))
    counted = sorted(int(answer) for number, answer in enumerate(answers) if number % 4 < 3)
    assert counted == list(range(2, 152))


def test_a_lock_ends_with_its_store(nodes: tuple[backends.Node, backends.Node]) -> None:
    """A request that ends while a store is away cannot let go of its lock there; nobody waits for it when the store is back."""
    browser = Browser()
    browser.get(nodes[0], "/page/count")
    code = nodes[0].code.directory / "code-a"
    with concurrent.futures.ThreadPoolExecutor() as pool:
        holding = pool.submit(Browser(browser.cookie).get, nodes[0], "/page/hold")
        misc.wait_until((code / "held").exists, timeout=10, what="the request")
        nodes[1].supervisor.stop("session-store")
        (code / "go").touch()
        assert holding.result() == "held"
    nodes[1].supervisor.restart("session-store")
    misc.wait_until(lambda: keys(nodes[1], "s:*"), timeout=10, what="the store")
    assert keys(nodes[1], "l:*") == []


def test_sessions_end_and_get_new_ids(nodes: tuple[backends.Node, backends.Node]) -> None:
    one, two = nodes
    browser = Browser()
    browser.get(one, "/page/count")
    old = browser.cookie
    new = browser.get(two, "/page/renew")
    assert browser.cookie == f"JSESSIONID={new}" != old
    assert browser.get(one, "/page/count") == "2"
    assert Browser(old).get(one, "/page/show") == "nothing"
    assert browser.get(two, "/page/out") == "out"
    assert browser.get(one, "/page/show") == "nothing"
    foreign = Browser("JSESSIONID=CHOSENBYSOMEBODYELSE")
    foreign.get(one, "/page/count")
    assert foreign.cookie != "JSESSIONID=CHOSENBYSOMEBODYELSE"
    assert foreign.get(two, "/page/thing") == "kept"
    wait_for_line(two, "thing of java.lang.Object is lost")
    assert foreign.get(one, "/page/show") == "1"


def test_without_any_store_pages_are_served(nodes: tuple[backends.Node, backends.Node]) -> None:
    browser = Browser()
    browser.get(nodes[0], "/page/count")
    for node in nodes:
        node.supervisor.stop("session-store")
    assert Browser(browser.cookie).get(nodes[0], "/page/count") == "1"
    wait_for_line(nodes[0], "no session store answers")
