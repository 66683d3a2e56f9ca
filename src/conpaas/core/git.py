"""The bare repository of an application manager: what was pushed, which directories changed, archives of revisions.

One repository serves all services of the application; each service has the directory named after its id. This module is also
what runs on behalf of a person who pushes: `shell` (the only command a key may run) and `notify` (the post-receive hook).
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shlex
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from conpaas.core import errors, file

if TYPE_CHECKING:
    import git

BRANCHES: Final = ("master", "main")
"""Branches whose pushes make code versions."""
NAME: Final = "code"
"""The repository's name in a clone URL."""
REGISTERED: Final = "code version:"
"""How the manager's answer begins when a push made a version."""

_PUSHED = "refs/conpaas/pushed"
_KEPT = "refs/conpaas/versions"
_NULL = "0" * 40
_COMMANDS = {"git-receive-pack": "receive-pack", "git-upload-pack": "upload-pack"}
_CONFIGURATION = {
    "core.fsync": "all",
    "receive.fsckObjects": "true",
    "transfer.fsckObjects": "true",
    "transfer.hideRefs": "refs/conpaas",
    "receive.denyDeleteCurrent": "ignore",
    "receive.autogc": "true",
    "http.receivepack": "false",
}


@dataclasses.dataclass(frozen=True)
class Revision:
    """A commit: its full id, the abbreviated id used in code version ids, and the first line of its message."""

    id: str
    subject: str

    @property
    def short(self) -> str:
        """The first seven digits."""
        return self.id[:7]


class Repository:
    """The bare repository at `path`. Reading methods need it to exist; `create` is idempotent."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    @property
    def exists(self) -> bool:
        """Whether it was created."""
        return (self.path / "HEAD").is_file()

    def create(self, *, max_push: int, hook: Iterable[str]) -> None:
        """Make the repository, or bring its settings up to date. `max_push` bounds one push in bytes, `hook` is run after each push."""
        import git

        if not self.exists:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            git.Repo.init(self.path, mkdir=True, bare=True, initial_branch=BRANCHES[0])
        with self._open().config_writer("repository") as writer:
            for name, value in {**_CONFIGURATION, "receive.maxInputSize": str(max_push)}.items():
                section, _, option = name.rpartition(".")
                writer.set_value(section, option, value)
        text = f"#!/bin/sh\nexec {shlex.join(hook)}\n"
        file.write_atomically(self.path / "hooks" / "post-receive", text, mode=0o755)

    def pushed(self) -> Revision | None:
        """The revision that was pushed last to one of `BRANCHES`, None if there was none."""
        return self.find(_PUSHED) if self.exists else None

    def note_push(self, revision: str) -> None:
        """Remember the revision that was pushed last."""
        self._open().git.update_ref(_PUSHED, revision)

    def keep(self, revision: str) -> None:
        """Keep a revision for ever, whatever becomes of the branches."""
        self._open().git.update_ref(f"{_KEPT}/{revision}", revision)

    def release(self, revision: str) -> None:
        """Undo `keep`."""
        self._open().git.update_ref("-d", f"{_KEPT}/{revision}")

    def find(self, name: str) -> Revision | None:
        """The commit called `name` (id, branch or other reference), None if there is none."""
        import git

        try:
            commit = self._open().commit(name)
        except (git.BadName, git.GitCommandError, ValueError, IndexError):
            return None
        message = commit.message if isinstance(commit.message, str) else commit.message.decode("utf-8", "replace")
        subject = (message.splitlines() or [""])[0]
        return Revision(commit.hexsha, "".join(letter for letter in subject if letter.isprintable())[:500])

    def directory(self, revision: str, name: str) -> str | None:
        """The id of the tree of a directory in a revision: the same id means the same content. None if there is no such directory."""
        try:
            item = self._open().commit(revision).tree[name]
        except KeyError:
            return None
        return str(item.hexsha) if item.type == "tree" else None

    def archive(self, revision: str, directory: str, to: pathlib.Path) -> None:
        """Write a tar archive of a directory's content. Raises NotFound if the revision or the directory is not there."""
        if self.find(revision) is None or self.directory(revision, directory) is None:
            raise errors.NotFound(f"Revision {revision[:7]} has no directory {directory!r} in the git repository")
        draft = to.with_name(f".{to.name}.{os.getpid()}")
        try:
            with draft.open("wb") as stream:
                self._open().archive(stream, f"{revision}:{directory}", format="tar")
                stream.flush()
                os.fsync(stream.fileno())
            draft.replace(to)
        finally:
            draft.unlink(missing_ok=True)

    def _open(self) -> git.Repo:
        import git

        repository = git.Repo(self.path)
        repository.git.update_environment(
            GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="safe.directory", GIT_CONFIG_VALUE_0=str(self.path), GIT_CONFIG_GLOBAL=os.devnull
        )
        return repository


def served_command(original: str, repository: pathlib.Path) -> list[str]:
    """The command to run for what an ssh client asked for. Raises Forbidden for anything but a push to or fetch from `repository`."""
    refusal = errors.Forbidden(f"Only git push, fetch and clone of the repository '{NAME}' are possible here")
    try:
        words = shlex.split(original)
    except ValueError:
        raise refusal from None
    if len(words) == 3 and words[0] == "git":
        words = [f"git-{words[1]}", words[2]]
    if len(words) != 2 or words[0] not in _COMMANDS:
        raise refusal
    asked = words[1].removeprefix("~/").lstrip("/").rstrip("/").removesuffix(".git")
    if asked not in (NAME, f"home/git/{NAME}", str(repository).lstrip("/")):
        raise refusal
    return ["git", _COMMANDS[words[0]], str(repository)]


def pushed_revision(lines: Iterable[str]) -> tuple[str | None, list[str]]:
    """From the lines a post-receive hook gets: the new revision of a branch that makes versions, and the other references updated."""
    revision, others = None, []
    for line in lines:
        words = line.split()
        if len(words) != 3 or words[1] == _NULL:
            continue
        name = words[2].removeprefix("refs/heads/")
        if name in BRANCHES:
            revision = words[1]
        else:
            others.append(words[2])
    return revision, others


def _shell(arguments: list[str]) -> None:
    command = served_command(os.environ.get("SSH_ORIGINAL_COMMAND", ""), pathlib.Path(arguments[0]))
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "USER", "LOGNAME", "SSH_CONNECTION") if name in os.environ}
    os.execvpe(command[0], command, {**kept, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"})  # noqa: S606


def _notify(arguments: list[str]) -> None:
    from conpaas.core import git_server

    revision, others = pushed_revision(sys.stdin)
    for name in others:
        print(f"{name} is stored; only {' and '.join(BRANCHES)} make code versions")
    if revision is not None:
        Repository(pathlib.Path(arguments[1])).note_push(revision)
        answer = git_server.tell_manager(pathlib.Path(arguments[0]))
        print(answer)
        if not answer.startswith(REGISTERED):
            print("A service takes the directory named after its id, such as 1/run.sh for service 1, when its content has changed")


def main(arguments: list[str]) -> int:
    """`shell <repository>` or `notify <configuration> <repository>`."""
    action = {"shell": _shell, "notify": _notify}[arguments[0]]
    try:
        action(arguments[1:])
    except errors.ConPaaSError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
