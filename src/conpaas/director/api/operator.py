"""Endpoints for the operator of this Director: accounts, invitations, clouds, machines and what the sweeper found."""

from __future__ import annotations

import dataclasses
import logging
import secrets
from typing import Any

import flask
import sqlalchemy as sa

from conpaas.core import errors, node, params
from conpaas.director import auth, cloudcheck, credits, endpoint, findings, invitations, models, quotas, runtime, users
from conpaas.director.api import clouds as clouds_api
from conpaas.director.lifecycle import component, wanted

log = logging.getLogger(__name__)

blueprint = flask.Blueprint("operator", __name__)

_WORDS = params.Text(max_length=1024)
_USER = params.Param("username", _WORDS, help="Which account.")
_QUOTA = params.Text(max_length=12)
_PASSWORD_BYTES = 12


def user_dict(user: models.User, left: int, used: dict[str, Any] | None) -> dict[str, Any]:
    """An account as the operator sees it."""
    own = used or dict.fromkeys(("vms", "applications", "volumes_mb"), 0)
    limits = dataclasses.asdict(quotas.limits(user))
    return {
        **users.as_dict(user, left),
        "active": user.active,
        "unconfirmed": user.unconfirmed,
        "role": user.role,
        "applications": own["applications"],
        "vms": own["vms"],
        "quota": {name: {"used": own[name], "limit": limit} for name, limit in limits.items()},
    }


@endpoint.endpoint(blueprint, "/operator/users", methods=["GET"], auth="operator")
def list_users() -> list[dict[str, Any]]:
    """All accounts by name, with their credits, quotas, and how many applications and VMs they have."""
    with runtime.current().database.reader() as session:
        used = quotas.all_used(session)
        return [user_dict(user, left, used.get(user.uid)) for user, left in users.listing(session)]


@endpoint.endpoint(
    blueprint,
    "/operator/create_user",
    auth="operator",
    params=[
        params.Param("username", _WORDS, help="Letters, digits and the signs . _ - @ +"),
        params.Param("email", _WORDS, help="E-mail address, one account each; it is taken as confirmed."),
        params.Param("fname", _WORDS, "", help="First name."),
        params.Param("lname", _WORDS, "", help="Last name."),
        params.Param("affiliation", _WORDS, ""),
        params.Param("credit", params.Integer(minimum=0, maximum=10**9), 0, help="Opening balance."),
        params.Param("role", params.Choice(users.ROLES), "user", help="What the account may do."),
    ],
)
def create_user(*, username: str, email: str, fname: str, lname: str, affiliation: str, credit: int, role: str) -> dict[str, Any]:
    """Create an account, however people register otherwise. Its `password` is made up and shown here only."""
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    wanted = users.NewUser(username, email, password, fname, lname, affiliation, credit=credit, role=role)
    made = users.create(runtime.current(), wanted)
    return {"uid": made.uid, "username": made.username, "password": password}


@endpoint.endpoint(blueprint, "/operator/reset_password", auth="operator", params=[_USER])
def reset_password(*, username: str, caller: auth.Caller) -> dict[str, Any]:
    """Give an account another `password`, which is made up and shown here only. Its sessions end and its certificates are revoked."""
    director = runtime.current()
    with director.database.reader() as session:
        found = users.get(session, username)
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    users.set_password(director, found.uid, password)
    log.info("the operator %s gave the user %s another password", caller.username, found.username)
    return {"uid": found.uid, "username": found.username, "password": password}


@endpoint.endpoint(
    blueprint,
    "/operator/add_credit",
    auth="operator",
    params=[
        params.Param("username", _WORDS, help="Whose credits."),
        params.Param("credit", params.Integer(minimum=-(10**9), maximum=10**9), help="How many to add; negative to take, never below 0."),
    ],
)
def add_credit(*, username: str, credit: int, caller: auth.Caller) -> dict[str, int]:
    """Add credits to an account; answers the new balance."""
    director = runtime.current()
    with director.database.session() as session:
        user = users.get(session, username)
        return {"credit": credits.adjust(session, user.uid, credit, director.clock(), f"by operator {caller.username}")}


