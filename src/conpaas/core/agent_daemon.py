"""The agent's process: `default-cpsagent -c config.cfg`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from conpaas.core import config, daemon, node, rpc, services
from conpaas.core.https import identity

SECTION = "agent"


def build(configuration: config.Config, credentials: identity.Credentials) -> daemon.Part:
    """The agent of the type that the configuration names. All its calls have service id 0."""
    service = services.registry.by_agent_type(configuration.get(SECTION, "TYPE"))
    agent = service.load_agent()(configuration)
    application = rpc.RpcApplication()
    application.register(0, agent)
    callers = identity.agent_callers(
        configuration.get_int(SECTION, "USER_ID"),
        configuration.get_int(SECTION, "APP_ID"),
        allow_frontend=configuration.get_bool(SECTION, "ALLOW_FRONTEND", False),
    )

    def start() -> None:
        agent.tell_startup_failure()
        agent.start_up()

    return daemon.Part(application, callers, start=start, close=agent.close)


def main(arguments: Sequence[str] | None = None) -> int:
    return daemon.main("default-cpsagent", SECTION, "AGENT_PORT", node.AGENT_PORT, build, arguments)


if __name__ == "__main__":
    sys.exit(main())
