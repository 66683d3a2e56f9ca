"""Certificates, identities read from them, and the matrix of who may call whom."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

import pytest

from conpaas.core import errors
from conpaas.core.https import identity, x509

UID, AID = 7, 3
PEERS = {
    "director": identity.PeerIdentity("director"),
    "frontend": identity.PeerIdentity("frontend"),
    "user": identity.PeerIdentity("user", uid=UID, aid=0),
    "other user": identity.PeerIdentity("user", uid=8, aid=0),
    "manager": identity.PeerIdentity("manager", uid=UID, aid=AID),
    "manager of another application": identity.PeerIdentity("manager", uid=UID, aid=4),
    "manager of another user": identity.PeerIdentity("manager", uid=8, aid=AID),
    "agent": identity.PeerIdentity("agent", uid=UID, aid=AID),
    "agent of another application": identity.PeerIdentity("agent", uid=UID, aid=4),
    "agent of another user": identity.PeerIdentity("agent", uid=8, aid=AID),
    "user without number": identity.PeerIdentity("user"),
    "user named CA": identity.PeerIdentity("user", uid=8, aid=0, cn="CA"),
    "nobody": identity.PeerIdentity(""),
    "nobody named CA": identity.PeerIdentity("", cn="CA"),
    "unknown role": identity.PeerIdentity("root", uid=UID, aid=AID),
}
CALLERS = {
    "manager": (identity.manager_callers(UID, AID), {"director", "user", "manager"}),
    "manager with front-end": (identity.manager_callers(UID, AID, allow_frontend=True), {"director", "user", "manager", "frontend"}),
    "agent": (identity.agent_callers(UID, AID), {"director", "manager", "agent"}),
    "agent with front-end": (identity.agent_callers(UID, AID, allow_frontend=True), {"director", "manager", "agent", "frontend"}),
}
SERVERS = {
    "manager": (identity.expect_manager(UID, AID), {"manager"}),
    "manager of the user": (identity.expect_manager(UID), {"manager", "manager of another application"}),
    "any manager": (identity.expect_manager(), {"manager", "manager of another application", "manager of another user"}),
    "agent": (identity.expect_agent(UID, AID), {"agent"}),
    "director": (identity.expect_director(), set()),
}


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("policy", CALLERS)
def test_who_may_call(policy: str, peer: str) -> None:
    check, accepted = CALLERS[policy]
    if peer in accepted:
        check(PEERS[peer])
    else:
        with pytest.raises(errors.Forbidden, match="may not be called by"):
            check(PEERS[peer])


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("policy", SERVERS)
def test_whom_one_may_call(policy: str, peer: str) -> None:
    check, accepted = SERVERS[policy]
    if peer in accepted:
        check(PEERS[peer], "10.0.0.1")
    else:
        with pytest.raises(errors.Forbidden, match=r"10\.0\.0\.1"):
            check(PEERS[peer], "10.0.0.1")


@pytest.mark.parametrize(
    ("names", "cn", "host", "accepted"),
    [
        (("director.example", "127.0.0.1"), "x", "127.0.0.1", True),
        (("Director.example",), "x", "director.EXAMPLE.", True),
        (("::1",), "x", "[0:0::1]", True),
        (("director.example",), "other.example", "other.example", False),
        ((), "director.example", "director.example", True),
        ((), "director.example", "evil.example", False),
    ],
)
@pytest.mark.parametrize("role", ["frontend", "director"])
def test_the_director_is_known_by_its_host_name(role: str, names: tuple[str, ...], cn: str, host: str, accepted: bool) -> None:
    peer = identity.PeerIdentity(role, cn=cn, names=names)
    if accepted:
        identity.expect_director()(peer, host)
    else:
        with pytest.raises(errors.Forbidden, match="is for"):
            identity.expect_director()(peer, host)


def _subject(*fields: tuple[str, str]) -> dict[str, object]:
    return {"subject": tuple((field,) for field in fields), "serialNumber": "00AB"}


@pytest.mark.parametrize(
    ("role", "uid", "aid", "cn"),
    [
        ("role", "userId", "OCSP Service Locator", "commonName"),
        ("role", "UID", "serviceLocator", "CN"),
        (identity.ROLE_OID, identity.UID_OID, identity.SERVICE_LOCATOR_OID, identity.COMMON_NAME_OID),
    ],
)
def test_fields_are_found_under_every_name_libraries_give_them(role: str, uid: str, aid: str, cn: str) -> None:
    peer = identity.from_certificate(_subject((role, "agent"), (uid, "7"), (aid, "3"), (cn, "x"), ("unknown", "y")), b"")
    assert (peer.role, peer.uid, peer.aid, peer.cn, peer.serial) == ("agent", 7, 3, "x", "ab")


@pytest.mark.parametrize("number", ["", "-1", "+7", "7 ", "0x7", "٧", "7" * 30, "seven"])
def test_numbers_that_are_not_decimal_count_for_nothing(number: str) -> None:
    assert identity.from_certificate(_subject(("role", "user"), ("userId", number)), b"").uid is None


@pytest.mark.parametrize("field", ["role", "userId", "serviceLocator"])
def test_a_field_given_twice_is_refused(field: str) -> None:
    with pytest.raises(errors.Forbidden, match="twice"):
        identity.from_certificate(_subject((field, "1"), (field, "2")), b"")


@pytest.fixture(scope="module")
def ca() -> tuple[x509.PrivateKey, object]:
    return x509.new_ca()


def _write(directory: pathlib.Path, ca_key: x509.PrivateKey, ca: object, **options: object) -> identity.Credentials:
    directory.mkdir(parents=True, exist_ok=True)
    key = x509.new_key()
    dn = {"role": "manager", "UID": UID, "serviceLocator": AID, "CN": "ConPaaS"}
    (directory / "cert.pem").write_text(x509.issue(ca_key, ca, x509.make_csr(key, "ignored"), dn, **options))  # type: ignore[arg-type]
    (directory / "key.pem").write_text(x509.key_pem(key))
    (directory / "ca_cert.pem").write_text(x509.certificate_pem(ca))  # type: ignore[arg-type]
    return identity.Credentials.from_dir(directory)


@pytest.mark.parametrize("usage", [x509.USAGE_BOTH, x509.USAGE_CLIENT])
def test_credentials_know_who_they_are(tmp_path: pathlib.Path, ca: tuple, usage: str) -> None:
    credentials = _write(tmp_path, *ca, san=["127.0.0.1", "host.example"], usage=usage)
    own = credentials.identity
    assert (own.role, own.uid, own.aid, own.cn, own.names) == ("manager", UID, AID, "ConPaaS", ("127.0.0.1", "host.example"))
    assert own == x509.read_identity(credentials.certificate.read_text())
    assert own.fingerprint == x509.fingerprint(x509.load_certificate(credentials.certificate.read_text()))


def test_missing_and_foreign_files_are_named(tmp_path: pathlib.Path, ca: tuple) -> None:
    one, other = _write(tmp_path / "one", *ca), _write(tmp_path / "other", *ca)
    shutil.copy(other.key, one.key)
    with pytest.raises(errors.ConfigurationError, match=r"key\.pem"):
        _ = one.identity
    other.ca.unlink()
    with pytest.raises(errors.ConfigurationError, match=r"ca_cert\.pem is missing"):
        identity.Credentials.from_dir(tmp_path / "other")


def test_foreign_certificates_are_not_usable(tmp_path: pathlib.Path, ca: tuple) -> None:
    foreign = _write(tmp_path / "foreign", *x509.new_ca())
    foreign.ca.write_text(x509.certificate_pem(ca[1]))
    with pytest.raises(errors.ConfigurationError, match="not usable"):
        _ = foreign.identity


def test_openssl_reads_the_classic_fields(tmp_path: pathlib.Path, ca: tuple) -> None:
    credentials = _write(tmp_path, *ca)
    command = ["openssl", "x509", "-in", str(credentials.certificate), "-noout", "-text"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for piece in ("Version: 3", "role = manager", "UID = 7", "serviceLocator = 3", "ecdsa-with-SHA256", "CA:FALSE", "Digital Signature"):
        assert piece in text
    command = ["openssl", "verify", "-x509_strict", "-CAfile", str(credentials.ca), str(credentials.certificate)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().endswith(": OK")
    command = ["openssl", "x509", "-in", str(credentials.ca), "-noout", "-text"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "CA:TRUE, pathlen:0" in text
    assert "Subject: CN = CA, O = ConPaaS, emailAddress = info@conpaas.eu" in text


def test_serials_are_random_and_long() -> None:
    serials = {x509.new_serial() for _ in range(100)}
    assert len(serials) == 100
    assert all(serial.bit_length() == 128 for serial in serials)


def test_a_leaf_cannot_sign_for_others(tmp_path: pathlib.Path, ca: tuple) -> None:
    leaf = _write(tmp_path, *ca)
    leaf_key, leaf_certificate = x509.load_key(leaf.key.read_text()), x509.load_certificate(leaf.certificate.read_text())
    key = x509.new_key()
    (tmp_path / "forged.pem").write_text(
        x509.issue(leaf_key, leaf_certificate, key.public_key(), x509.Subject(role="director", cn="CA")) + leaf.certificate.read_text()
    )
    (tmp_path / "forged.key").write_text(x509.key_pem(key))
    with pytest.raises(errors.ConfigurationError):
        _ = identity.Credentials(tmp_path / "forged.pem", tmp_path / "forged.key", leaf.ca).identity


@pytest.mark.parametrize("text", ["", "x", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"])
def test_what_is_no_request_is_refused(text: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        x509.csr_public_key(text)
    with pytest.raises(errors.InvalidArgument):
        x509.load_certificate(text)
    with pytest.raises(errors.InvalidArgument):
        x509.load_key(text)


def test_subjects_that_do_not_fit_are_refused(ca: tuple) -> None:
    key = x509.new_key().public_key()
    for dn in ({"role": "user", "CN": "x" * 65}, {"role": "user"}, {"role": "user", "CN": "x", "OU": "y"}):
        with pytest.raises(errors.InvalidArgument):
            x509.issue(*ca, key, dn)
    with pytest.raises(errors.ConfigurationError):
        x509.issue(x509.new_key(), ca[1], key, {"role": "user", "CN": "x"})


def test_the_runtime_does_without_cryptography() -> None:
    code = (
        "import sys, conpaas.core.https.server, conpaas.core.https.client; print(sorted({'cryptography', 'requests'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("peer", "text"),
    [
        (identity.PeerIdentity("user", uid=7, aid=0), "user 7"),
        (identity.PeerIdentity("manager", uid=7, aid=3), "manager of application 3 of user 7"),
        (identity.PeerIdentity("agent", aid=3), "agent of application 3"),
        (identity.PeerIdentity("director"), "director"),
        (identity.PeerIdentity("user"), "user"),
        (identity.PeerIdentity("", uid=7), "a certificate without role of user 7"),
    ],
)
def test_who_somebody_is_reads_well(peer: identity.PeerIdentity, text: str) -> None:
    assert str(peer) == text
