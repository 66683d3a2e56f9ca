"""The manager of a mysql service killed at every step of everything it does: at any instant there is one cluster, and no row is lost."""

from __future__ import annotations

import contextlib
import datetime
from typing import Any

import pytest

from conpaas.core import errors, lifecycle
from conpaas.services.mysql.manager import manager, members
from conpaas.testing import crashes

from .fake_agent import MySQLHarness


def running(made: Any) -> None:
    made.start()


def grown(made: Any) -> None:
    made.start()
    made.add_nodes({"mysql": 2, "glb": 1})


def now() -> str:
    """What is no longer in the future."""
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S}"


def stopped(made: Any) -> None:
    grown(made)
    made.stop()


def crashed(made: Any) -> None:
    grown(made)
    made.crash_all()


def broken(made: Any) -> None:
    """In ERROR: a removal that could neither go on nor be undone."""
    made.start()
    made.add_nodes({"mysql": 1})
    made.director.fail("remove_nodes", times=20)
    with contextlib.suppress(errors.OperationFailed):
        made.remove_nodes({"mysql": 1})
    made.director.no_more_trouble()
    assert made.state == "ERROR"


def lose(made: Any) -> None:
    made.kill_node(made.nodes[1])
    made.pass_time(20)


def backed_up(made: Any) -> None:
    grown(made)
    made.world.later = -60
    made.do("create_backup")


ACTIONS = {
    "back up": (lambda made: made.do("create_backup"), grown),
    "restore to a second": (lambda made: made.do("restore_backup", until=now()), backed_up),
    "add": (lambda made: made.call("add_service", 0, service_type="mysql"), None),
    "start": (lambda made: made.start(), None),
    "start again": (lambda made: made.start(), stopped),
    "grow": (lambda made: made.add_nodes({"mysql": 1, "glb": 1}), running),
    "shrink": (lambda made: made.remove_nodes({"mysql": 2, "glb": 1}), grown),
    "move the writer": (lambda made: made.migrate_nodes({made.nodes[0].id: "default"}), grown),
    "repair": (lambda made: made.pass_time(30), crashed),
    "set variables": (lambda made: made.do("set_variables", variables={"max_connections": 300}), grown),
    "stop": (lambda made: made.stop(), grown),
    "recover": (lambda made: made.recover(), broken),
    "remove": (lambda made: made.remove(), running),
}


def agrees_with_itself(made: Any) -> None:
    """One cluster of all members, known to all load balancers; what is on record is what there is."""
    made.watch()
    if made.app.find_manager(made.service_id) is None or made.state != "RUNNING":
        return
    made.pass_time(60)
    made.watch()
    memory = made.manager.memory
    assert not memory.incomplete
    own = made.fakes()
    assert own
    assert all(one.running and one.primary and one.uuid == memory.uuid for one in own)
    assert memory.shape == members.counts(made.nodes)
    everybody = {one.my_ip for one in own}
    for one in own:
        assert {member.ip for member in one.settings.members} == everybody
        assert dict(one.settings.variables) == memory.variables
    assert not any(one.desynced or one.former or one.restored for one in own), "nothing is left of backups"
    assert all(one.healthy for one in own)
    assert {path.name for path in made.manager.store.directory.glob("*.zst")} == {
        f"{one.id}.mbstream.zst" for one in made.manager.store.all()
    }
    for balancer in made.fakes("glb"):
        assert {member.ip for member in balancer.balancer.members} == everybody


def test_every_kind_of_operation_has_an_action() -> None:
    kinds = {kind for act, prepare in ACTIONS.values() for kind, _, _ in crashes.points_of(MySQLHarness, act, prepare)}
    lost = {kind for kind, _, _ in crashes.points_of(MySQLHarness, lose, grown)}
    assert kinds | lost >= {kind.name for kind in (*lifecycle.KINDS, *manager.MySQLManager.operations)}


@pytest.mark.parametrize("name", ACTIONS)
def test_a_crash_at_any_step_leaves_one_cluster(name: str) -> None:
    act, prepare = ACTIONS[name]
    checks: list[Any] = []

    def check(made: Any) -> None:
        checks.append(made)
        agrees_with_itself(made)

    assert crashes.crash_everywhere(MySQLHarness, act, prepare, check) == len(checks) > 0


def test_a_crash_while_a_lost_member_is_replaced() -> None:
    def whole(made: Any) -> None:
        made.pass_time(60)
        agrees_with_itself(made)
        assert members.counts(made.nodes) == {"mysql": 3, "glb": 1}

    for point in crashes.points_of(MySQLHarness, lose, grown):
        crashes.run(crashes.Case(point), MySQLHarness, lose, grown, whole)
