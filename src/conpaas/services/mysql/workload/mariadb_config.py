"""The configuration of a database server of a cluster."""

from __future__ import annotations

import dataclasses
import os
import re
import zlib
from collections.abc import Mapping
from typing import Final

from conpaas.core import errors, params, rendering
from conpaas.services.mysql import spec, workload
from conpaas.services.mysql.workload import galera, layout

_VARIABLE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_NEVER: Final = re.compile(
    r"(?:wsrep|ssl|tls|binlog|sync|server|gtid|log|general|slow_query_log_file|relay|master|slave|replicate|report|plugin|skip|init|secure"
    r"|innodb_(?:autoinc|flush_log_at|doublewrite|data|log|undo|temp_data|force|read_only|page_size|use_native|fast_shutdown)"
    r"|datadir|tmpdir|basedir|socket|port|bind|extra_port|pid|user|chroot|lc_messages_dir|character_sets_dir|aria_log|local_infile"
    r"|symbolic|old|lower_case|proxy|require_secure|feedback|aria|core|des|safe|system|transaction_registry)"
)
"""Beginnings of the names of variables that could endanger data, replication, files or accounts of a node."""
_ALLOWED: Final = frozenset(
    {
        "binlog_cache_size",
        "binlog_row_image",
        "binlog_stmt_cache_size",
        "init_connect",
        "log_queries_not_using_indexes",
        "log_slow_rate_limit",
        "log_slow_verbosity",
        "log_warnings",
        "slow_query_log",
    }
)
_OPTIONS: Final = {"time_zone": "default_time_zone"}
"""Variables that have another name in an option file."""
_CHARACTER_SET: Final = "utf8mb4"
"""Of new databases, unless the users of the service chose another one: all of Unicode, while the server's own choice is latin1."""
_DYNAMIC: Final = frozenset({"wsrep_cluster_address", "wsrep_sst_method", "wsrep_sst_donor"})
"""Lines of a configuration that count only at the next start: a server that runs does without them."""


@dataclasses.dataclass(frozen=True)
class Server:
    """What a server has on its machine. Sizes in MB. `listen` is the address of this machine to listen on, `account` the user that it
    runs as, by which the backup of a donor logs in."""

    listen: str
    port: int
    group_port: int
    ist_port: int
    sst_port: int
    provider: str
    account: str
    buffer_pool: int
    redo_log: int
    cache: int
    appliers: int
    weight: int = 1

    @property
    def root(self) -> bool:
        """Whether it runs as root, which it does only when told to."""
        return self.account == "root"


def render(server: Server, settings: spec.NodeSettings, places: layout.Layout) -> str:
    """The configuration of a server. Raises InvalidArgument for what cannot stand in one, or must not."""
    check_variables(settings.variables)
    own = settings.own
    return rendering.render(
        workload.PACKAGE,
        "mariadb.cnf.j2",
        layout=places,
        server=server,
        settings=settings,
        chosen={_OPTIONS.get(name, name): value for name, value in settings.variables.items()},
        charset=settings.variables.get("collation_server", _CHARACTER_SET).partition("_")[0],
        own_domain=2 + zlib.crc32(settings.name.encode()) % (2**32 - 2),
        bound=galera.bracketed(server.listen),
        donors=",".join(settings.donors) + ",",  # the comma at the end: any other, if none of these can
        cluster_address=galera.cluster_address([one.ip for one in settings.members], server.group_port),
        incoming_address=galera.at(own.ip, own.port),
        receive_address=galera.at(own.ip, server.sst_port),
        provider_options=galera.provider_options(
            own.ip,
            server.listen,
            group_port=server.group_port,
            ist_port=server.ist_port,
            cache=server.cache,
            tls=places.tls,
            weight=server.weight,
        ),
    )


def check_variables(variables: Mapping[str, str]) -> None:
    """Refuse what must not be changed by anybody, whatever the service allows its users. Values are the server's to judge."""
    for name, value in variables.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name) or (_NEVER.match(name) and name not in _ALLOWED):
            raise errors.InvalidArgument(f"The server variable '{params.shown(name)}' cannot be chosen.")
        if not isinstance(value, str):
            raise errors.InvalidArgument(f"The value of the server variable '{name}' must be text, got {params.shown(value)}.")


def differences(running: str, wanted: str) -> list[str]:
    """The names of variables that a server needs to be started again for, sorted."""
    before, after = options(running), options(wanted)
    names = {option: name for name, option in _OPTIONS.items()}
    changed = (name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return sorted(names.get(name, name) for name in changed if name not in _DYNAMIC)


def memory_of_machine() -> int:
    """In MB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def options(text: str) -> dict[str, str]:
    """What a configuration sets, by the names that it has in an option file."""
    lines = (line.partition("=") for line in text.splitlines() if not line.startswith(("#", "[")))
    return {name.strip(): value.strip() for name, separator, value in lines if separator}
