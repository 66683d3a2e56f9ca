"""The user's certificate directory, and the first contact with a Director whose CA is not known yet."""

from __future__ import annotations

import datetime
import hashlib
import http.client
import io
import os
import ssl
import tempfile
import urllib.parse
import zipfile
from collections.abc import Mapping
from pathlib import Path

from conpaas.core import errors

MEMBERS = ("ca_cert.pem", "key.pem", "cert.pem")
_MEMBER_LIMIT = 1 << 20
_CERTAINLY_VALID_DAYS = 300
_ARCHIVE_TIMEOUT = 60.0
_ARCHIVE_LIMIT = 4 << 20
_FIRST_CONTACT_TIMEOUT = 10.0


class Store:
    """`cert.pem`, `key.pem` and `ca_cert.pem` in one private directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = directory / "ca_cert.pem"
        self.certificate = directory / "cert.pem"
        self.key = directory / "key.pem"

    def has_certificate(self) -> bool:
        """True if all three files are there, False if there is no certificate; a partial set is an error."""
        if not self.certificate.exists():
            return False
        missing = [path.name for path in (self.key, self.ca) if not path.is_file()]
        if missing:
            raise errors.ConfigurationError(
                f"The certificates in {self.directory} are incomplete: {' and '.join(missing)} missing.",
                hint="get new ones with 'cps-user get_certificate'",
            )
        return True

    def install(self, archive: bytes) -> None:
        """Unpack the Director's zip archive over the directory; all files are private (0600) and replaced at once each."""
        try:
            with zipfile.ZipFile(io.BytesIO(archive)) as opened:
                contents = {name: _member(opened, name) for name in MEMBERS}
        except (zipfile.BadZipFile, KeyError, RuntimeError, NotImplementedError, zipfile.zlib.error) as error:  # type: ignore[attr-defined]
            raise errors.RemoteError(f"The certificates that the ConPaaS director sent cannot be read: {error}") from error
        for name, content in contents.items():
            write_private(self.directory / name, content)

    def pin(self, ca_pem: bytes) -> None:
        """Trust this CA from now on."""
        write_private(self.ca, ca_pem)

    def expiry(self) -> datetime.datetime:
        """When the certificate ends (UTC)."""
        from conpaas.core.https import x509

        return x509.load_certificate(self.certificate.read_bytes()).not_valid_after_utc

    def days_left(self, now: datetime.datetime | None = None) -> int | None:
        """Whole days until the certificate ends, None as long as it is so new that nobody needs to know."""
        moment = now or datetime.datetime.now(datetime.UTC)
        installed = datetime.datetime.fromtimestamp(self.certificate.stat().st_mtime, datetime.UTC)
        return (self.expiry() - moment).days if (moment - installed).days >= _CERTAINLY_VALID_DAYS else None

    def remove(self) -> list[Path]:
        """Delete the user's key and certificate (the trusted CA stays); the files that were deleted."""
        removed = [path for path in (self.certificate, self.key) if path.exists()]
        for path in removed:
            path.unlink()
        return removed


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _MEMBER_LIMIT:
        raise zipfile.BadZipFile(f"{name} is too large")
    return archive.read(name)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, in a directory that only its owner can enter; it appears complete or not at all."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise errors.ConfigurationError(f"Cannot write {path}: {error.strerror or error}") from error


def fingerprint(pem: bytes) -> str:
    """The SHA-256 fingerprint of a PEM certificate, as colon-separated upper-case hex."""
    try:
        der = ssl.PEM_cert_to_DER_cert(_first_certificate(pem))
    except ValueError as error:
        raise errors.RemoteError(f"This is not a PEM certificate: {error}") from error
    digest = hashlib.sha256(der).hexdigest().upper()
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def same_fingerprint(one: str, other: str) -> bool:
    """Compare two fingerprints whatever their case, colons and `SHA256:` prefix."""
    return _plain(one) == _plain(other)


def _plain(text: str) -> str:
    return text.strip().lower().removeprefix("sha256").removeprefix(":").removeprefix("=").replace(":", "").replace(" ", "")


def _first_certificate(pem: bytes) -> str:
    text = pem.decode("ascii", "replace")
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    start, stop = text.find(begin), text.find(end)
    if start < 0 or stop < start:
        raise ValueError("no certificate in it")
    return text[start : stop + len(end)] + "\n"


def request_archive(url: str, ca: Path, fields: Mapping[str, str], more: Mapping[str, str] | None = None) -> bytes:
    """POST `fields` to the Director's /getcerts and return the body of its answer, a zip archive unless it is an error.

    `more` are further headers.
    The server must have a certificate of `ca` that is the Director's and valid for the host of `url`; that is checked
    before anything is sent.
    """
    from conpaas.core.https import identity, tls

    address = urllib.parse.urlsplit(url)
    host = address.hostname or ""
    connection = http.client.HTTPSConnection(host, address.port or 5555, context=tls.client_context(None, ca), timeout=_ARCHIVE_TIMEOUT)
    try:
        connection.connect()
        certificate, der = connection.sock.getpeercert(), connection.sock.getpeercert(binary_form=True)
        identity.expect_director()(identity.from_certificate(certificate or {}, der or b""), host)
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Connection": "close", **(more or {})}
        connection.request("POST", "/getcerts", urllib.parse.urlencode(fields), headers)
        body = connection.getresponse().read(_ARCHIVE_LIMIT)
    except (OSError, http.client.HTTPException, ValueError, errors.Forbidden) as error:
        raise errors.Unreachable(str(error), peer=url, method="/getcerts") from error
    finally:
        connection.close()
    return body


def first_contact(url: str) -> bytes:
    """Ask an unknown Director for its CA certificate (PEM).

    Nothing about the server is known yet, so nothing secret is sent and nothing but this certificate is believed: the
    caller shows its fingerprint to the user, pins it, and every later connection must chain to it.
    """
    address = urllib.parse.urlsplit(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(address.hostname or "", address.port or 5555, context=context, timeout=_FIRST_CONTACT_TIMEOUT)
    try:
        connection.request("GET", "/ca.pem", headers={"Connection": "close"})
        response = connection.getresponse()
        body = response.read(_MEMBER_LIMIT)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise errors.Unreachable(f"Cannot contact the director at URL '{url}': {reason}", peer=url, method="ca.pem") from error
    finally:
        connection.close()
    if response.status != 200:
        raise errors.RemoteError(
            f"The director at URL '{url}' does not show its CA certificate (HTTP status {response.status}).",
            hint="copy its ca_cert.pem into ~/.conpaas yourself",
        )
    fingerprint(body)
    return body
