"""What to do with MariaDB's programs: prepare a server, check its configuration, found its data, find out where it stands."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import logging
import os
import pathlib
import pwd
import re
import subprocess
import tempfile
from typing import Final

from conpaas.core import errors, file, misc, supervisor
from conpaas.services.mysql import spec
from conpaas.services.mysql.workload import galera, layout

log: Final = logging.getLogger(__name__)
DAEMON: Final = "mariadbd"
SCRIPTS: Final = ("start_mariadbd.sh", "transfer.bash")
BACKUP_LOG: Final = "mariabackup.backup.log"
_PATH: Final = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
_INTERRUPTED: Final = "sst_in_progress"
_INSTALL_TIMEOUT: Final = 120.0
_RECOVER_TIMEOUT: Final = 600.0
_CHECK_TIMEOUT: Final = 30.0
_WRONG: Final = re.compile(r"\[ERROR\] *(?:\S*mariadbd: *)?(.*)")


@dataclasses.dataclass(frozen=True)
class Programs:
    """Where the programs are. `stop_timeout`: seconds that a server may take to end in order."""

    mariadbd: str
    install_db: str
    provider: str
    stop_timeout: float


class MariaDB:
    """One server: `user` runs it (None: the caller), its things are where `places` says. Every method is idempotent."""

    def __init__(self, programs: Programs, places: layout.Layout, user: str | None) -> None:
        self._programs = programs
        self._places = places
        self._user = user
        self._account = pwd.getpwnam(user) if user is not None else pwd.getpwuid(os.geteuid())

    @property
    def account(self) -> str:
        """The user of the operating system that runs the server, and by which it logs in to itself."""
        return self._account.pw_name

    # Directories and files

    def prepare(self) -> None:
        """Have the directories of the server, and those of its files that do not depend on any settings."""
        places = self._places
        for directory, mode in ((places.store, 0o711), (places.etc, 0o755), (places.run, 0o755), (places.logs, 0o755)):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(mode)
        for directory in (places.store, places.run, places.logs):
            self._give(directory)
        places.scratch.mkdir(exist_ok=True, mode=0o700)
        self._give(places.scratch)
        layout.make_socket_directory(places.socket, self._account.pw_uid, self._account.pw_gid)
        for name in SCRIPTS:
            text = (pathlib.Path(__file__).parent / name).read_text(encoding="utf-8")
            _write(places.etc / name, text, 0o755)
        self._adopt(places.data)

    def write_tls(self, tls: spec.TlsFiles) -> bool:
        """Have the certificate, the key and the CA in force, all at once; returns whether they are other ones than before."""
        digest = hashlib.sha256("\0".join((tls.certificate, tls.key, tls.ca)).encode()).hexdigest()[:32]
        directory = self._places.etc / f"tls-{digest}"
        link = self._places.tls
        if link.is_symlink() and link.readlink() == pathlib.Path(directory.name) and directory.is_dir():
            return False
        draft = pathlib.Path(tempfile.mkdtemp(prefix=".tls.", dir=self._places.etc))
        for name, text in (("certificate.pem", tls.certificate), ("key.pem", tls.key), ("ca.pem", tls.ca)):
            file.write_atomically(draft / name, text if text.endswith("\n") else text + "\n", mode=0o600)
            self._give(draft / name)
        self._give(draft)
        if directory.is_dir():
            file.remove_tree(directory)
        draft.rename(directory)
        new_link = self._places.etc / ".tls"
        new_link.unlink(missing_ok=True)
        new_link.symlink_to(directory.name)
        new_link.replace(link)
        file.sync_directory(self._places.etc)
        for other in self._places.etc.glob("tls-*"):
            if other != directory:
                file.remove_tree(other)
        return True

    def configure(self, text: str) -> bool:
        """Put a configuration in place once the server itself found it good; returns whether it is another one than before.

        Raises InvalidArgument with the server's words when it did not.
        """
        path = self._places.configuration
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return False
        draft = path.with_name("checked.cnf")
        file.write_atomically(draft, text, mode=0o644)
        try:
            self._check(draft)
        finally:
            draft.unlink(missing_ok=True)
        file.write_atomically(path, text, mode=0o644)
        return True

    def _check(self, draft: pathlib.Path) -> None:
        """Have the server read a configuration. Some values of plugins it calls wrong and goes on without the plugin: that counts too."""
        words = self._as_user([self._programs.mariadbd, f"--defaults-file={draft}", "--help", "--verbose"])
        try:
            done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_CHECK_TIMEOUT, check=False, cwd="/")
        except (OSError, subprocess.TimeoutExpired) as error:
            raise errors.OperationFailed(f"The configuration of the database server cannot be checked: {error}.") from error
        said = done.stderr.decode(errors="replace")
        found = _causes(said)
        if done.returncode != 0 or found:
            shown = "; ".join(found[:_SHOWN]) or said.strip()[-500:] or f"it ended with code {done.returncode}"
            raise errors.InvalidArgument(f"The database server refuses its configuration: {shown}")

    # Data

    def has_data(self) -> bool:
        """Whether the data directory holds a database that a server can be started with."""
        data = self._places.data
        return (data / "ibdata1").is_file() and (data / "mysql").is_dir() and not self.interrupted()

    def interrupted(self) -> bool:
        """Whether the data are what a state transfer left that never came to its end."""
        return (self._places.data / _INTERRUPTED).exists()

    def found(self) -> None:
        """Make the data of a new database, whole or not at all: no anonymous users, no test database, administrators by socket only.

        Raises OperationFailed when there is anything in the data directory.
        """
        data = self._places.data
        if data.is_dir() and any(data.iterdir()):
            raise errors.OperationFailed(
                f"The data directory {data} holds something that is not a whole database, so no cluster can be founded on it.",
                hint="found the cluster on another node, or empty the directory",
            )
        draft = data.with_name("data.new")
        file.remove_tree(draft)
        draft.mkdir(mode=0o700)
        self._give(draft)
        words = [self._programs.install_db, "--no-defaults", f"--datadir={draft}", f"--tmpdir={self._places.scratch}"]
        words += ["--auth-root-authentication-method=socket", f"--auth-root-socket-user={self.account}"]
        words += ["--skip-test-db", "--skip-name-resolve"]
        if self.account == "root":
            words.append("--user=root")
        misc.run(self._as_user(words), timeout=_INSTALL_TIMEOUT, cwd=draft)
        if data.is_dir():
            data.rmdir()
        draft.rename(data)
        file.sync_directory(data.parent)

    def receive(self) -> None:
        """Have a data directory, which may be empty: what is missing comes from the cluster."""
        self._places.data.mkdir(mode=0o700, exist_ok=True)
        self._give(self._places.data)

    def allow_bootstrap(self) -> None:
        """The next start, and only that one, founds the cluster anew from the data of this node."""
        galera.allow_bootstrap(self._places.data)
        file.write_atomically(self._places.bootstrap, "", mode=0o644)
        self._give(self._places.bootstrap)

    def position(self) -> galera.Position:
        """The last transaction of the stopped server: what it wrote down, else what its storage engine tells. Raises OperationFailed."""
        if not self.has_data():
            return galera.Position()
        saved = galera.saved_state(self._places.data)
        if saved is not None and saved.position.seqno != galera.UNKNOWN:
            return saved.position
        return self._recover()

    def _recover(self) -> galera.Position:
        said = self._places.run / "recovery.log"
        said.unlink(missing_ok=True)
        options = {
            "datadir": self._places.data,
            "tmpdir": self._places.scratch,
            "log-bin": "mysql-bin",
            "binlog-format": "ROW",
            "wsrep-on": "ON",
            "wsrep-provider": self._programs.provider,
            "wsrep-cluster-address": "gcomm://",
            "log-error": said,
            "socket": "recovery.sock",
            "pid-file": self._places.run / "recovery.pid",
        }
        words = [self._programs.mariadbd, "--no-defaults", *(f"--{name}={value}" for name, value in options.items())]
        words += ["--wsrep-recover", "--skip-networking", *(["--user=root"] if self.account == "root" else [])]
        try:
            misc.run(self._as_user(words), timeout=_RECOVER_TIMEOUT, cwd=self._places.data)
        except errors.OperationFailed as error:
            reason = "; ".join(_causes(file.tail(said))) or str(error)
            raise errors.OperationFailed(f"The last transaction of this node cannot be found out: {reason}") from error
        return galera.recovered(file.tail(said, 1_000_000)) or galera.Position()

    # The daemon

    def daemon(self) -> supervisor.Daemon:
        places = self._places
        environment = {"PATH": _PATH, "LANG": "C.UTF-8", "TMPDIR": str(places.scratch), "BASH_ENV": str(places.etc / SCRIPTS[1])}
        script = ["/bin/sh", places.etc / SCRIPTS[0], places.data, places.configuration, places.bootstrap, places.in_force]
        words = [*script, places.error_log, self._programs.mariadbd]
        return supervisor.Daemon(
            name=DAEMON,
            argv=("env", "-i", *(f"{name}={value}" for name, value in environment.items()), *map(str, words)),
            user=self._user,
            stop_timeout=self._programs.stop_timeout,
        )

    # Owners

    def _adopt(self, data: pathlib.Path) -> None:
        """Make the server's user the owner of data that another machine wrote, where that user has another number."""
        if os.geteuid() != 0 or not data.is_dir() or data.stat().st_uid == self._account.pw_uid:
            return
        log.info("the data in %s become %s's", data, self.account)
        for parent, names, files in os.walk(data):
            for name in (*names, *files):
                os.chown(pathlib.Path(parent) / name, self._account.pw_uid, self._account.pw_gid, follow_symlinks=False)
        os.chown(data, self._account.pw_uid, self._account.pw_gid)

    def _give(self, path: pathlib.Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, self._account.pw_uid, self._account.pw_gid, follow_symlinks=False)

    def _as_user(self, words: list[str]) -> list[str]:
        return ["chpst", "-u", self._user, *words] if self._user is not None and os.geteuid() == 0 else words


