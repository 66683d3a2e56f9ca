"""Servers that answer from tables, in place of the network, and commands run in this process."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from conpaas.client import api, main, runtime, waiting
from conpaas.core import errors
from conpaas.core.https import client as https_client

UID = 7
APPLICATIONS = [
    {"aid": 1, "name": "shop", "status": "RUNNING", "manager": "127.0.0.22", "cloud": "iaas"},
    {"aid": 2, "name": "second", "status": "INIT", "manager": None, "cloud": None},
    {"aid": 3, "name": "77", "status": "INIT", "manager": None, "cloud": None},
]
SERVICES = [
    {"service": {"sid": sid, "name": name, "type": kind, "application_id": 1}, "application": APPLICATIONS[0]}
    for sid, kind, name in ((1, "helloworld", "hello"), (2, "generic", "batch"), (3, "generic", "twin"), (4, "generic", "twin"))
]


@dataclasses.dataclass
class Wire:
    """What the Director (by path) and the managers (by method) answer; a callable gets the parameters."""

    director: dict[str, Any] = dataclasses.field(default_factory=dict)
    manager: dict[str, Any] = dataclasses.field(default_factory=dict)
    calls: list[tuple[Any, ...]] = dataclasses.field(default_factory=list)

    def answer(self, table: Mapping[str, Any], name: str, params: Mapping[str, Any]) -> Any:
        found = table.get(name, table.get("*", errors.RemoteError(f"nothing known of {name}")))
        reply = found(params) if callable(found) else found
        if isinstance(reply, Exception):
            raise reply
        return reply

    def changes(self) -> list[tuple[Any, ...]]:
        """The calls that are not mere look-ups."""
        return [call for call in self.calls if call[0] not in ("GET", "get")]


class Series:
    """A table entry that answers one thing after the other; the last one stays."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def __call__(self, _: Any) -> Any:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def series() -> type[Series]:
    return Series


class FakeDirectorClient:
    """The interface of the Director's client, answering from the wire's table."""

    wire: Wire

    def __init__(self, url: str, credentials: Any = None, **_: Any) -> None:
        self.url = url

    def get(self, path: str, /, **params: Any) -> Any:
        self.wire.calls.append(("GET", path))
        return self.wire.answer(self.wire.director, path, params)

    def raw(self, path: str, /, **params: Any) -> bytes:
        self.wire.calls.append(("GET", path))
        reply = self.wire.answer(self.wire.director, path, params)
        return reply if isinstance(reply, bytes) else str(reply).encode()

    def post(self, path: str, fields: Any = None, files: Any = None, timeout: Any = None) -> Any:
        self.wire.calls.append(("POST", path, dict(fields or {})))
        return self.wire.answer(self.wire.director, path, dict(fields or {}))

    def close(self) -> None:
        """Nothing is open."""


class FakeRpcClient:
    """The interface of the managers' client, answering from the wire's table."""

    wire: Wire

    def __init__(self, *_: Any, **__: Any) -> None:
        """Nothing to open."""

    def get(self, address: Any, method: str, service_id: int = 0, params: Any = None, timeout: Any = None) -> Any:
        self.wire.calls.append(("get", address, service_id, method, params))
        return self.wire.answer(self.wire.manager, method, params or {})

    def post(self, address: Any, method: str, service_id: int = 0, params: Any = None, timeout: Any = None) -> Any:
        self.wire.calls.append(("post", service_id, method, params))
        return self.wire.answer(self.wire.manager, method, params or {})

    def upload(self, address: Any, method: str, service_id: int = 0, fields: Any = None, files: Any = None, timeout: Any = None) -> Any:
        contents = {name: Path(path).read_bytes() for name, path in (files or {}).items()}
        self.wire.calls.append(("upload", service_id, method, fields, contents))
        return self.wire.answer(self.wire.manager, method, fields or {})

    def download(self, address: Any, method: str, service_id: int = 0, params: Any = None, *, to: Path, timeout: Any = None) -> int:
        self.wire.calls.append(("get", address, service_id, method, params))
        return to.write_bytes(self.wire.answer(self.wire.manager, method, params or {}))

    def close(self) -> None:
        """Nothing is open."""


class NoTime(waiting.Clock):
    """A clock that jumps over pauses and remembers them."""

    def __init__(self) -> None:
        self.time = 0.0
        self.pauses: list[float] = []

    def now(self) -> float:
        return self.time

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.time += seconds


@dataclasses.dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


class Commands:
    """Runs commands in this process against the wire."""

    def __init__(self, wire: Wire, clock: NoTime, capsys: pytest.CaptureFixture[str]) -> None:
        self.wire, self.clock, self.capsys = wire, clock, capsys

    def __call__(self, line: str | list[str]) -> Done:
        """Run `cps-tools …`; a text is split at blanks."""
        args = line.split() if isinstance(line, str) else line
        code = main.main(args)
        shown = self.capsys.readouterr()
        return Done(int(code), shown.out, shown.err)

    def program(self, name: str, *args: str) -> Done:
        """Run `cps-<name> …`."""
        code = main.run_object(name, list(args))
        shown = self.capsys.readouterr()
        return Done(int(code), shown.out, shown.err)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with nothing in it, and no variable that matters."""
    for name in ("CPS_DIRECTOR_URL", "CPS_USERNAME", "CPS_PASSWORD", "CPS_CONFIG", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch, home: Path) -> Wire:
    """A Director with three applications and four services; managers that know nothing yet."""
    made = Wire(director={
        "/listapp": APPLICATIONS, "/list": SERVICES, "/available_clouds": ["default", "ec2"],
        "/available_services": ["helloworld", "generic"], "/user_credit": 50,
    })  # fmt: skip
    monkeypatch.setattr(FakeDirectorClient, "wire", made, raising=False)
    monkeypatch.setattr(FakeRpcClient, "wire", made, raising=False)
    monkeypatch.setattr(https_client, "DirectorClient", FakeDirectorClient)
    monkeypatch.setattr(https_client, "RpcClient", FakeRpcClient)
    credentials: Any = types.SimpleNamespace(identity=types.SimpleNamespace(uid=UID))
    monkeypatch.setattr(api.Identity, "open", classmethod(lambda cls, directory: api.Identity(directory / "ca_cert.pem", credentials)))
    monkeypatch.setattr("conpaas.client.certificates.Store.days_left", lambda self: None)
    monkeypatch.setenv("CPS_DIRECTOR_URL", "https://127.17.0.9:5555")
    return made


@pytest.fixture
def clock() -> NoTime:
    return NoTime()


@pytest.fixture
def cps(wire: Wire, clock: NoTime, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Runs `cps-tools` lines; waiting takes no time."""
    original: Callable[..., Any] = runtime.open_session

    def open_session(options: Mapping[str, Any], *, need_file: bool = True) -> Any:
        session = original(options, need_file=need_file)
        session.clock = clock
        return session

    monkeypatch.setattr(runtime, "open_session", open_session)
    return Commands(wire, clock, capsys)
