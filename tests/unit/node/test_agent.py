"""What every agent answers, and what its process says when it cannot start."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from conpaas.core import agent, agent_daemon, config, metrics, paths, rpc
from conpaas.core.https import identity

MANAGER = identity.PeerIdentity("manager", uid=1, aid=1)


@pytest.fixture
def base(tmp_path: pathlib.Path) -> agent.BaseAgent:
    where = paths.Paths.under(tmp_path)
    where.create()
    where.scratch.mkdir()
    return agent.BaseAgent(config.Config({"agent": {"TYPE": "x", "MY_IP": "127.13.0.9"}, "vm": where.to_config()}))


def call(base: agent.BaseAgent, method: str, **params: Any) -> Any:
    application = rpc.RpcApplication()
    application.register(0, base)
    reply = application.dispatch(rpc.RpcCall("GET", 0, method, 1, params, MANAGER))
    assert reply.body is not None
    answer = json.loads(reply.body)
    return answer.get("error") or answer["result"]


def test_it_works(base: agent.BaseAgent):
    assert call(base, "check_process") == {}


def test_its_log_by_name_and_by_classic_path(base: agent.BaseAgent):
    base.paths.log_file.write_bytes(b"one\ntwo\xff\n")
    expected = {"log": "one\ntwo\ufffd\n", "offset": 9, "size": 9}
    for name in ({}, {"filename": "cpsagent.log"}, {"filename": "/var/log/cpsagent.log"}, {"filename": str(base.paths.log_file)}):
        assert call(base, "get_log", **name) == expected
    assert call(base, "get_log", offset=4, limit=3) == {"log": "two", "offset": 7, "size": 9}


def test_a_long_log_is_cut_to_its_end(base: agent.BaseAgent, monkeypatch: pytest.MonkeyPatch):
    base.paths.log_file.write_bytes(b"x" * 5_000_000 + b"end")
    answer = call(base, "get_log")
    assert len(answer["log"]) == 4_000_000
    assert answer["log"].endswith("end")


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../../etc/cpsagent/certs/key.pem",
        "key.pem",
        "/tmp/cpsagent.log",
        "/var/log/../log/cpsagent.log",
        "",
    ],
)
def test_no_other_file_can_be_read(base: agent.BaseAgent, name: str):  # D7
    (base.paths.certs / "key.pem").write_text("secret")
    base.paths.log_file.write_text("log")
    assert "Failed to read log file" in str(call(base, "get_log", filename=name))


def test_a_log_that_is_not_there(base: agent.BaseAgent):
    assert call(base, "get_log") == "Failed to read log file: 'cpsagent.log'"


def test_how_the_startup_script_ended(base: agent.BaseAgent):
    assert call(base, "get_startup_status") == {"code": None}
    (base.paths.scratch / "startup.status").write_text("124\n")
    assert call(base, "get_startup_status") == {"code": 124}


COMPLETE = {
    "LOG_FILE": "/x/log",
    "ETC": "/x",
    "VAR_TMP": "/x",
    "VAR_CACHE": "/x",
    "VAR_RUN": "/x",
    "USER_ID": "1",
    "APP_ID": "1",
    "MY_IP": "1.2.3.4",
}


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        (None, "Failed to find configuration file"),
        ({"manager": COMPLETE}, 'Missing configuration section "agent"'),
        ({"agent": {"TYPE": "x"}}, 'Section "agent" should contain variables LOG_FILE, ETC, VAR_TMP, VAR_CACHE, VAR_RUN'),
        ({"agent": {**COMPLETE, "VAR_TMP": ""}}, 'Missing configuration variable "VAR_TMP" in section "agent"'),
    ],
)
def test_the_process_tells_what_its_configuration_lacks(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], sections: dict[str, dict[str, str]] | None, text: str
):
    path = tmp_path / "config.cfg"
    if sections is not None:
        path.write_text(
            "".join(f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()) for name, keys in sections.items())
        )
    assert agent_daemon.main(["-c", str(path)]) == 1
    assert text in capsys.readouterr().err


def test_the_configuration_is_mandatory(capsys: pytest.CaptureFixture[str]):
    assert agent_daemon.main([]) == 1
    assert "Failed to find configuration file" in capsys.readouterr().err


def test_metrics_are_in_the_text_format():
    counter = metrics.Counter("conpaas_test_total")
    counter.add(kind='a "b"\\\n')
    counter.add(2, kind='a "b"\\\n')
    page = metrics.render()
    assert '# TYPE conpaas_test_total counter\nconpaas_test_total{kind="a \\"b\\"\\\\\\n"} 3\n' in page
    assert "\nprocess_resident_memory_bytes " in page


@pytest.mark.parametrize("arguments", [{"offset": -1}, {"limit": 0}, {"limit": 4_000_001}, {"filename": "x" * 257}, {"other": 1}])
def test_what_cannot_be_meant_is_refused(base: agent.BaseAgent, arguments: dict[str, Any]):
    assert isinstance(call(base, "get_log", **arguments), str), "an error"
