"""Whom the server lets in: certificates, roles, and what TLS may not bend."""

from __future__ import annotations

import concurrent.futures
import json
import pathlib
import shutil
import ssl
import threading
from typing import Any

import pytest

from conpaas.core import errors
from conpaas.core.https import identity, x509

UID, AID = 7, 3
ECHO = b"GET /?service_id=0&method=echo&id=1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
KEPT = ECHO.replace(b"Connection: close\r\n", b"")

HOLDERS: dict[str, tuple[Any, ...]] = {
    "director": ("director", None, None),
    "frontend": ("frontend", None, None),
    "user": ("user", UID, 0),
    "other user": ("user", 8, 0),
    "manager": ("manager", UID, AID),
    "manager of another application": ("manager", UID, 4),
    "manager of another user": ("manager", 8, AID),
    "agent": ("agent", UID, AID),
    "agent of another application": ("agent", UID, 4),
}
POLICIES = {
    "manager": (identity.manager_callers(UID, AID), {"director", "user", "manager"}),
    "manager with front-end": (identity.manager_callers(UID, AID, True), {"director", "user", "manager", "frontend"}),
    "agent": (identity.agent_callers(UID, AID), {"director", "manager", "agent"}),
}


def status(reply: bytes) -> int:
    return int(reply.split(b" ", 2)[1])


