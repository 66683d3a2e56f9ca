"""Ways to sign in to an account besides its password: identities at providers, linked and taken away again."""

from __future__ import annotations

import logging
from typing import Final

from starlette import responses

from conpaas.core import errors
from conpaas.frontend import providers, upstream, visits
from conpaas.frontend.routing import Page

log = logging.getLogger(__name__)


def begin_link(visit: visits.Visit) -> responses.Response:
    """Send the user to a provider, whose answer is to be a way to sign in from now on."""
    return providers.send_away(visit, visit.field("name"), providers.LINK)


def finish_link(visit: visits.Visit) -> responses.Response:
    """What the provider brought back; called where all providers send browsers back to."""
    try:
        code = providers.brought_back(visit, providers.LINK)
        fields = {"state": visit.query("state"), "code": code, "redirect_uri": providers.callback_address(visit)}
        visit.director.post("/oidc/link", fields)
    except errors.ConPaaSError as error:
        if upstream.session_ended(error):
            raise
        visit.tell(str(error), "error", error.hint or "")
    else:
        log.info("user %s linked an identity", visit.user.username)
        visit.tell("You can sign in with this identity from now on.")
    return providers.forget(visit, visit.redirect("/account#ways"), providers.LINK)


def unlink(visit: visits.Visit) -> responses.Response:
    """Take an identity away."""
    visit.director.post("/oidc/unlink", {"id": visit.field("id")})
    visit.tell("The identity is taken away: it does not sign in to this account any more.")
    return visit.redirect("/account#ways")


def set_password(visit: visits.Visit) -> responses.Response:
    """Give an account its first password, so that the command line works, too."""
    if visit.raw_field("first") != visit.raw_field("first_again"):
        raise errors.InvalidArgument("The two passwords differ.", hint="Go back and type them again.")
    visit.director.post("/set_first_password", {"new_password": visit.raw_field("first")})
    visit.tell("Your account has a password now.")
    return visit.redirect("/account")


ROUTES: Final = [
    Page("/account/identities", begin_link, methods=("POST",)),
    Page("/account/identities/unlink", unlink, methods=("POST",)),
    Page("/account/first-password", set_password, methods=("POST",)),
]
