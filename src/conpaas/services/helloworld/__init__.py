"""The helloworld service: every node answers a text. The smallest complete service, and the one to start a new service from."""

from __future__ import annotations

from conpaas.core import params, services

TEXT = params.Text(max_length=1000, pattern=r"[^\x00-\x1f\x7f]*", non_empty=True)
"""What a node may answer: one line."""

SERVICE = services.ServiceType(
    name="helloworld",
    manager="conpaas.services.helloworld.manager.manager:HelloWorldManager",
    agent="conpaas.services.helloworld.agent.agent:HelloWorldAgent",
    agent_config="helloworld-agent.cfg",
    package="conpaas.services.helloworld",
    page="conpaas.services.helloworld.page:PAGE",
    label="Hello World",
    description="Every node answers a text: a template for new services, and a check that a deployment works.",
    manifest_fields=(services.ManifestField("String", TEXT, help="The text that every node answers."),),
)
