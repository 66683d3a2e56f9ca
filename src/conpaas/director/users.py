"""Accounts: creating them, proving who one is, changing and disabling them. Used by the API and by `cpsdirector user`."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import re
import unicodedata
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc, orm

from conpaas.core import errors
from conpaas.director import auth, credits, invitations, models, notices, passwords, quotas, runtime, throttle

log = logging.getLogger(__name__)

LOCKED = "!"  # stored where there is no password: no hash, so none fits
MAX_USERNAME = 64  # also the longest common name of a certificate
MAX_EMAIL = 254
MAX_NAME = 256
ROLES = ("user", "operator")
FIRST_APPLICATION = "New Application"
CONFIRM_HINT = "Follow the link in the message that was sent to it, or have another one sent."
LOGIN_FAILED = "User authentication failed"
# A user's name becomes the common name of a certificate; these common names mean something to classic peers.
RESERVED_NAMES = frozenset({"ca", "conpaas", "director", "frontend", "manager", "agent"})
_NAME_EXTRAS = frozenset("._-@+")
_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9-]{1,63})*")


@dataclasses.dataclass(frozen=True)
class NewUser:
    """What somebody asks for when registering; `credit` is the opening balance, an invitation's own if there is an `invitation`.

    With `confirm` the account is not active until its address is confirmed. Without a password, nobody logs in by one.
    """

    username: str
    email: str
    password: str | None = dataclasses.field(repr=False)
    fname: str = ""
    lname: str = ""
    affiliation: str = ""
    credit: int = 0
    role: str = "user"
    invitation: str = ""
    confirm: bool = False


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


def create(director: runtime.Director, wanted: NewUser, also: Callable[[orm.Session, models.User], object] | None = None) -> models.User:
    """Create an account with its opening balance, the configured quotas and its first application, and `also` what the caller does in
    the same transaction, all or nothing.

    Raises InvalidArgument for what cannot be, with the classic texts where a name or address is taken.
    """
    username, email = check_username(wanted.username), check_email(wanted.email)
    if wanted.password is not None:
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
        password=LOCKED if wanted.password is None else passwords.make_hash(wanted.password),
        created=now,
        role=wanted.role,
        active=not wanted.confirm,
        unconfirmed=wanted.confirm,
    )
    if wanted.role != "operator":
        configured = director.config
        quotas.set_limits(user, quotas.Amounts(configured.quota_vms, configured.quota_applications, configured.quota_volumes_mb))
    try:
        with director.database.session() as session:
            _refuse_taken(session, username, email)
            session.add(user)
            session.flush()
            credit = invitations.use(session, wanted.invitation, user, now) if wanted.invitation else wanted.credit
            credits.grant(session, user.uid, credit, now)
            session.add(models.Application(name=FIRST_APPLICATION, user_id=user.uid, created=now))
            if wanted.confirm:
                notices.add(session, user.uid, notices.CONFIRM, {"email": email}, now)
            if also is not None:
                also(session, user)
    except exc.IntegrityError as error:
        raise errors.InvalidArgument(f"Username '{username}' is already taken") from error
    log.info("created the user %s with uid %s and %s credits", username, user.uid, credit)
    return user


def _refuse_taken(session: orm.Session, username: str, email: str) -> None:
    """Raise InvalidArgument if somebody has the name, or else the address. Both are asked for at once, lest an account made in between
    be known by its address only."""
    name = fold(username)[:160]
    row = models.User
    names = set(session.scalars(sa.select(row.username_key).where(sa.or_(row.username_key == name, row.email_key == fold(email)))))
    if name in names:
        raise errors.InvalidArgument(f"Username '{username}' is already taken")
    if names:
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
    right = passwords.verify(user.password if user and user.password != LOCKED else None, password)
    if user is not None and right and user.unconfirmed:
        raise errors.Unauthenticated("The e-mail address of this account is not confirmed yet.", hint=CONFIRM_HINT)
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
            if session.execute(sa.update(models.User).where(unchanged).values(password=renewed)).rowcount:  # type: ignore[attr-defined]
                user.password = renewed


def still_proven(session: orm.Session, caller: auth.Caller) -> models.User:
    """The user whose password was checked, locked. Raises Unauthenticated if it was changed meanwhile, or the account disabled: whatever is
    signed now would escape the revocation that went with that."""
    user = session.get_one(models.User, caller.uid, with_for_update=True, populate_existing=True)
    if not user.active or (caller.password_hash is not None and user.password != caller.password_hash):
        raise errors.Unauthenticated(LOGIN_FAILED)
    return user


def set_password(director: runtime.Director, uid: int, password: str) -> None:
    """Give a user another password and revoke the certificates that the old one could have fetched."""
    passwords.check_new(password)
    hashed = passwords.make_hash(password)
    with director.database.session() as session:
        session.execute(sa.update(models.User).where(models.User.uid == uid).values(password=hashed))
        _revoke_certificates(session, uid, director)
    log.info("the password of uid %s was changed", uid)


def set_first_password(director: runtime.Director, uid: int, password: str) -> None:
    """Give a password to an account that has none. Raises WrongState for one that has."""
    passwords.check_new(password)
    hashed = passwords.make_hash(password)
    with director.database.session() as session:
        without = sa.and_(models.User.uid == uid, models.User.password == LOCKED)
        if not session.execute(sa.update(models.User).where(without).values(password=hashed)).rowcount:  # type: ignore[attr-defined]
            raise errors.WrongState("This account has a password.", hint="Change it with /change_password, which asks for the present one.")
    log.info("uid %s has a password now", uid)


def set_active(director: runtime.Director, username: str, active: bool, *, spare_operator: bool = False) -> models.User:
    """Enable or disable an account; disabling revokes its certificates. Its applications keep running.

    Raises NotFound, and with `spare_operator` WrongState for the last active operator.
    """
    with director.database.session() as session:
        user = get(session, username)
        if not active and spare_operator:
            _keep_an_operator(session, user)
        user.active, user.unconfirmed = active, False
        if not active:
            _revoke_certificates(session, user.uid, director)
    log.info("the user %s was %s", user.username, "enabled" if active else "disabled")
    return user


def set_role(director: runtime.Director, username: str, role: str) -> models.User:
    """Make an account an operator's or an ordinary one. Raises NotFound, and WrongState for the last active operator."""
    if role not in ROLES:
        raise errors.InvalidArgument(f"A role is one of {', '.join(ROLES)}.")
    with director.database.session() as session:
        user = get(session, username)
        if role != "operator":
            _keep_an_operator(session, user)
        user.role = role
    log.info("the user %s has the role %s now", user.username, role)
    return user


