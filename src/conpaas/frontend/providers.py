"""The way to an identity provider and back: the browser is sent away with a state in a cookie, and only what it brings back counts."""

from __future__ import annotations

import urllib.parse
from typing import Final

from starlette import responses

from conpaas.core import errors
from conpaas.frontend import routing, visits

SIGN_IN: Final = "oidc"
LINK: Final = "oidc-link"
"""The cookies: what for somebody was sent away."""
INVITATION: Final = "oidc-invitation"
"""The cookie with the invitation that somebody who is sent away has."""
SECONDS: Final = 600


def callback_address(visit: visits.Visit) -> str:
    """Where providers send browsers back to; it must be known to them."""
    settings = visit.frontend.settings
    origin = settings.origin or f"{visit.request.url.scheme}://{visit.request.headers.get('host', '')}"
    return f"{origin}{settings.root_path}/oidc/callback"


def send_away(visit: visits.Visit, name: str, purpose: str) -> responses.Response:
    """A page that sends the browser to a provider."""
    address, state = visit.frontend.upstreams.begin_oidc(name, callback_address(visit))
    if urllib.parse.urlsplit(address).scheme not in ("https", "http"):
        raise errors.RemoteError("The Director gave no usable address of the identity provider.")
    response = visit.render("entry/continue.html", address=address)
    routing.set_cookie(response, visit.frontend.settings, purpose, state, SECONDS)
    response.headers["Refresh"] = f"0;url={address}"
    return response


def begun_for(visit: visits.Visit, purpose: str) -> bool:
    """Whether what came back is what this browser was sent away for."""
    state = visit.query("state")
    return bool(state) and state == routing.cookie(visit.request, visit.frontend.settings, purpose)


def brought_back(visit: visits.Visit, purpose: str) -> str:
    """The code that the provider gave. Raises Unauthenticated."""
    if visit.query("error"):
        words = visit.query("error_description") or visit.query("error")
        raise errors.Unauthenticated(f"The identity provider did not sign you in: {words[:200]}.")
    if not begun_for(visit, purpose) or not visit.query("code"):
        raise errors.Unauthenticated("This sign-in was not begun in this browser, or took too long.", hint="begin it again")
    return visit.query("code")


def forget(visit: visits.Visit, response: responses.Response, *cookies: str) -> responses.Response:
    """The response, with which the browser forgets that it was sent away."""
    for one in cookies:
        routing.set_cookie(response, visit.frontend.settings, one, "")
    return response
