"""What a manager may ask of an agent of a mysql service: one thin function per call. Every call is idempotent unless it says otherwise."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from conpaas.core import agents, node
from conpaas.services.mysql import spec

_START_TIMEOUT: Final = 180.0
_RECOVER_TIMEOUT: Final = 600.0
_STATE_TIMEOUT: Final = 5.0
_MARGIN: Final = 30.0
_BALANCER_TIMEOUT: Final = 60.0
_STATEMENT_TIMEOUT: Final = 90.0
_DUMP_TIMEOUT: Final = 6 * 3600.0

# The database server


def start_mysqld(
    caller: agents.AgentCaller, target: node.ServiceNode, settings: spec.NodeSettings, *, bootstrap: bool = False, device: str | None = None
) -> dict[str, Any]:
    """Have the database server run; returns `port` and `restart_needed` once it runs, not once it has all data. `bootstrap` founds the
    cluster with what the node has; a later start, by whomever, does not."""
    arguments = {"settings": settings.to_dict(), "bootstrap": bootstrap, "device_name": device}
    return dict(caller.post(target, "start_mysqld", _timeout=_START_TIMEOUT, **arguments))


def mysqld_state(caller: agents.AgentCaller, target: node.ServiceNode) -> dict[str, Any]:
    """What the database server does (see `agent.database`); comes within two seconds."""
    return dict(caller.get(target, "get_mysqld_state", _timeout=_STATE_TIMEOUT))


def position(caller: agents.AgentCaller, target: node.ServiceNode, device: str | None = None) -> dict[str, Any]:
    """`uuid` and `seqno` of the last transaction of a stopped database server."""
    return dict(caller.get(target, "get_position", _timeout=_RECOVER_TIMEOUT, device_name=device))


def stop_mysqld(caller: agents.AgentCaller, target: node.ServiceNode, timeout: int = 120) -> None:
    """End the database server in order, and by force after `timeout` seconds; it stays stopped."""
    caller.post(target, "stop_mysqld", _timeout=timeout + _MARGIN, timeout=timeout)


def restart_mysqld(caller: agents.AgentCaller, target: node.ServiceNode) -> None:
    """End the database server and start it again with the configuration that waits for it. Each call is one restart."""
    caller.post(target, "restart_mysqld", _timeout=_START_TIMEOUT)


def set_desync(caller: agents.AgentCaller, target: node.ServiceNode, on: bool) -> None:
    """Let a member fall behind without holding up the others, or no longer."""
    caller.post(target, "set_desync", on=on)


def set_health(caller: agents.AgentCaller, target: node.ServiceNode, on: bool) -> None:
    """Let load balancers send sessions to a member, or no longer."""
    caller.post(target, "set_health", on=on)


def drain_mysqld(caller: agents.AgentCaller, target: node.ServiceNode, timeout: int) -> int:
    """Take a member out of service and wait until no client has anything under way, `timeout` seconds at most; returns how many have."""
    return int(caller.post(target, "drain_mysqld", _timeout=timeout + _MARGIN, timeout=timeout)["sessions"])


# The load balancer


def configure_balancer(caller: agents.AgentCaller, target: node.ServiceNode, configuration: spec.BalancerConfig) -> Mapping[str, Any]:
    """Have the load balancer work with a configuration. Returns `port` and `read_port`, once new connections are treated by it."""
    return dict(caller.post(target, "configure_glbd", _timeout=_BALANCER_TIMEOUT, configuration=configuration.to_dict()))


def drain_member(caller: agents.AgentCaller, target: node.ServiceNode, name: str, timeout: int) -> int:
    """Give a member no new sessions until a newer configuration lists it. Returns, after at most `timeout` seconds, how many sessions
    had to be ended."""
    return int(caller.post(target, "drain_member", _timeout=timeout + _BALANCER_TIMEOUT, name=name, timeout=timeout)["sessions"])


def stop_balancer(caller: agents.AgentCaller, target: node.ServiceNode, timeout: int) -> None:
    """Let the load balancer end; connections have `timeout` seconds for that."""
    caller.post(target, "stop_glbd", _timeout=timeout + _BALANCER_TIMEOUT, timeout=timeout)


def balancer_state(caller: agents.AgentCaller, target: node.ServiceNode) -> dict[str, Any]:
    """`state`, `port`, `read_port`, `serial`, `writer`, `old_workers` and `servers` (see `balancer.BalancerRole.state`)."""
    return dict(caller.get(target, "get_glbd_state"))


def balancer_figures(caller: agents.AgentCaller, target: node.ServiceNode) -> dict[str, Any]:
    """`limit`, `rw`, `ro` and `members` (see `balancer.BalancerRole.figures`)."""
    return dict(caller.get(target, "get_glbd_figures"))


# Accounts. What is changed on one member is replicated to all.


def set_password(caller: agents.AgentCaller, target: node.ServiceNode, user: str, password: str) -> None:
    """Change the password of a user, wherever he may come from."""
    caller.post(target, "set_password", _timeout=_STATEMENT_TIMEOUT, username=user, password=password)


def create_user(
    caller: agents.AgentCaller,
    target: node.ServiceNode,
    user: str,
    password: str,
    databases: Sequence[str] = (),
    privileges: str = "all",
    *,
    exist_ok: bool = False,
) -> None:
    """Create a user. Idempotent with `exist_ok` only: a user who is there gets this password and these privileges, too."""
    arguments = {"username": user, "password": password, "databases": list(databases), "privileges": privileges, "exist_ok": exist_ok}
    caller.post(target, "create_user", _timeout=_STATEMENT_TIMEOUT, **arguments)


def drop_user(caller: agents.AgentCaller, target: node.ServiceNode, user: str) -> None:
    """Remove a user. Not idempotent: `NotFound` travels as an error."""
    caller.post(target, "drop_user", _timeout=_STATEMENT_TIMEOUT, username=user)


def end_sessions(caller: agents.AgentCaller, target: node.ServiceNode, user: str) -> None:
    """End the sessions that a user has on this member. Idempotent."""
    caller.post(target, "end_sessions", _timeout=_STATEMENT_TIMEOUT, username=user)


def list_users(caller: agents.AgentCaller, target: node.ServiceNode) -> list[dict[str, Any]]:
    """Users by name: `user`, `hosts`, and `databases` with `name` and `privileges` each."""
    return list(caller.get(target, "list_users", _timeout=_STATEMENT_TIMEOUT)["users"])


def grant(caller: agents.AgentCaller, target: node.ServiceNode, user: str, database: str, privileges: str) -> None:
    """Give a user exactly these privileges on a database; `*` is every one but the server's own."""
    caller.post(target, "grant", _timeout=_STATEMENT_TIMEOUT, username=user, database=database, privileges=privileges)