def _keep_an_operator(session: orm.Session, user: models.User) -> None:
    """Raise WrongState if nobody else could operate this Director. Locks all operators, so that two do not go at once."""
    query = sa.select(models.User).where(models.User.role == "operator").order_by(models.User.uid)
    operators = session.scalars(query.with_for_update().execution_options(populate_existing=True)).all()
    working = {found.uid for found in operators if found.active}
    if working == {user.uid}:
        raise errors.WrongState(f"'{user.username}' is the last operator of this Director.", hint="Make somebody else an operator first.")


def update_profile(director: runtime.Director, uid: int, *, fname: str, lname: str, email: str, affiliation: str) -> str:
    """Change what an account tells of its owner. Where addresses are confirmed, another one counts once it is; it is returned, else an
    empty text. Raises InvalidArgument."""
    email = check_email(email)
    values = {"fname": _check_text("first name", fname), "lname": _check_text("last name", lname)}
    values["affiliation"] = _check_text("affiliation", affiliation)
    try:
        with director.database.session() as session:
            user = session.get_one(models.User, uid, with_for_update=True)
            for name, text in values.items():
                setattr(user, name, text)
            if email == user.email:
                return ""
            check_address_free(session, email, uid)
            if director.config.confirm_email:
                notices.add(session, uid, notices.CONFIRM, {"email": email}, director.clock())
                return email
            user.email, user.email_key = email, fold(email)
    except exc.IntegrityError as error:
        raise errors.InvalidArgument(f"E-mail '{email}' is already registered") from error
    return ""


def check_address_free(session: orm.Session, email: str, uid: int) -> None:
    """Raise InvalidArgument if another account has the address."""
    if session.scalar(sa.select(models.User.uid).where(models.User.email_key == fold(email), models.User.uid != uid)) is not None:
        raise errors.InvalidArgument(f"E-mail '{email}' is already registered")


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
