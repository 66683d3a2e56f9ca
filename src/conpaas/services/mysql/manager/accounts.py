"""Users and databases: calls that go to one member, which tells the others."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Final

from conpaas.core import errors, expose, node, params
from conpaas.services.mysql import names
from conpaas.services.mysql.agent import client
from conpaas.services.mysql.manager import base

DEFAULT_USER: Final = names.DEFAULT_USER
"""The user that classic clients know: it may use all databases but the system's, and make more."""

_USER = params.Param("user", params.Text(max_length=80, non_empty=True), help="The name of a user.")
_PASSWORD = params.Param("password", params.Text(max_length=256), help="A password of at least 8 characters.")
_DATABASE = params.Param("database", params.Text(max_length=64, non_empty=True), help="The name of a database.")
_NAME = params.Param("name", params.Text(max_length=64, non_empty=True), help="The name of a database.")
_PRIVILEGES = params.Param("privileges", params.Choice(tuple(names.PRIVILEGES)), names.ALL, help="What the user may do there.")
_DATABASES = params.Param("databases", params.ListOf(params.Text(max_length=64)), (), help="Databases that the user may use.")


class AccountCalls(base.MySQLBase):
    """Users, their passwords and rights, and databases."""

    def provide_default_user(self) -> None:
        """Have the default user; nobody knows its password until it is set. Idempotent."""
        if DEFAULT_USER not in {one["user"] for one in self.persistently(client.list_users)}:
            secret = secrets.token_urlsafe(32)
            self.persistently(lambda caller, leader: client.create_user(caller, leader, DEFAULT_USER, secret, [names.EVERY], exist_ok=True))

    @expose.expose("POST", _USER, _PASSWORD)
    def set_password(self, user: str, password: str) -> dict[str, Any]:
        """Set the password of a user."""
        self.check_state("RUNNING")
        try:
            names.check_user(user)
            names.check_password(password)
            self.ask_leader(lambda caller, leader: client.set_password(caller, leader, user, password))
        except errors.ConPaaSError as error:
            raise errors.OperationFailed(f"Failed to set new password: {str(error).rstrip('.')}.") from error
        return {}

    @expose.expose("POST", _USER, _PASSWORD, _DATABASES, _PRIVILEGES)
    def create_user(self, user: str, password: str, databases: list[str], privileges: str) -> dict[str, Any]:
        """Create a user."""
        names.check_user(user)
        names.check_password(password)
        for database in databases:
            names.check_grant_target(database)
        self.ask_leader(lambda caller, leader: client.create_user(caller, leader, user, password, databases, privileges))
        return {}

    @expose.expose("POST", _USER)
    def drop_user(self, user: str) -> dict[str, Any]:
        """Remove a user; its sessions end."""
        if user == DEFAULT_USER:
            raise errors.InvalidArgument(f"The user {DEFAULT_USER} belongs to the service; set its password instead.")
        names.check_user(user)
        leader = self.running_leader()
        client.drop_user(self.agents, leader, user)
        self._end_sessions([one for one in self.members_in_order() if one.id != leader.id], user)
        return {}

    def _end_sessions(self, members: Sequence[node.ServiceNode], user: str) -> None:
        """End what sessions a user has on these members: a server takes no notice that the others removed him."""
        ended = self.agents.each(members, lambda one: client.end_sessions(self.agents, one, user))
        left = [f"{one} ({told})" for one, told in ended.items() if isinstance(told, errors.ConPaaSError)]
        if left:
            raise errors.OperationFailed(f"The user '{user}' is removed, but its sessions may go on on {', '.join(left)}.")

    @expose.expose("GET")
    def list_users(self) -> dict[str, Any]:
        """List the users, and the databases that they may use."""
        return {"users": self.ask_leader(client.list_users)}

    @expose.expose("POST", _USER, _DATABASE, _PRIVILEGES)
    def grant(self, user: str, database: str, privileges: str) -> dict[str, Any]:
        """Let a user use a database; replaces what it could do there."""
        self.ask_leader(
            lambda caller, leader: client.grant(caller, leader, names.check_user(user), names.check_grant_target(database), privileges)
        )
        return {}

    @expose.expose("POST", _USER, _DATABASE)
    def revoke(self, user: str, database: str) -> dict[str, Any]:
        """Take a database from a user."""
        self.ask_leader(lambda caller, leader: client.revoke(caller, leader, names.check_user(user), names.check_grant_target(database)))
        return {}

    @expose.expose("POST", _NAME)
    def create_database(self, name: str) -> dict[str, Any]:
        """Create a database, which the default user may use at once."""
        self.ask_leader(lambda caller, leader: client.create_database(caller, leader, names.check_database(name)))
        return {}

    @expose.expose("POST", _NAME)
    def drop_database(self, name: str) -> dict[str, Any]:
        """Delete a database and all its data."""
        self.ask_leader(lambda caller, leader: client.drop_database(caller, leader, names.check_database(name)))
        return {}

    @expose.expose("GET")
    def list_databases(self) -> dict[str, Any]:
        """List the databases with their sizes (bytes) and numbers of tables."""
        return {"databases": self.ask_leader(client.list_databases)}
