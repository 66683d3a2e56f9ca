"""A listening Director whose dummy cloud boots real VMs on loopback addresses, called by a user and by managers."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conpaas.core import errors
from conpaas.core.https import client, identity
from conpaas.director import app, config, models, serve, users

HOST = "127.16.255.2"
PATIENCE = 120.0


def until(condition: Callable[[], Any], what: str) -> Any:
    """Poll until the condition holds; give up with `what` after PATIENCE seconds."""
    deadline = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.05)


class Deployment:
    """One Director process with its state directory; `again` gives a second one beside it or after it."""

    def __init__(self, directory: pathlib.Path, *, state: str = "state", port: int = 0, **keys: Any) -> None:
        self.directory = directory
        self.state = directory / state
        self.state.mkdir(exist_ok=True)
        text = (
            f"[director]\nSTATE_DIR = {self.state}\nDIRECTOR_URL = https://{HOST}:{port or 5555}\n"
            "SWEEP_INTERVAL = 3600\nNODE_TIMEOUT = 60\n"
            f"DATABASE_URI = sqlite:///{directory}/director.db\n"
            f"[conpaas]\nDEPLOYMENT_NAME = lab16\nCERT_DIR = {directory}/certs\nCONF_DIR = {directory}/conf\n"
            f"[iaas]\nDRIVER = dummy\nSTATE_DIR = {directory}/cloud\nNETWORK = 127.16.64.0/24\n"
        )
        path = self.state / "director.cfg"
        path.write_text(text)
        self.configuration = config.load(path)
        self.director = app.make_director(self.configuration)
        self.server = serve.DirectorServer(self.configuration, self.director)
        self.server.start()

    @property
    def life(self) -> Any:
        return self.director.components["lifecycle"]

    @property
    def cloud(self) -> Any:
        return self.life.parts.clouds["iaas"]

    def add_user(self, name: str) -> models.User:
        wanted = users.NewUser(username=name, email=f"{name}@example.org", password="correct horse", credit=50)
        return users.create(self.director, wanted)

    def client_of(self, name: str) -> client.DirectorClient:
        """A client with the user's certificate."""
        directory = self.directory / f"user-{name}"
        directory.mkdir(exist_ok=True)
        with self.director.database.session() as session:
            key, certificate = self.director.authority.issue_user(session, users.get(session, name))
        for file, text in (("key.pem", key), ("cert.pem", certificate), ("ca_cert.pem", self.director.authority.ca_pem)):
            (directory / file).write_text(text)
        return client.DirectorClient(f"https://{HOST}:{self.server.port}", identity.Credentials.from_dir(directory))

    def application(self, aid: int = 1) -> models.Application:
        with self.director.database.reader() as session:
            found = session.get(models.Application, aid)
            assert found is not None
            return found

    def wait_for(self, status: str, aid: int = 1) -> None:
        until(lambda: self.application(aid).status == status, f"application {aid} is {status}")

    def manager(self, method: str, verb: str = "post", **params: Any) -> Any:
        """Call the application manager as the Director does."""
        return getattr(self.life.managers, verb)(1, method, params=params)

    def close(self) -> None:
        self.server.stop()


@pytest.fixture
def deployment(tmp_path: pathlib.Path) -> Iterator[Deployment]:
    made = Deployment(tmp_path)
    made.add_user("ann")
    try:
        yield made
    finally:
        cloud = made.cloud
        made.close()
        cloud.destroy_nodes([node.vmid for node in cloud.list_nodes()])
        assert cloud.list_nodes() == []


@pytest.fixture
def ann(deployment: Deployment) -> Iterator[client.DirectorClient]:
    made = deployment.client_of("ann")
    yield made
    made.close()


@pytest.fixture
def beside() -> type[Deployment]:
    """To make another Director of the same database."""
    return Deployment


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any], str], Any]:
    return until


@pytest.fixture
def refusal() -> type[Exception]:
    return errors.RemoteError
