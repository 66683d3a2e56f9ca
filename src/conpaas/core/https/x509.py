"""Making certificates: the deployment's CA and what it signs. For the Director and for tests.

The only module that imports `cryptography`; managers and agents do without it at run time, since it costs memory.
Certificates are X.509 v3 on P-256 with SHA-256, and carry the classic subject fields.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import ipaddress
import secrets
from collections.abc import Mapping, Sequence
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from conpaas.core import errors
from conpaas.core.https import identity

USAGE_SERVER: Final = "server"
USAGE_CLIENT: Final = "client"
USAGE_BOTH: Final = "both"

CA_NAME: Final = "CA"
ORGANIZATION: Final = "ConPaaS"
ISSUED_ORGANIZATION: Final = "Contrail"
EMAIL: Final = "info@conpaas.eu"

_ROLE = x509.ObjectIdentifier(identity.ROLE_OID)
_UID = x509.ObjectIdentifier(identity.UID_OID)
_SERVICE_LOCATOR = x509.ObjectIdentifier(identity.SERVICE_LOCATOR_OID)
_BACKDATED = datetime.timedelta(minutes=5)
_USAGES: Final = {
    USAGE_SERVER: [ExtendedKeyUsageOID.SERVER_AUTH],
    USAGE_CLIENT: [ExtendedKeyUsageOID.CLIENT_AUTH],
    USAGE_BOTH: [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
}

PrivateKey = CertificateIssuerPrivateKeyTypes
PublicKey = CertificatePublicKeyTypes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """The holder of a certificate; fields that are None are left out."""

    role: str
    cn: str
    uid: int | None = None
    aid: int | None = None
    organization: str = ISSUED_ORGANIZATION
    email: str = EMAIL

    @classmethod
    def from_dn(cls, dn: Mapping[str, object]) -> Subject:
        """From classic field names: role, CN, and optionally UID, serviceLocator, O, emailAddress; raises InvalidArgument."""
        unknown = set(dn) - {"role", "CN", "UID", "serviceLocator", "O", "emailAddress"}
        if unknown or not {"role", "CN"} <= set(dn):
            raise errors.InvalidArgument(f"A certificate's subject has at least role and CN, and no field {sorted(unknown)}.")
        numbers = {field: None if dn.get(field) is None else int(str(dn[field])) for field in ("UID", "serviceLocator")}
        return cls(
            role=str(dn["role"]),
            cn=str(dn["CN"]),
            uid=numbers["UID"],
            aid=numbers["serviceLocator"],
            organization=str(dn.get("O", ISSUED_ORGANIZATION)),
            email=str(dn.get("emailAddress", EMAIL)),
        )

    def name(self) -> x509.Name:
        """The subject in X.509 form; raises InvalidArgument for a field that does not fit (e.g. a name over 64 letters)."""
        fields = (
            (NameOID.COMMON_NAME, self.cn),
            (NameOID.ORGANIZATION_NAME, self.organization),
            (NameOID.EMAIL_ADDRESS, self.email),
            (_ROLE, self.role),
            (_UID, None if self.uid is None else str(self.uid)),
            (_SERVICE_LOCATOR, None if self.aid is None else str(self.aid)),
        )
        return _name(fields)


def _name(fields: Sequence[tuple[x509.ObjectIdentifier, str | None]]) -> x509.Name:
    try:
        return x509.Name([x509.NameAttribute(oid, value) for oid, value in fields if value])
    except ValueError as error:
        raise errors.InvalidArgument(f"The certificate's subject does not fit: {error}.") from error


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh private key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: PrivateKey) -> str:
    """A private key in PEM (PKCS #8, not encrypted); write it with mode 0600."""
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


def load_key(pem: str | bytes) -> PrivateKey:
    """Read a private key from PEM; raises InvalidArgument."""
    try:
        key = serialization.load_pem_private_key(_as_bytes(pem), None)
    except (ValueError, TypeError) as error:
        raise errors.InvalidArgument("This is not a private key in PEM form.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise errors.InvalidArgument("The private key is neither an elliptic-curve nor an RSA key.")
    return key


def load_certificate(pem: str | bytes) -> x509.Certificate:
    """Read a certificate from PEM or DER; raises InvalidArgument."""
    data = _as_bytes(pem)
    try:
        if b"-----BEGIN" in data:
            return x509.load_pem_x509_certificate(data)
        return x509.load_der_x509_certificate(data)
    except ValueError as error:
        raise errors.InvalidArgument("This is not a certificate.") from error


def certificate_pem(certificate: x509.Certificate) -> str:
    """A certificate in PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def make_csr(key: PrivateKey, cn: str) -> str:
    """A signing request in PEM. Only its public key counts: the Director builds the subject itself."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name([(NameOID.COMMON_NAME, cn)]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def csr_public_key(pem: str | bytes) -> PublicKey:
    """The public key of a signing request, after checking that the requester holds the private one; raises InvalidArgument."""
    try:
        request = x509.load_pem_x509_csr(_as_bytes(pem))
        valid = request.is_signature_valid
        key = request.public_key()
    except (ValueError, InvalidSignature) as error:
        raise errors.InvalidArgument("This is not a certificate signing request in PEM form.") from error
    if not valid:
        raise errors.InvalidArgument("The certificate signing request is not signed by its own key.")
    if isinstance(key, ec.EllipticCurvePublicKey) and key.key_size >= 256:
        return key
    if isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 8192:
        return key
    raise errors.InvalidArgument("The key of a signing request must be elliptic-curve (256 bits or more) or RSA (2048 to 8192 bits).")


def new_ca(*, days: int = 3650, key: PrivateKey | None = None) -> tuple[PrivateKey, x509.Certificate]:
    """A new certification authority: its key and its self-signed certificate, which may sign leaves only."""
    key = key or new_key()
    name = _name([(NameOID.COMMON_NAME, CA_NAME), (NameOID.ORGANIZATION_NAME, ORGANIZATION), (NameOID.EMAIL_ADDRESS, EMAIL)])
    public_key = key.public_key()
    builder = (
        _builder(name, name, public_key, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key), critical=False)
    )
    return key, builder.sign(key, hashes.SHA256())


def issue(
    ca_key: PrivateKey,
    ca_certificate: x509.Certificate,
    public_key: PublicKey | str | bytes,
    subject: Subject | Mapping[str, object],
    *,
    days: float = 365,
    san: Sequence[str] = (),
    usage: str = USAGE_BOTH,
) -> str:
    """Sign a certificate; returns PEM. It ends no later than the CA's own.

    `public_key` may be a signing request in PEM, of which only the key counts. `subject` may be a dict of classic field
    names (see Subject.from_dn). `san` holds DNS names and addresses, `usage` is one of the USAGE_… constants.
    """
    if isinstance(public_key, str | bytes):
        public_key = csr_public_key(public_key)
    if not isinstance(subject, Subject):
        subject = Subject.from_dn(subject)
    ca_public = ca_certificate.public_key()
    if not isinstance(ca_public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey) or ca_public != ca_key.public_key():
        raise errors.ConfigurationError("The CA's private key does not belong to its certificate.")
    builder = (
        _builder(subject.name(), ca_certificate.subject, public_key, days, ca_certificate.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_USAGES[usage]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_public), critical=False)
    )
    if san:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(name) for name in san]), critical=False)
    return certificate_pem(builder.sign(ca_key, hashes.SHA256()))


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: PublicKey, days: float, latest: datetime.datetime | None = None
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    end = now + datetime.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(new_serial())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(min(end, latest) if latest else end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def new_serial() -> int:
    """A random serial number of 128 bits (the top one set, so that none is short)."""
    return secrets.randbits(127) | 1 << 127


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def read_identity(certificate: str | bytes | x509.Certificate) -> identity.PeerIdentity:
    """Who a certificate (PEM or DER) speaks for. Its signature is not checked here."""
    parsed = certificate if isinstance(certificate, x509.Certificate) else load_certificate(certificate)
    subject = tuple(((attribute.oid.dotted_string, str(attribute.value)),) for attribute in parsed.subject)
    try:
        extension = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        names: tuple[tuple[str, str], ...] = ()
    else:
        names = tuple(("DNS" if isinstance(name, x509.DNSName) else "IP Address", str(name.value)) for name in extension.value)
    fields = {"subject": subject, "serialNumber": f"{parsed.serial_number:x}", "subjectAltName": names}
    return identity.from_certificate(fields, parsed.public_bytes(serialization.Encoding.DER))


def fingerprint(certificate: x509.Certificate) -> str:
    """The SHA-256 of a certificate, in hexadecimal: the same text as PeerIdentity.fingerprint."""
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def _as_bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
