"""What the page of a mysql service shows, beyond what all services have."""

from __future__ import annotations

from typing import Final

from conpaas.core.pages import (
    AT_REST,
    NODES,
    SERVICES,
    WORKING,
    Action,
    Buttons,
    Chart,
    Download,
    Facts,
    Field,
    Form,
    Page,
    Panel,
    Role,
    Table,
    Text,
    Value,
    View,
)
from conpaas.services.mysql import backup_page, names

DUMP_LIMIT: Final = 50_000_000_000
_DATABASES: Final = "list_databases:databases.*.name"
_USERS: Final = "list_users:users.*.user"
_PRIVILEGES = Field("privileges", "Privileges", "choice", choices=tuple(names.PRIVILEGES), default=names.ALL)

CONNECT = Panel(
    "Connect",
    (
        Facts(
            "get_service_info",
            (
                Value("access.write.host", "Address", "code"),
                Value("access.write.port", "Port", "code"),
                Value("access.read.host", "Address to read only", "code"),
                Value("access.read.port", "Its port", "code"),
                Value("cluster.healthy", "All members work", "boolean"),
                Value("cluster.synced", "Members in step"),
                Value("cluster.size", "Members"),
            ),
            states=WORKING,
        ),
        Text(
            f"$ mysql --host={{write.host}} --port={{write.port}} --user={names.DEFAULT_USER} --password --ssl-ca=ca.pem",
            method="get_access",
            states=WORKING,
        ),
        Buttons((Download("get_access", "Download the CA certificate", "ca.pem", key="ca"),)),
        Table(
            "get_service_info",
            "cluster.members",
            (
                Value("id", "Node", "code"),
                Value("state", "State", "state"),
                Value("primary", "In the cluster", "boolean"),
                Value("reason", "Why"),
            ),
            states=WORKING,
            title="Members",
            empty="No member has answered.",
        ),
    ),
    help=f"The user {names.DEFAULT_USER} may use all databases and make more; nobody knows its password until you set one.",
)


def _password(help: str = "At least 8 characters. Empty: a new one is made up and shown once.") -> Field:
    return Field("password", "Password", "secret", help, minimum=8, maximum=256, generated=True)


USERS = Panel(
    "Users",
    (
        Table(
            "list_users",
            "users",
            (Value("user", "User", "code"), Value("databases", "May use", "list")),
            actions=(
                Action(
                    "set_password",
                    "Set password",
                    row={"user": "user"},
                    fields=(_password(),),
                    states=WORKING,
                    done="The password is set; what still uses the former one cannot connect any more.",
                ),
                Action(
                    "grant",
                    "Grant",
                    row={"user": "user"},
                    fields=(Field("database", "Database", "choice", choices=("*",), choices_from=_DATABASES, required=True), _PRIVILEGES),
                    states=WORKING,
                    done="The user may use the database.",
                ),
                Action(
                    "revoke",
                    "Revoke",
                    row={"user": "user"},
                    fields=(Field("database", "Database", "choice", choices=("*",), choices_from=_DATABASES, required=True),),
                    states=WORKING,
                    done="The user may no longer use the database.",
                ),
                Action(
                    "drop_user",
                    "Delete",
                    row={"user": "user"},
                    loses="The user and what it may do; its sessions end. Databases stay.",
                    typed="user",
                    states=WORKING,
                    done="The user is deleted.",
                ),
            ),
            states=WORKING,
        ),
        Form(
            "Make a user",
            Action(
                "create_user",
                "Make user",
                fields=(
                    Field("user", "Name", required=True, maximum=80),
                    _password(),
                    Field("databases", "May use", "several", choices=("*",), choices_from=_DATABASES, help="*: all but the server's own."),
                    _PRIVILEGES,
                ),
                states=WORKING,
                done="The user is made.",
            ),
        ),
    ),
)

DATABASES = Panel(
    "Databases",
    (
        Table(
            "list_databases",
            "databases",
            (Value("name", "Database", "code"), Value("bytes", "Size", "size", help="about"), Value("tables", "Tables", "count")),
            actions=(
                Download("download_dump", "Dump", "{database}.sql", row={"database": "name"}, states=WORKING),
                Action(
                    "drop_database",
                    "Delete",
                    row={"name": "name"},
                    loses="The database and all its data are deleted on all members.",
                    typed="name",
                    states=WORKING,
                    done="The database is deleted.",
                ),
            ),
            states=WORKING,
            empty="There are no databases yet.",
        ),
        Form(
            "Make a database",
            Action(
                "create_database",
                "Make database",
                fields=(Field("name", "Name", required=True, maximum=64),),
                states=WORKING,
                done=f"The database is made; the user {names.DEFAULT_USER} may use it.",
            ),
        ),
    ),
)

