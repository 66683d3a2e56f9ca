"""What people see and change of their accounts: profile, credits, quotas, confirmed addresses, invitations."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import pytest
import sqlalchemy as sa

from conpaas.core import errors
from conpaas.director import app as director_app
from conpaas.director import (
    auth,
    config,
    credits,
    invitations,
    models,
    notices,
    notify,
    outlook,
    quotas,
    registration,
    runtime,
    tokens,
    users,
)

from . import conftest
from .test_credits import start_vm


class Sent:
    """A notifier that remembers."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str, str]] = []

    def __call__(self, to: str, subject: str, text: str) -> None:
        self.messages.append((to, subject, text))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    made = Sent()
    monkeypatch.setattr(notify, "make", lambda configuration: made)
    return made


def configured(director: runtime.Director, **changes: Any) -> conftest.Api:
    """The API of a Director with other settings, and without a front-end unless they tell where it is."""
    director.config = dataclasses.replace(director.config, **{"frontend_url": "", **changes})
    return conftest.Api(director_app.create_app(director.config, director))


NEW = {"username": "carol", "email": "carol@example.org", "password": conftest.PASSWORD}


def login(api: conftest.Api, name: str = "carol") -> Any:
    return api.post("/login", {"username": name, "password": conftest.PASSWORD}).get_json()


class TestProfile:
    def test_what_is_left_out_stays(self, api: conftest.Api, alice: models.User) -> None:
        peer = conftest.user_peer(alice)
        api.post("/update_profile", {"fname": "Ada", "affiliation": "VU"}, peer=peer)
        reply = api.post("/update_profile", {"lname": "O'Neil 😀", "affiliation": ""}, peer=peer).get_json()
        assert (reply["fname"], reply["lname"], reply["affiliation"], reply["email"]) == ("Ada", "O'Neil 😀", "", "alice@example.org")
        assert reply["unconfirmed_email"] is None

    def test_an_address_belongs_to_one_account(self, api: conftest.Api, alice: models.User, bob: models.User) -> None:
        reply = api.post("/update_profile", {"email": "BOB@example.org"}, peer=conftest.user_peer(alice)).get_json()
        assert reply == {"error": "E-mail 'BOB@example.org' is already registered"}
        assert api.post("/update_profile", {"email": "x"}, peer=conftest.user_peer(alice)).get_json()["error"].startswith("The e-mail")
        reply = api.post("/update_profile", {"email": "a@new.example"}, peer=conftest.user_peer(alice)).get_json()
        assert reply["email"] == "a@new.example"

    def test_another_address_counts_once_it_is_confirmed(self, director: runtime.Director, alice: models.User, sent: Sent) -> None:
        api = configured(director, confirm_email=True, frontend_url="https://front.example/x/")
        reply = api.post("/update_profile", {"email": "a@new.example"}, peer=conftest.user_peer(alice)).get_json()
        assert (reply["email"], reply["unconfirmed_email"]) == ("alice@example.org", "a@new.example")
        notices.send_due(director)
        ((to, _, text),) = sent.messages
        assert to == "a@new.example"
        token = text.partition("https://front.example/x/confirm/")[2].split()[0]
        assert api.post("/confirm_email", {"token": token}).get_json() == {"username": "alice"}
        assert api.get("/user_config", peer=conftest.user_peer(alice)).get_json()["email"] == "a@new.example"


