"""What load balancers are told, by what was seen of MariaDB."""

from __future__ import annotations

import itertools
import pathlib
import threading

import pytest

from conpaas.services.mysql.agent import health_daemon
from conpaas.services.mysql.agent.health_daemon import Seen, judge


def seen(ready: str = "ON", cluster: str = "Primary", state: str = "4") -> Seen:
    return Seen({"wsrep_ready": ready, "wsrep_cluster_status": cluster, "wsrep_local_state": state})


def statuses(what: Seen, *, out: bool = False) -> tuple[int, ...]:
    return tuple(judge(target, what, out=out)[0] for target in ("/rw", "/ro", "/any", "/"))


@pytest.mark.parametrize(
    ("what", "out", "wanted"),
    [
        (seen(), False, (200, 200, 200, 200)),
        (seen(), True, (404, 404, 404, 200)),
        (seen(state="2"), False, (404, 404, 200, 200)),
        (seen(state="3"), False, (404, 404, 200, 200)),
        (seen(state="2"), True, (404, 404, 404, 200)),
        (seen(state="1"), False, (503, 503, 503, 200)),
        (seen(state="0"), True, (503, 503, 503, 200)),
        (seen(ready="OFF"), False, (503, 503, 503, 200)),
        (seen(cluster="non-Primary"), False, (503, 503, 503, 200)),
        (Seen({}), False, (503, 503, 503, 200)),
        (Seen(None, "gone"), False, (503, 503, 503, 503)),
        (Seen(None, "Too many connections", full=True), False, (404, 404, 404, 404)),
    ],
)
def test_answers(what: Seen, out: bool, wanted: tuple[int, ...]):
    assert statuses(what, out=out) == wanted


def test_a_reason_is_one_line_that_a_status_line_can_hold():
    for ready, cluster, state, out in itertools.product(("ON", "OFF"), ("Primary", "non-Primary"), "01234", (True, False)):
        for target in (*health_daemon.TARGETS, "/x"):
            _, reason = judge(target, seen(ready, cluster, state), out=out)
            assert reason.isprintable()
            assert reason.isascii()


def test_other_targets_are_refused():
    assert judge("/rw?x", seen(), out=False)[0] == 400
    assert judge("", seen(), out=False)[0] == 400


class Database(health_daemon.MariaDb):
    """Stands in for one that is looked at; counts, and waits until it may answer."""

    def __init__(self) -> None:
        super().__init__(pathlib.Path("/nowhere/x.sock"), "nobody")
        self.looks = 0
        self.may_answer = threading.Event()

    def look(self) -> Seen:
        self.looks += 1
        assert self.may_answer.wait(10)
        return seen()


def test_all_who_ask_share_one_look():
    database = Database()
    looker = health_daemon.Looker(database)
    looker.bell.setblocking(True)
    looker.start()
    for _ in range(100):
        looker.ask()
    database.may_answer.set()
    looker.bell.recv(1)
    assert database.looks == 1
    assert looker.fresh
    assert looker.seen.status is not None
