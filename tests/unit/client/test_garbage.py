"""Whatever a server answers, the user reads a sentence and never a traceback."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from conpaas.client import replies
from conpaas.core import errors

WORDS = [
    "state",
    "states",
    "agents",
    "log",
    "volumes",
    "codeVersions",
    "serviceNode",
    "operation",
    "steps",
    "state_log",
    "0",
    "service",
    "aid",
    "sid",
    "used",
    "limit",
    "username",
]
SCALARS = strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | strategies.text(max_size=8)
GARBAGE = strategies.recursive(
    SCALARS,
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)
LINES = [
    "user get_config", "user get_credit", "user get_quota", "cloud list", "cloud list_resources", "director version",
    "application list",
    "application create x", "application start shop --timeout 2s", "application manifest m.json --timeout 2s", "service list",
    "service get_types", "service add generic 1", "status", "whoami",
]  # fmt: skip
MANAGER_LINES = [
    "application get_info 1", "application get_log 1", "application recover 1", "service start 1 1 --timeout 2s", "service list_nodes 1 1",
    "service get_state 1 1", "service get_script 1 1", "service get_history 1 1", "service list_agent_logs 1 1 x", "service list",
    "service get_agent_log 1 1 x", "generic list_codes 1 2", "generic download_code 1 2", "generic upload_code 1 2 m.json",
    "generic enable_code 1 2 c --timeout 2s", "generic list_keys 1 2", "generic upload_key 1 2 m.json", "generic list_volumes 1 2",
    "generic list_runs 1 2", "generic get_script_output 1 2 n", "generic get_time_limits 1 2", "generic set_time_limit 1 2 run.sh 5",
    "generic create_volume 1 v 1 a --timeout 2s", "generic get_script_status 1 2", "generic run 1 2 --wait --timeout 2s",
    "helloworld get_helloworld 1 1", "logs 1 1", "history 1 1", "wait 1 1 --timeout 2s", "status",
]  # fmt: skip
PROPERTY = hypothesis.settings(
    max_examples=12, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], derandomize=True
)


def assert_a_sentence(done: Any) -> None:
    assert done.code in (0, 1, 3, 4, 5), done
    assert "Traceback" not in done.err
    assert "defect of the client" not in done.err, done.err
    if done.code:
        assert "ERROR" in done.err or "FAILED" in done.out


@pytest.mark.parametrize("line", LINES)
@hypothesis.given(reply=GARBAGE)
@PROPERTY
def test_the_director_answers_garbage(cps: Any, wire: Any, home: Any, line: str, reply: Any) -> None:
    (home / "m.json").write_text("{}")
    known = {"/listapp": wire.director["/listapp"]} if line.startswith("application start") else {}
    wire.director = {"*": reply, **known}
    assert_a_sentence(cps(line))


@pytest.mark.parametrize("line", MANAGER_LINES)
@hypothesis.given(reply=GARBAGE)
@PROPERTY
def test_the_manager_answers_garbage(cps: Any, wire: Any, home: Any, line: str, reply: Any) -> None:
    (home / "m.json").write_text("{}")
    wire.director["/list_resources"] = []
    wire.manager = {"*": reply, "download_code_version": b"x"}
    assert_a_sentence(cps(line))


READERS = [
    replies.Application.read, replies.Service.read, replies.Resource.read, replies.LogFile.read, replies.Volume.read,
    replies.CodeVersion.read, replies.StateChange.read, replies.Operation.read, replies.LogPart.read,
    lambda value: replies.Node.read(value, "id", "role"),
]  # fmt: skip


@pytest.mark.parametrize("read", READERS)
@hypothesis.given(reply=GARBAGE)
@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
def test_readers_refuse_with_our_own_error(read: Any, reply: Any) -> None:
    try:
        read(reply)
    except errors.RemoteError as error:
        assert str(error).startswith("The reply is not ")