class TestConfirmation:
    def test_a_new_account_works_once_its_address_is_confirmed(self, director: runtime.Director, sent: Sent) -> None:
        api = configured(director, confirm_email=True)
        assert api.post("/new_user", NEW).get_json()["unconfirmed"] is True
        assert login(api) is False
        refused = api.post("/getcerts", {**NEW}).get_json()["error"]
        assert refused == "The e-mail address of this account is not confirmed yet."
        assert notices.send_due(director) == 1
        (message,) = sent.messages
        token = message[2].partition("confirm_email ")[2].split()[0]
        with director.database.reader() as session:
            stored = session.scalars(sa.select(models.Confirmation)).one()
            assert token not in (stored.token_hash, str(session.scalars(sa.select(models.Notice)).all()))
        assert api.post("/confirm_email", {"token": token}).get_json() == {"username": "carol"}
        assert login(api)["username"] == "carol"
        assert "not valid" in api.post("/confirm_email", {"token": token}).get_json()["error"]

    def test_the_wrong_password_tells_nothing_of_it(self, director: runtime.Director) -> None:
        api = configured(director, confirm_email=True)
        api.post("/new_user", NEW)
        assert api.post("/getcerts", {**NEW, "password": "wrong"}).get_json() == {"error": "User authentication failed"}

    def test_a_link_does_not_live_forever(self, director: runtime.Director, clock: conftest.Clock, sent: Sent) -> None:
        api = configured(director, confirm_email=True)
        api.post("/new_user", NEW)
        notices.send_due(director)
        token = sent.messages[0][2].partition("confirm_email ")[2].split()[0]
        clock.forward(days=3, seconds=1)
        assert "not valid" in api.post("/confirm_email", {"token": token}).get_json()["error"]

    def test_another_message_and_a_neutral_reply(self, director: runtime.Director, alice: models.User, sent: Sent) -> None:
        api = configured(director, confirm_email=True)
        api.post("/new_user", NEW)
        replies = [api.post("/resend_confirmation", {"username": name}).get_json() for name in ("carol", "alice", "nobody")]
        assert replies == [{}] * 3
        assert notices.send_due(director) == 2
        assert {message[0] for message in sent.messages} == {"carol@example.org"}
        for _ in range(30):
            assert api.post("/resend_confirmation", {"username": "carol"}).get_json() == {}
        assert notices.send_due(director) == registration.RESENDS_PER_HOUR - 1

    def test_an_operator_may_do_without(self, director: runtime.Director) -> None:
        api = configured(director, confirm_email=True)
        api.post("/new_user", NEW)
        users.set_active(director, "carol", True)
        assert login(api)["username"] == "carol"

    def test_a_disabled_account_is_not_enabled_by_a_link(self, director: runtime.Director, sent: Sent) -> None:
        api = configured(director, confirm_email=True)
        api.post("/new_user", NEW)
        notices.send_due(director)
        users.set_active(director, "carol", False)
        api.post("/confirm_email", {"token": sent.messages[0][2].partition("confirm_email ")[2].split()[0]})
        assert login(api) is False

    def test_names_of_accounts_that_nobody_confirms_are_free_again(self, director: runtime.Director, clock: conftest.Clock) -> None:
        api = configured(director, confirm_email=True)
        api.post("/new_user", NEW)
        clock.forward(days=8)
        director.run_loop_once("throttle")
        with director.database.reader() as session:
            assert users.find(session, "carol") is None
            assert session.scalars(sa.select(models.Application)).all() == []
        assert api.post("/new_user", NEW).get_json()["username"] == "carol"


