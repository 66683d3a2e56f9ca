"""The repository of an application, and what a person may do to it over ssh."""

from __future__ import annotations

import pathlib
import random
import shutil
import subprocess
import tarfile

import pytest

from conpaas.core import errors, git

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def run_git(directory: pathlib.Path, *words: str) -> str:
    options = ("-c", "user.name=Me", "-c", "user.email=me@example.org", "-c", "init.defaultBranch=master")
    return subprocess.run(["git", *options, *words], cwd=directory, capture_output=True, text=True, check=True).stdout.strip()


class Clone:
    """Somebody's working copy of the repository."""

    def __init__(self, directory: pathlib.Path, repository: git.Repository) -> None:
        self.directory = directory
        run_git(directory.parent, "clone", "-q", str(repository.path), directory.name)

    def commit(self, message: str, **files: str) -> str:
        for name, content in files.items():
            path = self.directory / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        run_git(self.directory, "add", "-A")
        run_git(self.directory, "commit", "-q", "--allow-empty", "-m", message)
        return run_git(self.directory, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: pathlib.Path) -> git.Repository:
    made = git.Repository(tmp_path / "home" / "code")
    made.create(max_push=1_000_000, hook=["true"])
    return made


@pytest.fixture
def clone(tmp_path: pathlib.Path, repository: git.Repository) -> Clone:
    return Clone(tmp_path / "clone", repository)


def test_nothing_was_pushed_to_a_new_repository(repository: git.Repository) -> None:
    assert repository.exists
    assert repository.pushed() is None
    repository.create(max_push=2_000_000, hook=["true"])
    assert run_git(repository.path, "config", "receive.maxInputSize") == "2000000"
    assert run_git(repository.path, "config", "receive.fsckObjects") == "true"


def test_a_repository_that_was_never_made_has_no_push(tmp_path: pathlib.Path) -> None:
    assert git.Repository(tmp_path / "absent").pushed() is None


def test_a_push_is_remembered_with_its_subject(repository: git.Repository, clone: Clone) -> None:  # D25
    revision = clone.commit("First line\n\nSecond \x07", **{"1__run.sh": "echo"})
    run_git(clone.directory, "push", "-q", "origin", "HEAD:master")
    repository.note_push(revision)
    pushed = repository.pushed()
    assert pushed is not None
    assert (pushed.id, pushed.short, pushed.subject) == (revision, revision[:7], "First line")


def test_directories_of_two_revisions_compare_by_content(repository: git.Repository, clone: Clone) -> None:
    first = clone.commit("one", **{"1__run.sh": "echo", "2__run.sh": "echo"})
    second = clone.commit("two", **{"2__run.sh": "echo again"})
    run_git(clone.directory, "push", "-q", "origin", "HEAD:master")
    assert repository.directory(first, "1") == repository.directory(second, "1") is not None
    assert repository.directory(first, "2") != repository.directory(second, "2")
    assert repository.directory(second, "3") is None


def test_the_archive_of_a_directory_expands_in_place(repository: git.Repository, clone: Clone, tmp_path: pathlib.Path) -> None:
    revision = clone.commit("one", **{"1__run.sh": "echo", "1__lib__a.txt": "a", "2__secret": "no"})
    run_git(clone.directory, "push", "-q", "origin", "HEAD:master")
    repository.archive(revision, "1", tmp_path / "one.tar")
    with tarfile.open(tmp_path / "one.tar") as archive:
        names = {name.rstrip("/") for name in archive.getnames()}
    assert names == {"run.sh", "lib", "lib/a.txt"}
    with pytest.raises(errors.NotFound, match="has no directory '3'"):
        repository.archive(revision, "3", tmp_path / "three.tar")
    assert not list(tmp_path.glob(".three*"))


def test_a_kept_revision_survives_a_forced_push_and_a_clean_up(repository: git.Repository, clone: Clone) -> None:
    revision = clone.commit("one", **{"1__run.sh": "echo"})
    run_git(clone.directory, "push", "-q", "origin", "HEAD:master")
    repository.keep(revision)
    run_git(clone.directory, "commit", "-q", "--amend", "-m", "other")
    run_git(clone.directory, "push", "-q", "-f", "origin", "HEAD:master")
    run_git(repository.path, "-c", "gc.pruneExpire=now", "gc", "-q", "--prune=now")
    assert repository.find(revision) is not None
    repository.release(revision)
    run_git(repository.path, "reflog", "expire", "--expire=now", "--all")
    run_git(repository.path, "gc", "-q", "--prune=now")
    assert repository.find(revision) is None


def test_a_push_that_is_too_large_is_refused(repository: git.Repository, clone: Clone) -> None:
    repository.create(max_push=1000, hook=["true"])
    clone.commit("big", **{"1__blob": random.Random(1).randbytes(20_000).hex()})
    with pytest.raises(subprocess.CalledProcessError):
        run_git(clone.directory, "push", "-q", "origin", "HEAD:master")


@pytest.mark.parametrize(
    "asked",
    [
        "git-receive-pack 'code'",
        "git-upload-pack '/code.git'",
        "git receive-pack code",
        "git-upload-pack '~/code'",
        "git-upload-pack '/home/git/code'",
    ],
)
def test_git_over_ssh_reaches_the_one_repository(asked: str) -> None:
    command = git.served_command(asked, pathlib.Path("/data/git/code"))
    assert command[0] == "git"
    assert command[1] in ("receive-pack", "upload-pack")
    assert command[2] == "/data/git/code"


@pytest.mark.parametrize(
    "asked",
    [
        "",
        "sh",
        "git-receive-pack",
        "git-receive-pack '/etc'",
        "git-receive-pack code; sh",
        "git-receive-pack code extra",
        "git-receive-pack '../code'",
        "git-receive-pack 'code' '--exec=sh'",
        "git-upload-archive code",
        "git -c core.sshCommand=sh receive-pack code",
        "git-receive-pack 'code",
        "git-receive-pack --help",
        "scp -t /tmp",
    ],
)
def test_nothing_else_is_possible_over_ssh(asked: str) -> None:  # D6, D7
    with pytest.raises(errors.Forbidden):
        git.served_command(asked, pathlib.Path("/data/git/code"))


def test_only_master_and_main_make_versions() -> None:
    lines = [
        f"{'0' * 40} {'a' * 40} refs/heads/topic\n",
        f"{'0' * 40} {'b' * 40} refs/heads/main\n",
        f"{'c' * 40} {'0' * 40} refs/heads/master\n",
    ]
    assert git.pushed_revision(lines) == ("b" * 40, ["refs/heads/topic"])
    assert git.pushed_revision(["nonsense"]) == (None, [])
