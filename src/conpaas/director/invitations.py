"""Invitations: an operator's permission to make one account, known by a token that is shown once."""

from __future__ import annotations

import dataclasses
import datetime

import sqlalchemy as sa
from sqlalchemy import orm

from conpaas.core import errors
from conpaas.director import config, models, notify, tokens

LIFETIME_DAYS = 14
KEPT = datetime.timedelta(days=90)
LISTED = 500


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Whom to invite: with `email`, only an account of that address; `credit` is its opening balance; `days` until it ends."""

    email: str = ""
    credit: int = 0
    days: int = LIFETIME_DAYS


def invite(session: orm.Session, wanted: Wanted, invited_by: str, now: datetime.datetime) -> tuple[models.Invitation, str]:
    """A new invitation and its token, of which this is the only copy."""
    token = tokens.new()
    row = models.Invitation(
        token_hash=tokens.digest(token),
        email=wanted.email,
        credit=wanted.credit,
        invited_by=invited_by[:128],
        created=now,
        expires=now + datetime.timedelta(days=wanted.days),
    )
    session.add(row)
    session.flush()
    return row, token


def check(session: orm.Session, token: str, email: str, now: datetime.datetime) -> models.Invitation:
    """The invitation behind a token, locked until the transaction ends. Raises Forbidden unless it is good for this address."""
    row = session.scalar(sa.select(models.Invitation).where(models.Invitation.token_hash == tokens.digest(token)).with_for_update())
    if row is None or row.used is not None or row.expires <= now:
        raise errors.Forbidden("The invitation is not valid, or no longer.", hint="Ask the operator for another one.")
    if row.email and row.email.casefold() != email.casefold():
        raise errors.Forbidden("The invitation is for another e-mail address.", hint="Register with the address that was invited.")
    return row


def use(session: orm.Session, token: str, user: models.User, now: datetime.datetime) -> int:
    """Use an invitation up, in the transaction that makes the account; its credit is returned. Raises Forbidden as `check`."""
    row = check(session, token, user.email, now)
    row.used, row.uid = now, user.uid
    return row.credit


def listing(session: orm.Session) -> list[tuple[models.Invitation, str | None]]:
    """Invitations with the name of who used them, newest first, at most LISTED."""
    row = models.Invitation
    query = sa.select(row, models.User.username).outerjoin(models.User, models.User.uid == row.uid).order_by(row.id.desc()).limit(LISTED)
    return [(found, name) for found, name in session.execute(query)]


def withdraw(session: orm.Session, number: int) -> None:
    """Make an invitation useless. Raises NotFound, and WrongState for one that was used."""
    row = session.get(models.Invitation, number, with_for_update=True)
    if row is None:
        raise errors.NotFound(f"There is no invitation {number}.")
    if row.used is not None:
        raise errors.WrongState(f"Invitation {number} was used already.", hint="Disable the account that it made instead.")
    session.delete(row)


def as_dict(row: models.Invitation, username: str | None, now: datetime.datetime) -> dict[str, object]:
    """An invitation as the operator sees it; never with anything of its token."""
    state = "used" if row.used else "expired" if row.expires <= now else "open"
    return {
        "id": row.id,
        "email": row.email,
        "credit": row.credit,
        "state": state,
        "invited_by": row.invited_by,
        "created": row.created.isoformat(),
        "expires": row.expires.isoformat(),
        "used": row.used.isoformat() if row.used else None,
        "username": username,
    }


def prune(session: orm.Session, now: datetime.datetime) -> None:
    """Forget invitations that ended long ago."""
    session.execute(sa.delete(models.Invitation).where(models.Invitation.expires < now - KEPT))


def check_wanted(configuration: config.DirectorConfig, wanted: Wanted, by_mail: bool) -> None:
    """Raise WrongState for an invitation that nobody could use or, if it is to go by e-mail, that could not be sent."""
    if configuration.registration == "closed":
        raise errors.WrongState(
            "Nobody can register at this Director, invited or not.",
            hint="Set REGISTRATION = invitation, or make the account with 'cpsdirector user create'.",
        )
    if not by_mail:
        return
    if not wanted.email:
        raise errors.InvalidArgument("An invitation that is sent by e-mail needs an address.")
    if not configuration.sends_mail:
        raise errors.WrongState("This Director sends no e-mail.", hint="Make the invitation without, and pass its address on yourself.")


def mail(configuration: config.DirectorConfig, row: models.Invitation, token: str) -> None:
    """Send an invitation to whom it is for. It is sent once: whoever invites has the address as well. Raises OperationFailed."""
    how = url(configuration.pages_url, token) or f"cps-user create_free --invitation {token}"
    lines = [
        "Hello,",
        "you are invited to make an account at ConPaaS:",
        how,
        f"This works once, until {row.expires:%Y-%m-%d}."
        + (f" You begin with {row.credit} credits; a machine costs one for each hour." if row.credit else ""),
        "If you do not know why you get this, ignore the message.",
    ]
    notify.make(configuration)(row.email, "You are invited to ConPaaS", "\n\n".join(lines) + "\n")


def url(pages_url: str, token: str) -> str | None:
    """Where an invited person registers, if there is a front-end."""
    return f"{pages_url}/invitation/{token}" if pages_url else None
