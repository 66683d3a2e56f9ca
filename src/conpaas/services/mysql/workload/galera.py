"""Galera: addresses, options of the provider, and what a stopped node knows of its cluster."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from conpaas.core import errors, file

NO_CLUSTER: Final = "00000000-0000-0000-0000-000000000000"
UNKNOWN: Final = -1
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_RECOVERED: Final = re.compile(r"WSREP: Recovered position:\s*([0-9a-f-]{36}):(-?[0-9]{1,19})", re.ASCII)
_STATE_FILE: Final = "grastate.dat"
_LIMIT: Final = 4096

TIMING: Final[Mapping[str, str]] = {
    "evs.keepalive_period": "PT0.3S",
    "evs.inactive_check_period": "PT0.2S",
    "evs.join_retrans_period": "PT0.3S",
    "evs.suspect_timeout": "PT1.3S",
    "evs.inactive_timeout": "PT3S",
    "evs.install_timeout": "PT3S",
}
"""A member that says nothing for 1.3 seconds (four of its signs of life missing) is suspected, and left out once all others suspect it
too: what is being committed meanwhile waits about 1.5 seconds. By default it would be 5 seconds. `join_retrans_period` and
`install_timeout` are how often, and how long at most, members ask each other who is there; by default joining takes a second longer."""


@dataclasses.dataclass(frozen=True)
class Position:
    """The last transaction of a node. `seqno` -1: not known, or none."""

    uuid: str = NO_CLUSTER
    seqno: int = UNKNOWN

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class SavedState:
    """What a node wrote down when it was last stopped; `seqno` is -1 while it runs, and after a crash."""

    position: Position
    safe_to_bootstrap: bool


def at(ip: str, port: int) -> str:
    """An address with a port."""
    return f"{bracketed(ip)}:{port}"


def bracketed(ip: str) -> str:
    """An address as it stands before a port."""
    return f"[{ip}]" if ipaddress.ip_address(ip).version == 6 else ip


def cluster_address(ips: Sequence[str], port: int) -> str:
    """Where a node finds its cluster: at all members, itself among them, so that the list is the same everywhere."""
    return "gcomm://" + ",".join(at(ip, port) for ip in ips)


def provider_options(ip: str, listen: str, *, group_port: int, ist_port: int, cache: int, tls: pathlib.Path, weight: int = 1) -> str:
    """The options of the provider. `ip` is what other nodes use, `listen` what this machine has; `cache` in MB; `weight` is how much the
    member counts for the majority."""
    options = {
        "base_host": bracketed(ip),
        "gmcast.listen_addr": f"ssl://{at(listen, group_port)}",
        "ist.recv_addr": f"ssl://{at(ip, ist_port)}",
        "ist.recv_bind": f"ssl://{at(listen, ist_port)}",
        "socket.ssl": "yes",
        "socket.ssl_ca": f"{tls}/ca.pem",
        "socket.ssl_cert": f"{tls}/certificate.pem",
        "socket.ssl_key": f"{tls}/key.pem",
        "gcache.size": f"{cache}M",
        "gcache.recover": "yes",
        "gcs.fc_limit": "128",
        "pc.recovery": "yes",
        "pc.weight": str(weight),
        **TIMING,
    }
    for name, value in options.items():
        if ";" in value:
            raise errors.InvalidArgument(f"The option {name} of the replication cannot hold a ';': {value}.")
    return ";".join(f"{name}={value}" for name, value in options.items())


def saved_state(data: pathlib.Path) -> SavedState | None:
    """What the node wrote down in its data directory; None when there is nothing, or nothing that can be read as such."""
    values = dict(_words(file.tail(data / _STATE_FILE, _LIMIT)))
    uuid = values.get("uuid", "")
    if not _UUID.fullmatch(uuid):
        return None
    try:
        seqno = int(values.get("seqno", UNKNOWN))
    except ValueError:
        seqno = UNKNOWN
    return SavedState(Position(uuid, seqno), values.get("safe_to_bootstrap") == "1")


def allow_bootstrap(data: pathlib.Path) -> None:
    """Note in a stopped node's data directory that it may found a cluster, because somebody who knows all nodes decided so."""
    path = data / _STATE_FILE
    try:
        found = path.stat()
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    lines = [line for line in text.splitlines() if not line.startswith("safe_to_bootstrap:")]
    file.write_atomically(path, "\n".join([*lines, "safe_to_bootstrap: 1"]) + "\n", mode=found.st_mode & 0o777)
    if os.geteuid() == 0:
        os.chown(path, found.st_uid, found.st_gid, follow_symlinks=False)


def recovered(log: str) -> Position | None:
    """The position that `mariadbd --wsrep-recover` wrote to its log; None when it found none."""
    found = _RECOVERED.findall(log)
    return Position(found[-1][0], int(found[-1][1])) if found else None


def _words(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, separator, value = line.partition(":")
        if separator and not line.startswith("#"):
            yield name.strip(), value.strip()
