"""What the database server of a node consists of: its places, disk, settings, programs, and how it is spoken to. Nothing here decides."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

from conpaas.core import config, errors, file, mounts, paths, supervisor
from conpaas.services.mysql import spec
from conpaas.services.mysql.agent import account
from conpaas.services.mysql.workload import layout, mariadb, mariadb_config, sql, status
from conpaas.services.webservers.agent import copying, ports

SECTION: Final = "mysql"
DISK: Final = "mysql"
"""The name that a node's disk is mounted under."""
MARIADBD: Final = "/usr/sbin/mariadbd"
STOP_TIMEOUT: Final = 120.0
"""Seconds that a server may take to end in order."""
LOG_TAIL: Final = 256_000


class Companion(Protocol):
    """What runs beside the server and is started, changed and removed with it."""

    def ensure(self, socket: pathlib.Path, user: str | None = None, data: pathlib.Path | None = None) -> object: ...

    def remove(self) -> None: ...

    def resume(self) -> None: ...


class Member:
    """The server of this node. `notes` hold what it was told last: `settings`, and whether it is `wanted`."""

    def __init__(
        self, places: paths.Paths, configuration: config.Config, supervising: supervisor.Supervisor, companions: Sequence[Companion] = ()
    ) -> None:
        self._paths = places
        self._config = configuration
        self._supervisor = supervising
        self.companions = companions
        self.notes = file.Notes(places.lib / "mysqld.json")
        self.mounts = mounts.Mounts(places.root, places.media, self.notes)

    # Places

    @property
    def layout(self) -> layout.Layout:
        """Where the server has its things."""
        return layout.Layout.of(self._paths, self.disk())

    def disk(self) -> pathlib.Path | None:
        """Where the disk of this node is mounted, or should be; None when it has none."""
        return self._paths.media / DISK if DISK in self.mounts.known() else None

    def have_disk(self, device: str | None) -> None:
        """Have the disk mounted that the data are on: a server must never begin anew beside them."""
        known = self.mounts.known().get(DISK)
        if known and device and known != device:
            raise errors.WrongState(f"The data of this node are on the disk {known}, not on {device}.")
        if device or known:
            self.mounts.mount(device or str(known), DISK)

    def cover_logs(self) -> None:
        """Have the server's logs rotated."""
        user = account.choose(self._paths, self._config, self.disk())
        copying.CopyingRotation(self._paths, self._supervisor).cover_directory("mysql", self.layout.logs, "*.log", user)

    # What it was told

    def wanted(self) -> bool:
        """Whether the server should run."""
        return bool(self.notes.get("wanted"))

    def settings(self) -> spec.NodeSettings:
        return spec.NodeSettings.from_dict(self.notes.get("settings"))

    def number(self, key: str, default: int) -> int:
        """A number from the agent's configuration."""
        return self._config.get_int(SECTION, key, default, minimum=0)

    def server(self) -> mariadb.MariaDB:
        return mariadb.MariaDB(self._programs(), self.layout, account.choose(self._paths, self._config, self.disk()))

    def render(self, settings: spec.NodeSettings, server: mariadb.MariaDB, weight: int = 1) -> str:
        """The server's configuration. `weight`: how much it counts for the majority."""
        shared = ports.is_shared(self._paths)
        memory = mariadb_config.memory_of_machine()
        pool = self.number("BUFFER_POOL", 0) or (128 if shared else max(128, memory // 2))
        wanted = mariadb_config.Server(
            listen=ports.inner_address(settings.own.ip, self._config),
            port=settings.own.port,
            group_port=self.number("GROUP_PORT", 4567),
            ist_port=self.number("IST_PORT", 4568),
            sst_port=self.number("SST_PORT", 4444),
            provider=self._programs().provider,
            account=server.account,
            buffer_pool=pool,
            redo_log=min(1024, max(96, pool // 4)),
            cache=self.number("GCACHE", 0) or (64 if shared else max(128, min(1024, memory // 8))),
            appliers=max(2, min(16, os.cpu_count() or 2)),
            weight=weight,
        )
        return mariadb_config.render(wanted, settings, self.layout)

    def _programs(self) -> mariadb.Programs:
        get = self._config.get
        return mariadb.Programs(
            mariadbd=get(SECTION, "MARIADBD", MARIADBD),
            install_db=get(SECTION, "MARIADB_INSTALL_DB", "/usr/bin/mariadb-install-db"),
            provider=get(SECTION, "WSREP_PROVIDER", "/usr/lib/galera/libgalera_smm.so"),
            stop_timeout=self._config.get_float(SECTION, "STOP_TIMEOUT", STOP_TIMEOUT, minimum=1),
        )

    # Its life

    def daemon(self) -> supervisor.DaemonStatus:
        return self._supervisor.status(mariadb.DAEMON)

    def is_open(self) -> bool:
        """Whether the server has come so far as to take connections."""
        return mariadb.is_open(mariadb.last_run(file.tail(self.layout.error_log, LOG_TAIL)))

    def begin(self, server: mariadb.MariaDB) -> None:
        """Have the server run, as it is configured."""
        self._supervisor.ensure(server.daemon())

    def end(self, patience: float | None = None) -> None:
        """End it, in order if that takes `patience` seconds at most (None: as long as its supervisor gives it)."""
        self._supervisor.stop(mariadb.DAEMON, patience)

    def accompany(self) -> None:
        """Have beside the server what belongs there."""
        for companion in self.companions:
            companion.ensure(self.layout.socket, self.server().account, self.disk())

    # Speaking to it

    @contextlib.contextmanager
    def connection(self, timeout: float = 10.0) -> Iterator[Any]:
        """As its administrator."""
        connection = sql.connect(self.layout.socket, timeout)
        try:
            yield connection
        finally:
            connection.close()

    def desync(self, on: bool, timeout: float) -> None:
        """Have it fall behind without holding up the others, or no longer."""
        with self.connection(timeout) as connection:
            status.rows(connection, f"SET GLOBAL wsrep_desync = {'ON' if on else 'OFF'}")
