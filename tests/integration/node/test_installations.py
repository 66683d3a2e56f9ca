"""What depends on how and by whom the code is run: the code's number in every kind of installation, an ordinary user's rights."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

import pytest

from conpaas.core import resources

ASK = "from conpaas.core import resources; print(resources.code_sha256()); print(resources.root())"


def asked(place: pathlib.Path, program: str = ASK) -> list[str]:
    """What the copy of the code in `place` says of itself: its SHA-256 and where its run-time files are."""
    environment = {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, cwd="/", capture_output=True, text=True, check=True)
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
    assert asked(installed) == [sha256, str(installed / "conpaas" / "_data")]

    archive = tmp_path / "ConPaaS.tar.gz"
    make = f"import pathlib; from conpaas.core import resources; print(resources.code_tarball(pathlib.Path({str(archive)!r})))"
    assert asked(installed, make) == [sha256]
    with tarfile.open(archive) as packed:
        assert {(member.uid, member.gid, member.mtime) for member in packed} == {(0, 0, 315_532_800)}
        packed.extractall(tmp_path / "vm")
    assert asked(tmp_path / "vm" / "ConPaaS" / "src")[0] == sha256


def test_an_ordinary_user_removes_trees_that_are_write_protected(tmp_path: pathlib.Path):
    script = "import os, pathlib, sys\nfrom conpaas.core import file\n"
    if os.geteuid() == 0:
        os.chown(tmp_path, 65534, 65534)
        script += "os.chdir(sys.argv[1]); os.setgid(65534); os.setuid(65534)\n"
    script += (
        "top = pathlib.Path('tree'); (top / 'a/b/c').mkdir(parents=True); (top / 'a/b/file').write_text('x')\n"
        "(top / 'out').symlink_to('/etc')\n"
        "for name in ('a/b/c', 'a/b', 'a', ''): (top / name).chmod(0)\n"
        "file.remove_tree(top); file.remove_tree(top); assert not top.exists()\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert pathlib.Path("/etc/passwd").exists()
