"""A proxy's life: configured, reloaded under load, refused, killed with its agent, rebooted, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import http.server
import os
import pathlib
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from conpaas.core import errors, file, supervisor
from conpaas.services.webservers import spec
from conpaas.services.webservers.agent import backend, beside
from conpaas.services.webservers.workload import nginx

from . import conftest

PAGE = {"index.html": "page", "file.bin": b"x" * 3_000_000}


def java(*servers: spec.Upstream, serial: int = 1, **rest: object) -> spec.ProxyConfig:
    """Everything goes to the backends: what they answer is plain HTTP, which a toy can speak."""
    return conftest.proxy_config(serial, backends=servers, kind="java", document_root="", **rest)  # type: ignore[arg-type]


def web_application(node: conftest.Node) -> None:
    node.write("code-1", {"WEB-INF/web.xml": "<web-app/>"})


def test_it_serves_once_configured_and_says_how(node: conftest.Node):
    node.write("code-1", PAGE)
    role = node.proxy()
    assert role.state() == {
        "state": "INIT", "port": None, "tls_port": None, "serial": None, "oldest_serial": None, "code_version": None, "down": [],
    }  # fmt: skip
    assert role.configure(conftest.proxy_config(7)) == {"port": 80, "tls_port": None}
    assert node.ask("/").text == "page"
    assert node.ask("/", headers={"Host": "any.name.at.all"}).text == "page"
    state = role.state()
    assert (state["state"], state["port"], state["serial"], state["oldest_serial"], state["code_version"]) == (
        "RUNNING",
        80,
        7,
        7,
        "code-1",
    )
    assert set(role.log_files()) == {"nginx-proxy-access.log", "nginx-proxy-error.log"}


def test_asking_again_changes_nothing(node: conftest.Node):
    node.write("code-1", PAGE)
    role = node.proxy()
    role.configure(conftest.proxy_config(1))
    workers = children(node)
    role.configure(conftest.proxy_config(1))
    node.proxy().configure(conftest.proxy_config(1))
    assert children(node) == workers, "nothing was reloaded"


def children(node: conftest.Node) -> set[str]:
    pid = node.supervisor.status("nginx-proxy").pid
    return set(pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def test_a_version_that_is_not_here_is_refused_and_the_old_one_goes_on(node: conftest.Node):
    node.write("code-1", PAGE)
    role = node.proxy()
    role.configure(conftest.proxy_config(1))
    with pytest.raises(errors.NotFound, match="code-2 is not on this node"):
        role.configure(conftest.proxy_config(2, version="code-2"))
    assert role.state()["serial"] == 1
    assert node.ask("/").text == "page"


def test_a_refused_configuration_leaves_the_old_one_and_tells_nginx_words(node: conftest.Node):
    node.write("code-1", PAGE)
    role = node.proxy()
    (node.paths.cache / "nginx-user-server.conf").write_text("location /extra { return 200 extra; }\n")
    (node.paths.cache / "nginx-user-rootloc.conf").write_text("add_header X-Mine yes;\n")
    role.configure(conftest.proxy_config(1))
    assert node.ask("/extra").text == "extra", "the classic way of adding to the configuration"
    assert node.ask("/").headers["x-mine"] == "yes"
    before = (node.paths.cache / "nginx-proxy.conf").read_text()
    (node.paths.cache / "nginx-user-server.conf").write_text("no_such_directive on;\n")
    with pytest.raises(errors.OperationFailed, match=r'unknown directive "no_such_directive" in .*nginx-user-server\.conf:1'):
        role.configure(conftest.proxy_config(2))
    assert (node.paths.cache / "nginx-proxy.conf").read_text() == before
    assert role.state()["serial"] == 1
    assert node.ask("/extra").text == "extra"
    (node.paths.cache / "nginx-user-server.conf").write_text("location /extra { return 200 other; }\n")
    role.configure(conftest.proxy_config(1))
    assert node.ask("/extra").text == "other", "a change of the file alone is noticed"


def test_a_full_disk_leaves_the_old_configuration_also_for_the_next_agent(node: conftest.Node, monkeypatch: pytest.MonkeyPatch):
    node.write("code-1", PAGE)
    node.write("code-2", {"index.html": "other"})
    role, static = node.proxy(), node.static()
    role.configure(conftest.proxy_config(1))
    static.configure(["code-1"], spec.SiteSettings())

    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(nginx.Nginx, "check", no_room)
        with pytest.raises(OSError, match="No space left"):
            role.configure(conftest.proxy_config(2, version="code-2"))
        with pytest.raises(OSError, match="No space left"):
            static.configure(["code-1", "code-2"], spec.SiteSettings())
    for one in (role, node.proxy()):
        one.resume()
        assert (one.state()["serial"], node.ask("/").text) == (1, "page")
    assert static.state()["code_versions"] == ["code-1"]


def test_a_configuration_that_fails_only_when_it_is_used_is_put_back(node: conftest.Node):
    node.write("code-1", PAGE)
    role = node.proxy()
    role.configure(conftest.proxy_config(1))
    with socket.create_server((node.address, 8999)):
        (node.paths.cache / "nginx-user-server.conf").write_text(f"listen {node.address}:8999;\n")
        with pytest.raises(errors.OperationFailed, match=r"8999 failed .*Address already in use"):
            role.configure(conftest.proxy_config(2))
    assert role.state()["serial"] == 1
    assert node.ask("/").text == "page"
    (node.paths.cache / "nginx-user-server.conf").unlink()
    role.configure(conftest.proxy_config(3))
    assert role.state()["serial"] == 3


def test_a_port_that_is_taken_is_replaced_and_the_choice_stays(node: conftest.Node):
    node.write("code-1", PAGE)
    with socket.create_server((node.address, 80)), socket.create_server((node.address, 81)):
        assert node.proxy().configure(conftest.proxy_config(1))["port"] == 82
    role = node.proxy()
    assert role.configure(conftest.proxy_config(2))["port"] == 82
    assert node.ask("/", port=82).text == "page"
    role.stop()
    assert node.proxy().configure(conftest.proxy_config(3))["port"] == 82, "addresses that people know do not change"


def test_it_works_deep_down_in_the_file_system(directory: pathlib.Path):
    deep = directory / ("a" * 100) / ("b" * 100)
    node = conftest.Node(deep)
    try:
        node.write("code-1", PAGE)
        role = node.proxy()
        role.configure(conftest.proxy_config(1))
        role.configure(conftest.proxy_config(2))
        assert role.state()["serial"] == 2, "a socket's address holds 108 bytes only"
        node.write("code-1", {"WEB-INF/x": ""})
        assert role.check_site(java(spec.Upstream(node.address, 9)), "/", 1.0)[0]["status"] in (0, 502)
    finally:
        node.close()


def test_it_serves_as_another_user_than_root(node: conftest.Node):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    node.write("code-1", PAGE)
    node.proxy().configure(conftest.proxy_config(1))
    owners = {stat_of.st_uid for pid in children(node) if (stat_of := pathlib.Path(f"/proc/{pid}").stat())}
    assert owners == {33}
    assert stat.S_IMODE((node.paths.run / "nginx-proxy").stat().st_mode) == 0o700, "nobody else asks it"


def test_serving_goes_on_while_it_is_reconfigured(node: conftest.Node, make_toy: Callable[..., conftest.Toy]):
    web_application(node)
    toys = [make_toy(), make_toy()]
    role = node.proxy()
    role.configure(java(toys[0].upstream))
    ending = threading.Event()
    failures: list[str] = []
    sent = 0

    async def client() -> None:
        nonlocal sent
        while not ending.is_set():
            try:
                reader, writer = await asyncio.open_connection(node.address, 80)
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = await reader.read()
                writer.close()
                sent += 1
                if b" 200 " not in answer[:20] or b"hello from" not in answer:
                    failures.append(repr(answer[:100]))
            except OSError as error:
                failures.append(repr(error))

    async def crowd() -> None:
        await asyncio.gather(*(client() for _ in range(8)))

    thread = threading.Thread(target=asyncio.run, args=(crowd(),))
    thread.start()
    try:
        began = time.monotonic()
        serial = 1
        while time.monotonic() - began < 3:
            serial += 1
            only = toys[serial % 2]
            role.configure(java(only.upstream, serial=serial))
            assert node.ask("/").text == f"hello from {only.ip}", "once configured, nothing is served by the former configuration"
    finally:
        ending.set()
        thread.join()
    assert failures == []
    assert sent > 200
    assert serial > 5


def test_oldest_serial_tells_when_former_configurations_have_done_their_work(node: conftest.Node):
    node.write("code-1", {"big.bin": b"x" * 20_000_000})
    role = node.proxy()
    role.configure(conftest.proxy_config(1))
    with slow_download(node, "/big.bin") as finish:
        role.configure(conftest.proxy_config(2))
        assert (role.state()["serial"], role.state()["oldest_serial"]) == (2, 1)
        role.configure(conftest.proxy_config(3))
        assert node.proxy().state()["oldest_serial"] == 1, "a restarted agent knows it as well"
        (node.paths.lib / "nginx-proxy-workers.json").unlink()
        assert role.state()["oldest_serial"] == 0, "an unknown old worker may serve by anything"
        assert finish() == 20_000_000, "the download is complete"
    conftest.until(lambda: role.state()["oldest_serial"] == 3, "the last request of the old ones has ended")


@contextlib.contextmanager
def slow_download(node: conftest.Node, path: str) -> Iterator[Callable[[], int]]:
    """A client that reads slowly; what is yielded reads the rest and tells how much it was in all."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((node.address, 80))
        client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        begin = client.recv(1000)
        assert b"200 OK" in begin

        def finish() -> int:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            size = len(begin.partition(b"\r\n\r\n")[2])
            while chunk := client.recv(1 << 20):
                size += len(chunk)
            return size

        yield finish


