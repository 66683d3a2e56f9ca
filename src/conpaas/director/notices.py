"""Messages to users: written down in the transaction that is their cause, sent by a background task, tried again when that fails.

A message is made when it is sent. One with a secret in it gets the secret then, so that none is ever stored.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import orm

from conpaas.core import errors
from conpaas.director import models, notify, runtime, tokens

log = logging.getLogger(__name__)

CREDITS_LOW: Final = "credits_low"
CREDITS_ENDED: Final = "credits_ended"
CONFIRM: Final = "confirm_email"
INTERVAL = 5.0
AT_ONCE = 50
ATTEMPTS = 7
FIRST_PAUSE = datetime.timedelta(minutes=1)
MAX_WAITING = 20
"""Unsent messages of one user: whoever makes more loses the newest."""
CONFIRMATION_LIFETIME = datetime.timedelta(days=3)


@dataclasses.dataclass(frozen=True)
class _Message:
    to: str
    subject: str
    text: str


def add(session: orm.Session, uid: int, kind: str, data: Mapping[str, Any], now: datetime.datetime) -> None:
    """Have a message sent once the caller's transaction is committed."""
    waiting = session.scalar(sa.select(sa.func.count()).select_from(models.Notice).where(models.Notice.uid == uid)) or 0
    if waiting >= MAX_WAITING:
        log.warning("a message %s to uid %s is dropped: %s others are waiting", kind, uid, waiting)
        return
    session.add(models.Notice(uid=uid, kind=kind, data=dict(data), created=now, due=now))


def send_due(director: runtime.Director) -> int:
    """One pass: send what is due; returns how many were sent. A process killed in between sends a message again, and loses none."""
    now = director.clock()
    with director.database.reader() as session:
        query = sa.select(models.Notice).where(models.Notice.due <= now).order_by(models.Notice.due, models.Notice.id).limit(AT_ONCE)
        waiting = session.scalars(query).all()
    if not waiting:
        return 0
    notifier = notify.make(director.config)
    return sum(_attempt(director, notifier, notice) for notice in waiting if not director.stopping.is_set())


def _attempt(director: runtime.Director, notifier: notify.Notifier, notice: models.Notice) -> bool:
    """Send one message; whatever is wrong with it, the others are sent, too."""
    try:
        return _send(director, notifier, notice)
    except Exception as error:
        log.exception("a message %s to uid %s cannot be made or sent", notice.kind, notice.uid)
        _postpone(director, notice, type(error).__name__)
        return False


def _send(director: runtime.Director, notifier: notify.Notifier, notice: models.Notice) -> bool:
    with director.database.session() as session:
        user = session.get(models.User, notice.uid)
        maker = _MAKERS.get(notice.kind)
        message = maker(director, session, user, notice.data) if user is not None and maker is not None else None
    if message is not None:
        try:
            notifier(message.to, message.subject, message.text)
        except errors.ConPaaSError as error:
            _postpone(director, notice, str(error))
            return False
    with director.database.session() as session:
        session.execute(sa.delete(models.Notice).where(models.Notice.id == notice.id))
    return message is not None


def _postpone(director: runtime.Director, notice: models.Notice, why: str) -> None:
    row = models.Notice
    with director.database.session() as session:
        if notice.attempts + 1 >= ATTEMPTS:
            session.execute(sa.delete(row).where(row.id == notice.id))
            log.error("a message %s to uid %s is given up: %s", notice.kind, notice.uid, why)
            return
        due = director.clock() + FIRST_PAUSE * 2**notice.attempts
        session.execute(sa.update(row).where(row.id == notice.id).values(attempts=notice.attempts + 1, due=due))
    log.warning("a message %s to uid %s could not be sent and is tried again: %s", notice.kind, notice.uid, why)


def _link(director: runtime.Director, path: str) -> str:
    return f"{director.config.pages_url}/{path}" if director.config.pages_url else ""


def _credits_low(director: runtime.Director, _session: orm.Session, user: models.User, data: Mapping[str, Any]) -> _Message:
    lines = [
        f"Your {data['balance']} credits last {data['hours']} more hours at {data['per_hour']} credits per hour.",
        "After that your services are stopped.",
        _link(director, "credits"),
    ]
    return _Message(user.email, "Your credits end soon", _letter(user, lines))


def _credits_ended(director: runtime.Director, _session: orm.Session, user: models.User, data: Mapping[str, Any]) -> _Message:
    hours = data["keep_hours"]
    kept = f"Their settings, code and kept disks stay for {hours} hours; add credits until then, and start them again."
    lines = ["Your credits are used up, and your services are being stopped.", kept if hours else "", _link(director, "credits")]
    return _Message(user.email, "Your credits are used up", _letter(user, lines))


def _confirm(director: runtime.Director, session: orm.Session, user: models.User, data: Mapping[str, Any]) -> _Message | None:
    """A fresh token with each message; the ones before stay good, as they may be the ones that arrive."""
    email = data["email"]
    if not user.unconfirmed and user.email == email:
        return None
    now = director.clock()
    token = tokens.new()
    expires = now + CONFIRMATION_LIFETIME
    session.add(models.Confirmation(token_hash=tokens.digest(token), uid=user.uid, email=email, expires=expires))
    how = _link(director, f"confirm/{token}") or f"cps-user confirm_email {token}"
    lines = ["Please confirm that this e-mail address is yours:", how, "If you did not ask for this, ignore the message."]
    return _Message(email, "Please confirm your e-mail address", _letter(user, lines))


def _letter(user: models.User, lines: list[str]) -> str:
    return "\n\n".join([f"Hello {user.fname or user.username},", *(line for line in lines if line)]) + "\n"


_Maker = Callable[[runtime.Director, orm.Session, models.User, Mapping[str, Any]], _Message | None]
_MAKERS: dict[str, _Maker] = {CREDITS_LOW: _credits_low, CREDITS_ENDED: _credits_ended, CONFIRM: _confirm}
