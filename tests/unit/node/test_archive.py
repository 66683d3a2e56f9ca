"""Archives from strangers: what is good arrives whole, what is not leaves no trace."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pathlib
import shutil
import stat
import struct
import tarfile
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable

import hypothesis
import hypothesis.strategies as st
import pytest

from conpaas.core import archive, errors

LIMITS = archive.Limits()
FORMATS = ("tar", "tar.gz", "tar.bz2", "tar.xz", "zip")
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"tar": bytes, "tar.gz": gzip.compress, "tar.bz2": bz2.compress, "tar.xz": lzma.compress}

Members = list[tuple[str, str, bytes | str]]
"""Name, kind (file, dir, symlink, hardlink or a tar type), content or target."""

KINDS = {
    "dir": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
}


def tar(members: Members, mode: int = 0o644) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as packed:
        for name, kind, value in members:
            info = tarfile.TarInfo(name)
            info.mode = mode
            if kind == "file":
                assert isinstance(value, bytes)
                info.size = len(value)
                packed.addfile(info, io.BytesIO(value))
            else:
                assert isinstance(value, str)
                info.type, info.linkname = KINDS[kind], value
                packed.addfile(info)
    return made.getvalue()


def zipped(members: Members, mode: int = 0o644) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, kind, value in members:
            info = zipfile.ZipInfo(name + ("/" if kind == "dir" else ""))
            bits = {"file": stat.S_IFREG, "dir": stat.S_IFDIR, "symlink": stat.S_IFLNK, "fifo": stat.S_IFIFO, "char": stat.S_IFCHR}[kind]
            info.external_attr = (bits | mode) << 16
            packed.writestr(info, value, zipfile.ZIP_DEFLATED)
    return made.getvalue()


def packed(members: Members, form: str, mode: int = 0o644) -> bytes:
    return zipped(members, mode) if form == "zip" else COMPRESS[form](tar(members, mode))


def tree(root: pathlib.Path) -> dict[str, bytes | str | None]:
    """Every path below a directory with its content, link target, or None for a directory."""
    found: dict[str, bytes | str | None] = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        found[name] = str(path.readlink()) if path.is_symlink() else None if path.is_dir() else path.read_bytes()
    return found


@pytest.fixture
def place(tmp_path: pathlib.Path) -> pathlib.Path:
    """A directory that holds the archive, a secret, and a target with something in it."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "old").write_text("old")
    return tmp_path


def unpack(place: pathlib.Path, content: bytes, limits: archive.Limits = LIMITS) -> dict[str, bytes | str | None]:
    (place / "archive").write_bytes(content)
    archive.unpack(place / "archive", place / "target", limits)
    assert sorted(path.name for path in place.iterdir()) == ["archive", "secret", "target"]
    return tree(place / "target")


def refuse(place: pathlib.Path, content: bytes, error: type[errors.ConPaaSError], text: str = ".", limits: archive.Limits = LIMITS) -> None:
    """Both reading and unpacking refuse the archive, and nothing changed."""
    (place / "archive").write_bytes(content)
    for attempt in (lambda: archive.check(place / "archive", limits), lambda: archive.unpack(place / "archive", place / "target", limits)):
        with pytest.raises(error, match=text):
            attempt()
    assert sorted(path.name for path in place.iterdir()) == ["archive", "secret", "target"]
    assert tree(place / "target") == {"old": b"old"}
    assert (place / "secret").read_text() == "secret"


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_known_by_its_content(place: pathlib.Path, form: str):
    members: Members = [
        ("site", "dir", ""),
        ("site/index.html", "file", b"<p>hello"),
        ("deep/down/x", "file", b""),
        ("link", "symlink", "site/index.html"),
    ]
    assert unpack(place, packed(members, form)) == {
        "site": None,
        "site/index.html": b"<p>hello",
        "deep": None,
        "deep/down": None,
        "deep/down/x": b"",
        "link": "site/index.html",
    }


