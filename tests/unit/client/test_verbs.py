"""Every verb: what it sends, and the words it prints, which scripts rely on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conpaas.core import errors

RUNNING = {"state": "RUNNING", "type": "generic"}
NODE = {"serviceNode": {"id": "iaasvm-1", "ip": "10.0.0.9", "vmid": "vm-1", "cloud": "iaas", "role": "node", "logs": []}}
VOLUME = {"vol_name": "data", "vol_size": 64, "vm_id": "iaasvm-1", "cloud": "iaas", "service_id": 2}
CODES = {
    "codeVersions": [
        {"codeVersionId": "code-2", "filename": "b.zip", "description": "new", "current": True},
        {"codeVersionId": "code-1", "filename": "a.zip", "description": ""},
    ]
}
INFO = {"states": {"0": "RUNNING", "2": "INIT", "1": "RUNNING"}, "nodes": ["iaasvm-1"], "volumes": ["data"]}
SCRIPTS = {"agents": {"n1": dict.fromkeys(("init.sh", "notify.sh", "run.sh", "interrupt.sh", "cleanup.sh"), "RUNNING")}}

MANAGER: dict[str, Any] = {
    "get_service_info": RUNNING,
    "list_nodes": {"node": ["iaasvm-1"]},
    "get_node_info": NODE,
    "get_app_info": INFO,
    "get_manager_log": {"log": "the log"},
    "get_agent_log": {"log": "agent's"},
    "get_startup_script": "#!/bin/sh",
    "upload_startup_script": {"filename": "x"},
    "start_service": {"state": "PROLOGUE"},
    "stop_service": {"state": "EPILOGUE"},
    "add_nodes": {"state": "ADAPTING"},
    "remove_nodes": {"state": "ADAPTING"},
    "migrate_nodes": {},
    "recover_service": {"state": "RUNNING"},
    "list_volumes": {"volumes": [VOLUME]},
    "create_volume": {"service_id": 2},
    "delete_volume": {"service_id": 2},
    "list_code_versions": CODES,
    "upload_code_version": {"codeVersionId": "code-9"},
    "download_code_version": b"content",
    "enable_code": {},
    "delete_code_version": {},
    "upload_authorized_key": {"outcome": "1 keys added to authorized_keys"},
    "list_authorized_keys": {"authorizedKeys": ["ssh-rsa A", "ssh-rsa B"]},
    "execute_script": {"state": "RUNNING"},
    "get_script_status": SCRIPTS,
    "get_helloworld": {"helloworld": "Received hello"},
}
DIRECTOR: dict[str, Any] = {
    "/version": b"3.0.0",
    "/createapp": {"aid": 4, "name": "new", "status": "INIT"},
    "/renameapp/1": {},
    "/stopapp/1": {},
    "/deleteapp/1": {},
    "/startapp/1": {},
    "/startapp/1/ec2": {},
    "/add/generic": {"service": {"sid": 5, "name": "New", "type": "generic", "application_id": 1}},
    "/rename": {},
    "/remove": {},
    "/upload_manifest": {"aid": 1},
    "/download_manifest/1": {"Application": "shop"},
    "/user_config": {"uid": 7, "username": "bob", "password": "hash"},
    "/list_resources": [],
    "/quota": {"vms": {"used": 2, "limit": 5}, "volumes_mb": {"used": 0, "limit": None}},
    "/confirm_email": {"username": "bob"},
}

SENTENCES = [
    ("director version", "ConPaaS director version 3.0.0"),
    ("cloud list", "default\nec2"),
    ("cloud list_resources", "No existing resources"),
    ("user get_credit", "50"),
    ("user get_quota", "vms\t2\t5\nvolumes_mb\t0\tno limit"),
    ("user get_config", "uid: 7\nusername: bob"),
    ("application create new", "Application 'new' created with id 4."),
    ("application rename shop store", "Application with id 1 has been renamed from 'shop' to 'store'."),
    ("application start 1", "Application 'shop' with id 1 is starting...  done."),
    ("application start 1 -c ec2", "Application 'shop' with id 1 is starting...  done."),
    ("application stop shop", "Application 'shop' with id 1 was stopped."),
    ("application delete shop", "Application 'shop' with id 1 has been deleted."),
    ("application get_log 1", "the log"),
    ("application manifest m.json", "Application 1 is being created based on the specified manifest...  done."),
    ("service get_types", "helloworld\ngeneric"),
    ("service add generic 1", "Service generic successfully added to application 1 with id 5."),
    ("generic add 1", "Service generic successfully added to application 1 with id 5."),
    ("service remove 1 1", "Service 1 of application 1 has been successfully removed."),
    ("service rename 1 hello x", "Service 1 of application 1 has been renamed to 'x'."),
    ("service start 1 1", "Service 1 of application 1 is starting...  done."),
    ("service get_state 1 2", "state: RUNNING\ntype: generic"),
    ("service get_script 1 1", "#!/bin/sh"),
    ("service set_script 1 1 m.json", "Startup script uploaded successfully."),
    ("service get_log 1 1", "the log"),
    ("service get_agent_log 1 1 iaasvm-1 -f x.log", "agent's"),
    ("generic add_nodes 1 2 --count 3", "Starting 3 new nodes for service 2 of application 1...  done."),
    ("generic add-nodes 1 2", "Starting 1 new nodes for service 2 of application 1...  done."),
    ("generic remove_nodes 1 2", "Removing 1 nodes for service 2 of application 1...  done."),
    ("generic migrate_nodes 1 2 iaas:vm-1:ec2", "Migrating nodes vm-1 to ec2 for service 2 of application 1...  done."),
    ("generic upload_code 1 2 m.json", "Code version 'code-9' uploaded."),
    ("generic enable_code 1 2 code-1", "Enabling code version 'code-1'...  done."),
    ("generic delete_code 1 2 code-1", "Code version 'code-1' deleted."),
    ("generic download_code 1 2", "File 'b.zip' written."),
    ("generic download_code 1 2 -v code-1", "File 'a.zip' written."),
    ("generic upload_key 1 2 m.json", "1 keys added to authorized_keys."),
    ("generic list_keys 1 2", "ssh-rsa A\nssh-rsa B"),
    ("generic create_volume 1 data 64 iaasvm-1", "Creating volume 'data' and attaching it to node 'iaasvm-1'...  done."),
    ("generic delete_volume 1 data", "Detaching volume 'data' and deleting it...  done."),
    ("generic run 1 2 -p x", "Service started executing 'run.sh' on all the agents."),
    ("generic cleanup 1 2", "Service started executing 'cleanup.sh' on all the agents."),
    (
        "generic interrupt 1 2",
        "Service started executing 'interrupt.sh' on all the agents or killing all scripts if 'interrupt.sh' is already running.",
    ),
    (
        "generic get_script_status 1 2",
        "\nAgent n1:\n  init.sh\tRUNNING\n  notify.sh\tRUNNING\n  run.sh\tRUNNING\n  interrupt.sh\tRUNNING\n  cleanup.sh\tRUNNING\n",
    ),
    ("helloworld get_helloworld 1 1", "Received hello"),
]


@pytest.fixture(autouse=True)
def _served(wire: Any, home: Path) -> None:
    wire.director.update(DIRECTOR)
    wire.manager.update(MANAGER)
    (home / "m.json").write_text('{"Application": "x", "Services": [{"Type": "generic"}]}')


@pytest.mark.parametrize(("line", "sentence"), SENTENCES, ids=[line for line, _ in SENTENCES])
def test_success_is_said_in_the_classic_words(cps: Any, line: str, sentence: str) -> None:
    done = cps(line)
    assert (done.code, done.out, done.err) == (0, sentence + "\n", "")


@pytest.mark.parametrize("line", [line for line, _ in SENTENCES])
def test_every_verb_speaks_json(cps: Any, line: str) -> None:
    done = cps(f"{line} --output json")
    assert (done.code, done.err) == (0, "")
    json.loads(done.out)


def test_tables_keep_their_shape(cps: Any) -> None:
    assert cps("application list").out == (
        "aid name   manager    cloud   status\n"
        "-------------------------------------\n"
        "  1 shop   127.0.0.22 default RUNNING\n"
        "  2 second None       None    INIT\n"
        "  3 77     None       None    INIT\n"
    )
    assert cps("service list").out == (
        "aid sid type       name  status\n"
        "--------------------------------\n"
        "  1   1 helloworld hello RUNNING\n"
        "  1   2 generic    batch INIT\n"
        "  1   3 generic    twin  N/A\n"
        "  1   4 generic    twin  N/A\n"
    )
    assert cps("generic list_codes 1 2").out == (
        "current codeVersionId filename description\n"
        "------------------------------------------\n"
        "      * code-2        b.zip    new\n"
        "        code-1        a.zip\n"
    )
    assert cps("generic list_volumes 1 2").out == (
        "aid sid vol_name vol_size agent_id cloud\n------------------------------------------\n  1   2 data           64 iaasvm-1 default\n"
    )


def test_an_application_in_error_says_why(cps: Any, wire: Any) -> None:
    lost = {"aid": 1, "name": "shop", "manager": None, "cloud": "iaas", "status": "ERROR", "reason": "The cloud has lost it."}
    wire.director["/listapp"] = [lost]
    done = cps("application list")
    assert done.out.splitlines()[-1].endswith("ERROR")
    assert "Application 'shop' is in ERROR: The cloud has lost it." in done.err
    assert json.loads(cps("application list -o json").out)[0]["reason"] == "The cloud has lost it."


def test_application_info(cps: Any) -> None:
    assert cps("application get_info shop").out == (
        "Application name: shop\nApplication id: 1\nManager states:\n\tApplication manager: RUNNING\n"
        "\tService manager 1: RUNNING\n\tService manager 2: INIT\nNodes:\n\tiaasvm-1\nVolumes:\n\tdata\n"
    )


def test_names_are_printed_bare_on_request(cps: Any) -> None:
    assert cps("application list -o name").out == "shop\nsecond\n77\n"
    assert cps("application create new -o name").out == "4\n"


def test_what_is_sent(cps: Any, wire: Any) -> None:
    cps("service start 1 1 --cloud ec2")
    cps("generic add_nodes 1 2 --count 2 -c ec2")
    cps("generic remove_nodes 1 2")
    cps("generic run 1 2 -p a")
    cps("service rename 1 1 x")
    assert wire.changes() == [
        ("post", 0, "start_service", {"service_id": 1, "cloud": "ec2"}),
        ("post", 0, "add_nodes", {"service_id": 2, "nodes": {"count": 2}, "cloud": "ec2"}),
        ("post", 0, "remove_nodes", {"service_id": 2, "nodes": {"count": 1}}),
        ("post", 2, "execute_script", {"command": "run", "parameters": "a"}),
        ("POST", "/rename", {"app_id": "1", "service_id": "1", "name": "x"}),
    ]


def test_a_migration_plan(cps: Any, wire: Any) -> None:
    done = cps("generic migrate_nodes 1 2 iaas:vm-1:ec2,ec2:i:7:default -d 60")
    assert done.code == 0
    assert "The former nodes serve for 60 seconds more" in done.err
    cps("service migrate-nodes 1 2 iaas:iaasvm-1:ec2")
    first = [{"from_cloud": "iaas", "vmid": "vm-1", "to_cloud": "ec2"}, {"from_cloud": "ec2", "vmid": "i:7", "to_cloud": "default"}]
    second = [{"from_cloud": "iaas", "vmid": "iaasvm-1", "to_cloud": "ec2"}]
    assert wire.changes() == [
        ("post", 2, "migrate_nodes", {"migration_plan": first, "delay": 60}),
        ("post", 2, "migrate_nodes", {"migration_plan": second, "delay": 0}),
    ]


@pytest.mark.parametrize(
    ("plan", "text"),
    [("vm-1", "Cannot read the move 'vm-1'"), ("iaas:vm-1", "Cannot read"), (",", "Cannot read"), ("iaas:vm-1:nowhere", "nowhere")],
)
def test_a_plan_that_cannot_be_read(cps: Any, wire: Any, plan: str, text: str) -> None:
    done = cps(["generic", "migrate_nodes", "1", "2", plan])
    assert done.code
    assert text in done.err
    assert wire.changes() == []


def test_one_command_asks_for_the_applications_once(cps: Any, wire: Any) -> None:
    cps("service list_nodes 1 1")
    assert [call[1] for call in wire.calls if call[0] == "GET"] == ["/listapp", "/list"]


def test_a_failed_change_exits_1_with_the_reason(cps: Any, wire: Any, series: Any) -> None:
    wire.manager["start_service"] = {"operation": "op1"}
    wire.manager["get_operation"] = series(
        {"id": "op1", "status": "RUNNING", "steps": [{"name": "create_nodes", "status": "running"}]},
        {"id": "op1", "status": "UNDONE", "error": "no room in the cloud"},
    )
    done = cps("service start 1 1")
    assert (done.code, done.out) == (1, "Service 1 of application 1 is starting...  FAILED!\n")
    assert done.err.splitlines()[0] == "ERROR: no room in the cloud"


def test_states_are_followed_where_no_operation_is_named(cps: Any, wire: Any, series: Any, clock: Any) -> None:
    wire.manager["get_service_info"] = series({"state": "INIT"}, {"state": "PROLOGUE"}, {"state": "PROLOGUE"}, {"state": "RUNNING"})
    assert cps("service start 1 1").out.endswith("  done.\n")
    assert clock.pauses == pytest.approx([0.2, 0.3, 0.45])
    wire.manager["get_service_info"] = series({"state": "PROLOGUE"}, {"state": "INIT"})
    assert cps("service start 1 1").code == 1, "a start that was undone is a failure"


def test_waiting_ends_with_the_timeout(cps: Any, wire: Any) -> None:
    wire.manager["get_service_info"] = {"state": "PROLOGUE"}
    done = cps("service start 1 1 --timeout 30s")
    assert done.code == 5
    assert done.out == "Service 1 of application 1 is starting... \n"
    assert done.err.startswith("ERROR: Waited 30 s for")


def test_no_wait_only_asks(cps: Any, wire: Any) -> None:
    done = cps("service start 1 1 --no-wait")
    assert (done.code, done.out) == (0, "Service 1 of application 1 is starting...\n")
    assert all(call[3] != "get_service_info" for call in wire.calls if call[0] == "get")


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        ("application get_info 9", 3, "Unknown application id 9"),
        ("application get_info ship", 3, "Unknown application name 'ship'"),
        ("application get_info second", 1, "Application 2 has not started. Try to start it first."),
        ("service start 1 9", 3, "Unknown service id 9 in application 1"),
        ("helloworld start 1 batch", 3, "Unknown service name 'batch' in application 1 of type helloworld."),
        ("service start 1 twin", 1, "2 services match the service name 'twin' in application 1"),
        ("service start 1 1 -c moon", 3, "Unknown cloud name 'moon'"),
        ("generic add_nodes 1 2 --count -1", 1, "Invalid number of nodes -1."),
        ("generic upload_code 1 2 missing.zip", 1, "Cannot upload code: filename 'missing.zip' not found or access is denied"),
        ("generic download_code 1 2 -v nope", 3, "Invalid code version 'nope'"),
        ("application manifest nothing.json", 1, "The specified path does not contain a file"),
        ("wait 1 1 --for STOPPED --timeout 1s", 5, "Waited 1 s for service 1 of application 1 to be STOPPED, without success."),
        ("logs 1 1 --file x", 3, "No node of 'hello' has a log 'x'."),
    ],
)
def test_errors_name_the_thing(cps: Any, line: str, code: int, text: str) -> None:
    done = cps(line)
    assert done.code == code
    assert done.err.splitlines()[0] == f"ERROR: {text}"


def test_a_numeric_name_is_found_when_there_is_no_such_id(cps: Any, wire: Any) -> None:
    wire.director["/renameapp/3"] = {}
    assert cps("application rename 77 x").out == "Application with id 3 has been renamed from '77' to 'x'.\n"


def test_errors_are_objects_in_json(cps: Any) -> None:
    done = cps("application get_info ship -o json")
    assert json.loads(done.err) == {
        "error": "Unknown application name 'ship'", "kind": "not_found", "exit_code": 3, "hint": "did you mean 'shop'?",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("Insufficient credits", "cps-user get_credit"),
        ("Wrong service state: was expecting one of ['RUNNING'] but current state is 'ADAPTING'", "cps-tools wait"),
        ("Wrong service state: was expecting one of ['RUNNING'] but current state is 'ERROR'", "cps-service recover"),
    ],
)
def test_refusals_come_with_a_way_out(cps: Any, wire: Any, text: str, hint: str) -> None:
    wire.manager["add_nodes"] = errors.RemoteError(text)
    shown = cps("generic add_nodes 1 2").err.splitlines()
    assert shown[0] == f"ERROR: {text}"
    assert hint in shown[1]


def test_a_director_without_manifests_says_so(cps: Any, wire: Any) -> None:
    wire.director["/upload_manifest"] = errors.RemoteError("Not Found: POST /upload_manifest")
    assert cps("application manifest m.json").err == "ERROR: This ConPaaS director does not support manifests.\n"


def test_a_refusal_of_the_director_is_a_failure(cps: Any, wire: Any) -> None:
    wire.director["/renameapp/1"] = False
    assert cps("application rename 1 x").code == 1
    wire.director["/listapp"] = False
    assert cps("application list").code == 4


def test_a_node_that_cannot_be_queried_is_shown_as_unknown(cps: Any, wire: Any) -> None:
    wire.manager["list_nodes"] = {"node": ["a", "b"]}
    wire.manager["get_node_info"] = lambda params: NODE if params["serviceNodeId"] == "a" else errors.RemoteError("gone")
    done = cps("service list_nodes 1 1")
    assert done.out.splitlines()[2:] == ["  1   1 node 10.0.0.9 a        default", "  1   1 node N/A      b        N/A"]
    assert done.err == "WARNING: got node identifier from list_nodes but failed on get_node_info.\n"


def test_services_are_listed_while_a_manager_is_away(cps: Any, wire: Any) -> None:
    wire.manager["get_app_info"] = errors.Unreachable("no route")
    done = cps("service list -a shop")
    assert done.code == 0
    assert done.out.count("N/A") == 4


def test_nothing_is_asked_without_a_terminal(cps: Any, wire: Any) -> None:
    assert cps("application delete 1").code == 0
    assert cps("service remove 1 1").code == 0
    assert [call[1] for call in wire.changes()] == ["/deleteapp/1", "/remove"]


def test_recover_mends_the_services_in_error(cps: Any, wire: Any) -> None:
    wire.manager["get_app_info"] = {"states": {"0": "RUNNING", "1": "ERROR", "2": "RUNNING"}}
    assert cps("application recover 1").out == "Service 1 of application 1 is recovering...  done.\n"
    assert cps("service recover 1 2").out == "Service 2 of application 1 is recovering...  done.\n"


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["STOPPED (return code 0)", "STOPPED (return code 0)"], 0),
        (["STOPPED (return code 0)", "STOPPED (return code 3)"], 3),
        (["STOPPED (return code -15)", "STOPPED (return code 3)"], 143),
        (["NEVER STARTED"], 1),
    ],
)
def test_run_with_wait_ends_with_the_scripts_code(cps: Any, wire: Any, series: Any, statuses: list[str], code: int) -> None:
    ended = {"agents": {f"n{i}": {"run.sh": status} for i, status in enumerate(statuses)}}
    wire.manager["get_script_status"] = series({"agents": {"n0": {"run.sh": "RUNNING"}}}, ended)
    assert cps("generic run 1 2 --wait").code == code


def test_run_with_wait_follows_the_run_that_the_manager_names(cps: Any, wire: Any, series: Any) -> None:
    wire.manager["execute_script"] = {"state": "RUNNING", "run_id": "run-1"}
    wire.manager["get_run"] = series({"run": {"run_id": "run-1", "exit_code": None}}, {"run": {"run_id": "run-1", "exit_code": 4}})
    assert cps("generic run 1 2 --wait").code == 4


def test_history_of_an_application_is_what_the_director_did(cps: Any, wire: Any) -> None:
    wire.director["/app_history/2"] = [
        {"operationId": "b", "kind": "start", "status": "UNDONE", "reason": "no room", "started": 60.0, "steps": []},
        {"operationId": "a", "kind": "create", "status": "DONE", "reason": None, "started": 0.0, "steps": []},
    ]
    lines = cps("history second").out.splitlines()
    assert [line.split(maxsplit=2)[2] for line in lines] == ["create DONE", "start UNDONE no room"]


def test_status_is_one_table(cps: Any, wire: Any) -> None:
    wire.director["/list_resources"] = [{"rid": 1, "app_id": 1, "vmid": "m", "ip": "127.0.0.22", "role": "manager", "cloud": "iaas"}]
    done = cps("status")
    assert done.out == (
        "aid application sid service type       status  nodes address\n"
        "---------------------------------------------------------------\n"
        "  1 shop                               RUNNING     1 127.0.0.22\n"
        "  1               1 hello   helloworld RUNNING     1 10.0.0.9\n"
        "  1               2 batch   generic    INIT        0\n"
        "  1               3 twin    generic    N/A         0\n"
        "  1               4 twin    generic    N/A         0\n"
        "  2 second                             INIT        0 None\n"
        "  3 77                                 INIT        0 None\n"
        "Credit: 50\n"
    ).replace(" None", "")
    shown = json.loads(cps("status -o json").out)
    assert [a["name"] for a in shown["applications"]] == ["shop", "second", "77"]


def test_who_has_no_certificate_registers_and_confirms(cps: Any, wire: Any, home: Path) -> None:
    (home / ".conpaas").mkdir(exist_ok=True)
    (home / ".conpaas" / "ca_cert.pem").write_text("known")
    wire.director["/new_user"] = {"username": "bob", "unconfirmed": True}
    done = cps("user create_free bob --email b@example.org --password secret12 --invitation token")
    assert done.out.strip() == "User 'bob' created successfully. It works once you have followed what the message to b@example.org says."
    done = cps("user confirm_email token")
    assert done.out.strip() == "The e-mail address of user 'bob' is confirmed."
