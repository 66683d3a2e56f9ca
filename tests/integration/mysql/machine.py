"""A node of a mysql service for tests: its directories, a real runsvdir, and an agent that can be made anew."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
from typing import Any

from tests.support import nodes

from conpaas.core import config, file, paths
from conpaas.services.mysql import spec
from conpaas.services.mysql.agent import agent
from conpaas.services.mysql.workload import layout, mariadb, sql, status

from . import certificates

new_address = nodes.Addresses("127.63").new
until = nodes.until


class Machine:
    """One node: `agent` answers its calls."""

    def __init__(self, root: pathlib.Path, name: str, *, address: str | None = None, **settings: str) -> None:
        self.name = name
        self.address = address or new_address()
        self.paths = paths.Paths.under(root)
        self.paths.create()
        vm = {"MY_IP": self.address, **self.paths.to_config()}
        self.config = config.Config({"agent": {"TYPE": "mysql", **vm}, "mysql": {"BUFFER_POOL": "32", **settings}})
        self._runsvdir = self._boot()
        self.agent = agent.MySQLAgent(self.config)

    @property
    def member(self) -> spec.Member:
        return spec.Member(self.name, self.address)

    @property
    def layout(self) -> layout.Layout:
        return self.agent._database.layout

    def settings(self, machines: list[Machine], **changes: Any) -> spec.NodeSettings:
        """The settings of this node in a cluster of these nodes."""
        tls = certificates.authority().files(self.name, self.address)
        values: dict[str, Any] = {"cluster": "test", "name": self.name, "members": tuple(one.member for one in machines), "tls": tls}
        return spec.NodeSettings(**{**values, **changes})

    def start(self, machines: list[Machine], *, bootstrap: bool = False, device: str | None = None, **changes: Any) -> dict[str, Any]:
        """The RPC as a manager calls it."""
        return self.agent.start_mysqld(self.settings(machines, **changes).to_dict(), bootstrap, device, [])

    @property
    def state(self) -> dict[str, Any]:
        return self.agent.get_mysqld_state()

    def synced(self, size: int, deadline: float = 40.0) -> None:
        """Return once the node works in a cluster of so many members."""
        wanted = (True, "Synced", size)
        until(lambda: self._word() == wanted, f"{self.name} is Synced in a cluster of {size}: {self.state}", deadline)

    def _word(self) -> tuple[Any, ...]:
        state = self.state
        return state["ready"], state["state"], state["cluster_size"]

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        connection = sql.connect(self.layout.socket, 20.0)
        try:
            return status.rows(connection, statement, values)
        finally:
            connection.close()

    @property
    def pid(self) -> int:
        found = self.agent.supervisor.status(mariadb.DAEMON).pid
        assert found, f"{self.name} has no server: {self.state}"
        return found

    def signal(self, number: int) -> int:
        """Send the server a signal; returns its process id."""
        pid = self.pid
        os.kill(pid, number)
        return pid

    def log(self) -> str:
        return self.layout.error_log.read_text(errors="replace")

    def new_agent(self) -> None:
        """The agent's process is gone and there is another one."""
        self.agent.close()
        self.agent = agent.MySQLAgent(self.config)
        self.agent.start_up()

    def reboot(self) -> None:
        """All processes are gone at once, and the supervisor starts again; the agent comes later."""
        self._halt()
        self._runsvdir = self._boot()

    def close(self) -> None:
        self.agent.close()
        self._halt()
        if not self.layout.socket.is_relative_to(self.paths.root):
            file.remove_tree(self.layout.socket.parent)

    def _boot(self) -> subprocess.Popen[bytes]:
        script = 'echo $$ >"$0/.runsvdir.pid"; touch -d @1000000000 "$0"; exec runsvdir -P "$0" "log: $(printf \'%0100d\' 0)"'
        return subprocess.Popen(["sh", "-c", script, str(self.paths.service)], stdin=subprocess.DEVNULL, start_new_session=True)

    def _halt(self) -> None:
        """End what this node runs, as the loss of power does: supervisors first, so that nothing comes back."""
        self._runsvdir.kill()
        self._runsvdir.wait()
        services = self.paths.service
        until(lambda: not _kill("runsv", services) and not _kill("svlogd", services), "every runsv has ended")
        for leader in services.glob("*/leader"):
            with contextlib.suppress(OSError, ValueError):
                group = int(leader.read_text())
                os.killpg(group, signal.SIGKILL)
                until(lambda group=group: ended(group), f"{leader.parent.name} has ended")
        until(lambda: not _kill_all(self.paths.root), "all processes of the node have ended")  # one that was just starting has no leader


def ended(pid: int) -> bool:
    """Whether a process runs no more, be it that nobody has asked yet how it ended."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def _kill_all(root: pathlib.Path) -> list[int]:
    """Kill every process whose command names a place below `root`."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{root}/".encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
                os.kill(int(process.name), signal.SIGKILL)
    return found


def _kill(comm: str, below: pathlib.Path) -> list[int]:
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "comm").read_text().strip() == comm and (process / "cwd").readlink().is_relative_to(below):
                found.append(int(process.name))
                os.kill(int(process.name), signal.SIGKILL)
    return found
