"""Self-signed certificates for tests."""

from __future__ import annotations

import datetime
import functools

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import oid

from conpaas.services.webservers import spec


@functools.cache
def domain(name: str) -> spec.Domain:
    """A domain with a certificate of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(oid.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return spec.Domain(name, certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode())


def common_name(der: bytes) -> str:
    """Whose a certificate is."""
    found = x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(oid.NameOID.COMMON_NAME)
    return str(found[0].value)
