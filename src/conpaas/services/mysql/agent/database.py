"""The database server of a node: its data, its life, and what it knows of its cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

from conpaas.core import config, errors, file, mounts, paths, supervisor
from conpaas.services.mysql import spec
from conpaas.services.mysql.agent import account, footprint, health, rejoin, room
from conpaas.services.mysql.workload import galera, layout, mariadb, mariadb_config, sql, status
from conpaas.services.webservers.agent import copying, ports

log: Final = logging.getLogger(__name__)
SECTION: Final = "mysql"
DISK: Final = "mysql"
"""The name that a node's disk is mounted under."""
MARIADBD: Final = "/usr/sbin/mariadbd"
STOP_TIMEOUT: Final = 120.0
"""Seconds that a server may take to end in order."""
ANSWER_TIMEOUT: Final = 1.2
"""Seconds that the server has for an answer on its state."""
_TRANSACTIONS_AGE: Final = 0.12
"""Seconds that the server's list of transactions is kept for; a look soon after another one shows what that one showed."""
_WAITING_PATIENCE: Final = 3.0
_FIRST_WORDS: Final = 20.0
_DESYNC_TIMEOUT: Final = 5.0
_PROGRESS: Final = ("WSREP: gcomm: connecting", "WSREP: Start replication", "State transfer required")
_LOG_TAIL: Final = 256_000
_RECENT: Final = 90.0
"""Seconds for which a server that starts again is not yet believed to have got over what ended its former run."""


class Companion(Protocol):
    """What runs beside the server and is started, changed and removed with it."""

    def ensure(self, socket: pathlib.Path, user: str | None = None, data: pathlib.Path | None = None) -> object: ...

    def remove(self) -> None: ...

    def resume(self) -> None: ...


