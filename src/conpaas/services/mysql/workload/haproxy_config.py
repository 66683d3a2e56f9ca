"""What HAProxy reads: its configuration, and what it is to think of the members when it starts."""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from conpaas.core import errors, params, rendering
from conpaas.services.mysql import spec, workload

RW: Final = "rw"
RO: Final = "ro"
ANY: Final = "any"
CHECKED: Final[Mapping[str, int]] = {RW: 1, RO: 2, ANY: 3}
"""The backends whose members are checked, by their ids."""
LAST: Final = ":last"
"""What the name of a member ends in where it serves only if none is in step with the cluster."""
STATE_FILE: Final = "members.state"

_STATE_HEAD: Final = (
    "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change"
    " srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port"
    " srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port\n"
)
_COLUMNS: Final = 25
_FORCED_DRAIN: Final = 0x08
_UNCHECKED: Final = ("1", "0", "0")


@dataclasses.dataclass(frozen=True)
class Host:
    """What HAProxy gets of its node: where it listens, and how much it may take. `user` is who its workers become (None: nobody else),
    `empty` the directory they are locked into then."""

    addresses: tuple[str, ...]
    port: int
    read_port: int
    connections: int
    threads: int
    empty: pathlib.Path
    user: str | None = None
    group: str | None = None
    log_all: bool = False


@dataclasses.dataclass(frozen=True)
class Server:
    """A member as HAProxy knows it: `number` is its id, `last` that of its second entry."""

    name: str
    address: str
    number: int
    last: int


def servers(members: Sequence[spec.Member]) -> list[Server]:
    """Members as HAProxy knows them, in the same order."""
    count = len(members)
    return [Server(one.name, f"{bracketed(one.ip)}:{one.port}", at, count + at) for at, one in enumerate(members, 1)]


def render(host: Host, members: Sequence[spec.Member], health_port: int) -> tuple[str, str]:
    """The configuration, and the proof by which a running HAProxy tells that it works by it. The first of the members is the writer."""
    bound = dataclasses.replace(host, addresses=tuple(bracketed(one) for one in host.addresses))
    values = {"host": bound, "servers": servers(members), "health_port": health_port, "state_file": STATE_FILE}
    bare = rendering.render(workload.PACKAGE, "haproxy.cfg.j2", proof="-", **values)
    proof = hashlib.sha256(bare.encode()).hexdigest()[:32]
    return rendering.render(workload.PACKAGE, "haproxy.cfg.j2", proof=proof, **values), proof


def bracketed(ip: str) -> str:
    """An address as it stands before a port. Raises InvalidArgument for anything else."""
    try:
        found = ipaddress.ip_address(ip)
    except ValueError as error:
        raise errors.InvalidArgument(f"'{params.shown(ip)}' is not an IP address.") from error
    return f"[{found}]" if found.version == 6 else str(found)


@dataclasses.dataclass(frozen=True)
class Known:
    """What a running HAProxy thinks of a member in one of its backends (values as in `show servers state`)."""

    backend: str
    name: str
    address: str
    operational: int
    check: tuple[str, str, str]


def parse_state(text: str) -> list[Known]:
    """Read the answer to `show servers state`."""
    rows = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return [
        Known(row[1], row[3], f"{bracketed(row[4])}:{row[18]}", int(row[5]), (row[10], row[11], row[12])) for row in rows if len(row) > 18
    ]


def state(members: Sequence[spec.Member], health_port: int, known: Sequence[Known] = (), drained: Collection[str] = ()) -> str:
    """The state to start with: a member that is not known yet is down until a check finds it up, which takes half a second at most."""
    before = {(one.backend, one.name, one.address): one for one in known}
    lines = []
    for backend, number in CHECKED.items():
        for server, member in zip(servers(members), members, strict=True):
            found = before.get((backend, server.name, server.address))
            operational, check = (found.operational, found.check) if found else (0, _UNCHECKED)
            admin = _FORCED_DRAIN if server.name in drained else 0
            row = [
                number,
                backend,
                server.number,
                server.name,
                member.ip,
                operational,
                admin,
                1,
                1,
                0,
                *check,
                6,
                0,
                1,
                1,
                "-",
                member.port,
            ]
            row += ["-", 0, health_port, "-", "-", 0]
            assert len(row) == _COLUMNS
            lines.append(" ".join(str(value) for value in row))
    return _STATE_HEAD + "".join(f"{line}\n" for line in lines)
