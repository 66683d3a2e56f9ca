"""A visitor of a running web front-end, without a browser: keeps cookies, sends forms with their token."""

from __future__ import annotations

import html
import re

from conpaas.core.https.lean import requests

TIMEOUT = 60.0


class Visitor:
    """Somebody at the front-end at `site`. Redirects are not followed, so that a test sees them."""

    def __init__(self, site: str) -> None:
        self.site = site.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False
        self.token = ""

    def get(self, path: str, **headers: str) -> requests.Response:
        """A page; its token is the one that the next form has."""
        reply = self._session.get(f"{self.site}{path}", headers=headers, allow_redirects=False, timeout=TIMEOUT)
        found = re.search(rb'<meta name="csrf" content="([^"]*)"', reply.content)
        if found:
            self.token = found[1].decode()
        return reply

    def post(self, path: str, **fields: str) -> requests.Response:
        """A form, with the token of the last page."""
        return self._session.post(f"{self.site}{path}", data={"csrf": self.token, **fields}, allow_redirects=False, timeout=TIMEOUT)

    def sign_in(self, username: str, password: str) -> requests.Response:
        """Sign in; the reply to the form."""
        self.get("/sign-in")
        reply = self.post("/sign-in", username=username, password=password)
        if reply.status_code == 303:
            self.get("/apps")
        return reply

    @property
    def cookies(self) -> dict[str, str]:
        return {name: value for name, value in self._session.cookies.items() if value}

    def close(self) -> None:
        self._session.close()


def text_of(reply: requests.Response) -> str:
    """The words of a page, without its tags."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", reply.content.decode())).split())
