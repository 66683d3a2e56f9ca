"""The role `glb`: the HAProxy that clients of the database talk to."""

from __future__ import annotations

import dataclasses
import grp
import ipaddress
import logging
import os
import pathlib
import pwd
import resource
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from conpaas.core import config, errors, file, paths, supervisor
from conpaas.services.mysql import spec
from conpaas.services.mysql.workload import haproxy, haproxy_config
from conpaas.services.mysql.workload.haproxy_config import LAST, RO, RW
from conpaas.services.webservers.agent import ports

log: Final = logging.getLogger(__name__)
NAME: Final = "glb"
LOG: Final = "haproxy.log"
REMOVAL_GRACE: Final = 5.0
"""Seconds that the sessions of a member have when it is removed by the classic call, which cannot say how long."""

_WATCH_INTERVAL: Final = 0.5
_POLL: Final = 0.1
_SPARE_FILES: Final = 512
_MAX_THREADS: Final = 8
_NOTHING: Final = haproxy.Row("", "", {})
_SUMS: Final = {
    "sessions": "scur",
    "sessions_total": "stot",
    "bytes_in": "bin",
    "bytes_out": "bout",
    "connect_errors": "econ",
    "session_errors": "eresp",
    "retries": "wretr",
    "redispatches": "wredis",
    "queued": "qcur",
}
_TIMES: Final = {
    "queue_ms": "qtime",
    "connect_ms": "ctime",
    "session_ms": "ttime",
    "queue_ms_max": "qtime_max",
    "connect_ms_max": "ctime_max",
}


