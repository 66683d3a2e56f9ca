"""Confirming e-mail addresses, and forgetting accounts that nobody confirmed."""

from __future__ import annotations

import datetime
import logging

import sqlalchemy as sa
from sqlalchemy import exc, orm

from conpaas.core import errors
from conpaas.director import models, notices, runtime, throttle, tokens, users

log = logging.getLogger(__name__)

UNCONFIRMED_LIFETIME = datetime.timedelta(days=7)
RESENDS_PER_HOUR = 5
_NOT_VALID = "The link is not valid, or no longer."


def require_permission(director: runtime.Director, invitation: str) -> None:
    """Raise Forbidden unless people may register themselves here. Whether an invitation is good, `users.create` finds out."""
    mode = director.config.registration
    if mode == "closed":
        raise errors.Forbidden("This Director does not let people register themselves.", hint="Ask its operator for an account.")
    if mode == "invitation" and not invitation:
        raise errors.Forbidden("This Director takes new accounts by invitation only.", hint="Ask its operator for an invitation.")


def confirm(director: runtime.Director, token: str) -> models.User:
    """Take the address that a token stands for as its account's; a new account works from now on. Raises Forbidden."""
    now = director.clock()
    try:
        with director.database.session() as session:
            row = session.get(models.Confirmation, tokens.digest(token), with_for_update=True)
            if row is None or row.expires <= now:
                raise errors.Forbidden(_NOT_VALID, hint="Have another message sent, and follow the link in the newest one.")
            user = session.get_one(models.User, row.uid, with_for_update=True)
            users.check_address_free(session, row.email, user.uid)
            user.email, user.email_key = row.email, users.fold(row.email)
            if user.unconfirmed:
                user.unconfirmed, user.active = False, True
            session.execute(sa.delete(models.Confirmation).where(models.Confirmation.uid == user.uid))
    except exc.IntegrityError as error:
        raise errors.InvalidArgument("This e-mail address belongs to another account by now.") from error
    log.info("the user %s has confirmed the address", user.username)
    return user


def resend(director: runtime.Director, username: str, address: str) -> None:
    """Have another message sent to an account that is not confirmed; for any other nothing happens, and the caller cannot tell."""
    now = director.clock()
    key = throttle.register_key("resend", users.fold(username)[:160])
    with director.database.session() as session:
        allowed = throttle.count(session, throttle.register_key("resends", address), 4 * RESENDS_PER_HOUR, now.timestamp())
        allowed = throttle.count(session, key, RESENDS_PER_HOUR, now.timestamp()) and allowed
        user = users.find(session, username)
        if allowed and user is not None and user.unconfirmed:
            notices.add(session, user.uid, notices.CONFIRM, {"email": user.email}, now)


def prune(session: orm.Session, now: datetime.datetime) -> None:
    """Forget tokens that ended, and accounts that were never confirmed, so that their names are free again."""
    session.execute(sa.delete(models.Confirmation).where(models.Confirmation.expires <= now))
    stale = sa.and_(models.User.unconfirmed.is_(True), models.User.created < now - UNCONFIRMED_LIFETIME)
    for user in session.scalars(sa.select(models.User).where(stale).with_for_update().limit(100)).all():
        session.execute(sa.delete(models.LedgerEntry).where(models.LedgerEntry.uid == user.uid))
        session.execute(sa.delete(models.Application).where(models.Application.user_id == user.uid))
        session.execute(sa.delete(models.User).where(models.User.uid == user.uid))
        log.info("the account %s is forgotten: its address was never confirmed", user.username)
