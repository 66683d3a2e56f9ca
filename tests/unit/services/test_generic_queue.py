"""The queue of notify.sh on one node: what was promised is started, whatever goes wrong meanwhile."""

from __future__ import annotations

import pathlib
import shutil
import threading
from typing import Any

import pytest

from conpaas.core import file, misc, paths
from conpaas.services.generic import scripts
from conpaas.services.generic.agent import launcher, membership, runs, versions


@pytest.fixture
def made(tmp_path: pathlib.Path, stage: Any, monkeypatch: pytest.MonkeyPatch) -> launcher.Launcher:
    """A node that runs run.sh, with code that has a notify.sh."""
    monkeypatch.setattr(launcher, "_QUEUE_INTERVAL", 0.01)
    monkeypatch.setattr(launcher, "_QUEUE_PATIENCE", 0.02)
    places = paths.Paths(**{name: tmp_path / name for name in paths.Paths.__dataclass_fields__})
    (places.cache / "bin").mkdir(parents=True)
    for name in ("init.sh", "notify.sh"):
        (places.cache / "bin" / name).write_text("true")
    notes = file.Notes(places.lib / "generic.json")
    settings = launcher.Settings(grace=1.0, output_limit=1000, log_limit=10000, runs_kept=5)
    members = membership.Membership(places.cache / "agents.json", notes)
    stage.stay = {"init.sh"}
    return launcher.Launcher(places, versions.CodeVersions(places.cache), members, notes, settings)


def ask(made: launcher.Launcher, script: scripts.Script, run: str) -> runs.Run:
    request = launcher.Request.make(script, run=run, time_limit=None)
    found = made.notify(request) if script is scripts.Script.NOTIFY else made.start(request)
    assert found is not None
    return found


def test_a_start_that_fails_is_tried_again(made: launcher.Launcher, stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    init = ask(made, scripts.Script.INIT, "first")
    refusals = [OSError(28, "No space left on device"), OSError(28, "No space left on device")]

    def launch(run: runs.Run) -> None:
        if refusals:
            raise refusals.pop()
        stage.launch(run)

    monkeypatch.setattr(made.store, "launch", launch)
    waiting = ask(made, scripts.Script.NOTIFY, "second")
    assert waiting.queued
    stage.finish(init, 0)
    misc.wait_until(lambda: bool(waiting.note("end")), timeout=10.0, what="the start of the waiting notify.sh")


def test_a_run_that_comes_while_the_watch_ends_is_not_forgotten(
    made: launcher.Launcher, stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ask(made, scripts.Script.INIT, "first")
    ask(made, scripts.Script.NOTIFY, "second")
    looked, go_on, look = threading.Event(), threading.Event(), made._start_queued

    def look_slowly() -> bool:
        waits = look()
        if threading.current_thread().name == "queued notify" and not waits:
            looked.set()
            go_on.wait(10.0)
        return waits

    monkeypatch.setattr(made, "_start_queued", look_slowly)
    stage.finish(first, 0)
    assert looked.wait(10.0)
    init = ask(made, scripts.Script.INIT, "third")
    late = threading.Thread(target=ask, args=(made, scripts.Script.NOTIFY, "fourth"))
    late.start()
    misc.wait_until(lambda: made.store.get("fourth") is not None, timeout=10.0, what="the record of the late request")
    go_on.set()
    late.join(10.0)
    stage.finish(init, 0)
    misc.wait_until(lambda: bool(made.store.get("fourth").note("end")), timeout=10.0, what="the run that came while the watch ended")


def test_the_watch_ends_with_its_directory(made: launcher.Launcher, stage: Any) -> None:
    ask(made, scripts.Script.INIT, "first")
    ask(made, scripts.Script.NOTIFY, "second")
    assert made._watched
    shutil.rmtree(made._places.lib)
    misc.wait_until(lambda: not made._watched, timeout=10.0, what="the end of the watch")
