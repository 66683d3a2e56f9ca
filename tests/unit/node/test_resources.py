"""Run-time files and the number that names the code."""

from __future__ import annotations

import hashlib
import os
import pathlib
import tarfile

import pytest

from conpaas.core import errors, resources


@pytest.fixture
def source(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A small source tree in the place of ours."""
    files = {
        "src/conpaas/__init__.py": "",
        "src/conpaas/core/a.py": "a = 1\n",
        "src/conpaas/core/__pycache__/a.pyc": "x",
        "scripts/agent/agent-setup": "#!/bin/bash\n",
        "config/agent/default-agent.cfg": "[agent]\n",
        "sbin/agent/default-cpsagent": "#!/usr/bin/env python3\n",
    }
    for name, text in files.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text(text)
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "tree" / "src" / "conpaas")
    monkeypatch.setattr(resources, "_known", None)
    return tmp_path / "tree"


def test_the_archive_and_the_code_have_one_number(source: pathlib.Path, tmp_path: pathlib.Path):
    sha256 = resources.code_tarball(tmp_path / "ConPaaS.tar.gz")
    assert sha256 == resources.code_sha256() == hashlib.sha256((tmp_path / "ConPaaS.tar.gz").read_bytes()).hexdigest()
    with tarfile.open(tmp_path / "ConPaaS.tar.gz") as archive:
        modes = {member.name: member.mode for member in archive}
    assert modes == {
        "ConPaaS/src/conpaas/__init__.py": 0o644,
        "ConPaaS/src/conpaas/core/a.py": 0o644,
        "ConPaaS/scripts/agent/agent-setup": 0o755,
        "ConPaaS/config/agent/default-agent.cfg": 0o644,
        "ConPaaS/sbin/agent/default-cpsagent": 0o755,
    }


def test_times_and_modes_do_not_count_but_contents_do(source: pathlib.Path):
    before = resources.code_sha256()
    os.utime(source / "src/conpaas/core/a.py", (1, 1))
    (source / "scripts/agent/agent-setup").chmod(0o700)
    assert resources.code_sha256() == before
    facts = (source / "src/conpaas/core/a.py").stat()
    (source / "src/conpaas/core/a.py").write_text("a = 2\n")
    assert resources.code_sha256() != before
    (source / "src/conpaas/core/a.py").write_text("a = 1\n")
    os.utime(source / "src/conpaas/core/a.py", ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    assert resources.code_sha256() == before
    (source / "config/new").write_text("")
    assert resources.code_sha256() != before


def test_an_installed_copy_carries_its_files(source: pathlib.Path):
    (source / "src/conpaas/_data/config").mkdir(parents=True)
    (source / "src/conpaas/_data/config/x").write_text("installed")
    assert resources.read("config/x") == "installed"


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "config/../../x"])
def test_only_run_time_files_are_found(name: str):
    with pytest.raises(errors.InvalidArgument):
        resources.find(name)


def test_a_missing_file_is_told():
    with pytest.raises(errors.NotFound, match="config/nothing"):
        resources.find("config/nothing")
    with pytest.raises(errors.NotFound, match=r"conpaas.core"):
        resources.find_in_package("conpaas.core", "nothing")
    assert resources.find_in_package("conpaas.core", "errors.py").is_file()


def test_the_real_thing_has_what_a_vm_needs():
    for name in (
        "scripts/agent/agent-setup",
        "scripts/cloud/dummy",
        "scripts/cloud/ec2",
        "scripts/cloud/openstack",
        "config/agent/default-agent.cfg",
    ):
        assert resources.find(name).is_file()


def test_the_number_is_kept_while_nothing_changes(source: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    first = resources.code_sha256()

    def never(_members: object) -> bytes:
        raise AssertionError("the archive is made anew")

    monkeypatch.setattr(resources, "_archive", never)
    assert resources.code_sha256() == first
