"""The calls that every agent answers."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from conpaas.core import agent, config, params, paths, rpc
from conpaas.core.https import identity

CALLER = identity.PeerIdentity(role=identity.ROLE_MANAGER, uid=1, aid=1, cn="manager", serial="1", fingerprint="x")


@pytest.fixture
def places(tmp_path: pathlib.Path) -> paths.Paths:
    found = paths.Paths.under(tmp_path)
    found.create()
    found.scratch.mkdir()
    return found


@pytest.fixture
def call(places: paths.Paths):
    made = agent.BaseAgent(config.Config({"agent": {**places.to_config(), "MY_IP": "127.0.0.1", "TYPE": "x"}}))
    application = rpc.RpcApplication()
    application.register(0, made)

    def call(method: str, **arguments: Any) -> dict[str, Any]:
        reply = application.dispatch(rpc.RpcCall("GET", 0, method, 7, arguments, CALLER))
        answer = json.loads(reply.body or b"{}")
        assert answer["id"] == 7
        return answer

    return call


def test_an_agent_answers(call):
    assert call("check_process")["result"] == {}


def test_its_log_under_every_classic_name(call, places: paths.Paths):
    places.log_file.write_bytes(b"one\ntwo \xff\n")
    for arguments in ({}, {"filename": "cpsagent.log"}, {"filename": "/var/log/cpsagent.log"}, {"filename": str(places.log_file)}):
        assert call("get_log", **arguments)["result"] == {"log": "one\ntwo �\n", "offset": 10, "size": 10}
    assert call("get_log", offset=4)["result"]["log"] == "two �\n"
    assert call("get_log", offset=0, limit=4)["result"] == {"log": "one\n", "offset": 4, "size": 10}
    assert call("get_log", limit=4)["result"]["size"] == 10


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "key.pem",
        "../cpsagent.log",
        "/tmp/cpsagent.log",
        "startup.log/../../etc/passwd",
        "",
        ".",
        "/",
        "cpsagent.log\n",
    ],
)
def test_no_other_file_is_read(call, places: paths.Paths, name: str):
    places.log_file.write_text("x")
    (places.certs / "key.pem").write_text("secret")
    answer = call("get_log", filename=name)
    assert "Failed to read log file" in answer["error"]
    assert "secret" not in json.dumps(answer)


def test_its_own_key_is_not_for_reading(call, places: paths.Paths):
    (places.certs / "key.pem").write_text("secret")
    assert "Failed to read log file" in call("get_log", filename=str(places.certs / "key.pem"))["error"]


def test_a_log_that_is_not_there(call):
    assert call("get_log", filename="startup.log")["error"] == "Failed to read log file: 'startup.log'"


@pytest.mark.parametrize("arguments", [{"offset": -1}, {"limit": 0}, {"limit": 4_000_001}, {"filename": "x" * 257}, {"other": 1}])
def test_what_cannot_be_meant_is_refused(call, arguments: dict[str, Any]):
    assert "error" in call("get_log", **arguments)


@pytest.mark.parametrize(("written", "code"), [("0\n", 0), ("124\n", 124), (None, None), ("", None), ("running\n", None)])
def test_how_the_startup_script_ended(call, places: paths.Paths, written: str | None, code: int | None):
    if written is not None:
        (places.scratch / "startup.status").write_text(written)
    assert call("get_startup_status")["result"]["code"] == code


def test_both_kinds_of_daemon_offer_the_same_window():
    from conpaas.core import expose, log_window, manager

    windows = [
        expose.exposed_methods(agent.BaseAgent)[("GET", "get_log")].params,
        expose.exposed_methods(manager.BaseManager)[("GET", "get_manager_log")].params,
    ]
    for window in windows:
        assert window[-2:] == log_window.PARAMS
    assert isinstance(log_window.PARAMS[0].type, params.Integer)
