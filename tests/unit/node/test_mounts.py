"""Disks in use on a node: nothing that holds data is ever formatted."""

from __future__ import annotations

import pathlib
import subprocess

import pytest

from conpaas.core import errors, file, misc, mounts


@pytest.fixture
def image(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "disk.img"
    with path.open("wb") as stream:
        stream.truncate(16_000_000)
    return path


def mounts_in(tmp_path: pathlib.Path) -> mounts.Mounts:
    return mounts.Mounts(tmp_path, tmp_path / "media", file.Notes(tmp_path / "notes.json"))


def test_an_empty_device_may_be_formatted(image: pathlib.Path) -> None:
    assert not mounts.holds_data(image)


@pytest.mark.parametrize("command", [["mkfs.ext4", "-q", "-F"], ["mkswap"]])
def test_a_device_with_something_on_it_holds_data(image: pathlib.Path, command: list[str]) -> None:
    subprocess.run([*command, image], check=True, capture_output=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    assert mounts.holds_data(image)


def test_a_device_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path: pathlib.Path) -> None:
    with pytest.raises(OSError, match="gone"):
        mounts.holds_data(tmp_path / "gone")


@pytest.mark.parametrize(("told", "formatted"), [("", True), ("TYPE=ext4\n", False), ("PTTYPE=gpt\n", False)])
def test_what_is_on_a_block_device_decides(
    tmp_path: pathlib.Path, image: pathlib.Path, monkeypatch: pytest.MonkeyPatch, told: str, formatted: bool
) -> None:
    """With programs that only tell that they were called: mounting is for root."""
    called: list[str] = []

    def run(argv: list[object], **options: object) -> str:
        called.append(str(argv[0]))
        return told if argv[0] == "blkid" else ""

    monkeypatch.setattr(misc, "run", run)
    monkeypatch.setattr(pathlib.Path, "is_block_device", lambda path: path.resolve() == image)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "sdb").symlink_to(image)
    mounts_in(tmp_path).mount("sdb", "data")
    assert called == ["blkid", *(["mkfs.ext4"] if formatted else []), "mount"]


def test_a_directory_is_used_as_it_is_and_again_after_a_restart(tmp_path: pathlib.Path) -> None:
    disk = tmp_path / "disk"
    (tmp_path / "dev").mkdir()
    disk.mkdir()
    (disk / "file").write_text("kept")
    (tmp_path / "dev" / "sdb").symlink_to(disk)
    mounts_in(tmp_path).mount("sdb", "data")
    (tmp_path / "media" / "data").unlink()
    again = mounts_in(tmp_path)
    again.restore()
    assert (tmp_path / "media" / "data" / "file").read_text() == "kept"
    again.unmount("data")
    again.unmount("data")
    assert (disk / "file").read_text() == "kept"
    assert again.known() == {}


def test_names_are_checked(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.InvalidArgument, match="invalid characters"):
        mounts_in(tmp_path).mount("sdb", "../data")
    with pytest.raises(errors.InvalidArgument, match="is not the name of a device"):
        mounts_in(tmp_path).mount("../sda", "data")
