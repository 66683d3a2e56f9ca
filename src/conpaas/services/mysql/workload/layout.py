"""Where a database server of a node has its things."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import stat
from typing import Final

from conpaas.core import errors, paths

_SHORT: Final = pathlib.Path("/tmp")  # noqa: S108 - the same for every process of the node, whatever its environment says; not trusted
SOCKET_LIMIT: Final = 107
"""Bytes that the address of a unix socket holds."""
_SOCKET: Final = "mysql.sock"


@dataclasses.dataclass(frozen=True)
class Layout:
    """`store` holds all that must outlive the machine; `run` what need not outlive a reboot."""

    store: pathlib.Path
    etc: pathlib.Path
    run: pathlib.Path
    logs: pathlib.Path

    @classmethod
    def of(cls, places: paths.Paths, disk: pathlib.Path | None = None) -> Layout:
        """The places on a node; `disk` is where its disk is mounted, if it has one."""
        return cls(disk.resolve() if disk else places.lib / "mysql", places.etc / "mysql", places.run / "mysql", places.log_dir / "mysql")

    @property
    def data(self) -> pathlib.Path:
        return self.store / "data"

    @property
    def scratch(self) -> pathlib.Path:
        """For temporary files, which may be as large as the data."""
        return self.store / "tmp"

    @property
    def configuration(self) -> pathlib.Path:
        return self.etc / "mariadb.cnf"

    @property
    def tls(self) -> pathlib.Path:
        """A link to the directory with the certificate, the key and the CA in use."""
        return self.etc / "tls"

    @property
    def socket(self) -> pathlib.Path:
        return socket_in(self.run)

    @property
    def pid(self) -> pathlib.Path:
        return self.run / "mariadbd.pid"

    @property
    def in_force(self) -> pathlib.Path:
        """A copy of the configuration that the running server was started with."""
        return self.run / "in-force.cnf"

    @property
    def bootstrap(self) -> pathlib.Path:
        """A mark: the next start, and only that one, founds a cluster."""
        return self.run / "bootstrap"

    @property
    def out_of_service(self) -> pathlib.Path:
        """A mark: load balancers send nobody here."""
        return self.run / "out-of-service"

    @property
    def error_log(self) -> pathlib.Path:
        return self.logs / "mysql.log"

    @property
    def slow_log(self) -> pathlib.Path:
        return self.logs / "mysql-slow.log"


def socket_in(run: pathlib.Path) -> pathlib.Path:
    """The socket of the server whose directory is `run`: there, or in a short directory of its own when that lies too deep."""
    direct = run / _SOCKET
    if len(os.fsencode(direct)) <= SOCKET_LIMIT:
        return direct
    name = hashlib.sha256(os.fsencode(run)).hexdigest()[:16]
    return _SHORT / f"conpaas-mysql-{name}" / _SOCKET


def make_socket_directory(socket: pathlib.Path, uid: int, gid: int) -> None:
    """Have the directory of a socket, owned by the server's user. One that somebody else made is not trusted."""
    directory = socket.parent
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (uid, os.geteuid()):
        raise errors.OperationFailed(f"{directory} belongs to somebody else, so no database server can be reached through it.")
    directory.chmod(0o755)
    if found.st_uid != uid:
        os.chown(directory, uid, gid)
