"""The verbs that the mysql service adds to the command line."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from conpaas.services.mysql import backup_verbs, names, shell, spec, variables

SETTLED: Final = ("RUNNING",)
AT_REST: Final = ("RUNNING", "STOPPED", "INIT")
_DUMP_TIMEOUT: Final = 6 * 3600.0
_FIGURES: Final = ("request_rate", "error_rate", "throughput", "response_time")
_RATES: Final = ("queries", "slow_queries", "selects", "inserts", "updates", "deletes", "connections")
_VALUES: Final = ("threads_connected", "threads_running", "receive_queue", "send_queue")
_RATIOS: Final = ("pool_hits", "flow_control_paused")


def verbs(group: Any) -> None:
    """Fill the verb group that the command line hands over (documented in the client's plug-in page)."""
    group.node_roles(mysql=1, glb=0)
    _add_password(group)
    _add_dumps(group)
    backup_verbs.add(group)
    _add_users(group)
    _add_databases(group)
    _add_bindings(group)
    _add_variables(group)
    _add_access(group)
    _add_performance(group)


def _objects(reply: Any, name: str, service: Any) -> list[dict[str, Any]]:
    return [one for one in service.field(reply, name, list) if isinstance(one, dict)]


def _change(service: Any, sentence: str, method: str, done: str | None = None, /, **params: Any) -> None:
    service.change(sentence, lambda: service.post(method, **params), until=SETTLED, done=done)


# -- passwords


def _password_option(group: Any) -> Any:
    return group.option("--password", "-p", help="The password; others may see it in the list of processes. Asked for if not given.")


def _chosen_password(service: Any, given: str | None) -> str:
    return names.check_password(service.ask_secret("Password: ", confirm=True) if given is None else given)


def _add_password(group: Any) -> None:
    user = group.option("--user", default=names.DEFAULT_USER, help=f"The user; {names.DEFAULT_USER} by default.")

    @group.verb("set_password", user, _password_option(group))
    def set_password(service: Any, user: str, password: str | None) -> None:
        """Set the password of a database user."""
        done = f"MySQL password successfully updated for user '{user}'."
        _change(service, "Setting the password", "set_password", done, user=user, password=_chosen_password(service, password))


# -- dumps


def _add_dumps(group: Any) -> None:
    database = group.option("--database", help="One database; all of them if none is named.")

    @group.verb(
        "dump",
        database,
        group.option("--compress", choices=spec.COMPRESSIONS, default="none", help="Pack the dump."),
        group.option("--to", kind="output", default="-", help="The file to write; standard output by default."),
    )
    def dump(service: Any, database: str | None, compress: str, to: str) -> None:
        """Write a consistent dump of the databases, as SQL."""
        wanted = {"database": database} if database else {}
        service.download("download_dump", to, _timeout=_DUMP_TIMEOUT, compression=compress, **wanted)
        if to != "-":
            service.show(f"File '{to}' written.", {"file": to})

    into = group.option("--database", help="The database to load into; otherwise the dump chooses itself.")
    fresh = group.flag("--fresh", help="Replace the database by what is in the dump, in one instant and only if all is well.")

    @group.verb("load_dump", group.argument("filename", kind="file", help="SQL, plain or packed with gz, zst, xz or bz2."), into, fresh)
    def load_dump(service: Any, filename: str, database: str | None, fresh: bool) -> None:
        """Load a dump into the databases."""
        if fresh and not database:
            service.fail("Name the database that the dump is to replace.", "--database NAME")
        fields = {**({"database": database} if database else {}), **({"fresh": "yes"} if fresh else {})}
        if fresh:
            service.confirm(f"Replace the database '{database}' and all that is in it?")
        service.change(
            f"Loading the dump '{filename}'",
            lambda: service.upload("load_dump", {"mysqldump_file": filename}, _timeout=_DUMP_TIMEOUT, **fields),
            until=SETTLED,
            done=f"MySQL dump '{filename}' loaded successfully.",
        )


# -- users


def _add_users(group: Any) -> None:
    action = group.argument(
        "action", choices=("list", "add", "drop", "password", "grant", "revoke"), required=False, help="What to do; list by default."
    )
    user = group.argument("user", required=False, help="The name of a user.")
    database = group.option("--database", many=True, help="A database, or '*' for all but the server's own; any number of times.")
    privileges = group.option("--privileges", choices=tuple(names.PRIVILEGES), default=names.ALL, help="What the user may do there.")

    @group.verb("users", action, user, database, privileges, _password_option(group))
    def users(service: Any, action: str | None, user: str | None, database: Sequence[str], privileges: str, password: str | None) -> None:
        """List, add or drop database users; change their passwords and what they may do."""
        if (action or "list") == "list":
            _list_users(service)
            return
        if user is None:
            service.fail(f"Say which user to {action}." if action != "password" else "Say whose password to change.")
        else:
            _ACTIONS[str(action)](service, user, database, privileges, password)


def _list_users(service: Any) -> None:
    found = _objects(service.get("list_users"), "users", service)
    rows = [
        {"user": one.get("user", ""), "database": given.get("name", ""), "privileges": given.get("privileges", "")}
        for one in found
        for given in (_objects(one, "databases", service) or [{}])
    ]
    service.table(("user", "database", "privileges"), rows, "No existing users.", found)


def _add_user(service: Any, user: str, databases: Sequence[str], privileges: str, password: str | None) -> None:
    chosen = _chosen_password(service, password)
    given = {"user": user, "password": chosen, "databases": list(databases), "privileges": privileges}
    _change(service, f"Creating user '{user}'", "create_user", **given)


def _drop_user(service: Any, user: str, *_: Any) -> None:
    service.confirm(f"Drop the user '{user}'?")
    _change(service, f"Dropping user '{user}'", "drop_user", user=user)


def _user_password(service: Any, user: str, _databases: Any, _privileges: Any, password: str | None) -> None:
    done = f"MySQL password successfully updated for user '{user}'."
    _change(service, "Setting the password", "set_password", done, user=user, password=_chosen_password(service, password))


def _grant(service: Any, user: str, databases: Sequence[str], privileges: str, _: Any) -> None:
    for one in _named(service, databases):
        _change(service, f"Granting '{privileges}' on '{one}' to '{user}'", "grant", user=user, database=one, privileges=privileges)


def _revoke(service: Any, user: str, databases: Sequence[str], *_: Any) -> None:
    for one in _named(service, databases):
        _change(service, f"Revoking all on '{one}' from '{user}'", "revoke", user=user, database=one)


def _named(service: Any, databases: Sequence[str]) -> Sequence[str]:
    if not databases:
        service.fail("Say on which database.", "--database NAME")
    return databases


_ACTIONS: Final = {"add": _add_user, "drop": _drop_user, "password": _user_password, "grant": _grant, "revoke": _revoke}


# -- databases


def _add_databases(group: Any) -> None:
    action = group.argument("action", choices=("list", "add", "drop"), required=False, help="What to do; list by default.")
    name = group.argument("name", required=False, help="The name of a database.")

    @group.verb("databases", action, name)
    def databases(service: Any, action: str | None, name: str | None) -> None:
        """List, add or drop databases."""
        if (action or "list") == "list":
            found = _objects(service.get("list_databases"), "databases", service)
            service.table(("name", "tables", "bytes"), found, "No existing databases.", found)
            return
        if name is None:
            service.fail(f"Say which database to {action}.")
        if action == "add":
            _change(service, f"Creating database '{name}'", "create_database", name=name)
            return
        service.confirm(f"Drop the database '{name}' and all that is in it?")
        _change(service, f"Dropping database '{name}'", "drop_database", name=name)


# -- bindings


def _add_bindings(group: Any) -> None:
    other = group.argument("other_service", help="Another service of the application, by id or name.")
    database = group.option("--database", help="The database to use, made if it is not there; one named after the service by default.")
    prefix = group.option("--prefix", default="MYSQL", help="What the names of the variables begin with; MYSQL by default.")

    @group.verb("bind", other, database, prefix)
    def bind(service: Any, other_service: str, database: str | None, prefix: str) -> None:
        """Give another service an account here, and its programs variables that tell how to connect."""
        other = service.find_service(other_service)
        wanted = {"service": other.service_id, "prefix": prefix, **({"database": database} if database else {})}
        sentence = f"Giving service {other.service_id} an account on service {service.service_id}"
        other.change(sentence, lambda: _until_given(service, other, service.post("bind", **wanted)), until=AT_REST)

    @group.verb("unbind", other)
    def unbind(service: Any, other_service: str) -> None:
        """Take the account and the variables from another service; the database stays."""
        other = service.find_service(other_service)
        service.confirm(f"Take the account and the variables from service {other.service_id}?")
        sentence = f"Taking the account on service {service.service_id} from service {other.service_id}"
        other.change(sentence, lambda: _until_given(service, other, service.post("unbind", service=other.service_id)), until=AT_REST)

    @group.verb("bindings")
    def bindings(service: Any) -> None:
        """List the services that have an account here."""
        found = _bindings(service)
        rows = [{**one, "given": "yes" if one.get("given") else "not yet"} for one in found]
        service.table(("service", "database", "user", "prefix", "given"), rows, "No existing bindings.", found)


def _bindings(service: Any) -> list[dict[str, Any]]:
    return _objects(service.get("list_bindings"), "bindings", service)


def _until_given(service: Any, other: Any, reply: Any) -> Any:
    """The reply of a bind or unbind; if that cannot be done now, wait until it was, unless the user does not want to wait."""
    pending = service.field(reply, "pending", str)
    if not pending:
        return reply
    service.note(f"Service {other.service_id} follows later: {pending}")
    if service.waiting():
        service.poll(lambda: _is_given(service, other.service_id), f"the variables of service {other.service_id}")
    return {}


def _is_given(service: Any, sid: int) -> bool | None:
    """True when the other service works with what it should have; None before that."""
    return None if any(one.get("service") == sid and not one.get("given") for one in _bindings(service)) else True


# -- variables


def _add_variables(group: Any) -> None:
    action = group.argument("action", choices=("list", "set", "explain"), required=False, help="What to do; list by default.")
    words = group.argument("assignments", required=False, many=True, help="NAME=VALUE for set.")

    @group.verb("variables", action, words)
    def change_variables(service: Any, action: str | None, assignments: Sequence[str]) -> None:
        """List, set or explain the server variables that can be changed."""
        if action == "explain":
            rows = [variables.find(name).to_dict() for name in assignments or variables.CATALOGUE]
            service.table(("name", "dynamic", "values", "help"), rows, "")
        elif (action or "list") == "list":
            _list_variables(service)
        else:
            wanted = _assigned(service, assignments)
            _change(service, "Changing server variables", "set_variables", variables=wanted)


def _list_variables(service: Any) -> None:
    reply = service.get("get_variables")
    pending = service.field(reply, "pending_restart", list)
    rows = [
        {"name": name, "value": value, "pending_restart": "yes" if name in pending else ""}
        for name, value in sorted(service.field(reply, "variables", dict).items())
    ]
    service.table(("name", "value", "pending_restart"), rows, "No variables have been changed.", reply)


def _assigned(service: Any, words: Sequence[str]) -> dict[str, str]:
    if not words:
        service.fail("Say what to set.", f"cps-{service.type} variables APP SRV set max_connections=500")
    pairs = [word.partition("=") for word in words]
    for name, equals, _ in pairs:
        if not equals or not name:
            service.fail(f"Cannot read '{name}{equals}'.", "write NAME=VALUE")
    return variables.check_all({name: value for name, _, value in pairs})


# -- access


def _access(service: Any, read: bool) -> tuple[dict[str, Any], str]:
    """The address to write or to read at, and the CA as a PEM text."""
    reply = service.get("get_access")
    address = service.field(reply, "read" if read else "write", dict)
    if not address.get("host"):
        service.fail("The service has no address: it does not run.", f"cps-{service.type} start {service.app_id} {service.service_id}")
    return address, service.field(reply, "ca", str)


def _add_access(group: Any) -> None:
    @group.verb("ca", group.option("--to", kind="output", default="-", help="The file to write; standard output by default."))
    def ca(service: Any, to: str) -> None:
        """Download the certificate of the service's CA, which clients check the servers with."""
        text = service.field(service.get("get_access"), "ca", str)
        if to == "-":
            service.show(text.removesuffix("\n"), {"ca": text})
            return
        try:
            pathlib.Path(to).write_text(text)
        except OSError as error:
            service.fail(f"Cannot write '{to}': {error.strerror or error}")
        service.show(f"File '{to}' written.", {"file": to})

    @group.verb("info")
    def info(service: Any) -> None:
        """Print the addresses, the members and their health."""
        about = dict(service.get("get_service_info"))
        access = service.get("get_access")
        addresses = {kind: _address(service.field(access, kind, dict)) for kind in ("write", "read")}
        nodes = [_node(service, role, str(one)) for role, ids in service.get("list_nodes").items() for one in ids]
        shown = {one["id"]: f"{one['role']} {one['ip']} {one['health']}".rstrip() for one in nodes}
        service.pairs({**about, **addresses, "nodes": shown})

    @group.verb("go_on_without", group.argument("node", help="The id of a node that is gone."))
    def go_on_without(service: Any, node: str) -> None:
        """Have the cluster begin without what only the disk of a lost node may hold; `info` tells when it waits for one."""
        service.confirm(f"Give up the rows that only the disk of {node} may hold?")
        service.post("go_on_without", node=node)
        service.show(f"The cluster does not wait for {node} any more.", {"node": node})

    @group.verb(
        "shell",
        group.option("--user", default=names.DEFAULT_USER, help=f"The user; {names.DEFAULT_USER} by default."),
        group.option("--database", help="The database to begin with."),
        group.flag("--read", help="Use the address for reading."),
        group.option("--password-file", kind="file", help="A file (mode 600) with the password, which is asked for otherwise."),
        group.flag("--any-name", help="Do not insist that the server's certificate is for the address that is used."),
    )
    def open_shell(service: Any, user: str, database: str | None, read: bool, password_file: str | None, any_name: bool) -> None:
        """Run the mariadb client of this machine against the service."""
        address, authority = _access(service, read)
        password = shell.read_password(password_file) if password_file else None
        service.finish(shell.run(address, authority, user, database, password, any_name))


def _address(address: Mapping[str, Any]) -> str:
    return f"{address['host']}:{address.get('port', '')}" if address.get("host") else "N/A"


def _node(service: Any, role: str, node_id: str) -> dict[str, str]:
    node = service.field(service.get("get_node_info", serviceNodeId=node_id), "serviceNode", dict)
    return {"id": node_id, "role": role, "ip": str(node.get("ip", "N/A")), "health": str(node.get("health") or "")}


# -- performance


def _add_performance(group: Any) -> None:
    @group.verb("performance")
    def performance(service: Any) -> None:
        """Print what the servers do a second, and how full their queues and buffers are."""
        reply = service.get("get_service_performance")
        nodes = {name: one for name, one in service.field(reply, "nodes", dict).items() if isinstance(one, dict)}
        if not nodes:
            service.pairs({name: reply.get(name, "N/A") for name in _FIGURES})
            return
        rows = [{"agent_id": name, **_figures(service, one)} for name, one in sorted(nodes.items())]
        service.table(("agent_id", *_RATES, "latency", *_VALUES, *_RATIOS), rows, "Nothing was measured.", reply)


def _figures(service: Any, told: Mapping[str, Any]) -> dict[str, Any]:
    parts = {kind: service.field(told, kind, dict) for kind in ("rates", "values", "ratios")}
    found = {name: parts["rates"].get(name, "N/A") for name in _RATES}
    found |= {name: parts["values"].get(name, "N/A") for name in _VALUES}
    found |= {name: parts["ratios"].get(name, "N/A") for name in _RATIOS}
    return found | {"latency": "N/A" if told.get("latency") is None else told["latency"]}
