"""Endpoints with which people sign in through an identity provider, and link one to their accounts."""

from __future__ import annotations

import dataclasses
from typing import Any

import flask

from conpaas.core import params
from conpaas.director import auth, certificates, endpoint, runtime, users
from conpaas.director.api import certificates as certificates_api
from conpaas.director.api import sessions
from conpaas.director.oidc import logins

blueprint = flask.Blueprint("oidc", __name__)

_REDIRECT = params.Param("redirect_uri", params.Text(max_length=2000, non_empty=True), help="Where the provider sends the browser back to.")
_STATE = params.Param(
    "state", params.Text(max_length=256, secret=True, non_empty=True), help="As /oidc/begin answered and the provider repeated."
)
_CODE = params.Param("code", params.Text(max_length=4096, secret=True, non_empty=True), help="What the provider sent back.")


@endpoint.endpoint(
    blueprint,
    "/oidc/begin",
    auth="none",
    params=[params.Param("name", params.Text(max_length=64), help="Name of the provider, as /registration tells."), _REDIRECT],
)
def begin(*, name: str, redirect_uri: str) -> dict[str, Any]:
    """Begin to sign in through an identity provider: the `url` to send a browser to, and the `state` that comes back with it.

    The caller binds the state to that browser (a cookie), and finishes only what that browser has begun. It is good once, for ten minutes.
    """
    url, state = logins.begin(runtime.current(), name, redirect_uri)
    return {"url": url, "state": state}


@endpoint.endpoint(
    blueprint,
    "/oidc/finish",
    auth="none",
    params=[
        _STATE,
        _CODE,
        _REDIRECT,
        certificates_api.CSR,
        sessions.HOURS,
        params.Param("invitation", params.Text(max_length=256, secret=True), "", help="For a new account, where one is needed."),
    ],
    file_fields=["csr"],
)
def finish(*, state: str, code: str, redirect_uri: str, csr: str, hours: int, invitation: str, caller: auth.Caller) -> dict[str, Any]:
    """Finish signing in; answers as /session_certificate. Somebody unknown gets an account, where people may register.

    An account that has the same e-mail address is not taken over: its owner signs in to it and calls /oidc/link.
    """
    director = runtime.current()
    certificates.check_request(csr)
    person = logins.identify(director, state, code, redirect_uri)
    proven = dataclasses.replace(caller, uid=logins.account_of(director, person, invitation))
    return sessions.as_reply(certificates.begin_session(director, proven, csr, hours))


@endpoint.endpoint(blueprint, "/oidc/link", auth="user", params=[_STATE, _CODE, _REDIRECT])
def link(*, state: str, code: str, redirect_uri: str, caller: auth.Caller) -> dict[str, Any]:
    """Let the identity that comes back from a provider sign in to the calling user's account from now on."""
    assert caller.uid is not None
    director = runtime.current()
    logins.link(director, caller.uid, logins.identify(director, state, code, redirect_uri))
    return {}


@endpoint.endpoint(blueprint, "/oidc/identities", methods=["GET"], auth="user")
def identities(caller: auth.Caller) -> list[dict[str, Any]]:
    """The identities that sign in to the calling user's account."""
    assert caller.uid is not None
    return logins.listing(runtime.current(), caller.uid)


@endpoint.endpoint(
    blueprint, "/oidc/unlink", auth="user", params=[params.Param("id", params.Integer(minimum=1), help="As /oidc/identities tells.")]
)
def unlink(*, id: int, caller: auth.Caller) -> dict[str, Any]:
    """Let an identity no longer sign in to the calling user's account. The last one stays as long as the account has no password."""
    assert caller.uid is not None
    logins.unlink(runtime.current(), caller.uid, id)
    return {}


@endpoint.endpoint(
    blueprint,
    "/set_first_password",
    auth="user",
    params=[params.Param("new_password", params.Text(max_length=1024, secret=True), help="At least 8 characters.")],
)
def set_first_password(*, new_password: str, caller: auth.Caller) -> dict[str, Any]:
    """Give an account a password that has none, as it was made through an identity provider. It then works with the commands, too."""
    assert caller.uid is not None
    users.set_first_password(runtime.current(), caller.uid, new_password)
    return {}
