from __future__ import annotations

import hashlib
import threading

import argon2
import pytest
import sqlalchemy as sa

from conpaas.core import errors
from conpaas.director import auth, credits, models, passwords, runtime, throttle, users

from . import conftest

NOBODY = auth.Caller(peer=None, address="192.0.2.1")


@pytest.mark.parametrize("name", ["bob", "Bob", "b.o_b-1", "7of9", "a@b.org", "zoë", "Łukasz", "李雷", "भारत", "x" * 64])
def test_names_of_any_script_are_taken(name: str) -> None:
    assert users.check_username(f" {name} ") == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "   ",
        "x" * 65,
        "-bob",
        ".",
        "bo b",
        "bob\n",
        "b\x00b",
        "b\u202eb",
        "b\u200bb",
        "bob😀",
        "a/b",
        "a=b,role=frontend",
        "<none>",
        "a'b",
        "b\ud800",
    ],
)
def test_names_that_could_mislead_are_refused(name: str) -> None:
    if name == "bob\n":
        assert users.check_username(name) == "bob"
        return
    with pytest.raises(errors.InvalidArgument):
        users.check_username(name)


@pytest.mark.parametrize("name", ["CA", "ca", "Ca", "ＣＡ", "ConPaaS", "director", "frontend"])
def test_names_that_certificates_give_a_meaning_are_reserved(name: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="is reserved"):
        users.check_username(name)


@pytest.mark.parametrize("email", ["a@b.org", "demo@localhost", "first.last+tag@sub.example.com", " a@b.org "])
def test_addresses_are_taken(email: str) -> None:
    assert users.check_email(email) == email.strip()


@pytest.mark.parametrize(
    "email", ["", "a", "a@", "@b", "a b@c.org", "a@b\nc", "ä@b.org", "a@b..c", "a@b.org,c@d.org", "x" * 250 + "@b.org"]
)
def test_addresses_that_are_none_are_refused(email: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="e-mail"):
        users.check_email(email)


def test_a_new_account_has_its_credits_and_its_first_application(director: runtime.Director, alice: models.User) -> None:
    with director.database.reader() as session:
        assert credits.balance(session, alice.uid) == 10
        application = session.scalars(sa.select(models.Application)).one()
    assert (application.name, application.status, application.user_id) == ("New Application", "INIT", alice.uid)


@pytest.mark.parametrize("name", ["alice", "ALICE", "Ａlice"])
def test_a_name_is_taken_in_every_spelling(director: runtime.Director, alice: models.User, name: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"Username '.*' is already taken"):
        users.create(director, users.NewUser(username=name, email="new@example.org", password=conftest.PASSWORD))


def test_an_address_is_taken_in_every_spelling(director: runtime.Director, alice: models.User) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"E-mail 'Alice@Example\.org' is already registered"):
        users.create(director, users.NewUser(username="new", email="Alice@Example.org", password=conftest.PASSWORD))


@pytest.mark.parametrize(("field", "value"), [("password", "short"), ("password", "x" * 1025), ("fname", "a\nb"), ("lname", "x" * 257)])
def test_nothing_is_created_when_a_field_is_wrong(director: runtime.Director, field: str, value: str) -> None:
    fields = {"username": "carol", "email": "c@example.org", "password": conftest.PASSWORD, field: value}
    with pytest.raises(errors.InvalidArgument):
        users.create(director, users.NewUser(**fields))
    with director.database.reader() as session:
        assert users.find(session, "carol") is None


def test_passwords_are_stored_as_argon2id(director: runtime.Director, alice: models.User) -> None:
    assert alice.password.startswith("$argon2id$")
    assert hashlib.md5(conftest.PASSWORD.encode()).hexdigest() not in alice.password


def test_the_right_password_in_any_spelling_of_the_name(director: runtime.Director, alice: models.User) -> None:
    assert users.authenticate(director, "Alice", conftest.PASSWORD, NOBODY).uid == alice.uid


@pytest.mark.parametrize(
    ("name", "password"), [("alice", "wrong"), ("nobody", "wrong"), ("alice", ""), ("", "x"), ("<none>", "x"), ("alice", "x" * 5000)]
)
def test_a_wrong_login_never_tells_what_was_wrong(director: runtime.Director, alice: models.User, name: str, password: str) -> None:
    with pytest.raises(errors.Unauthenticated, match=r"^User authentication failed$"):
        users.authenticate(director, name, password, NOBODY)