def test_stopping_lets_requests_end_and_lasts(node: conftest.Node):
    node.write("code-1", {"big.bin": b"x" * 20_000_000, "a.txt": "a"})
    role = node.proxy()
    role.configure(conftest.proxy_config(1))
    with slow_download(node, "/big.bin") as finish:
        stopping = threading.Thread(target=role.stop)
        stopping.start()
        conftest.until(lambda: not listens(node.address, 80), "nobody new is served")
        assert finish() == 20_000_000
        stopping.join()
    assert role.state()["state"] == "INIT"
    role.stop()
    node.reboot()
    again = node.proxy()
    again.resume()
    assert node.supervisor.status("nginx-proxy").state in (supervisor.DaemonState.DOWN, supervisor.DaemonState.STARTING)
    role.configure(conftest.proxy_config(2))
    assert node.ask("/a.txt").text == "a"


def listens(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
        return True
    return False


def test_it_comes_back_by_itself_after_a_reboot(node: conftest.Node):
    node.write("code-1", PAGE)
    node.proxy().configure(conftest.proxy_config(4))
    node.reboot()
    conftest.until(lambda: listens(node.address, 80), "no agent is needed for that")
    assert node.ask("/").text == "page"
    assert node.proxy().state()["serial"] == 4


def test_it_comes_back_when_it_is_killed(node: conftest.Node):
    node.write("code-1", PAGE)
    role = node.proxy()
    role.configure(conftest.proxy_config(4))
    conftest.until(lambda: node.supervisor.status("nginx-proxy").seconds > 1, "runit restarts at once what ran for a second")
    before = node.supervisor.status("nginx-proxy").pid
    assert before
    os.kill(before, signal.SIGKILL)
    conftest.until(lambda: node.supervisor.status("nginx-proxy").pid not in (None, before) and listens(node.address, 80), "it is back")
    conftest.until(lambda: role.state()["serial"] == 4, "and answers the agent, over the socket that the killed one left")
    role.configure(conftest.proxy_config(5))
    assert role.state()["serial"] == 5


class Killed(BaseException):
    """The agent's process ends here."""


@pytest.mark.parametrize("place", ["before the file", "before the signal", "before the proof"])
def test_an_agent_killed_in_the_middle_goes_on_where_it_was(node: conftest.Node, monkeypatch: pytest.MonkeyPatch, place: str):
    node.write("code-1", PAGE)
    node.write("code-2", {"index.html": "new page"})
    role = node.proxy()
    role.configure(conftest.proxy_config(1))

    def die(*_: object, **__: object) -> None:
        raise Killed

    original = nginx.Nginx._prove
    with monkeypatch.context() as patch:
        if place == "before the file":
            patch.setattr(nginx.Nginx, "_replace", die)
        elif place == "before the signal":
            patch.setattr(nginx.Nginx, "_prove", die)
        else:
            patch.setattr(nginx.Nginx, "_prove", lambda self, *rest: (original(self, *rest), die()))
        with pytest.raises(Killed):
            role.configure(conftest.proxy_config(2, version="code-2"))
    role.close()
    assert node.ask("/").text in ("page", "new page"), "the site goes on"
    again = node.proxy()
    again.resume()
    conftest.until(lambda: again.state()["serial"] == 2, "what was begun is finished without being asked")
    again.configure(conftest.proxy_config(2, version="code-2"))
    assert node.ask("/").text == "new page"


# Balancing and retries


def test_weights_count(node: conftest.Node, make_toy: Callable[..., conftest.Toy]):
    web_application(node)
    toys = [make_toy() for _ in range(3)]
    servers = [spec.Upstream(toy.ip, toy.port, weight) for toy, weight in zip(toys, (100, 200, 50), strict=True)]
    node.proxy().configure(java(*servers))
    for _ in range(140):
        assert node.ask("/").status == 200
    assert [toy.seen["/"] for toy in toys] == [40, 80, 20]


def test_dynamic_balancing_prefers_who_has_little_to_do(node: conftest.Node, make_toy: Callable[..., conftest.Toy]):
    web_application(node)
    release = threading.Event()

    def slow(handler: http.server.BaseHTTPRequestHandler) -> None:
        if not handler.path.startswith("/.conpaas"):
            release.wait(20)
        conftest.send(handler, 200, b"slow")

    slow_toy, quick = make_toy(slow), make_toy()
    # nginx may count a request that has just been answered as under way: with equal weights, that alone would be a draw.
    favoured = dataclasses.replace(quick.upstream, weight=3 * quick.upstream.weight)
    node.proxy().configure(java(slow_toy.upstream, favoured, balancing="dynamic"))
    threads = [threading.Thread(target=node.ask, args=("/",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    conftest.until(lambda: 1 <= slow_toy.seen["/"] == sum(thread.is_alive() for thread in threads), "only the slow one works")
    before = slow_toy.seen["/"]
    for _ in range(20):
        assert node.ask("/").text.startswith("hello")
    assert slow_toy.seen["/"] == before
    release.set()
    for thread in threads:
        thread.join()


def test_a_dead_backend_costs_no_request(node: conftest.Node, make_toy: Callable[..., conftest.Toy]):
    web_application(node)
    alive, dead = make_toy(), make_toy()
    node.proxy().configure(java(alive.upstream, dead.upstream))
    dead.close()
    for _ in range(40):
        assert node.ask("/").status == 200
        assert node.ask("/", method="POST", body=b"x").status == 200, "what never reached the dead one may go to another"


def test_what_may_be_repeated_is_asked_elsewhere_and_what_may_not_is_not(node: conftest.Node, make_toy: Callable[..., conftest.Toy]):
    web_application(node)

    def hang_up(handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.path.startswith("/.conpaas"):
            conftest.send(handler, 200, b"")
            return
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)

    broken, sound = make_toy(hang_up), make_toy()
    node.proxy().configure(java(broken.upstream, sound.upstream))
    for _ in range(6):
        assert node.ask("/").text == f"hello from {sound.ip}"
    # The proxy leaves a server that failed alone for a second; then its turn comes again.
    statuses = []

    def post_reached_broken() -> bool:
        statuses.append(node.ask("/post", method="POST", body=b"order").status)
        return broken.seen["/post"] == 1

    conftest.until(post_reached_broken, "a POST goes to the broken one")
    assert statuses[-1] == 502, "it may have been carried out"
    assert sound.seen["/post"] == len(statuses) - 1


def test_a_request_that_takes_too_long_is_not_begun_again_elsewhere(node: conftest.Node, make_toy: Callable[..., conftest.Toy]):
    web_application(node)
    leave = threading.Event()

    def hang(handler: http.server.BaseHTTPRequestHandler) -> None:
        if not handler.path.startswith("/.conpaas"):
            leave.wait(20)
        conftest.send(handler, 200, b"late")

    toys = [make_toy(hang) for _ in range(3)]
    node.proxy().configure(java(*(toy.upstream for toy in toys), response_timeout=2))
    try:
        assert node.ask("/report").status == 504
        assert sum(toy.seen["/report"] for toy in toys) == 1, "one visitor's slow page would keep all backends busy"
    finally:
        leave.set()


def test_an_application_server_learns_of_the_client_and_may_upgrade(node: conftest.Node, make_toy: Callable[..., conftest.Toy]):
    web_application(node)

    def upgrade(handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.headers.get("Upgrade") != "websocket":
            conftest.send(handler, 200, b"plain")
            return
        handler.send_response(101)
        handler.send_header("Upgrade", "websocket")
        handler.send_header("Connection", "upgrade")
        handler.end_headers()
        handler.wfile.write(handler.rfile.read(4)[::-1])
        handler.close_connection = True

    toy = make_toy(upgrade)
    node.proxy().configure(java(toy.upstream))
    assert node.ask("/a%20b/%C3%A9%2F?x=1", headers={"Host": "site.example:99"}).text == "plain"
    assert toy.seen["/a%20b/%C3%A9%2F?x=1"] == 1, "the path arrives as it was sent"
    headers = toy.headers[-1]
    assert headers["host"] == headers["x-forwarded-host"] == "site.example:99"
    assert (headers["x-forwarded-proto"], headers["x-forwarded-port"]) == ("http", "99"), "the visitor's, not nginx's own"
    node.ask("/", headers={"Host": "site.example"})
    assert toy.headers[-1]["x-forwarded-port"] == "80"
    assert headers["x-real-ip"] == headers["x-forwarded-for"]
    with socket.create_connection((node.address, 80), timeout=10) as client:
        client.sendall(b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nabcd")
        answer = b""
        while chunk := client.recv(1000):
            answer += chunk
    assert b"101" in answer.partition(b"\r\n")[0]
    assert answer.endswith(b"dcba")


def test_connections_to_application_servers_are_kept(node: conftest.Node, make_toy: Callable[..., conftest.Toy]):
    web_application(node)
    ports = set()

    def note(handler: http.server.BaseHTTPRequestHandler) -> None:
        ports.add(handler.client_address)
        conftest.send(handler, 200, b"x")

    toy = make_toy(note)
    node.proxy().configure(java(toy.upstream))
    for _ in range(20):
        assert node.ask("/").status == 200
    assert len(ports) <= 2, "one per worker of nginx"


def test_a_java_version_of_files_only_needs_no_backend(node: conftest.Node):
    node.write("code-1", {"index.html": "welcome", "d/index.html": "d", ".env": "x"})
    node.proxy().configure(java(spec.Upstream(node.address, 9)))
    assert node.ask("/").text == "welcome"
    assert node.ask("/d").status == 301
    assert node.ask("/missing").status == 404, "the classic answered 500"
    assert node.ask("/.env").status == 404


def test_a_site_without_backends_shows_no_sources(node: conftest.Node):
    node.write("code-1", {"index.php": "<?php secret", "a.txt": "a"})
    node.proxy().configure(conftest.proxy_config())
    for target in ("/", "/index.php", "/missing"):
        reply = node.ask(target)
        assert reply.status == 502
        assert "secret" not in reply.text
    assert node.ask("/a.txt").text == "a"


def test_files_are_served_when_all_web_servers_are_gone(make_node: Callable[..., conftest.Node]):
    front, back = make_node(), make_node()
    for one in (front, back):
        one.write("code-1", {"a.txt": one.address})
    web = back.static()
    port = web.configure(["code-1"], spec.SiteSettings())
    front.proxy().configure(conftest.proxy_config(web=(spec.Upstream(back.address, port),)))
    assert front.ask("/a.txt").text == back.address
    web.stop()
    assert front.ask("/a.txt").text == front.address


def test_a_proxy_reaches_the_backend_of_its_own_node_by_a_socket_if_there_is_one(node: conftest.Node):
    node.write("code-1", {"index.php": "<?php echo 'a page';"})
    backends = backend.BackendRole(node.paths, node.config, node.supervisor, node.address, file.Notes(node.paths.lib / "web.json"))
    release = spec.Upstream(node.address, backends.start(1, "code-1", spec.BackendSettings()))
    role = node.proxy()
    way = beside.socket(node.paths, release.port)
    assert way is not None

    def served_by(serial: int) -> str:
        role.configure(conftest.proxy_config(serial, backends=(release,)))
        assert node.ask("/").text == "a page"
        return conftest.until(lambda: node.log("nginx-proxy-timed.log").splitlines()[serial - 1 :], "the line of the log")[0].split()[3]

    assert served_by(1) == f"unix:{way}"
    way.unlink()
    assert served_by(2) == release.address