def revoke(caller: agents.AgentCaller, target: node.ServiceNode, user: str, database: str) -> None:
    caller.post(target, "revoke", _timeout=_STATEMENT_TIMEOUT, username=user, database=database)


def create_database(caller: agents.AgentCaller, target: node.ServiceNode, name: str, *, exist_ok: bool = False) -> None:
    """Create a database. Idempotent with `exist_ok` only."""
    caller.post(target, "create_database", _timeout=_STATEMENT_TIMEOUT, name=name, exist_ok=exist_ok)


def drop_database(caller: agents.AgentCaller, target: node.ServiceNode, name: str) -> None:
    """Remove a database. Not idempotent."""
    caller.post(target, "drop_database", _timeout=_STATEMENT_TIMEOUT, name=name)


def list_databases(caller: agents.AgentCaller, target: node.ServiceNode) -> list[dict[str, Any]]:
    """Databases by name: `name`, `bytes`, `tables`."""
    return list(caller.get(target, "list_databases", _timeout=_STATEMENT_TIMEOUT)["databases"])


# Variables: of one member only


def set_variables(caller: agents.AgentCaller, target: node.ServiceNode, values: Mapping[str, str]) -> list[str]:
    """Have one member work with other values; returns the names of those that wait for its next start."""
    return list(caller.post(target, "set_variables", _timeout=_STATEMENT_TIMEOUT, values=dict(values))["pending_restart"])


def get_variables(caller: agents.AgentCaller, target: node.ServiceNode) -> dict[str, str]:
    """What is in force on one member, in the server's words (`variables.same` compares)."""
    return dict(caller.get(target, "get_variables")["variables"])


# Dumps


def load_dump(
    caller: agents.AgentCaller, target: node.ServiceNode, dump: pathlib.Path, database: str | None = None, *, fresh: bool = False
) -> dict[str, int]:
    """Run the statements of a dump; returns `bytes`, `sql_bytes`, `lines`. Not idempotent, except with `fresh`."""
    fields: dict[str, Any] = {} if database is None else {"database": database}
    return dict(
        caller.upload(target, "load_dump", {"mysqldump_file": dump}, _timeout=_DUMP_TIMEOUT, fresh="yes" if fresh else "no", **fields)
    )


