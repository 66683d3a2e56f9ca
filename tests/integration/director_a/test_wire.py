"""The Director over real TLS, called as raw as the classic clients call it."""

from __future__ import annotations

import concurrent.futures
import hashlib
import io
import json
import pathlib
import ssl
import subprocess
import zipfile

import pytest

import conpaas
from conpaas.core import errors
from conpaas.core.https import client, identity, x509
from conpaas.director import app, ca, config, models, serve

from . import conftest

LOGIN = {"username": "alice", "password": conftest.PASSWORD}


@pytest.mark.parametrize("absolute", [True, False])
def test_absolute_and_origin_form_targets(running: conftest.Running, absolute: bool) -> None:
    reply = running.get("/version", absolute=absolute)
    assert (reply.status, reply.text) == (200, conpaas.__version__)
    assert reply.headers["access-control-allow-origin"] == "*"
    assert reply.headers["connection"] == "close"


def test_a_connection_is_kept_unless_the_client_asks_to_close_it(running: conftest.Running) -> None:
    request = f"GET /version HTTP/1.1\r\nHost: {conftest.HOST}\r\n\r\n".encode()
    with running.connect() as connection:
        for _ in range(3):
            connection.sendall(request)
            received = b""
            while not received.endswith(b"\r\n\r\n" + conpaas.__version__.encode()):
                received += connection.recv(4096)
            assert b"connection: close" not in received.lower()


def test_the_classic_sequence_from_registration_to_a_call_with_a_certificate(running: conftest.Running, holder: conftest.Holder) -> None:
    stray = {"service_id": "0"}
    fields = {
        "username": "carol",
        "email": "carol@example.org",
        "password": conftest.PASSWORD,
        "credit": "50",
        "uuid": "<none>",
        "openid": "<none>",
    }
    assert json.loads(running.post("/new_user", {**fields, **stray}).body)["username"] == "carol"

    login = {"username": "carol", "password": conftest.PASSWORD, **stray}
    account = json.loads(running.post("/login", login).body)
    assert account["password"] == hashlib.md5(conftest.PASSWORD.encode()).hexdigest()

    with zipfile.ZipFile(io.BytesIO(running.post("/getcerts", login).body)) as archive:
        key, certificate, authority = (archive.read(name).decode() for name in ("key.pem", "cert.pem", "ca_cert.pem"))
    mine = holder.save(certificate, key, authority)
    assert json.loads(running.get("/user_config?username=carol&service_id=0", mine).body)["uid"] == account["uid"]
    assert running.get("/user_credit?username=other&service_id=0", mine).text == "50"
    assert running.post("/list_resources", {"username": "carol", **stray}, mine).text == "[]"


def test_an_urlencoded_and_an_empty_body(running: conftest.Running, alice: models.User) -> None:
    body = f"username=alice&password={conftest.PASSWORD.replace(' ', '+')}"
    form = "Content-Type: application/x-www-form-urlencoded"
    head = f"POST /login HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{form}\r\nContent-Length: {{}}\r\n\r\n"
    assert json.loads(running.send((head.format(len(body)) + body).encode()).body)["uid"] == alice.uid
    assert running.send(head.format(0).encode()).body == b"false"


def test_only_certificates_of_the_own_authority_get_through(running: conftest.Running, holder: conftest.Holder, alice: models.User) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        running.get("/user_credit", holder.stranger(alice.uid))
    assert running.get("/user_credit", holder.user(alice)).text == "10"


def test_every_role_is_kept_to_its_place(running: conftest.Running, holder: conftest.Holder, alice: models.User, bob: models.User) -> None:
    with running.director.database.reader() as session:
        mine, others = (session.query(models.Application).filter_by(user_id=user.uid).one().aid for user in (alice, bob))
    user, agent = holder.user(alice), holder.node("agent", alice.uid, mine)
    manager, foreign = holder.node("manager", alice.uid, mine), holder.node("manager", alice.uid, others)
    frontend, calling = running.director.authority.listening, running.director.authority.calling
    operator = holder.user(conftest.register(running, "root", "operator"))

    def statuses(path: str) -> list[tuple[int, str]]:
        replies = [running.post(path, {}, who) for who in (None, user, agent, manager, foreign, frontend, calling, operator)]
        return [(reply.status, reply.text) for reply in replies]

    no_certificate = (401, "cert_required: no client certificate was presented")
    no_uid = (401, "cert_required: client certificate does NOT provide UID")

    def wrong(role: str, wanted: str) -> tuple[int, str]:
        return 403, json.dumps(
            {"error": f"A certificate of role '{role}' may not do this; it takes one of role '{wanted}'."}, separators=(",", ":")
        )

    assert statuses("/user_credit") == [
        no_certificate, (200, "10"), wrong("agent", "user"), wrong("manager", "user"), wrong("manager", "user"), no_uid, no_uid,
        (200, "10"),
    ]  # fmt: skip
    assert statuses("/credit") == [
        no_certificate, wrong("user", "manager"), wrong("agent", "manager"), (200, '{"credit":10}'), (200, "false"), no_uid, no_uid,
        wrong("user", "manager"),
    ]  # fmt: skip
    only_operators = (403, '{"error":"Only an operator of this Director may do this."}')
    answers = statuses("/operator/set_active")
    assert answers[1] == only_operators
    assert answers[:1] + answers[2:7] == [
        no_certificate, wrong("agent", "user"), wrong("manager", "user"), wrong("manager", "user"), no_uid, no_uid,
    ]  # fmt: skip
    assert answers[7] == (200, '{"error":"Missing the mandatory parameter \'username\'."}')


