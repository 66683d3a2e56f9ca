"""The web front-end in the test's own process, and somebody's browser."""

from __future__ import annotations

import dataclasses

from conpaas.frontend import sessions, visits
from tests.support import asgi


@dataclasses.dataclass
class Site:
    """The front-end, and somebody's browser."""

    frontend: visits.Frontend
    browser: asgi.Browser

    def sign_in(self, grant: sessions.Grant) -> sessions.Session:
        """What a sign-in leaves: a session, and its cookie in the browser."""
        secret, session = self.frontend.sessions.begin(grant)
        self.browser.cookies[f"{self.frontend.settings.cookie_prefix}session"] = secret
        return session
