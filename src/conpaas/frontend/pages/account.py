"""The account: profile, password, ways to sign in, certificates, what one may use, and the way to the command line."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from starlette import responses

from conpaas.client import replies
from conpaas.core import errors
from conpaas.frontend import problems, routing, upstream, visits
from conpaas.frontend.routing import Page

log = logging.getLogger(__name__)

_PROFILE: Final = ("fname", "lname", "email", "affiliation")
_MIN_PASSWORD: Final = 8
_QUOTAS: Final = (("vms", "Machines", ""), ("applications", "Applications", ""), ("volumes_mb", "Volumes", "MB"))


def show(visit: visits.Visit) -> responses.Response:
    """The account page."""
    return _page(visit)


def _page(
    visit: visits.Visit, section: str = "", problem: problems.Problem | None = None, values: Mapping[str, str] | None = None
) -> responses.Response:
    """The page; `section` is the form that a problem belongs to, `values` what was typed there."""
    director = visit.director
    profile = director.user()
    typed = {name: replies.text(profile.get(name)) for name in _PROFILE} | dict(values or {})
    return visit.render(
        "account/account.html",
        problem.status if problem else 200,
        profile=profile,
        typed=typed,
        section=section,
        problem=problem,
        certificates=_offered(lambda: replies.each(director.get("/certificates"), replies.mapping, "a list of certificates")),
        quotas=_quotas(visit),
        identities=_offered(lambda: replies.each(director.get("/oidc/identities"), replies.mapping, "a list of identities")) or [],
        providers=visit.frontend.upstreams.registration().providers,
        director_url=director.url,
    )


def _offered(read: Any) -> Any:
    """What a Director tells; None if it is too old to."""
    try:
        return read()
    except errors.ConPaaSError as error:
        if not upstream.not_offered(error):
            raise
        return None


def _quotas(visit: visits.Visit) -> list[dict[str, Any]]:
    """What of each kind is used, and how much may be."""
    found = _offered(lambda: replies.mapping(visit.director.get("/quota"), "the quota"))
    made = []
    for name, label, unit in _QUOTAS if found else ():
        one = replies.mapping(found.get(name) or {})
        used, limit = replies.integer(one.get("used") or 0, "a quota"), one.get("limit")
        made.append({"label": label, "unit": unit, "used": used, "limit": None if limit is None else replies.integer(limit, "a quota")})
    return made


def save_profile(visit: visits.Visit) -> responses.Response:
    """Change names, address and affiliation."""
    values = {name: visit.field(name) for name in _PROFILE}
    try:
        if "@" not in values["email"]:
            raise errors.InvalidArgument("Give your e-mail address.")
        saved = replies.mapping(visit.director.post("/update_profile", values), "a profile")
    except errors.ConPaaSError as error:
        return _failed(visit, "profile", error, values)
    pending = replies.text(saved.get("unconfirmed_email"))
    if pending:
        visit.tell(
            f"Your profile is saved. The new address counts once it is confirmed: follow the link in the message to {pending}.", "warning"
        )
    else:
        visit.tell("Your profile is saved.")
    return visit.redirect("/account")


def _failed(visit: visits.Visit, section: str, error: errors.ConPaaSError, values: Mapping[str, str] | None = None) -> responses.Response:
    """The page with what is wrong beside its form; a session that has ended is for everybody's handler."""
    if upstream.session_ended(error):
        raise error
    return _page(visit, section, problems.describe(error), values)


def _wrong_password(error: errors.ConPaaSError, text: str) -> errors.ConPaaSError:
    """A refused password is no end of the session."""
    return errors.InvalidArgument(text) if isinstance(error, errors.Unauthenticated) or "authentication failed" in str(error) else error


def change_password(visit: visits.Visit) -> responses.Response:
    """Change the password, which ends all sessions and certificates, this one too."""
    old, new, again = (visit.raw_field(name) for name in ("old", "new", "again"))
    try:
        if len(new) < _MIN_PASSWORD:
            raise errors.InvalidArgument(f"A password has at least {_MIN_PASSWORD} characters.")
        if new != again:
            raise errors.InvalidArgument("The two new passwords differ.")
        fields = {"username": visit.user.username, "password": old, "new_password": new}
        visit.frontend.upstreams.nobody.post("/change_password", fields, anybody=True, address=visit.address)
    except errors.ConPaaSError as error:
        return _failed(visit, "password", _wrong_password(error, "The present password is not right."))
    log.info("user %s changed the password", visit.user.username)
    routing.end_session(visit)
    visit.session = None
    return routing.to_sign_in(visit, "ended")


def revoke(visit: visits.Visit) -> responses.Response:
    """Have a certificate refused from now on."""
    serial = visit.field("serial")
    known = {replies.text(one.get("serial")): one for one in replies.sequence(visit.director.get("/certificates"))}
    if known.get(serial, {}).get("current"):
        raise errors.InvalidArgument("This is the certificate of the session that you are in.", hint="Sign out to end it.")
    visit.director.post("/revoke_own_certificate", {"serial": serial})
    visit.tell("The certificate is revoked: whoever has it is refused from now on.")
    return visit.redirect("/account#certificates")


def download(visit: visits.Visit) -> responses.Response:
    """A new certificate for the command line, for who proves to know the password."""
    try:
        archive = visit.frontend.upstreams.nobody.certificates(visit.user.username, visit.raw_field("password"), visit.address)
    except errors.ConPaaSError as error:
        return _failed(visit, "download", _wrong_password(error, "The password is not right."))
    return visit.download(archive, f"conpaas-{visit.user.username}.zip", "application/zip")


ROUTES: Final = [
    Page("/account", show),
    Page("/account/profile", save_profile, methods=("POST",)),
    Page("/account/password", change_password, methods=("POST",)),
    Page("/account/certificates/revoke", revoke, methods=("POST",)),
    Page("/account/certificates/download", download, methods=("POST",)),
]
