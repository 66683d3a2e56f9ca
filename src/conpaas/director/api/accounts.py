"""Endpoints with which people look after their accounts: profile, credits, quotas, and confirming an e-mail address."""

from __future__ import annotations

from typing import Any

import flask
import sqlalchemy as sa

from conpaas.core import params
from conpaas.director import auth, credits, endpoint, models, outlook, quotas, registration, runtime, users

blueprint = flask.Blueprint("accounts", __name__)

_WORDS = params.Text(max_length=1024)


@endpoint.endpoint(
    blueprint,
    "/update_profile",
    auth="user",
    params=[
        params.Param("fname", _WORDS, None, help="First name."),
        params.Param("lname", _WORDS, None, help="Last name."),
        params.Param("email", _WORDS, None, help="E-mail address, one account each."),
        params.Param("affiliation", _WORDS, None),
    ],
)
def update_profile(
    *, fname: str | None, lname: str | None, email: str | None, affiliation: str | None, caller: auth.Caller
) -> dict[str, Any]:
    """Change the calling user's account; what is left out stays. Answers as /user_config does.

    `unconfirmed_email` is a new address that counts once it is confirmed.
    """
    assert caller.uid is not None
    director = runtime.current()
    with director.database.reader() as session:
        user = session.get_one(models.User, caller.uid)
    given = {"fname": fname, "lname": lname, "email": email, "affiliation": affiliation}
    wanted = {name: getattr(user, name) if text is None else text for name, text in given.items()}
    pending = users.update_profile(director, caller.uid, **wanted)
    with director.database.reader() as session:
        profile = users.as_dict(session.get_one(models.User, caller.uid), credits.balance(session, caller.uid))
    return {**profile, "unconfirmed_email": pending or None}


@endpoint.endpoint(
    blueprint,
    "/credits",
    methods=["GET"],
    auth="user",
    params=[
        params.Param("limit", params.Integer(minimum=1, maximum=500), default=50, help="How many entries, newest first."),
        params.Param("before", params.Integer(minimum=1), default=None, help="Only entries with a smaller id: the next page."),
    ],
)
def credit_page(*, limit: int, before: int | None, caller: auth.Caller) -> dict[str, Any]:
    """The calling user's credits, what the VMs that run now cost per hour, how many hours that lasts, and the ledger, newest first.

    `hours_left` is null while nothing runs; `warning` is a sentence, or null. Times are in UTC.
    """
    assert caller.uid is not None
    director = runtime.current()
    entry = models.LedgerEntry
    query = sa.select(entry).where(entry.uid == caller.uid).order_by(entry.id.desc()).limit(limit)
    if before is not None:
        query = query.where(entry.id < before)
    with director.database.reader() as session:
        now = outlook.of(session, caller.uid, director.clock())
        entries = session.scalars(query).all()
    return {
        "balance": now.balance,
        "per_hour": now.per_hour,
        "hours_left": None if now.hours_left is None else round(now.hours_left, 2),
        "warning": now.warning(director.config.credit_warning_hours),
        "entries": [
            {"id": row.id, "at": row.at.isoformat(), "amount": row.amount, "kind": row.kind, "vm": row.vm, "note": row.note}
            for row in entries
        ],
    }


@endpoint.endpoint(blueprint, "/quota", methods=["GET"], auth="user")
def quota(caller: auth.Caller) -> dict[str, dict[str, int | None]]:
    """How many VMs, applications and MB of volumes the calling user has, and may have (`limit`; null: no limit)."""
    assert caller.uid is not None
    with runtime.current().database.reader() as session:
        return quotas.as_dict(session, caller.uid)


@endpoint.endpoint(
    blueprint,
    "/confirm_email",
    auth="none",
    params=[params.Param("token", params.Text(max_length=256, secret=True, non_empty=True), help="The token of the message.")],
)
def confirm_email(*, token: str) -> dict[str, Any]:
    """Confirm an e-mail address; a new account works from now on."""
    return {"username": registration.confirm(runtime.current(), token).username}


@endpoint.endpoint(blueprint, "/resend_confirmation", auth="none", params=[params.Param("username", _WORDS, help="Name of the account.")])
def resend_confirmation(*, username: str, caller: auth.Caller) -> dict[str, Any]:
    """Send the message that confirms a new account's address once more. The answer is the same whether there is such an account or not."""
    registration.resend(runtime.current(), username, caller.address)
    return {}
