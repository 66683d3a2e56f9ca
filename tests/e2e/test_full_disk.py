"""The disk under the VMs is full: the manager says so and loses nothing."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.support import consistency, tenants
from tests.support import platform as platforms

APP = "full"
DISK_MB = 48


@pytest.fixture
def small(tmp_path: pathlib.Path) -> Iterator[platforms.Platform]:
    """A platform whose cloud has little room on its disk."""
    disk = tmp_path / "cloud"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(disk)]
    if subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root only")
    try:
        with platforms.platform(tmp_path, 116) as made:
            yield made
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(path: pathlib.Path) -> None:
    """Leave no byte on a disk."""
    with path.open("ab", buffering=0) as stream:
        for size in (65536, 1):
            try:
                while True:
                    stream.write(b"x" * size)
            except OSError:
                continue


def refused(result: platforms.Result) -> None:
    assert result.code == 1, result
    assert "room left" in result.err
    assert "Traceback" not in result.err


def test_a_full_disk_at_the_manager_costs_nothing_but_what_was_asked(small: platforms.Platform, tmp_path: pathlib.Path) -> None:
    app = tenants.deploy(small, "alice", APP, ("helloworld", "generic"))
    sid = str(app.sids["generic"])
    archive = tmp_path / "code.zip"
    archive.write_bytes(b"PK\x05\x06" + bytes(18))
    filler = tmp_path / "cloud" / "filler"
    fill(filler)
    upload = ("generic", "upload_code", APP, sid, archive)
    refused(small.cps(*upload, check=False))
    for words in (("add_nodes", APP, sid), ("stop", APP, sid)):
        refused(small.cps("--yes", "service", *words, check=False))
    states = small.data("application", "get_info", APP)["states"]
    assert states == {"0": "RUNNING", "1": "RUNNING", "2": "RUNNING"}
    assert small.cps("helloworld", "get_helloworld", APP, "1").out
    filler.unlink()
    small.cps("service", "add_nodes", APP, sid)
    assert len(small.data("service", "list_nodes", APP, sid)) == 2
    consistency.assert_consistent(small)
