"""A platform whose VMs are real, with a service type whose nodes have disks that outlive them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support import keeping
from tests.support import platform as platforms


@pytest.fixture(params=["loop", "directory"])
def platform(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[platforms.Platform]:
    """One application, running; disks are block devices or directories."""
    settings = {"HEALTH_INTERVAL": "0.5", "NODE_LOST_AFTER": "3"}
    keys = {"cloud": {"VOLUMES": request.param}, "manager": settings, "packages": keeping.PACKAGES}
    with platforms.platform(tmp_path_factory.mktemp("disks"), 99, **keys) as made:
        made.cps("application", "create", "shop")
        made.cps("application", "start", "shop")
        yield made
