"""Files that are never half-written, excerpts of long ones, notes, and running programs."""

from __future__ import annotations

import os
import pathlib
import sys

import hypothesis
import hypothesis.strategies as st
import pytest

from conpaas.core import errors, file, misc


def test_writing_replaces_whole_and_keeps_nothing_beside(tmp_path: pathlib.Path):
    path = tmp_path / "x"
    file.write_atomically(path, "one", mode=0o600)
    file.write_atomically(path, b"two", mode=0o640)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "x"
    file.write_atomically(path, "old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        file.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_not_followed(tmp_path: pathlib.Path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "x").symlink_to("secret")
    file.write_atomically(tmp_path / "x", "new")
    assert (tmp_path / "secret").read_text() == "secret"


def test_excerpts(tmp_path: pathlib.Path):
    path = tmp_path / "log"
    path.write_bytes(b"0123456789")
    assert file.read_bounded(path) == file.Excerpt("0123456789", 10, 10)
    assert file.read_bounded(path, limit=4) == file.Excerpt("6789", 10, 10), "without an offset, the end"
    assert file.read_bounded(path, offset=0, limit=4) == file.Excerpt("0123", 4, 10)
    assert file.read_bounded(path, offset=10) == file.Excerpt("", 10, 10)
    assert file.read_bounded(path, offset=11).text == "0123456789", "the file was rotated meanwhile"
    assert file.tail(path, 3) == "789"
    assert file.tail(tmp_path / "none") == ""


def test_bytes_that_are_no_text(tmp_path: pathlib.Path):
    path = tmp_path / "log"
    path.write_bytes(b"a\xff\xfeb")
    assert file.read_bounded(path).text == "a\ufffd\ufffdb"


@hypothesis.given(text=st.text(max_size=60), limit=st.integers(4, 20))
def test_pieces_make_the_whole_text(tmp_path_factory: pytest.TempPathFactory, text: str, limit: int):
    path = tmp_path_factory.mktemp("pieces") / "log"
    path.write_text(text, encoding="utf-8", newline="")
    pieces, offset = [], 0
    while True:
        piece = file.read_bounded(path, offset=offset, limit=limit)
        pieces.append(piece.text)
        if piece.offset == piece.size:
            break
        assert piece.offset > offset
        offset = piece.offset
    assert "".join(pieces) == text


@hypothesis.given(content=st.binary(max_size=40), limit=st.integers(1, 10))
def test_pieces_of_anything_come_to_an_end(tmp_path_factory: pytest.TempPathFactory, content: bytes, limit: int):
    path = tmp_path_factory.mktemp("pieces") / "log"
    path.write_bytes(content)
    offset = 0
    for _ in range(len(content) + 1):
        piece = file.read_bounded(path, offset=offset, limit=limit)
        if piece.offset == piece.size:
            return
        assert piece.offset > offset
        offset = piece.offset
    raise AssertionError("no end")


def test_notes_are_remembered(tmp_path: pathlib.Path):
    notes = file.Notes(tmp_path / "notes")
    notes.set(version="1", roles=["web"], gone=1)
    notes.set(gone=None)
    again = file.Notes(tmp_path / "notes")
    assert (again.get("version"), again.get("roles"), again.get("gone", "default")) == ("1", ["web"], "default")
    assert (tmp_path / "notes").stat().st_mode & 0o777 == 0o600
    (tmp_path / "notes").write_text("{")
    with pytest.raises(errors.ConfigurationError, match="damaged"):
        file.Notes(tmp_path / "notes")


def test_removing_a_tree_that_resists(tmp_path: pathlib.Path):
    locked = tmp_path / "tree" / "locked"
    locked.mkdir(parents=True)
    (locked / "x").write_text("x")
    (tmp_path / "tree" / "link").symlink_to(tmp_path)
    locked.chmod(0)
    file.remove_tree(tmp_path / "tree")
    file.remove_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


def test_running_a_program():
    assert misc.run(["cat"], stdin=b"hello") == "hello"
    assert misc.run([sys.executable, "-c", "import sys; sys.exit(3)"], accepted=(0, 3)) == ""
    with pytest.raises(errors.OperationFailed, match="failed with code 4: no such thing"):
        misc.run([sys.executable, "-c", "import sys; sys.exit(print('no such thing', file=sys.stderr) or 4)"])
    with pytest.raises(errors.OperationFailed, match="nobody-has-this is not installed"):
        misc.run(["nobody-has-this"])
    with pytest.raises(errors.OperationFailed, match=r"did not end within 0.05 seconds"):
        misc.run(["sleep", "60"], timeout=0.05)


def test_waiting_for_something():
    answers = iter([None, None, "here"])
    assert misc.wait_until(lambda: next(answers), timeout=5, what="it", interval=0.001) == "here"
    with pytest.raises(errors.OperationFailed, match="It did not happen within 0 seconds"):
        misc.wait_until(lambda: None, timeout=0, what="It")


def test_what_is_no_file_is_refused_at_once(tmp_path: pathlib.Path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ".", "absent"):
        with pytest.raises(OSError):
            file.read_bounded(tmp_path / name)
    assert file.tail(tmp_path / "absent") == ""


def test_room_is_told_in_bytes(tmp_path: pathlib.Path):
    assert file.free_bytes(tmp_path) > 4096
