"""The helloworld service: every node answers a text. The smallest complete service, and the one to start a new service from."""

from __future__ import annotations

from conpaas.core import services

SERVICE = services.ServiceType(
    name="helloworld",
    manager="conpaas.services.helloworld.manager.manager:HelloWorldManager",
    agent="conpaas.services.helloworld.agent.agent:HelloWorldAgent",
    agent_config="helloworld-agent.cfg",
    package="conpaas.services.helloworld",
    label="Hello World",
    description="Every node answers a text: a template for new services, and a check that a deployment works.",
)
