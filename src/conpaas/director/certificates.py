"""The certificates of users: those of sessions, which ones there are, and refusing one before its end."""

from __future__ import annotations

import dataclasses
import datetime

import sqlalchemy as sa
from sqlalchemy import orm

from conpaas.core import errors
from conpaas.core.https import identity, x509
from conpaas.director import auth, ca, models, runtime, throttle, users

LISTED = 500
REVOKED_LISTED = 5000
KEPT_AFTER_END = datetime.timedelta(days=30)


@dataclasses.dataclass(frozen=True)
class Session:
    """What somebody who signed in gets: a certificate for the key of the request, and who it speaks for."""

    certificate: str
    expires: datetime.datetime
    user: models.User


def normalised(serial: str) -> str:
    """A serial number as it is stored: hexadecimal in lower case, without colons or leading zeros."""
    return serial.strip().lower().replace(":", "").lstrip("0")


def check_request(csr: str) -> None:
    """Raise InvalidArgument unless this is a signing request that a certificate can be made from."""
    x509.csr_public_key(csr)


def begin_session(director: runtime.Director, caller: auth.Caller, csr: str, hours: int = ca.SESSION_HOURS) -> Session:
    """Sign a request of somebody who has just proved to be `caller`. Raises Forbidden for a user who begins too many sessions."""
    assert caller.uid is not None
    check_request(csr)
    with director.database.session() as session:
        throttle.count_session(session, caller.uid, director.clock().timestamp())
        user = users.still_proven(session, caller)
        pem = director.authority.issue_session(session, user, csr, hours)
    return Session(pem, x509.load_certificate(pem).not_valid_after_utc, user)


def listing(session: orm.Session, uid: int) -> list[models.Certificate]:
    """The certificates of a user that have not ended, newest first, at most LISTED."""
    row = models.Certificate
    mine = sa.and_(row.uid == uid, row.role == identity.ROLE_USER, row.expires > models.utcnow())
    return list(session.scalars(sa.select(row).where(mine).order_by(row.issued.desc(), row.serial).limit(LISTED)))


def revoked(session: orm.Session, uid: int, now: datetime.datetime) -> list[str]:
    """The serial numbers of a user's certificates that were revoked before their end, the newest REVOKED_LISTED of them."""
    row = models.Certificate
    mine = sa.and_(row.uid == uid, row.role == identity.ROLE_USER, row.revoked.is_not(None), row.expires > now)
    return list(session.scalars(sa.select(row.serial).where(mine).order_by(row.revoked.desc(), row.serial).limit(REVOKED_LISTED)))


def revoke_own(session: orm.Session, uid: int, serial: str, now: datetime.datetime) -> None:
    """Refuse one of a user's certificates from now on; harmless when repeated. Raises NotFound for any other."""
    record = session.get(models.Certificate, normalised(serial))
    if record is None or record.uid != uid or record.role != identity.ROLE_USER:
        raise errors.NotFound("You have no certificate with this serial number.")
    record.revoked = record.revoked or now


def end_session(session: orm.Session, peer: identity.PeerIdentity, now: datetime.datetime) -> None:
    """Refuse the certificate that is calling; also one that is not on record, as after a restored backup."""
    record = session.get(models.Certificate, peer.serial)
    if record is not None:
        record.revoked = record.revoked or now
        return
    ends = now + datetime.timedelta(days=ca.USER_DAYS)
    fields = {"serial": peer.serial, "role": peer.role, "uid": peer.uid, "aid": peer.aid, "fingerprint": peer.fingerprint}
    session.add(models.Certificate(**fields, issued=now, expires=ends, revoked=now))


def prune(session: orm.Session, now: datetime.datetime) -> None:
    """Forget users' certificates a while after their end, when nobody accepts them any more."""
    row = models.Certificate
    session.execute(sa.delete(row).where(row.role == identity.ROLE_USER, row.expires < now - KEPT_AFTER_END))