class BalancerRole:
    """The load balancer of one node. Every method is idempotent and may be called from several threads.

    What was asked for last is on disk before HAProxy is told, so that an agent that was killed in between finishes it when it comes back.
    """

    def __init__(
        self, places: paths.Paths, configuration: config.Config, supervising: supervisor.Supervisor, address: str, notes: file.Notes
    ) -> None:
        self._directory = places.lib / "mysql" / NAME
        self._log = places.log_dir / NAME / "current"
        self._host = _host(configuration, address, self._directory)
        self._haproxy = haproxy.HaProxy(
            NAME,
            program=configuration.get("mysql", "HAPROXY", "/usr/sbin/haproxy"),
            configuration=places.etc / "mysql" / "haproxy.cfg",
            directory=self._directory,
            watcher=supervising,
        )
        self._notes = notes
        self._lock = threading.RLock()
        self._watch = OldSessions(self._haproxy)

    # What the manager asks for

    def configure(self, wanted: spec.BalancerConfig) -> dict[str, Any]:
        """Balance over these members; returns, once every new connection is treated by that, `port` and `read_port`.

        A configuration that says what the last one said changes nothing. A newer one puts members that were drained back into service.
        Sessions of members that it lacks go on until they end by themselves: drain a member first to be rid of them.
        """
        with self._lock:
            former = self._wanted()
            if former is not None and former.serial > wanted.serial:
                log.warning("the load balancer goes back from configuration %d to %d", former.serial, wanted.serial)
            noted = {name: self._notes.get(name) for name in ("glb", "glb_drained", "glb_writer")}
            drained = {name: at for name, at in self._drained().items() if at >= wanted.serial and name in _names(wanted)}
            writer = noted["glb_writer"] if _says_the_same(former, wanted) else wanted.writer or self._writer_now()
            self._notes.set(glb=wanted.to_dict(), glb_drained=drained, glb_writer=writer)
            try:
                self._apply()
            except (errors.ConPaaSError, OSError):
                self._notes.set(**noted)
                raise
        self._watch.start()
        return {"port": self._host.port, "read_port": self._host.read_port}

    def add(self, addresses: Sequence[str]) -> dict[str, Any]:
        """Balance over these members too, each an IP address, with a port or without (the classic call)."""
        with self._lock:
            former = self._wanted()
            if former is None:
                raise errors.WrongState("Cannot add nodes: agent is not running a glbd daemon.")
            known = {(one.ip, one.port) for one in former.members}
            new = [one for one in (member_at(text) for text in addresses) if (one.ip, one.port) not in known]
            return self.configure(dataclasses.replace(former, serial=former.serial + bool(new), members=(*former.members, *new)))

    def remove(self, addresses: Sequence[str]) -> dict[str, Any]:
        """Balance over these members no more; their sessions have a few seconds to end."""
        former = self._wanted()
        if former is None:
            raise errors.WrongState("Cannot remove nodes: agent is not running a glbd daemon.")
        gone = {(one.ip, one.port) for one in (member_at(text) for text in addresses)}
        for member in former.members:
            if (member.ip, member.port) in gone:
                self.drain(member.name, REMOVAL_GRACE)
        with self._lock:
            former = self._wanted() or former
            left = tuple(one for one in former.members if (one.ip, one.port) not in gone)
            if len(left) == len(former.members):
                return {"port": self._host.port, "read_port": self._host.read_port}
            writer = former.writer if former.writer in {one.name for one in left} else None
            drained = {name: at + 1 for name, at in self._drained().items()}  # the others stay as they are
            self._notes.set(glb_drained=drained)
            return self.configure(dataclasses.replace(former, serial=former.serial + 1, members=left, writer=writer))

    def drain(self, name: str, timeout: float) -> dict[str, Any]:
        """Give a member no new sessions, wait until it has none, at most `timeout` seconds, then end those left: `sessions` says how many.

        It stays so, also over a reload and a reboot, until a newer configuration lists it. Raises NotFound.
        """
        with self._lock:
            wanted = self._wanted()
            if wanted is None or name not in _names(wanted):
                raise errors.NotFound(f"The load balancer has no member '{name}'.")
            self._notes.set(glb_drained={**self._drained(), name: wanted.serial})
            self._haproxy.drain(name, on=True)
            self._haproxy.forget_states(self._in_order(wanted), wanted.health_port, self._drained())
        deadline = time.monotonic() + timeout
        while self._haproxy.sessions(name) and time.monotonic() < deadline:
            time.sleep(_POLL)
            if name not in self._drained():
                return {"sessions": self._haproxy.sessions(name)}  # it was put back into service, or left out, meanwhile
        return {"sessions": self._haproxy.close_sessions(name)}

    def stop(self, timeout: float) -> None:
        """Take no new connections, let those there are go on for at most `timeout` seconds, and end."""
        self._watch.stop()
        with self._lock:
            if self._notes.get("glb") is None:
                return
            self._notes.set(glb_stopping=True)
            self._haproxy.remove(timeout)
            self._notes.set(glb=None, glb_drained=None, glb_writer=None, glb_stopping=None)

    def state(self) -> dict[str, Any]:
        """`state` (INIT, RUNNING, STOPPED), `port`, `read_port`, `serial`, `writer` (its IP address, if there is one), `old_workers` (how
        many still have sessions from before a change), and `servers`: of each member `name`, `ip`, `port`, `status` and `read_status`
        (`up`, `down`, `out`: takes no new sessions, `drained`), `writer`, `rw_sessions`, `ro_sessions`, `check`."""
        wanted = self._wanted()
        running = wanted is not None and bool(self._haproxy.proof())
        found: dict[str, Any] = {
            "state": "INIT" if wanted is None else "RUNNING" if running else "STOPPED",
            "port": self._host.port if wanted else None,
            "read_port": self._host.read_port if wanted else None,
            "serial": wanted.serial if wanted else None,
            "writer": None,
            "old_workers": 0,
            "servers": [],
        }
        if wanted is None or not running:
            return found
        rows = {(row.backend, row.name): row for row in self._haproxy.rows()}
        writer = self._writer(wanted, rows)
        everything = list(self._haproxy.all_rows())
        for member in wanted.members:
            row = rows.get((RW, member.name), _NOTHING)
            entry = {"name": member.name, "ip": member.ip, "port": member.port, "status": row.state, "writer": member.name == writer}
            entry |= {"read_status": rows.get((RO, member.name), _NOTHING).state, "check": _check_of(row)}
            entry |= {f"{backend}_sessions": _sum(everything, backend, member.name, "scur") for backend in (RW, RO)}
            found["servers"].append(entry)
        found["writer"] = next((one.ip for one in wanted.members if one.name == writer), None)
        found["old_workers"] = len(self._haproxy.old_workers())
        return found

    def figures(self) -> dict[str, Any]:
        """What HAProxy counts: `rw` and `ro` all in all, and `members` with the same of each.

        Counters begin anew with a change of the configuration, save for what workers from before it still count. Times are averages over
        the last 1024 sessions, in ms.
        """
        wanted = self._wanted()
        if wanted is None or not self._haproxy.proof():
            return {"limit": self._host.connections, "rw": {}, "ro": {}, "members": []}
        rows = list(self._haproxy.all_rows())
        found: dict[str, Any] = {"limit": self._host.connections, "members": []}
        for backend in (RW, RO):
            found[backend] = {name: _sum_of(rows, backend, ("BACKEND",), column) for name, column in _SUMS.items()}
        for member in wanted.members:
            one: dict[str, Any] = {"name": member.name, "ip": member.ip}
            for backend in (RW, RO):
                own = [row for row in rows if row.backend == backend and row.name == member.name]
                one[backend] = {name: _sum(rows, backend, member.name, column) for name, column in _SUMS.items()}
                one[backend] |= {name: own[0].number(column) for name, column in _TIMES.items()} if own else {}
            found["members"].append(one)
        return found

    # The life of the agent

    def resume(self) -> None:
        """After a restart of the agent or the node: what was under way is finished, HAProxy runs if it should."""
        with self._lock:
            if self._notes.get("glb_stopping"):
                self.stop(0.0)
            if self._wanted() is None:
                return
            self._apply()
        self._watch.start()

    def close(self) -> None:
        """The agent ends; the load balancer goes on."""
        self._watch.stop()

    def log_files(self) -> dict[str, pathlib.Path]:
        """HAProxy's log: changes of members, and sessions that ended in an error. The supervisor rotates it."""
        return {LOG: self._log} if self._log.exists() else {}

    # How it comes about

    def _wanted(self) -> spec.BalancerConfig | None:
        values = self._notes.get("glb")
        return spec.BalancerConfig.from_dict(values) if values else None

    def _drained(self) -> dict[str, int]:
        return dict(self._notes.get("glb_drained") or {})

    def _apply(self) -> None:
        """Have HAProxy work by the notes."""
        wanted = self._wanted()
        assert wanted is not None
        if not self._haproxy.running:
            self._check_ports()
        drained = self._drained()
        members = self._in_order(wanted)
        if self._haproxy.apply(self._host, members, wanted.health_port, drained):
            log.info("the load balancer works by configuration %d", wanted.serial)
        for row in self._haproxy.rows():
            if row.backend == RW and row.name in _names(wanted) and (row.state == "drained") != (row.name in drained):
                self._haproxy.drain(row.name, on=row.name in drained)
                self._haproxy.forget_states(members, wanted.health_port, drained)

    def _in_order(self, wanted: spec.BalancerConfig) -> list[spec.Member]:
        """The members in the order in which they become the writer, the one that it is first."""
        writer = self._notes.get("glb_writer")
        return sorted(wanted.members, key=lambda one: one.name != writer)

    def _writer_now(self) -> str | None:
        """Who is the writer, or was it when that was known last."""
        wanted = self._wanted()
        if wanted is None or not self._haproxy.proof():
            return self._notes.get("glb_writer")
        return self._writer(wanted, {(row.backend, row.name): row for row in self._haproxy.rows()})

    def _writer(self, wanted: spec.BalancerConfig, rows: dict[tuple[str, str], haproxy.Row]) -> str | None:
        """The member that the next writing session goes to, as HAProxy chooses: who was it last, the first in order, any at last."""
        last = self._haproxy.remembered_writer()
        order = sorted((one.name for one in self._in_order(wanted)), key=lambda name: name != last)
        for backend, suffix in ((RW, ""), (RW, LAST)):
            for name in order:
                row = rows.get((backend, name + suffix))
                if row is not None and row.state == "up":
                    return name
        return None

    def _check_ports(self) -> None:
        for address in self._host.addresses:
            for port in (self._host.port, self._host.read_port):
                reason = ports.why_not(address, port)
                if reason:
                    raise errors.OperationFailed(f"Port {port} of {address} is not to be had for the load balancer: {reason}.")


