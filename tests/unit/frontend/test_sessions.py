"""Sessions: what is in the file, when they end, and that a cookie opens its own and nothing else."""

from __future__ import annotations

import dataclasses
import pathlib
import sqlite3

import pytest

from conpaas.core import errors
from conpaas.frontend import sessions, visits


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: pathlib.Path, clock: Clock) -> sessions.Store:
    return sessions.Store(tmp_path, idle=100.0, clock=clock)


@pytest.fixture
def lasting(grant: sessions.Grant) -> sessions.Grant:
    return dataclasses.replace(grant, expires=1500.0)


def test_a_cookie_finds_its_session(store: sessions.Store, lasting: sessions.Grant) -> None:
    secret, session = store.begin(lasting)
    found = store.find(secret)
    assert found == session
    assert found is not None and found.grant.key == "THE PRIVATE KEY"


def test_the_file_opens_nothing(store: sessions.Store, lasting: sessions.Grant, tmp_path: pathlib.Path) -> None:
    secret, _ = store.begin(lasting)
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        for kept_secret in (secret, lasting.key, lasting.certificate, lasting.username):
            assert kept_secret.encode() not in content
    assert (tmp_path / sessions.FILE).stat().st_mode & 0o777 == 0o600


def test_neither_an_id_nor_another_cookie_opens_a_session(store: sessions.Store, lasting: sessions.Grant) -> None:
    _, session = store.begin(lasting)
    for guess in (session.id, "", "x" * 43, "x" * 100_000, sessions.new_secret()):
        assert store.find(guess) is None


def test_a_row_cannot_be_put_under_another_session(store: sessions.Store, lasting: sessions.Grant, tmp_path: pathlib.Path) -> None:
    """Who can write the file cannot give an own session somebody else's rights."""
    mine, _ = store.begin(dataclasses.replace(lasting, username="mallory", uid=8))
    _, theirs = store.begin(lasting)
    with sqlite3.connect(tmp_path / sessions.FILE) as database:
        database.execute("UPDATE session SET sealed = (SELECT sealed FROM session WHERE id = ?)", (theirs.id,))
    assert store.find(mine) is None


def test_a_session_ends_with_its_certificate(store: sessions.Store, lasting: sessions.Grant, clock: Clock) -> None:
    secret, session = store.begin(lasting)
    for now in range(1090, 1500, 90):
        clock.now = now
        assert store.find(secret) is not None
    clock.now = 1500.0
    assert store.find(secret) is None
    assert not store.alive(session.id)


def test_a_session_that_is_not_used_ends(store: sessions.Store, lasting: sessions.Grant, clock: Clock) -> None:
    secret, session = store.begin(lasting)
    clock.now = 1099.0
    assert store.alive(session.id)
    clock.now = 1100.0
    assert store.find(secret) is None
    clock.now = 1001.0  # not even if the clock goes back
    assert store.find(secret) is None


def test_sessions_outlive_a_restart(store: sessions.Store, lasting: sessions.Grant, tmp_path: pathlib.Path, clock: Clock) -> None:
    secret, session = store.begin(lasting)
    store.close()
    assert sessions.Store(tmp_path, idle=100.0, clock=clock).find(secret) == session


def test_signing_in_anew_gives_a_new_id_and_a_new_token(store: sessions.Store, lasting: sessions.Grant) -> None:
    first, second = store.begin(lasting), store.begin(lasting)
    assert first[0] != second[0]
    assert first[1].id != second[1].id
    assert first[1].csrf != second[1].csrf


def test_all_other_sessions_of_a_user_can_be_ended(store: sessions.Store, lasting: sessions.Grant) -> None:
    kept, session = store.begin(lasting)
    others = [store.begin(lasting)[0] for _ in range(2)]
    stranger, _ = store.begin(dataclasses.replace(lasting, uid=8))
    assert store.others_of(session) == 2
    assert store.find(kept) and store.find(stranger)
    assert not any(store.find(secret) for secret in others)


def test_a_directory_that_cannot_be_written_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.ConfigurationError, match=r"Cannot keep sessions in .*file"):
        sessions.Store(tmp_path / "file", idle=1.0)


def test_what_nobody_comes_back_to_hear_is_forgotten_in_the_end() -> None:
    notices = visits.Notices()
    for number in range(visits._MAX_SESSIONS + 10):
        notices.put(f"session {number}", visits.Notice("done"))
    assert len(notices._waiting) == visits._MAX_SESSIONS
    assert notices.take("session 3") == []
    assert notices.take(f"session {visits._MAX_SESSIONS}") == [visits.Notice("done")]


def test_whoever_is_signed_in_stays_so_where_nothing_can_be_written(store: sessions.Store, lasting: sessions.Grant, clock: Clock) -> None:
    secret, session = store.begin(lasting)
    with store._locked() as database:
        database.execute("PRAGMA query_only = ON")  # a write fails as it does on a full disk
    clock.now += sessions._TOUCH + 1
    assert store.find(secret) == session
    clock.now += sessions._TOUCH
    assert store.find(secret) is None, "it was idle for too long, also when that cannot be written down"
