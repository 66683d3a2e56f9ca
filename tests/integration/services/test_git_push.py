"""Code by `git push` over a real sshd under runit, announced to a manager over mutual TLS."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from conpaas.core import config, errors, git_server, paths
from conpaas.core.https import identity, server, x509
from conpaas.testing import harness, simulation

HOST = "127.18.0.1"

pytestmark = pytest.mark.skipif(
    not git_server.SSHD.exists() or shutil.which("runsvdir") is None or shutil.which("git") is None,
    reason="needs openssh-server, runit and git",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class ManagerVm(harness.Harness):
    """A manager whose configuration is a file, as in a VM, served over TLS, with a supervisor for its sshd."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.ports = {"MANAGER_PORT": str(free_port()), "GIT_SSH_PORT": str(free_port())}
        super().__init__("generic", directory=directory, settings={**self.ports, "MY_IP": HOST})
        where = paths.Paths.under(directory / "manager", daemon="cpsmanager")
        self.runsvdir = subprocess.Popen(["runsvdir", "-P", str(where.service)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        callers = identity.manager_callers(simulation.USER_ID, simulation.APP_ID)
        credentials = self._enrol(where.certs)
        self.https = server.HttpsServer((HOST, int(self.ports["MANAGER_PORT"])), server.rpc_wsgi(self.app.rpc, callers), credentials)
        self.https.start_in_thread()

    def _config(self, daemon: str, section: str, root: pathlib.Path, extra: Any = None) -> config.Config:
        made = super()._config(daemon, section, root, extra)
        text = f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in {**made.section(section), "MY_IP": HOST}.items())
        path = root / "config.cfg"
        path.write_text(text)
        return config.Config.read(path, main=section)

    def _enrol(self, directory: pathlib.Path) -> identity.Credentials:
        ca_key, ca = x509.new_ca()
        key = x509.new_key()
        subject = x509.Subject(role="manager", cn="ConPaaS", uid=simulation.USER_ID, aid=simulation.APP_ID)
        (directory / "cert.pem").write_text(x509.issue(ca_key, ca, key.public_key(), subject, san=[HOST]))
        (directory / "key.pem").write_text(x509.key_pem(key))
        (directory / "ca_cert.pem").write_text(x509.certificate_pem(ca))
        return identity.Credentials.from_dir(directory)

    def close(self) -> None:
        self.https.stop()
        self.runsvdir.send_signal(signal.SIGHUP)
        self.runsvdir.wait(20)
        super().close()


class Developer:
    """Somebody with a key and a working copy."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.key = directory / "key"
        self.copy = directory / "copy"
        self.copy.mkdir(parents=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "dev@example", "-f", self.key], check=True)
        self.git("init", "-q", "-b", "master")

    @property
    def public_key(self) -> pathlib.Path:
        return self.key.with_suffix(".pub")

    @property
    def ssh_options(self) -> list[str]:
        known = self.directory / "known_hosts"
        options = ["IdentitiesOnly=yes", "BatchMode=yes", "StrictHostKeyChecking=accept-new", f"UserKnownHostsFile={known}"]
        return ["-F", "none", "-i", str(self.key), *(word for option in options for word in ("-o", option))]

    def git(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "GIT_SSH_COMMAND": " ".join(["ssh", *self.ssh_options]),
            "GIT_CONFIG_GLOBAL": os.devnull,
            **{f"GIT_{who}_{what}": "dev@example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }
        done = subprocess.run(["git", *words], cwd=self.copy, env=environment, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done

    def commit(self, message: str, **files: str) -> str:
        for name, content in files.items():
            path = self.copy / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD").stdout.strip()

    def ssh(self, vm: ManagerVm, *words: str) -> subprocess.CompletedProcess[str]:
        manager = vm.manager
        user = manager.git.user  # type: ignore[attr-defined]
        return subprocess.run(
            ["ssh", *self.ssh_options, "-p", vm.ports["GIT_SSH_PORT"], f"{user}@{HOST}", *words],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManagerVm]:
    made = ManagerVm(tmp_path_factory.mktemp("vm"))
    yield made
    made.close()


@pytest.fixture
def developer(vm: ManagerVm, tmp_path: pathlib.Path) -> Iterator[Developer]:
    made = Developer(tmp_path)
    assert vm.call("upload_authorized_key", key=made.public_key) == {"outcome": "1 keys added to authorized_keys"}
    made.git("remote", "add", "origin", vm.call("list_authorized_keys")["repository"])
    yield made
    vm.call("delete_authorized_key", key=made.public_key.read_text().strip())


def versions(vm: ManagerVm) -> list[str]:
    return [version["codeVersionId"] for version in vm.call("list_code_versions")["codeVersions"]]


def test_a_push_registers_a_version_and_tells_the_person(vm: ManagerVm, developer: Developer) -> None:
    revision = developer.commit("Say hello", **{"1__run.sh": f"echo hello {developer.directory}", "1__init.sh": "exit 0"})
    pushed = developer.git("push", "-f", "origin", "master")
    assert f"code version: git-{revision[:7]}" in pushed.stderr
    newest = vm.call("list_code_versions")["codeVersions"][0]
    assert (newest["codeVersionId"], newest["filename"], newest["description"]) == (f"git-{revision[:7]}", revision[:7], "Say hello")
    with pytest.raises(errors.RemoteError, match=r"^ERROR: To download this code, please clone the git repository$"):
        vm.call("download_code_version", codeVersionId=newest["codeVersionId"])

    developer.commit("Another service", **{"2__run.sh": "echo no"})
    refused = developer.git("push", "origin", "master").stderr
    assert "code version:" not in refused
    assert "A service takes the directory named after its id" in refused
    assert versions(vm)[0] == newest["codeVersionId"]

    developer.git("checkout", "-q", "-b", "topic")
    developer.commit("On a branch", **{"1__run.sh": "echo topic"})
    assert "refs/heads/topic is stored" in developer.git("push", "-f", "origin", "topic").stderr
    assert versions(vm)[0] == newest["codeVersionId"]


def test_a_pushed_version_runs_on_the_nodes(vm: ManagerVm, developer: Developer) -> None:
    revision = developer.commit("Write a word", **{"1__init.sh": f"echo {developer.directory} >&2; exit 0", "1__lib__word": "moin"})
    developer.git("push", "-f", "origin", "master")
    vm.call("enable_code", codeVersionId=f"git-{revision[:7]}")
    vm.start()
    (node,) = vm.nodes
    assert vm.call("get_script_output", agentId=node.id, script="init.sh", stream="stderr")["output"].strip() == str(developer.directory)
    assert (vm.directory / "nodes" / node.id / "var/cache/cpsagent/bin/lib/word").read_text() == "moin"
    vm.stop()


def test_a_clone_gives_back_what_was_pushed(vm: ManagerVm, developer: Developer) -> None:
    revision = developer.commit("Something", **{"1__file": str(developer.directory)})
    developer.git("push", "-f", "origin", "master")
    fetched = developer.git("ls-remote", "origin").stdout
    assert f"{revision}\trefs/heads/master" in fetched
    assert "refs/conpaas" not in fetched


@pytest.mark.parametrize(
    "words", [(), ("id",), ("git-upload-pack", "/etc"), ("git-receive-pack", "code;id"), ("scp", "-t", "/tmp"), ("env",)]
)
def test_a_key_is_good_for_git_only(vm: ManagerVm, developer: Developer, words: tuple[str, ...]) -> None:
    done = developer.ssh(vm, *words)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Only git push, fetch and clone of the repository 'code' are possible here" in done.stderr


def test_nothing_is_forwarded_and_no_environment_is_taken(vm: ManagerVm, developer: Developer) -> None:
    manager: Any = vm.manager
    shown = subprocess.run(
        [git_server.SSHD, "-T", "-f", manager.git.home / "sshd_config"], capture_output=True, text=True, check=True
    ).stdout.lower()
    for line in (
        "disableforwarding yes",
        "permittty no",
        "permittunnel no",
        "permituserenvironment no",
        "permituserrc no",
        "passwordauthentication no",
        "kbdinteractiveauthentication no",
        "authenticationmethods publickey",
        "permitrootlogin without-password",
    ):
        assert line in shown.splitlines()
    assert "acceptenv" not in shown


def test_a_stranger_gets_nowhere(vm: ManagerVm, developer: Developer, tmp_path: pathlib.Path) -> None:
    stranger = Developer(tmp_path / "stranger")
    assert "Permission denied (publickey)" in stranger.ssh(vm, "git-upload-pack", "code").stderr


def test_a_key_that_was_removed_no_longer_works(vm: ManagerVm, developer: Developer, tmp_path: pathlib.Path) -> None:
    former = Developer(tmp_path / "former")
    vm.call("upload_authorized_key", key=former.public_key)
    known = vm.call("list_authorized_keys")
    line = former.public_key.read_text().strip()
    assert line in known["authorizedKeys"]
    assert former.ssh(vm, "id").returncode == 1
    vm.call("delete_authorized_key", key=known["fingerprints"][known["authorizedKeys"].index(line)])
    assert "Permission denied (publickey)" in former.ssh(vm, "id").stderr


def test_a_hostile_key_file_changes_nothing(vm: ManagerVm, developer: Developer, tmp_path: pathlib.Path) -> None:
    before = vm.call("list_authorized_keys")
    (tmp_path / "keys").write_text(f'{developer.public_key.read_text()}command="sh" {developer.public_key.read_text()}')
    with pytest.raises(errors.RemoteError, match=r"^Line 2 of the file of keys: A key must begin with"):
        vm.call("upload_authorized_key", key=tmp_path / "keys")
    assert vm.call("list_authorized_keys") == before


def test_a_push_whose_announcement_fails_is_stored_and_can_be_repeated(vm: ManagerVm, developer: Developer) -> None:
    revision = developer.commit("While the manager is away", **{"1__run.sh": str(developer.directory)})
    vm.https.stop()
    pushed = developer.git("push", "-f", "origin", "master")
    assert "The push is stored, but no code version was made" in pushed.stderr
    manager: Any = vm.manager
    assert f"git-{revision[:7]}" not in versions(vm)
    assert manager.on_git_push() == f"git-{revision[:7]}"
