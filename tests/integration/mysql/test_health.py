"""What load balancers are told about a real member of a Galera cluster: in step, busy, out of service, frozen, dead."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import os
import pathlib
import signal
import socket
from collections.abc import Iterator

import pytest
from tests.support import galera, glb

from conpaas.services.mysql import spec
from conpaas.services.mysql.agent import health

MEMORY_LIMIT = 20 * 1024
"""KB that the daemon may take."""


@pytest.fixture(scope="module")
def member() -> Iterator[galera.Member]:
    with galera.member() as made:
        yield made


@pytest.fixture(scope="module")
def machine() -> Iterator[glb.Node]:
    with glb.node() as made:
        yield made


@pytest.fixture
def node(machine: glb.Node, member: galera.Member) -> Iterator[glb.Node]:
    machine.health().ensure(member.socket, galera.USER)
    glb.until(lambda: listens(machine), "the daemon listens")
    yield machine
    machine.clear()
    glb.until(lambda: member.state() == "Synced", "the member is as it was")


def listens(node: glb.Node) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((node.address, 9200), timeout=1):
        return True
    return False


def ask(node: glb.Node, target: str = "/rw", method: str = "GET") -> tuple[int, str]:
    """The status, and the line that says why."""
    connection = http.client.HTTPConnection(node.address, 9200, timeout=3)
    try:
        connection.request(method, target)
        answer = connection.getresponse()
        text = answer.read().decode()
        assert text == f"{answer.reason}\n"
        return answer.status, answer.reason
    finally:
        connection.close()


def statuses(node: glb.Node) -> list[int]:
    """Of all targets; 0 while nobody listens."""
    if not listens(node):
        return [0]
    return [ask(node, target)[0] for target in ("/rw", "/ro", "/any", "/")]


def until_says(node: glb.Node, *wanted: int) -> None:
    glb.until(lambda: statuses(node) == list(wanted), f"the daemon answers {wanted}")


def pid(node: glb.Node) -> int:
    return node.supervisor.status(health.DAEMON).pid or 0


def memory(node: glb.Node) -> int:
    """KB."""
    text = pathlib.Path(f"/proc/{pid(node)}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS"))


def threads(node: glb.Node) -> int:
    return len(list(pathlib.Path(f"/proc/{pid(node)}/task").iterdir()))


def test_a_member_in_step_takes_sessions(node: glb.Node):
    assert statuses(node) == [200, 200, 200, 200]
    assert ask(node) == (200, "in service")
    assert ask(node, "/") == (200, "ready ON, component Primary, state 4")
    assert ask(node, "/etc/passwd")[0] == 400
    assert ask(node, method="POST")[0] == 400


def test_it_is_small_and_nobody_in_particular(node: glb.Node, member: galera.Member):
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: ask(node), range(400)))
    assert {status for status, _ in answers} == {200}
    assert memory(node) < MEMORY_LIMIT
    assert threads(node) == 2
    owner = pathlib.Path(f"/proc/{pid(node)}").stat().st_uid
    assert owner == member.socket.stat().st_uid
    sessions = member.sql("SELECT COUNT(*) FROM information_schema.processlist WHERE command != 'Daemon' AND user != 'system user'")
    assert int(sessions[0][0]) <= 2, "it has one session, and this is another"


def test_who_is_desynced_keeps_sessions_and_gets_no_new_ones(node: glb.Node, member: galera.Member):
    member.sql("SET GLOBAL wsrep_desync = ON")
    try:
        until_says(node, 404, 404, 200, 200)
        assert ask(node) == (404, "is a donor or desynced")
    finally:
        member.sql("SET GLOBAL wsrep_desync = OFF")
    until_says(node, 200, 200, 200, 200)


def test_who_has_lost_the_cluster_serves_nobody(node: glb.Node, member: galera.Member):
    address = member.sql("SELECT @@wsrep_cluster_address")[0][0]
    member.sql("SET GLOBAL wsrep_cluster_address = ''")
    try:
        until_says(node, 503, 503, 503, 200)
        assert ask(node)[1].startswith("not a working member of the cluster: ready OFF")
    finally:
        member.sql(f"SET GLOBAL wsrep_cluster_address = '{address}'")
    until_says(node, 200, 200, 200, 200)


def test_a_file_takes_it_out_of_service(node: glb.Node):
    role = node.health()
    role.set(on=False)
    assert statuses(node) == [404, 404, 404, 200]
    assert ask(node) == (404, "taken out of service")
    role.set(on=False)
    role.set(on=True)
    role.set(on=True)
    assert statuses(node) == [200, 200, 200, 200]


def test_a_frozen_server_is_told_at_once_and_nothing_piles_up(node: glb.Node, member: galera.Member):
    assert ask(node)[0] == 200
    member.signal(signal.SIGSTOP)
    try:
        glb.until(lambda: ask(node)[0] == 503, "it is told", 15)
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(lambda _: ask(node), range(200)))
        assert {status for status, _ in answers} == {503}
        assert {why for _, why in answers} == {"MariaDB gives no answer within 0.4 s"}
        assert threads(node) == 2
    finally:
        member.signal(signal.SIGCONT)
    until_says(node, 200, 200, 200, 200)
    assert memory(node) < MEMORY_LIMIT


def test_a_server_that_is_full_keeps_its_sessions(node: glb.Node, member: galera.Member):
    role = node.health()
    limit = member.sql("SELECT @@max_connections")[0][0]
    member.sql("SET GLOBAL max_connections = 10")
    taken = []
    try:
        node.supervisor.restart(health.DAEMON)
        glb.until(lambda: listens(node), "the daemon listens")
        with contextlib.suppress(galera.pymysql.MySQLError):
            while True:
                taken.append(member.connect())
        assert ask(node)[0] in (200, 404)
        node.supervisor.restart(health.DAEMON)
        glb.until(lambda: listens(node), "the daemon listens")
        status, why = ask(node)
        if os.geteuid() != 0:
            assert status == 404
            assert "Too many connections" in why
        else:
            assert status in (200, 404), "one more session is kept for an administrator"
    finally:
        for one in taken:
            one.close()
        glb.until(lambda: member.state() == "Synced", "there is room again")
        member.sql(f"SET GLOBAL max_connections = {limit}")
    role.resume()
    until_says(node, 200, 200, 200, 200)


def test_a_dead_server_is_told_and_a_new_one_too(node: glb.Node, member: galera.Member):
    assert ask(node)[0] == 200
    member.kill()
    glb.until(lambda: ask(node, "/")[0] == 503, "it is told", 15)
    assert ask(node)[1].startswith("MariaDB does not answer: Can't connect")
    member.start_again()
    until_says(node, 200, 200, 200, 200)


def test_who_says_nothing_is_dropped_and_crowds_are_no_harm(node: glb.Node):
    crowd = []
    try:
        for _ in range(300):
            crowd.append(socket.create_connection((node.address, 9200), timeout=5))
        crowd[-1].sendall(b"GET /rw HT")
        assert ask(node)[0] == 200
        crowd[-1].settimeout(15)
        assert crowd[-1].recv(10) == b""
        crowd[0].close()
        with socket.create_connection((node.address, 9200), timeout=5) as long:
            with contextlib.suppress(OSError):
                long.sendall(b"GET /rw HTTP/1.1\r\nX: " + b"x" * 100_000)
            with contextlib.suppress(ConnectionError):
                assert long.recv(10) == b""
    finally:
        for one in crowd:
            one.close()
    assert ask(node)[0] == 200
    assert memory(node) < MEMORY_LIMIT


def test_it_outlives_its_agent_and_a_reboot_and_can_be_removed(node: glb.Node, member: galera.Member):
    before = pid(node)
    again = node.health()
    again.resume()
    again.ensure(member.socket, galera.USER)
    assert pid(node) == before, "the same is no restart"
    os.kill(before, signal.SIGKILL)
    glb.until(lambda: pid(node) not in (0, before) and listens(node), "it is back")
    node.reboot()
    node.health().resume()
    until_says(node, 200, 200, 200, 200)
    again.ensure(pathlib.Path("/nowhere/mysqld.sock"), galera.USER)
    glb.until(lambda: listens(node) and ask(node)[0] == 503, "it looks elsewhere")
    again.remove()
    again.remove()
    again.resume()
    assert not listens(node)
    assert node.supervisor.list() == []


def test_a_balancer_moves_clients_off_a_frozen_member(member: galera.Member, node: glb.Node):
    """The whole chain once, with real servers: Galera, the daemon beside it, HAProxy. The second member is a stand-in."""
    role = node.balancer()
    node.health(member.ip).ensure(member.socket, galera.USER)
    with glb.members("b") as others:
        role.configure(spec.BalancerConfig(1, (spec.Member("a", member.ip), others[0].member)))
        glb.until(lambda: role.state()["writer"] == member.ip, "the real one is the writer")
        with socket.create_connection((node.address, 8010), timeout=5) as client:
            assert b"MariaDB" in client.recv(200)
            member.signal(signal.SIGSTOP)
            try:
                client.settimeout(15)
                assert client.recv(10) == b"", "the session is ended"
                assert role.state()["writer"] == others[0].ip
                assert "MariaDB gives no answer within 0.4 s" in role.state()["servers"][0]["check"]
            finally:
                member.signal(signal.SIGCONT)
