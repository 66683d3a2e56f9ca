"""Who is calling, and whether an endpoint is for them.

Every endpoint names one kind of caller. A certificate counts only with its role: an agent's certificate, which tenant code
can read, opens nothing that belongs to users or managers.

| kind | passes |
|---|---|
| `none` | anybody |
| `password` | `username` and `password` in the body of a POST |
| `user` | a certificate of role `user` whose UID exists and is active |
| `manager` | a certificate of role `manager` whose application exists and belongs to its UID |
| `operator` | as `user`, where the user is an operator of this Director |
"""

from __future__ import annotations

import dataclasses
from typing import Any

from sqlalchemy import orm

from conpaas.core.https import identity
from conpaas.director import models

KINDS = ("none", "password", "user", "manager", "operator")
CERTIFICATE_ROLES = {"user": identity.ROLE_USER, "operator": identity.ROLE_USER, "manager": identity.ROLE_MANAGER}


@dataclasses.dataclass(frozen=True)
class Caller:
    """An authenticated caller. `uid` is None only for kind `none`; `aid` is the application of a manager.

    `password_hash` is the stored one that a password was found to fit: what is given for it must not outlive it.
    """

    peer: identity.PeerIdentity | None
    address: str
    uid: int | None = None
    username: str = ""
    operator: bool = False
    aid: int | None = None
    password_hash: str | None = dataclasses.field(default=None, repr=False)

    @property
    def trusted_relay(self) -> bool:
        """Whether this is the front-end's own certificate, which speaks for many people behind one address."""
        return self.peer is not None and self.peer.role == identity.ROLE_FRONTEND

    @property
    def label(self) -> str:
        """How log lines and operation records name the caller."""
        if self.aid is not None:
            return f"manager of application {self.aid}"
        return f"user {self.username}" if self.uid is not None else f"{self.address}"


class Refused(Exception):
    """A caller is turned away: `body` is the reply (a str is sent as text, anything else as JSON)."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(str(body))
        self.status = status
        self.body = body


def _refuse_text(what: str) -> Refused:
    return Refused(401, f"cert_required: {what}")


def _check_certificate(kind: str, peer: identity.PeerIdentity | None) -> identity.PeerIdentity:
    if peer is None:
        raise _refuse_text("no client certificate was presented")
    if peer.uid is None:
        raise _refuse_text("client certificate does NOT provide UID")
    if kind == "manager" and peer.aid is None:
        raise _refuse_text("client certificate does NOT provide serviceLocator")
    wanted = CERTIFICATE_ROLES[kind]
    if peer.role != wanted:
        raise Refused(403, {"error": f"A certificate of role '{peer.role}' may not do this; it takes one of role '{wanted}'."})
    return peer


def authorize(session: orm.Session, kind: str, peer: identity.PeerIdentity | None, address: str, *, disabled_too: bool = False) -> Caller:
    """The caller behind a certificate, for the kinds `user`, `manager` and `operator`; with `disabled_too`, of a disabled account as well.

    Raises Refused. Replies are classic: 401 and a text when the certificate lacks something, 200 and `false` when what it names is unknown.
    """
    peer = _check_certificate(kind, peer)
    record = session.get(models.Certificate, peer.serial)
    if record is not None and record.revoked is not None:
        raise _refuse_text("the client certificate was revoked; get a new one with 'cps-user get_certificate'")
    user = session.get(models.User, peer.uid)
    if user is None:
        raise Refused(200, False)
    if not user.active and not disabled_too:
        raise Refused(200, {"error": f"The account '{user.username}' is disabled."})
    aid = None
    if kind == "manager":
        application = session.get(models.Application, peer.aid)
        if application is None or application.user_id != user.uid:
            raise Refused(200, False)
        aid = application.aid
    operator = user.role == "operator"
    if kind == "operator" and not operator:
        raise Refused(403, {"error": "Only an operator of this Director may do this."})
    return Caller(peer=peer, address=address, uid=user.uid, username=user.username, operator=operator, aid=aid)