def test_an_empty_archive_empties_the_target(place: pathlib.Path):
    assert unpack(place, tar([])) == {}


def test_a_tar_whose_first_name_begins_like_a_zip(place: pathlib.Path):
    assert unpack(place, tar([("PKGBUILD", "file", b"x")])) == {"PKGBUILD": b"x"}


@pytest.mark.parametrize("form", FORMATS)
def test_only_the_execute_bit_survives(place: pathlib.Path, form: str):  # D1
    unpack(place, packed([("run", "file", b"#!/bin/sh")], form, mode=0o6777))
    assert stat.S_IMODE((place / "target" / "run").stat().st_mode) == 0o755
    unpack(place, packed([("data", "file", b"x")], form, mode=0o2666))
    assert stat.S_IMODE((place / "target" / "data").stat().st_mode) == 0o644


def test_hard_links_share_one_file(place: pathlib.Path):
    many: Members = [("big", "file", b"x" * 100_000), *((f"l{number}", "hardlink", "big") for number in range(200))]
    found = unpack(place, tar(many), archive.Limits(max_bytes=200_000))
    assert found["l199"] == b"x" * 100_000
    assert (place / "target" / "big").stat().st_nlink == 201, "no copies, which would fill the disk"


@pytest.mark.parametrize("name", ["/etc/passwd", "\\windows", "C:\\x", "../up", "a/../../up", "a/..", "a\\..\\b"])
@pytest.mark.parametrize("form", FORMATS)
def test_names_that_leave_the_tree(place: pathlib.Path, form: str, name: str):  # D1
    refuse(place, packed([("good", "file", b"x"), (name, "file", b"x")], form), errors.InvalidArgument, archive.ABSOLUTE_NAME)


@pytest.mark.parametrize(
    "links",
    [
        [("a", "../secret")],
        [("a", "/etc/passwd")],
        [("d/a", "../../secret")],
        [("s", "."), ("a", "s/../secret")],
        [("d/s", ".."), ("a", "d/s/../secret")],
        [("a", "s/../secret"), ("s", ".")],
        [("a", "..")],
        [("a", "")],
        [("a", "x" * 5000)],
        [("a", "b"), ("a/c", "x")],
    ],
)
@pytest.mark.parametrize("form", ["tar", "zip"])
def test_links_that_leave_the_tree(place: pathlib.Path, form: str, links: list[tuple[str, str]]):  # D1
    refuse(place, packed([(name, "symlink", target) for name, target in links], form), errors.InvalidArgument)


def test_links_within_the_tree_may_go_through_others(place: pathlib.Path):
    links: Members = [
        ("lib64", "dir", ""),
        ("lib64/x.so.1", "file", b"x"),
        ("lib", "symlink", "lib64"),
        ("bin/x", "symlink", "../lib/x.so.1"),
    ]
    unpack(place, tar(links))
    assert (place / "target" / "bin" / "x").read_bytes() == b"x"


@pytest.mark.parametrize(
    "members",
    [
        [("a", "symlink", "d"), ("a/b", "file", b"x")],
        [("a", "file", b"x"), ("a/b", "file", b"x")],
        [("a", "file", b"x"), ("a", "file", b"y")],
        [("a", "file", b"x"), ("./a", "file", b"y")],
        [("a/b", "file", b"x"), ("a", "file", b"y")],
        [("a", "dir", ""), ("a", "symlink", "b")],
        [("a", "hardlink", "later"), ("later", "file", b"x")],
        [("s", "symlink", "f"), ("f", "file", b"x"), ("a", "hardlink", "s")],
        [("a", "hardlink", "../secret")],
        [("a", "hardlink", "/etc/passwd")],
        [(".", "symlink", "x")],
    ],
)
def test_members_that_contradict_each_other(place: pathlib.Path, members: Members):
    refuse(place, tar(members), errors.InvalidArgument)