def load_progress(caller: agents.AgentCaller, target: node.ServiceNode) -> dict[str, Any]:
    """`running`, `database`, `bytes` of `total`, `sql_bytes`, `lines`, `started`, `error`."""
    return dict(caller.get(target, "get_load_progress")["progress"])


def cancel_load(caller: agents.AgentCaller, target: node.ServiceNode) -> bool:
    """Stop the load under way; whether there was one."""
    return bool(caller.post(target, "cancel_load")["cancelled"])


def sqldump(
    caller: agents.AgentCaller, target: node.ServiceNode, to: pathlib.Path, database: str | None = None, compression: str = "none"
) -> None:
    """Store a consistent dump of one database, or of all, at `to`."""
    caller.download(target, "sqldump", to, _timeout=_DUMP_TIMEOUT, database=database, compression=compression)


# Backups


def make_backup(caller: agents.AgentCaller, target: node.ServiceNode) -> dict[str, Any]:
    """Have a member write a backup into a file of its own; returns `bytes`, `sha256`, `uuid`, `time`."""
    return dict(caller.post(target, "make_backup", _timeout=_DUMP_TIMEOUT))


def verify_backup(caller: agents.AgentCaller, target: node.ServiceNode) -> dict[str, Any]:
    """Have that backup restored beside everything and checked; returns `seqno`, `gtid`, `binlog`, `version`, `tables`."""
    return dict(caller.post(target, "verify_backup", _timeout=_DUMP_TIMEOUT))


def fetch_backup(caller: agents.AgentCaller, target: node.ServiceNode, to: pathlib.Path) -> None:
    caller.download(target, "download_backup", to, _timeout=_DUMP_TIMEOUT)


def forget_backup(caller: agents.AgentCaller, target: node.ServiceNode) -> None:
    caller.post(target, "forget_backup", _timeout=_STATEMENT_TIMEOUT)


def close_binlogs(caller: agents.AgentCaller, target: node.ServiceNode, after: int) -> list[dict[str, Any]]:
    """The closed binary logs with transactions later than `after`, oldest first: `name`, `bytes`, `after`, `last`, `end` (a second)."""
    return list(caller.post(target, "close_binlogs", _timeout=_STATEMENT_TIMEOUT, after=after)["binlogs"])


def fetch_binlog(caller: agents.AgentCaller, target: node.ServiceNode, name: str, to: pathlib.Path) -> None:
    caller.download(target, "download_binlog", to, _timeout=_DUMP_TIMEOUT, name=name)


def prepare_restore(caller: agents.AgentCaller, target: node.ServiceNode, backup: pathlib.Path) -> dict[str, Any]:
    """Have data made of a backup beside those in use; returns what `verify_backup` does. Begins anew each time."""
    return dict(caller.upload(target, "prepare_restore", {"backup": backup}, _timeout=_DUMP_TIMEOUT))


def add_binlog(caller: agents.AgentCaller, target: node.ServiceNode, log: pathlib.Path, number: int) -> None:
    caller.upload(target, "add_binlog", {"log": log}, _timeout=_DUMP_TIMEOUT, number=str(number))


def replay_binlogs(caller: agents.AgentCaller, target: node.ServiceNode, after: int, until: int | None) -> int:
    """Carry out the logs on the restored data; returns the last transaction. Not idempotent: prepare anew before trying again."""
    return int(caller.post(target, "replay_binlogs", _timeout=_DUMP_TIMEOUT, after=after, until=until)["seqno"])


def swap_restored(caller: agents.AgentCaller, target: node.ServiceNode, on: bool) -> None:
    """Put the restored data in the place of those of a stopped server, or the former ones back."""
    caller.post(target, "swap_restored", on=on)


def discard_restore(caller: agents.AgentCaller, target: node.ServiceNode) -> None:
    """Remove what a restore has left on a node; of a server with data only what is not in use."""
    caller.post(target, "discard_restore", _timeout=_STATEMENT_TIMEOUT)


# Figures


def figures(caller: agents.AgentCaller, target: node.ServiceNode) -> dict[str, Any]:
    """`rates` a second, `values` now, `ratios`, `latency` (ms or null), `seconds`, `max_connections`, `classic` (texts)."""
    return dict(caller.get(target, "get_figures"))


def slow_log(caller: agents.AgentCaller, target: node.ServiceNode, offset: int | None, limit: int) -> dict[str, Any]:
    """`log`, `offset`, `size`, `on`, `seconds`."""
    return dict(caller.get(target, "get_slow_log", offset=offset, limit=limit))
