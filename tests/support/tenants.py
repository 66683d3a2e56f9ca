"""Two users who share a platform, and the certificates that one of them, or a thief, could show at the other's doors."""

from __future__ import annotations

import dataclasses
import datetime
import pathlib
import ssl
from typing import Any

from cryptography.hazmat.primitives import hashes

from conpaas.core.https import x509
from tests.support import consistency, wire
from tests.support import platform as platforms

AGENT_PORT = 5555
MANAGER_PORT = 443


@dataclasses.dataclass(frozen=True)
class Application:
    """A running application: its manager's address, and by service type the ids and addresses of the nodes."""

    user: str
    aid: int
    manager: str
    sids: dict[str, int]
    nodes: dict[str, dict[str, str]]


def deploy(platform: platforms.Platform, user: str, name: str, kinds: tuple[str, ...]) -> Application:
    """Start an application with one started service of each kind."""
    platform.cps("application", "create", name, user=user)
    platform.cps("application", "start", name, user=user)
    found = next(one for one in platform.data("application", "list", user=user) if one["name"] == name)
    sids: dict[str, int] = {}
    nodes: dict[str, dict[str, str]] = {}
    for kind in kinds:
        platform.cps(kind, "add", name, user=user)
        sids[kind] = max(one["sid"] for one in platform.data("service", "list", "-a", name, user=user))
        platform.cps("service", "start", name, str(sids[kind]), user=user)
        listed = platform.data("service", "list_nodes", name, str(sids[kind]), user=user)
        nodes[kind] = {node["agent_id"]: node["ip"] for node in listed}
    return Application(user, found["aid"], found["manager"], sids, nodes)


def home(platform: platforms.Platform, user: str) -> pathlib.Path:
    return platform.directory / "home" / user / ".conpaas"


def of_user(platform: platforms.Platform, user: str) -> ssl.SSLContext:
    return wire.of_directory(home(platform, user))


def of_vm(platform: platforms.Platform, address: str, role: str) -> ssl.SSLContext:
    """The certificate and key that lie on the disk of a VM: anybody who runs code there has them."""
    return wire.of_directory(consistency.vm_of(platform, address) / "root" / "etc" / f"cps{role}" / "certs")


def ca_of(platform: platforms.Platform) -> pathlib.Path:
    return platform.state / "certs" / "ca_cert.pem"


def forged(platform: platforms.Platform, directory: pathlib.Path, name: str, **dn: Any) -> ssl.SSLContext:
    """A certificate that says what one wants, of an authority that calls itself as the true one does."""
    key, certificate = x509.new_ca()
    own = x509.new_key()
    return _written(platform, directory / name, x509.key_pem(own), x509.issue(key, certificate, own.public_key(), x509.Subject(**dn)))


def genuine(platform: platforms.Platform, directory: pathlib.Path, name: str, **dn: Any) -> ssl.SSLContext:
    """A certificate of the true authority."""
    certs = platform.state / "certs"
    ca_key, ca = x509.load_key((certs / "ca_key.pem").read_bytes()), x509.load_certificate((certs / "ca_cert.pem").read_bytes())
    own = x509.new_key()
    return _written(platform, directory / name, x509.key_pem(own), x509.issue(ca_key, ca, own.public_key(), x509.Subject(**dn)))


def expired(platform: platforms.Platform, directory: pathlib.Path, name: str, **dn: Any) -> ssl.SSLContext:
    """A certificate of the true authority that ended an hour ago."""
    from cryptography import x509 as library

    certs = platform.state / "certs"
    ca_key = x509.load_key((certs / "ca_key.pem").read_bytes())
    ca = x509.load_certificate((certs / "ca_cert.pem").read_bytes())
    own = x509.new_key()
    now = datetime.datetime.now(datetime.UTC)
    made = (
        library.CertificateBuilder()
        .subject_name(x509.Subject(**dn).name())
        .issuer_name(ca.subject)
        .public_key(own.public_key())
        .serial_number(x509.new_serial())
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now - datetime.timedelta(hours=1))
        .add_extension(library.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(library.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key()), critical=False)  # type: ignore[arg-type]
        .sign(ca_key, hashes.SHA256())
    )
    return _written(platform, directory / name, x509.key_pem(own), x509.certificate_pem(made))


def _written(platform: platforms.Platform, directory: pathlib.Path, key: str, certificate: str) -> ssl.SSLContext:
    directory.mkdir(parents=True)
    (directory / "key.pem").write_text(key)
    (directory / "cert.pem").write_text(certificate)
    return wire.context(ca_of(platform), directory / "cert.pem", directory / "key.pem")
