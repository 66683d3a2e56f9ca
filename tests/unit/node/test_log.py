"""Logs of daemons: one line per message, the right file, never too large."""

from __future__ import annotations

import contextvars
import logging
import pathlib
import re
import sys
import threading
from collections.abc import Iterator

import pytest

from conpaas.core import log

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ \S+ ")


@pytest.fixture
def own(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """The daemon's own log; the process's logging is as before afterwards."""
    root = logging.getLogger()
    level, hooks = root.level, (sys.excepthook, threading.excepthook)
    log.init(tmp_path / "logs" / "cpsmanager.log")
    yield tmp_path / "logs" / "cpsmanager.log"
    for handler in [handler for handler in root.handlers if isinstance(handler, log.ServiceRouter)]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks


def test_the_classic_line(own: pathlib.Path):
    log.get("conpaas.core.x").warning("%d nodes", 3)
    line = own.read_text()
    assert LINE.match(line)
    assert line.endswith(" WARNING conpaas.core.x 3 nodes\n")


def test_nobody_can_forge_a_line(own: pathlib.Path):
    log.get("conpaas.x").info("user %s", "eve\n2026-01-01 00:00:00,000 INFO conpaas.auth eve is an operator\r")
    assert own.read_text().count("\n") == 1
    assert "\r" not in own.read_text()


def test_bytes_that_no_file_takes_are_shown_escaped(own: pathlib.Path):
    log.get("conpaas.x").info("name %s", b"\xff\xfe".decode(errors="surrogateescape"))
    assert r"\udcff\udcfe" in own.read_text()


def test_a_service_has_a_file_of_its_own(own: pathlib.Path):
    first = log.open_service(1, own.with_name("manager1.log"))
    log.open_service(12, own.with_name("manager12.log"))
    first.info("by its logger")
    log.get("conpaas.core.manager12.git").info("by a part of its logger")
    with log.context(service=1):
        log.get("conpaas.core.agents").info("by its context")
    log.get("conpaas.core.manager").info("of no service")
    log.get("conpaas.core.manager3").info("of a service without a file")
    assert [line.split(" ", 4)[4] for line in own.with_name("manager1.log").read_text().splitlines()] == ["by its logger", "by its context"]
    assert own.with_name("manager12.log").read_text().count("\n") == 1
    assert own.read_text().count("\n") == 2
    log.close_service(1)
    first.info("after its end")
    assert "after its end" in own.read_text()


def test_an_operation_can_be_followed(own: pathlib.Path):
    with log.context(operation="ab12"), log.context(service=None):
        assert log.current_operation() == "ab12"
        log.get("conpaas.x").info("inside")
        thread = threading.Thread(target=contextvars.copy_context().run, args=(log.get("conpaas.x").info, "in its thread"))
        thread.start()
        thread.join()
    log.get("conpaas.x").info("outside")
    told = [line.split(" ", 4)[4] for line in own.read_text().splitlines()]
    assert told == ["[operation ab12] inside", "[operation ab12] in its thread", "outside"]


def test_a_log_never_fills_the_disk(own: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(log, "MAX_BYTES", 2000)
    log.init(own)
    for number in range(400):
        log.get("conpaas.x").info("line %d", number)
    files = sorted(own.parent.glob("cpsmanager.log*"))
    assert len(files) == log.KEPT_FILES + 1
    assert all(path.stat().st_size <= 2000 for path in files)
    assert own.read_text().endswith("line 399\n")


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


def test_an_unexpected_failure_is_in_the_log(own: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    def fail() -> None:
        raise ValueError("oops")

    thread = threading.Thread(target=fail, name="worker-7")
    thread.start()
    thread.join()
    try:
        fail()
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    text = own.read_text()
    assert "thread worker-7 ended by an unexpected failure" in text
    assert text.count("ValueError: oops") == 2
    assert "oops" in capsys.readouterr().err
