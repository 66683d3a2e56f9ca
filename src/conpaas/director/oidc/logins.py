"""Logins through identity providers: begun, finished once, and whose accounts they are for.

An identity (issuer and subject) is linked to one account. An address never links anything: whoever has an account signs in to it and
links the identity there, or else a provider could hand over accounts. Somebody unknown gets an account as the registration mode says.
"""

from __future__ import annotations

import datetime
import functools
import re
import secrets
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc, orm

from conpaas.core import errors
from conpaas.director import models, registration, runtime, tokens, users
from conpaas.director.oidc import settings

if TYPE_CHECKING:
    from conpaas.director.oidc import provider

LIFETIME = datetime.timedelta(minutes=10)
MAX_WAITING = 5000
NAMES_TRIED = 30
_NOT_VALID = "The login is not valid, or no longer."


def providers(director: runtime.Director) -> dict[str, settings.Provider]:
    """The configured providers by name."""
    return {one.name: one for one in director.config.oidc}


def _client(director: runtime.Director, name: str) -> provider.Client:
    configured = providers(director).get(name)
    if configured is None:
        raise errors.NotFound("There is no identity provider of this name here.", hint="/registration names them.")
    return _client_of(configured)


@functools.lru_cache(maxsize=32)
def _client_of(configured: settings.Provider) -> provider.Client:
    from conpaas.director.oidc import provider

    return provider.Client(configured)


def begin(director: runtime.Director, name: str, redirect_uri: str) -> tuple[str, str]:
    """The address to send a browser to, and the state, which the front-end binds to that browser."""
    if not _may_return_to(director, redirect_uri):
        raise errors.InvalidArgument("The redirect_uri is not an address of this Director's front-end.")
    client = _client(director, name)
    state, proof = tokens.new(), settings.Proof(redirect_uri, secrets.token_urlsafe(32), secrets.token_urlsafe(48))
    url = client.authorization_url(state, proof)
    now = director.clock()
    row = models.OidcLogin
    with director.database.session() as session:
        session.execute(sa.delete(row).where(row.expires <= now))
        oldest = session.scalar(sa.select(row.expires).order_by(row.expires.desc()).offset(MAX_WAITING - 1).limit(1))
        if oldest is not None:
            session.execute(sa.delete(row).where(row.expires <= oldest))
        begun = row(state_hash=tokens.digest(state), provider=name, redirect_uri=redirect_uri, expires=now + LIFETIME)
        begun.nonce, begun.verifier = proof.nonce, proof.verifier
        session.add(begun)
    return url, state


def _may_return_to(director: runtime.Director, redirect_uri: str) -> bool:
    own = director.config.pages_url
    if own:
        return redirect_uri.startswith(f"{own}/") and ".." not in redirect_uri
    return settings.is_safe_url(redirect_uri)


def identify(director: runtime.Director, state: str, code: str, redirect_uri: str) -> settings.Person:
    """Who comes back from a provider. A state is good for one try, within ten minutes. Raises Unauthenticated."""
    with director.database.session() as session:
        row = session.get(models.OidcLogin, tokens.digest(state), with_for_update=True)
        if row is not None:
            session.delete(row)
    if row is None or row.expires <= director.clock() or row.redirect_uri != redirect_uri:
        raise errors.Unauthenticated(_NOT_VALID, hint="Sign in again.")
    proof = settings.Proof(row.redirect_uri, row.nonce, row.verifier)
    return _client(director, row.provider).identify(code, proof, director.clock().timestamp())


def account_of(director: runtime.Director, person: settings.Person, invitation: str = "") -> int:
    """The uid of the active account that an identity is linked to, or of a new one. Raises Forbidden or Unauthenticated."""
    found = _linked(director, person)
    if found is None:
        found = _register(director, person, invitation)
    if found.unconfirmed:
        raise errors.Unauthenticated("The e-mail address of this account is not confirmed yet.", hint=users.CONFIRM_HINT)
    if not found.active:
        raise errors.Unauthenticated(f"The account '{found.username}' is disabled.")
    return found.uid


