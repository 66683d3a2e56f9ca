"""A real member of a Galera cluster of its own, configured by hand, for tests of what looks at members."""

from __future__ import annotations

import contextlib
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator

import pymysql

from conpaas.core import misc
from tests.support import glb

USER = "mysql" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
_QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


class Member:
    """mariadbd on an address of its own; `peers` are the addresses of all members, none: it founds a cluster."""

    def __init__(self, root: pathlib.Path, peers: tuple[str, ...] = ()) -> None:
        self.ip = glb.new_address()
        self.socket = root / "mysqld.sock"
        self._root = root
        self._log = root / "error.log"
        self._argv = self._prepare(peers)
        self.process = self._start("--wsrep-new-cluster" if not peers else "--wsrep-on=ON")

    def _prepare(self, peers: tuple[str, ...]) -> list[str]:
        data = self._root / "data"
        data.mkdir()
        options = [
            *(
                "--no-defaults",
                f"--datadir={data}",
                f"--tmpdir={self._root}",
                f"--user={USER}",
                "--innodb-buffer-pool-size=32M",
                "--innodb-log-file-size=16M",
            ),
            *("--innodb-flush-log-at-trx-commit=0", "--skip-log-bin", "--binlog-format=ROW", "--innodb-autoinc-lock-mode=2"),
        ]
        if os.geteuid() == 0:
            for path in (self._root, data):
                shutil.chown(path, USER)
        misc.run(
            [
                *("mariadb-install-db", *options, "--auth-root-authentication-method=socket", "--skip-test-db"),
                f"--auth-root-socket-user={USER}",
            ]
        )
        return [
            *("/usr/sbin/mariadbd", *options, f"--socket={self.socket}", f"--pid-file={self._root}/pid", f"--log-error={self._log}"),
            *(f"--bind-address={self.ip}", "--port=3306", "--wsrep-on=ON", "--wsrep-provider=/usr/lib/galera/libgalera_smm.so"),
            *(f"--wsrep-cluster-address=gcomm://{','.join(peers)}", f"--wsrep-node-address={self.ip}", "--wsrep-sst-method=rsync"),
            *(f"--wsrep-cluster-name=test-{os.getpid()}", f"--wsrep-sst-receive-address={self.ip}"),
            f"--wsrep-provider-options=gmcast.listen_addr=tcp://{self.ip}:4567;ist.recv_addr={self.ip}:4568;gcache.size=8M",
        ]

    def _start(self, how: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([*self._argv, how], start_new_session=True, **_QUIET)  # type: ignore[call-overload]
        try:
            glb.until(lambda: process.poll() is not None or self.state() == "Synced", "the member is synced", 40)
            assert process.poll() is None, self._log.read_text()[-2000:]
        except BaseException:
            process.kill()
            raise
        return process

    def sql(self, statement: str) -> list[tuple[str, ...]]:
        """Run a statement as the server's own user would (root is let in too)."""
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def connect(self) -> pymysql.connections.Connection:  # type: ignore[type-arg]
        return pymysql.connect(unix_socket=str(self.socket), user=pwd.getpwuid(os.geteuid()).pw_name, connect_timeout=5, read_timeout=20)

    def state(self) -> str:
        """What Galera calls the state of the member; empty while the server does not answer."""
        with contextlib.suppress(pymysql.MySQLError):
            return self.sql("SHOW GLOBAL STATUS LIKE 'wsrep_local_state_comment'")[0][1]
        return ""

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait()

    def start_again(self) -> None:
        """Found the cluster anew with what is there."""
        mark = self._root / "data" / "grastate.dat"
        mark.write_text(mark.read_text().replace("safe_to_bootstrap: 0", "safe_to_bootstrap: 1"))
        self.process = self._start("--wsrep-new-cluster")


@contextlib.contextmanager
def member(*peers: str) -> Iterator[Member]:
    """A member, gone at the end."""
    root = pathlib.Path(tempfile.mkdtemp(prefix="conpaas-galera."))
    root.chmod(0o755)
    try:
        made = Member(root, peers)
        try:
            yield made
        finally:
            made.kill()
    finally:
        shutil.rmtree(root)
