"""git over ssh for the users of an application: an own sshd on the manager's VM that serves one repository and nothing else.

Everything lies in one private directory: the repository, the authorized keys, the host key and sshd's configuration. The daemon
runs under the VM's supervisor, as root or as an ordinary user (then on a port above 1023 and only for that user).
"""

from __future__ import annotations

import os
import pathlib
import pwd
import shlex
import socket
import sys
from typing import Final

from conpaas.core import config as configuration
from conpaas.core import errors, file, git, git_keys, misc, node, paths, supervisor

SSHD: Final = pathlib.Path("/usr/sbin/sshd")
DAEMON: Final = "gitsshd"
MAX_PUSH: Final = 200_000_000
_PRIVILEGE_SEPARATION = pathlib.Path("/run/sshd")
_START_TIMEOUT = 20.0
_NO_LOGIN = ("nologin", "false")


def default_port(places: paths.Paths) -> int:
    """The usual port in a VM of its own; another where the machine may have an sshd already, or where the port is not to be had."""
    return 22 if os.getuid() == 0 and places.root == pathlib.Path("/") else 2022


class GitServer:
    """The git server of an application manager. Constructing it touches nothing; `start` makes and starts what is missing."""

    def __init__(self, config: configuration.Config, places: paths.Paths) -> None:
        section = config.main
        self._config = config
        self._paths = places
        self.home = places.lib / "git"
        self.repository = git.Repository(self.home / git.NAME)
        self.keys = git_keys.AuthorizedKeys(self.home / "authorized_keys")
        self.user = config.get(section, "GIT_USER", pwd.getpwuid(os.getuid()).pw_name)
        self.address = config.get(section, "MY_IP", "0.0.0.0")
        self.port = config.get_int(section, "GIT_SSH_PORT", default_port(places), minimum=1, maximum=65535)
        self._max_push = config.get_int(section, "GIT_MAX_PUSH", MAX_PUSH, minimum=1)

    @property
    def url(self) -> str:
        """The clone URL; the classic short form where the port is the usual one."""
        if self.port == 22:
            return f"{self.user}@{self.address}:{git.NAME}"
        return f"ssh://{self.user}@{self.address}:{self.port}/{git.NAME}"

    def start(self) -> None:
        """Prepare the repository and have sshd running. Idempotent.

        Raises ConfigurationError or OperationFailed saying what is in the way.
        """
        self._check()
        self.prepare()
        if os.getuid() == 0:
            _PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        settings = self.home / "sshd_config"
        file.write_atomically(settings, self.sshd_config())
        misc.run([SSHD, "-t", "-f", settings])
        watcher = supervisor.Supervisor(self._paths.service, self._paths.log_dir)
        watcher.ensure(
            supervisor.Daemon(
                name=DAEMON,
                argv=(str(SSHD), "-D", "-e", "-f", str(settings)),
                env={},
                cwd=None,
                user=None,
                log=self._paths.log_dir / DAEMON,
            )
        )
        misc.wait_until(self._answers, timeout=_START_TIMEOUT, what=f"the start of sshd on {self.address}:{self.port}")

    def prepare(self) -> None:
        """Make the private directory, the repository and the host key. Idempotent."""
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        hook = [*_python(), "notify", self._config.source, str(self.repository.path)]
        self.repository.create(max_push=self._max_push, hook=hook)
        key = self._host_key
        if not key.exists():
            draft = self.home / "new_host_key"
            draft.unlink(missing_ok=True)
            misc.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "conpaas", "-f", draft])
            draft.with_suffix(".pub").replace(key.with_suffix(".pub"))
            draft.replace(key)
        if not self.keys.path.exists():
            file.write_atomically(self.keys.path, "", mode=0o644)

    def sshd_config(self) -> str:
        """sshd's whole configuration: keys only, one forced command, nothing forwarded."""
        forced = shlex.join([*_python(), "shell", str(self.repository.path)])
        lines = {
            "ListenAddress": f"{self.address}:{self.port}",
            "HostKey": self._host_key,
            "PidFile": "none",
            "AllowUsers": self.user,
            "AuthorizedKeysFile": self.keys.path,
            "AuthenticationMethods": "publickey",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "StrictModes": "no",
            "UsePAM": "yes" if self._locked_account() else "no",
            "ForceCommand": forced,
            "DisableForwarding": "yes",
            "PermitTTY": "no",
            "PermitTunnel": "no",
            "PermitUserEnvironment": "no",
            "PermitUserRC": "no",
            "PrintMotd": "no",
            "LoginGraceTime": "20",
            "MaxAuthTries": "6",
            "MaxSessions": "2",
            "MaxStartups": "10:30:60",
            "ClientAliveInterval": "60",
            "ClientAliveCountMax": "3",
            "LogLevel": "VERBOSE",
        }
        text = "".join(f"{name} {value}\n" for name, value in lines.items())
        if text.count("\n") != len(lines):
            raise errors.ConfigurationError("A path or name of the git server's configuration holds a line break")
        return text

    @property
    def _host_key(self) -> pathlib.Path:
        return self.home / "ssh_host_ed25519_key"

    def _check(self) -> None:
        if not SSHD.exists():
            raise errors.ConfigurationError(f"{SSHD} is missing on the manager's VM", hint="install the package openssh-server")
        try:
            account = pwd.getpwnam(self.user)
        except KeyError:
            raise errors.ConfigurationError(f"The user {self.user!r} of GIT_USER does not exist on the manager's VM") from None
        if os.getuid() != 0 and account.pw_uid != os.getuid():
            raise errors.ConfigurationError(f"The manager does not run as root, so GIT_USER cannot be {self.user!r}")
        if pathlib.PurePath(account.pw_shell).name in _NO_LOGIN:
            raise errors.ConfigurationError(f"The user {self.user!r} of GIT_USER has no login shell ({account.pw_shell})")
        if account.pw_uid not in (0, os.getuid()):
            key = self._paths.certs / "key.pem"
            raise errors.ConfigurationError(
                f"GIT_USER {self.user!r} cannot announce pushes: only {pwd.getpwuid(os.getuid()).pw_name} may read {key}",
                hint="leave GIT_USER out: pushes then run as the manager's own user, limited to git by the forced command",
            )

    def _locked_account(self) -> bool:
        """Whether sshd would refuse the account unless PAM is asked (a password entry that begins with `!`)."""
        if os.getuid() != 0:
            return False
        entries = pathlib.Path("/etc/shadow").read_text(encoding="utf-8").splitlines()
        return any(line.startswith(f"{self.user}:!") for line in entries)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.address, self.port), timeout=2.0) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False


def tell_manager(config_file: pathlib.Path) -> str:
    """Call the manager's `git_push_hook` with the manager's own certificate; returns the text for the person who pushed."""
    from conpaas.core.https import client, identity

    config = configuration.Config.read(config_file, main="manager")
    places = paths.Paths.from_config(config)
    credentials = identity.Credentials.from_dir(places.certs)
    policy = identity.expect_manager(config.get_int("manager", "USER_ID"), config.get_int("manager", "APP_ID"))
    address = (config.get("manager", "MY_IP", "127.0.0.1"), config.get_int("manager", "MANAGER_PORT", node.MANAGER_PORT))
    rpc = client.RpcClient(credentials, policy)
    try:
        answer = rpc.post(address, "git_push_hook", 0)
    except errors.RemoteError as error:
        return f"The push is stored, but no code version was made: {error}. Push again to try again."
    finally:
        rpc.close()
    return str(answer)


def _python() -> list[str]:
    """The command that runs `conpaas.core.git` under sshd, which hands on no environment."""
    module = [sys.executable, "-m", "conpaas.core.git"]
    search = os.environ.get("PYTHONPATH")
    return ["/usr/bin/env", f"PYTHONPATH={search}", *module] if search else module