def _linked(director: runtime.Director, person: settings.Person) -> models.User | None:
    identity = models.OidcIdentity
    query = sa.select(models.User).join(identity, identity.uid == models.User.uid)
    with director.database.reader() as session:
        return session.scalar(query.where(identity.issuer == person.issuer, identity.subject == person.subject))


def _register(director: runtime.Director, person: settings.Person, invitation: str) -> models.User:
    registration.require_permission(director, invitation)
    if not person.email:
        raise errors.InvalidArgument("The identity provider gave no e-mail address, which an account needs.")
    email = users.check_email(person.email)
    with director.database.reader() as session:
        taken = session.scalar(sa.select(models.User.uid).where(models.User.email_key == users.fold(email))) is not None
        name = _free_name(session, person)
    if taken:
        made = _linked(director, person)  # by the same login that came twice
        if made is not None:
            return made
        raise errors.Forbidden(
            "There is an account with this e-mail address already.",
            hint="Sign in to it with its password, and link the identity provider on the account page.",
        )
    wanted = users.NewUser(
        username=name,
        email=email,
        password=None,
        fname=person.fname[: users.MAX_NAME],
        lname=person.lname[: users.MAX_NAME],
        credit=director.config.max_credit,
        invitation=invitation,
        confirm=director.config.confirm_email and not person.email_verified,
    )
    try:
        return users.create(director, wanted, lambda session, user: session.add(_identity(user.uid, person, director.clock())))
    except errors.InvalidArgument:
        made = _linked(director, person)
        if made is None:
            raise
        return made


def _identity(uid: int, person: settings.Person, now: datetime.datetime) -> models.OidcIdentity:
    return models.OidcIdentity(uid=uid, issuer=person.issuer, subject=person.subject, linked=now)


def _free_name(session: orm.Session, person: settings.Person) -> str:
    """A user name that nobody has, as much like what the provider calls the person as it may be."""
    wished = person.username.partition("@")[0] or person.email.partition("@")[0]
    name = re.sub(r"[^\w.+-]+", ".", wished).strip("._-+")[:50]
    try:
        name = users.check_username(name)
    except errors.InvalidArgument:
        name = "user"
    for number in range(1, NAMES_TRIED + 1):
        candidate = name if number == 1 else f"{name}{number}"
        if users.find(session, candidate) is None:
            return candidate
    return f"{name}-{secrets.token_hex(4)}"


def link(director: runtime.Director, uid: int, person: settings.Person) -> None:
    """Let an identity sign in to an account from now on; harmless when repeated. Raises WrongState if it signs in to another one."""
    try:
        with director.database.session() as session:
            session.add(_identity(uid, person, director.clock()))
    except exc.IntegrityError as error:
        found = _linked(director, person)
        if found is None or found.uid != uid:
            raise errors.WrongState(
                "This identity signs in to another account.", hint="Sign in to that one, and unlink it there."
            ) from error


def listing(director: runtime.Director, uid: int) -> list[dict[str, Any]]:
    """The identities that sign in to an account."""
    labels = {one.issuer: one.label for one in director.config.oidc}
    with director.database.reader() as session:
        rows = session.scalars(sa.select(models.OidcIdentity).where(models.OidcIdentity.uid == uid).order_by(models.OidcIdentity.id)).all()
    return [
        {"id": row.id, "label": labels.get(row.issuer, row.issuer), "issuer": row.issuer, "linked": row.linked.isoformat()} for row in rows
    ]


def unlink(director: runtime.Director, uid: int, number: int) -> None:
    """Let an identity no longer sign in. Raises WrongState for the last way into an account without a password."""
    with director.database.session() as session:
        user = session.get_one(models.User, uid, with_for_update=True)
        rows = session.scalars(sa.select(models.OidcIdentity).where(models.OidcIdentity.uid == uid)).all()
        row = next((row for row in rows if row.id == number), None)
        if row is None:
            raise errors.NotFound("There is no such identity on your account.")
        if len(rows) == 1 and user.password == users.LOCKED:
            raise errors.WrongState("This is the only way to sign in to your account.", hint="Give it a password first.")
        session.delete(row)


def prune(session: orm.Session, now: datetime.datetime) -> None:
    """Forget logins that nobody finished in time."""
    session.execute(sa.delete(models.OidcLogin).where(models.OidcLogin.expires <= now))
