"""A Director without clouds, on a clock that the test moves, and callers of every kind."""

from __future__ import annotations

import dataclasses
import datetime
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import flask
import pytest

from conpaas.core.https import identity
from conpaas.director import app as director_app
from conpaas.director import config, models, runtime, users


@dataclasses.dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: datetime.datetime = datetime.datetime(2026, 3, 1, 12, 0, tzinfo=datetime.UTC)

    def __call__(self) -> datetime.datetime:
        return self.now

    def forward(self, **amount: float) -> datetime.datetime:
        self.now += datetime.timedelta(**amount)
        return self.now


class Api:
    """Calls the application without a socket, as whoever holds `peer`."""

    def __init__(self, application: flask.Flask) -> None:
        self.application = application

    def call(self, verb: str, path: str, *, peer: identity.PeerIdentity | None = None, address: str = "192.0.2.1", **options: Any) -> Any:
        """The response as Flask's test client gives it."""
        environ = {"conpaas.peer": peer, "REMOTE_ADDR": address}
        return self.application.test_client().open(path, method=verb, environ_overrides=environ, **options)

    def get(self, path: str, **options: Any) -> Any:
        return self.call("GET", path, **options)

    def post(self, path: str, data: dict[str, Any] | None = None, **options: Any) -> Any:
        return self.call("POST", path, data=data or {}, **options)


PASSWORD = "correct horse"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def fresh_state(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The state directory of a Director that was only set up; copied for each test, as making a CA and a schema takes time."""
    state = tmp_path_factory.mktemp("fresh") / "state"
    director_app.make_director(config.load(state=state), components=False).stop()
    return state


@pytest.fixture
def configuration(tmp_path: pathlib.Path, fresh_state: pathlib.Path) -> config.DirectorConfig:
    shutil.copytree(fresh_state, tmp_path / "state")
    return config.load(state=tmp_path / "state")


@pytest.fixture
def director(configuration: config.DirectorConfig, clock: Clock) -> Iterator[runtime.Director]:
    made = director_app.make_director(configuration, clock, components=False)
    yield made
    made.stop()


@pytest.fixture
def api(director: runtime.Director) -> Api:
    return Api(director_app.create_app(director.config, director))


@pytest.fixture
def alice(director: runtime.Director) -> models.User:
    return users.create(director, users.NewUser(username="alice", email="alice@example.org", password=PASSWORD, credit=10))


@pytest.fixture
def bob(director: runtime.Director) -> models.User:
    return users.create(director, users.NewUser(username="bob", email="bob@example.org", password=PASSWORD, credit=10))


@pytest.fixture
def operator(director: runtime.Director) -> models.User:
    wanted = users.NewUser(username="root", email="root@example.org", password=PASSWORD, credit=0, role="operator")
    return users.create(director, wanted)


def user_peer(user: models.User) -> identity.PeerIdentity:
    return identity.PeerIdentity(role=identity.ROLE_USER, uid=user.uid, aid=0, cn=user.username, serial=f"a{user.uid}")


def node_peer(role: str, uid: int, aid: int | None) -> identity.PeerIdentity:
    return identity.PeerIdentity(role=role, uid=uid, aid=aid, cn="ConPaaS", serial=f"b{uid}{aid}")


def application_of(director: runtime.Director, user: models.User) -> int:
    """The id of the application that every account starts with."""
    with director.database.reader() as session:
        return session.query(models.Application).filter_by(user_id=user.uid).one().aid
