"""What the server of a node does for who keeps an eye on the room on its disk, and what is said about it."""

from __future__ import annotations

import contextlib
import pathlib
import types
from collections.abc import Iterator
from typing import Any

import pytest

from conpaas.core import file
from conpaas.services.mysql.agent import room, room_server

MB = 1024 * 1024


class Member:
    """A server on a disk of 1000 MB, in a cluster of so many members."""

    def __init__(self, directory: pathlib.Path, size: int) -> None:
        self.notes = file.Notes(directory / "notes.json")
        self.notes.set(wanted=True)
        self.running = True
        self.size = size
        self.did: list[str] = []

    def disk(self) -> pathlib.Path:
        return pathlib.Path("/disk")

    def wanted(self) -> bool:
        return bool(self.notes.get("wanted"))

    def daemon(self) -> Any:
        return types.SimpleNamespace(running=self.running)

    def settings(self) -> Any:
        return types.SimpleNamespace(members=[f"node{number}" for number in range(self.size)])

    def server(self) -> Any:
        return types.SimpleNamespace(configure=self.did.append)

    def render(self, settings: Any, server: Any, weight: int) -> str:
        return f"configured with weight {weight}"

    @contextlib.contextmanager
    def connection(self, timeout: float) -> Iterator[Any]:
        yield self

    def desync(self, on: bool, timeout: float) -> None:
        self.did.append(f"desync {on}")


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statements are remembered by the member that they are for."""
    monkeypatch.setattr(room_server.status, "rows", lambda connection, statement: connection.did.append(statement.split("'")[1]))


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The MB that are left on the disk."""
    left = {"MB": 500}
    monkeypatch.setattr(room.Room, "of", classmethod(lambda cls, directory: cls(1000 * MB, left["MB"] * MB)))
    return left


@pytest.mark.parametrize(("size", "weight"), [(2, 0), (3, 1)])
def test_one_of_two_that_stands_aside_gives_up_its_vote(tmp_path: pathlib.Path, size: int, weight: int) -> None:
    member = Member(tmp_path, size)
    server = room_server.RoomServer(member)  # type: ignore[arg-type]
    server.stand_aside(True, 1.0)
    assert member.did == [f"configured with weight {weight}", f"pc.weight={weight}", "desync True"]
    member.did.clear()
    server.stand_aside(False, 1.0)
    assert member.did == ["configured with weight 1", "pc.weight=1", "desync False"]


def test_what_is_said_of_the_room(tmp_path: pathlib.Path, free: dict[str, int]) -> None:
    server = room_server.RoomServer(Member(tmp_path, 3))  # type: ignore[arg-type]
    assert server.scarce() is None
    free["MB"] = 40
    assert server.scarce() == "40 of 1000 MB are left on its disk."
    server.keeper.wait()
    assert server.scarce() == "40 of 1000 MB are left on its disk: it takes no part until there is more room."


def test_a_server_that_runs_lacks_no_room_to_begin(tmp_path: pathlib.Path, free: dict[str, int]) -> None:
    member = Member(tmp_path, 3)
    server = room_server.RoomServer(member)  # type: ignore[arg-type]
    free["MB"] = 5
    assert server.lacking() is None
    member.running = False
    assert str(server.lacking()) == "5 of 1000 MB are left on its disk"
    free["MB"] = 40
    assert server.lacking() is None
