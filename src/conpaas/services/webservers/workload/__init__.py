"""The daemons behind web hosting. These modules know the daemons, not ConPaaS: render, validate, start, reload, report."""

from __future__ import annotations

from typing import Final

PACKAGE: Final = "conpaas.services.webservers"
"""Where the templates of configurations are."""