class TestInvitations:
    def invite(self, director: runtime.Director, **wanted: Any) -> str:
        with director.database.session() as session:
            return invitations.invite(session, invitations.Wanted(**wanted), "root", director.clock())[1]

    def test_modes(self, director: runtime.Director) -> None:
        closed = configured(director, registration="closed")
        assert closed.post("/new_user", NEW).get_json()["error"] == "This Director does not let people register themselves."
        token = self.invite(director)
        assert "error" in closed.post("/new_user", {**NEW, "invitation": token}).get_json()
        api = configured(director, registration="invitation")
        assert api.get("/registration").get_json()["mode"] == "invitation"
        assert api.post("/new_user", NEW).get_json()["error"] == "This Director takes new accounts by invitation only."
        assert "not valid" in api.post("/new_user", {**NEW, "invitation": "guess"}).get_json()["error"]
        assert api.post("/new_user", {**NEW, "invitation": token}).get_json()["username"] == "carol"

    def test_where_nobody_registers_nobody_is_invited(self, director: runtime.Director, operator: models.User) -> None:
        closed = configured(director, registration="closed")
        reply = closed.post("/operator/invite", peer=conftest.user_peer(operator)).get_json()
        assert "invited or not" in reply["error"] and "cpsdirector user create" in reply["hint"]

    def test_one_account_with_its_credit(self, director: runtime.Director) -> None:
        api = configured(director, registration="invitation")
        token = self.invite(director, credit=77)
        assert api.post("/new_user", {**NEW, "credit": "5", "invitation": token}).get_json()["credit"] == 77
        again = {**NEW, "username": "dave", "email": "dave@example.org", "invitation": token}
        assert "not valid" in api.post("/new_user", again).get_json()["error"]

    def test_a_failed_registration_uses_nothing_up(self, director: runtime.Director, alice: models.User) -> None:
        api = configured(director, registration="invitation")
        token = self.invite(director)
        assert "taken" in api.post("/new_user", {**NEW, "username": "alice", "invitation": token}).get_json()["error"]
        assert api.post("/new_user", {**NEW, "invitation": token}).get_json()["username"] == "carol"

    def test_for_one_address_until_its_end(self, director: runtime.Director, clock: conftest.Clock) -> None:
        api = configured(director, registration="invitation")
        token = self.invite(director, email="Carol@example.org", days=1)
        wrong = api.post("/new_user", {**NEW, "email": "x@example.org", "invitation": token}).get_json()
        assert wrong["error"] == "The invitation is for another e-mail address."
        clock.forward(days=1)
        assert "not valid" in api.post("/new_user", {**NEW, "invitation": token}).get_json()["error"]

    def test_operators_invite_list_and_withdraw(self, director: runtime.Director, operator: models.User) -> None:
        api = configured(director, registration="invitation", frontend_url="https://front.example")
        peer = conftest.user_peer(operator)
        made = api.post("/operator/invite", {"email": "carol@example.org", "credit": "9"}, peer=peer).get_json()
        assert made["url"] == f"https://front.example/invitation/{made['token']}"
        (listed,) = api.get("/operator/invitations", peer=peer).get_json()
        assert (listed["email"], listed["credit"], listed["state"], listed["invited_by"]) == ("carol@example.org", 9, "open", "root")
        assert made["token"] not in str(listed)
        with director.database.reader() as session:
            assert session.scalars(sa.select(models.Invitation.token_hash)).one() == tokens.digest(made["token"])
        assert api.post("/operator/withdraw_invitation", {"id": listed["id"]}, peer=peer).get_json() == {}
        assert "not valid" in api.post("/new_user", {**NEW, "invitation": made["token"]}).get_json()["error"]
        assert "no invitation" in api.post("/operator/withdraw_invitation", {"id": listed["id"]}, peer=peer).get_json()["error"]
        used = api.post("/operator/invite", peer=peer).get_json()
        api.post("/new_user", {**NEW, "invitation": used["token"]})
        assert "used already" in api.post("/operator/withdraw_invitation", {"id": used["id"]}, peer=peer).get_json()["error"]
        assert api.get("/operator/invitations", peer=peer).get_json()[0]["username"] == "carol"