def _write(path: pathlib.Path, text: str, mode: int) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        file.write_atomically(path, text, mode=mode)


# The error log

_START: Final = re.compile(r"^.*\bStarting MariaDB \d.*$", re.MULTILINE)
_NOISE: Final = re.compile(
    r"Aborting|Cleanup after exit|Removing .* file due to signal|Process completed with error|Failed to read uuid:seqno"
)
_STAMP: Final = re.compile(r" \(\d{8} \d\d:\d\d:\d\d\.\d+\)$")
_FULL: Final = re.compile(r"Errcode: 28\b|No space left on device|error: 28\b|\b28 \"No space")
_REFUSED: Final = re.compile(r"WSREP: \S+ \(([^()\s]+)\): State transfer to \S+ \(\S+\) failed: (.*)")
_BACKUP_FAILURE: Final = re.compile(r"^(\[00\] .*?)?((?:Failed to|mariabackup: (?:Error|error)|Error|.*ERROR).*)$", re.MULTILINE)
READY: Final = "ready for connections."
_SHOWN: Final = 3


def runs(text: str) -> list[str]:
    """What the server logged in each of its runs, the last one last; nothing when the log does not hold the start of any."""
    starts = [match.start() for match in _START.finditer(text)]
    return [text[start:end] for start, end in itertools.pairwise([*starts, len(text)])]


