"""What only a person at a terminal sees: questions, progress, and Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

PATIENCE = 60
"""Seconds without a word from the program after which a test gives up."""


class Terminal:
    """A program on a terminal of its own, read as it is written to."""

    def __init__(self, platform: Any, *args: str) -> None:
        self.descriptor, child = pty.openpty()
        environment = {"HOME": str(platform.home), "PATH": os.environ["PATH"], "TERM": "xterm", "COLUMNS": "200"}
        controlling = "import os; os.close(os.open(os.ttyname(0), os.O_RDWR))"  # makes it the session's own terminal
        code = f"{controlling}; from conpaas.client import main; raise SystemExit(main.main())"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *args],
            stdin=child, stdout=child, stderr=child, env=environment, cwd=platform.home, start_new_session=True,
        )  # fmt: skip
        os.close(child)
        self.shown = ""

    def until(self, text: str) -> None:
        """Read until `text` was shown, or the end."""
        while text not in self.shown:
            piece = self._read()
            assert piece, f"{text!r} never came: {self.shown!r}"
            self.shown += piece

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def end(self) -> int:
        """Read to the end; the exit code."""
        while piece := self._read():
            self.shown += piece
        return self.process.wait(timeout=30)

    def _read(self) -> str:
        ready, _, _ = select.select([self.descriptor], [], [], PATIENCE)
        assert ready, f"nothing more came within {PATIENCE} s: {self.shown!r}"
        with contextlib.suppress(OSError):
            return os.read(self.descriptor, 65536).decode("utf-8", "replace")
        return ""


@contextlib.contextmanager
def terminal(platform: Any, *args: str) -> Iterator[Terminal]:
    opened = Terminal(platform, *args)
    try:
        yield opened
    finally:
        opened.process.kill()
        opened.process.wait()
        os.close(opened.descriptor)


def test_a_destructive_verb_asks_first(platform: Any) -> None:
    platform.login()
    platform.running_services()
    with terminal(platform, "application", "delete", "shop") as shown:
        shown.until("Delete application 'shop' with everything in it?")
        shown.type("n\n")
        assert shown.end() == 1
    assert platform.record.named("deleteapp") == []
    with terminal(platform, "application", "delete", "shop", "--yes") as shown:
        assert shown.end() == 0
    assert len(platform.record.named("deleteapp")) == 1


def test_progress_names_the_step(platform: Any) -> None:
    platform.login()
    platform.running_services()
    platform.record.states[1] = "INIT"
    with terminal(platform, "service", "start", "1", "1") as shown:
        assert shown.end() == 0
    assert "create nodes" in shown.shown
    assert "Service 1 of application 1 is starting...  done." in shown.shown


def test_an_interrupted_wait_says_how_to_go_on(platform: Any) -> None:
    platform.login()
    platform.running_services()
    with terminal(platform, "wait", "1", "1", "--for", "STOPPED") as shown:
        shown.until("RUNNING (")
        shown.type("\x03")
        assert shown.end() == 130
    assert "Interrupted." in shown.shown


def test_login_asks_for_everything(platform: Any) -> None:
    with terminal(platform, "login") as shown:
        shown.until("Director URL: ")
        shown.type(f"{platform.url}\n")
        shown.until("Trust it?")
        shown.type("y\n")
        shown.until("User name: ")
        shown.type("bob\n")
        shown.until("Password of bob: ")
        shown.type("secret word\n")
        assert shown.end() == 0
    assert "secret word" not in shown.shown
    assert platform.ok("cps-application", "list") == "No existing applications.\n"


def test_colours_are_for_terminals(platform: Any) -> None:
    platform.login()
    platform.running_services()
    with terminal(platform, "application", "list") as shown:
        assert shown.end() == 0
    assert "\x1b[32mRUNNING" in shown.shown
    assert "\x1b" not in platform.ok("cps-application", "list")
