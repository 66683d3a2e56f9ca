"""The deployment's certification authority: its files, the Director's own two certificates, and what it signs for others.

Files in CERT_DIR, keys with mode 0600:

    ca_key.pem ca_cert.pem     the CA; made once, never replaced
    key.pem cert.pem           what the Director listens with: role `frontend`, valid for DIRECTOR_URL's host
    director/                  what the Director calls managers and agents with: role `director`

The Director's own certificates are made anew when the host changes, when they near their end or no longer fit the CA.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import functools
import hashlib
import hmac
import logging
import pathlib
import secrets
from collections.abc import Iterator, Sequence

import sqlalchemy as sa
from cryptography import x509 as cryptography_x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.kdf import hkdf
from sqlalchemy import orm

from conpaas.core import errors, file
from conpaas.core.https import identity, x509
from conpaas.director import models

log = logging.getLogger(__name__)

CA_DAYS = 20 * 365
OWN_DAYS = 5 * 365
USER_DAYS = 365
SESSION_HOURS = 12  # longest life of a certificate for a session of a front-end
NODE_DAYS = 5 * 365  # a VM has no way to renew; its key never leaves it, and its application's id is never used again
RENEW_BEFORE = datetime.timedelta(days=60)
TOKEN_LIFETIME = datetime.timedelta(hours=1)
CALLING_DIRECTORY = "director"
NODE_CN = "ConPaaS"
NODE_ROLES = (identity.ROLE_MANAGER, identity.ROLE_AGENT)


class Authority:
    """The CA in one directory. Cheap to construct: files are read when they are needed. Safe to share between threads."""

    def __init__(self, cert_dir: pathlib.Path) -> None:
        self.cert_dir = cert_dir
        self.ca_path = cert_dir / "ca_cert.pem"

    @property
    def listening(self) -> identity.Credentials:
        """What the Director's server presents."""
        return identity.Credentials.from_dir(self.cert_dir)

    @property
    def calling(self) -> identity.Credentials:
        """What the Director presents to managers and agents."""
        return identity.Credentials.from_dir(self.cert_dir / CALLING_DIRECTORY)

    @property
    def ca_pem(self) -> str:
        """The CA's certificate."""
        return x509.certificate_pem(self._ca[1])

    @functools.cache  # noqa: B019 - one authority lives as long as its process
    def secret(self, purpose: str) -> bytes:
        """A secret that all processes of this deployment have and nobody else, another one for each purpose."""
        own = self._ca[0].private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return hkdf.HKDF(hashes.SHA256(), length=32, salt=None, info=f"conpaas {purpose}".encode()).derive(own)

    @property
    def ca_fingerprint(self) -> str:
        """SHA-256 of the CA's certificate, in hexadecimal: what a person compares to trust it."""
        return x509.fingerprint(self._ca[1])

    def prepare(self, hosts: Sequence[str]) -> None:
        """Make what is missing and renew the Director's own certificates; `hosts` are the names and addresses it is reached by.

        Raises ConfigurationError rather than replace a CA of which a part is missing or unusable.
        """
        self.cert_dir.mkdir(parents=True, exist_ok=True)
        with self._exclusively():
            key_path = self.cert_dir / "ca_key.pem"
            if not key_path.exists() and not self.ca_path.exists():
                self._make_ca(key_path)
            own = (
                (self.cert_dir, identity.ROLE_FRONTEND, list(dict.fromkeys(hosts))),
                (self.cert_dir / CALLING_DIRECTORY, identity.ROLE_DIRECTOR, list(dict.fromkeys(hosts))),
            )
            for directory, role, names in own:
                reason = self._why_renew(directory, role, names)
                if reason:
                    self._make_own(directory, role, names)
                    log.info("made the certificate of role %s in %s: %s", role, directory, reason)

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[None]:
        """One process at a time makes certificates in this directory."""
        with (self.cert_dir / ".lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _make_ca(self, key_path: pathlib.Path) -> None:
        key, certificate = x509.new_ca(days=CA_DAYS)
        file.write_atomically(key_path, x509.key_pem(key), mode=0o600)
        file.write_atomically(self.ca_path, x509.certificate_pem(certificate))
        log.info("made a new certification authority in %s, fingerprint %s", self.cert_dir, x509.fingerprint(certificate))

    @functools.cached_property
    def _ca(self) -> tuple[x509.PrivateKey, cryptography_x509.Certificate]:
        key_path = self.cert_dir / "ca_key.pem"
        try:
            key = x509.load_key(key_path.read_bytes())
            certificate = x509.load_certificate(self.ca_path.read_bytes())
        except (OSError, errors.InvalidArgument) as error:
            raise errors.ConfigurationError(
                f"The certification authority in {self.cert_dir} cannot be used: {error}",
                hint="Restore ca_key.pem and ca_cert.pem from a backup; a new one would invalidate every certificate in use.",
            ) from error
        if certificate.public_key() != key.public_key():
            raise errors.ConfigurationError(f"The files ca_key.pem and ca_cert.pem in {self.cert_dir} do not belong together.")
        if certificate.version != cryptography_x509.Version.v3:
            raise errors.ConfigurationError(
                f"The certification authority in {self.cert_dir} is of an old kind (X.509 v1) that current TLS refuses.",
                hint="Move the directory away; 'cpsdirector init' makes a new one, and all users and VMs then need new certificates.",
            )
        return key, certificate

    def _why_renew(self, directory: pathlib.Path, role: str, names: list[str]) -> str:
        """Why the Director needs another certificate, or an empty text."""
        key_path, path = directory / "key.pem", directory / "cert.pem"
        if not key_path.exists() or not path.exists() or not (directory / "ca_cert.pem").exists():
            return "there was none"
        key, ca = x509.load_key(key_path.read_bytes()), self._ca[1]
        certificate = x509.load_certificate(path.read_bytes())
        who = x509.read_identity(certificate)
        if who.role != role or certificate.public_key() != key.public_key():
            return "the old one was not the Director's"
        try:
            certificate.verify_directly_issued_by(ca)
        except (ValueError, TypeError, InvalidSignature):
            return "the old one is not of this authority"
        if not set(names) <= set(who.names):
            return f"the old one was for {', '.join(who.names)}"
        if certificate.not_valid_after_utc - models.utcnow() < RENEW_BEFORE:
            return f"the old one ends on {certificate.not_valid_after_utc:%Y-%m-%d}"
        return ""

    def _make_own(self, directory: pathlib.Path, role: str, names: list[str]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        key = x509.new_key()
        subject = x509.Subject(role=role, cn=names[0][:64], organization=x509.ORGANIZATION)
        pem = x509.issue(*self._ca, key.public_key(), subject, days=OWN_DAYS, san=names)
        # The key first: a crash in between leaves a pair that does not fit, which the next start notices and makes anew.
        file.write_atomically(directory / "key.pem", x509.key_pem(key), mode=0o600)
        file.write_atomically(directory / "cert.pem", pem)
        if directory != self.cert_dir:
            file.write_atomically(directory / "ca_cert.pem", self.ca_pem)

    def _record(self, session: orm.Session, pem: str) -> str:
        """Remember a certificate that was just signed; returns it."""
        certificate = x509.load_certificate(pem)
        who = x509.read_identity(certificate)
        session.add(
            models.Certificate(
                serial=who.serial,
                role=who.role,
                uid=who.uid,
                aid=who.aid,
                expires=certificate.not_valid_after_utc,
                fingerprint=who.fingerprint,
            )
        )
        return pem

    def issue_user(self, session: orm.Session, user: models.User) -> tuple[str, str]:
        """A fresh key and certificate for a user, both PEM; the key is kept nowhere."""
        key = x509.new_key()
        subject = x509.Subject(role=identity.ROLE_USER, cn=user.username[:64], uid=user.uid, aid=0, email=user.email)
        pem = x509.issue(*self._ca, key.public_key(), subject, days=USER_DAYS, usage=x509.USAGE_CLIENT)
        return x509.key_pem(key), self._record(session, pem)

    def issue_session(self, session: orm.Session, user: models.User, csr: str, hours: int) -> str:
        """A certificate of a user for a key that the caller keeps to itself, valid for `hours`, at most SESSION_HOURS."""
        subject = x509.Subject(role=identity.ROLE_USER, cn=user.username[:64], uid=user.uid, aid=0, email=user.email)
        lifetime = min(hours, SESSION_HOURS) / 24
        return self._record(session, x509.issue(*self._ca, x509.csr_public_key(csr), subject, days=lifetime, usage=x509.USAGE_CLIENT))

    def issue_node(self, session: orm.Session, role: str, uid: int, aid: int, csr: str) -> str:
        """A certificate for a manager or agent. Of the request only the public key is used; who it is for, the caller decides."""
        _check_node_role(role)
        subject = x509.Subject(role=role, cn=NODE_CN, uid=uid, aid=aid)
        return self._record(session, x509.issue(*self._ca, x509.csr_public_key(csr), subject, days=NODE_DAYS))

    def issue_frontend(self, session: orm.Session, host: str, days: int) -> tuple[str, str]:
        """A fresh key and certificate for a classic front-end on `host`, both PEM. It can call, but not be taken for the Director."""
        key = x509.new_key()
        subject = x509.Subject(role=identity.ROLE_FRONTEND, cn=host[:64])
        pem = x509.issue(*self._ca, key.public_key(), subject, days=days, usage=x509.USAGE_CLIENT)
        return x509.key_pem(key), self._record(session, pem)

    def enrol(self, session: orm.Session, token: str, csr: str, now: datetime.datetime) -> str:
        """The certificate that a token is good for. The same token and request again get the same certificate.

        Raises Forbidden for a token that is unknown, too old, or was used with another request.
        """
        row = session.get(models.Enrolment, _token_hash(token), with_for_update=True)
        if row is None or row.expires <= now:
            raise errors.Forbidden(
                "The enrolment token is not valid, or no longer.", hint="A token is good for one hour after the VM was asked for."
            )
        digest = hashlib.sha256(csr.strip().encode()).hexdigest()
        if row.csr_sha256 is not None:
            if row.certificate is None or not hmac.compare_digest(row.csr_sha256, digest):
                raise errors.Forbidden("The enrolment token was already used with another certificate signing request.")
            return row.certificate
        pem = self.issue_node(session, row.role, row.uid, row.aid, csr)
        row.csr_sha256, row.certificate = digest, pem
        return pem


def new_token(session: orm.Session, *, role: str, uid: int, aid: int, vm: str, now: datetime.datetime) -> str:
    """A one-time token with which the VM named `vm` (a label for people) gets a certificate of `role` within an hour.

    Only its hash is stored: the returned text is the only copy.
    """
    _check_node_role(role)
    session.execute(sa.delete(models.Enrolment).where(models.Enrolment.expires < now - TOKEN_LIFETIME))
    token = secrets.token_urlsafe(32)
    session.add(models.Enrolment(token_hash=_token_hash(token), role=role, uid=uid, aid=aid, vm=vm[:300], expires=now + TOKEN_LIFETIME))
    return token


def revoke_application(session: orm.Session, aid: int, now: datetime.datetime) -> None:
    """Refuse, from now on, the certificates and tokens of an application's manager and agents (it was stopped or deleted)."""
    certificate = models.Certificate
    valid = (certificate.aid == aid) & certificate.role.in_(NODE_ROLES) & certificate.revoked.is_(None)
    session.execute(sa.update(certificate).where(valid).values(revoked=now))
    session.execute(sa.delete(models.Enrolment).where(models.Enrolment.aid == aid))


def _check_node_role(role: str) -> None:
    if role not in NODE_ROLES:
        raise errors.InvalidArgument(f"A node cannot get a certificate of role '{role}'.")


def _token_hash(token: str) -> str:
    return hashlib.sha256(token.strip().encode()).hexdigest()
