"""What the endpoints of accounts, certificates and clouds answer, as classic clients read it."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import zipfile
from typing import Any

import flask
import pytest

import conpaas
from conpaas.core import errors, params
from conpaas.core.https import identity, x509
from conpaas.director import app as director_app
from conpaas.director import ca, config, credits, endpoint, models, runtime

from . import conftest

NEW_USER = {"username": "carol", "email": "carol@example.org", "password": conftest.PASSWORD, "credit": "50"}
LOGIN = {"username": "alice", "password": conftest.PASSWORD}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/version", conpaas.__version__),
        ("/support_external_idp", "False"),
        ("/support_openid", "False"),
        ("/debug_level/js", "0"),
        ("/debug_level/other", "0"),
    ],
)
def test_bare_texts(api: conftest.Api, path: str, text: str) -> None:
    response = api.get(path)
    assert (response.status_code, response.get_data(as_text=True)) == (200, text)
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert "Connection" not in response.headers


def test_lists_of_services_and_clouds(api: conftest.Api) -> None:
    assert {"generic", "helloworld"} <= set(api.get("/available_services").get_json())
    assert api.get("/available_clouds").get_json() == ["default"]


def test_further_clouds_are_listed_after_the_default_one(tmp_path: Any, clock: conftest.Clock) -> None:
    path = tmp_path / "director.cfg"
    path.write_text(f"[director]\nSTATE_DIR={tmp_path}/s\n[iaas]\nDRIVER=dummy\nOTHER_CLOUDS=two, none\n[two]\nDRIVER=dummy\n")
    made = director_app.make_director(config.load(path), clock, components=False)
    assert conftest.Api(director_app.create_app(made.config, made)).get("/available_clouds").get_json() == ["default", "two"]
    made.stop()


def test_a_new_user(api: conftest.Api) -> None:
    reply = api.post("/new_user", NEW_USER).get_json()
    assert isinstance(reply.pop("uid"), int)
    assert reply.pop("created") == "2026-03-01T12:00:00"
    assert reply == {
        "username": "carol",
        "email": "carol@example.org",
        "fname": "",
        "lname": "",
        "affiliation": "",
        "credit": 50,
        "uuid": "",
        "openid": "",
        "password": "",
    }


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"username": ""}, "Missing required field: 'username'"),
        ({"email": ""}, "Missing required field: 'email'"),
        ({"password": ""}, "Missing required field: 'password'"),
        ({"username": "Alice"}, "Username 'Alice' is already taken"),
        ({"email": "alice@example.org"}, "E-mail 'alice@example.org' is already registered"),
        ({"credit": "many"}, "Required credit 'many' is not a valid integer."),
        ({"credit": "1.5"}, "Required credit '1.5' is not a valid integer."),
        ({"credit": "-1"}, "Required credit -1 cannot be a negative integer."),
        ({"credit": "51"}, "Cannot allocate 51 credit for a new user (max credit 50)."),
        ({"username": "CA"}, "The user name 'CA' is reserved."),
        ({"password": "short"}, "The password is too short: it takes at least 8 characters."),
    ],
)
def test_a_new_user_that_cannot_be(api: conftest.Api, alice: models.User, change: dict[str, str], text: str) -> None:
    response = api.post("/new_user", {**NEW_USER, **change})
    assert (response.status_code, response.get_json()) == (200, {"error": text})


def test_credit_may_be_left_out(api: conftest.Api) -> None:
    assert api.post("/new_user", {key: NEW_USER[key] for key in ("username", "email", "password")}).get_json()["credit"] == 50


def test_registrations_are_limited_per_address(api: conftest.Api, monkeypatch: pytest.MonkeyPatch, clock: conftest.Clock) -> None:
    def register(number: int, address: str = "192.0.2.1", peer: identity.PeerIdentity | None = None) -> Any:
        fields = {**NEW_USER, "username": f"user{number}", "email": f"u{number}@example.org"}
        return api.post("/new_user", fields, address=address, peer=peer).get_json()

    assert all("uid" in register(number) for number in range(20))
    assert "Too many new accounts from 192.0.2.1" in register(20)["error"]
    assert "uid" in register(21, "192.0.2.2")
    assert "uid" in register(22, peer=identity.PeerIdentity(role="frontend"))
    clock.forward(hours=1, seconds=1)
    assert "uid" in register(23)


def test_registration_can_be_closed(tmp_path: Any, clock: conftest.Clock) -> None:
    path = tmp_path / "director.cfg"
    path.write_text(f"[director]\nSTATE_DIR={tmp_path}/s\nREGISTRATION = closed\n")
    made = director_app.make_director(config.load(path), clock, components=False)
    reply = conftest.Api(director_app.create_app(made.config, made)).post("/new_user", NEW_USER).get_json()
    assert reply == {"error": "This Director does not let people register themselves.", "hint": "Ask its operator for an account."}
    made.stop()


def test_login_echoes_the_md5_of_what_was_typed(api: conftest.Api, alice: models.User) -> None:
    reply = api.post("/login", LOGIN).get_json()
    assert reply["password"] == hashlib.md5(conftest.PASSWORD.encode()).hexdigest()
    assert (reply["uid"], reply["username"], reply["credit"]) == (alice.uid, "alice", 10)


def test_a_failed_login_is_false_also_while_slowed_down(api: conftest.Api, alice: models.User) -> None:
    for _ in range(8):
        response = api.post("/login", {**LOGIN, "password": "wrong"})
        assert (response.status_code, response.get_json()) == (200, False)


def test_a_slowed_down_getcerts_says_so(api: conftest.Api, alice: models.User) -> None:
    for _ in range(6):
        api.post("/getcerts", {**LOGIN, "password": "wrong"})
    assert "Too many failed logins" in api.post("/getcerts", LOGIN).get_json()["error"]


@pytest.mark.parametrize("verb", ["GET", "POST"])
def test_passwords_are_never_read_from_the_url(api: conftest.Api, alice: models.User, verb: str) -> None:
    reply = api.call(verb, "/getcerts", query_string=LOGIN).get_json()
    assert reply == {"error": "Send the password in the body of a POST request, never in the URL."}


def test_getcerts_is_a_zip_of_three(director: runtime.Director, api: conftest.Api, alice: models.User) -> None:
    first, second = (api.post("/getcerts", {**LOGIN, "service_id": "0", "uuid": "<none>"}) for _ in range(2))
    assert first.content_type == "application/zip"
    assert first.headers["Content-Disposition"] == "attachment; filename=certs.zip"
    with zipfile.ZipFile(io.BytesIO(first.data)) as archive:
        assert archive.namelist() == ["key.pem", "cert.pem", "ca_cert.pem"]
        who = x509.read_identity(archive.read("cert.pem"))
        assert archive.getinfo("key.pem").external_attr >> 16 == 0o600
        assert archive.read("ca_cert.pem").decode() == director.authority.ca_pem
    assert (who.role, who.uid) == ("user", alice.uid)
    with zipfile.ZipFile(io.BytesIO(second.data)) as archive:
        assert x509.read_identity(archive.read("cert.pem")).serial != who.serial


def test_the_account_and_its_credits(api: conftest.Api, alice: models.User) -> None:
    peer = conftest.user_peer(alice)
    account = api.get("/user_config", peer=peer, query_string={"username": "bob", "service_id": "0"}).get_json()
    assert account["username"] == "alice"
    assert "password" not in account
    assert api.get("/user_credit", peer=peer).get_data(as_text=True) == "10"


def test_changing_the_password(api: conftest.Api, alice: models.User) -> None:
    assert api.post("/change_password", {**LOGIN, "new_password": "short"}).get_json()["error"].startswith("The password is too short")
    assert api.post("/change_password", {**LOGIN, "new_password": "something else"}).get_json() == {}
    assert api.post("/login", LOGIN).get_json() is False
    assert api.post("/login", {**LOGIN, "password": "something else"}).get_json()["uid"] == alice.uid


def manager_of(director: runtime.Director, user: models.User) -> identity.PeerIdentity:
    return conftest.node_peer("manager", user.uid, conftest.application_of(director, user))


def test_a_manager_reads_its_owners_credits(director: runtime.Director, api: conftest.Api, alice: models.User) -> None:
    assert api.post("/credit", {"service_id": "0"}, peer=manager_of(director, alice)).get_json() == {"credit": 10}


@pytest.mark.parametrize(
    ("fields", "reply", "left"),
    [
        ({}, {"error": False}, 9),
        ({"decrement": "3"}, {"error": False}, 7),
        ({"decrement": "10"}, {"error": False}, 0),
        ({"decrement": "11"}, {"error": True}, 10),
        ({"decrement": "-5"}, {"error": "Parameter 'decrement': -5 is not between 1 and 1000000."}, 10),
        ({"aid": "4711"}, {"error": "A manager may only spend credits for its own application."}, 10),
    ],
)
def test_a_manager_spends_its_owners_credits(
    director: runtime.Director, api: conftest.Api, alice: models.User, fields: dict[str, str], reply: dict[str, Any], left: int
) -> None:
    assert api.post("/callback/decrementUserCredit.php", fields, peer=manager_of(director, alice)).get_json() == reply
    with director.database.reader() as session:
        assert credits.balance(session, alice.uid) == left


@pytest.mark.parametrize("as_file", [True, False])
def test_a_manager_gets_certificates_for_its_own_agents_only(
    director: runtime.Director, api: conftest.Api, alice: models.User, as_file: bool
) -> None:
    csr = x509.make_csr(x509.new_key(), "CN=evil,role=frontend")
    part: Any = (io.BytesIO(csr.encode()), "csr.pem") if as_file else csr
    peer = manager_of(director, alice)
    response = api.post("/ca/get_cert.php", {"csr": part}, peer=peer)
    who = x509.read_identity(response.get_data(as_text=True))
    assert (who.role, who.uid, who.aid, who.cn) == ("agent", alice.uid, peer.aid, "ConPaaS")


@pytest.mark.parametrize("content", [b"", b"junk", b"\xff\xfe", b"x" * 70000])
def test_a_bad_signing_request_is_an_error(director: runtime.Director, api: conftest.Api, alice: models.User, content: bytes) -> None:
    response = api.post("/ca/get_cert.php", {"csr": (io.BytesIO(content), "c")}, peer=manager_of(director, alice))
    assert response.status_code == 200
    assert "internal" not in response.get_json()["error"]


def test_enrolment(director: runtime.Director, api: conftest.Api) -> None:
    with director.database.session() as session:
        token = ca.new_token(session, role="manager", uid=3, aid=4, vm="vm", now=director.clock())
    csr = x509.make_csr(x509.new_key(), "x")
    first = api.post("/ca/enroll", {"token": token, "csr": (io.BytesIO(csr.encode()), "csr.pem")})
    assert first.data == api.post("/ca/enroll", {"token": token, "csr": csr}).data
    assert x509.read_identity(first.data).aid == 4
    refused = api.post("/ca/enroll", {"token": token, "csr": x509.make_csr(x509.new_key(), "x")})
    assert (refused.status_code, refused.get_json()) == (
        403,
        {"error": "The enrolment token was already used with another certificate signing request."},
    )
    assert api.post("/ca/enroll", {"token": "guess", "csr": csr}).status_code == 403


def test_anybody_may_read_the_ca_certificate(director: runtime.Director, api: conftest.Api) -> None:
    pem = api.get("/ca.pem").get_data(as_text=True)
    assert x509.fingerprint(x509.load_certificate(pem)) == director.authority.ca_fingerprint


def test_resources_are_ones_own_and_the_default_cloud_has_its_outside_name(
    director: runtime.Director, api: conftest.Api, alice: models.User, bob: models.User
) -> None:
    with director.database.session() as session:
        for number, owner in enumerate((alice, bob)):
            aid = conftest.application_of(director, owner)
            session.add(
                models.Resource(
                    vmid=f"vm{number}", cloud="iaas", app_id=aid, role="manager", ip="127.15.0.9", state="running", created=director.clock()
                )
            )
        session.add(models.Resource(vmid=None, cloud="iaas", app_id=aid, role="agent"))
    director.run_loop_once("credits")
    reply = api.get("/list_resources", peer=conftest.user_peer(alice)).get_json()
    assert reply == [
        {
            "rid": 1,
            "vmid": "vm0",
            "app_id": conftest.application_of(director, alice),
            "app_name": "New Application",
            "service_id": 0,
            "charged": 1,
            "ip": "127.15.0.9",
            "role": "manager",
            "cloud": "default",
            "created": "2026-03-01 12:00:00",
            "state": "running",
        }
    ]


def test_operators_administer_accounts(director: runtime.Director, api: conftest.Api, alice: models.User, operator: models.User) -> None:
    peer = conftest.user_peer(operator)
    listed = api.get("/operator/users", peer=peer).get_json()
    assert [(user["username"], user["credit"], user["active"]) for user in listed] == [("alice", 10, True), ("root", 0, True)]
    assert all("password" not in user for user in listed)
    assert api.post("/operator/add_credit", {"username": "alice", "credit": "-4"}, peer=peer).get_json() == {"credit": 6}
    assert api.post("/operator/add_credit", {"username": "x", "credit": "1"}, peer=peer).get_json()["error"] == "Unknown user 'x'"
    assert api.post("/operator/set_active", {"username": "alice", "active": "false"}, peer=peer).get_json() == {}
    assert api.post("/login", LOGIN).get_json() is False


def test_operators_revoke_certificates(director: runtime.Director, api: conftest.Api, alice: models.User, operator: models.User) -> None:
    with director.database.session() as session:
        _, pem = director.authority.issue_user(session, alice)
    who = x509.read_identity(pem)
    assert api.get("/user_credit", peer=who).get_json() == 10
    assert api.post("/operator/revoke_certificate", {"serial": who.serial.upper()}, peer=conftest.user_peer(operator)).get_json() == {}
    assert api.get("/user_credit", peer=who).status_code == 401
    assert (
        "no certificate" in api.post("/operator/revoke_certificate", {"serial": "1"}, peer=conftest.user_peer(operator)).get_json()["error"]
    )


def test_health_and_metrics(api: conftest.Api, alice: models.User) -> None:
    assert api.get("/health").get_json() == {"status": "ok", "version": conpaas.__version__}
    page = api.get("/metrics").get_data(as_text=True)
    assert re.search(r'^conpaas_director_requests_total\{endpoint="/health",status="200"\} [1-9]', page, re.MULTILINE)
    assert "process_resident_memory_bytes" in page
    assert "conpaas_director_users 1" in page
    assert 'conpaas_director_applications{status="INIT"} 1' in page


def test_the_api_describes_itself(api: conftest.Api) -> None:
    by_rule = {entry["rule"]: entry for entry in api.get("/api").get_json()}
    assert by_rule["/getcerts"]["auth"] == "password"
    assert [param["name"] for param in by_rule["/getcerts"]["params"]][:2] == ["username", "password"]


@pytest.mark.parametrize(("verb", "path", "status"), [("GET", "/nothing", 404), ("DELETE", "/version", 405), ("GET", "/login", 405)])
def test_what_does_not_exist_is_a_json_error(api: conftest.Api, verb: str, path: str, status: int) -> None:
    response = api.call(verb, path)
    assert response.status_code == status
    assert path in response.get_json()["error"]


def test_a_body_that_is_too_large_is_refused(api: conftest.Api) -> None:
    response = api.post("/login", {"username": "x" * (director_app.MAX_BODY + 1)})
    assert (response.status_code, response.get_json()) == (413, {"error": "The body of the request is too large."})


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"junk"),
        ("multipart/form-data; boundary=x", b"--x\r\nbroken"),
        ("application/json", b'{"username": "alice"}'),
        ("application/x-www-form-urlencoded", b"\xff\xfe=%00&&=&username=%ED%A0%80"),
    ],
)
def test_bodies_that_make_no_sense_are_failed_logins(api: conftest.Api, content_type: str, body: bytes) -> None:
    response = api.call("POST", "/login", data=body, content_type=content_type)
    assert (response.status_code, response.get_json()) == (200, False)


def test_a_failure_of_our_own_shows_an_incident_and_logs_the_reason(
    director: runtime.Director, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    blueprint = flask.Blueprint("broken", __name__)
    monkeypatch.setattr(endpoint, "REGISTRY", {})

    @endpoint.endpoint(blueprint, "/broken", auth="none", params=[params.Param("n", params.Integer(), 0)])
    def broken(n: int) -> None:
        """Break."""
        if n:
            raise errors.WrongState("Not now.", hint="Later.")
        raise ZeroDivisionError("secret detail")

    application = director_app.create_app(director.config, director)
    application.register_blueprint(blueprint)
    api = conftest.Api(application)
    with caplog.at_level(logging.ERROR):
        response = api.post("/broken")
    text = response.get_json()["error"]
    assert response.status_code == 200
    assert text.startswith("internal error, incident ")
    assert "secret detail" not in text
    assert any(text.split()[-1] in record.getMessage() and record.exc_info for record in caplog.records)
    assert api.post("/broken", {"n": "1"}).get_json() == {"error": "Not now.", "hint": "Later."}
    assert api.post("/broken", {"n": "x"}).get_json()["error"].startswith("Parameter 'n'")
    assert api.post("/broken", {"m": "1"}).get_json()["error"].startswith("Unexpected parameters")


def test_logs_hold_no_passwords(api: conftest.Api, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        api.post("/new_user", NEW_USER)
        api.post("/login", {"username": "carol", "password": conftest.PASSWORD})
        api.call("GET", "/getcerts", query_string={"username": "carol", "password": conftest.PASSWORD})
        api.post("/login", {"username": "carol", "password": "wrong-secret"})
        api.post("/change_password", {"username": "carol", "password": conftest.PASSWORD, "new_password": "new-secret"})
    assert conftest.PASSWORD not in caplog.text
    assert "secret" not in caplog.text
    assert json.dumps(NEW_USER["username"])[1:-1] in caplog.text
