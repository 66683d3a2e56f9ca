"""Accounts: creating them, proving who one is, changing and disabling them. Used by the API and by `cpsdirector user`."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import re
import unicodedata
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc, orm

from conpaas.core import errors
from conpaas.director import auth, credits, models, passwords, runtime, throttle

log = logging.getLogger(__name__)

MAX_USERNAME = 64  # also the longest common name of a certificate
MAX_EMAIL = 254
MAX_NAME = 256
FIRST_APPLICATION = "New Application"
LOGIN_FAILED = "User authentication failed"
# A user's name becomes the common name of a certificate; these common names mean something to classic peers.
RESERVED_NAMES = frozenset({"ca", "conpaas", "director", "frontend", "manager", "agent"})
_NAME_EXTRAS = frozenset("._-@+")
_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9-]{1,63})*")


@dataclasses.dataclass(frozen=True)
class NewUser:
    """What somebody asks for when registering; `credit` is the opening balance."""

    username: str
    email: str
    password: str = dataclasses.field(repr=False)
    fname: str = ""
    lname: str = ""
    affiliation: str = ""
    credit: int = 0
    role: str = "user"


def fold(name: str) -> str:
    """The form of a name that must be unique: `Alice` and `alice` are one person."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def check_username(name: str) -> str:
    """The normalized name. Raises InvalidArgument unless it is letters and digits of any script with `. _ - @ +` between them."""
    name = unicodedata.normalize("NFC", name.strip())
    if not 1 <= len(name) <= MAX_USERNAME:
        raise errors.InvalidArgument(f"A user name has 1 to {MAX_USERNAME} characters.")
    kinds = [unicodedata.category(letter)[0] for letter in name]
    allowed = all(kind in "LMN" or letter in _NAME_EXTRAS for kind, letter in zip(kinds, name, strict=True))
    if not allowed or kinds[0] not in "LN":
        raise errors.InvalidArgument("A user name starts with a letter or digit and continues with letters, digits and the signs . _ - @ +")
    if fold(name) in RESERVED_NAMES:
        raise errors.InvalidArgument(f"The user name '{name}' is reserved.")
    return name


def check_email(email: str) -> str:
    """The address without blanks around it; raises InvalidArgument."""
    email = email.strip()
    if len(email) > MAX_EMAIL or not _EMAIL.fullmatch(email):
        raise errors.InvalidArgument("The e-mail address is not valid.")
    return email


