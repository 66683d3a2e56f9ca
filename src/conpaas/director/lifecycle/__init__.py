"""Applications, services, nodes and volumes coming and going, as operations that survive a crash of the Director.

`component.Lifecycle` is what endpoints and other rooms use; `install` makes it for a Director.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conpaas.director import runtime


def install(director: runtime.Director) -> None:
    """Put the lifecycle into a Director; see `component.install`."""
    from conpaas.director.lifecycle import component

    component.install(director)
