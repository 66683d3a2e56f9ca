"""Who a peer is, and who may call whom.

An identity is the subject of a certificate that the deployment's CA signed: `role`, `UID` (user) and `serviceLocator`
(application). Nothing is ever concluded from a common name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import ipaddress
import os
import pathlib
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from conpaas.core import errors

ROLE_MANAGER: Final = "manager"
ROLE_AGENT: Final = "agent"
ROLE_USER: Final = "user"
ROLE_FRONTEND: Final = "frontend"
ROLE_DIRECTOR: Final = "director"

ROLE_OID: Final = "2.5.4.72"
UID_OID: Final = "0.9.2342.19200300.100.1.1"
SERVICE_LOCATOR_OID: Final = "1.3.6.1.5.5.7.48.1.7"
COMMON_NAME_OID: Final = "2.5.4.3"

FRONTEND_HINT: Final = "The operator of the Director allows it with TRUST_FRONTEND; the application has to be started anew then."

_FIELD_NAMES: Final = {
    "role": "role",
    ROLE_OID: "role",
    "UID": "uid",
    "userId": "uid",
    "userid": "uid",
    UID_OID: "uid",
    "serviceLocator": "aid",
    "OCSP Service Locator": "aid",
    SERVICE_LOCATOR_OID: "aid",
    "CN": "cn",
    "commonName": "cn",
    COMMON_NAME_OID: "cn",
}
"""Names under which TLS libraries report the subject's fields: long, short, or dotted where a library knows no name."""

_DECIMAL = re.compile(r"\d{1,18}", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True)
class PeerIdentity:
    """What a certificate says of its holder. `uid` and `aid` are None when absent or not decimal.

    `serial` is lower-case hexadecimal without leading zeros, `fingerprint` the SHA-256 of the certificate in hexadecimal,
    `names` the DNS names and addresses it is valid for.
    """

    role: str
    uid: int | None = None
    aid: int | None = None
    cn: str = ""
    serial: str = ""
    fingerprint: str = ""
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        """For people: "user 1", "manager of application 2 of user 1"."""
        text = self.role or "a certificate without role"
        if self.role == ROLE_USER and self.uid is not None:
            text += f" {self.uid}"
        if self.aid:  # users' certificates have application 0, which is none
            text += f" of application {self.aid}"
        if self.role != ROLE_USER and self.uid is not None:
            text += f" of user {self.uid}"
        return text


CallerPolicy = Callable[[PeerIdentity], None]
"""Decides who may call a server; raises Forbidden."""

ServerPolicy = Callable[[PeerIdentity, str], None]
"""Decides whether the server reached under a host name is the right one; raises Forbidden."""


def from_certificate(certificate: Mapping[str, Any], der: bytes) -> PeerIdentity:
    """The identity in a verified certificate, as `ssl.SSLSocket.getpeercert()` and its binary form give it.

    Raises Forbidden if a field that decides about access occurs twice: two readers could see two holders.
    """
    fields: dict[str, str] = {}
    for relative_name in certificate.get("subject", ()):
        for name, value in relative_name:
            field = _FIELD_NAMES.get(name)
            if field is None:
                continue
            if field in fields and field != "cn":
                raise errors.Forbidden(f"The certificate names its {name} twice; such a certificate is not accepted.")
            fields[field] = value
    return PeerIdentity(
        role=fields.get("role", ""),
        uid=_decimal(fields.get("uid")),
        aid=_decimal(fields.get("aid")),
        cn=fields.get("cn", ""),
        serial=str(certificate.get("serialNumber", "")).lower().lstrip("0"),
        fingerprint=hashlib.sha256(der).hexdigest(),
        names=tuple(value for kind, value in certificate.get("subjectAltName", ()) if kind in {"DNS", "IP Address"}),
    )


def of_peer(sock: ssl.SSLSocket) -> PeerIdentity | None:
    """Who is at the other end of a connection whose handshake is done; None if it showed no certificate.

    The certificate was verified in that handshake, so what it says can be remembered by its bytes. Raises Forbidden.
    """
    der = sock.getpeercert(binary_form=True)
    if not der or sock.context.verify_mode == ssl.CERT_NONE:
        return None
    known = _known.get(der)
    if known is None:
        known = from_certificate(sock.getpeercert() or {}, der)
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        _known[der] = known
    return known


_MAX_KNOWN: Final = 500
_known: dict[bytes, PeerIdentity] = {}


def _decimal(text: str | None) -> int | None:
    return int(text) if text is not None and _DECIMAL.fullmatch(text) else None


@dataclasses.dataclass(frozen=True)
class Credentials:
    """A certificate with its private key, and the CA that both sides trust: three PEM files."""

    certificate: pathlib.Path
    key: pathlib.Path
    ca: pathlib.Path

    @classmethod
    def from_dir(cls, directory: pathlib.Path) -> Credentials:
        """The files `cert.pem`, `key.pem` and `ca_cert.pem` of a directory; raises ConfigurationError if one is missing."""
        credentials = cls(directory / "cert.pem", directory / "key.pem", directory / "ca_cert.pem")
        for path in (credentials.certificate, credentials.key, credentials.ca):
            if not path.is_file():
                raise errors.ConfigurationError(f"The file {path} is missing; it belongs to the certificate of this program.")
        return credentials

    def load_into(self, context: ssl.SSLContext) -> None:
        """Make a TLS context present this certificate and trust this CA; raises ConfigurationError naming the bad file."""
        load_ca(context, self.ca)
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (ssl.SSLError, OSError) as error:
            raise errors.ConfigurationError(f"Cannot use the certificate {self.certificate} with the key {self.key}: {error}.") from error

    @functools.cached_property
    def identity(self) -> PeerIdentity:
        """Who these credentials speak for, as any peer would see it.

        Raises ConfigurationError if no peer would accept them: expired, not signed by the CA, or the key does not fit.
        """
        return _seen_by_peer(self)


