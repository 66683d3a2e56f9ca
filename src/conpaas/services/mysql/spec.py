"""What travels between the manager and the agents of a mysql service, as frozen values with a wire shape."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from conpaas.core import errors, params, travels

MYSQL: Final = "mysql"
GLB: Final = "glb"
ROLES: Final = (MYSQL, GLB)

RSYNC: Final = "rsync"
MARIABACKUP: Final = "mariabackup"
TRANSFERS: Final = (RSYNC, MARIABACKUP)
"""How a new member gets all the data: `rsync` is quick to begin and blocks the donor's writes; `mariabackup` lets the donor go on."""

COMPRESSIONS: Final = ("none", "gz", "zst")
"""How a dump that is written may be packed."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_PEM: Final = re.compile(r"-----BEGIN [A-Z ]+-----\n[A-Za-z0-9+/=\n-]+", re.ASCII)
_PEM_LIMIT: Final = 64 * 1024


def _refuse(what: str, value: object, wanted: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(f"{what} must be {wanted}, got {params.shown(value)}.")


def _check_name(what: str, value: object) -> None:
    if not isinstance(value, str) or not _NAME.match(value):
        raise _refuse(what, value, "letters, digits, '.', '_' and '-'")


def _check_port(what: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 65536:
        raise _refuse(what, value, "from 1 to 65535")


@dataclasses.dataclass(frozen=True)
class Member(travels.Travels):
    """A node of the cluster: `name` is its node id, `ip` the address that other nodes of the service reach it at, `port` that of SQL."""

    name: str
    ip: str
    port: int = 3306

    def __post_init__(self) -> None:
        _check_name("The name of a member", self.name)
        try:
            if not isinstance(self.ip, str) or "%" in self.ip:
                raise ValueError("an address of another kind, or of one network interface only")
            ipaddress.ip_address(self.ip)
        except ValueError as error:
            raise _refuse("The address of a member", self.ip, "an IP address") from error
        _check_port("The port of a member", self.port)


def _members(what: str, values: object) -> tuple[Member, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise _refuse(what, values, "a list of members")
    found = tuple(one if isinstance(one, Member) else Member.from_dict(one) for one in values)
    if len({one.name for one in found}) != len(found):
        raise errors.InvalidArgument(f"{what} must name each member once.")
    return found


@dataclasses.dataclass(frozen=True)
class TlsFiles(travels.Travels):
    """Certificate, key, and the CA of the service, as PEM texts."""

    certificate: str
    key: str = dataclasses.field(repr=False)
    ca: str

    def __post_init__(self) -> None:
        for name in ("certificate", "key", "ca"):
            text = getattr(self, name)
            if not isinstance(text, str) or len(text) > _PEM_LIMIT or not _PEM.match(text):
                raise errors.InvalidArgument(f"The {name} of a member must be a PEM text of at most {_PEM_LIMIT} bytes.")


@dataclasses.dataclass(frozen=True)
class NodeSettings(travels.Travels):
    """How a member of the cluster runs. `members` are all members, this one too; `variables` are server variables (checked by
    `variables.check_all`); `transfer` is how it gets data that it lacks; `donors` are names of preferred donors, best first."""

    cluster: str
    name: str
    members: tuple[Member, ...]
    tls: TlsFiles
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    transfer: str = RSYNC
    donors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_name("The name of a cluster", self.cluster)
        _check_name("The name of a member", self.name)
        object.__setattr__(self, "members", _members("The members of a cluster", self.members))
        if self.name not in {one.name for one in self.members}:
            raise errors.InvalidArgument(f"The node {self.name} is not among the members of its cluster.")
        if isinstance(self.tls, Mapping):
            object.__setattr__(self, "tls", TlsFiles.from_dict(self.tls))
        if self.transfer not in TRANSFERS:
            raise _refuse("The kind of transfer", self.transfer, " or ".join(TRANSFERS))
        if isinstance(self.donors, str) or not all(isinstance(one, str) and _NAME.match(one) for one in self.donors):
            raise _refuse("The donors", self.donors, "a list of names of members")
        object.__setattr__(self, "donors", tuple(self.donors))
        if not isinstance(self.variables, Mapping):
            raise _refuse("The variables", self.variables, "an object of names and values")

    @property
    def own(self) -> Member:
        """This member itself."""
        return next(one for one in self.members if one.name == self.name)


@dataclasses.dataclass(frozen=True)
class BalancerConfig(travels.Travels):
    """What a load balancer needs: the members in the order in which they become the writer. `serial` numbers configurations.

    Who is the writer stays it while it can. `writer` names the member that is to be it from now on: for a planned change, and for several
    load balancers of one service to agree.
    """

    serial: int
    members: tuple[Member, ...]
    health_port: int = 9200
    writer: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.serial, int) or isinstance(self.serial, bool) or self.serial < 0:
            raise _refuse("The serial of a configuration", self.serial, "a number from 0 on")
        object.__setattr__(self, "members", _members("The members of a load balancer", self.members))
        _check_port("The port of health checks", self.health_port)
        if self.writer is not None and self.writer not in {one.name for one in self.members}:
            raise errors.InvalidArgument(f"The writer {params.shown(self.writer)} is not among the members of the load balancer.")


def state_of(values: Mapping[str, Any]) -> str:
    """One word for what `get_mysqld_state` told: the daemon's state until Galera speaks, then Galera's own word."""
    return str(values.get("state") or values.get("daemon") or "unknown")