@pytest.mark.parametrize(("form", "kind"), [("tar", "fifo"), ("tar", "char"), ("tar", "block"), ("zip", "fifo"), ("zip", "char")])
def test_devices_and_pipes(place: pathlib.Path, form: str, kind: str):  # D1
    refuse(place, packed([("dev", kind, "")], form), errors.InvalidArgument, "neither a file, a directory nor a link")


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0", b"\0" * 100, b"x" * 100_000]
)
def test_what_is_no_archive(place: pathlib.Path, content: bytes):
    refuse(place, content, errors.InvalidArgument, archive.INVALID_FORMAT)


@pytest.mark.parametrize("form", FORMATS)
def test_a_damaged_or_cut_off_archive(place: pathlib.Path, form: str):
    content = packed([("a", "file", os.urandom(30_000)), ("b", "file", os.urandom(30_000))], form)
    refuse(place, content[: len(content) // 2], errors.InvalidArgument, archive.INVALID_FORMAT)
    if form not in ("tar",):
        broken = bytearray(content)
        broken[len(content) // 3 : len(content) // 3 + 64] = bytes(64)
        refuse(place, bytes(broken), errors.InvalidArgument, archive.INVALID_FORMAT)


def test_encrypted_zip(place: pathlib.Path):
    content = bytearray(zipped([("a", "file", b"x")]))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    refuse(place, bytes(content), errors.InvalidArgument, "encrypted")


@pytest.mark.parametrize("form", FORMATS)
def test_limits(place: pathlib.Path, form: str):  # D1
    limits = archive.Limits(max_bytes=100_000, max_members=20, max_name=100, max_depth=8)
    refuse(place, packed([("zeros", "file", bytes(100_001))], form), errors.TooLarge, "more than 100000 bytes", limits)
    refuse(place, packed([(f"f{number}", "file", bytes(10_000)) for number in range(11)], form), errors.TooLarge, "100000", limits)
    refuse(place, packed([(f"f{number}", "file", b"") for number in range(21)], form), errors.TooLarge, "20 members", limits)
    refuse(place, packed([("n" * 101, "file", b"")], form), errors.InvalidArgument, "impossible name", limits)
    refuse(place, packed([("d/" * 9 + "f", "file", b"")], form), errors.InvalidArgument, "impossible name", limits)
    assert unpack(place, packed([("zeros", "file", bytes(100_000))], form), limits)["zeros"] == bytes(100_000)


@pytest.mark.parametrize("form", ["tar.gz", "tar.bz2", "tar.xz", "zip"])
def test_a_bomb_is_told_by_its_ratio(place: pathlib.Path, form: str):
    limits = archive.Limits(max_bytes=1 << 30, ratio_floor=1 << 20, max_ratio=100)
    refuse(place, packed([("zeros", "file", bytes(4 << 20))], form), errors.TooLarge, "times its size", limits)


def header(kind: bytes, size: int, name: str = "x") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.REGTYPE])
def test_a_header_cannot_claim_the_memory_of_the_node(place: pathlib.Path, kind: bytes):
    ten_gigabytes = 10 << 30
    refuse(place, gzip.compress(header(kind, ten_gigabytes) + bytes(1 << 20)), errors.TooLarge)


@pytest.mark.parametrize(("count", "said"), [(60_000, "more than 50000 members"), (2_400_000, "a directory of more than")])
def test_a_zip_of_very_many_members_is_refused_before_each_becomes_an_object(place: pathlib.Path, count: int, said: str):
    local = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"a"
    entries = (struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", 20, 20, *[0] * 7, 1, *[0] * 6) + b"a") * count
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF, len(entries), len(local), 0)
    (place / "many").write_bytes(local + entries + end)
    tracemalloc.start()
    with pytest.raises(errors.TooLarge, match=said):
        archive.check(place / "many")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 110_000_000, "a piece of the directory, not an object for each member"


def test_a_zip_that_lies_about_its_sizes(place: pathlib.Path):
    content = bytearray(zipped([("a", "file", bytes(200_000))]))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = content.index(signature) + offset
        content[start : start + 4] = (10).to_bytes(4, "little")
    refuse(place, bytes(content), errors.InvalidArgument, archive.INVALID_FORMAT, archive.Limits(max_bytes=1000))


def test_what_a_crash_left_is_swept_and_the_old_tree_put_back(place: pathlib.Path):
    (place / ".target.unpacking-abc").mkdir()
    (place / "target").rename(place / ".target.replaced")
    archive.sweep(place / "target")
    assert tree(place / "target") == {"old": b"old"}
    (place / ".target.replaced").mkdir()
    archive.sweep(place / "target")
    assert sorted(path.name for path in place.iterdir()) == ["secret", "target"]


def test_where_names_cannot_be_swapped_the_tree_is_replaced_all_the_same(place: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archive, "_exchange", lambda *_: False)
    assert unpack(place, tar([("new", "file", b"x")])) == {"new": b"x"}


def test_room_on_the_disk_may_be_kept_for_others(place: pathlib.Path):
    archive_file = place / "a.tar.gz"
    archive_file.write_bytes(packed([("a", "file", b"x" * 1000)], "tar.gz"))
    free = shutil.disk_usage(place).free
    with pytest.raises(errors.StorageFull, match="no room on the disk to unpack"):
        archive.unpack(archive_file, place / "full", reserve=2 * free)
    assert not (place / "full").exists()
    archive.unpack(archive_file, place / "fits", reserve=1)
    assert (place / "fits" / "a").read_bytes() == b"x" * 1000


def test_a_full_disk_is_told_as_such(place: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive, "_write", full)
    (place / "archive").write_bytes(tar([("a", "file", b"x")]))
    with pytest.raises(errors.StorageFull):
        archive.unpack(place / "archive", place / "target")
    assert tree(place / "target") == {"old": b"old"}


NAMES = st.text(st.sampled_from("ab./\\\0é"), max_size=8)
TARGETS = st.lists(st.sampled_from(["..", ".", "a", "b", "s", "secret"]), min_size=1, max_size=5).map("/".join)
MEMBERS = st.lists(
    st.one_of(
        st.tuples(st.one_of(NAMES, TARGETS), st.just("file"), st.binary(max_size=20)),
        st.tuples(TARGETS, st.just("dir"), st.just("")),
        st.tuples(TARGETS, st.sampled_from(["symlink", "hardlink"]), TARGETS),
    ),
    max_size=8,
)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(members=MEMBERS, form=st.sampled_from(["tar", "zip"]))
def test_no_archive_reaches_beyond_its_tree(members: Members, form: str):
    if form == "zip":
        members = [member for member in members if member[1] != "hardlink" and "\0" not in member[0] and member[0]]
    with tempfile.TemporaryDirectory() as name:
        place = pathlib.Path(name).resolve()
        (place / "secret").write_text("secret")
        (place / "archive").write_bytes(packed(members, form))
        root = place / "target"
        try:
            archive.unpack(place / "archive", root)
        except errors.ConPaaSError:
            assert not root.exists()
        else:
            for path in root.rglob("*"):
                with_loops = os.path.realpath(path)
                assert pathlib.Path(with_loops).is_relative_to(root), (path, with_loops)
        assert sorted(path.name for path in place.iterdir() if path != root) == ["archive", "secret"]
        assert (place / "secret").read_text() == "secret"


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(
    content=st.binary(max_size=2000),
    prefix=st.sampled_from([b"", b"PK\x03\x04", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", tar([("a", "file", b"x")])[:600]]),
)
def test_noise_is_refused_in_a_sentence(content: bytes, prefix: bytes):
    with tempfile.NamedTemporaryFile() as stream:
        stream.write(prefix + content)
        stream.flush()
        try:
            archive.check(pathlib.Path(stream.name))
        except errors.ConPaaSError as error:
            assert str(error)
