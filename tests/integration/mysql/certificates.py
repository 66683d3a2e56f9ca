"""A certificate authority for tests, as a service has one."""

from __future__ import annotations

import datetime
import functools
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import oid

from conpaas.services.mysql import spec


class Authority:
    """Signs certificates of members."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("service CA")
        self._certificate = _builder(self._name, self._name, self._key, x509.BasicConstraints(ca=True, path_length=0)).sign(
            self._key, hashes.SHA256()
        )

    def files(self, name: str, ip: str) -> spec.TlsFiles:
        """A new certificate and key for a member."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(name), self._name, key, x509.BasicConstraints(ca=False, path_length=None))
        usage = x509.ExtendedKeyUsage([oid.ExtendedKeyUsageOID.SERVER_AUTH, oid.ExtendedKeyUsageOID.CLIENT_AUTH])
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(ip))])
        certificate = builder.add_extension(usage, critical=False).add_extension(names, critical=False).sign(self._key, hashes.SHA256())
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return spec.TlsFiles(_pem(certificate), private.decode(), _pem(self._certificate))


@functools.cache
def authority() -> Authority:
    return Authority()


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid.NameOID.ORGANIZATION_NAME, "ConPaaS"), x509.NameAttribute(oid.NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, constraints: x509.BasicConstraints
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
    return made.not_valid_after(now + datetime.timedelta(days=30)).add_extension(constraints, critical=True)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
