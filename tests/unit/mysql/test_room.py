"""What a member does when its disk fills up, and when there is room again."""

from __future__ import annotations

import pathlib

import pytest

from conpaas.core import errors, file
from conpaas.services.mysql.agent import room

MB = 1024 * 1024


class Server:
    """A server on a disk of 1000 MB."""

    def __init__(self) -> None:
        self.free = 500
        self.running = True
        self.is_wanted = True
        self.lost = False
        self.others = True
        self.stuck = False
        self.caught_up = True
        self.patience = 0.0
        self.did: list[str] = []

    def measure(self) -> room.Room | None:
        return room.Room(1000 * MB, self.free * MB)

    def wanted(self) -> bool:
        return self.is_wanted

    def working(self) -> bool:
        return self.is_wanted and self.running

    def out_of_step(self) -> bool:
        return self.lost or not self.running

    def stand_aside(self, aside: bool, patience: float) -> None:
        self.patience = patience
        if self.stuck:
            raise errors.Unreachable("The database server does not answer.")
        self.did.append(f"aside {aside}")

    def follows(self) -> bool:
        return self.caught_up

    def end(self, patience: float) -> None:
        self.running, self.patience = False, patience
        self.did.append("end")

    def begin(self) -> None:
        self.running = True
        self.did.append("begin")

    def others_in_step(self) -> bool:
        return self.others


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def keeper(server: Server, tmp_path: pathlib.Path) -> room.Keeper:
    return room.Keeper(file.Notes(tmp_path / "notes.json"), server)


def test_nothing_happens_while_there_is_room(server: Server, keeper: room.Keeper) -> None:
    keeper.look()
    server.free = 51
    keeper.look()
    assert server.did == []


def test_others_go_on_without_a_member_that_has_little_room(server: Server, keeper: room.Keeper) -> None:
    server.free = 49
    keeper.look()
    assert server.did == ["aside True"]
    server.free = 60  # not enough to come back and be out again at once
    keeper.look()
    server.free = 76
    keeper.look()
    assert server.did == ["aside True", "aside False"]


def test_a_server_that_started_again_stands_aside_again(server: Server, keeper: room.Keeper) -> None:
    server.free = 10
    keeper.look()
    keeper.look()
    assert server.did == ["aside True"] * 2


def test_the_last_one_in_step_stays(server: Server, keeper: room.Keeper) -> None:
    server.others = False
    server.free = 20
    keeper.look()
    assert server.did == []
    server.others = True
    keeper.look()
    server.others = False
    keeper.look()
    assert server.did == ["aside True", "aside False"]


def test_a_server_that_holds_up_the_others_is_ended_until_there_is_room(server: Server, keeper: room.Keeper) -> None:
    server.free, server.stuck = 1, True
    keeper.look()
    assert (server.did, keeper.ended) == (["end"], True)
    keeper.look()
    server.others = False
    keeper.look()
    assert server.did == ["end"], "it is not brought back to a full disk"
    server.free, server.stuck = 100, False
    keeper.look()
    assert (server.did, keeper.ended) == (["end", "begin"], False)


def test_a_server_that_does_not_answer_for_another_reason_is_left_alone(server: Server, keeper: room.Keeper) -> None:
    server.free, server.stuck = 30, True
    with pytest.raises(errors.Unreachable):
        keeper.look()
    assert server.running


def test_an_order_that_was_cut_off_is_taken_back(server: Server, keeper: room.Keeper, tmp_path: pathlib.Path) -> None:
    server.free, server.stuck = 30, True
    with pytest.raises(errors.Unreachable):
        keeper.look()
    server.free, server.stuck = 500, False
    room.Keeper(file.Notes(tmp_path / "notes.json"), server).look()
    assert server.did == ["aside False"]


def test_a_server_that_does_not_run_is_told_later(server: Server, keeper: room.Keeper) -> None:
    server.free = 10
    keeper.look()
    server.free, server.running = 500, False
    keeper.look()
    server.running = True
    keeper.look()
    assert server.did == ["aside True", "aside False"]


def test_a_stopped_server_is_none_of_its_business(server: Server, keeper: room.Keeper) -> None:
    server.free, server.running, server.is_wanted = 1, False, False
    keeper.look()
    assert server.did == []


def test_a_server_that_lost_its_cluster_on_a_full_disk_is_ended_whatever_the_others_say(server: Server, keeper: room.Keeper) -> None:
    server.free, server.others, server.lost = 1, False, True
    keeper.look()
    assert (server.did, keeper.ended) == (["end"], True)


def test_a_server_that_cannot_start_for_want_of_room_is_ended_though_it_does_not_run_just_now(server: Server, keeper: room.Keeper) -> None:
    server.free, server.running = 1, False
    keeper.look()
    assert (server.did, keeper.ended) == (["end"], True)
    server.free = 500
    keeper.look()
    assert (server.did, keeper.ended) == (["end", "begin"], False)


def test_a_server_that_stood_aside_and_crashed_is_ended_and_comes_back(server: Server, keeper: room.Keeper) -> None:
    server.free = 10
    keeper.look()
    server.free, server.running = 1, False
    keeper.look()
    assert (server.did, keeper.ended) == (["aside True", "end"], True)


def test_a_server_that_holds_up_the_others_gets_little_time_to_obey(server: Server, keeper: room.Keeper) -> None:
    server.free = 49
    keeper.look()
    slow = server.patience
    server.free, server.stuck = 1, True
    keeper.look()
    assert server.patience < 1.5 < slow


def test_a_server_without_any_room_is_ended_though_it_obeys(server: Server, keeper: room.Keeper) -> None:
    server.free = 1
    keeper.look()
    assert (server.did, keeper.ended, server.patience > 5) == (["aside True", "end"], True, True)


def test_a_server_that_lags_behind_takes_no_part_yet(server: Server, keeper: room.Keeper) -> None:
    """Some of its threads may wait for a full disk still, a minute long, though there is room again."""
    server.free = 30
    keeper.look()
    server.free, server.caught_up = 500, False
    keeper.look()
    assert (server.did, keeper.out) == (["aside True"], True)
    server.caught_up = True
    keeper.look()
    assert (server.did, keeper.out) == (["aside True", "aside False"], False)


def test_a_server_that_is_not_to_begin_before_there_is_room_begins_then(server: Server, keeper: room.Keeper) -> None:
    server.free, server.running = 1, False
    keeper.wait()
    keeper.look()
    assert (server.did, keeper.out) == ([], True)
    server.free = 500
    keeper.look()
    assert (server.did, keeper.out) == (["begin"], False)


def test_what_was_done_is_known_after_a_restart_of_the_agent(server: Server, keeper: room.Keeper, tmp_path: pathlib.Path) -> None:
    server.free, server.stuck = 1, True
    keeper.look()
    again = room.Keeper(file.Notes(tmp_path / "notes.json"), server)
    assert again.ended
    server.free = 500
    again.look()
    assert server.did == ["end", "begin"]


def test_it_says_how_much_is_left() -> None:
    assert str(room.Room(974 * MB, 3 * MB)) == "3 of 974 MB are left on its disk"