def test_our_own_client_trusts_the_certificate_for_its_host_only(running: conftest.Running) -> None:
    authority = running.director.authority.ca_path
    mine = client.DirectorClient(running.url, ca=authority)
    assert mine.raw("version").decode() == conpaas.__version__
    assert mine.get("available_clouds") == ["default"]
    with pytest.raises(errors.RemoteError, match="User authentication failed"):
        mine.post("getcerts", {"username": "x", "password": "y"})
    mine.close()


def test_a_vm_enrols_with_a_request_made_by_openssl(running: conftest.Running, tmp_path: pathlib.Path) -> None:
    director = running.director
    with director.database.session() as session:
        token = ca.new_token(session, role="agent", uid=3, aid=4, vm="vm", now=director.clock())
    key, csr, certificate = tmp_path / "key.pem", tmp_path / "csr.pem", tmp_path / "cert.pem"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    request = ["openssl", "req", "-new", *curve, "-subj", "/CN=CA/O=evil", "-keyout", str(key), "-out", str(csr)]
    subprocess.run(request, check=True, capture_output=True)
    curl = ["curl", "--silent", "--show-error", "--fail", "--cacert", str(director.authority.ca_path), "--output", str(certificate)]
    form = ["--form", f"token={token}", "--form", f"csr=<{csr}", f"{running.url}/ca/enroll"]
    subprocess.run([*curl, *form], check=True)
    who = x509.read_identity(certificate.read_bytes())
    assert (who.role, who.uid, who.aid, who.cn) == ("agent", 3, 4, "ConPaaS")
    as_file = ["--form", f"token={token}", "--form", f"csr=@{csr}", f"{running.url}/ca/enroll"]
    first = certificate.read_bytes()
    subprocess.run([*curl, *as_file], check=True)
    assert certificate.read_bytes() == first
    credentials = identity.Credentials(certificate, key, director.authority.ca_path)
    assert credentials.identity.role == "agent"
    wrong = ["--form", "token=guess", "--form", f"csr=<{csr}", f"{running.url}/ca/enroll"]
    assert subprocess.run([*curl, *wrong], check=False, capture_output=True).returncode == 22


def test_logins_at_the_same_time_all_succeed(running: conftest.Running, alice: models.User) -> None:
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        logins = [pool.submit(running.post, "/login", LOGIN) for _ in range(30)]
        versions = [pool.submit(running.get, "/version") for _ in range(30)]
        assert all(json.loads(login.result().body)["uid"] == alice.uid for login in logins)
        assert all(version.result().status == 200 for version in versions)


def test_two_directors_on_one_database_count_guesses_together(
    running: conftest.Running, alice: models.User, configuration: config.DirectorConfig
) -> None:
    second = serve.DirectorServer(configuration, app.make_director(configuration, components=False))
    second.start()
    try:
        ports = [running.port, second.port]
        for number in range(6):
            running.port = ports[number % 2]
            running.url = f"https://{conftest.HOST}:{running.port}"
            assert running.post("/login", {**LOGIN, "password": "wrong"}).text == "false"
        for port in ports:
            running.port, running.url = port, f"https://{conftest.HOST}:{port}"
            assert "Too many failed logins" in running.post("/getcerts", LOGIN).text
    finally:
        second.stop()


def test_a_renewed_certificate_is_used_without_a_restart(running: conftest.Running) -> None:
    def presented() -> str:
        with running.connect() as connection:
            return str((connection.getpeercert() or {})["serialNumber"])

    before = presented()
    (running.director.authority.cert_dir / "cert.pem").unlink()
    running.director.run_loop_once("certificates")
    assert presented() != before
    assert running.get("/version").status == 200


@pytest.mark.parametrize(
    "request_text",
    [
        "GET /version\r\n\r\n",
        "POST /login HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: x\r\n\r\n",
        "BREW /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET /%00%ff%2e%2e/etc HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "POST /login HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: multipart/form-data\r\nContent-Length: 3\r\n\r\nabc",
    ],
)
def test_nonsense_is_refused_and_the_next_request_is_served(running: conftest.Running, request_text: str) -> None:
    reply = running.send(request_text.encode())
    assert reply.status in {200, 400, 404, 405, 501}
    assert b"Traceback" not in reply.body
    assert running.get("/version").status == 200
