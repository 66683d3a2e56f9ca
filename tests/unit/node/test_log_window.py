"""The window through which every daemon shows its logs."""

from __future__ import annotations

import os
import pathlib

import pytest

from conpaas.core import agent, expose, log_window, manager


def test_agents_and_managers_offer_the_same_window():
    windows = [
        expose.exposed_methods(agent.BaseAgent)[("GET", "get_log")].params,
        expose.exposed_methods(manager.BaseManager)[("GET", "get_manager_log")].params,
        expose.exposed_methods(manager.BaseManager)[("GET", "get_agent_log")].params,
    ]
    assert [window[-2:] for window in windows] == [log_window.PARAMS] * 3


def test_the_answer_tells_where_to_go_on(tmp_path: pathlib.Path):
    (tmp_path / "log").write_bytes(b"one\ntwo \xff\n")
    assert log_window.answer(tmp_path / "log", 0, 4) == {"log": "one\n", "offset": 4, "size": 10}
    assert log_window.answer(tmp_path / "log", 4, log_window.LIMIT) == {"log": "two �\n", "offset": 10, "size": 10}
    assert log_window.answer(tmp_path / "log", 10, log_window.LIMIT) == {"log": "", "offset": 10, "size": 10}


def test_what_is_no_file_is_refused_at_once(tmp_path: pathlib.Path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ".", "absent"):
        with pytest.raises(OSError):
            log_window.answer(tmp_path / name, None, 10)