_IN_MEMORY: Final = pathlib.Path("(held in memory)")


@dataclasses.dataclass(frozen=True)
class HeldCredentials(Credentials):
    """Credentials that are on no disk: the three texts in PEM."""

    certificate: pathlib.Path = _IN_MEMORY
    key: pathlib.Path = _IN_MEMORY
    ca: pathlib.Path = _IN_MEMORY
    certificate_pem: str = dataclasses.field(default="", repr=False)
    key_pem: str = dataclasses.field(default="", repr=False)
    ca_pem: str = dataclasses.field(default="", repr=False)

    def load_into(self, context: ssl.SSLContext) -> None:
        """Make a TLS context present this certificate and trust this CA; raises ConfigurationError."""
        try:
            context.load_verify_locations(cadata=self.ca_pem)
            with _memory_file(f"{self.certificate_pem}\n{self.key_pem}") as path:
                context.load_cert_chain(path)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise errors.ConfigurationError(f"Cannot use this certificate with its key: {error}.") from error


@contextlib.contextmanager
def _memory_file(text: str) -> Iterator[str]:
    """The path of a file that is in memory only, and gone afterwards: the TLS library reads a key from nothing but a path."""
    descriptor = os.memfd_create("credentials", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def load_ca(context: ssl.SSLContext, ca: pathlib.Path) -> None:
    """Make a TLS context trust one CA file; raises ConfigurationError."""
    try:
        context.load_verify_locations(ca)
    except (ssl.SSLError, OSError) as error:
        raise errors.ConfigurationError(f"Cannot read the CA certificate {ca}: {error}.") from error


def _seen_by_peer(credentials: Credentials) -> PeerIdentity:
    """Shake hands in memory with a server of the same CA and return what it sees (the ssl module parses no files itself)."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.verify_mode = ssl.CERT_REQUIRED
    credentials.load_into(server_context)
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    credentials.load_into(client_context)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    try:
        for side in (client, server, client, server):
            _advance(side)
        certificate, der = server.getpeercert(), server.getpeercert(binary_form=True)
    except (ssl.SSLError, ValueError) as error:
        raise errors.ConfigurationError(f"The certificate {credentials.certificate} is not usable: {_reason(error)}.") from error
    if not certificate or not der:
        raise errors.ConfigurationError(f"The certificate {credentials.certificate} is not usable: no peer accepts it.")
    return from_certificate(certificate, der)


def _advance(side: ssl.SSLObject) -> None:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return


def _reason(error: Exception) -> str:
    message = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
    return str(message).replace("_", " ").lower()


def manager_callers(uid: int, aid: int, allow_frontend: bool = False) -> CallerPolicy:
    """Who may call the manager of application `aid` of user `uid`: the Director, that user, that application's manager."""

    def check(peer: PeerIdentity) -> None:
        accepted = (
            peer.role == ROLE_DIRECTOR
            or (peer.role == ROLE_USER and peer.uid == uid)
            or (peer.role == ROLE_MANAGER and peer.uid == uid and peer.aid == aid)
            or (peer.role == ROLE_FRONTEND and allow_frontend)
        )
        if not accepted:
            hint = FRONTEND_HINT if peer.role == ROLE_FRONTEND else None
            raise errors.Forbidden(f"The manager of application {aid} may not be called by {peer}.", hint=hint)

    return check


def agent_callers(uid: int, aid: int, allow_frontend: bool = False) -> CallerPolicy:
    """Who may call an agent of application `aid` of user `uid`: the Director, and that application's manager and agents."""

    def check(peer: PeerIdentity) -> None:
        accepted = (
            peer.role == ROLE_DIRECTOR
            or (peer.role in {ROLE_MANAGER, ROLE_AGENT} and peer.uid == uid and peer.aid == aid)
            or (peer.role == ROLE_FRONTEND and allow_frontend)
        )
        if not accepted:
            raise errors.Forbidden(f"An agent of application {aid} may not be called by {peer}.")

    return check


def expect_manager(uid: int | None = None, aid: int | None = None) -> ServerPolicy:
    """The server must be a manager; of this user and this application where given."""
    return _expect(ROLE_MANAGER, uid, aid)


def expect_agent(uid: int | None = None, aid: int | None = None) -> ServerPolicy:
    """The server must be an agent; of this user and this application where given."""
    return _expect(ROLE_AGENT, uid, aid)


def _expect(role: str, uid: int | None, aid: int | None) -> ServerPolicy:
    def check(peer: PeerIdentity, host: str) -> None:
        right = peer.role == role and uid in (None, peer.uid) and aid in (None, peer.aid)
        if not right:
            wanted = PeerIdentity(role, uid, aid)
            raise errors.Forbidden(f"{host} is not the {wanted}: its certificate says {peer}.")

    return check


def expect_director() -> ServerPolicy:
    """The server must be the Director, and its certificate valid for the host name or address that was called."""

    def check(peer: PeerIdentity, host: str) -> None:
        if peer.role not in {ROLE_FRONTEND, ROLE_DIRECTOR}:
            raise errors.Forbidden(f"{host} is not the Director: its certificate says {peer}.")
        names = peer.names or (peer.cn,)
        if not any(_same_host(name, host) for name in names):
            raise errors.Forbidden(f"The certificate of the Director is for {', '.join(names)}, not for {host}.")

    return check


def _same_host(name: str, host: str) -> bool:
    try:
        return ipaddress.ip_address(name) == ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return name.rstrip(".").lower() == host.rstrip(".").lower()
