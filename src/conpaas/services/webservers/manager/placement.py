"""Which node plays which roles: pure functions over node ids and role labels.

Three base roles: `proxy`, `web`, `backend`. Only a proxy packs others: its label is then one of the classic composites. The rules: the
first proxy is the *primary*, whose address the public uses; a role that no node has for itself alone is packed on the primary; a node that
joins for such a role thereby takes it over, and when it leaves the primary takes it back.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from conpaas.core import errors, node
from conpaas.services.webservers import spec

Roles = frozenset[str]

_LABELS: Final[Mapping[Roles, str]] = {
    frozenset({spec.PROXY}): "proxy",
    frozenset({spec.WEB}): "web",
    frozenset({spec.BACKEND}): "backend",
    frozenset({spec.PROXY, spec.BACKEND, spec.WEB}): "proxybackendweb",
    frozenset({spec.PROXY, spec.BACKEND}): "proxybackend",
    frozenset({spec.PROXY, spec.WEB}): "proxyweb",
}
_ROLES: Final[Mapping[str, Roles]] = {label: roles for roles, label in _LABELS.items()}
_NEEDED: Final = "Cannot add more proxy servers without at least one stand-alone 'web' node and one stand-alone 'backend' node"


@dataclasses.dataclass(frozen=True)
class Placed:
    """A node by its id, with its role label."""

    id: str
    label: str

    @property
    def roles(self) -> Roles:
        return roles_of(self.label)

    @property
    def base(self) -> str:
        return base_of(self.label)


@dataclasses.dataclass(frozen=True)
class Shape:
    """How many nodes there are for each role; `web` and `backend` count those that stand alone, 0 means packed on the primary."""

    proxy: int = 1
    web: int = 0
    backend: int = 0

    def plus(self, roles: Mapping[str, int], sign: int = 1) -> Shape:
        """This shape with nodes added (or, with `sign` -1, removed); never below the smallest one."""
        return Shape(
            max(1, self.proxy + sign * roles.get(spec.PROXY, 0)),
            max(0, self.web + sign * roles.get(spec.WEB, 0)),
            max(0, self.backend + sign * roles.get(spec.BACKEND, 0)),
        )

    def starting_nodes(self) -> dict[str, int]:
        """What a start asks for; several proxies need stand-alone nodes for the other roles. The primary comes first."""
        least = 1 if self.proxy > 1 else 0
        wanted = {spec.PROXY: max(1, self.proxy), spec.WEB: max(least, self.web), spec.BACKEND: max(least, self.backend)}
        return {role: count for role, count in wanted.items() if count}


def roles_of(label: str) -> Roles:
    """The roles in a label; what is no label of ours counts as a backend, the default role."""
    return _ROLES.get(label, frozenset({spec.BACKEND}))


def label_of(roles: Roles) -> str:
    """The label of a set of roles."""
    return _LABELS[roles]


def base_of(label: str) -> str:
    """What a node is for: a proxy, whatever it packs, or the one role it plays alone."""
    roles = roles_of(label)
    return spec.PROXY if spec.PROXY in roles else next(iter(roles))


def placed(nodes: Iterable[node.ServiceNode]) -> list[Placed]:
    return [Placed(one.id, one.role) for one in nodes]


def shape_of(nodes: Sequence[Placed]) -> Shape:
    counts = collections.Counter(one.base for one in nodes)
    return Shape(max(1, counts[spec.PROXY]), counts[spec.WEB], counts[spec.BACKEND])


def primary(nodes: Sequence[Placed]) -> Placed | None:
    """The proxy whose address the public uses: the first one."""
    return next((one for one in nodes if one.base == spec.PROXY), None)


def settle(nodes: Sequence[Placed], silent: Collection[str] = ()) -> dict[str, str]:
    """The label every node shall have, so that no role is without a node that answers; `nodes` in order of addition.

    Nodes in `silent` do not answer: they keep what they are for, and nobody relies on them. If no proxy is left another node is promoted.
    """
    if not nodes:
        return {}
    bases = {one.id: one.base for one in nodes}
    answering = [one.id for one in nodes if one.id not in silent] or [one.id for one in nodes]
    if spec.PROXY not in bases.values():
        bases[_promoted(answering, bases)] = spec.PROXY
    proxies = [one.id for one in nodes if bases[one.id] == spec.PROXY]
    packing = next((key for key in proxies if key in answering), proxies[0])
    roles: dict[str, set[str]] = {key: {base} for key, base in bases.items()}
    for role in (spec.WEB, spec.BACKEND):
        if not any(bases[key] == role for key in answering):
            roles[packing].add(role)
    return {key: label_of(frozenset(found)) for key, found in roles.items()}


def _promoted(candidates: Sequence[str], bases: Mapping[str, str]) -> str:
    """Who becomes the proxy when there is none: the oldest node of a role that another one plays, too, a web server before a backend."""
    of_role = {role: [key for key in candidates if bases[key] == role] for role in (spec.WEB, spec.BACKEND)}
    for least in (2, 1):
        for found in of_role.values():
            if len(found) >= least:
                return found[0]
    return candidates[0]


def check_add(nodes: Sequence[Placed], roles: Mapping[str, int]) -> None:
    """Refuse an addition after which several proxies would have to share a packed role."""
    if not roles.get(spec.PROXY):
        return
    counts = collections.Counter(one.base for one in nodes)
    counts.update(roles)
    if counts[spec.PROXY] > 1 and not (counts[spec.WEB] and counts[spec.BACKEND]):
        raise errors.InvalidArgument(_NEEDED)


def check_remove(nodes: Sequence[Placed], roles: Mapping[str, int]) -> None:
    """Refuse a removal after which a role would have no node, or would have to be packed beside a second proxy."""
    counts = collections.Counter(one.base for one in nodes)
    left = {role: counts[role] - roles.get(role, 0) for role in spec.ROLES}
    least = {spec.PROXY: 1, spec.WEB: int(left[spec.PROXY] > 1), spec.BACKEND: int(left[spec.PROXY] > 1)}
    for role in spec.ROLES:
        if roles.get(role) and left[role] < least[role]:
            raise errors.InvalidArgument(f"Not enough '{role}' nodes will be left")


def check_victims(nodes: Sequence[Placed], chosen: Collection[str]) -> None:
    """Refuse the removal of the primary proxy."""
    first = primary(nodes)
    if first is not None and first.id in chosen:
        raise errors.InvalidArgument(
            f"The node {first.id} cannot be removed: it is the proxy whose address the public uses",
            hint="stop the service to give all its nodes back",
        )


def victims(nodes: Sequence[Placed], roles: Mapping[str, int]) -> list[str]:
    """The ids of the nodes that a removal takes: of each role the newest, never the primary proxy."""
    first = primary(nodes)
    chosen: list[str] = []
    for role, count in roles.items():
        removable = [one.id for one in nodes if one.base == role and one != first]
        chosen += removable[::-1][:count]
    return chosen


def replacements(nodes: Sequence[Placed], newcomers: Sequence[Placed], wanted: Shape) -> dict[str, str]:
    """What nodes that replace lost ones are for, so that the service has its shape again; `nodes` are those that were left.

    A node that was promoted meanwhile stays what it is: its replacement does what it did before.
    """
    counts = collections.Counter(one.base for one in nodes)
    missing = {role: getattr(wanted, role) - counts[role] for role in spec.ROLES}
    found: dict[str, str] = {}
    for one in newcomers:
        if missing[one.base] > 0:
            found[one.id] = one.base
            missing[one.base] -= 1
    for one in newcomers:
        if one.id not in found:
            found[one.id] = next((role for role in spec.ROLES if missing[role] > 0), one.base)
            missing[found[one.id]] -= 1
    return found