def _check_text(what: str, text: str) -> str:
    text = unicodedata.normalize("NFC", text.strip())
    if len(text) > MAX_NAME:
        raise errors.InvalidArgument(f"The {what} is longer than {MAX_NAME} characters.")
    if any(unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"} for letter in text):
        raise errors.InvalidArgument(f"The {what} holds control characters.")
    return text


def create(director: runtime.Director, wanted: NewUser) -> models.User:
    """Create an account with its opening balance and its first application, all or nothing.

    Raises InvalidArgument for what cannot be, with the classic texts where a name or address is taken.
    """
    username, email = check_username(wanted.username), check_email(wanted.email)
    passwords.check_new(wanted.password)
    with director.database.reader() as session:  # refuse what is taken before the work of hashing
        _refuse_taken(session, username, email)
    now = director.clock()
    user = models.User(
        username=username,
        username_key=fold(username),
        email=email,
        email_key=fold(email),
        fname=_check_text("first name", wanted.fname),
        lname=_check_text("last name", wanted.lname),
        affiliation=_check_text("affiliation", wanted.affiliation),
        password=passwords.make_hash(wanted.password),
        created=now,
        role=wanted.role,
    )
    try:
        with director.database.session() as session:
            _refuse_taken(session, username, email)
            session.add(user)
            session.flush()
            credits.grant(session, user.uid, wanted.credit, now)
            session.add(models.Application(name=FIRST_APPLICATION, user_id=user.uid, created=now))
    except exc.IntegrityError as error:
        raise errors.InvalidArgument(f"Username '{username}' is already taken") from error
    log.info("created the user %s with uid %s and %s credits", username, user.uid, wanted.credit)
    return user


def _refuse_taken(session: orm.Session, username: str, email: str) -> None:
    if find(session, username) is not None:
        raise errors.InvalidArgument(f"Username '{username}' is already taken")
    if session.scalar(sa.select(models.User.uid).where(models.User.email_key == fold(email))) is not None:
        raise errors.InvalidArgument(f"E-mail '{email}' is already registered")


def find(session: orm.Session, username: str) -> models.User | None:
    """The account of that name, in whatever case it is written."""
    return session.scalar(sa.select(models.User).where(models.User.username_key == fold(username)[:160]))


def get(session: orm.Session, username: str) -> models.User:
    """As `find`, but raises NotFound."""
    user = find(session, username)
    if user is None:
        raise errors.NotFound(f"Unknown user '{username}'", hint="'cpsdirector user list' names all users.")
    return user


def authenticate(director: runtime.Director, username: str, password: str, caller: auth.Caller) -> models.User:
    """The active user of that name and password. Raises Unauthenticated, also while guessing is being slowed down.

    Takes the same time whether the name exists or not. The text never tells which of the two was wrong.
    """
    if not username.strip() or not password or username == "<none>":
        raise errors.Unauthenticated(LOGIN_FAILED)
    now = director.clock().timestamp()
    buckets = throttle.login_buckets(fold(username)[:160], caller.address, caller.trusted_relay)
    with director.database.reader() as session:
        throttle.check(session, buckets, now)
        user = find(session, username)
        had_failures = throttle.has_failures(session, buckets)
    right = passwords.verify(user.password if user else None, password)
    if user is None or not right or not user.active:
        with director.database.session() as session:
            throttle.failed(session, buckets, now)
        log.info("a login as %r from %s failed", username[:80], caller.address)
        raise errors.Unauthenticated(LOGIN_FAILED)
    _after_login(director, user, password, buckets if had_failures else [])
    return user


def _after_login(director: runtime.Director, user: models.User, password: str, buckets: list[throttle.Bucket]) -> None:
    renewed = passwords.make_hash(password) if passwords.outdated(user.password) else None
    if not renewed and not buckets:
        return
    with director.database.session() as session:
        if buckets:
            throttle.succeeded(session, buckets)
        if renewed:
            unchanged = (models.User.uid == user.uid) & (models.User.password == user.password)
            session.execute(sa.update(models.User).where(unchanged).values(password=renewed))


def set_password(director: runtime.Director, uid: int, password: str) -> None:
    """Give a user another password and revoke the certificates that the old one could have fetched."""
    passwords.check_new(password)
    hashed = passwords.make_hash(password)
    with director.database.session() as session:
        session.execute(sa.update(models.User).where(models.User.uid == uid).values(password=hashed))
        _revoke_certificates(session, uid, director)
    log.info("the password of uid %s was changed", uid)


def set_active(director: runtime.Director, username: str, active: bool) -> models.User:
    """Enable or disable an account; disabling revokes its certificates. Its applications keep running. Raises NotFound."""
    with director.database.session() as session:
        user = get(session, username)
        user.active = active
        if not active:
            _revoke_certificates(session, user.uid, director)
    log.info("the user %s was %s", user.username, "enabled" if active else "disabled")
    return user


def _revoke_certificates(session: orm.Session, uid: int, director: runtime.Director) -> None:
    certificate = models.Certificate
    valid = (certificate.uid == uid) & (certificate.role == "user") & certificate.revoked.is_(None)
    session.execute(sa.update(certificate).where(valid).values(revoked=director.clock()))


def listing(session: orm.Session) -> list[tuple[models.User, int]]:
    """All users with their balances, by name."""
    entry = models.LedgerEntry
    sums = sa.select(entry.uid, sa.func.sum(entry.amount).label("credit")).group_by(entry.uid).subquery()
    query = sa.select(models.User, sa.func.coalesce(sums.c.credit, 0)).outerjoin(sums, sums.c.uid == models.User.uid)
    return [(user, int(credit)) for user, credit in session.execute(query.order_by(models.User.username_key))]


def as_dict(user: models.User, credit: int) -> dict[str, Any]:
    """The user as clients see it; never with anything of the password."""
    return {
        "uid": user.uid,
        "username": user.username,
        "fname": user.fname,
        "lname": user.lname,
        "email": user.email,
        "affiliation": user.affiliation,
        "credit": credit,
        "created": user.created.replace(tzinfo=None).isoformat(),
        "uuid": user.uuid,
        "openid": user.openid,
    }


def echo_of(password: str) -> str:
    """What the classic front-end compares after /login: the MD5 of the password *it has just sent*. Nothing stored is involved."""
    return hashlib.md5(password.encode(), usedforsecurity=False).hexdigest()
