"""The service type `keeper`, which only tests have: its nodes have disks that outlive them."""

from __future__ import annotations

import importlib.util
import pathlib
import sys

from conpaas.core import services

PACKAGES = pathlib.Path(__file__).parent / "packages"
"""What a platform must be given, so that its Director, VMs and commands know the type."""
TYPE = "keeper"


def service() -> services.ServiceType:
    """The type, for this process; the registry goes on to know only what is installed."""
    if TYPE not in sys.modules:
        spec = importlib.util.spec_from_file_location(TYPE, PACKAGES / f"{TYPE}.py")
        assert spec is not None and spec.loader is not None
        sys.modules[TYPE] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    found: services.ServiceType = sys.modules[TYPE].SERVICE
    return found
