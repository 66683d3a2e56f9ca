"""What operators see: accounts, clouds, all machines, and what the sweeper found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette import responses

from conpaas.client import replies
from conpaas.core import errors
from conpaas.frontend import problems, upstream, visits
from conpaas.frontend.routing import Page

PAGE: Final = 50
_MOST_MACHINES: Final = 5000
_MOST_FINDINGS: Final = 500
_NEW: Final = ("username", "email", "fname", "lname", "affiliation", "credit", "role")
_QUOTAS: Final = ("vms", "applications", "volumes_mb")
_MACHINE_WORDS: Final = ("vmid", "owner", "app_name", "role", "cloud", "ip", "state", "request_key")


def home(visit: visits.Visit) -> responses.Response:
    """The first of the operator's pages."""
    return visit.redirect("/operator/users")


# Accounts


def show_users(visit: visits.Visit) -> responses.Response:
    """All accounts, or those that have some words in them."""
    return _users_page(visit)


def _users_page(
    visit: visits.Visit, problem: problems.Problem | None = None, invited: Mapping[str, Any] | None = None
) -> responses.Response:
    words = visit.query("q").strip()
    found = [one for one in visit.director.users() if _has(one, ("username", "email", "fname", "lname", "affiliation"), words)]
    shown, paging = _paged(visit, found)
    return visit.render(
        "operator/users.html",
        problem.status if problem else 200,
        users=shown,
        paging=paging,
        words=words,
        problem=problem,
        invited=invited,
        invitations=_open_invitations(visit),
        registration=visit.frontend.upstreams.registration(),
    )


def _has(one: Mapping[str, Any], names: tuple[str, ...], words: str) -> bool:
    """Whether every word is in one of the values."""
    text = " ".join(replies.text(one.get(name)) for name in names).casefold()
    return all(word in text for word in words.casefold().split())


