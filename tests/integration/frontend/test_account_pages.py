"""The pages of the account, of credits and of operators, with a real Director behind them."""

from __future__ import annotations

import csv
import html
import io
import itertools
import re
import zipfile
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from tests.support import frontends

from conpaas.director import models

_NUMBERS = itertools.count(1)
NEW_PASSWORD = "another long password"
HOSTILE = (
    "\"'><script>alert(1)</script>",
    "emoji 🦉 and ümläuts",
    "{{ 7 * 7 }}{% raw %}",
    "a" * 200,
    "=cmd|' /C calc'!A0",
    "\u202egnp.exe",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[frontends.Whole]:
    with frontends.running(tmp_path_factory.mktemp("account")) as made:
        made.register("opal", role="operator")
        yield made


@pytest.fixture
def alice(whole: frontends.Whole) -> frontends.Person:
    """Somebody new for each test."""
    name = f"alice{next(_NUMBERS)}"
    whole.register(name)
    return whole.person(name)


@pytest.fixture
def opal(whole: frontends.Whole) -> frontends.Person:
    return whole.person("opal")


def uid(whole: frontends.Whole, name: str) -> int:
    with whole.director.database.reader() as session:
        return int(session.scalars(sa.select(models.User.uid).filter_by(username=name)).one())


class TestAccount:
    def test_the_profile_is_changed(self, alice: frontends.Person) -> None:
        reply = alice.post("/account/profile", fname="Ann", lname="O'Neill", email=f"{alice.name}@example.net", affiliation="Zoo")
        assert (reply.status_code, reply.headers["location"]) == (303, "/account")
        page = alice.page("/account")
        assert "Your profile is saved." in page
        assert 'value="O&#39;Neill"' in page and 'value="Zoo"' in page

    @pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
    def test_hostile_names_are_text(self, alice: frontends.Person, text: str) -> None:
        alice.post("/account/profile", fname=text, lname=text, email=f"{alice.name}@example.org", affiliation=text)
        page = alice.page("/account")
        assert html.escape(text, quote=True).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in page
        assert "<script>alert" not in page
        assert ">49<" not in page

    def test_what_is_wrong_is_said_beside_the_form_and_nothing_is_lost(self, alice: frontends.Person) -> None:
        for fields, said in (
            ({"email": "nothing"}, "Give your e-mail address."),
            ({"email": "opal@example.org"}, "already"),
            ({"fname": "x" * 10_000, "email": f"{alice.name}@example.org"}, "longer than"),
        ):
            reply = alice.post("/account/profile", **{"lname": "typed just now", **fields})
            assert reply.status_code in (400, 409), reply.text
            assert said in reply.text
            assert "typed just now" in reply.text

    def test_a_new_password_ends_the_session(self, whole: frontends.Whole, alice: frontends.Person) -> None:
        other = whole.person(alice.name)
        for old, new, again, said in (
            ("wrong wrong", NEW_PASSWORD, NEW_PASSWORD, "The present password is not right."),
            (frontends.PASSWORD, "short", "short", "at least 8 characters"),
            (frontends.PASSWORD, NEW_PASSWORD, NEW_PASSWORD + "x", "The two new passwords differ."),
        ):
            reply = alice.post("/account/password", old=old, new=new, again=again)
            assert reply.status_code == 400
            assert said in reply.text
            assert new not in reply.text
        reply = alice.post("/account/password", old=frontends.PASSWORD, new=NEW_PASSWORD, again=NEW_PASSWORD)
        assert reply.status_code == 303 and "/sign-in" in reply.headers["location"]
        for person in (alice, other):
            assert "/sign-in" in person.get("/account").headers["location"]
        assert alice.sign_in(frontends.PASSWORD).status_code == 403
        assert alice.sign_in(NEW_PASSWORD).headers["location"] == "/apps"
        alice.page("/account")

    def test_certificates_are_listed_and_revoked(self, whole: frontends.Whole, alice: frontends.Person) -> None:
        other = whole.person(alice.name)
        page = alice.page("/account")
        assert page.count("This session") == 1
        (serial,) = re.findall(r'name="serial" value="([^"]+)"', page)
        assert "is refused from now on" in page  # what is lost is said
        assert alice.post("/account/certificates/revoke", serial=serial).status_code == 303
        assert "Revoked" in alice.page("/account")
        assert "/sign-in" in other.get("/account").headers["location"]
        own = next(text for text in re.findall(r'<code class="serial">([^<]+)', page) if text != serial)
        assert alice.post("/account/certificates/revoke", serial=own).status_code == 400
        assert alice.post("/account/certificates/revoke", serial="ff00").status_code in (404, 409)

    def test_a_certificate_for_the_command_line_costs_the_password(self, alice: frontends.Person) -> None:
        refused = alice.post("/account/certificates/download", password="wrong wrong")
        assert refused.status_code == 400
        assert "The password is not right." in refused.text
        reply = alice.post("/account/certificates/download", password=frontends.PASSWORD)
        assert reply.headers["content-type"] == "application/zip"
        assert reply.headers["content-disposition"].startswith("attachment")
        assert reply.headers["cache-control"] == "no-store"
        with zipfile.ZipFile(io.BytesIO(reply.content)) as archive:
            assert sorted(archive.namelist()) == ["ca_cert.pem", "cert.pem", "key.pem"]

    def test_the_way_to_the_command_line_is_told(self, whole: frontends.Whole, alice: frontends.Person) -> None:
        page = alice.page("/account")
        assert f"cps-tools --username {alice.name} login {whole.director_url}" in page


class TestCredits:
    def fill(self, whole: frontends.Whole, name: str, amount: int) -> None:
        person, now = uid(whole, name), whole.director.clock()
        with whole.director.database.session() as session:
            for number in range(amount):
                session.add(models.LedgerEntry(uid=person, amount=-1, kind="hour", vm=f"vm-{number:04}", at=now, note=f"=note {number}"))

    def test_the_ledger_is_paged(self, whole: frontends.Whole, alice: frontends.Person) -> None:
        self.fill(whole, alice.name, 120)
        address, seen = "/credits", []
        for _ in range(10):
            page = alice.page(address)
            seen += re.findall(r"vm-\d{4}", page)
            older = re.search(r'href="(/credits\?before=\d+)"', page)
            if not older:
                break
            address = older[1]
        assert seen == [f"vm-{number:04}" for number in reversed(range(120))]
        assert "Opening balance" in page

    def test_the_ledger_is_downloaded_whole(self, whole: frontends.Whole, alice: frontends.Person) -> None:
        self.fill(whole, alice.name, 600)
        reply = alice.get("/credits/ledger.csv")
        assert reply.headers["content-type"].startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(reply.text)))
        assert len(rows) == 601
        assert rows[0]["vm"] == "vm-0599"
        assert rows[0]["note"] == "'=note 599"  # no formula
        assert sum(int(row["amount"]) for row in rows) == 50 - 600

    @pytest.mark.parametrize("before", ["x", "-1", "9" * 40, "²", "1;2"])
    def test_a_page_that_is_none(self, alice: frontends.Person, before: str) -> None:
        assert alice.get(f"/credits?before={before}").status_code == 404

    def test_who_has_none_left_is_warned(self, whole: frontends.Whole, alice: frontends.Person) -> None:
        self.fill(whole, alice.name, 50)
        assert "There are no credits left: nothing can be started." in alice.page("/credits")


