"""The mysql service: a MariaDB cluster replicated by Galera, behind HAProxy."""

from __future__ import annotations

from conpaas.core import params, services

SERVICE = services.ServiceType(
    name="mysql",
    manager="conpaas.services.mysql.manager.manager:MySQLManager",
    agent="conpaas.services.mysql.agent.agent:MySQLAgent",
    roles=("mysql", "glb"),
    agent_config="mysql-agent.cfg",
    package="conpaas.services.mysql",
    page="conpaas.services.mysql.page:PAGE",
    label="MySQL database",
    description="Runs a MariaDB cluster replicated by Galera, with load balancers before it.",
    manifest_fields=(
        services.ManifestField("Variables", params.Mapping(), help="Server variables by name, as `set_variables` takes them."),
        services.ManifestField("Password", help="The password of the user `mysqldb`.", running=True),
        services.ManifestField(
            "Dump", help="URL of a dump, whose statements are run.", file=services.ManifestFile("load_dump", "mysqldump_file"), running=True
        ),
        services.ManifestField(
            "Bindings",
            params.ListOf(params.Mapping(params.Text(max_length=256), max_items=3), max_items=50),
            help="Services that get a database and an account in their environment, each `{service, database, prefix}`.",
            running=True,
            peer="service",
        ),
    ),
)
