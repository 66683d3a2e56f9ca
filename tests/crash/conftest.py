"""One platform with one application for all crashes that a process tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash import drives
from tests.support import keeping, workers
from tests.support import platform as platforms

NET = 73


@pytest.fixture(scope="package")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[platforms.Platform]:
    """A VM that is gone is found missing at the Director; an agent that dies again and again within seconds does not count as lost."""
    directory = tmp_path_factory.mktemp("crash")
    settings = {"HEALTH_INTERVAL": "1", "NODE_LOST_AFTER": "60", "MYSQL_UNWELL": "1"}
    with platforms.platform(directory, NET + workers.number(), manager=settings, packages=keeping.PACKAGES) as made:
        made.cps("application", "create", drives.APP)
        made.cps("application", "start", drives.APP)
        yield made
