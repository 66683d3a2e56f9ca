"""Looking at a domain's certificate before it is given to a proxy: its key, its names, its dates, its chain."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import re
from collections.abc import Sequence
from typing import Any, Final

from cryptography import exceptions, x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from conpaas.core import errors

LIMIT: Final = 256 * 1024
"""Bytes of a certificate file or a key file."""
_WEAKEST_RSA: Final = 2048
_BLOCK: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a user is told of a certificate."""

    names: tuple[str, ...]
    issuer: str
    expires: float

    def to_dict(self) -> dict[str, Any]:
        return {"names": list(self.names), "issuer": self.issuer, "expires": self.expires}


def check(name: str, chain: str, key: str, now: datetime.datetime | None = None) -> tuple[str, str]:
    """A chain and its key in the one form that proxies get, once both are found to be good for a domain.

    Raises InvalidArgument that tells what is wrong: the key is of another certificate, the names don't cover the domain, it has expired,
    it is not valid yet, or the certificates are not in order (the domain's own first, each followed by the one that signed it).
    """
    certificates = _chain(chain)
    leaf = certificates[0]
    _check_key(leaf, _private_key(key))
    _check_names(name, names_of(leaf))
    _check_dates(certificates, now or datetime.datetime.now(datetime.UTC))
    _check_order(certificates)
    pem = "".join(one.public_bytes(serialization.Encoding.PEM).decode("ascii") for one in certificates)
    private = _private_key(key).private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem, private.decode("ascii")


def summary(chain: str) -> Summary:
    """What a certificate that `check` let pass says of itself."""
    leaf = _chain(chain)[0]
    return Summary(tuple(names_of(leaf)), leaf.issuer.rfc4514_string(), leaf.not_valid_after_utc.timestamp())


def covers(pattern: str, name: str) -> bool:
    """Whether a name of a certificate covers a domain; `*` stands for exactly one label, the first."""
    pattern, name = pattern.lower().rstrip("."), name.lower()
    if pattern.startswith("*."):
        return name.partition(".")[2] == pattern[2:] and "." in pattern[2:]
    return pattern == name


def names_of(certificate: x509.Certificate) -> list[str]:
    """The DNS names a certificate is for; its common name counts for nothing, as in browsers."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return list(found.value.get_values_for_type(x509.DNSName))


def _refuse(text: str, hint: str | None = None) -> errors.InvalidArgument:
    return errors.InvalidArgument(f"Invalid arguments ({text})", hint=hint)


def _chain(text: str) -> Sequence[x509.Certificate]:
    kinds = [match.group(1) for match in _BLOCK.finditer(text)]
    if any("PRIVATE KEY" in kind for kind in kinds):
        raise _refuse("the certificate file holds a private key", "upload the key in a file of its own")
    try:
        found = x509.load_pem_x509_certificates(text.encode())
    except ValueError as error:
        raise _refuse("the certificate is not in PEM form", "upload the certificate followed by its intermediate certificates") from error
    if len(found) > 10:
        raise _refuse(f"the certificate file holds {len(found)} certificates, at most 10 make a chain")
    return found


def _private_key(text: str) -> Any:
    try:
        return serialization.load_pem_private_key(text.encode(), password=None)
    except TypeError as error:
        raise _refuse("the key is protected by a password", "remove it with 'openssl pkey -in KEY -out PLAIN_KEY'") from error
    except (ValueError, exceptions.UnsupportedAlgorithm) as error:
        raise _refuse("the key is not a private key in PEM form") from error


def _check_key(leaf: x509.Certificate, key: Any) -> None:
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        raise _refuse("the key is of a kind that browsers do not take")
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < _WEAKEST_RSA:
        raise _refuse(f"the RSA key has {key.key_size} bits, at least {_WEAKEST_RSA} are needed")
    if _spki(key.public_key()) != _spki(leaf.public_key()):
        raise _refuse("the key does not belong to the certificate")


def _spki(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _check_names(name: str, names: Sequence[str]) -> None:
    if not any(covers(one, name) for one in names):
        raise _refuse(f"the certificate is for {', '.join(names) or 'no name at all'}, not for {name}")


def _check_dates(certificates: Sequence[x509.Certificate], now: datetime.datetime) -> None:
    for one in certificates:
        who = "the certificate" if one is certificates[0] else f"the certificate of {one.subject.rfc4514_string()} in its chain"
        if one.not_valid_after_utc <= now:
            raise _refuse(f"{who} has expired on {one.not_valid_after_utc:%Y-%m-%d}")
        if one.not_valid_before_utc > now + datetime.timedelta(minutes=5):
            raise _refuse(f"{who} is not valid before {one.not_valid_before_utc:%Y-%m-%d}")


def _check_order(certificates: Sequence[x509.Certificate]) -> None:
    for one, signer in itertools.pairwise(certificates):
        try:
            one.verify_directly_issued_by(signer)
        except (ValueError, TypeError, exceptions.InvalidSignature) as error:
            raise _refuse(
                f"the chain is not in order: {one.subject.rfc4514_string()} is not signed by {signer.subject.rfc4514_string()}",
                "put the domain's certificate first, and after each the one that signed it",
            ) from error