def result(reply: bytes) -> Any:
    return json.loads(reply.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("policy", POLICIES)
def test_the_matrix_of_callers(start: Any, pki: Any, policy: str) -> None:
    check, accepted = POLICIES[policy]
    running = start(check)
    for holder, fields in HOLDERS.items():
        reply = running.talk(pki.issue(*fields), ECHO)
        assert (status(reply) == 200) == (holder in accepted), holder
        if holder not in accepted:
            assert status(reply) == 403
            assert "may not be called by" in result(reply)["error"]


def test_a_user_named_ca_is_nobody_special(start: Any, pki: Any) -> None:
    running = start()
    for role in ("user", "frontend", "CA"):
        assert status(running.talk(pki.issue(role, 8, 0, cn="CA"), ECHO)) == 403


def refused(running: Any, credentials: identity.Credentials | None, **options: Any) -> bool:
    """True if TLS itself refuses the client (with TLS 1.3 the client learns it with its first read)."""
    try:
        with running.connect(credentials, **options) as sock:
            sock.sendall(ECHO)
            return sock.recv(100) == b""
    except (ssl.SSLError, ConnectionError):
        return True


def test_certificates_of_others_are_refused_by_tls(start: Any, pki: Any, tmp_path: pathlib.Path) -> None:
    foreign = type(pki)(tmp_path / "foreign")
    running = start()
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        options = {"minimum_version": version, "maximum_version": version}
        assert refused(running, None, **options)
        assert refused(running, foreign.issue("director", None, None), **options)
        assert refused(running, _signed_by_leaf(pki, tmp_path / f"leaf{version}"), **options)
        assert refused(running, _server_only(pki), **options)
        assert not refused(running, pki.issue("manager"), **options)


def _server_only(pki: Any) -> identity.Credentials:
    """A certificate that is for servers only cannot call."""
    return pki.issue("director", None, None, usage=x509.USAGE_SERVER)  # type: ignore[no-any-return]


def _signed_by_leaf(pki: Any, directory: pathlib.Path) -> identity.Credentials:
    """A certificate named CA, signed with a user's own key, and sent together with the user's certificate."""
    user = pki.issue("user", 8, 0, cn="CA")
    directory.mkdir()
    key = x509.new_key()
    leaf = x509.load_certificate(user.certificate.read_text())
    forged = x509.issue(x509.load_key(user.key.read_text()), leaf, key.public_key(), x509.Subject(role="director", cn="CA"))
    (directory / "cert.pem").write_text(forged + user.certificate.read_text())
    (directory / "key.pem").write_text(x509.key_pem(key))
    shutil.copy(user.ca, directory / "ca_cert.pem")
    return identity.Credentials.from_dir(directory)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_protocols_are_refused(start: Any, manager: Any) -> None:
    running = start()
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        assert refused(running, manager, minimum_version=version, maximum_version=version)


@pytest.mark.parametrize("mode", ["optional", "required"])
def test_client_certificates_can_be_optional(start: Any, pki: Any, mode: str) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = str(environ["conpaas.peer"]).encode()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    running = start(client_certificates=mode, app=app)
    assert running.talk(pki.issue("user", 9, 0), ECHO).endswith(b"user 9")
    if mode == "optional":
        assert running.talk(None, ECHO).endswith(b"None")
        assert refused(running, type(pki)(pathlib.Path(running.spool) / "foreign").issue("user"))
    else:
        assert refused(running, None)


def test_without_certificate_only_small_bodies_are_taken(start: Any, pki: Any) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = str(len(environ["wsgi.input"].read())).encode()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    running = start(client_certificates="optional", app=app)
    head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n"
    small, large = (head.format(size).encode() + b"x" * size for size in (64 * 1024, 64 * 1024 + 1))
    assert running.talk(None, small).endswith(b"\r\n\r\n65536")
    assert status(running.talk(None, large)) == 413
    assert running.talk(pki.issue("user"), large).endswith(b"\r\n\r\n65537")


def test_expired_certificates_are_refused(start: Any, pki: Any) -> None:
    expired = pki.issue("manager", days=0)
    with pytest.raises(errors.ConfigurationError, match="expired"):
        _ = expired.identity
    assert refused(start(), expired)


def test_an_rpc_server_with_optional_certificates_still_wants_one(start: Any) -> None:
    running = start(client_certificates="optional")
    reply = running.talk(None, ECHO)
    assert status(reply) == 403
    assert "certificate is needed" in result(reply)["error"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_resumed_session_still_knows_its_certificate(start: Any, pki: Any, version: ssl.TLSVersion) -> None:
    running = start(identity.manager_callers(UID, AID))
    holder = pki.issue("user", UID, 0)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.minimum_version = context.maximum_version = version
    holder.load_into(context)
    with context.wrap_socket(running.connect_plain()) as first:
        first.sendall(KEPT)
        serial = result(first.recv(65536))["result"]["serial"]
        session = first.session
    with context.wrap_socket(running.connect_plain(), session=session) as second:
        second.sendall(ECHO)
        assert result(second.recv(65536))["result"]["serial"] == serial == holder.identity.serial
        assert second.session_reused == (version == ssl.TLSVersion.TLSv1_2)


def test_a_session_is_no_way_into_another_server(start: Any, pki: Any) -> None:
    one, other = start(identity.manager_callers(UID, AID)), start(identity.manager_callers(8, 4))
    holder = pki.issue("user", UID, 0)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    holder.load_into(context)
    with context.wrap_socket(one.connect_plain()) as first:
        first.sendall(KEPT)
        assert status(first.recv(65536)) == 200
        session = first.session
    with context.wrap_socket(other.connect_plain(), session=session) as second:
        second.sendall(ECHO)
        assert status(second.recv(65536)) == 403


def test_renewed_credentials_are_used_for_new_connections(start: Any, pki: Any) -> None:
    credentials = pki.issue("manager")
    running = start(credentials=credentials)
    renewed = pki.issue("manager")
    shutil.copy(renewed.certificate, credentials.certificate)
    shutil.copy(renewed.key, credentials.key)
    running.https.reload_credentials()
    with running.connect(credentials, verify_mode=ssl.CERT_REQUIRED) as sock:
        shown = identity.of_peer(sock)
    assert shown is not None
    assert shown.serial == renewed.identity.serial


def test_credentials_are_renewed_while_clients_shake_hands(start: Any, pki: Any) -> None:
    running = start(credentials=pki.issue("manager"))
    holder = pki.issue("user", UID, 0)
    renewing = threading.Event()

    def renew() -> None:
        while not renewing.is_set():
            running.https.reload_credentials()

    renewer = threading.Thread(target=renew)
    renewer.start()
    try:
        with concurrent.futures.ThreadPoolExecutor(4) as clients:
            answers = list(clients.map(lambda _: status(running.talk(holder, ECHO)), range(200)))
    finally:
        renewing.set()
        renewer.join()
    assert answers == [200] * 200


def test_bad_files_leave_the_credentials_as_they_were(start: Any, pki: Any) -> None:
    credentials = pki.issue("manager")
    running = start(credentials=credentials)
    before = credentials.certificate.read_bytes()
    credentials.certificate.write_text("nothing of the kind")
    with pytest.raises(errors.ConfigurationError, match=r"cert\.pem"):
        running.https.reload_credentials()
    credentials.certificate.write_bytes(before)
    assert status(running.talk(pki.issue("user", UID, 0), ECHO)) == 200


def test_rsa_certificates_work(start: Any, pki: Any) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    running = start(credentials=pki.issue("manager", key=key))
    assert status(running.talk(pki.issue("user", UID, 0, key=key), ECHO)) == 200
