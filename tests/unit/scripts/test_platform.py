"""What quickstart knows of its own supervisor."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
ASK = "set -euo pipefail; . scripts/lib/platform.sh; STATE=$1; if pid=$(supervisor_pid); then echo runs; else echo none; fi"


def ask(state: pathlib.Path, pid: int | str) -> str:
    (state / "runsvdir.pid").write_text(f"{pid}\n")
    done = subprocess.run(["bash", "-c", ASK, "-", state], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_a_supervisor_that_was_killed_and_not_waited_for_is_none(tmp_path: pathlib.Path) -> None:
    killed = subprocess.Popen(["true"])
    os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert ask(tmp_path, killed.pid) == "none"
    finally:
        killed.wait()


@pytest.mark.parametrize("pid", ["", "none", "0", "1073741824"])
def test_what_is_no_process_is_none(tmp_path: pathlib.Path, pid: str) -> None:
    assert ask(tmp_path, pid) == "none"


def test_another_process_is_none(tmp_path: pathlib.Path) -> None:
    assert ask(tmp_path, os.getpid()) == "none"