@endpoint.endpoint(
    blueprint,
    "/operator/set_active",
    auth="operator",
    params=[_USER, params.Param("active", params.Boolean(), help="Enable or disable.")],
)
def set_active(*, username: str, active: bool) -> dict[str, Any]:
    """Enable or disable an account; a disabled one cannot log in and its certificates are revoked. The last operator stays."""
    users.set_active(runtime.current(), username, active, spare_operator=True)
    return {}


@endpoint.endpoint(
    blueprint,
    "/operator/set_role",
    auth="operator",
    params=[_USER, params.Param("role", params.Choice(users.ROLES), help="What the account may do.")],
)
def set_role(*, username: str, role: str) -> dict[str, Any]:
    """Make an account an operator's, or an ordinary one. The last operator stays one."""
    return {"username": users.set_role(runtime.current(), username, role).username, "role": role}


def _limit(name: str, text: str) -> int | None:
    if not text.strip():
        return None
    try:
        return params.Integer(minimum=0, maximum=quotas.MOST).check(text)
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(f"Parameter '{name}': {error}.") from error


@endpoint.endpoint(
    blueprint,
    "/operator/set_quota",
    auth="operator",
    params=[
        _USER,
        params.Param("vms", _QUOTA, "", help="Most VMs at the same time, managers included; empty: no limit."),
        params.Param("applications", _QUOTA, "", help="Most applications, running or not; empty: no limit."),
        params.Param("volumes_mb", _QUOTA, "", help="Most MB of volumes at the same time; empty: no limit."),
    ],
)
def set_quota(*, username: str, vms: str, applications: str, volumes_mb: str) -> dict[str, Any]:
    """Give an account quotas; all three are set. What exceeds them already stays."""
    allowed = quotas.Amounts(_limit("vms", vms), _limit("applications", applications), _limit("volumes_mb", volumes_mb))
    with runtime.current().database.session() as session:
        user = users.get(session, username)
        quotas.set_limits(user, allowed)
        return quotas.as_dict(session, user.uid)


# Invitations


@endpoint.endpoint(
    blueprint,
    "/operator/invite",
    auth="operator",
    params=[
        params.Param("email", _WORDS, "", help="Only an account of this address may be made by it; empty: of any."),
        params.Param("credit", params.Integer(minimum=0, maximum=10**9), 0, help="Opening balance of the account."),
        params.Param("days", params.Integer(minimum=1, maximum=90), invitations.LIFETIME_DAYS, help="How long it is good."),
        params.Param("mail", params.Boolean(), False, help="Send it to `email`; an error where NOTIFY is `log`."),
    ],
)
def invite(*, email: str, credit: int, days: int, mail: bool, caller: auth.Caller) -> dict[str, Any]:
    """A new invitation: the `token`, shown here only, and its `url` where FRONTEND_URL is set. It makes one account.

    `mailed` tells whether a message with it was sent; if one should have been, `mail_problem` says why it was not.
    """
    director = runtime.current()
    asked = invitations.Wanted(users.check_email(email) if email.strip() else "", credit, days)
    invitations.check_wanted(director.config, asked, mail)
    now = director.clock()
    with director.database.session() as session:
        row, token = invitations.invite(session, asked, caller.username, now)
    problem = _mailed(director, row, token) if mail else None
    told = {"mailed": mail and problem is None, "mail_problem": problem}
    return {"token": token, "url": invitations.url(director.config.pages_url, token), **invitations.as_dict(row, None, now), **told}


def _mailed(director: runtime.Director, row: models.Invitation, token: str) -> str | None:
    """Send an invitation; why it was not, if it was not. It is good all the same: whoever makes it has its address."""
    try:
        invitations.mail(director.config, row, token)
    except errors.OperationFailed as error:
        log.warning("invitation %s could not be sent: %s", row.id, error)
        return str(error)
    return None


@endpoint.endpoint(blueprint, "/operator/invitations", methods=["GET"], auth="operator")
def list_invitations() -> list[dict[str, Any]]:
    """Invitations, newest first, with what became of them."""
    director = runtime.current()
    with director.database.reader() as session:
        return [invitations.as_dict(row, name, director.clock()) for row, name in invitations.listing(session)]