def test_an_unknown_user_costs_a_check_too(director: runtime.Director, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []
    monkeypatch.setattr(passwords, "verify", lambda stored, _password: checked.append(stored))
    with pytest.raises(errors.Unauthenticated):
        users.authenticate(director, "nobody", "whatever", NOBODY)
    assert checked == [None]
    assert argon2.extract_parameters(passwords._NOBODY) == argon2.extract_parameters(passwords._hasher.hash("x"))


def test_a_disabled_account_logs_in_no_more(director: runtime.Director, alice: models.User) -> None:
    users.set_active(director, "alice", False)
    with pytest.raises(errors.Unauthenticated):
        users.authenticate(director, "alice", conftest.PASSWORD, NOBODY)
    users.set_active(director, "alice", True)
    assert users.authenticate(director, "alice", conftest.PASSWORD, NOBODY).active


def test_an_old_hash_is_made_anew_at_login(director: runtime.Director, alice: models.User) -> None:
    weak = argon2.PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(conftest.PASSWORD)
    with director.database.session() as session:
        session.get_one(models.User, alice.uid).password = weak
    users.authenticate(director, "alice", conftest.PASSWORD, NOBODY)
    with director.database.reader() as session:
        stored = session.get_one(models.User, alice.uid).password
    assert stored != weak
    assert not passwords.outdated(stored)
    assert passwords.verify(stored, conftest.PASSWORD)


def fail(director: runtime.Director, name: str, times: int, caller: auth.Caller = NOBODY) -> None:
    for _ in range(times):
        with pytest.raises(errors.Unauthenticated):
            users.authenticate(director, name, "wrong", caller)


def test_guessing_closes_the_pair_of_user_and_address(director: runtime.Director, alice: models.User, clock: conftest.Clock) -> None:
    fail(director, "alice", 6)
    with pytest.raises(errors.Unauthenticated, match="Too many failed logins; try again in 2 seconds"):
        users.authenticate(director, "alice", conftest.PASSWORD, NOBODY)
    clock.forward(seconds=2)
    assert users.authenticate(director, "alice", conftest.PASSWORD, NOBODY).uid == alice.uid


def test_the_owner_gets_in_from_elsewhere_while_a_guesser_is_slowed_down(director: runtime.Director, alice: models.User) -> None:
    fail(director, "alice", 6)
    assert users.authenticate(director, "alice", conftest.PASSWORD, auth.Caller(peer=None, address="192.0.2.2")).uid == alice.uid


def test_success_forgets_the_failures_before_it(director: runtime.Director, alice: models.User) -> None:
    for _ in range(3):
        fail(director, "alice", 5)
        users.authenticate(director, "alice", conftest.PASSWORD, NOBODY)


def test_the_wait_doubles_up_to_a_quarter_of_an_hour(director: runtime.Director, clock: conftest.Clock) -> None:
    waits = []
    for _ in range(20):
        with director.database.session() as session:
            buckets = throttle.login_buckets("alice", "192.0.2.1", False)
            throttle.failed(session, buckets, clock().timestamp())
            waits.append(session.get_one(models.LoginAttempt, buckets[0].key).blocked_until - clock().timestamp())
    assert waits[5:9] == [2.0, 4.0, 8.0, 16.0]
    assert waits[-1] == throttle.LONGEST_BLOCK


def test_one_address_cannot_try_many_users(director: runtime.Director, alice: models.User) -> None:
    for number in range(31):
        with director.database.session() as session:
            throttle.failed(session, throttle.login_buckets(f"user{number}", "192.0.2.1", False), director.clock().timestamp())
    with pytest.raises(errors.Unauthenticated, match="Too many failed logins"):
        users.authenticate(director, "alice", conftest.PASSWORD, NOBODY)


def test_the_front_end_is_not_one_address(director: runtime.Director, alice: models.User) -> None:
    relay = auth.Caller(peer=conftest.node_peer("frontend", 0, None), address="192.0.2.9")
    for number in range(40):
        with director.database.session() as session:
            throttle.failed(
                session, throttle.login_buckets(f"user{number}", relay.address, relay.trusted_relay), director.clock().timestamp()
            )
    assert users.authenticate(director, "alice", conftest.PASSWORD, relay).uid == alice.uid


def test_an_ipv6_customer_is_one_address() -> None:
    one, two = (throttle.login_buckets("a", address, False)[2].key for address in ("2001:db8::1", "2001:db8::ffff:2"))
    other = throttle.login_buckets("a", "2001:db8:0:1::1", False)[2].key
    assert one == two != other


def test_an_hour_without_failures_empties_the_buckets(director: runtime.Director, alice: models.User, clock: conftest.Clock) -> None:
    fail(director, "alice", 5)
    clock.forward(hours=1, seconds=1)
    fail(director, "alice", 5)
    assert users.authenticate(director, "alice", conftest.PASSWORD, NOBODY)


def test_old_rows_and_too_many_rows_are_deleted(director: runtime.Director, clock: conftest.Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "MAX_ROWS", 3)
    with director.database.session() as session:
        for number in range(10):
            session.add(models.LoginAttempt(bucket=f"user:{number}", failures=1, last=clock().timestamp() - number))
        session.add(models.LoginAttempt(bucket="user:old", failures=1, last=clock().timestamp() - 8000))
    director.run_loop_once("throttle")
    with director.database.reader() as session:
        assert sorted(session.scalars(sa.select(models.LoginAttempt.bucket))) == ["user:0", "user:1", "user:2"]


def test_a_flood_of_checks_is_refused_instead_of_using_up_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_admitted", threading.BoundedSemaphore(1))
    with passwords._turn(), pytest.raises(errors.OperationFailed, match="busy checking passwords"):
        passwords.make_hash("x" * 8)
    assert passwords.make_hash("x" * 8).startswith("$argon2id$")


def test_a_password_is_its_characters_however_they_are_composed() -> None:
    assert passwords.verify(passwords.make_hash("Z\u00fcrichsee"), "Zu\u0308richsee")


def test_what_is_no_text_is_no_password() -> None:
    with pytest.raises(errors.InvalidArgument, match="not valid text"):
        passwords.check_new("abcdefgh\udc80")
    assert not passwords.verify(passwords.make_hash("abcdefgh"), "abcdefgh\udc80")


def test_a_new_password_revokes_the_certificates_of_the_old_one(director: runtime.Director, alice: models.User) -> None:
    with director.database.session() as session:
        director.authority.issue_user(session, alice)
    users.set_password(director, alice.uid, "another password")
    with director.database.reader() as session:
        assert session.scalars(sa.select(models.Certificate)).one().revoked is not None
    assert users.authenticate(director, "alice", "another password", NOBODY)
