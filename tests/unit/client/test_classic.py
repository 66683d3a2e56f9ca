"""The first client's syntax."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conpaas.client import classic
from conpaas.core import errors

NODE = {"serviceNode": {"id": "iaasvm-1", "ip": "10.0.0.9", "vmid": "vm-1", "cloud": "iaas"}}


@pytest.fixture
def cpsclient(wire: Any, home: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(line: str) -> tuple[int, str]:
        code = classic.main(line.split())
        return int(code), capsys.readouterr().out

    (home / "file").write_text("{}")
    wire.manager |= {
        "get_service_info": {"state": "RUNNING", "type": "generic"},
        "list_nodes": {"node": ["iaasvm-1"]},
        "get_node_info": NODE,
        "get_manager_log": {"log": "log"},
        "get_app_info": {"states": {"0": "RUNNING"}},
        **{
            name: {}
            for name in ("start_service", "stop_service", "add_nodes", "remove_nodes", "migrate_nodes", "enable_code", "execute_script")
        },
        "upload_startup_script": {"filename": "x"},
        "list_volumes": {"volumes": []},
        "create_volume": {"service_id": 2},
    }
    wire.director |= {"/createapp": {"aid": 4, "name": "x"}, "/stopapp/1": {}, "/remove": {}, "/list/1": wire.director["/list"]}
    return run


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("listapp", "aid name   manager\n---------------------\n  1 shop   127.0.0.22\n  2 second None\n  3 77     None\n"),
        ("available", "helloworld\ngeneric\n"),
        ("clouds", "default\nec2\n"),
        ("createapp x", "Creating new application... \ndone.\n"),
        ("stopapp 1", "Stopping application... \ndone.\n"),
        ("infoapp 1", "Info for application 1\n{'states': {'0': 'RUNNING'}}\n"),
        ("start 1 1", "Your service is starting up.\n"),
        ("stop 1 1", "Stopping service... \nService is in 'RUNNING' state. Shutting it down.\n"),
        ("logs 1 1", "log\n"),
        ("list_nodes 1 1", "node: node vm-1 from cloud default with IP address 10.0.0.9\n"),
        ("startup_script 1 1 file", "Startup script uploaded correctly.\n"),
        ("enable_code 1 2 code-1", "code-1 enabled\n"),
        ("run 1 2 x", "Service started executing 'run.sh' on all the agents...\n"),
        ("create_volume 1 2 v 64 a", "Creating volume v...  done.\n"),
        ("info 1 1", "aid: 1\nsid: 1\ntype: helloworld\nname: hello\nstate: RUNNING\nnode 10.0.0.9\n"),
    ],
)
def test_what_commands_print(cpsclient: Any, line: str, text: str) -> None:
    assert cpsclient(line) == (0, text)


@pytest.mark.parametrize(
    ("line", "code", "last"),
    [
        ("deleteapp 9", 1, "E: nothing known of /deleteapp/9"),
        ("start 1 9", 1, "E: cannot find service 9 for application 1"),
        ("start one 1", 1, "E: 'one' is not an id"),
        ("remove 1 1", 1, "E: Service is in 'RUNNING' state. We can not remove it."),
        ("add java 1", 1, 'E: Service type "java" is not supported'),
        ("add generic 9", 1, "E: Unknown application id: 9"),
        ("get_helloworld 1 2", 1, "E: A generic service has no command 'get_helloworld'"),
        ("createapp", 2, "Usage: cpsclient createapp appname"),
        ("enable_code 1 2", 2, "Usage: cpsclient enable_code appid serviceid version"),
        ("start 1", 2, "Usage: cpsclient start appid serviceid ..."),
    ],
)
def test_failures_are_told_on_stdout_and_by_the_exit_code(cpsclient: Any, line: str, code: int, last: str) -> None:
    got, out = cpsclient(line)
    assert (got, out.splitlines()[-1]) == (code, last)


def test_a_failed_command_says_so(cpsclient: Any, wire: Any) -> None:
    wire.director["/createapp"] = errors.RemoteError("Insufficient credits")
    assert cpsclient("createapp x") == (1, "Creating new application... \nfailed.\nE: Insufficient credits\n")
    wire.director["/stopapp/1"] = False
    assert cpsclient("stopapp 1")[0] == 1


@pytest.mark.parametrize("line", ["", "help", "usage 1 2", "usage generic", "help 1 1"])
def test_usage(cpsclient: Any, line: str) -> None:
    code, out = cpsclient(line)
    assert code == 0
    assert out.startswith("Usage: cpsclient COMMAND")
    assert ("get_script_status" in out) == line.endswith(("2", "generic"))


def test_an_unknown_command(cpsclient: Any) -> None:
    code, out = cpsclient("explode 1 2")
    assert (code, out.splitlines()[0]) == (2, "E: Unknown command 'explode'")


def test_nodes_move_by_the_classic_notation(cpsclient: Any, wire: Any) -> None:
    code, out = cpsclient("migrate_nodes 1 2 iaas:vm-1:ec2 60")
    assert (code, out.strip()) == (
        0,
        "Migration of nodes iaas:vm-1:ec2 has been successfully started for generic service 2 with a delay of 60 seconds.",
    )
    plan = [{"from_cloud": "iaas", "vmid": "vm-1", "to_cloud": "ec2"}]
    assert wire.changes() == [("post", 2, "migrate_nodes", {"migration_plan": plan, "delay": 60})]


def test_node_commands_take_counts_by_place(cpsclient: Any, wire: Any) -> None:
    cpsclient("add_nodes 1 2 3 ec2")
    cpsclient("remove_nodes 1 1 2")
    assert wire.changes() == [
        ("post", 0, "add_nodes", {"service_id": 2, "nodes": {"count": 3}, "cloud": "ec2"}),
        ("post", 0, "remove_nodes", {"service_id": 1, "nodes": {"count": 2}}),
    ]
    wire.director["/list"] = [{"service": {"sid": 6, "name": "web", "type": "php", "application_id": 1}}]
    wire.calls.clear()
    cpsclient("add_nodes 1 6 1 2 3")
    assert wire.changes() == [
        ("post", 0, "add_nodes", {"service_id": 6, "nodes": {"backend": 1, "web": 2, "proxy": 3}, "cloud": "default"})
    ]
