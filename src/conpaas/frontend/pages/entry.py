"""Coming in and going out: sign-in, registration, confirmation, identity providers, sign-out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from starlette import responses

from conpaas.core import errors
from conpaas.frontend import problems, providers, routing, sessions, visits
from conpaas.frontend.pages import identities
from conpaas.frontend.routing import Page

log = logging.getLogger(__name__)

_FIELDS: Final = ("username", "email", "fname", "lname", "affiliation")
_MIN_PASSWORD: Final = 8
FAILED: Final = "Sign-in failed"
_SAID: Final = {
    "ended": "You were signed out: the session ended, or the password was changed. Please sign in again.",
    "undone": "Nothing was done: you were signed out, as the session had ended. Please sign in, and do it again.",
    "out": "You are signed out.",
    "registered": "Your account is ready. Sign in with it.",
    "confirmed": "Your address is confirmed. You can sign in now.",
    "mailed": "We have sent you a message with a link. Follow it to confirm your address, then sign in.",
}


def home(visit: visits.Visit) -> responses.Response:
    """The first page: the applications, or the sign-in."""
    return visit.redirect("/apps" if visit.session is not None else "/sign-in")


def show_sign_in(visit: visits.Visit) -> responses.Response:
    """The sign-in form."""
    if visit.session is not None:
        return visit.redirect(visits.local_path(visit.query("next", "/")))
    return _sign_in_page(visit)


def _sign_in_page(visit: visits.Visit, problem: problems.Problem | None = None, username: str = "") -> responses.Response:
    wanted = visit.field("next") or visit.query("next")
    return visit.render(
        "entry/sign-in.html",
        problem.status if problem else 200,
        problem=problem,
        said=_SAID.get(visit.query("said"), "") if problem is None else "",
        username=username,
        wanted=visits.local_path(wanted) if wanted else "",
        registration=visit.frontend.upstreams.registration(),
    )


def sign_in(visit: visits.Visit) -> responses.Response:
    """Check name and password at the Director, and begin a session."""
    username, password = visit.field("username"), visit.raw_field("password")
    try:
        if not username or not password:
            raise errors.InvalidArgument("Give your user name and your password.")
        visit.frontend.throttle.check(visit.address)
        grant = visit.frontend.upstreams.sign_in(username, password, visit.address)
    except errors.ConPaaSError as error:
        problem = _sign_in_problem(error)
        if problem.title == FAILED:
            visit.frontend.throttle.failed(visit.address)
        log.info("a sign-in as %r was refused: %s", username[:60], error)
        return _sign_in_page(visit, problem, username)
    visit.frontend.throttle.succeeded(visit.address)
    return _begin(visit, grant, visits.local_path(visit.field("next") or "/"))


def _sign_in_problem(error: errors.ConPaaSError) -> problems.Problem:
    described = problems.describe(error)
    if "authentication failed" in str(error):
        return problems.Problem(403, FAILED, "User name and password do not fit.", "Check both; capital letters matter in passwords.")
    return described


def _begin(visit: visits.Visit, grant: sessions.Grant, target: str) -> responses.Response:
    """A session under a new id; the one of before, if any, ends."""
    routing.end_session(visit)
    secret, session = visit.frontend.sessions.begin(grant)
    log.info("user %s signed in", session.username)
    response = visit.redirect("/apps" if target == "/" else target)
    settings = visit.frontend.settings
    routing.set_cookie(response, settings, routing.SESSION_COOKIE, secret)
    routing.set_cookie(response, settings, routing.VISIT_COOKIE, "")
    visit.session, visit.secret = session, ""
    return response


def sign_out(visit: visits.Visit) -> responses.Response:
    """End the session here and its certificate at the Director."""
    if visit.session is not None:
        visit.frontend.upstreams.sign_out(visit.session)
        routing.end_session(visit)
        visit.frontend.hub.drop(visit.session.id)
        visit.session, visit.secret = None, ""
    response = visit.redirect("/sign-in?said=out")
    routing.set_cookie(response, visit.frontend.settings, routing.SESSION_COOKIE, "")
    return response


# -- registration


def show_registration(visit: visits.Visit) -> responses.Response:
    """The registration form, with the invitation of the address if there is one."""
    return _registration_page(visit, {"invitation": str(visit.request.path_params.get("token", ""))})


def _registration_page(
    visit: visits.Visit, values: Mapping[str, Any], problem: problems.Problem | None = None, wrong: str = ""
) -> responses.Response:
    return visit.render(
        "entry/register.html",
        problem.status if problem else 200,
        problem=problem,
        wrong=wrong,
        values={**dict.fromkeys((*_FIELDS, "invitation"), ""), **values},
        registration=visit.frontend.upstreams.registration(),
    )


def register(visit: visits.Visit) -> responses.Response:
    """Create an account and, unless its address must be confirmed first, sign in."""
    values = {name: visit.field(name) for name in (*_FIELDS, "invitation")}
    password = visit.raw_field("password")
    registration = visit.frontend.upstreams.registration()
    wrong = _wrong_field(values, password, visit.raw_field("again"))
    if wrong:
        return _registration_page(visit, values, problems.Problem(400, "Not yet", wrong[1]), wrong[0])
    fields = {**values, "password": password, "credit": registration.max_credit or None, "invitation": values["invitation"] or None}
    try:
        visit.frontend.upstreams.nobody.post("/new_user", fields, anybody=True, address=visit.address)
        if registration.confirmation:
            return visit.redirect("/sign-in?said=mailed")
        grant = visit.frontend.upstreams.sign_in(values["username"], password, visit.address)
    except errors.ConPaaSError as error:
        return _registration_page(visit, values, problems.describe(error), _named_field(str(error)))
    return _begin(visit, grant, "/apps")


def _wrong_field(values: Mapping[str, str], password: str, again: str) -> tuple[str, str] | None:
    """The first field that cannot be right, and why."""
    if not values["username"]:
        return "username", "Choose a user name."
    if "@" not in values["email"]:
        return "email", "Give your e-mail address."
    if len(password) < _MIN_PASSWORD:
        return "password", f"A password has at least {_MIN_PASSWORD} characters."
    if password != again:
        return "again", "The two passwords differ."
    return None


def _named_field(text: str) -> str:
    """Which field an error of the Director is about, by its words."""
    lower = text.lower()
    return next((name for name in ("username", "email", "password", "invitation") if name in lower or name[:-4] + " name" in lower), "")


def confirm(visit: visits.Visit) -> responses.Response:
    """A button that confirms an address: following a link alone changes nothing, since mail scanners follow links, too."""
    return visit.render("entry/confirm.html", token=str(visit.request.path_params["token"]), problem=None)


def confirmed(visit: visits.Visit) -> responses.Response:
    """Confirm the address."""
    token = str(visit.request.path_params["token"])
    try:
        visit.frontend.upstreams.nobody.post("/confirm_email", {"token": token}, anybody=True)
    except errors.ConPaaSError as error:
        return visit.render("entry/confirm.html", 400, token=token, problem=problems.describe(error))
    return visit.redirect("/sign-in?said=confirmed")


def resend(visit: visits.Visit) -> responses.Response:
    """Send the message again; the answer does not tell whether there is such an account."""
    try:
        visit.frontend.upstreams.nobody.post(
            "/resend_confirmation", {"username": visit.field("username")}, anybody=True, address=visit.address
        )
    except errors.Unreachable:
        raise
    except errors.ConPaaSError as error:
        log.info("a confirmation was not sent again: %s", error)
    return visit.redirect("/sign-in?said=mailed")


# -- identity providers


def start_oidc(visit: visits.Visit) -> responses.Response:
    """Send the browser to an identity provider; it keeps the invitation, if there is one, until it is back."""
    response = providers.send_away(visit, visit.field("name"), providers.SIGN_IN)
    routing.set_cookie(response, visit.frontend.settings, providers.INVITATION, visit.field("invitation")[:256], providers.SECONDS)
    return response


def finish_oidc(visit: visits.Visit) -> responses.Response:
    """What the identity provider sent back. The state must be the one that this browser was sent away with."""
    if visit.session is not None and providers.begun_for(visit, providers.LINK):
        return identities.finish_link(visit)
    invitation = routing.cookie(visit.request, visit.frontend.settings, providers.INVITATION)
    try:
        code = providers.brought_back(visit, providers.SIGN_IN)
        grant = visit.frontend.upstreams.finish_oidc(visit.query("state"), code, providers.callback_address(visit), invitation)
    except errors.ConPaaSError as error:
        problem = problems.describe(error)
        response = _registration_page(visit, {"invitation": invitation}, problem) if invitation else _sign_in_page(visit, problem)
    else:
        response = _begin(visit, grant, "/apps")
    return providers.forget(visit, response, providers.SIGN_IN, providers.INVITATION)


def set_theme(visit: visits.Visit) -> responses.Response:
    """Keep a colour scheme, for browsers without scripts."""
    response = visit.redirect(visits.local_path(visit.field("back") or "/"))
    theme = visit.field("theme")
    if theme in visits.THEMES:
        response.set_cookie(
            "conpaas-theme",
            theme,
            max_age=31536000,
            path=visit.frontend.settings.root_path or "/",
            samesite="lax",
            secure=visit.frontend.settings.secure,
        )
    return response


ROUTES: Final = [
    Page("/", home, access="anyone"),
    Page("/sign-in", show_sign_in, access="anyone"),
    Page("/sign-in", sign_in, methods=("POST",), access="anyone"),
    Page("/sign-out", sign_out, methods=("POST",), access="anyone"),
    Page("/register", show_registration, access="anyone"),
    Page("/register", register, methods=("POST",), access="anyone"),
    Page("/invitation/{token}", show_registration, access="anyone"),
    Page("/confirm/{token}", confirm, access="anyone"),
    Page("/confirm/{token}", confirmed, methods=("POST",), access="anyone"),
    Page("/resend-confirmation", resend, methods=("POST",), access="anyone"),
    Page("/oidc/start", start_oidc, methods=("POST",), access="anyone"),
    Page("/oidc/callback", finish_oidc, access="anyone"),
    Page("/theme", set_theme, methods=("POST",), access="anyone"),
]