class DatabaseRole:
    """The database server. Every change is idempotent; what was told last holds over the agent's death and a reboot of the node."""

    def __init__(
        self,
        places: paths.Paths,
        configuration: config.Config,
        supervising: supervisor.Supervisor,
        address: str,
        companions: Sequence[Companion] = (),
    ) -> None:
        self._paths = places
        self._config = configuration
        self._supervisor = supervising
        self._address = address
        self._companions = companions
        self._notes = file.Notes(places.lib / "mysqld.json")
        self._mounts = mounts.Mounts(places.root, places.media, self._notes)
        self._size = footprint.Footprint()
        self._lock = threading.RLock()
        self._room = room.Keeper(self._notes, self)
        self._watches = (rejoin.Watch(self._look_for_cluster), rejoin.Watch(self._look_for_room, room.PERIOD))

    @property
    def layout(self) -> layout.Layout:
        """Where the server has its things."""
        return layout.Layout.of(self._paths, self._disk())

    @property
    def account(self) -> str:
        """The user that runs the server; it administers it, as the agent's own user does."""
        return self._server().account

    # Calls

    def start(self, settings: spec.NodeSettings, *, bootstrap: bool, device: str | None) -> dict[str, Any]:
        """Have the server run with these settings, or give new ones to a server that runs. Returns `port` and `restart_needed`, the names
        of what counts only after a restart. Does not wait for the node to have all data.

        `bootstrap`: found the cluster with the data of this node, or with none; on a server that runs apart from its cluster, have it be
        the cluster. A server whose disk is full begins as soon as there is room, but founds nothing. Raises InvalidArgument,
        OperationFailed.
        """
        with self._lock:
            self._have_disk(device)
            lacking = self._lacking_room()
            if lacking and bootstrap:
                raise errors.OperationFailed(f"The server cannot found the cluster, as {lacking}.", hint="delete something there")
            server = self._server()
            server.prepare()
            renewed = server.write_tls(settings.tls)
            server.configure(self._render(settings, server))
            self._notes.set(wanted=True, settings=settings.to_dict())
            self._start_watches()
            if lacking:
                self.layout.bootstrap.unlink(missing_ok=True)
                self._room.wait()
                return {"port": settings.own.port, "restart_needed": []}
            if self._room.ended:
                self._room.forget()
            running = self._supervisor.status(mariadb.DAEMON).running
            if running and (self._is_open() or not bootstrap):
                self._change_running(settings, bootstrap=bootstrap, renewed=renewed)
            else:
                self._launch(server, settings, bootstrap=bootstrap)
            return {"port": settings.own.port, "restart_needed": self._restart_needed()}

    def state(self) -> dict[str, Any]:
        """What the server does; within two seconds, whatever it does. Told without any lock: a start may be under way."""
        places = self.layout
        server = self._server()
        daemon = self._supervisor.status(mariadb.DAEMON)
        try:
            told = status.seen(status.ask(places.socket, ANSWER_TIMEOUT)) if daemon.running else None
        except errors.ConPaaSError:
            told = None
        logged = file.tail(places.error_log, _LOG_TAIL)
        saved = galera.saved_state(places.data)
        return {
            "daemon": self._word(daemon, told is not None or mariadb.is_open(mariadb.last_run(logged))),
            **(told or status.unseen()),
            "has_data": server.has_data(),
            "safe_to_bootstrap": saved is not None and saved.safe_to_bootstrap,
            "position": saved.position.to_dict() if saved is not None and not daemon.running else None,
            "reason": None if told and told["ready"] else self._why(daemon, logged),
            "room": self._scarce(),
            "full": self._room.out,
            "data_bytes": self._size.of(places.data),
            "sst": footprint.transfer(places.data, mariadb.last_run(logged)) if daemon.running else None,
            "transfer_error": mariadb.transfer_failure(mariadb.last_run(logged), places.data / mariadb.BACKUP_LOG),
            "in_service": not places.out_of_service.exists(),
        }

    def position(self, device: str | None = None) -> galera.Position:
        """The last transaction of the stopped server. Raises WrongState when it runs or is about to."""
        with self._lock:
            if self.wanted() and self._supervisor.status(mariadb.DAEMON).state is not supervisor.DaemonState.ABSENT:
                raise errors.WrongState(
                    "The database server of this node runs, so its last transaction is not settled.", hint="stop it first"
                )
            self._have_disk(device)
            server = self._server()
            server.prepare()
            return server.position()

    def is_stopped(self) -> bool:
        """Whether the server is stopped and stays so until it is started again."""
        with self._lock:
            return not self.wanted() and not self._supervisor.status(mariadb.DAEMON).running

    def stop(self, timeout: float) -> None:
        """End the server in order within `timeout` seconds; it stays stopped until it is started again."""
        with self._lock:
            self._notes.set(wanted=None)
            self._room.forget()
            if self._supervisor.status(mariadb.DAEMON).running:
                self.set_health(False)
                with contextlib.suppress(errors.ConPaaSError), self._connection(ANSWER_TIMEOUT) as connection:
                    status.rows(connection, "SET GLOBAL wsrep_desync = ON")
            self._halt(timeout)
            for companion in self._companions:
                companion.remove()

    def restart(self) -> None:
        """End the server in order and start it again, with the configuration that waits for it. Raises WrongState, OperationFailed."""
        with self._lock:
            if not self.wanted():
                raise errors.WrongState("The database server of this node is stopped, so it cannot be started again.", hint="start it")
            settings = self._settings()
            self._launch(self._server(), settings, bootstrap=False)

    def set_desync(self, on: bool) -> None:
        """Have the node fall behind without holding up the others, or no longer."""
        self._desync(on, _DESYNC_TIMEOUT)

    def _desync(self, on: bool, timeout: float) -> None:
        with self._connection(timeout) as connection:
            status.rows(connection, f"SET GLOBAL wsrep_desync = {'ON' if on else 'OFF'}")

    def set_health(self, on: bool) -> None:
        """Let load balancers send sessions here, or no longer."""
        mark = self.layout.out_of_service
        if on:
            mark.unlink(missing_ok=True)
        elif not mark.exists():
            mark.parent.mkdir(parents=True, exist_ok=True)
            file.write_atomically(mark, "")

    def drain(self, timeout: float) -> int:
        """Take the node out of service, and wait until no client has anything under way, `timeout` seconds at most.

        Returns how many have.
        """
        self.set_health(False)
        deadline = time.monotonic() + timeout
        account_name = self.account
        with self._connection() as connection:
            while True:
                time.sleep(_TRANSACTIONS_AGE)
                left = status.busy_sessions(connection, account_name)
                if not left or time.monotonic() >= deadline:
                    return left

    def load(self) -> str:
        """The average length of the queue of transactions that wait to be applied."""
        return status.ask(self.layout.socket, ANSWER_TIMEOUT).get("wsrep_local_recv_queue_avg", "0")

    def resume(self) -> None:
        """After a restart of the agent or the node: have the server run if it should. It never founds a cluster by that."""
        with self._lock:
            if not self.wanted():
                return
            try:
                self._start_watches()
                self._have_disk(None)
                settings = self._settings()
                server = self._server()
                server.prepare()
                server.write_tls(settings.tls)
                server.configure(self._render(settings, server))
                server.receive()
                self._cover_logs()
                if not self._room.ended:
                    self._supervisor.ensure(server.daemon())
            except (errors.ConPaaSError, OSError) as error:
                log.error("the database server cannot be had again: %s", error)
            for companion in self._companions:
                companion.resume()

    def close(self) -> None:
        """The server goes on."""
        for watch in self._watches:
            watch.close()

    def log_files(self) -> dict[str, pathlib.Path]:
        places = self.layout
        return {path.name: path for path in (places.error_log, places.slow_log)}

    # Starting and ending

    def _halt(self, timeout: float | None = None) -> None:
        """End the server. One that has not opened its data has nothing to lose, and takes long to notice that it is to end."""
        patience = timeout if self._is_open() else min(_WAITING_PATIENCE, timeout or _WAITING_PATIENCE)
        self._supervisor.stop(mariadb.DAEMON, patience)

    def _is_open(self) -> bool:
        """Whether the server has come so far as to take connections."""
        return mariadb.is_open(mariadb.last_run(file.tail(self.layout.error_log, _LOG_TAIL)))

    # Room on the disk, as `room.Keeper` needs it

    def measure(self) -> room.Room | None:
        """The room on the disk of this node; None when it has none of its own yet."""
        disk = self._disk()
        try:
            return room.Room.of(disk) if disk else None
        except OSError:
            return None

    def wanted(self) -> bool:
        return bool(self._notes.get("wanted"))

    def working(self) -> bool:
        return self.wanted() and self._supervisor.status(mariadb.DAEMON).running

    def out_of_step(self) -> bool:
        if not self._supervisor.status(mariadb.DAEMON).running or not self._is_open():
            return True
        try:
            return not status.seen(status.ask(self.layout.socket, ANSWER_TIMEOUT))["ready"]
        except errors.ConPaaSError:
            return False  # it holds up the others, perhaps, but that is not known

    def stand_aside(self, aside: bool, patience: float) -> None:
        settings, server = self._settings(), self._server()
        weight = 0 if aside and len(settings.members) == 2 else 1  # of more, each is a vote that the others may need
        server.configure(self._render(settings, server, weight))
        self._set_weight(weight)  # first: a server that holds up the others takes no more such statements after the next one
        self._desync(aside, patience)

    def follows(self) -> bool:
        try:
            with self._connection(ANSWER_TIMEOUT) as connection:
                status.rows(connection, "SET SESSION wsrep_sync_wait = 1")
                status.rows(connection, "SELECT 1")
        except errors.ConPaaSError:
            return False
        return True

    def end(self, patience: float) -> None:
        self._supervisor.stop(mariadb.DAEMON, patience)

    def _set_weight(self, weight: int) -> None:
        """How much this member counts for the majority. One that counts for nothing takes none with it when it goes without a word."""
        with self._connection(ANSWER_TIMEOUT) as connection:
            status.rows(connection, f"SET GLOBAL wsrep_provider_options = 'pc.weight={weight}'")

    def begin(self) -> None:
        if self.wanted():
            settings, server = self._settings(), self._server()
            server.configure(self._render(settings, server))
            server.receive()
            self._cover_logs()
            self._supervisor.ensure(server.daemon())
            self._accompany()

    def others_in_step(self) -> bool:
        settings = self._settings()
        return room.in_step([one.ip for one in settings.members if one.name != settings.name], self._number("HEALTH_PORT", health.PORT))

    def _scarce(self) -> str | None:
        """What is to be said about the room on the disk, if it is scarce."""
        found = self.measure()
        if not found or not (found.scarce or self._room.out):
            return None
        return f"{found}: it takes no part until there is more room." if self._room.out else f"{found}."

    def _lacking_room(self) -> room.Room | None:
        """The room there is, if a server that does not run had better not be started in it."""
        found = self.measure()
        return found if found and found.used_up and not self.working() else None

    def _start_watches(self) -> None:
        for watch in self._watches:
            watch.start()

    def _look_for_room(self) -> None:
        """See to it that nobody waits for a server whose disk is full."""
        with self._lock:
            self._room.look()

    def _look_for_cluster(self) -> None:
        """Have a server that waits alone begin again when others are there."""
        with self._lock:
            daemon = self._supervisor.status(mariadb.DAEMON)
            if not self.wanted() or not daemon.running or daemon.seconds < rejoin.PATIENCE:
                return
            if not rejoin.waits_alone(mariadb.last_run(file.tail(self.layout.error_log, _LOG_TAIL))):
                return
            settings = self._settings()
            port = self._number("GROUP_PORT", 4567)
            if rejoin.anybody([(one.ip, port) for one in settings.members if one.name != settings.name]):
                log.warning("the database server waits alone though other members are there: it begins again")
                self._supervisor.signal(mariadb.DAEMON, "KILL")

    def _disk(self) -> pathlib.Path | None:
        """Where the disk of this node is mounted, or should be; None when it has none."""
        return self._paths.media / DISK if DISK in self._mounts.known() else None

    def _have_disk(self, device: str | None) -> None:
        """Have the disk mounted that the data are on: a server must never begin anew beside them."""
        known = self._mounts.known().get(DISK)
        if known and device and known != device:
            raise errors.WrongState(f"The data of this node are on the disk {known}, not on {device}.")
        if device or known:
            self._mounts.mount(device or str(known), DISK)

    def _launch(self, server: mariadb.MariaDB, settings: spec.NodeSettings, *, bootstrap: bool) -> None:
        places = self.layout
        self._halt()
        if bootstrap:
            if server.interrupted():
                raise errors.OperationFailed(
                    "The data of this node are those of a transfer that never came to its end, so no cluster can be founded on them.",
                    hint="found the cluster on another node",
                )
            if not server.has_data():
                server.found()
            server.allow_bootstrap()
        else:
            places.bootstrap.unlink(missing_ok=True)
            server.receive()
        self.set_health(True)
        self._cover_logs()
        begin = places.error_log.stat().st_size if places.error_log.exists() else 0
        try:
            self._supervisor.ensure(server.daemon())
            ended = self._ends_early(begin, (mariadb.READY,) if bootstrap else _PROGRESS)
        except errors.OperationFailed:
            ended = True
        if ended:
            self._notes.set(wanted=None)
            self._supervisor.stop(mariadb.DAEMON)
            places.bootstrap.unlink(missing_ok=True)
            said = mariadb.reason(_from(places.error_log, begin)) or self._console()
            raise errors.OperationFailed(f"The database server does not start: {said}.")
        self._accompany()

    def _accompany(self) -> None:
        """Have beside the server what belongs there."""
        for companion in self._companions:
            companion.ensure(self.layout.socket, self.account, self._disk())

    def _ends_early(self, begin: int, wanted: Sequence[str]) -> bool:
        """Whether the server ends before it says one of the words that are wanted. After a while it is believed to be on its way: recovery
        from a crash takes its time. `begin` is how long its log was before."""
        pid = self._supervisor.status(mariadb.DAEMON).pid
        deadline = time.monotonic() + _FIRST_WORDS
        while time.monotonic() < deadline:
            ended = pid is None or self._supervisor.status(mariadb.DAEMON).pid != pid
            said = _from(self.layout.error_log, begin)
            if any(words in said for words in wanted):
                return False
            if ended:
                return True
            time.sleep(0.02)
        return False

    def _change_running(self, settings: spec.NodeSettings, *, bootstrap: bool, renewed: bool) -> None:
        if renewed or bootstrap:
            with self._connection() as connection:
                if renewed:
                    status.rows(connection, "FLUSH SSL")
                    status.rows(connection, "SET GLOBAL wsrep_provider_options = 'socket.ssl_reload=1'")
                if bootstrap and status.seen(status.ask(self.layout.socket, ANSWER_TIMEOUT))["cluster_status"] != "Primary":
                    log.warning("this node becomes the cluster, as it was told to")
                    status.rows(connection, "SET GLOBAL wsrep_provider_options = 'pc.bootstrap=YES'")
        self._accompany()

    def _restart_needed(self) -> list[str]:
        places = self.layout
        try:
            names = mariadb_config.differences(
                places.in_force.read_text(encoding="utf-8"), places.configuration.read_text(encoding="utf-8")
            )
        except FileNotFoundError:
            return []
        chosen = set(names) & set(self._settings().variables)
        if not chosen:
            return names
        try:
            with self._connection(ANSWER_TIMEOUT) as connection:
                fixed = status.fixed_variables(connection)
        except errors.ConPaaSError:
            return names
        return [name for name in names if name not in chosen or name in fixed]

    def _render(self, settings: spec.NodeSettings, server: mariadb.MariaDB, weight: int = 1) -> str:
        shared = ports.is_shared(self._paths)
        memory = mariadb_config.memory_of_machine()
        pool = self._number("BUFFER_POOL", 0) or (128 if shared else max(128, memory // 2))
        wanted = mariadb_config.Server(
            listen=ports.inner_address(settings.own.ip, self._config),
            port=settings.own.port,
            group_port=self._number("GROUP_PORT", 4567),
            ist_port=self._number("IST_PORT", 4568),
            sst_port=self._number("SST_PORT", 4444),
            provider=self._programs().provider,
            account=server.account,
            buffer_pool=pool,
            redo_log=min(1024, max(96, pool // 4)),
            cache=self._number("GCACHE", 0) or (64 if shared else max(128, min(1024, memory // 8))),
            appliers=max(2, min(16, os.cpu_count() or 2)),
            weight=weight,
        )
        return mariadb_config.render(wanted, settings, self.layout)

    def _cover_logs(self) -> None:
        user = account.choose(self._paths, self._config, self._disk())
        copying.CopyingRotation(self._paths, self._supervisor).cover_directory("mysql", self.layout.logs, "*.log", user)

    # Looking

    def _word(self, daemon: supervisor.DaemonStatus, is_open: bool) -> str:
        if daemon.state is supervisor.DaemonState.ABSENT:
            return "ABSENT"
        if daemon.running:
            return "RUNNING" if is_open else "STARTING"
        return "STARTING" if self.wanted() and not self._room.ended else "STOPPED"

    def _why(self, daemon: supervisor.DaemonStatus, logged: str) -> str | None:
        """Why the server does not work; None when nothing tells of a failure."""
        if daemon.state is supervisor.DaemonState.ABSENT:
            return None
        found = mariadb.reason(mariadb.last_run(logged))
        if found is None and daemon.running and daemon.seconds < _RECENT:
            found = mariadb.reason(mariadb.former_run(logged))
        if found is None and not daemon.running and self.wanted():
            found = self._console()
        return found

    def _console(self) -> str:
        """What the daemon said on its console, where it tells what it cannot put into its log."""
        said = file.tail(self._paths.log_dir / mariadb.DAEMON / "current", 4000)
        return mariadb.reason(said) or " ".join(said.split("\n")[-2:]).strip() or "it says nothing"

    @contextlib.contextmanager
    def _connection(self, timeout: float = 10.0) -> Iterator[Any]:
        connection = sql.connect(self.layout.socket, timeout)
        try:
            yield connection
        finally:
            connection.close()

    def _settings(self) -> spec.NodeSettings:
        return spec.NodeSettings.from_dict(self._notes.get("settings"))

    def _server(self) -> mariadb.MariaDB:
        return mariadb.MariaDB(self._programs(), self.layout, account.choose(self._paths, self._config, self._disk()))

    def _programs(self) -> mariadb.Programs:
        get = self._config.get
        return mariadb.Programs(
            mariadbd=get(SECTION, "MARIADBD", MARIADBD),
            install_db=get(SECTION, "MARIADB_INSTALL_DB", "/usr/bin/mariadb-install-db"),
            provider=get(SECTION, "WSREP_PROVIDER", "/usr/lib/galera/libgalera_smm.so"),
            stop_timeout=self._config.get_float(SECTION, "STOP_TIMEOUT", STOP_TIMEOUT, minimum=1),
        )

    def _number(self, key: str, default: int) -> int:
        return self._config.get_int(SECTION, key, default, minimum=0)


def _from(path: pathlib.Path, offset: int) -> str:
    """What a log tells from an offset on."""
    try:
        return file.read_bounded(path, offset=offset, limit=_LOG_TAIL).text
    except FileNotFoundError:
        return ""
