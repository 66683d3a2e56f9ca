"""Files that are never seen half-written, and files too large to be read whole."""

from __future__ import annotations

import json
import os
import pathlib
import stat
import subprocess
import sys

import hypothesis
import pytest
from hypothesis import strategies as st

from conpaas.core import errors, file


def test_a_file_is_replaced_whole(tmp_path: pathlib.Path):
    path = tmp_path / "x.cfg"
    file.write_atomically(path, "old", mode=0o600)
    file.write_atomically(path, b"new \xff")
    assert path.read_bytes() == b"new \xff"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.cfg"]


def test_a_link_is_replaced_not_followed(tmp_path: pathlib.Path):
    (tmp_path / "victim").write_text("untouched")
    (tmp_path / "x").symlink_to("victim")
    file.write_atomically(tmp_path / "x", "new")
    assert (tmp_path / "victim").read_text() == "untouched"
    assert not (tmp_path / "x").is_symlink()


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "x"
    path.write_text("old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        file.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_the_end_of_a_log_and_what_came_since(tmp_path: pathlib.Path):
    path = tmp_path / "log"
    path.write_text("".join(f"line {number}\n" for number in range(100)))
    end = file.read_bounded(path, limit=16)
    assert (end.text, end.offset, end.size) == ("line 98\nline 99\n", path.stat().st_size, path.stat().st_size)
    with path.open("a") as stream:
        stream.write("line 100\n")
    assert file.read_bounded(path, offset=end.offset).text == "line 100\n"
    path.write_text("rotated\n")
    assert file.read_bounded(path, offset=end.offset).text == "rotated\n", "an offset beyond the end starts anew"


def test_bytes_that_are_no_text(tmp_path: pathlib.Path):
    (tmp_path / "log").write_bytes(b"a\xffb\xc3(\xe2\x82")
    assert file.read_bounded(tmp_path / "log").text == "a�b�(�"


def test_what_is_no_file_is_refused_at_once(tmp_path: pathlib.Path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ".", "absent"):
        with pytest.raises(OSError):
            file.read_bounded(tmp_path / name)
    assert file.tail(tmp_path / "absent") == ""


@hypothesis.settings(max_examples=150, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(text=st.text(max_size=60), limit=st.integers(min_value=4, max_value=20))
def test_a_text_read_in_pieces_is_the_text(tmp_path: pathlib.Path, text: str, limit: int):
    path = tmp_path / "log"
    path.write_bytes(text.encode())
    offset, pieces = 0, ""
    for _ in range(len(text.encode()) + 1):
        piece = file.read_bounded(path, offset=offset, limit=limit)
        assert len(piece.text.encode()) <= limit
        offset, pieces = piece.offset, pieces + piece.text
    assert (pieces, offset) == (text, path.stat().st_size)


class TestNotes:
    def test_values_last_and_none_forgets(self, tmp_path: pathlib.Path):
        notes = file.Notes(tmp_path / "notes")
        notes.set(version="v1", port=80, gone=1)
        notes.set(gone=None)
        again = file.Notes(tmp_path / "notes")
        assert (again.get("version"), again.get("port"), again.get("gone", "forgotten")) == ("v1", 80, "forgotten")
        assert stat.S_IMODE((tmp_path / "notes").stat().st_mode) == 0o600

    def test_nothing_is_written_when_nothing_changes(self, tmp_path: pathlib.Path):
        notes = file.Notes(tmp_path / "notes")
        notes.set(a=1)
        before = (tmp_path / "notes").stat().st_ino
        notes.set(a=1, b=None)
        assert (tmp_path / "notes").stat().st_ino == before

    def test_damage_is_told(self, tmp_path: pathlib.Path):
        (tmp_path / "notes").write_text("{")
        with pytest.raises(errors.ConfigurationError, match="are damaged"):
            file.Notes(tmp_path / "notes")

    def test_what_cannot_be_stored_changes_nothing(self, tmp_path: pathlib.Path):
        notes = file.Notes(tmp_path / "notes")
        notes.set(a=1)
        with pytest.raises(TypeError):
            notes.set(a=object())
        assert notes.get("a") == 1
        assert json.loads((tmp_path / "notes").read_text()) == {"a": 1}


def test_a_protected_tree_can_be_removed_by_its_ordinary_owner(tmp_path: pathlib.Path):
    script = "import os, pathlib, sys\nfrom conpaas.core import file\n"
    if os.geteuid() == 0:
        os.chown(tmp_path, 65534, 65534)
        for above in tmp_path.parents:
            if above.stat().st_uid == 0 and above.is_relative_to("/tmp") and above != pathlib.Path("/tmp"):
                above.chmod(above.stat().st_mode | 0o011)
        script += "os.setgid(65534); os.setuid(65534)\n"
    script += (
        "top = pathlib.Path(sys.argv[1], 'tree'); (top / 'a/b/c').mkdir(parents=True); (top / 'a/b/file').write_text('x')\n"
        "(top / 'out').symlink_to('/etc')\n"
        "for name in ('a/b/c', 'a/b', 'a', ''): (top / name).chmod(0)\n"
        "file.remove_tree(top); file.remove_tree(top); assert not top.exists()\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert pathlib.Path("/etc/passwd").exists()


def test_room_is_told_in_bytes(tmp_path: pathlib.Path):
    assert file.free_bytes(tmp_path) > 4096
