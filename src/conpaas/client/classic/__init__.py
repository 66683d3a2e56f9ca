"""`cpsclient`: the first command-line client's syntax (`COMMAND APPID SERVICEID …`), on the same library as `cps-tools`.

It keeps its own three files (`target`, `username`, `password` in `~/.conpaas`), reads those of `cps-tools` where they are
missing, and shares the certificates. Results and errors (`E: …`) go to stdout; the exit code is 0 only after success.
"""

from __future__ import annotations

from conpaas.client.classic.program import main

__all__ = ["main"]
