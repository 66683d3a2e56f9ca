"""Databases for other services of the application: each gets an account of its own, and finds it in its environment.

A binding is on record before the account is made, and until it is gone. What a service was given is compared, now and then, with what it
should have: it follows when the addresses change, and is made up for when the service was busy.
"""

from __future__ import annotations

import dataclasses
import re
import secrets
import time
import urllib.parse
from typing import Any, Final

from conpaas.core import errors, expose, manager, params, service_parts
from conpaas.core.https import identity
from conpaas.core.states import State
from conpaas.services.mysql import names
from conpaas.services.mysql.agent import client
from conpaas.services.mysql.manager import moving

_BINDINGS: Final = "bindings"
_PREFIX: Final = re.compile(r"[A-Z][A-Z0-9_]{0,31}\Z")
_REST: Final = 300.0
"""Seconds until a service that did not take its variables is given the same ones again."""
_SHORT_REST: Final = 10.0
"""Seconds until an account that could not be made is tried again."""
_SERVICE = params.Param("service", params.Integer(minimum=1), help="The id of another service of the application.")
_BINDING = (
    _SERVICE,
    params.Param("database", params.Text(max_length=64), None, help="The database to use; it is made if it is not there."),
    params.Param("prefix", params.Text(max_length=32), "MYSQL", help="What the names of the variables begin with."),
)


@dataclasses.dataclass(frozen=True)
class Binding:
    """A service with its account. `leaving`: it is being taken away."""

    service: int
    database: str
    user: str
    password: str = dataclasses.field(repr=False)
    prefix: str
    leaving: bool = False