class TestOperator:
    def test_accounts_are_found(self, whole: frontends.Whole, opal: frontends.Person) -> None:
        for number in range(60):
            whole.register(f"crowd{number:02}", lname="Crowd")
        page = opal.page("/operator/users?q=crowd")
        assert len(re.findall(r">crowd\d\d<", page)) == 50
        assert "Page 1 of 2" in page
        assert len(re.findall(r">crowd\d\d<", opal.page("/operator/users?q=crowd&page=2"))) == 10
        assert "crowd07" in opal.page("/operator/users?q=CROWD07+example.org")
        assert "No account has these words" in opal.page("/operator/users?q=<nobody>")
        for odd in ("0", "-3", "999999999999", "x", "²"):
            opal.page(f"/operator/users?page={odd}")

    def test_credits_quota_role_and_state_of_an_account(
        self, whole: frontends.Whole, alice: frontends.Person, opal: frontends.Person
    ) -> None:
        number = uid(whole, alice.name)
        address = f"/operator/users/{number}"
        assert opal.post(f"{address}/credit", credit="7").headers["location"] == address
        assert "<dd>57</dd>" in opal.page(address)
        assert opal.post(f"{address}/credit", credit="many").status_code in (400, 409)
        opal.post(f"{address}/quota", vms="3", applications="", volumes_mb="1000")
        assert "of 3" in alice.page("/account")
        assert opal.post(f"{address}/quota", vms="-3", applications="", volumes_mb="").status_code in (400, 409)
        assert re.search(r'name="vms" type="number" value="3"', opal.page(address))
        opal.post(f"{address}/role", role="operator")
        assert whole.person(alice.name).get("/operator/users").status_code == 200
        opal.post(f"{address}/role", role="user")
        assert opal.post(f"{address}/role", role="emperor").status_code in (400, 409)
        opal.post(f"{address}/active", active="false")
        assert "/sign-in" in alice.get("/account").headers["location"]
        assert "Enable the account" in opal.page(address)
        opal.post(f"{address}/active", active="true")
        assert alice.sign_in().headers["location"] == "/apps"
        assert opal.get("/operator/users/987654").status_code == 404

    def test_an_account_is_made_and_its_password_shown_once(self, whole: frontends.Whole, opal: frontends.Person) -> None:
        asked = {
            "username": "<i>nils",
            "email": "nils@example.org",
            "fname": "Nils",
            "lname": "",
            "affiliation": "",
            "credit": "7",
            "role": "user",
        }
        assert 'name="credit"' in opal.page("/operator/users/new")
        refused = opal.post("/operator/users/new", **asked)
        assert refused.status_code == 409
        assert "A user name starts with a letter or digit" in refused.text
        assert 'value="&lt;i&gt;nils"' in refused.text and 'value="nils@example.org"' in refused.text, "what was typed stays"
        made = opal.post("/operator/users/new", **(asked | {"username": "nils"})).text
        password = re.search(r'<dt>Password</dt><dd><div class="command"><code>([\w-]{16})</code>', made)
        assert password, made
        assert opal.post("/operator/users/new", **(asked | {"username": "NILS", "email": "other@example.org"})).status_code == 409
        nils = whole.person()
        assert nils.post("/sign-in", username="nils", password=password[1]).headers["location"] == "/apps"
        assert "7" in nils.page("/credits")
        assert password[1] not in opal.page(f"/operator/users/{uid(whole, 'nils')}")
        assert nils.get("/operator/users/new").status_code == 403

    def test_another_password_is_made_up_and_ends_the_sessions(
        self, whole: frontends.Whole, alice: frontends.Person, opal: frontends.Person
    ) -> None:
        address = f"/operator/users/{uid(whole, alice.name)}"
        assert alice.post(f"{address}/password").status_code == 403
        made = opal.post(f"{address}/password").text
        password = re.search(r'<dt>Password</dt><dd><div class="command"><code>([\w-]{16})</code>', made)
        assert password, made
        assert "/sign-in" in alice.get("/account").headers["location"]
        assert alice.sign_in().status_code == 403, "the former password"
        assert alice.post("/sign-in", username=alice.name, password=password[1]).headers["location"] == "/apps"

    def test_an_invitation_is_made_used_and_withdrawn(self, whole: frontends.Whole, opal: frontends.Person) -> None:
        page = opal.post("/operator/invitations", email="guest@example.org", credit="5").text
        address = re.search(rf"{re.escape(whole.url)}(/invitation/[\w-]+)", page)
        assert address, page
        guest = whole.person()
        assert "You were invited." in guest.page(address[1])
        assert "guest@example.org" in opal.page("/operator/users")
        (number,) = re.findall(r'name="id" value="(\d+)"', opal.page("/operator/users"))
        assert opal.post("/operator/invitations/withdraw", id=number).status_code == 303
        assert "No open invitation" in opal.page("/operator/users")
        assert opal.post("/operator/invitations", email="nothing", credit="").status_code in (400, 409)

    def test_a_cloud_is_checked(self, opal: frontends.Person) -> None:
        assert "dummy" in opal.page("/operator/clouds")
        found = opal.post("/operator/clouds/check", cloud="default").text
        assert re.search(r"It took \d+ ms", found)

    def test_machines_and_findings_of_everybody(self, whole: frontends.Whole, alice: frontends.Person, opal: frontends.Person) -> None:
        assert "No machine" in opal.page("/operator/machines")
        assert "Nothing found" in opal.page("/operator/findings")
        with whole.director.database.session() as session:
            mine = session.scalars(sa.select(models.Application).filter_by(user_id=uid(whole, alice.name))).one()
            now = whole.director.clock()
            session.add(
                models.Resource(
                    vmid="vm<1>", cloud="iaas", app_id=mine.aid, role="manager", ip="192.0.2.1", state="lost", created=now, ended=now
                )
            )
        page = opal.page("/operator/machines")
        assert "vm&lt;1&gt;" in page and alice.name in page
        assert "No machine has these words" in opal.page("/operator/machines?q=nothing-like-it")