def _paged(visit: visits.Visit, found: list[Any]) -> tuple[list[Any], dict[str, int]]:
    """One page of a long list, by the address's `page`."""
    pages = max(1, -(-len(found) // PAGE))
    asked = visit.query("page", "1")
    number = min(pages, max(1, int(asked))) if asked.isascii() and asked.isdigit() and len(asked) < 9 else 1
    return found[(number - 1) * PAGE : number * PAGE], {"page": number, "pages": pages, "total": len(found)}


def _open_invitations(visit: visits.Visit) -> list[Mapping[str, Any]] | None:
    """Those that nobody has used yet; None if the Director is too old to have any."""
    try:
        found = replies.each(visit.director.get("/operator/invitations"), replies.mapping, "a list of invitations")
        return [one for one in found if one.get("state", "open") == "open"]
    except errors.ConPaaSError as error:
        if not upstream.not_offered(error):
            raise
        return None


def show_user(visit: visits.Visit) -> responses.Response:
    """One account."""
    return _user_page(visit, _user(visit))


def _user(visit: visits.Visit) -> Mapping[str, Any]:
    uid = visit.number("uid")
    for one in visit.director.users():
        if one.get("uid") == uid:
            return one
    raise errors.NotFound("There is no such account.")


def _user_page(
    visit: visits.Visit, user: Mapping[str, Any], section: str = "", problem: problems.Problem | None = None
) -> responses.Response:
    return visit.render(
        "operator/user.html",
        problem.status if problem else 200,
        user=user,
        own=user.get("uid") == visit.user.grant.uid,
        quota=_limits(user.get("quota")),
        section=section,
        problem=problem,
    )


def _limits(quota: object) -> dict[str, str]:
    """The limits as the form shows them; empty where there is none."""
    found = quota if isinstance(quota, dict) else {}
    limits = {name: found[name].get("limit") if isinstance(found.get(name), dict) else None for name in _QUOTAS}
    return {name: replies.text(limit) for name, limit in limits.items()}


def _change(visit: visits.Visit, section: str, path: str, fields: Mapping[str, Any], said: str) -> responses.Response:
    """Change an account, and tell of it on its page."""
    user = _user(visit)
    try:
        visit.director.post(path, {"username": user["username"], **fields})
    except errors.ConPaaSError as error:
        if upstream.session_ended(error):
            raise
        return _user_page(visit, user, section, problems.describe(error))
    visit.tell(said.format(name=user["username"]))
    return visit.redirect(f"/operator/users/{user['uid']}")


def new_user(visit: visits.Visit) -> responses.Response:
    """The form that makes an account."""
    credit = str(visit.frontend.upstreams.registration().max_credit or 0)
    return _new_user_page(visit, {**dict.fromkeys(_NEW, ""), "credit": credit, "role": "user"})


def _new_user_page(visit: visits.Visit, values: Mapping[str, str], problem: problems.Problem | None = None) -> responses.Response:
    return visit.render("operator/new-user.html", problem.status if problem else 200, values=values, problem=problem)


def create_user(visit: visits.Visit) -> responses.Response:
    """Make an account; its password is shown once."""
    values = {name: visit.field(name) for name in _NEW}
    try:
        made = visit.director.post("/operator/create_user", {name: value for name, value in values.items() if value})
    except errors.ConPaaSError as error:
        if upstream.session_ended(error):
            raise
        return _new_user_page(visit, values, problems.describe(error))
    return _shown_once(visit, replies.mapping(made, "an account"), "The account is made")


def reset_password(visit: visits.Visit) -> responses.Response:
    """Give an account another password, which is shown once."""
    user = _user(visit)
    try:
        made = visit.director.post("/operator/reset_password", {"username": user["username"]})
    except errors.ConPaaSError as error:
        if upstream.session_ended(error):
            raise
        return _user_page(visit, user, "password", problems.describe(error))
    return _shown_once(visit, replies.mapping(made, "an account"), "The password is changed")


def _shown_once(visit: visits.Visit, made: Mapping[str, Any], done: str) -> responses.Response:
    return visit.render("operator/once.html", made=made, done=done, sign_in=f"{_origin(visit)}{visit.frontend.renderer.url('/sign-in')}")


def add_credit(visit: visits.Visit) -> responses.Response:
    """Give credits, or take them."""
    return _change(visit, "credit", "/operator/add_credit", {"credit": visit.field("credit")}, "The credits of {name} are changed.")


def set_active(visit: visits.Visit) -> responses.Response:
    """Enable or disable an account."""
    enable = visit.field("active") == "true"
    said = (
        "{name} can sign in again."
        if enable
        else "{name} is disabled: nobody signs in with this account, and its certificates are revoked."
    )
    return _change(visit, "active", "/operator/set_active", {"active": str(enable).lower()}, said)


def set_role(visit: visits.Visit) -> responses.Response:
    """Make somebody an operator, or no longer."""
    return _change(visit, "role", "/operator/set_role", {"role": visit.field("role")}, "The role of {name} is changed.")


def set_quota(visit: visits.Visit) -> responses.Response:
    """Say how much an account may use; an empty field means as much as it can pay."""
    fields = {name: visit.field(name) for name in _QUOTAS}
    return _change(visit, "quota", "/operator/set_quota", fields, "The quota of {name} is changed.")


def invite(visit: visits.Visit) -> responses.Response:
    """Make an invitation; its address is shown once, whether it is sent by e-mail or not."""
    fields: dict[str, Any] = {"email": visit.field("email") or None, "credit": visit.field("credit") or None}
    if fields["email"] and visit.field("mail"):
        fields["mail"] = "true"
    try:
        made = replies.mapping(visit.director.post("/operator/invite", fields), "an invitation")
    except errors.ConPaaSError as error:
        if upstream.session_ended(error):
            raise
        return _users_page(visit, problems.describe(error))
    token = replies.text(made.get("token"))
    address = replies.text(made.get("url")) or f"{_origin(visit)}{visit.frontend.renderer.url(f'/invitation/{token}')}"
    return _users_page(visit, invited={**made, "address": address})


def _origin(visit: visits.Visit) -> str:
    return visit.frontend.settings.origin or f"{visit.request.url.scheme}://{visit.request.headers.get('host', '')}"


def withdraw(visit: visits.Visit) -> responses.Response:
    """Take an invitation back."""
    visit.director.post("/operator/withdraw_invitation", {"id": visit.field("id")})
    visit.tell("The invitation is withdrawn: nobody can register with it any more.")
    return visit.redirect("/operator/users#invitations")


# Clouds


def show_clouds(visit: visits.Visit) -> responses.Response:
    """The clouds, with what is on them."""
    return _clouds_page(visit)


def _clouds_page(visit: visits.Visit, checked: Mapping[str, Any] | None = None) -> responses.Response:
    clouds = replies.each(visit.director.get("/operator/clouds"), replies.mapping, "a list of clouds")
    return visit.render("operator/clouds.html", clouds=clouds, checked=checked)


def check_cloud(visit: visits.Visit) -> responses.Response:
    """Have the Director talk to a cloud now."""
    cloud = visit.field("cloud")
    found = replies.mapping(visit.director.post("/operator/check_cloud", {"cloud": cloud}), "what a cloud answered")
    return _clouds_page(visit, {**found, "cloud": cloud})


# Machines and findings


def show_machines(visit: visits.Visit) -> responses.Response:
    """All machines of everybody."""
    words = visit.query("q").strip()
    machines = replies.each(visit.director.get("/operator/machines", limit=_MOST_MACHINES), replies.mapping, "a list of machines")
    found = [one for one in machines if _has(one, _MACHINE_WORDS, words)]
    shown, paging = _paged(visit, found)
    total = sum(replies.number(one.get("cost")) for one in found)
    return visit.render("operator/machines.html", machines=shown, paging=paging, words=words, total=total, everything=len(machines))


def show_findings(visit: visits.Visit) -> responses.Response:
    """What the sweeper found and did lately."""
    findings = replies.each(visit.director.get("/operator/findings", limit=_MOST_FINDINGS), replies.mapping, "a list of findings")
    shown, paging = _paged(visit, findings)
    return visit.render("operator/findings.html", findings=shown, paging=paging)


ROUTES: Final = [
    Page("/operator", home, access="operator"),
    Page("/operator/users", show_users, access="operator"),
    Page("/operator/users/new", new_user, access="operator"),
    Page("/operator/users/new", create_user, methods=("POST",), access="operator"),
    Page("/operator/users/{uid:int}", show_user, access="operator"),
    Page("/operator/users/{uid:int}/credit", add_credit, methods=("POST",), access="operator"),
    Page("/operator/users/{uid:int}/active", set_active, methods=("POST",), access="operator"),
    Page("/operator/users/{uid:int}/password", reset_password, methods=("POST",), access="operator"),
    Page("/operator/users/{uid:int}/role", set_role, methods=("POST",), access="operator"),
    Page("/operator/users/{uid:int}/quota", set_quota, methods=("POST",), access="operator"),
    Page("/operator/invitations", invite, methods=("POST",), access="operator"),
    Page("/operator/invitations/withdraw", withdraw, methods=("POST",), access="operator"),
    Page("/operator/clouds", show_clouds, access="operator"),
    Page("/operator/clouds/check", check_cloud, methods=("POST",), access="operator"),
    Page("/operator/machines", show_machines, access="operator"),
    Page("/operator/findings", show_findings, access="operator"),
]
