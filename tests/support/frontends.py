"""A real Director and a real front-end in this process, on loopback addresses of their own, and people with browsers without a window."""

from __future__ import annotations

import contextlib
import pathlib
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import requests
import sqlalchemy as sa
import uvicorn

from conpaas.director import app as director_app
from conpaas.director import config, models, serve, users
from conpaas.frontend import app, settings
from tests.support import platform as platforms

HOST = "127.84.1.1"
PASSWORD = "correct horse battery"
_CSRF = re.compile(r'<meta name="csrf" content="([0-9a-f]+)">')


class Person:
    """Somebody with a browser; follows no redirects."""

    def __init__(self, url: str, name: str = "") -> None:
        self.url = url
        self.name = name
        self.web = requests.Session()
        self.web.trust_env = False
        self.csrf = ""
        if name:
            self.sign_in()

    def sign_in(self, password: str = PASSWORD) -> requests.Response:
        reply = self.post("/sign-in", username=self.name, password=password)
        self.csrf = ""
        return reply

    def get(self, path: str, **more: Any) -> requests.Response:
        return self.web.get(self.url + path, allow_redirects=False, timeout=60, **more)

    def page(self, path: str) -> str:
        """The text of a page that is there."""
        reply = self.get(path)
        assert reply.status_code == 200, (path, reply.status_code, reply.text)
        return reply.text

    def post(self, path: str, files: Any = None, **fields: Any) -> requests.Response:
        """Send a form with the token of this browser's session."""
        return self.raw_post(path, {"csrf": self.token(), **fields}, files=files)

    def raw_post(self, path: str, fields: Any, **more: Any) -> requests.Response:
        return self.web.post(self.url + path, data=fields, allow_redirects=False, timeout=60, **more)

    def token(self) -> str:
        """The token that forms of this browser carry."""
        if not self.csrf:
            reply = self.web.get(self.url + "/no-such-page", timeout=60)
            found = _CSRF.search(reply.text)
            assert found, reply.text
            self.csrf = found[1]
        return self.csrf


class Whole:
    """Both processes' insides. The Director has a cloud on which nothing is ever started here.

    `director` are keys of its section `[director]`, `sections` is the text of further ones.
    """

    def __init__(self, directory: pathlib.Path, *, sections: str = "", **director: str) -> None:
        self.listener = socket.create_server((HOST, 0))
        self.url = f"http://{HOST}:{self.listener.getsockname()[1]}"
        state = directory / "director"
        state.mkdir()
        keys = {"STATE_DIR": str(state), "DIRECTOR_URL": f"https://{HOST}:5555", "PORT": "0", "FRONTEND_URL": self.url, **director}
        text = "[director]\n" + "".join(f"{name} = {value}\n" for name, value in keys.items())
        (state / "director.cfg").write_text(f"{text}{sections}[iaas]\nDRIVER = dummy\nNETWORK = 127.84.64.0/20\n")
        configuration = config.load(state / "director.cfg")
        self.director = director_app.make_director(configuration)
        self.server = serve.DirectorServer(configuration, self.director)
        self.server.start()
        self.director_url = f"https://{HOST}:{self.server.port}"
        configured = settings.Settings(
            director_url=self.director_url,
            ca=self.director.authority.ca_path,
            state_dir=directory / "frontend",
            bind=HOST,
            port=int(self.listener.getsockname()[1]),
        )
        configured.state_dir.mkdir(mode=0o700, exist_ok=True)
        self.app = app.make(configured)
        self.web = uvicorn.Server(uvicorn.Config(self.app, log_config=None, access_log=False, timeout_graceful_shutdown=1))
        self.thread = threading.Thread(target=self.web.run, kwargs={"sockets": [self.listener]})
        self.thread.start()
        platforms.until(lambda: self.web.started, "the front-end serves", 30)

    def close(self) -> None:
        self.web.should_exit = True
        self.thread.join(30)
        self.server.stop()

    def register(self, name: str, role: str = "user", **more: Any) -> int:
        """The uid of a new account."""
        user = users.create(self.director, users.NewUser(username=name, email=f"{name}@example.org", password=PASSWORD, credit=50, **more))
        with self.director.database.session() as session:
            session.execute(sa.update(models.User).where(models.User.uid == user.uid).values(role=role))
        return int(user.uid)

    def person(self, name: str = "") -> Person:
        return Person(self.url, name)


@contextlib.contextmanager
def running(directory: pathlib.Path, *, sections: str = "", **director: str) -> Iterator[Whole]:
    """Both, for the length of a `with` block."""
    made = Whole(directory, sections=sections, **director)
    try:
        yield made
    finally:
        made.close()
