"""Files that somebody else may have had a hand in."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable

import pytest

from conpaas.core import file
from conpaas.services.webservers.workload import launch


def hard_link(path: pathlib.Path, victim: pathlib.Path) -> None:
    path.hardlink_to(victim)


def soft_link(path: pathlib.Path, victim: pathlib.Path) -> None:
    path.symlink_to(victim)


def pipe(path: pathlib.Path, _victim: pathlib.Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("put", [hard_link, soft_link, pipe])
def test_what_is_in_the_place_of_a_log_is_removed(tmp_path: pathlib.Path, put: Callable[[pathlib.Path, pathlib.Path], None]) -> None:
    victim, log = tmp_path / "victim", tmp_path / "a.log"
    victim.write_text("private")
    put(log, victim)
    launch.begin_log(log, None)
    assert (log.is_file(), log.is_symlink(), log.read_text()) == (True, False, "")
    assert victim.read_text() == "private"


def test_a_log_goes_on(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "a.log"
    for _ in range(2):
        launch.begin_log(log, None)
        log.write_text("said")
    assert log.read_text() == "said"


def test_ownership_is_not_given_by_way_of_a_link(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    followed: list[bool] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda *_, follow_symlinks=True: followed.append(follow_symlinks))
    launch.give(tmp_path, "root")
    assert followed == [False]


def test_a_link_is_not_read_where_it_must_not_be(tmp_path: pathlib.Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    (tmp_path / "victim").write_text("private")
    assert file.read_bounded(tmp_path / "link").text == "private"
    with pytest.raises(OSError, match="symbolic links"):
        file.read_bounded(tmp_path / "link", follow=False)