DUMPS = Panel(
    "Dumps",
    (
        Form(
            "Load a dump",
            Action(
                "load_dump",
                "Load",
                verb="UPLOAD",
                fields=(
                    Field(
                        "mysqldump_file",
                        "Dump",
                        "file",
                        required=True,
                        maximum=DUMP_LIMIT,
                        help="SQL, plain or packed with gzip, zstd, xz or bzip2.",
                    ),
                    Field("database", "Into database", maximum=64, help="Empty: what the dump itself names."),
                    Field(
                        "fresh",
                        "Replace the database",
                        "boolean",
                        help="All that is in it is replaced in one go, once the dump was read without an error. Needs a database.",
                    ),
                ),
                states=WORKING,
                done="The dump is loaded.",
                help="The statements of a dump change and replace what they name.",
            ),
        ),
        Facts(
            "get_load_progress",
            (
                Value("progress.running", "Being loaded", "boolean"),
                Value("progress.database", "Database", "code"),
                Value("progress.bytes", "Read", "size"),
                Value("progress.total", "Of", "size"),
                Value("progress.started", "Since", "time"),
                Value("progress.error", "Ended with"),
            ),
            states=WORKING,
        ),
        Buttons(
            (
                Action(
                    "cancel_load",
                    "Stop loading",
                    loses="What was loaded so far stays, unless the database was being replaced: then it stays as it was.",
                    states=WORKING,
                    done="The load is being stopped.",
                ),
                *(
                    Download(
                        "download_dump",
                        f"Download a dump{packed}",
                        f"{{database}}.sql{suffix}",
                        fields=(Field("database", "Database", "choice", choices_from=_DATABASES, help="None chosen: all."),),
                        fixed={"compression": compression},
                        states=WORKING,
                    )
                    for compression, packed, suffix in (("none", "", ""), ("gz", ", packed with gzip", ".gz"))
                ),
            )
        ),
    ),
)

BINDINGS = Panel(
    "Services that use it",
    (
        Table(
            "list_bindings",
            "bindings",
            (
                Value("service", "Service"),
                Value("database", "Database", "code"),
                Value("user", "User", "code"),
                Value("prefix", "Variables", "code"),
                Value("given", "Has its variables", "boolean"),
            ),
            actions=(
                Action(
                    "unbind",
                    "Take away",
                    row={"service": "service"},
                    loses="The service's programs can no longer connect: its account and its variables go. The database stays.",
                    states=WORKING,
                    done="The account and the variables are being taken away.",
                ),
            ),
            empty="No service has an account here yet.",
        ),
        Form(
            "Give a service an account",
            Action(
                "bind",
                "Give account",
                fields=(
                    Field("service", "Service", "choice", choices_from=SERVICES, required=True),
                    Field("database", "Database", maximum=64, help="Made if it is not there. Empty: one named after the service."),
                    Field("prefix", "Names begin with", maximum=32, placeholder="MYSQL", help="Empty: MYSQL, so MYSQL_HOST, MYSQL_USER …"),
                ),
                states=WORKING,
                done="The service gets an account and finds it in its environment.",
            ),
        ),
    ),
)

VARIABLES = Panel(
    "Server variables",
    (
        Table(
            "get_variables",
            "variables",
            (Value("key", "Variable", "code"), Value("value", "Value", "code")),
            actions=(
                Action(
                    "set_variables",
                    "Default",
                    row={"name": "key"},
                    entry="variables",
                    loses="The value; the server works with its default again, and may be restarted, one member after the other.",
                    states=AT_REST,
                    done="The variable gets its default again.",
                ),
            ),
            empty="No variable was set; all have their defaults.",
        ),
        Form(
            "Set a variable",
            Action(
                "set_variables",
                "Set",
                fields=(
                    Field("name", "Variable", "choice", choices_from="get_variables:catalogue.*.name", required=True),
                    Field("value", "Value", required=True),
                ),
                entry="variables",
                states=AT_REST,
                done="The variable is being set on all members.",
                help="Where the server cannot change it while it runs, one member after the other is restarted.",
            ),
        ),
        Buttons((View("get_variables", "What may be set", "catalogue"),)),
    ),
)

_RATES: Final = (("queries", "Statements"), ("selects", "Select"), ("inserts", "Insert"), ("updates", "Update"), ("deletes", "Delete"))

PERFORMANCE = Panel(
    "Performance",
    (
        Chart("Statements", "get_service_performance", (Value("request_rate", "statements"), Value("error_rate", "failures")), unit="/s"),
        Chart("Response time", "get_service_performance", (Value("response_time", "mean"),), unit="ms"),
        Chart("Throughput", "get_service_performance", (Value("throughput", "sent and received"),), unit="KB/s"),
        Table(
            "get_service_performance",
            "nodes",
            (
                Value("key", "Node", "code"),
                *(Value(f"rates.{name}", label, "count", unit="/s") for name, label in _RATES),
                Value("latency", "A statement takes", "count", unit="ms"),
                Value("values.threads_connected", "Sessions", "count"),
                Value("values.receive_queue", "Rows to apply", "count"),
                Value("rates.slow_queries", "Slow", "count", unit="/s"),
            ),
            states=WORKING,
            title="Members",
            empty="No member has answered.",
        ),
        Buttons(
            (
                View(
                    "get_slow_log",
                    "Slow statements",
                    "log",
                    fields=(Field("serviceNodeId", "Member", "choice", choices_from=NODES, required=True),),
                    fixed={"limit": 200_000},
                    states=WORKING,
                ),
            )
        ),
    ),
)

PAGE = Page(
    panels=(CONNECT, USERS, DATABASES, DUMPS, backup_page.BACKUPS, BINDINGS, VARIABLES, PERFORMANCE),
    roles=(
        Role("mysql", "Members", "Each has all data.", minimum=1),
        Role("glb", "Load balancers", "Clients connect to them if there are any."),
    ),
    loses="On clouds without volumes all databases are lost; on others they stay on their disks. Make a backup or a dump first.",
    next_step=f"Start the service, then set the password of the user {names.DEFAULT_USER}.",
    node=(Value("port", "Port", "code"),),
)
