"""`cps-director`: the Director itself."""

from __future__ import annotations

from conpaas.client import grammar, session

group = grammar.Group("director", help="Ask the Director about itself.")


@group.verb("version")
def version(run: session.Session) -> None:
    """Print the Director's version."""
    found = run.director.version()
    run.out.show(f"ConPaaS director version {found}", {"version": found})
