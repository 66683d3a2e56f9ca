"""Code on a node: all of a version or nothing, readable by who serves it."""

from __future__ import annotations

import pathlib
import pwd
import tarfile
import zipfile
from collections.abc import Iterator

import pytest
from tests.support import backends

from conpaas.core import errors


@pytest.fixture
def node() -> Iterator[backends.Node]:
    with backends.node("127.62.5.1") as made:
        yield made


def test_versions_lie_beside_each_other_and_go_by_name(node: backends.Node) -> None:
    assert node.code.list() == []
    for version in ("code-a", "code-b", "git-1234567"):
        node.stage(version, {"index.php": version, "sub/x.txt": "x"})
    assert node.code.list() == ["code-a", "code-b", "git-1234567"]
    node.code.keep(["code-b", "code-x"])
    node.code.keep(["code-b", "code-x"])
    assert node.code.list() == ["code-b"]
    assert (node.code.find("code-b") / "sub" / "x.txt").read_text() == "x"
    assert [path.name for path in node.code.directory.iterdir()] == ["code-b"]
    with pytest.raises(errors.NotFound, match="code-a is not on this node"):
        node.code.find("code-a")


def test_a_version_that_is_there_is_left_as_it_is(node: backends.Node) -> None:  # D8, D26
    node.stage("code-a", {"index.php": "old"})
    (node.code.directory / "code-a" / "upload.jpg").write_text("of a user")
    node.stage("code-a", {"index.php": "new"})
    assert (node.code.directory / "code-a" / "index.php").read_text() == "old"
    assert (node.code.directory / "code-a" / "upload.jpg").exists()


def test_who_serves_owns_the_code(node: backends.Node, tmp_path: pathlib.Path) -> None:
    archive = tmp_path / "code.tar"
    with tarfile.open(archive, "w") as stream:
        for name, kind in (("dir", tarfile.DIRTYPE), ("dir/link", tarfile.SYMTYPE), ("dir/file", tarfile.REGTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.uid, member.linkname = kind, 0o000, 12345, "file"
            stream.addfile(member)
    node.code.stage("code-a", archive, 0)
    tree = node.code.directory / "code-a"
    expected = pwd.getpwnam(node.user).pw_uid if node.user else tree.stat().st_uid
    assert {path.stat().st_uid for path in (tree, *tree.rglob("*"))} == {expected}
    assert (tree / "dir" / "file").stat().st_mode & 0o777 == 0o644


def test_all_of_a_version_is_as_old_as_the_version_on_every_node(node: backends.Node, tmp_path: pathlib.Path) -> None:
    """By size and time servers tell clients whether what they have is still right, and applications make the addresses of files."""
    with tarfile.open(tmp_path / "code.tar", "w") as stream:
        for name, kind in (("dir", tarfile.DIRTYPE), ("dir/file", tarfile.REGTYPE), ("dir/link", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.mtime, member.linkname = kind, 12345, "file"
            stream.addfile(member)
    node.code.stage("code-a", tmp_path / "code.tar", 1_700_000_000)
    tree = node.code.directory / "code-a"
    assert {path.lstat().st_mtime for path in (tree, *tree.rglob("*"))} == {1_700_000_000}


def test_a_war_is_an_archive(node: backends.Node, tmp_path: pathlib.Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.war", "w") as war:
        war.writestr("WEB-INF/web.xml", "<web-app/>")
    node.code.stage("code-w", tmp_path / "a.war", 0)
    assert (node.code.directory / "code-w" / "WEB-INF" / "web.xml").exists()


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x"])
def test_of_a_bad_archive_nothing_is_left(node: backends.Node, tmp_path: pathlib.Path, name: str) -> None:
    backends.pack(tmp_path / "bad.tar", {"good": "x", name: "bad"})
    with pytest.raises(errors.InvalidArgument):
        node.code.stage("code-a", tmp_path / "bad.tar", 0)
    assert node.code.list() == []
    assert not list(node.code.directory.iterdir())


@pytest.mark.parametrize("version", ["", ".", "..", "a/b", ".hidden", "a\nb"])
def test_a_version_is_the_name_of_a_directory(node: backends.Node, tmp_path: pathlib.Path, version: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        node.code.stage(version, tmp_path / "never-read", 0)