class OldSessions:
    """Ends the sessions that workers from before a change still have with a member that is down now: they do not check members any more,
    and a member that froze says nothing. Looks while there are such workers."""

    def __init__(self, balancer: haproxy.HaProxy) -> None:
        self._haproxy = balancer
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin, unless it is at work; it ends by itself when there is nothing to look after."""
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._ending.clear()
            self._thread = threading.Thread(target=self._work, name="old-sessions", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._ending.set()

    def _work(self) -> None:
        while not self._ending.wait(_WATCH_INTERVAL):
            try:
                self.look()
            except (errors.ConPaaSError, OSError) as error:
                log.warning("old sessions are not looked after: %s", error)

    def look(self) -> None:
        """Look once."""
        if not self._haproxy.old_workers():
            return
        rows = [row for row in self._haproxy.rows() if row.backend in haproxy_config.CHECKED and not row.of_all]
        for name in {row.name for row in rows if row.state == "down"} - {row.name for row in rows if row.state != "down"}:
            closed = self._haproxy.close_sessions(name, old_only=True)
            if closed:
                log.info("%d old sessions of %s, which is down, were ended", closed, name)


def classic(addresses: Sequence[str]) -> spec.BalancerConfig:
    """The configuration that the classic call means, which knows addresses only."""
    return spec.BalancerConfig(0, tuple(member_at(one) for one in addresses))


def member_at(text: str) -> spec.Member:
    """The member at `ip` or `ip:port`, named after its address. Raises InvalidArgument."""
    host, port = text, "3306"
    if text.startswith("[") or text.count(":") == 1:
        host, _, port = text.rpartition(":") if not text.endswith("]") else (text, "", port)
    try:
        ip = str(ipaddress.ip_address(host.strip("[]")))
        return spec.Member("node-" + ip.replace(":", "-") + ("" if port == "3306" else f"-{port}"), ip, int(port))
    except ValueError as error:
        raise errors.InvalidArgument(f"'{text[:100]}' is not an IP address with a port.") from error


def _names(wanted: spec.BalancerConfig) -> set[str]:
    return {one.name for one in wanted.members}


def _says_the_same(former: spec.BalancerConfig | None, wanted: spec.BalancerConfig) -> bool:
    """Whether nothing is to be done for a configuration: a newer one that names the writer means it anew."""
    if former is None or dataclasses.replace(former, serial=wanted.serial) != wanted:
        return False
    return wanted.writer is None or former.serial == wanted.serial


def _check_of(row: haproxy.Row) -> str:
    """What the last check of a member said, such as `L7STS/503 in 3 ms: MariaDB does not answer`."""
    status, code, took = (row.values.get(name, "") for name in ("check_status", "check_code", "check_duration"))
    said = row.values.get("last_chk", "")
    return status.lstrip("* ") + (f"/{code}" if code else "") + (f" in {took} ms" if took else "") + (f": {said}" if said else "")


def _sum(rows: Sequence[haproxy.Row], backend: str, member: str, column: str) -> int:
    return _sum_of(rows, backend, (member, member + LAST), column)


def _sum_of(rows: Sequence[haproxy.Row], backend: str, names: Sequence[str], column: str) -> int:
    return sum(row.number(column) for row in rows if row.backend == backend and row.name in names)


def _host(configuration: config.Config, address: str, directory: pathlib.Path) -> haproxy_config.Host:
    """What HAProxy gets of this node."""
    number: Callable[..., int] = configuration.get_int
    private = configuration.get(configuration.main, "PRIVATE_IP", address)
    addresses = tuple(dict.fromkeys(one for one in (address, private) if ports.is_local(one)))
    user = _user(configuration)
    wanted = number("mysql", "GLB_CONNECTIONS", 10_000, minimum=10, maximum=500_000)
    return haproxy_config.Host(
        addresses=addresses or (ports.inner_address(address, configuration),),
        port=number("mysql", "GLB_PORT", 8010, minimum=1, maximum=65_535),
        read_port=number("mysql", "GLB_READ_PORT", 8011, minimum=1, maximum=65_535),
        connections=min(wanted, _connections_to_be_had()),
        threads=min(len(os.sched_getaffinity(0)), _MAX_THREADS),
        empty=directory / "empty",
        user=user,
        group=grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name if user else None,
        log_all=configuration.get("mysql", "GLB_LOG", "errors") == "all",
    )


def _user(configuration: config.Config) -> str | None:
    """Who HAProxy's workers become, where the agent is root: the master stays root, and hands them what they need."""
    if os.geteuid() != 0:
        return None
    name = configuration.get("mysql", "HAPROXY_USER", "haproxy")
    try:
        pwd.getpwnam(name)
    except KeyError:
        log.warning("the load balancer runs as root: there is no user %s", name)
        return None
    return name


def _connections_to_be_had() -> int:
    """As many as the open files of a process allow: two each, and as many again for pipes through which the kernel passes data on."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 500_000 if hard == resource.RLIM_INFINITY else max(10, (hard - _SPARE_FILES) // 4)
