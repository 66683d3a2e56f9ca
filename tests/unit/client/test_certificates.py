"""The certificate directory."""

from __future__ import annotations

import datetime
import io
import stat
import zipfile
from pathlib import Path

import pytest

from conpaas.client import api, certificates, handles
from conpaas.core import errors
from conpaas.core.https import x509


def packed(**members: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, text in members.items():
            archive.writestr(name.replace("_pem", ".pem"), text)
    return stream.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> certificates.Store:
    return certificates.Store(tmp_path / "new")


def test_what_is_installed_is_private(store: certificates.Store) -> None:
    store.install(packed(ca_cert_pem="ca", key_pem="key", cert_pem="cert", other="x"))
    assert sorted(path.name for path in store.directory.iterdir()) == ["ca_cert.pem", "cert.pem", "key.pem"]
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in store.directory.iterdir()} == {0o600}
    assert store.has_certificate()
    assert store.remove() == [store.certificate, store.key]
    assert not store.has_certificate()
    assert store.ca.read_text() == "ca"


@pytest.mark.parametrize(
    "archive", [b"", b"no zip", packed(cert_pem="cert"), packed(ca_cert_pem="x" * (2 << 20), key_pem="k", cert_pem="c")]
)
def test_a_bad_archive_changes_nothing(store: certificates.Store, archive: bytes) -> None:
    with pytest.raises(errors.RemoteError, match="cannot be read"):
        store.install(archive)
    assert not store.directory.exists()


def test_an_incomplete_directory_is_a_sentence(store: certificates.Store) -> None:
    store.install(packed(ca_cert_pem="ca", key_pem="key", cert_pem="cert"))
    store.key.unlink()
    with pytest.raises(errors.ConfigurationError, match=r"incomplete: key\.pem missing"):
        api.Identity.open(store.directory)


def test_fingerprints() -> None:
    _, certificate = x509.new_ca()
    shown = certificates.fingerprint(x509.certificate_pem(certificate).encode())
    plain = x509.fingerprint(certificate)
    assert shown.replace(":", "").lower() == plain
    for other in (plain, plain.upper(), f"SHA256:{shown}", f"sha256 Fingerprint={shown}".removeprefix("sha256 Fingerprint=")):
        assert certificates.same_fingerprint(shown, other)
    assert not certificates.same_fingerprint(shown, shown[:-2] + "00")
    assert not certificates.same_fingerprint(shown, "")
    with pytest.raises(errors.RemoteError):
        certificates.fingerprint(b"nothing")


def test_the_end_of_a_certificate_is_looked_at_when_it_is_old(store: certificates.Store) -> None:
    key, ca = x509.new_ca()
    text = x509.issue(key, ca, x509.new_key().public_key(), {"role": "user", "CN": "x", "UID": 1}, days=365)
    store.install(packed(ca_cert_pem="ca", key_pem="key", cert_pem=text))
    now = datetime.datetime.now(datetime.UTC)
    assert store.days_left(now) is None
    assert store.days_left(now + datetime.timedelta(days=355)) == 9


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("app.zip", "app.zip"), ("../../etc/passwd", "passwd"), ("/etc/passwd", "passwd"), ("..\\..\\x", "x"), (".bashrc", "bashrc"),
        ("..", "fallback"), ("", "fallback"), ("a\x1b[2Jb\n.zip", "a[2Jb.zip"), ("naïve.tar", "naïve.tar"),
    ],
)  # fmt: skip
def test_file_names_of_a_server_stay_in_the_current_directory(name: str, safe: str) -> None:
    assert handles.safe_name(name, "fallback") == safe