class TestOutlook:
    def of(self, director: runtime.Director, user: models.User) -> outlook.Outlook:
        with director.database.reader() as session:
            return outlook.of(session, user.uid, director.clock())

    def test_nothing_runs(self, director: runtime.Director, alice: models.User) -> None:
        assert self.of(director, alice) == outlook.Outlook(10, 0, None)

    @pytest.mark.parametrize(("vms", "balance"), [(1, 10), (3, 10), (4, 1), (3, 0), (7, 50)])
    def test_it_says_when_the_first_hour_cannot_be_paid(
        self, director: runtime.Director, alice: models.User, clock: conftest.Clock, vms: int, balance: int
    ) -> None:
        aid = conftest.application_of(director, alice)
        for number in range(vms):
            start_vm(director, aid, vmid=str(number))
            clock.forward(minutes=7)
        with director.database.session() as session:
            credits.adjust(session, alice.uid, 1000, clock(), "enough")
            credits.charge_started_hours(session, clock())
            credits.adjust(session, alice.uid, balance - credits.balance(session, alice.uid), clock(), "what is left")
        said = self.of(director, alice)
        assert (said.balance, said.per_hour) == (balance, vms)
        assert said.hours_left is not None
        end = clock() + datetime.timedelta(hours=said.hours_left)
        for moment, exhausted in ((end - datetime.timedelta(seconds=1), []), (end + datetime.timedelta(seconds=1), [alice.uid])):
            with director.database.session() as session:
                assert credits.charge_started_hours(session, moment).exhausted == exhausted

    def test_each_crossing_is_told_once(
        self, director: runtime.Director, alice: models.User, bob: models.User, clock: conftest.Clock, sent: Sent
    ) -> None:
        start_vm(director, conftest.application_of(director, alice))
        with director.database.session() as session:
            credits.adjust(session, alice.uid, 20, clock(), "30 now")
        told = []
        for _ in range(30):
            credits.tick(director)
            told.append((outlook.warn(director), outlook.warn(director)))
            clock.forward(hours=1)
        assert [hour for hour, (first, _) in enumerate(told) if first] == [6, 28]
        assert all(second == [] for _, second in told)
        director.run_loop_once("notices")
        assert [message[:2] for message in sent.messages] == [("alice@example.org", "Your credits end soon")] * 2
        assert "24.0 more hours" in sent.messages[0][2]

    def test_new_credits_make_it_worth_telling_again(self, director: runtime.Director, alice: models.User, clock: conftest.Clock) -> None:
        start_vm(director, conftest.application_of(director, alice))
        credits.tick(director)
        assert outlook.warn(director) == [alice.uid]
        for change, told in ((16, []), (-16, []), (500, []), (-500, [alice.uid])):
            with director.database.session() as session:
                credits.adjust(session, alice.uid, change, clock(), "test")
            assert outlook.warn(director) == told

    def test_no_thresholds_no_messages(self, director: runtime.Director, alice: models.User) -> None:
        start_vm(director, conftest.application_of(director, alice))
        configured(director, credit_warning_hours=())
        assert outlook.warn(director) == []

    def test_the_page(self, director: runtime.Director, api: conftest.Api, alice: models.User, clock: conftest.Clock) -> None:
        peer = conftest.user_peer(alice)
        start_vm(director, conftest.application_of(director, alice))
        for _ in range(4):
            credits.tick(director)
            clock.forward(hours=1)
        first = api.get("/credits?limit=2", peer=peer).get_json()
        assert (first["balance"], first["per_hour"], first["hours_left"]) == (6, 1, 6.0)
        assert first["warning"].startswith("At 1 credits per hour, the credits last 6.0 more hours.")
        assert [(entry["amount"], entry["kind"]) for entry in first["entries"]] == [(-1, "hour")] * 2
        rest = api.get(f"/credits?before={first['entries'][-1]['id']}", peer=peer).get_json()["entries"]
        assert [entry["amount"] for entry in rest] == [-1, -1, 10]


