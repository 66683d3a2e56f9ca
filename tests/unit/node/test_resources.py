"""Run-time files and the identity of the code: the same number in a source tree, an installed copy and a fetched archive."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
import tarfile

import pytest

from conpaas.core import errors, resources

ASK = "from conpaas.core import resources; print(resources.code_sha256()); print(resources.root())"


def asked(place: pathlib.Path) -> list[str]:
    """What the copy of the code in `place` says of itself: its SHA-256 and where its run-time files are."""
    environment = {"PYTHONPATH": str(place), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", ASK], env=environment, cwd="/", capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.fixture
def source(tmp_path: pathlib.Path) -> pathlib.Path:
    """A source tree of its own, so that work on this one disturbs no test."""
    tree = tmp_path / "source"
    skipped = shutil.ignore_patterns("__pycache__", "*.pyc", ".*", "*~")
    shutil.copytree(pathlib.Path(resources.__file__).parent.parent, tree / "src" / "conpaas", ignore=skipped)
    for name in resources.TREES:
        shutil.copytree(resources.root() / name, tree / name, ignore=skipped)
    return tree


def test_source_tree_installed_copy_and_fetched_archive_agree(source: pathlib.Path, tmp_path: pathlib.Path):
    sha256, root = asked(source / "src")
    assert root == str(source)

    installed = tmp_path / "site-packages"
    shutil.copytree(source / "src" / "conpaas", installed / "conpaas")
    for name in resources.TREES:
        shutil.copytree(source / name, installed / "conpaas" / "_data" / name)
    (installed / "conpaas" / "__pycache__").mkdir(exist_ok=True)
    (installed / "conpaas" / "__pycache__" / "x.pyc").write_bytes(b"compiled")
    assert asked(installed) == [sha256, str(installed / "conpaas" / "_data")]

    archive = tmp_path / "ConPaaS.tar.gz"
    make = f"import pathlib; from conpaas.core import resources; print(resources.code_tarball(pathlib.Path({str(archive)!r})))"
    done = subprocess.run(
        [sys.executable, "-c", make], env={"PYTHONPATH": str(installed)}, cwd="/", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == sha256
    with tarfile.open(archive) as packed:
        assert {(member.uid, member.gid, member.mtime) for member in packed} == {(0, 0, 315_532_800)}
        packed.extractall(tmp_path / "vm", filter="data")
    assert asked(tmp_path / "vm" / "ConPaaS" / "src")[0] == sha256


def test_every_change_of_the_code_changes_its_number(source: pathlib.Path):
    before = asked(source / "src")[0]
    with (source / "scripts" / "vm" / "setup").open("a") as stream:
        stream.write("# more\n")
    changed = asked(source / "src")[0]
    (source / "config" / "new.cfg").write_text("")
    assert len({before, changed, asked(source / "src")[0]}) == 3


def test_permissions_and_times_do_not(source: pathlib.Path):
    before = asked(source / "src")[0]
    (source / "scripts" / "vm" / "setup").chmod(0o700)
    (source / "scripts" / "vm" / "setup").touch()
    assert asked(source / "src")[0] == before


def test_the_number_is_kept_while_nothing_changes(monkeypatch: pytest.MonkeyPatch):
    first = resources.code_sha256()

    def never(_members: object) -> bytes:
        raise AssertionError("the archive is made anew")

    monkeypatch.setattr(resources, "_archive", never)
    assert resources.code_sha256() == first


@pytest.mark.parametrize("name", ["/etc/passwd", "../setup.py", "config/../../x"])
def test_only_run_time_files_can_be_read(name: str):
    with pytest.raises(errors.InvalidArgument):
        resources.read(name)


def test_what_is_missing_is_told():
    assert "[agent]" in resources.read("config/agent/default-agent.cfg")
    assert resources.find_in_package("conpaas.services.helloworld", "helloworld-agent.cfg").is_file()
    with pytest.raises(errors.NotFound, match="config/none"):
        resources.find("config/none")
    for package in ("conpaas.services.helloworld", "conpaas.none", "none"):
        with pytest.raises(errors.NotFound):
            resources.find_in_package(package, "none.cfg")
