"""Endpoints about accounts and credits."""

from __future__ import annotations

import re
from typing import Any

import flask

from conpaas.core import errors, params
from conpaas.director import auth, credits, endpoint, models, registration, runtime, throttle, users

blueprint = flask.Blueprint("users", __name__)

_PASSWORD = params.Text(max_length=1024, secret=True)
_WORDS = params.Text(max_length=1024)


def _opening_balance(text: str, most: int) -> int:
    """The credits that a new user asks for; without a number, the most that is given."""
    if not text.strip():
        return most
    if not re.fullmatch(r"\s*[+-]?\d{1,18}\s*", text, re.ASCII):
        raise errors.InvalidArgument(f"Required credit '{params.shown(text)}' is not a valid integer.")
    credit = int(text)
    if credit < 0:
        raise errors.InvalidArgument(f"Required credit {credit} cannot be a negative integer.")
    if credit > most:
        raise errors.InvalidArgument(f"Cannot allocate {credit} credit for a new user (max credit {most}).")
    return credit


@endpoint.endpoint(
    blueprint,
    "/new_user",
    auth="none",
    missing="Missing required field: '{name}'",
    params=[
        params.Param("username", _WORDS, help="Letters and digits of any script with . _ - @ + between them, at most 64."),
        params.Param("email", _WORDS, help="E-mail address, one account each."),
        params.Param("password", _PASSWORD, help="At least 8 characters."),
        params.Param("credit", _WORDS, "", help="Opening balance, at most the operator's MAX_CREDIT (which is also the default)."),
        params.Param("fname", _WORDS, "", help="First name."),
        params.Param("lname", _WORDS, "", help="Last name."),
        params.Param("affiliation", _WORDS, ""),
        params.Param("invitation", params.Text(max_length=256, secret=True), "", help="Token of an invitation; its credit counts then."),
        params.Param("uuid", _WORDS, "", help="Ignored."),
        params.Param("openid", _WORDS, "", help="Ignored."),
    ],
)
def new_user(
    *,
    username: str,
    email: str,
    password: str,
    credit: str,
    fname: str,
    lname: str,
    affiliation: str,
    invitation: str,
    caller: auth.Caller,
    **_: str,
) -> dict[str, Any]:
    """Create an account with its first application, where the operator lets people register.

    With `unconfirmed` in the reply, it works once its address is confirmed.
    """
    director = runtime.current()
    registration.require_permission(director, invitation)
    wanted = users.NewUser(
        username=users.check_username(username),
        email=users.check_email(email),
        password=password,
        fname=fname,
        lname=lname,
        affiliation=affiliation,
        credit=_opening_balance(credit, director.config.max_credit),
        invitation=invitation,
        confirm=director.config.confirm_email,
    )
    if not caller.trusted_relay:
        with director.database.session() as session:
            limit = director.config.registrations_per_hour
            throttle.count_registration(session, caller.address, limit, director.clock().timestamp())
    user = users.create(director, wanted)
    with director.database.reader() as session:
        left = credits.balance(session, user.uid)
    return {**users.as_dict(user, left), "password": "", **({"unconfirmed": True} if user.unconfirmed else {})}


@endpoint.endpoint(
    blueprint,
    "/login",
    auth="password",
    refusal=False,
    params=[params.Param("uuid", _WORDS, "", help="Ignored."), params.Param("openid", _WORDS, "", help="Ignored.")],
)
def login(*, caller: auth.Caller, **_: str) -> dict[str, Any]:
    """The user behind a name and a password, or `false`. The reply's `password` is the MD5 of what was just sent."""
    assert caller.uid is not None
    return {**_profile(caller.uid), "password": users.echo_of(flask.request.form["password"])}


@endpoint.endpoint(blueprint, "/user_config", methods=["GET", "POST"], auth="user")
def user_config(caller: auth.Caller) -> dict[str, Any]:
    """The calling user's account; `has_password` is false where people sign in through an identity provider only."""
    assert caller.uid is not None
    with runtime.current().database.reader() as session:
        locked = session.get_one(models.User, caller.uid).password == users.LOCKED
    return {**_profile(caller.uid), "has_password": not locked}


@endpoint.endpoint(blueprint, "/user_credit", methods=["GET", "POST"], auth="user")
def user_credit(caller: auth.Caller) -> int:
    """The calling user's credits."""
    return _credit(caller)


@endpoint.endpoint(
    blueprint, "/change_password", auth="password", params=[params.Param("new_password", _PASSWORD, help="At least 8 characters.")]
)
def change_password(*, new_password: str, caller: auth.Caller) -> dict[str, Any]:
    """Replace the password. Certificates fetched until now stop being accepted by the Director."""
    assert caller.uid is not None
    users.set_password(runtime.current(), caller.uid, new_password)
    return {}


@endpoint.endpoint(blueprint, "/credit", methods=["GET", "POST"], auth="manager")
def credit(caller: auth.Caller) -> dict[str, int]:
    """The credits of the user who owns the calling manager's application."""
    return {"credit": _credit(caller)}


@endpoint.endpoint(
    blueprint,
    "/callback/decrementUserCredit.php",
    auth="manager",
    params=[
        params.Param("aid", params.Integer(minimum=1), None, help="The manager's own application; may be left out."),
        params.Param("decrement", params.Integer(minimum=1, maximum=10**6), 1, help="Credits to take."),
    ],
)
def decrement_user_credit(*, aid: int | None, decrement: int, caller: auth.Caller) -> dict[str, bool]:
    """Take credits from the owner of the calling manager's application; `{"error": true}` and nothing taken if there are too few."""
    assert caller.uid is not None
    if aid is not None and aid != caller.aid:
        raise errors.Forbidden("A manager may only spend credits for its own application.")
    director = runtime.current()
    with director.database.session() as session:
        taken = credits.take(session, caller.uid, decrement, director.clock(), f"taken by {caller.label}")
    return {"error": not taken}


def _credit(caller: auth.Caller) -> int:
    assert caller.uid is not None
    with runtime.current().database.reader() as session:
        return credits.balance(session, caller.uid)


def _profile(uid: int) -> dict[str, Any]:
    with runtime.current().database.reader() as session:
        user = session.get_one(models.User, uid)
        return users.as_dict(user, credits.balance(session, uid))
