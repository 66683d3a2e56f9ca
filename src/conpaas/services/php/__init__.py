"""The php service: web sites in PHP on nginx proxies, static web servers and php-fpm backends."""

from __future__ import annotations

from conpaas.core import params, services

SERVICE = services.ServiceType(
    name="php",
    manager="conpaas.services.php.manager:PhpManager",
    agent="conpaas.services.webservers.agent.agent:WebAgent",
    roles=("proxy", "web", "backend"),
    agent_type="web",
    agent_config="web-agent.cfg",
    package="conpaas.services.webservers",
    page="conpaas.services.php.page:PAGE",
    label="PHP web hosting",
    description="Runs web sites in PHP, and static ones: nginx and php-fpm, scaled by role.",
    manifest_fields=(
        services.ManifestField(
            "Archive",
            help="URL of an archive with the code, which becomes the enabled code version.",
            file=services.ManifestFile("upload_code_version", "code"),
        ),
        services.ManifestField("Environment", params.Mapping(params.Text()), help="Environment variables of the site, by name."),
        services.ManifestField("WebSettings", params.Mapping(), help="Web settings by name, as `update_web_settings` takes them."),
        services.ManifestField("Cron", params.ListOf(params.Mapping()), help="Commands at set times, each `{schedule, command}`."),
        services.ManifestField("PhpConf", params.Mapping(), help="PHP settings by name, as `update_php_configuration` takes them."),
    ),
)