def last_run(text: str) -> str:
    """What it logged since it was last started."""
    found = runs(text)
    return found[-1] if found else text


def former_run(text: str) -> str:
    """What it logged in the run before that one."""
    found = runs(text)
    return found[-2] if len(found) > 1 else ""


def is_open(text: str) -> bool:
    """Whether a run came as far as taking connections."""
    return READY in text


def reason(text: str) -> str | None:
    """Why a run ended or does not get on, from what it logged; None when it tells of no error."""
    found = _causes(text)
    if not found:
        return None
    shown = "; ".join(found[:_SHOWN])
    return f"the disk is full: {shown}" if _FULL.search(text) else shown


def transfer_failure(text: str, backup_log: pathlib.Path) -> str | None:
    """Why the last transfer of this node's data to another one failed, from what the server logged in its run; None when none did."""
    begin = max(text.rfind(f"{kind} started on donor") for kind in ("SST", "IST"))
    said = text[begin:]
    if begin < 0 or re.search(r"(?:SST|IST) completed on donor", said):
        return None
    found = _causes(said)
    if not found:
        return None
    details = [line for _, line in _BACKUP_FAILURE.findall(file.tail(backup_log))] if "mariadb-backup" in said else []
    return "; ".join(list(dict.fromkeys(details))[:_SHOWN] or found[:_SHOWN])


def _causes(text: str) -> list[str]:
    refused = [f"the donor {donor} could not send its data: {why.strip()}" for donor, why in _REFUSED.findall(text)]
    lines = (_STAMP.sub("", said.strip()) for said in _WRONG.findall(text))
    wanted = [line for line in lines if line and not _NOISE.search(line)]
    return list(dict.fromkeys([*refused, *wanted]))
