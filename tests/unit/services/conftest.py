"""Harnesses of the two services; the scripts of generic nodes end at once here, real ones run in the integration tests."""

from __future__ import annotations

import io
import pathlib
import tarfile
import time
from collections.abc import Callable

import pytest

from conpaas.services.generic.agent import runs
from conpaas.services.generic.manager import cluster
from conpaas.services.generic.manager import manager as generic_manager

MakeArchive = Callable[..., pathlib.Path]


@pytest.fixture
def make_archive(tmp_path: pathlib.Path) -> MakeArchive:
    """Makes a tar archive of the given files: `make_archive("one.tar", **{"run.sh": "echo"})`."""

    def make(name: str = "app.tar.gz", **files: str) -> pathlib.Path:
        path = tmp_path / name
        with tarfile.open(path, "w:gz") as archive:
            for member_name, content in files.items():
                member = tarfile.TarInfo(member_name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content.encode()))
        return path

    return make


class Stage:
    """Decides what happens to scripts: `returns` by file name (default 0); those in `stay` go on until they are ended."""

    def __init__(self) -> None:
        self.returns: dict[str, int] = {}
        self.stay: set[str] = set()
        self.started: list[runs.Run] = []

    def scripts(self) -> list[str]:
        return [run.script.filename for run in self.started]

    def launch(self, run: runs.Run) -> None:
        if run.note("started") or run.note("end"):
            return
        run.write_note("started", pid=None, at=time.time())
        self.started.append(run)
        if run.script.filename not in self.stay:
            self.finish(run, self.returns.get(run.script.filename, 0))

    def finish(self, run: runs.Run, return_code: int) -> None:
        run.write_note("main", return_code=return_code, at=time.time(), error=None)
        run.write_note("end", at=time.time(), reason=run.note("ending").get("reason"))
        for ended in run.spec.ends:
            other = runs.Run(run.directory.parent / ended)
            if not other.note("end"):
                other.end("interrupt")


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Takes the place of the processes of scripts."""
    made = Stage()

    def end(run: runs.Run, reason: str, *, at_once: bool = False) -> None:
        run.write_note("ending", reason=reason, at=time.time())
        if not run.note("end"):
            made.finish(run, -9 if at_once else -15)

    monkeypatch.setattr(runs.RunStore, "launch", lambda _store, run: made.launch(run))
    monkeypatch.setattr(runs.Run, "alive", property(lambda run: bool(run.note("started")) and not run.note("end")))
    monkeypatch.setattr(runs.Run, "end", end)
    monkeypatch.setattr(cluster, "_PATIENCE", 0.0)
    monkeypatch.setattr(cluster, "_PARTING_PATIENCE", 0.0)
    monkeypatch.setattr(generic_manager, "_START_PATIENCE", 0.0)
    monkeypatch.setattr(generic_manager, "_VOLUME_PATIENCE", 0.0)
    return made
