"""A mysql service on a whole platform: as its users see it, and its database servers asked directly, member by member."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
from collections.abc import Iterator, Mapping
from typing import Any

import pymysql

from conpaas.core import errors
from conpaas.services.mysql.workload import layout, sql
from tests.support import consistency, journal, sites
from tests.support import platform as platforms

APP = "shop"
PASSWORD = 'it\'s "quoted"; `x` $HOME \\ #1'


@contextlib.contextmanager
def service(
    directory: pathlib.Path, net: int, *, members: int = 3, manager: Mapping[str, str] | None = None, boot: str = ""
) -> Iterator[Database]:
    """A platform with a mysql service of so many members and a load balancer; `mysqldb` has `PASSWORD`, and there is a database `shop`."""
    with platforms.platform(directory, net, manager={"HEALTH_INTERVAL": "1", **(manager or {})}, boot=boot) as platform:
        platform.cps("application", "create", APP)
        platform.cps("application", "start", APP)
        made = Database(platform, APP)
        made.cps("start")
        made.cps("add_nodes", "--mysql", str(members - 1), "--glb", "1")
        made.cps("set_password", stdin=f"{PASSWORD}\n{PASSWORD}\n")
        made.cps("databases", "add", "shop")
        yield made


class Database(sites.Site):
    """A mysql service of an application, and how clients reach it: by default as its user with all rights, with `PASSWORD`."""

    def __init__(self, platform: platforms.Platform, app: str) -> None:
        super().__init__(platform, app, "mysql")

    def cps(self, verb: str, *words: str | pathlib.Path, check: bool = True, stdin: str = "") -> platforms.Result:
        return self.platform.run("cps-mysql", "--yes", verb, self.app, self.sid, *words, check=check, stdin=stdin)

    def addresses(self, role: str = "mysql") -> dict[str, str]:
        """Addresses by node id."""
        return {row["agent_id"]: row["ip"] for row in self.data("list_nodes") if row["role"] == role}

    def health(self) -> dict[str, Any]:
        found: dict[str, Any] = self.data("info")["cluster"]
        return found

    def settle(self, size: int) -> None:
        """Wait until the service runs, with so many members and all of them well."""

        def well() -> bool:
            if self.state != "RUNNING":
                return False
            health = self.health()
            return bool(health["healthy"]) and health["size"] == size == len(self.addresses())

        try:
            platforms.until(well, f"{size} members are well")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.state}, {self.data('info')}\n{self.cps('get_history').out}") from error
        told = {dict(self.ask(ip, "SHOW STATUS LIKE 'wsrep_cluster_s%'"))["wsrep_cluster_state_uuid"] for ip in self.addresses().values()}
        assert len(told) == 1, "one cluster"

    def ask(self, address: str, statement: str) -> tuple[tuple[Any, ...], ...]:
        """What one member has, past the load balancer; asked again while it finds its way back into the cluster."""

        def answer() -> tuple[tuple[tuple[Any, ...], ...]] | None:
            with contextlib.suppress(pymysql.MySQLError, errors.ConPaaSError):
                return (ask(self.platform, address, statement),)
            return None

        (found,) = platforms.until(answer, f"{address} answers")
        return found  # type: ignore[no-any-return]

    def login(self, user: str = "mysqldb", password: str = PASSWORD, *, address: str = "write", **more: Any) -> dict[str, Any]:
        """How a client logs in through the load balancer, by the address for everything or by the one for reading (`read`)."""
        host, _, port = str(self.data("info")[address]).partition(":")
        # The driver would take a text for latin-1.
        return {"host": host, "port": int(port), "user": user, "password": password.encode(), "charset": "utf8mb4", **more}

    def query(self, statement: str, **login: Any) -> list[tuple[Any, ...]]:
        options = {**self.login(), "autocommit": True, **login}
        with contextlib.closing(pymysql.connect(**options)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return [tuple(row) for row in cursor.fetchall()]

    def writer(self) -> str:
        """The address of the member that clients write to now."""
        ((name,),) = self.query("SELECT @@wsrep_node_name")
        return self.addresses()[name]

    def resize(self, size: int) -> None:
        """Have so many members."""
        now = len(self.addresses())
        if now != size:
            self.cps("add_nodes" if now < size else "remove_nodes", "--mysql", str(abs(size - now)))
        self.settle(size)

    def repairs(self) -> int:
        """How often the service was repaired so far."""
        return self.cps("get_history").out.count("Repairing the cluster")

    def others(self, address: str) -> list[str]:
        """The addresses of the other members."""
        return [ip for ip in self.addresses().values() if ip != address]

    @property
    def manager(self) -> str:
        """The address of the application's manager."""
        return next(str(one["manager"]) for one in self.platform.data("application", "list") if one["name"] == self.app)

    def verify(self, written: journal.Journal) -> None:
        """Every acknowledged row is on every member, and none is there twice."""
        for name, ip in self.addresses().items():
            tokens = [str(token) for (token,) in self.ask(ip, "SELECT token FROM shop.journal")]
            assert len(tokens) == len(set(tokens)), f"rows are twice on {name}"
            lost = written.acknowledged - set(tokens)
            assert not lost, f"{len(lost)} of {len(written.acknowledged)} rows are not on {name}"


def kill_manager(database: Database) -> None:
    """SIGKILL; returns when there is another one."""
    platform, address = database.platform, database.manager
    pid = consistency.daemon_of(platform, address, "manager")
    os.kill(pid, signal.SIGKILL)
    platforms.until(lambda: consistency.daemon_of(platform, address, "manager") not in (0, pid), "the manager is back")


def server_of(platform: platforms.Platform, address: str) -> int:
    """The process of mariadbd inside the VM that has this address; 0 if there is none."""
    found = (pid for pid in consistency.processes_of(platform, address) if consistency.command_of(pid)[0].endswith("/mariadbd"))
    return next(found, 0)


def socket_of(platform: platforms.Platform, address: str) -> pathlib.Path:
    """Where the server of that VM is reached without a password. Inside the VM, the way to the same directory may be a shorter one."""
    (run,) = consistency.vm_of(platform, address).glob("root/var/run/**/mysql")
    inside = run / layout.socket_in(pathlib.Path("/")).name
    return inside if inside.exists() else layout.socket_in(run)


def ask(platform: platforms.Platform, address: str, statement: str) -> tuple[tuple[Any, ...], ...]:
    """What one member answers, who first waits for what others have acknowledged until now."""
    with contextlib.closing(sql.connect(socket_of(platform, address), 20.0)) as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION wsrep_sync_wait = 1")
        cursor.execute(statement)
        return tuple(tuple(row) for row in cursor.fetchall())


def takes_writes(platform: platforms.Platform, address: str) -> bool:
    """Whether that member works for clients: it belongs to the part of the cluster that has the majority."""
    try:
        with contextlib.closing(sql.connect(socket_of(platform, address), 5.0)) as connection, connection.cursor() as cursor:
            cursor.execute("SHOW STATUS WHERE Variable_name IN ('wsrep_ready', 'wsrep_cluster_status')")
            return {str(value) for _, value in cursor.fetchall()} == {"ON", "Primary"}
    except (pymysql.MySQLError, errors.ConPaaSError):
        return False


def is_donor(platform: platforms.Platform, address: str) -> bool:
    """Whether that member is giving another one all its data at the moment."""
    with contextlib.closing(sql.connect(socket_of(platform, address), 5.0)) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW STATUS LIKE 'wsrep_local_state_comment'")
        return str(cursor.fetchone()[1]).startswith("Donor")
