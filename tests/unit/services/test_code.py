"""Code versions on a manager: harmless, within the quota, and never lost once acknowledged."""

from __future__ import annotations

import io
import os
import pathlib
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from conpaas.core import code, errors, git, params, service_parts
from conpaas.core.state import store

PROGRAM = """
import pathlib, sys
from conpaas.core import code, git, params, service_parts
from conpaas.core.state import store
root, archive = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
versions = service_parts.ServiceCodes(store.Store(root / "state.db").codes, 1)
repository = code.CodeRepository(versions, root, git.Repository(root / "absent"), "1")
while True:
    print(repository.upload(params.UploadedFile("app.tar", archive, archive.stat().st_size)).id, flush=True)
"""


class Lab:
    def __init__(self, root: pathlib.Path, *, quota: int = code.QUOTA) -> None:
        self.root = root
        self.archives = root / "code"
        self.archives.mkdir(exist_ok=True)
        self.store = store.Store(root / "state.db")
        self.versions = service_parts.ServiceCodes(self.store.codes, 1)
        self.code = code.CodeRepository(self.versions, self.archives, git.Repository(root / "absent"), "1", quota=quota)

    def archive(self, name: str = "app.tar", **files: bytes) -> pathlib.Path:
        path = self.root / name
        with tarfile.open(path, "w") as archive:
            for member_name, content in (files or {"init.sh": b"true\n"}).items():
                member = tarfile.TarInfo(member_name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return path

    def upload(self, path: pathlib.Path, filename: str = "app.tar") -> Any:
        return self.code.upload(params.UploadedFile(filename, path, path.stat().st_size), "a description")


@pytest.fixture
def lab(tmp_path: pathlib.Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.store.close()


def test_what_was_acknowledged_survives_a_kill(tmp_path: pathlib.Path, lab: Lab) -> None:
    archive = lab.archive(**{"init.sh": b"true", "ballast": os.urandom(100_000)})
    victim = tmp_path / "victim"
    victim.mkdir()
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(victim), str(archive)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().strip() for _ in range(5)]
    process.send_signal(signal.SIGKILL)
    acknowledged += process.stdout.read().split()
    process.wait()
    process.stdout.close()
    survivors = store.Store(victim / "state.db")
    versions = service_parts.ServiceCodes(survivors.codes, 1)
    assert set(acknowledged) <= {record.id for record in versions.list()}
    for record in versions.list():
        assert (victim / record.id).read_bytes() == archive.read_bytes()
    survivors.close()


def test_leftovers_of_an_upload_cut_off_are_removed(lab: Lab) -> None:
    kept = lab.upload(lab.archive())
    (lab.archives / ".code-XXXXXX.new").write_bytes(b"half")
    (lab.archives / "code-YYYYYY").write_bytes(b"without a record")
    lab.code.clean()
    assert [path.name for path in lab.archives.iterdir()] == [kept.id]


def test_the_newest_comes_first_and_one_is_current(lab: Lab) -> None:
    first, second = lab.upload(lab.archive()), lab.upload(lab.archive())
    with pytest.raises(errors.NotFound, match=r"^There is no code version currently enabled\.$"):
        lab.code.current()
    lab.code.set_current(first.id)
    assert [(one["codeVersionId"], one.get("current")) for one in lab.code.list()] == [(second.id, None), (first.id, True)]


def test_the_quota_names_the_way_out(tmp_path: pathlib.Path) -> None:
    lab = Lab(tmp_path, quota=15_000)
    first = lab.upload(lab.archive())
    with pytest.raises(errors.StorageFull, match="would exceed 15000"):
        lab.upload(lab.archive())
    assert [record.id for record in lab.versions.list()] == [first.id]
    lab.code.delete(first.id)
    lab.upload(lab.archive())
    lab.store.close()


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("app.tar.gz", "app.tar.gz"),
        ("C:\\Users\\me\\app.zip", "app.zip"),
        ("/home/me/app.tar", "app.tar"),
        ("../../etc/passwd", "passwd"),
        ('a"; filename="b', "a; filename=b"),
        ("a\r\nSet-Cookie: x", "aSet-Cookie: x"),
        ("..", "code"),
        ("", "code"),
        ("dir/", "code"),
        ("x" * 500 + ".zip", "x" * 196 + ".zip"),
    ],
)
def test_names_of_files_are_made_harmless(sent: str, kept: str) -> None:
    assert code.base_name(sent) == kept


def hostile_tar(path: pathlib.Path, **attributes: Any) -> pathlib.Path:
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("member")
        for name, value in attributes.items():
            setattr(member, name, value)
        archive.addfile(member, io.BytesIO(b"x" * member.size))
    return path


@pytest.mark.parametrize(
    "attributes",
    [
        {"name": "/etc/passwd"},
        {"name": "../escape"},
        {"name": "a/../../escape"},
        {"name": "link", "type": tarfile.SYMTYPE, "linkname": "/etc"},
        {"name": "link", "type": tarfile.SYMTYPE, "linkname": "../../etc"},
        {"name": "hard", "type": tarfile.LNKTYPE, "linkname": "/etc/passwd"},
        {"name": "device", "type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3},
        {"name": "pipe", "type": tarfile.FIFOTYPE},
    ],
)
def test_hostile_archives_are_refused_and_leave_nothing(lab: Lab, attributes: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"^Invalid arguments \("):
        lab.upload(hostile_tar(lab.root / "hostile.tar", **attributes))
    assert list(lab.archives.iterdir()) == []
    assert lab.code.list() == []


def test_a_bomb_is_refused(lab: Lab) -> None:
    path = lab.root / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("zeros", "w", force_zip64=True) as member:
        for _ in range(100):
            member.write(bytes(1_000_000))
    with pytest.raises(errors.TooLarge):
        lab.upload(path)
