"""The database server of a node: its data, its life, and what it knows of its cluster."""

from __future__ import annotations

import contextlib
import logging
import pathlib
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from conpaas.core import config, errors, file, paths, supervisor
from conpaas.services.mysql import spec
from conpaas.services.mysql.agent import footprint, member, rejoin, room, room_server
from conpaas.services.mysql.workload import galera, layout, mariadb, mariadb_config, status

log: Final = logging.getLogger(__name__)
ANSWER_TIMEOUT: Final = 1.2
"""Seconds that the server has for an answer on its state."""
_TRANSACTIONS_AGE: Final = 0.12
"""Seconds that the server's list of transactions is kept for; a look soon after another one shows what that one showed."""
_WAITING_PATIENCE: Final = 3.0
_FIRST_WORDS: Final = 20.0
_DESYNC_TIMEOUT: Final = 5.0
_PROGRESS: Final = ("WSREP: gcomm: connecting", "WSREP: Start replication", "State transfer required")
_RECENT: Final = 90.0
"""Seconds for which a server that starts again is not yet believed to have got over what ended its former run."""


class DatabaseRole:
    """The database server. Every change is idempotent; what was told last holds over the agent's death and a reboot of the node."""

    def __init__(
        self,
        places: paths.Paths,
        configuration: config.Config,
        supervising: supervisor.Supervisor,
        companions: Sequence[member.Companion] = (),
    ) -> None:
        self._paths = places
        self._supervisor = supervising
        self._member = member.Member(places, configuration, supervising, companions)
        self._room = room_server.RoomServer(self._member)
        self._size = footprint.Footprint()
        self._lock = threading.RLock()
        self._watches = (rejoin.Watch(self._look_for_cluster), rejoin.Watch(self._look_for_room, room.PERIOD))

    @property
    def layout(self) -> layout.Layout:
        """Where the server has its things."""
        return self._member.layout

    @property
    def account(self) -> str:
        """The user that runs the server; it administers it, as the agent's own user does."""
        return self._member.server().account

    # Calls

    def start(self, settings: spec.NodeSettings, *, bootstrap: bool, device: str | None) -> dict[str, Any]:
        """Have the server run with these settings, or give new ones to a server that runs. Returns `port` and `restart_needed`, the names
        of what counts only after a restart. Does not wait for the node to have all data.

        `bootstrap`: found the cluster with the data of this node, or with none; on a server that runs apart from its cluster, have it be
        the cluster. A server whose disk is full begins as soon as there is room, but founds nothing. Raises InvalidArgument,
        OperationFailed.
        """
        with self._lock:
            self._member.have_disk(device)
            lacking = self._room.lacking()
            if lacking and bootstrap:
                raise errors.OperationFailed(f"The server cannot found the cluster, as {lacking}.", hint="delete something there")
            server = self._member.server()
            server.prepare()
            renewed = server.write_tls(settings.tls)
            server.configure(self._member.render(settings, server))
            self._member.notes.set(wanted=True, settings=settings.to_dict())
            self._start_watches()
            if lacking:
                self.layout.bootstrap.unlink(missing_ok=True)
                self._room.keeper.wait()
                return {"port": settings.own.port, "restart_needed": []}
            if self._room.keeper.ended:
                self._room.keeper.forget()
            running = self._member.daemon().running
            if running and (self._member.is_open() or not bootstrap):
                self._change_running(settings, bootstrap=bootstrap, renewed=renewed)
            else:
                self._launch(server, settings, bootstrap=bootstrap)
            return {"port": settings.own.port, "restart_needed": self._restart_needed()}

    def state(self) -> dict[str, Any]:
        """What the server does; within two seconds, whatever it does. Told without any lock: a start may be under way."""
        places = self.layout
        server = self._member.server()
        daemon = self._member.daemon()
        try:
            told = status.seen(status.ask(places.socket, ANSWER_TIMEOUT)) if daemon.running else None
        except errors.ConPaaSError:
            told = None
        logged = file.tail(places.error_log, member.LOG_TAIL)
        saved = galera.saved_state(places.data)
        return {
            "daemon": self._word(daemon, told is not None or mariadb.is_open(mariadb.last_run(logged))),
            **(told or status.unseen()),
            "has_data": server.has_data(),
            "safe_to_bootstrap": saved is not None and saved.safe_to_bootstrap,
            "position": saved.position.to_dict() if saved is not None and not daemon.running else None,
            "reason": None if told and told["ready"] else self._why(daemon, logged),
            "room": self._room.scarce(),
            "full": self._room.keeper.out,
            "data_bytes": self._size.of(places.data),
            "sst": footprint.transfer(places.data, mariadb.last_run(logged)) if daemon.running else None,
            "transfer_error": mariadb.transfer_failure(mariadb.last_run(logged), places.data / mariadb.BACKUP_LOG),
            "in_service": not places.out_of_service.exists(),
        }

    def position(self, device: str | None = None) -> galera.Position:
        """The last transaction of the stopped server. Raises WrongState when it runs or is about to."""
        with self._lock:
            if self._member.wanted() and self._member.daemon().state is not supervisor.DaemonState.ABSENT:
                raise errors.WrongState(
                    "The database server of this node runs, so its last transaction is not settled.", hint="stop it first"
                )
            self._member.have_disk(device)
            server = self._member.server()
            server.prepare()
            return server.position()

    def is_stopped(self) -> bool:
        """Whether the server is stopped and stays so until it is started again."""
        with self._lock:
            return not self._member.wanted() and not self._member.daemon().running

    def stop(self, timeout: float) -> None:
        """End the server in order within `timeout` seconds; it stays stopped until it is started again."""
        with self._lock:
            self._member.notes.set(wanted=None)
            self._room.keeper.forget()
            if self._member.daemon().running:
                self.set_health(False)
                with contextlib.suppress(errors.ConPaaSError), self._member.connection(ANSWER_TIMEOUT) as connection:
                    status.rows(connection, "SET GLOBAL wsrep_desync = ON")
            self._halt(timeout)
            for companion in self._member.companions:
                companion.remove()

    def restart(self) -> None:
        """End the server in order and start it again, with the configuration that waits for it. Raises WrongState, OperationFailed."""
        with self._lock:
            if not self._member.wanted():
                raise errors.WrongState("The database server of this node is stopped, so it cannot be started again.", hint="start it")
            settings = self._member.settings()
            self._launch(self._member.server(), settings, bootstrap=False)

    def set_desync(self, on: bool) -> None:
        """Have the node fall behind without holding up the others, or no longer."""
        self._member.desync(on, _DESYNC_TIMEOUT)

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
        with self._member.connection() as connection:
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
            if not self._member.wanted():
                return
            try:
                self._start_watches()
                self._member.have_disk(None)
                settings = self._member.settings()
                server = self._member.server()
                server.prepare()
                server.write_tls(settings.tls)
                server.configure(self._member.render(settings, server))
                server.receive()
                self._member.cover_logs()
                if not self._room.keeper.ended:
                    self._member.begin(server)
            except (errors.ConPaaSError, OSError) as error:
                log.error("the database server cannot be had again: %s", error)
            for companion in self._member.companions:
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
        patience = timeout if self._member.is_open() else min(_WAITING_PATIENCE, timeout or _WAITING_PATIENCE)
        self._member.end(patience)

    def _start_watches(self) -> None:
        for watch in self._watches:
            watch.start()

    def _look_for_room(self) -> None:
        """See to it that nobody waits for a server whose disk is full."""
        with self._lock:
            self._room.keeper.look()

    def _look_for_cluster(self) -> None:
        """Have a server that waits alone begin again when others are there."""
        with self._lock:
            daemon = self._member.daemon()
            if not self._member.wanted() or not daemon.running or daemon.seconds < rejoin.PATIENCE:
                return
            if not rejoin.waits_alone(mariadb.last_run(file.tail(self.layout.error_log, member.LOG_TAIL))):
                return
            settings = self._member.settings()
            port = self._member.number("GROUP_PORT", 4567)
            if rejoin.anybody([(one.ip, port) for one in settings.members if one.name != settings.name]):
                log.warning("the database server waits alone though other members are there: it begins again")
                self._supervisor.signal(mariadb.DAEMON, "KILL")

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
        self._member.cover_logs()
        begin = places.error_log.stat().st_size if places.error_log.exists() else 0
        try:
            self._member.begin(server)
            ended = self._ends_early(begin, (mariadb.READY,) if bootstrap else _PROGRESS)
        except errors.OperationFailed:
            ended = True
        if ended:
            self._member.notes.set(wanted=None)
            self._member.end()
            places.bootstrap.unlink(missing_ok=True)
            said = mariadb.reason(_from(places.error_log, begin)) or self._console()
            raise errors.OperationFailed(f"The database server does not start: {said}.")
        self._member.accompany()

    def _ends_early(self, begin: int, wanted: Sequence[str]) -> bool:
        """Whether the server ends before it says one of the words that are wanted. After a while it is believed to be on its way: recovery
        from a crash takes its time. `begin` is how long its log was before."""
        pid = self._member.daemon().pid
        deadline = time.monotonic() + _FIRST_WORDS
        while time.monotonic() < deadline:
            ended = pid is None or self._member.daemon().pid != pid
            said = _from(self.layout.error_log, begin)
            if any(words in said for words in wanted):
                return False
            if ended:
                return True
            time.sleep(0.02)
        return False

    def _change_running(self, settings: spec.NodeSettings, *, bootstrap: bool, renewed: bool) -> None:
        if renewed or bootstrap:
            with self._member.connection() as connection:
                if renewed:
                    status.rows(connection, "FLUSH SSL")
                    status.rows(connection, "SET GLOBAL wsrep_provider_options = 'socket.ssl_reload=1'")
                if bootstrap and status.seen(status.ask(self.layout.socket, ANSWER_TIMEOUT))["cluster_status"] != "Primary":
                    log.warning("this node becomes the cluster, as it was told to")
                    status.rows(connection, "SET GLOBAL wsrep_provider_options = 'pc.bootstrap=YES'")
        self._member.accompany()

    def _restart_needed(self) -> list[str]:
        places = self.layout
        try:
            names = mariadb_config.differences(
                places.in_force.read_text(encoding="utf-8"), places.configuration.read_text(encoding="utf-8")
            )
        except FileNotFoundError:
            return []
        chosen = set(names) & set(self._member.settings().variables)
        if not chosen:
            return names
        try:
            with self._member.connection(ANSWER_TIMEOUT) as connection:
                fixed = status.fixed_variables(connection)
        except errors.ConPaaSError:
            return names
        return [name for name in names if name not in chosen or name in fixed]

    # Looking

    def _word(self, daemon: supervisor.DaemonStatus, is_open: bool) -> str:
        if daemon.state is supervisor.DaemonState.ABSENT:
            return "ABSENT"
        if daemon.running:
            return "RUNNING" if is_open else "STARTING"
        return "STARTING" if self._member.wanted() and not self._room.keeper.ended else "STOPPED"

    def _why(self, daemon: supervisor.DaemonStatus, logged: str) -> str | None:
        """Why the server does not work; None when nothing tells of a failure."""
        if daemon.state is supervisor.DaemonState.ABSENT:
            return None
        found = mariadb.reason(mariadb.last_run(logged))
        if found is None and daemon.running and daemon.seconds < _RECENT:
            found = mariadb.reason(mariadb.former_run(logged))
        if found is None and not daemon.running and self._member.wanted():
            found = self._console()
        return found

    def _console(self) -> str:
        """What the daemon said on its console, where it tells what it cannot put into its log."""
        said = file.tail(self._paths.log_dir / mariadb.DAEMON / "current", 4000)
        return mariadb.reason(said) or " ".join(said.split("\n")[-2:]).strip() or "it says nothing"


def _from(path: pathlib.Path, offset: int) -> str:
    """What a log tells from an offset on."""
    try:
        return file.read_bounded(path, offset=offset, limit=member.LOG_TAIL).text
    except FileNotFoundError:
        return ""
