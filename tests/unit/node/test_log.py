"""Log lines: their form, and the files they go to."""

from __future__ import annotations

import logging
import pathlib
import re
import sys
import threading
from collections.abc import Iterator

import pytest

from conpaas.core import log


@pytest.fixture
def own(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    root = logging.getLogger()
    level, hooks = root.level, (sys.excepthook, threading.excepthook)
    log.init(tmp_path / "cpsmanager.log")
    yield tmp_path / "cpsmanager.log"
    for handler in [handler for handler in root.handlers if isinstance(handler, log.ServiceRouter)]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks


def test_the_classic_line(own: pathlib.Path):
    log.get("conpaas.core.x").warning("hello %s", "world")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING conpaas\.core\.x hello world\n", own.read_text())


def test_no_message_can_forge_a_line(own: pathlib.Path):
    log.get("x").info("name: %s", "evil\n2026-01-01 00:00:00,000 INFO x all is well\r\udce9")
    assert len(own.read_text().splitlines()) == 1
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        log.get("x").exception("failed")
    assert "Traceback" in own.read_text(), "tracebacks stay readable"


def test_lines_of_an_operation_carry_its_id(own: pathlib.Path):
    with log.context(operation="4f2a"):
        log.get("a").info("inside")
        assert log.current_operation() == "4f2a"
    log.get("a").info("outside")
    inside, outside = own.read_text().splitlines()
    assert inside.endswith(" INFO a [operation 4f2a] inside")
    assert outside.endswith(" INFO a outside")


def test_each_service_has_its_file(own: pathlib.Path, tmp_path: pathlib.Path):
    mine = log.open_service(1, tmp_path / "cpsmanager1.log")
    log.open_service(2, tmp_path / "cpsmanager2.log")
    mine.info("by its logger")
    with log.context(service=2, operation="77"):
        log.get("conpaas.core.agents").info("on its behalf")
    log.get("conpaas.core.agents").info("nobody's")
    log.get("conpaas.core.manager12").info("a service without a file")
    assert [line.split(" ", 3)[3] for line in (tmp_path / "cpsmanager1.log").read_text().splitlines()] == [
        "conpaas.core.manager1 by its logger"
    ]
    assert "[operation 77] on its behalf" in (tmp_path / "cpsmanager2.log").read_text()
    assert ["nobody's" in line or "without a file" in line for line in own.read_text().splitlines()] == [True, True]
    log.close_service(1)
    mine.info("after its end")
    assert "after its end" in own.read_text()


def test_files_are_rotated(own: pathlib.Path, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path):
    monkeypatch.setattr(log, "MAX_BYTES", 1000)
    monkeypatch.setattr(log, "KEPT_FILES", 2)
    service = log.open_service(1, tmp_path / "s.log")
    for number in range(200):
        service.info("line %d", number)
    assert sorted(path.name for path in tmp_path.glob("s.log*")) == ["s.log", "s.log.1", "s.log.2"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.glob("s.log*"))


def test_a_thread_that_dies_says_so(own: pathlib.Path):
    def die() -> None:
        raise RuntimeError("out of luck")

    thread = threading.Thread(target=die, name="worker-7")
    thread.start()
    thread.join()
    assert "thread worker-7 ended by an unexpected failure" in own.read_text()
    assert "out of luck" in own.read_text()


def test_bytes_that_no_file_takes_are_shown_escaped(own: pathlib.Path):
    log.get("conpaas.x").info("name %s", b"\xff\xfe".decode(errors="surrogateescape"))
    assert r"\udcff\udcfe" in own.read_text()


def test_details_can_be_left_out_and_libraries_are_quiet(own: pathlib.Path):
    log.init(own, debug=False)
    log.get("conpaas.x").debug("a detail")
    log.init(own, debug=True)
    log.get("conpaas.x").debug("another detail")
    log.get("urllib3.connectionpool").debug("chatter")
    assert own.read_text().count("\n") == 1


def test_started_again_every_line_comes_once(own: pathlib.Path):
    log.init(own)
    log.init(own)
    log.get("conpaas.x").info("once")
    assert own.read_text().count("once") == 1
