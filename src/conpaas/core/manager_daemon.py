"""The application manager's process: `default-cpsmanager -c config.cfg`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from conpaas.core import application, config, daemon, node, revocation
from conpaas.core.https import identity

SECTION = "manager"


def build(configuration: config.Config, credentials: identity.Credentials) -> daemon.Part:
    """The manager of the application that the configuration describes, with the services it has on record."""
    manager = application.create(configuration, credentials)
    callers = identity.manager_callers(
        configuration.get_int(SECTION, "USER_ID"),
        configuration.get_int(SECTION, "APP_ID"),
        allow_frontend=configuration.get_bool(SECTION, "ALLOW_FRONTEND", False),
    )
    interval = configuration.get_float(SECTION, "REVOCATION_INTERVAL", revocation.INTERVAL, minimum=0.5)
    revoked = revocation.Revocations(manager.callbacker.revoked_certificates, interval)

    def start() -> None:
        revoked.start()
        manager.start()

    def close() -> None:
        revoked.close()
        manager.close()

    return daemon.Part(manager.rpc, revoked.guard(callers), start=start, close=close)


def main(arguments: Sequence[str] | None = None) -> int:
    return daemon.main("default-cpsmanager", SECTION, "MANAGER_PORT", node.MANAGER_PORT, build, arguments)


if __name__ == "__main__":
    sys.exit(main())
