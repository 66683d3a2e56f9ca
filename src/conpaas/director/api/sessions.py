"""Endpoints by which a person signs in and out of a front-end, and looks after the certificates of the account."""

from __future__ import annotations

from typing import Any

import flask

from conpaas.core import params
from conpaas.director import auth, ca, certificates, credits, endpoint, runtime, users
from conpaas.director.api import certificates as certificates_api

blueprint = flask.Blueprint("sessions", __name__)

HOURS = params.Param(
    "hours",
    params.Integer(minimum=1, maximum=ca.SESSION_HOURS),
    ca.SESSION_HOURS,
    help="How long the certificate is valid.",
)


def as_reply(begun: certificates.Session) -> dict[str, Any]:
    """What everybody gets who signs in, by whatever proof."""
    director = runtime.current()
    user = begun.user
    with director.database.reader() as session:
        profile = users.as_dict(user, credits.balance(session, user.uid))
    return {
        "certificate": begun.certificate,
        "ca": director.authority.ca_pem,
        "user": {**profile, "role": user.role, "operator": user.role == "operator"},
        "expires": begun.expires.isoformat(),
    }


@endpoint.endpoint(blueprint, "/session_certificate", auth="password", params=[certificates_api.CSR, HOURS], file_fields=["csr"])
def session_certificate(*, csr: str, hours: int, caller: auth.Caller) -> dict[str, Any]:
    """A certificate of the user for a key that stays with the caller: `certificate` and `ca` in PEM, the `user`, and when it `expires`.

    Of the signing request only the key counts.
    """
    return as_reply(certificates.begin_session(runtime.current(), caller, csr, hours))


@endpoint.endpoint(blueprint, "/session_end", auth="user")
def session_end(caller: auth.Caller) -> dict[str, Any]:
    """Refuse, from now on, the certificate with which this is called."""
    director = runtime.current()
    assert caller.peer is not None
    with director.database.session() as session:
        certificates.end_session(session, caller.peer, director.clock())
    return {}


@endpoint.endpoint(blueprint, "/callback/revoked_certificates", auth="manager", disabled_too=True)
def revoked_certificates(caller: auth.Caller) -> dict[str, list[str]]:
    """The serial numbers of the certificates of the calling manager's user that were revoked before their end.

    Managers ask for them now and then, and refuse who shows one; also while the account is disabled.
    """
    director = runtime.current()
    assert caller.uid is not None
    with director.database.reader() as session:
        return {"serials": certificates.revoked(session, caller.uid, director.clock())}


@endpoint.endpoint(blueprint, "/certificates", methods=["GET"], auth="user")
def list_certificates(caller: auth.Caller) -> list[dict[str, Any]]:
    """The calling user's certificates that have not ended, newest first; `current` is the one that is calling. Times are in UTC."""
    assert caller.uid is not None
    assert caller.peer is not None
    with runtime.current().database.reader() as session:
        found = certificates.listing(session, caller.uid)
    return [
        {
            "serial": row.serial,
            "role": row.role,
            "issued": row.issued.isoformat(),
            "expires": row.expires.isoformat(),
            "revoked": row.revoked.isoformat() if row.revoked else None,
            "current": row.serial == caller.peer.serial,
        }
        for row in found
    ]


@endpoint.endpoint(
    blueprint,
    "/revoke_own_certificate",
    auth="user",
    params=[params.Param("serial", params.Text(max_length=64, non_empty=True), help="In hexadecimal, as /certificates tells it.")],
)
def revoke_own_certificate(*, serial: str, caller: auth.Caller) -> dict[str, Any]:
    """Refuse one of the calling user's own certificates from now on."""
    director = runtime.current()
    assert caller.uid is not None
    with director.database.session() as session:
        certificates.revoke_own(session, caller.uid, serial, director.clock())
    return {}
