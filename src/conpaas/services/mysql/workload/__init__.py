"""The daemons behind databases. These modules know the daemons, not ConPaaS: render, validate, start, reload, report."""

from __future__ import annotations

from typing import Final

PACKAGE: Final = "conpaas.services.mysql"
"""Where the templates of configurations are."""
