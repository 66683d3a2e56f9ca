"""The calls of a member that are statements to its server: users, databases, variables, dumps, figures."""

from __future__ import annotations

from typing import Any

from conpaas.core import agent, config, expose, log_window, params, rpc
from conpaas.services.mysql import names, spec
from conpaas.services.mysql.agent import accounts, dumps, figures
from conpaas.services.mysql.workload import layout, programs

SECTION = "mysql"

_USER = params.Param("username", params.Text(max_length=128), help="A user of the database.")
_PASSWORD = params.Param("password", params.Text(max_length=1024, secret=True), help="At least 8 characters.")
_DATABASE = params.Param("database", params.Text(max_length=64), help="A database, or * for all but the server's own.")
_ONE_DATABASE = params.Param("database", params.Text(max_length=64), None, help="A database; all if none is named.")
_NAME = params.Param("name", params.Text(max_length=64), help="The name of a database.")
_PRIVILEGES = params.Param("privileges", params.Choice(tuple(names.PRIVILEGES)), names.ALL, help="What the user may do there.")
_EXIST_OK = params.Param("exist_ok", params.Boolean(), False, help="Not an error if it is there already.")


class SqlCalls(agent.BaseAgent):
    """What the server of this node is asked for in SQL. What changes, the other members change, too."""

    def __init__(self, configuration: config.Config) -> None:
        super().__init__(configuration)
        places = layout.Layout.of(self.paths)
        socket = places.socket
        tools = programs.Programs(
            socket,
            configuration.get(SECTION, "MARIADB", programs.Programs.mariadb),
            configuration.get(SECTION, "MARIADB_DUMP", programs.Programs.mariadb_dump),
        )
        self._accounts = accounts.Accounts(socket)
        self._dumps = dumps.Dumps(tools, self.paths.tmp)
        self._figures = figures.Figures(socket, places.configuration)

    @expose.expose("POST", _USER, _PASSWORD)
    def set_password(self, username: str, password: str) -> None:
        """Change the password of a user."""
        self._accounts.set_password(username, password)

    @expose.expose(
        "POST",
        _USER,
        _PASSWORD,
        params.Param("databases", params.ListOf(params.Text(max_length=64)), (), help="Databases; * is all but the server's own."),
        _PRIVILEGES,
        params.Param("host", params.Text(max_length=255), names.ANY_HOST, help="Where the user may come from."),
        _EXIST_OK,
    )
    def create_user(self, username: str, password: str, databases: list[str], privileges: str, host: str, exist_ok: bool) -> None:
        """Create a user who has privileges on some databases."""
        self._accounts.create_user(username, password, databases, privileges, host, exist_ok)

    @expose.expose("POST", _USER)
    def drop_user(self, username: str) -> None:
        """Remove a user and end his sessions on this node."""
        self._accounts.drop_user(username)

    @expose.expose("POST", _USER)
    def end_sessions(self, username: str) -> None:
        """End the sessions that a user has on this node."""
        self._accounts.end_sessions(username)

    @expose.expose("GET")
    def list_users(self) -> dict[str, Any]:
        """List the users and what they may do where."""
        return {"users": self._accounts.list_users()}

    @expose.expose("POST", _USER, _DATABASE, _PRIVILEGES)
    def grant(self, username: str, database: str, privileges: str) -> None:
        """Give a user exactly these privileges on a database."""
        self._accounts.grant(username, database, privileges)

    @expose.expose("POST", _USER, _DATABASE)
    def revoke(self, username: str, database: str) -> None:
        """Take all privileges on a database from a user."""
        self._accounts.revoke(username, database)

    @expose.expose("POST", _NAME, _EXIST_OK)
    def create_database(self, name: str, exist_ok: bool) -> None:
        """Create an empty database."""
        self._accounts.create_database(name, exist_ok)

    @expose.expose("POST", _NAME)
    def drop_database(self, name: str) -> None:
        """Remove a database with all that is in it."""
        self._accounts.drop_database(name)

    @expose.expose("GET")
    def list_databases(self) -> dict[str, Any]:
        """List the users' databases with their sizes."""
        return {"databases": self._accounts.list_databases()}

    @expose.expose("POST", params.Param("values", params.Mapping(max_items=200), help="Server variables and their values."))
    def set_variables(self, values: dict[str, Any]) -> dict[str, Any]:
        """Have the server of this node work with other values; tells which ones wait for its next start."""
        return {"pending_restart": self._accounts.set_variables(values)}

    @expose.expose("GET")
    def get_variables(self) -> dict[str, Any]:
        """Tell the variables that can be changed, as they are now on this node."""
        return {"variables": self._accounts.get_variables()}

    @expose.expose(
        "UPLOAD",
        params.Param("mysqldump_file", params.Upload(), help="SQL, plain or packed with gz, zst, xz or bz2."),
        _ONE_DATABASE,
        params.Param(
            "fresh", params.Boolean(), False, help="Replace the database by what is in the dump, at once and only if all is well."
        ),
    )
    def load_dump(self, mysqldump_file: params.UploadedFile, database: str | None, fresh: bool) -> dict[str, int]:
        """Run the statements of a dump; answers when it is done."""
        return self._dumps.load(mysqldump_file.path, database or None, fresh)

    @expose.expose("GET")
    def get_load_progress(self) -> dict[str, Any]:
        """Tell how far the load of a dump is, or how the last one ended."""
        return {"progress": self._dumps.progress()}

    @expose.expose("POST")
    def cancel_load(self) -> dict[str, Any]:
        """Stop the load under way."""
        return {"cancelled": self._dumps.cancel()}

    @expose.expose(
        "GET", _ONE_DATABASE, params.Param("compression", params.Choice(spec.COMPRESSIONS), "none", help="How the answer is packed.")
    )
    def sqldump(self, database: str | None, compression: str) -> rpc.FileDownload:
        """Write a consistent dump of one database, or of all."""
        return self._dumps.write(database, compression)

    @expose.expose("GET")
    def get_figures(self) -> dict[str, Any]:
        """Tell what the server of this node has done a second lately, and how it is now."""
        return self._figures.get()

    @expose.expose("GET", *log_window.PARAMS)
    def get_slow_log(self, offset: int | None, limit: int) -> dict[str, Any]:
        """Read the log of slow statements."""
        return self._figures.slow_log(offset, limit)
