"""The load balancer with a real HAProxy, and members that die, freeze, come back and are taken out."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from tests.support import glb

from conpaas.core import errors, file
from conpaas.services.mysql.agent import balancer

ROLE = balancer.NAME


@pytest.fixture(scope="module")
def machine() -> Iterator[glb.Node]:
    with glb.node() as made:
        yield made


@pytest.fixture
def node(machine: glb.Node) -> Iterator[glb.Node]:
    """The same for all tests, and each finds nothing on it."""
    yield machine
    machine.clear()


@pytest.fixture
def abc() -> Iterator[list[glb.Member]]:
    with glb.members("a", "b", "c") as made:
        yield made


def status(role: balancer.BalancerRole) -> dict[str, str]:
    return {one["name"]: one["status"] for one in role.state()["servers"]}


def all_up(role: balancer.BalancerRole) -> None:
    glb.until(lambda: {one[kind] for one in role.state()["servers"] for kind in ("status", "read_status")} == {"up"}, "all members are up")


def until_status(role: balancer.BalancerRole, name: str, wanted: str) -> None:
    glb.until(lambda: status(role)[name] == wanted, f"{name} is {wanted}")


def writer(node: glb.Node) -> str:
    """The member that a new writing session comes to."""
    with node.connect() as session:
        return session.member


def reader(node: glb.Node) -> str:
    with node.connect(8011) as session:
        return session.member


def master(node: glb.Node) -> int:
    return node.supervisor.status(ROLE).pid or 0


class Writers:
    """Clients that write all the time, each over a connection that it keeps while it lives; what they meet with is noted."""

    def __init__(self, node: glb.Node, count: int = 3, *, short: bool = False) -> None:
        self._node = node
        self._short = short
        self._ending = threading.Event()
        self.breaks: list[str] = []
        self.longest_gap = 0.0
        self.answers = 0
        self._threads = [threading.Thread(target=self._work) for _ in range(count)]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(20)

    def _work(self) -> None:
        session: glb.Session | None = None
        last = time.monotonic()
        while not self._ending.is_set():
            try:
                session = session or self._node.connect()
                if not session.ask():
                    raise ConnectionError("the session was ended")
                self.answers += 1
                now = time.monotonic()
                self.longest_gap = max(self.longest_gap, now - last)
                last = now
                if self._short:
                    session.close()
                    session = None
            except OSError as error:
                self.breaks.append(str(error))
                if session is not None:
                    session.close()
                session = None
            time.sleep(0.005)
        if session is not None:
            session.close()


def test_there_is_one_writer_and_readers_everywhere(node: glb.Node, abc: list[glb.Member]) -> None:
    role = node.balancer()
    assert role.state()["state"] == "INIT"
    assert role.configure(glb.balancing(*abc, serial=3)) == {"port": 8010, "read_port": 8011}
    all_up(role)
    sessions = [node.connect() for _ in range(6)]
    readers = [node.connect(8011) for _ in range(6)]
    assert {one.member for one in sessions} == {"a"}
    assert sorted(one.member for one in readers) == ["a", "a", "b", "b", "c", "c"]
    state = role.state()
    assert (state["state"], state["serial"], state["writer"], state["port"]) == ("RUNNING", 3, abc[0].ip, 8010)
    assert [(one["rw_sessions"], one["ro_sessions"]) for one in state["servers"]] == [(6, 2), (0, 2), (0, 2)]
    assert state["servers"][0]["check"].startswith("L7OK/200")
    figures = role.figures()
    assert figures["rw"]["sessions"] == 6
    assert figures["members"][1]["ro"]["sessions_total"] == 2
    for one in (*sessions, *readers):
        one.close()
    glb.until(lambda: role.figures()["members"][1]["ro"]["bytes_out"] == 2, "what went through is counted")


def test_who_became_the_writer_stays_it(node: glb.Node, abc: list[glb.Member]) -> None:
    a, b, _ = abc
    role = node.balancer()
    role.configure(glb.balancing(*abc))
    all_up(role)
    assert writer(node) == "a"
    a.die()
    until_status(role, "a", "down")
    held = node.connect()
    assert held.member == "b"
    a.come_back()
    all_up(role)
    assert [writer(node) for _ in range(3)] == ["b", "b", "b"]
    assert role.state()["writer"] == b.ip
    role.configure(glb.balancing(*abc[:2], serial=2))
    assert writer(node) == "b", "a reload leaves it so"
    assert held.ask() == "b"
    role.configure(glb.balancing(*abc, serial=3, writer="a"))
    assert writer(node) == "a", "unless it is told otherwise"
    held.close()


@pytest.mark.parametrize("how", ["dies", "freezes"])
def test_writing_goes_on_within_two_seconds(node: glb.Node, abc: list[glb.Member], how: str) -> None:
    role = node.balancer()
    role.configure(glb.balancing(*abc))
    all_up(role)
    with Writers(node) as writers:
        glb.until(lambda: writers.answers > 50, "clients write")
        if how == "dies":
            abc[0].die()
        else:
            abc[0].freeze()
        before = writers.answers
        glb.until(lambda: writers.answers > before + 200, "clients write again")
    assert writer(node) == "b"
    assert 1 <= len(writers.breaks) <= 3, "each session broke once at most"
    assert writers.longest_gap < 2.0


def test_a_member_that_takes_no_new_sessions_keeps_those_it_has(node: glb.Node, abc: list[glb.Member]) -> None:
    role = node.balancer()
    role.configure(glb.balancing(*abc))
    all_up(role)
    with node.connect() as held:
        abc[0].say(404)
        until_status(role, "a", "out")
        glb.until(lambda: role.state()["servers"][0]["read_status"] == "out", "it is out for readers too")
        assert writer(node) == "b"
        assert {reader(node) for _ in range(6)} == {"b", "c"}
        assert held.ask() == "a"
        abc[0].say(503)
        until_status(role, "a", "down")
        assert held.ask() == ""


def test_a_donor_serves_when_it_is_the_last(node: glb.Node, abc: list[glb.Member]) -> None:
    role = node.balancer()
    role.configure(glb.balancing(*abc))
    all_up(role)
    abc[0].say(404, last=200)
    abc[1].die()
    abc[2].say(404, last=404)
    for name, wanted in (("a", "out"), ("b", "down"), ("c", "out")):
        until_status(role, name, wanted)
    assert (writer(node), reader(node)) == ("a", "a")
    assert role.state()["writer"] == abc[0].ip
    abc[1].come_back()
    until_status(role, "b", "up")
    assert writer(node) == "b", "one that is in step comes before one that is not"


def test_a_member_that_joins_gets_nothing_before_it_is_in_step(node: glb.Node, abc: list[glb.Member]) -> None:
    role = node.balancer()
    role.configure(glb.balancing(*abc[:2]))
    all_up(role)
    abc[2].say(503)
    with Writers(node, short=True) as writers:
        role.configure(glb.balancing(*abc, serial=2))
        assert {reader(node) for _ in range(12)} == {"a", "b"}
        abc[2].say(200)
        until_status(role, "c", "up")
        glb.until(lambda: "c" in {reader(node) for _ in range(6)}, "the new member reads")
    assert writers.breaks == []


def test_changes_of_the_configuration_cost_no_session(node: glb.Node, abc: list[glb.Member]) -> None:
    role = node.balancer()
    role.configure(glb.balancing(*abc))
    all_up(role)
    with Writers(node, 2) as keeping, Writers(node, 2, short=True) as coming:
        for serial in range(2, 7):
            role.configure(glb.balancing(*abc[: 2 + serial % 2], serial=serial))
    assert keeping.breaks == coming.breaks == []
    assert coming.answers > 20


def test_a_configuration_that_says_the_same_is_no_reload(node: glb.Node, abc: list[glb.Member]) -> None:
    role = node.balancer()
    role.configure(glb.balancing(*abc))
    all_up(role)
    with node.connect():
        abc[0].die()
        until_status(role, "a", "down")
        assert writer(node) == "b"
        for serial in (1, 2):
            role.configure(glb.balancing(*abc, serial=serial))
        assert role.state()["old_workers"] == 0
        assert role.state()["serial"] == 2


def test_what_is_known_of_members_outlives_a_reload(node: glb.Node, abc: list[glb.Member]) -> None:
    role = node.balancer()
    role.configure(glb.balancing(*abc))
    all_up(role)
    abc[0].die()
    abc[1].say(404)
    until_status(role, "a", "down")
    until_status(role, "b", "out")
    role.configure(glb.balancing(*abc[:2], serial=2))
    assert status(role) == {"a": "down", "b": "out"}
    role.configure(glb.balancing(*abc, serial=3))
    assert (status(role)["a"], status(role)["b"]) == ("down", "out")


# Draining


def test_draining_moves_the_writer_and_ends_what_is_left(node: glb.Node, abc: list[glb.Member]) -> None:
    role = node.balancer()
    role.configure(glb.balancing(*abc))
    all_up(role)
    held = [node.connect(), node.connect(8011)]
    role.configure(glb.balancing(*abc[:2], serial=2))
    held.append(node.connect())
    assert role.state()["servers"][0]["rw_sessions"] == 2, "one of them in an old worker"
    began = time.monotonic()
    assert role.drain("a", 0.5) == {"sessions": 3}
    assert time.monotonic() - began >= 0.5
    assert [one.ask() for one in held] == ["", "", ""]
    assert status(role)["a"] == "drained"
    assert writer(node) == reader(node) == "b"
    assert role.drain("a", 5.0) == {"sessions": 0}


def test_draining_waits_for_sessions_that_end(node: glb.Node, abc: list[glb.Member]) -> None:
    role = node.balancer()
    role.configure(glb.balancing(*abc))
    all_up(role)
    held = node.connect()
    threading.Timer(0.4, held.close).start()
    began = time.monotonic()
    assert role.drain("a", 20.0) == {"sessions": 0}
    assert time.monotonic() - began < 15, "it does not wait for its whole time"


def test_a_drained_member_stays_out_until_a_newer_configuration(node: glb.Node, abc: list[glb.Member]) -> None:
    role = node.balancer()
    role.configure(glb.balancing(*abc, serial=4))
    all_up(role)
    role.drain("a", 0.0)
    role.configure(glb.balancing(*abc, serial=4))
    assert status(role)["a"] == "drained"
    os.kill(master(node), signal.SIGKILL)
    glb.until(lambda: status(role).get("b") == "up", "HAProxy is back")
    assert status(role)["a"] == "drained", "whoever starts it"
    again = node.balancer()
    again.resume()
    assert status(again)["a"] == "drained"
    again.configure(glb.balancing(*abc, serial=5))
    until_status(again, "a", "up")
    os.kill(master(node), signal.SIGKILL)
    glb.until(lambda: status(role).get("b") == "up", "HAProxy is back")
    until_status(again, "a", "up")


def test_nobody_drains_what_is_not_there(node: glb.Node, abc: list[glb.Member]) -> None:
    role = node.balancer()
    with pytest.raises(errors.NotFound, match="has no member 'a'"):
        role.drain("a", 1.0)
    role.configure(glb.balancing(*abc[:1]))
    with pytest.raises(errors.NotFound, match="has no member 'b'"):
        role.drain("b", 1.0)


def test_an_old_session_with_a_frozen_member_is_ended(node: glb.Node, abc: list[glb.Member]) -> None:
    role = node.balancer()
    role.configure(glb.balancing(*abc))
    all_up(role)
    with node.connect(timeout=8.0) as held:
        role.configure(glb.balancing(*abc[:2], serial=2))
        assert role.state()["old_workers"] == 1
        abc[0].freeze()
        assert held.ask() == ""
    glb.until(lambda: role.state()["old_workers"] == 0, "the old worker is done")


# Classic calls


def test_members_by_their_addresses(node: glb.Node, abc: list[glb.Member]) -> None:
    role = node.balancer()
    for change in (role.add, role.remove):
        with pytest.raises(errors.WrongState, match="agent is not running a glbd daemon"):
            change([abc[0].ip])
    role.configure(glb.balancing(abc[0]))
    role.add([f"{abc[1].ip}:3306", abc[0].ip])
    role.add([abc[1].ip])
    assert [one["ip"] for one in role.state()["servers"]] == [abc[0].ip, abc[1].ip]
    all_up(role)
    role.remove([abc[0].ip])
    assert [one["ip"] for one in role.state()["servers"]] == [abc[1].ip]
    assert writer(node) == "b"


# Life and death


def test_it_outlives_its_agent_a_crash_and_a_reboot(node: glb.Node, abc: list[glb.Member]) -> None:
    role = node.balancer()
    role.configure(glb.balancing(*abc))
    all_up(role)
    with node.connect() as held:
        role.close()
        again = node.balancer()
        again.resume()
        assert held.ask() == "a"
        assert again.state()["serial"] == 1
    os.kill(master(node), signal.SIGKILL)
    glb.until(lambda: again.state()["state"] == "RUNNING", "HAProxy is back")
    all_up(again)
    node.reboot()
    third = node.balancer()
    third.resume()
    all_up(third)
    assert writer(node) == "a"


def test_a_change_that_was_interrupted_is_finished(node: glb.Node, abc: list[glb.Member]) -> None:
    role = node.balancer()
    role.configure(glb.balancing(*abc[:1]))
    all_up(role)
    role.close()
    notes = file.Notes(node.paths.lib / "mysql.json")
    notes.set(glb=glb.balancing(*abc[1:], serial=2).to_dict())
    again = node.balancer()
    again.resume()
    all_up(again)
    assert writer(node) == "b"


def test_stopping_lets_sessions_end(node: glb.Node, abc: list[glb.Member]) -> None:
    role = node.balancer()
    role.configure(glb.balancing(*abc))
    all_up(role)
    held = node.connect()
    done = threading.Thread(target=role.stop, args=(20.0,))
    done.start()
    glb.until(lambda: not connects(node), "no connection is taken any more", 15.0)
    assert held.ask() == "a"
    assert done.is_alive()
    held.close()
    done.join(15)
    assert not done.is_alive(), "it does not wait for its whole time"
    assert role.state()["state"] == "INIT"
    assert node.supervisor.list() == []
    role.stop(20.0)


def test_stopping_ends_sessions_that_do_not(node: glb.Node, abc: list[glb.Member]) -> None:
    role = node.balancer()
    role.configure(glb.balancing(*abc))
    all_up(role)
    with node.connect() as held:
        role.stop(0.5)
        assert held.ask() == ""
    role.configure(glb.balancing(*abc, serial=1))
    all_up(role)


def connects(node: glb.Node) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((node.address, 8010), timeout=0.2) as connection:
        return bool(connection.recv(10))
    return False


def test_a_port_that_is_taken_is_named(node: glb.Node, abc: list[glb.Member]) -> None:
    role = node.balancer()
    with (
        socket.create_server((node.address, 8011)),
        pytest.raises(errors.OperationFailed, match=rf"Port 8011 of {node.address} is not to be had for the load balancer"),
    ):
        role.configure(glb.balancing(*abc))
    assert role.state()["state"] == "INIT"
    role.configure(glb.balancing(*abc))
    all_up(role)


def test_a_reload_that_fails_changes_nothing(node: glb.Node, abc: list[glb.Member]) -> None:
    role = node.balancer()
    role.configure(glb.balancing(*abc))
    all_up(role)
    with node.connect() as held, socket.create_server((node.address, 8099)):
        for _ in range(2):
            other = node.balancer(GLB_READ_PORT="8099")
            with pytest.raises(errors.OperationFailed, match="goes on by the former one"):
                other.configure(glb.balancing(*abc[1:], serial=2))
            assert (held.ask(), writer(node), reader(node) in "abc") == ("a", "a", True)
            assert role.state()["serial"] == 1
            assert role.state()["state"] == "RUNNING"
    role.configure(glb.balancing(*abc[1:], serial=3))
    assert writer(node) == "b"


def test_no_members_is_no_failure(node: glb.Node, abc: list[glb.Member]) -> None:
    role = node.balancer()
    role.configure(glb.balancing())
    assert role.state()["writer"] is None
    with pytest.raises(ConnectionError):
        node.connect()
    role.configure(glb.balancing(abc[0], serial=2))
    all_up(role)
    assert writer(node) == "a"


def test_the_log_tells_of_members_and_of_errors_only(node: glb.Node, abc: list[glb.Member]) -> None:
    role = node.balancer()
    role.configure(glb.balancing(*abc))
    all_up(role)

    def log() -> str:
        return file.tail(role.log_files()["haproxy.log"])

    with node.connect():
        abc[0].say(503)
        until_status(role, "a", "down")
    glb.until(lambda: "by rw to rw/a" in log() and "retries" in log(), "the broken session is logged")
    lines = log().count("retries")
    for _ in range(5):
        assert writer(node) == "b"
    assert "Server rw/a is DOWN" in log()
    assert log().count("retries") == lines


def test_workers_are_nobody_in_particular(node: glb.Node, abc: list[glb.Member], owner: Callable[[int], int]) -> None:
    role = node.balancer()
    role.configure(glb.balancing(*abc))
    children = subprocess.run(["pgrep", "-P", str(master(node))], capture_output=True, text=True, check=True).stdout.split()
    assert children
    assert (os.geteuid() != 0) or all(owner(int(one)) != 0 for one in children)


@pytest.fixture
def owner() -> Callable[[int], int]:
    return lambda pid: pathlib.Path(f"/proc/{pid}").stat().st_uid
