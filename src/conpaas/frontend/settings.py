"""What one front-end process is told: where the Director is, where to listen, where sessions are kept."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import urllib.parse
from typing import Final

from conpaas.core import errors

DEFAULT_BIND: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8080
SESSION_HOURS: Final = 12
IDLE_SECONDS: Final = 2 * 3600.0
FORM_BYTES: Final = 2 * 1024 * 1024
"""The largest body of a request that is no upload."""

UPLOAD_BYTES: Final = 4 * 1024 * 1024 * 1024
_ROOT_PATH: Final = re.compile(r"(/[A-Za-z0-9._~-]+)*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The checked settings. `root_path` is what a reverse proxy puts before every path: empty, or like `/conpaas`.

    `public_url` is the address that people type, without `root_path`; empty when it is the one listened on. `upload_bytes` is the largest
    body of an upload, `idle_seconds` how long a session lives unused.
    """

    director_url: str
    ca: pathlib.Path
    state_dir: pathlib.Path
    bind: str = DEFAULT_BIND
    port: int = DEFAULT_PORT
    root_path: str = ""
    public_url: str = ""
    tls_cert: pathlib.Path | None = None
    tls_key: pathlib.Path | None = None
    upload_bytes: int = UPLOAD_BYTES
    idle_seconds: float = IDLE_SECONDS

    def __post_init__(self) -> None:
        if not _ROOT_PATH.fullmatch(self.root_path):
            raise errors.ConfigurationError(f"ROOT_PATH must be empty or a path like /conpaas, not '{self.root_path}'.")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise errors.ConfigurationError("TLS_CERT and TLS_KEY belong together: give both or neither.")
        parts = urllib.parse.urlsplit(self.public_url)
        if self.public_url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query):
            raise errors.ConfigurationError(f"PUBLIC_URL must be like https://conpaas.example.org, not '{self.public_url}'.")

    @property
    def secure(self) -> bool:
        """Whether browsers reach the front-end over TLS, its own or a proxy's."""
        return self.tls_cert is not None or self.public_url.startswith("https://")

    @property
    def origin(self) -> str:
        """The origin that browsers name, or empty when it is whatever address they used."""
        parts = urllib.parse.urlsplit(self.public_url)
        return f"{parts.scheme}://{parts.netloc}" if self.public_url else ""

    @property
    def cookie_prefix(self) -> str:
        """What all cookies begin with. Without TLS it names the port: browsers share cookies among the ports of a host."""
        if not self.secure:
            return f"conpaas-{self.port}-"
        return "__Secure-conpaas-" if self.root_path else "__Host-conpaas-"