@endpoint.endpoint(
    blueprint, "/operator/withdraw_invitation", auth="operator", params=[params.Param("id", params.Integer(minimum=1), help="Which one.")]
)
def withdraw_invitation(*, id: int) -> dict[str, Any]:
    """Make an invitation useless that was not used yet."""
    with runtime.current().database.session() as session:
        invitations.withdraw(session, id)
    return {}


# Clouds and machines


@endpoint.endpoint(blueprint, "/operator/clouds", methods=["GET"], auth="operator")
def list_clouds() -> list[dict[str, Any]]:
    """The configured clouds with their drivers, and how many VMs and volumes are on record there. No cloud is asked."""
    director = runtime.current()
    counts: list[dict[str, int]] = []
    with director.database.reader() as session:
        for table in (models.Resource, models.Volume):
            query = sa.select(table.cloud, sa.func.count()).group_by(table.cloud)
            counts.append({name: int(number) for name, number in session.execute(query)})
    vms, volumes = counts
    return [
        {
            "name": node.outer_cloud(name),
            "driver": director.config.sections.get(name, {}).get("driver", "").lower(),
            "vms": vms.get(name, 0),
            "volumes": volumes.get(name, 0),
        }
        for name in director.config.cloud_names
    ]


@endpoint.endpoint(
    blueprint,
    "/operator/check_cloud",
    auth="operator",
    params=[params.Param("cloud", params.Text(max_length=64), "default", help="Its name.")],
)
def check_cloud(*, cloud: str) -> dict[str, Any]:
    """Ask a cloud whether it answers and its configuration can be used; gives up after 20 seconds."""
    try:
        found = component.current().parts.cloud(wanted.cloud_name(cloud))
    except errors.ConfigurationError as error:
        return dataclasses.asdict(cloudcheck.Verdict(False, str(error), 0.0))
    return dataclasses.asdict(cloudcheck.check(found))


@endpoint.endpoint(
    blueprint,
    "/operator/machines",
    methods=["GET"],
    auth="operator",
    params=[
        params.Param("limit", params.Integer(minimum=1, maximum=5000), 1000, help="How many, newest first."),
        params.Param("before", params.Integer(minimum=1), None, help="Only those with a smaller `rid`: the next page."),
    ],
)
def list_machines(*, limit: int, before: int | None) -> list[dict[str, Any]]:
    """The VMs of all users, newest first: as /list_resources, with `owner`, `age` in seconds, `cost` in credits so far, `request_key`."""
    director = runtime.current()
    vm, entry = models.Resource, models.LedgerEntry
    hours = sa.select(sa.func.count()).where(entry.rid == vm.rid).scalar_subquery()
    cost = sa.select(sa.func.coalesce(-sa.func.sum(entry.amount), 0)).where(entry.rid == vm.rid).scalar_subquery()
    query = (
        sa.select(vm, models.Application.name, models.User.username, hours, cost)
        .join(models.Application, models.Application.aid == vm.app_id)
        .join(models.User, models.User.uid == models.Application.user_id)
        .order_by(vm.rid.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(vm.rid < before)
    now = director.clock()
    with director.database.reader() as session:
        return [
            {
                **clouds_api.as_dict(row, name, charged),
                "owner": owner,
                "age": max(0, round((now - row.created).total_seconds())),
                "cost": int(paid),
                "request_key": row.request_key,
            }
            for row, name, owner, charged, paid in session.execute(query)
        ]


@endpoint.endpoint(
    blueprint,
    "/operator/findings",
    methods=["GET"],
    auth="operator",
    params=[params.Param("limit", params.Integer(minimum=1, maximum=findings.KEPT), 100, help="How many, newest first.")],
)
def list_findings(*, limit: int) -> list[dict[str, Any]]:
    """What the sweeper found and did lately, newest first. Times are in UTC."""
    with runtime.current().database.reader() as session:
        return findings.listing(session, limit)
