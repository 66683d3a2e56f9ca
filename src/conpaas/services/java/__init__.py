"""The java service: web applications in Java on nginx proxies, static web servers and Tomcat backends."""

from __future__ import annotations

from conpaas.core import params, services

SERVICE = services.ServiceType(
    name="java",
    manager="conpaas.services.java.manager:JavaManager",
    agent="conpaas.services.webservers.agent.agent:WebAgent",
    roles=("proxy", "web", "backend"),
    agent_type="web",
    agent_config="web-agent.cfg",
    package="conpaas.services.webservers",
    page="conpaas.services.java.page:PAGE",
    label="Java web hosting",
    description="Runs web applications in Java: nginx and Tomcat, scaled by role.",
    manifest_fields=(
        services.ManifestField(
            "Archive",
            help="URL of an archive with the code, which becomes the enabled code version.",
            file=services.ManifestFile("upload_code_version", "code"),
        ),
        services.ManifestField("Environment", params.Mapping(params.Text()), help="Environment variables of the site, by name."),
        services.ManifestField("WebSettings", params.Mapping(), help="Web settings by name, as `update_web_settings` takes them."),
        services.ManifestField("Cron", params.ListOf(params.Mapping()), help="Commands at set times, each `{schedule, command}`."),
    ),
)
