"""The generic service: any program, as five scripts that the platform runs on every node."""

from __future__ import annotations

from conpaas.core import services

SERVICE = services.ServiceType(
    name="generic",
    manager="conpaas.services.generic.manager.manager:GenericManager",
    agent="conpaas.services.generic.agent.agent:GenericAgent",
    roles=("master", "node"),
    package="conpaas.services.generic",
    page="conpaas.services.generic.page:PAGE",
    label="Generic service",
    description="Runs any program: five scripts in an archive or a git repository, executed on every node.",
    manifest_fields=(
        services.ManifestField(
            "Archive",
            help="URL of an archive with the five scripts, which becomes the enabled code version.",
            file=services.ManifestFile("upload_code_version", "code"),
        ),
    ),
)
