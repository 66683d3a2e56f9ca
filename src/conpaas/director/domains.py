"""Which service answers to which domain name: a name belongs to one service of the whole Director, to the first that claims it.

A claim hangs on the service's row, so that it goes with the service, or with its application, in the same transaction, whoever removes it.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from typing import Final

import sqlalchemy as sa
from sqlalchemy import orm

from conpaas.core import errors, params
from conpaas.director import db, models

_NAME: Final = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")


@dataclasses.dataclass(frozen=True)
class Claim:
    """A domain with the service that holds it and that service's owner."""

    name: str
    username: str
    app_id: int
    application: str
    service_id: int
    claimed: datetime.datetime


def normalised(name: str) -> str:
    """The form in which a name is unique: lower case, no final dot. Raises InvalidArgument for what is no domain name."""
    found = name.strip().lower().removesuffix(".")
    if not _NAME.match(found):
        raise errors.InvalidArgument(f"A domain must be a full name such as www.example.org, got {params.shown(name)}.")
    return found


def claim(session: orm.Session, aid: int, sid: int, name: str, now: datetime.datetime) -> None:
    """Note that a service answers to a name; its own already is fine. Raises InvalidArgument without telling whose it is instead."""
    name = normalised(name)
    service = session.scalar(sa.select(models.Service).where(models.Service.application_id == aid, models.Service.sid == sid))
    if service is None:
        raise errors.NotFound(f"Application {aid} has no service {sid} on record.", hint="Try again when the service has been added.")
    if db.insert_if_absent(session, models.Domain(name=name, service_rec=service.rec_id, claimed=now)):
        return
    holder = session.scalar(sa.select(models.Service).join(models.Domain).where(models.Domain.name == name))
    if holder is None:
        raise errors.WrongState(f"The domain '{name}' was given up this moment.", hint="Try again.")
    if holder.application_id != aid:
        raise errors.InvalidArgument(
            f"The domain '{name}' is in use by another application; choose another name, or ask the operator if it is yours."
        )
    if holder.sid != sid:
        raise errors.InvalidArgument(f"The domain '{name}' is in use by service {holder.sid} of this application; remove it there first.")


def release(session: orm.Session, aid: int, sid: int, name: str) -> None:
    """Forget that a service answers to a name; not its own, or nobody's, is fine and changes nothing."""
    own = sa.select(models.Service.rec_id).where(models.Service.application_id == aid, models.Service.sid == sid).scalar_subquery()
    session.execute(sa.delete(models.Domain).where(models.Domain.name == normalised(name), models.Domain.service_rec == own))


def listing(session: orm.Session) -> list[Claim]:
    """All claims, by name."""
    query = (
        sa.select(models.Domain, models.Service, models.Application, models.User)
        .join(models.Service, models.Service.rec_id == models.Domain.service_rec)
        .join(models.Application, models.Application.aid == models.Service.application_id)
        .join(models.User, models.User.uid == models.Application.user_id)
        .order_by(models.Domain.name)
    )
    return [
        Claim(domain.name, user.username, application.aid, application.name, service.sid, domain.claimed)
        for domain, service, application, user in session.execute(query)
    ]


def withdraw(session: orm.Session, name: str) -> Claim:
    """Take a name from whoever holds it, as its operator may. Raises NotFound if nobody does."""
    name = normalised(name)
    found = next((one for one in listing(session) if one.name == name), None)
    if found is None:
        raise errors.NotFound(f"The domain '{name}' is not in use.")
    session.execute(sa.delete(models.Domain).where(models.Domain.name == name))
    return found