class TestOperators:
    def ask(self, api: conftest.Api, operator: models.User, path: str, **fields: str) -> Any:
        return api.post(f"/operator/{path}", fields, peer=conftest.user_peer(operator)).get_json()

    def test_the_last_operator_stays(
        self, director: runtime.Director, api: conftest.Api, alice: models.User, operator: models.User
    ) -> None:
        last = "'root' is the last operator of this Director."
        assert self.ask(api, operator, "set_role", username="root", role="user")["error"] == last
        assert self.ask(api, operator, "set_active", username="root", active="false")["error"] == last
        assert self.ask(api, operator, "set_role", username="alice", role="operator") == {"username": "alice", "role": "operator"}
        assert self.ask(api, operator, "set_role", username="root", role="user")["role"] == "user"
        assert "last operator" in self.ask(api, alice, "set_role", username="alice", role="user")["error"]
        assert "error" in self.ask(api, alice, "set_role", username="root", role="king")

    def test_a_disabled_operator_is_none(
        self, director: runtime.Director, api: conftest.Api, alice: models.User, operator: models.User
    ) -> None:
        self.ask(api, operator, "set_role", username="alice", role="operator")
        users.set_active(director, "alice", False)
        assert "last operator" in self.ask(api, operator, "set_role", username="root", role="user")["error"]

    def test_quotas_are_set_and_taken_away(
        self, director: runtime.Director, api: conftest.Api, alice: models.User, operator: models.User
    ) -> None:
        reply = self.ask(api, operator, "set_quota", username="alice", vms="3", applications="1")
        assert reply["vms"] == {"used": 0, "limit": 3}
        assert reply["applications"] == {"used": 1, "limit": 1}
        assert reply["volumes_mb"] == {"used": 0, "limit": None}
        assert api.get("/quota", peer=conftest.user_peer(alice)).get_json() == reply
        refused = api.post("/createapp", {"name": "second"}, peer=conftest.user_peer(alice)).get_json()
        assert refused["error"] == "The quota of 1 applications does not allow 1 more: 1 is in use."
        assert self.ask(api, operator, "set_quota", username="alice")["applications"]["limit"] is None
        assert api.post("/createapp", {"name": "second"}, peer=conftest.user_peer(alice)).get_json()["name"] == "second"
        for wrong in ("-1", "x", "1.5", "9" * 12):
            assert "vms" in self.ask(api, operator, "set_quota", username="alice", vms=wrong)["error"]

    def test_accounts_with_what_they_have(
        self, director: runtime.Director, api: conftest.Api, alice: models.User, operator: models.User
    ) -> None:
        start_vm(director, conftest.application_of(director, alice))
        listed = {one["username"]: one for one in api.get("/operator/users", peer=conftest.user_peer(operator)).get_json()}
        assert (listed["alice"]["vms"], listed["alice"]["applications"], listed["root"]["vms"]) == (1, 1, 0)
        assert listed["alice"]["quota"]["vms"] == {"used": 1, "limit": None}
        assert listed["alice"]["unconfirmed"] is False

    def test_machines_of_everybody(
        self, director: runtime.Director, api: conftest.Api, alice: models.User, operator: models.User, clock: conftest.Clock
    ) -> None:
        start_vm(director, conftest.application_of(director, alice), request_key="op-1")
        director.run_loop_once("credits")
        clock.forward(minutes=90)
        director.run_loop_once("credits")
        (vm,) = api.get("/operator/machines", peer=conftest.user_peer(operator)).get_json()
        assert (vm["owner"], vm["age"], vm["cost"], vm["charged"], vm["request_key"], vm["state"]) == (
            "alice",
            5400,
            2,
            2,
            "op-1",
            "running",
        )
        assert api.get(f"/operator/machines?before={vm['rid']}", peer=conftest.user_peer(operator)).get_json() == []

    def test_clouds_without_asking_them(
        self, api: conftest.Api, director: runtime.Director, alice: models.User, operator: models.User
    ) -> None:
        start_vm(director, conftest.application_of(director, alice))
        listed = api.get("/operator/clouds", peer=conftest.user_peer(operator)).get_json()
        assert listed == [{"name": "default", "driver": "dummy", "vms": 1, "volumes": 0}]