class BindingCalls(moving.DumpCalls):
    """Bindings."""

    def __init__(self, context: service_parts.ManagerContext) -> None:
        super().__init__(context)
        self._tried: dict[int, tuple[dict[str, str], float]] = {}
        """By service: the variables it was given last, and until when the same ones are not offered again."""

    @property
    def _source(self) -> str:
        return self.source_of(self.service_id)

    def bindings(self) -> list[Binding]:
        return [Binding(**one) for one in self.settings.get(_BINDINGS, [])]

    def _put(self, wanted: Binding | None, service: int) -> None:
        others = [one for one in self.bindings() if one.service != service]
        self.settings[_BINDINGS] = [dataclasses.asdict(one) for one in [*others, *([wanted] if wanted else [])]]

    # Calls

    @expose.expose("POST", *_BINDING)
    def bind(self, service: int, database: str | None, prefix: str, caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """Give another service an account, and its programs the variables PREFIX_HOST, _PORT, _DATABASE, _USER, _PASSWORD and more."""
        self.check_state(State.RUNNING)
        peer = self._peer(service)
        if not _PREFIX.match(prefix):
            raise errors.InvalidArgument(f"The prefix {params.shown(prefix)} must be capital letters, digits and '_', such as MYSQL.")
        if database is not None:
            names.check_database(database)
        with self.guard:
            known = next((one for one in self.bindings() if one.service == service and not one.leaving), None)
            name = database or (known.database if known else f"{peer.type}{service}")
            password = known.password if known else secrets.token_urlsafe(24)
            wanted = Binding(service, name, f"{peer.type}{service}", password, prefix)
            if not any(one.service == service for one in self.bindings()):
                self._refuse_taken(wanted.user)
            self._put(wanted, service)
            self._provide(wanted)
            return {"database": name, "user": wanted.user, **self._give(wanted, str(caller or ""))}

    def _refuse_taken(self, user: str) -> None:
        """Raise InvalidArgument if somebody made a user of this name, whose password would be changed."""
        if user in {found["user"] for found in self.ask_leader(client.list_users)}:
            raise errors.InvalidArgument(
                f"There is a user '{user}' already, which is the name of this service's own account.", hint="remove that user first"
            )

    def _peer(self, service: int) -> manager.BaseManager:
        peer = self.peers(service)
        if peer is None or service == self.service_id:
            raise errors.NotFound(f"There is no other service {service} in this application.")
        if not peer.accepts_variables:
            raise errors.InvalidArgument(f"Services of type '{peer.type}' take no variables from other services.")
        return peer

    @expose.expose("POST", _SERVICE)
    def unbind(self, service: int, caller: identity.PeerIdentity | None) -> dict[str, Any]:
        """Take the variables and the account from a service; the database stays."""
        self.check_state(State.RUNNING)
        with self.guard:
            known = next((one for one in self.bindings() if one.service == service), None)
            if known is None:
                raise errors.NotFound(f"The service {service} has no account here.")
            leaving = dataclasses.replace(known, leaving=True)
            self._put(leaving, service)
            return self._give(leaving, str(caller or ""))

    @expose.expose("GET")
    def list_bindings(self) -> dict[str, Any]:
        """List the services that have an account, and whether they have their variables (`given`)."""
        found = []
        for one in self.bindings():
            peer = self.peers(one.service)
            given = peer is not None and peer.variables_from(self._source) == self._variables(one)
            found.append({"service": one.service, "database": one.database, "user": one.user, "prefix": one.prefix, "given": given})
        return {"bindings": found}

    # Manifests

    def bind_all(self, wanted: Any, caller: identity.PeerIdentity | None) -> None:
        """Have the bindings that a manifest asks for; all are checked before one is made."""
        checked = [params.check_arguments(_BINDING, one) for one in params.ListOf(params.Mapping()).check(wanted)]
        for one in checked:
            self._peer(one["service"])
        for one in checked:
            self.bind(one["service"], one["database"], one["prefix"], caller)

    def bindings_of_manifest(self) -> list[dict[str, Any]]:
        """The bindings as `bind_all` takes them."""
        return [{"service": one.service, "database": one.database, "prefix": one.prefix} for one in self.bindings() if not one.leaving]

    # What is done for a binding

    def _provide(self, one: Binding) -> None:
        """Have the database and the account. Idempotent."""
        leader = self.leader()
        client.create_database(self.agents, leader, one.database, exist_ok=True)
        client.create_user(self.agents, leader, one.user, one.password, [one.database], exist_ok=True)

    def _variables(self, one: Binding) -> dict[str, str]:
        """What the service finds in its environment; none when the binding ends, or nobody can be connected to."""
        access = self.access()
        if one.leaving or access["write"] is None:
            return {}
        write, read = access["write"], access["read"]
        quoted = urllib.parse.quote(one.password, safe="")
        found = {
            "HOST": write["host"],
            "PORT": str(write["port"]),
            "READ_HOST": read["host"],
            "READ_PORT": str(read["port"]),
            "DATABASE": one.database,
            "USER": one.user,
            "PASSWORD": one.password,
            "URL": f"mysql://{one.user}:{quoted}@{write['host']}:{write['port']}/{one.database}",
        }
        return {**{f"{one.prefix}_{name}": value for name, value in found.items()}, "MYSQL_IP": write["host"]}

    def _give(self, one: Binding, caller: str) -> dict[str, Any]:
        """Have the service work with its variables; one that is busy gets them later. Ends a binding that is leaving."""
        peer = self.peers(one.service)
        told: dict[str, Any] = {}
        if peer is not None:
            wanted = self._variables(one)
            try:
                if peer.variables_from(self._source) != wanted:
                    told = peer.take_variables(self._source, wanted, caller)
            except errors.ConPaaSError as error:
                self._put_off(one, wanted, 0.0 if isinstance(error, errors.WrongState) else _REST)
                self.log.warning("service %d does not take its variables now: %s", one.service, error)
                return {"pending": str(error)}
        if one.leaving and peer is not None and (told or not peer.idle):
            return told  # its programs work with the account until that is done; then housekeeping ends the binding
        if one.leaving or peer is None:
            leader = self.leader()
            if one.user in {found["user"] for found in client.list_users(self.agents, leader)}:
                client.drop_user(self.agents, leader, one.user)
            self._put(None, one.service)
        return told

    def tend_bindings(self) -> None:
        """Give services what they should have and have not."""
        for one in self.bindings():
            peer = self.peers(one.service)
            wanted = self._variables(one)
            settled = peer is not None and not one.leaving and peer.variables_from(self._source) == wanted
            if settled or self._is_put_off(one, wanted) or (peer is not None and not peer.idle):
                continue
            self._put_off(one, wanted, _REST)
            try:
                if peer is not None and not one.leaving:
                    self._provide(one)
                self._give(one, "housekeeping")
            except errors.ConPaaSError as error:
                self._put_off(one, wanted, _SHORT_REST)
                self.log.warning("the account of service %d cannot be seen to now: %s", one.service, error)

    def _put_off(self, one: Binding, wanted: dict[str, str], seconds: float) -> None:
        """Offer these variables again only after this time; others at once."""
        self._tried[one.service] = (wanted, time.monotonic() + seconds)

    def _is_put_off(self, one: Binding, wanted: dict[str, str]) -> bool:
        tried, until = self._tried.get(one.service, ({}, 0.0))
        return tried == wanted and time.monotonic() < until

    def renew_bindings(self) -> None:
        """Have the accounts of bindings in data that came from elsewhere."""
        for one in self.bindings():
            if not one.leaving:
                self._provide(one)

    def forget_bindings(self) -> None:
        """The service is removed: nobody finds its variables any more. A service that is busy forgets them when it is at rest."""
        for one in self.bindings():
            peer = self.peers(one.service)
            if peer is not None:
                try:
                    peer.take_variables(self._source, {}, "")
                except errors.ConPaaSError as error:
                    self.log.warning("service %d keeps the variables of a service that is gone for now: %s", one.service, error)
