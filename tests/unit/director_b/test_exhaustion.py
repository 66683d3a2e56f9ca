"""Users without credits: services stop in order, and what they are made of stays for a while."""

from __future__ import annotations

import dataclasses
import datetime
import pathlib
from typing import Any

import pytest

from conpaas.core import errors
from conpaas.director import credits, models, notices
from conpaas.director.lifecycle import exhaustion

from .test_api import Api

HOUR = datetime.timedelta(hours=1)


class Ending:
    """A running application whose owner runs out of credits, and a clock."""

    def __init__(self, world: Any, directory: pathlib.Path, keep: int = 72) -> None:
        self.world = world
        self.now = models.utcnow()
        self.director = Api(world, directory).director
        self.director.config = dataclasses.replace(self.director.config, exhausted_keep_hours=keep)
        self.director.clock = lambda: self.now
        self.asked: list[int] = []
        self.reachable = True
        self.handler = exhaustion.Exhaustion(self.director, world.life.parts, self, world.life.stop_all_of)  # type: ignore[arg-type]
        self.director.on_exhausted(self.handler.handle)
        world.ask([{"role": "web"}])
        world.set_balance(0)

    def post(self, aid: int, method: str, **options: Any) -> Any:
        """The manager's RPC."""
        assert method == "stopall"
        self.asked.append(aid)
        if not self.reachable:
            raise errors.Unreachable("connection refused")
        return {"operations": {}}

    def rounds(self, **forward: float) -> None:
        self.now += datetime.timedelta(**forward)
        credits.tick(self.director)

    def roles(self) -> list[str]:
        return [machine.role for machine in self.world.machines()]

    def notices(self) -> list[str]:
        with self.world.database.reader() as session:
            return [notice.kind for notice in session.query(models.Notice)]


@pytest.fixture
def ending(running: Any, tmp_path: pathlib.Path) -> Ending:
    return Ending(running, tmp_path)


def test_the_manager_is_asked_to_stop_its_services_and_stays(ending: Ending) -> None:
    ending.rounds(hours=1, minutes=1)
    assert set(ending.asked) == {ending.world.aid}
    assert ending.world.application().status == "RUNNING"
    (agent,) = [machine for machine in ending.world.machines() if machine.role == "agent"]
    ending.world.remove([{"vmid": agent.vmid, "cloud_name": agent.cloud}])  # what the manager does then
    asked = len(ending.asked)
    ending.rounds(hours=5)
    assert (ending.roles(), len(ending.asked)) == (["manager"], asked)


def test_nothing_is_charged_meanwhile_and_nothing_afterwards_for_it(ending: Ending) -> None:
    for _ in range(10):
        ending.rounds(hours=1)
    with ending.world.database.session() as session:
        assert credits.balance(session, ending.world.uid) == 0
        credits.adjust(session, ending.world.uid, 5, ending.now, "new credits")
    ending.rounds(minutes=1)
    assert ending.world.balance() == 5
    ending.rounds(hours=1)
    assert ending.world.balance() == 4
    assert ending.world.application().status == "RUNNING"


def test_an_hour_that_began_unseen_meanwhile_is_not_paid_with_new_credits(ending: Ending) -> None:
    ending.rounds(hours=1, minutes=5)
    ending.now += datetime.timedelta(hours=2)
    with ending.world.database.session() as session:
        assert credits.adjust(session, ending.world.uid, 5, ending.now, "new credits") == 5
    ending.rounds(minutes=1)
    assert ending.world.balance() == 5


def test_nodes_of_a_manager_that_does_not_answer_go_and_kept_disks_stay(ending: Ending) -> None:
    world = ending.world
    (agent,) = [machine for machine in world.machines() if machine.role == "agent"]
    cloud = world.clouds["iaas"]
    with world.database.session() as session:
        disk = {"cloud": "iaas", "name": "kept", "size": 5, "app_id": world.aid, "state": "attached", "keep": True}
        session.add(models.Volume(vol_id="v", vmid=agent.vmid, device="sdb", **disk))
    ending.reachable = False
    ending.rounds(hours=1, minutes=1)
    assert ending.roles() == ["manager", "agent"]
    ending.rounds(minutes=16)
    assert ending.roles() == ["manager"]
    assert {vmid for _, vmid in world.vms()} == {world.application().manager_vmid}
    assert [(disk.name, disk.state, disk.vmid) for disk in world.disks()] == [("kept", "available", None)]
    assert cloud.nodes.keys() == {world.application().manager_vmid}


def test_services_can_be_started_again_with_credits(ending: Ending) -> None:
    ending.reachable = False
    ending.rounds(hours=1, minutes=1)
    ending.rounds(minutes=16)
    with pytest.raises(errors.OperationFailed, match="Insufficient credits"):
        ending.world.ask([{"role": "web"}], key="k2")
    with ending.world.database.session() as session:
        credits.adjust(session, ending.world.uid, 5, ending.now, "new credits")
    ending.rounds(minutes=1)
    assert len(ending.world.ask([{"role": "web"}], key="k3")) == 1


def test_in_the_end_everything_is_stopped(ending: Ending) -> None:
    ending.rounds(hours=1, minutes=1)
    ending.rounds(hours=71)
    assert ending.world.application().status == "RUNNING"
    ending.rounds(hours=1)
    assert (ending.world.application().status, ending.world.vms()) == ("STOPPED", set())


def test_nothing_is_kept_where_the_operator_says_so(running: Any, tmp_path: pathlib.Path) -> None:
    ending = Ending(running, tmp_path, keep=0)
    ending.rounds(hours=1, minutes=1)
    assert (ending.world.application().status, ending.world.vms(), ending.asked) == ("STOPPED", set(), [])


def test_the_user_is_told_once_for_each_time(ending: Ending) -> None:
    for _ in range(3):
        ending.rounds(hours=1)
    assert ending.notices() == [notices.CREDITS_ENDED]
    with ending.world.database.session() as session:
        credits.adjust(session, ending.world.uid, 1, ending.now, "one more")
    ending.rounds(minutes=1)
    for _ in range(3):
        ending.rounds(hours=1)
    assert ending.notices() == [notices.CREDITS_ENDED] * 2


def test_a_user_who_has_credits_after_all_is_left_alone(ending: Ending) -> None:
    with ending.world.database.session() as session:
        credits.adjust(session, ending.world.uid, 9, ending.now, "in the last moment")
    ending.handler.handle(ending.world.uid)
    assert (ending.asked, ending.notices()) == ([], [])