def test_unsent_messages_are_tried_again_and_given_up(
    director: runtime.Director, alice: models.User, clock: conftest.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []

    def refuse(to: str, subject: str, text: str) -> None:
        tries.append(to)
        raise notify.errors.OperationFailed("the mail server is on holiday")

    monkeypatch.setattr(notify, "make", lambda configuration: refuse)
    with director.database.session() as session:
        notices.add(session, alice.uid, notices.CREDITS_ENDED, {"keep_hours": 72}, clock())
    for _ in range(400):
        notices.send_due(director)
        clock.forward(minutes=1)
    assert len(tries) == notices.ATTEMPTS
    with director.database.reader() as session:
        assert session.scalars(sa.select(models.Notice)).all() == []


def test_a_message_that_cannot_be_made_holds_up_no_other(director: runtime.Director, alice: models.User, sent: Sent) -> None:
    """As one that an earlier version has left, which knew less."""
    with director.database.session() as session:
        notices.add(session, alice.uid, notices.CREDITS_LOW, {}, director.clock())
        notices.add(session, alice.uid, notices.CREDITS_ENDED, {"keep_hours": 72}, director.clock())
    assert notices.send_due(director) == 1
    assert [subject for _, subject, _ in sent.messages] == ["Your credits are used up"]
    with director.database.reader() as session:
        assert [notice.attempts for notice in session.scalars(sa.select(models.Notice))] == [1]


def test_one_user_cannot_fill_the_outbox(director: runtime.Director, alice: models.User) -> None:
    with director.database.session() as session:
        for _ in range(100):
            notices.add(session, alice.uid, notices.CREDITS_ENDED, {"keep_hours": 0}, director.clock())
    with director.database.reader() as session:
        assert len(session.scalars(sa.select(models.Notice)).all()) == notices.MAX_WAITING


def test_accounts_without_a_password_let_nobody_in(director: runtime.Director) -> None:
    users.create(director, users.NewUser(username="carol", email="carol@example.org", password=None))
    for guess in ("!", "", "x"):
        with pytest.raises(users.errors.Unauthenticated):
            users.authenticate(director, "carol", guess, auth.Caller(peer=None, address="192.0.2.1"))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[director]\nCREDIT_WARNING_HOURS = 1, soon\n", "CREDIT_WARNING_HOURS"),
        ("[director]\nFRONTEND_URL = ftp://x\n", "FRONTEND_URL"),
        ("[mail]\nNOTIFY = pigeon\n", "NOTIFY"),
        ("[mail]\nNOTIFY = command\n", "NOTIFY_COMMAND"),
        ("[mail]\nSMTP_HOOST = x\n", "SMTP_HOOST"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Any, text: str, wrong: str) -> None:
    path = tmp_path / "director.cfg"
    path.write_text(text)
    assert wrong in config.problems(path)[0]


class TestInvitationsByMail:
    """Operators may have an invitation sent; they see its address in any case."""

    def test_it_is_sent_to_whom_it_is_for(self, director: runtime.Director, operator: models.User, sent: Sent) -> None:
        api = configured(director, registration="invitation", frontend_url="https://front.example", notify="smtp")
        assert api.get("/registration").get_json()["mail"] is True
        asked = {"email": "carol@example.org", "credit": "9", "mail": "true"}
        made = api.post("/operator/invite", asked, peer=conftest.user_peer(operator)).get_json()
        ((to, subject, text),) = sent.messages
        assert (to, subject) == ("carol@example.org", "You are invited to ConPaaS")
        assert made["url"] in text and "9 credits" in text and "2026-03-15" in text
        assert (made["mailed"], made["mail_problem"]) == (True, None)
        assert api.post("/new_user", {**NEW, "invitation": made["token"]}).get_json()["username"] == "carol"

    def test_one_that_could_not_be_sent_is_good_all_the_same(
        self, director: runtime.Director, operator: models.User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(to: str, subject: str, text: str) -> None:
            raise errors.OperationFailed("The mail server is away.")

        monkeypatch.setattr(notify, "make", lambda configuration: refuse)
        api = configured(director, notify="smtp")
        asked = {"email": "carol@example.org", "mail": "true"}
        made = api.post("/operator/invite", asked, peer=conftest.user_peer(operator)).get_json()
        assert (made["mailed"], made["mail_problem"]) == (False, "The mail server is away.")
        assert api.post("/new_user", {**NEW, "invitation": made["token"]}).get_json()["username"] == "carol"

    @pytest.mark.parametrize(
        ("notify_by", "email", "why"),
        [("log", "carol@example.org", "This Director sends no e-mail."), ("smtp", "", "needs an address")],
    )
    def test_what_cannot_be_sent_is_not_made(
        self, director: runtime.Director, operator: models.User, sent: Sent, notify_by: str, email: str, why: str
    ) -> None:
        api = configured(director, notify=notify_by)
        peer = conftest.user_peer(operator)
        assert why in api.post("/operator/invite", {"email": email, "mail": "true"}, peer=peer).get_json()["error"]
        assert api.get("/operator/invitations", peer=peer).get_json() == []
        assert sent.messages == []


def test_new_accounts_have_the_configured_quotas(director: runtime.Director, alice: models.User) -> None:
    api = configured(director, quota_vms=4, quota_applications=2)
    api.post("/new_user", NEW)
    operator = users.create(director, users.NewUser(username="root2", email="r2@example.org", password=conftest.PASSWORD, role="operator"))
    found = {}
    with director.database.reader() as session:
        for name in ("alice", "carol", "root2"):
            found[name] = quotas.limits(users.get(session, name))
    assert found["alice"] == found["root2"] == quotas.Amounts(None, None, None), "nobody else is limited"
    assert found["carol"] == quotas.Amounts(4, 2, None)
    assert operator.quota_vms is None
