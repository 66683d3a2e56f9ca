"""The manager and the agents of the generic service: membership, code, scripts, volumes; the classic texts."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from conpaas.core import errors, node
from conpaas.services.generic.manager import manager as generic_manager
from conpaas.testing import harness

SCRIPTS = ("init.sh", "notify.sh", "run.sh", "interrupt.sh", "cleanup.sh")
STILL_RUNNING = re.escape(generic_manager.STILL_RUNNING)


@pytest.fixture
def generic(stage: Any) -> Iterator[harness.Harness]:
    with harness.Harness("generic") as made:
        yield made


def members_at(made: harness.Harness, one: node.ServiceNode) -> list[list[str]]:
    path = made.directory / "nodes" / one.id / "var/cache/cpsagent/agents.json"
    return [[member["id"], member["role"]] for member in json.loads(path.read_text())]


def as_listed(made: harness.Harness) -> list[list[str]]:
    return [[one.id, one.role] for one in made.nodes]


def execute(made: harness.Harness, command: str, **more: Any) -> Any:
    reply = made.call("execute_script", command=command, **more)
    made.settle()
    return reply


def statuses(made: harness.Harness, one: node.ServiceNode) -> dict[str, str]:
    return made.call("get_script_status")["agents"][one.id]


class TestMembership:
    def test_the_first_node_is_the_master(self, generic: harness.Harness) -> None:
        generic.start()
        (master,) = generic.nodes
        assert generic.call("list_nodes") == {"master": [master.id], "node": []}
        info = generic.call("get_node_info", serviceNodeId=master.id)["serviceNode"]
        assert (info["role"], info["is_master"]) == ("master", True)
        assert [entry["filename"] for entry in info["logs"]] == ["cpsagent.log", "agent.out", "agent.err"]
        assert members_at(generic, master) == [[master.id, "master"]]

    def test_new_nodes_are_initialised_and_old_ones_notified(self, generic: harness.Harness, stage: Any) -> None:
        generic.start()
        stage.started.clear()
        generic.add_nodes({"count": 2})
        assert sorted(stage.scripts()) == ["init.sh", "init.sh", "notify.sh"]
        for one in generic.nodes:
            assert members_at(generic, one) == as_listed(generic)

    def test_remaining_nodes_are_notified_and_the_newest_leave(self, generic: harness.Harness, stage: Any) -> None:
        generic.start()
        generic.add_nodes({"node": 2})
        kept = generic.nodes[:2]
        stage.started.clear()
        generic.remove_nodes({"node": 1})
        assert generic.nodes == kept
        assert stage.scripts() == ["notify.sh", "notify.sh"]
        assert members_at(generic, kept[0]) == as_listed(generic)

    def test_notify_is_not_dropped_while_a_script_runs(self, generic: harness.Harness, stage: Any) -> None:
        generic.start()
        stage.stay = {"run.sh"}
        execute(generic, "run")
        generic.add_nodes({"node": 1})
        assert statuses(generic, generic.nodes[0])["run.sh"] == "RUNNING"
        assert statuses(generic, generic.nodes[0])["notify.sh"] == "STOPPED (return code 0)"

    def test_a_node_that_leaves_is_interrupted_in_order(self, generic: harness.Harness, stage: Any) -> None:
        generic.start()
        generic.add_nodes({"node": 1})
        stage.stay = {"run.sh"}
        run = execute(generic, "run")["run_id"]
        stage.started.clear()
        victim = generic.nodes[1]
        generic.remove_nodes({"node": 1})
        assert stage.scripts() == ["interrupt.sh", "notify.sh"]
        ended = generic.call("get_run", run=run)["run"]["nodes"][victim.id]
        assert (ended["signal"], ended["ended_by"]) == ("SIGTERM", "interrupt")

    def test_the_master_moves_and_its_heir_becomes_the_master(self, generic: harness.Harness) -> None:
        generic.start()
        generic.add_nodes({"node": 1})
        generic.migrate_nodes({generic.nodes[0].id: "two"})
        assert [(one.role, one.cloud_name) for one in generic.nodes] == [("node", "iaas"), ("master", "two")]
        assert all(sorted(members_at(generic, one)) == sorted(as_listed(generic)) for one in generic.nodes)
        generic.check()

    def test_there_is_one_master_while_it_moves_with_a_delay(self, generic: harness.Harness) -> None:
        generic.start()
        generic.migrate_nodes({generic.nodes[0].id: "two"}, delay=30)
        assert [one.role for one in generic.nodes] == ["master", "node"]
        generic.pass_time(35)
        assert [(one.role, one.cloud_name) for one in generic.nodes] == [("master", "two")]
        generic.check()

    def test_the_heir_of_a_master_that_is_lost_becomes_the_master(self, generic: harness.Harness) -> None:
        generic.start()
        generic.migrate_nodes({generic.nodes[0].id: "two"}, delay=600)
        generic.kill_node(generic.nodes[0])
        generic.pass_time(20)
        assert [(one.role, one.cloud_name) for one in generic.nodes] == [("master", "two")]
        generic.check()

    def test_a_master_that_cannot_leave_stays_the_only_one(self, generic: harness.Harness) -> None:
        generic.start()
        generic.fail_at("migrate_nodes", "leave", "after")
        with pytest.raises(errors.OperationFailed):
            generic.migrate_nodes({generic.nodes[0].id: "two"})
        assert [(one.role, one.cloud_name) for one in generic.nodes] == [("master", "iaas")]
        generic.check()

    def test_a_lost_master_is_replaced_by_a_master(self, generic: harness.Harness) -> None:
        generic.start()
        generic.add_nodes({"node": 1})
        lost, other = generic.nodes
        generic.kill_node(lost)
        generic.pass_time(30)
        assert generic.state == "RUNNING"
        assert [one.role for one in generic.nodes] == ["node", "master"]
        new = generic.nodes[1]
        assert members_at(generic, other) == members_at(generic, new) == [[new.id, "master"], [other.id, "node"]]

    @pytest.mark.parametrize(
        ("method", "nodes", "text"),
        [
            ("remove_nodes", {"node": 3}, "Requesting to delete 3 nodes while only 2 can be removed"),
            ("remove_nodes", {"master": 1}, "Cannot remove the master node."),
            ("remove_nodes", {"master": 1, "node": 1}, "Cannot remove the master node."),
            ("add_nodes", {"master": 1}, "Cannot add a master node"),
            ("add_nodes", {"worker": 1}, "Wrong node type 'worker' for service type 'generic'."),
            ("add_nodes", {"node": 0}, "Need a positive value for at least one role"),
            ("add_nodes", {"node": -1}, "Invalid number of nodes -1"),
        ],
    )
    def test_the_classic_refusals(self, generic: harness.Harness, method: str, nodes: dict[str, int], text: str) -> None:
        generic.start()
        generic.add_nodes({"node": 2})
        cloud = {"cloud": "default"} if method == "add_nodes" else {}
        with pytest.raises(errors.RemoteError, match=re.escape(text)):
            generic.request(method, service_id=generic.service_id, nodes=nodes, **cloud)

    def test_the_master_cannot_be_removed_by_name(self, generic: harness.Harness) -> None:
        generic.start()
        generic.add_nodes({"node": 1})
        with pytest.raises(errors.RemoteError, match="Cannot remove the master node"):
            generic.remove_nodes(node_ids=[generic.nodes[0].id])

    def test_a_node_whose_init_fails_does_not_join(self, generic: harness.Harness, stage: Any) -> None:
        generic.start()
        stage.returns = {"init.sh": 4}
        with pytest.raises(errors.OperationFailed, match=r"init\.sh of code version code-default ended with code 4"):
            generic.add_nodes({"node": 1})
        assert generic.state == "RUNNING"
        assert members_at(generic, generic.nodes[0]) == as_listed(generic) == [[generic.nodes[0].id, "master"]]

    def test_a_start_whose_init_fails_is_undone(self, generic: harness.Harness, stage: Any) -> None:
        stage.returns = {"init.sh": 1}
        with pytest.raises(errors.OperationFailed):
            generic.start()
        assert generic.state == "INIT"
        generic.check()


class TestCode:
    def test_a_service_begins_with_the_default_version(self, generic: harness.Harness) -> None:
        (only,) = generic.call("list_code_versions")["codeVersions"]
        assert (only["codeVersionId"], only["filename"], only["description"], only["current"]) == (
            "code-default",
            "code-default.tar",
            "Initial version",
            True,
        )

    def test_a_stopped_service_only_notes_which_version_it_will_use(self, generic: harness.Harness, make_archive: Any) -> None:
        uploaded = generic.call("upload_code_version", code=make_archive(**{"init.sh": ""}), description="mine")["codeVersionId"]
        assert re.fullmatch(r"code-[A-Za-z0-9]{6}", uploaded)
        assert generic.call("enable_code", codeVersionId=uploaded) == {}
        newest, default = generic.call("list_code_versions")["codeVersions"]
        assert (newest["codeVersionId"], newest["filename"], newest["description"]) == (uploaded, "app.tar.gz", "mine")
        assert newest["current"] and "current" not in default

    def test_enabling_runs_the_new_init_everywhere(self, generic: harness.Harness, stage: Any, make_archive: Any) -> None:
        generic.start()
        generic.add_nodes({"node": 1})
        uploaded = generic.call("upload_code_version", code=make_archive(**{"init.sh": "", "run.sh": ""}))["codeVersionId"]
        stage.started.clear()
        generic.call("enable_code", codeVersionId=uploaded)
        assert generic.state == "ADAPTING"
        generic.settle()
        assert generic.state == "RUNNING"
        assert [(run.script.filename, run.spec.code_version) for run in stage.started] == [("init.sh", uploaded)] * 2
        assert statuses(generic, generic.nodes[1])["run.sh"] == "NEVER STARTED"
        assert ("ADAPTING", "Updating configuration") in generic.history

    def test_a_version_whose_init_fails_gives_way_to_the_former_one(self, generic: harness.Harness, stage: Any, make_archive: Any) -> None:
        generic.start()
        generic.add_nodes({"node": 1})
        uploaded = generic.call("upload_code_version", code=make_archive(**{"init.sh": ""}))["codeVersionId"]
        stage.returns = {"init.sh": 9}
        op = generic.call("enable_code", codeVersionId=uploaded)["operation"]
        generic.settle()
        assert "ended with code 9" in str(generic.operation(op).error)
        assert generic.state == "RUNNING"
        assert [version["codeVersionId"] for version in generic.call("list_code_versions")["codeVersions"] if "current" in version] == [
            "code-default"
        ]
        assert {run.spec.code_version for run in stage.started[-2:]} == {"code-default"}

    def test_a_node_that_dies_meanwhile_is_named_and_the_others_get_the_former_code(
        self, generic: harness.Harness, make_archive: Any
    ) -> None:
        generic.start()
        generic.add_nodes({"node": 1})
        uploaded = generic.call("upload_code_version", code=make_archive(**{"init.sh": ""}))["codeVersionId"]
        op = generic.call("enable_code", codeVersionId=uploaded)["operation"]
        generic.kill_node(generic.nodes[1])
        generic.settle()
        assert generic.nodes[1].id in str(generic.operation(op).error)
        assert generic.state == "RUNNING"

    def test_code_is_not_switched_under_a_running_script(self, generic: harness.Harness, stage: Any) -> None:
        generic.start()
        stage.stay = {"run.sh"}
        execute(generic, "run")
        with pytest.raises(errors.RemoteError, match=STILL_RUNNING):
            generic.call("enable_code", codeVersionId="code-default")

    def test_what_was_uploaded_comes_back_byte_by_byte(self, generic: harness.Harness, make_archive: Any) -> None:
        archive = make_archive(**{"init.sh": "echo"})
        uploaded = generic.call("upload_code_version", code=archive)["codeVersionId"]
        assert generic.call("download_code_version", codeVersionId=uploaded) == archive.read_bytes()
        generic.kill()
        generic.restart()
        assert generic.call("download_code_version", codeVersionId=uploaded) == archive.read_bytes()

    @pytest.mark.parametrize(
        ("method", "version", "text"),
        [
            ("enable_code", "nope", "Parameter 'codeVersionId': 'nope' must be one of ['code-default']."),
            ("download_code_version", "nope", "Invalid arguments (Invalid codeVersionId)"),
            ("delete_code_version", "../../etc/passwd", "Invalid arguments (Invalid codeVersionId)"),
            ("delete_code_version", "code-default", "Invalid arguments (Cannot remove the active code version)"),
        ],
    )
    def test_the_classic_refusals(self, generic: harness.Harness, method: str, version: str, text: str) -> None:
        with pytest.raises(errors.RemoteError, match=re.escape(text)):
            generic.call(method, codeVersionId=version)

    def test_a_deleted_version_is_gone(self, generic: harness.Harness, make_archive: Any) -> None:
        uploaded = generic.call("upload_code_version", code=make_archive(**{"init.sh": ""}))["codeVersionId"]
        generic.call("delete_code_version", codeVersionId=uploaded)
        assert len(generic.call("list_code_versions")["codeVersions"]) == 1
        assert {path.name for path in generic.manager.code_dir.iterdir()} == {"code-default"}

    def test_anything_but_an_archive_is_refused(self, generic: harness.Harness, tmp_path: pathlib.Path) -> None:
        (tmp_path / "text").write_text("no archive")
        with pytest.raises(errors.RemoteError, match=r"^Invalid arguments \(Invalid archive format"):
            generic.call("upload_code_version", code=tmp_path / "text")


class TestScripts:
    def test_a_run_is_an_object_with_an_end_on_every_node(self, generic: harness.Harness, stage: Any) -> None:
        generic.start()
        generic.add_nodes({"node": 1})
        stage.returns = {"run.sh": 3}
        reply = generic.call("execute_script", command="run", parameters="a 'b c'")
        assert reply["state"] == "RUNNING"
        assert generic.call("get_run", run=reply["run_id"])["run"]["state"] == "RUNNING"
        assert statuses(generic, generic.nodes[0])["run.sh"] == "RUNNING"
        generic.settle()
        run = generic.call("get_run", run=reply["run_id"])["run"]
        assert (run["state"], run["success"], run["exit_code"], run["parameters"]) == ("STOPPED", False, 3, "a 'b c'")
        assert [run["nodes"][one.id]["exit_code"] for one in generic.nodes] == [3, 3]
        assert stage.started[-1].spec.argv[2:] == ("a", "b c")
        assert generic.call("list_runs")["runs"][0]["run_id"] == reply["run_id"]

    def test_states_of_scripts_in_classic_words(self, generic: harness.Harness, stage: Any) -> None:
        generic.start()
        (master,) = generic.nodes
        assert statuses(generic, master) == {**dict.fromkeys(SCRIPTS, "NEVER STARTED"), "init.sh": "STOPPED (return code 0)"}
        stage.stay = {"run.sh"}
        execute(generic, "run")
        execute(generic, "interrupt")
        assert statuses(generic, master)["run.sh"] == "STOPPED (return code -15)"

    @pytest.mark.parametrize("command", ["run", "cleanup"])
    def test_one_script_at_a_time(self, generic: harness.Harness, stage: Any, command: str) -> None:
        generic.start()
        stage.stay = {"run.sh"}
        execute(generic, "run")
        with pytest.raises(errors.RemoteError, match=STILL_RUNNING):
            generic.call("execute_script", command=command)

    def test_two_quick_requests_start_one_script(self, generic: harness.Harness, stage: Any) -> None:
        generic.start()
        generic.call("execute_script", command="run")
        with pytest.raises(errors.RemoteError, match=STILL_RUNNING):
            generic.call("execute_script", command="run")
        generic.settle()
        assert stage.scripts().count("run.sh") == 1

    def test_the_second_interrupt_kills(self, generic: harness.Harness, stage: Any) -> None:
        generic.start()
        stage.stay = {"run.sh", "interrupt.sh"}
        execute(generic, "run")
        execute(generic, "interrupt")
        assert statuses(generic, generic.nodes[0])["interrupt.sh"] == "RUNNING"
        execute(generic, "interrupt")
        assert statuses(generic, generic.nodes[0])["run.sh"] == "STOPPED (return code -9)"

    def test_interrupt_without_interrupt_script_just_ends_everything(self, generic: harness.Harness, stage: Any, make_archive: Any) -> None:
        uploaded = generic.call("upload_code_version", code=make_archive(**{"run.sh": ""}))["codeVersionId"]
        generic.call("enable_code", codeVersionId=uploaded)
        generic.start()
        stage.stay = {"run.sh"}
        execute(generic, "run")
        run = execute(generic, "interrupt")["run_id"]
        assert statuses(generic, generic.nodes[0])["run.sh"] == "STOPPED (return code -15)"
        assert generic.call("get_run", run=run)["run"]["success"]

    def test_an_interrupt_overtakes_a_run_that_has_not_begun(self, generic: harness.Harness, stage: Any) -> None:
        generic.start()
        run = generic.call("execute_script", command="run")["run_id"]
        generic.call("execute_script", command="interrupt")
        generic.settle()
        assert "run.sh" not in stage.scripts()
        part = generic.call("get_run", run=run)["run"]["nodes"][generic.nodes[0].id]
        assert part == {"state": "FAILED", "reason": "it was interrupted before it began"}

    def test_nothing_to_interrupt(self, generic: harness.Harness) -> None:
        generic.start()
        with pytest.raises(errors.RemoteError, match=re.escape(generic_manager.NOTHING_RUNS)):
            generic.call("execute_script", command="interrupt")

    def test_a_script_the_code_does_not_have_is_told(self, generic: harness.Harness, make_archive: Any) -> None:
        uploaded = generic.call("upload_code_version", code=make_archive(**{"init.sh": ""}))["codeVersionId"]
        generic.call("enable_code", codeVersionId=uploaded)
        generic.start()
        run = generic.call("get_run", run=execute(generic, "run")["run_id"])["run"]
        assert run["nodes"][generic.nodes[0].id] == {"state": "SKIPPED", "reason": "the code version has no run.sh"}
        assert (run["success"], run["exit_code"]) == (False, 1)
        assert statuses(generic, generic.nodes[0])["run.sh"] == "NEVER STARTED"

    def test_a_run_can_be_limited_to_some_nodes(self, generic: harness.Harness, stage: Any) -> None:
        generic.start()
        generic.add_nodes({"node": 1})
        run = execute(generic, "run", agentIds=[generic.nodes[1].id])["run_id"]
        assert list(generic.call("get_run", run=run)["run"]["nodes"]) == [generic.nodes[1].id]
        assert stage.scripts().count("run.sh") == 1

    def test_a_dead_agent_is_told_and_does_not_hide_the_others(self, generic: harness.Harness) -> None:
        generic.start()
        generic.add_nodes({"node": 1})
        dead, living = generic.nodes
        generic.kill_node(dead)
        reply = generic.call("get_script_status")
        assert set(reply["agents"][dead.id].values()) == {"UNKNOWN"}
        assert reply["agents"][living.id]["init.sh"] == "STOPPED (return code 0)"
        assert "does not answer" in reply["errors"][dead.id]
        with pytest.raises(errors.RemoteError, match=f"Failed to obtain script status at node {dead.id}"):
            generic.call("execute_script", command="run")

    @pytest.mark.parametrize(
        ("params", "text"),
        [
            ({"command": "init"}, "Parameter 'command': 'init' must be one of ['run', 'interrupt', 'cleanup']."),
            (
                {"command": "run", "parameters": "a 'b"},
                "Parameter 'parameters': \"a 'b\" cannot be split into words (No closing quotation).",
            ),
            ({"command": "run", "timeLimit": -1}, "Parameter 'timeLimit'"),
            ({"command": "run", "agentIds": ["nobody"]}, "Parameter 'agentIds': 'nobody' must be one of"),
            ({}, "Missing the mandatory parameter 'command'."),
        ],
    )
    def test_hostile_parameters_are_refused(self, generic: harness.Harness, params: dict[str, Any], text: str) -> None:
        generic.start()
        with pytest.raises(errors.RemoteError, match=re.escape(text)):
            generic.call("execute_script", **params)

    def test_time_limits_are_kept_and_handed_to_the_scripts(self, generic: harness.Harness, stage: Any) -> None:
        assert generic.call("get_time_limits")["limits"] == {
            "init.sh": 600,
            "notify.sh": 600,
            "run.sh": 0,
            "interrupt.sh": 600,
            "cleanup.sh": 600,
        }
        generic.call("set_time_limits", limits={"run.sh": 60, "init": 5})
        generic.restart()
        generic.start()
        assert stage.started[-1].spec.time_limit == 5
        execute(generic, "run")
        assert stage.started[-1].spec.time_limit == 60
        execute(generic, "run", timeLimit=7)
        assert stage.started[-1].spec.time_limit == 7
        for wrong in ({"init.sh": 0}, {"nothing.sh": 5}, {"run.sh": True}):
            with pytest.raises(errors.RemoteError, match="Parameter 'limits'"):
                generic.call("set_time_limits", limits=wrong)

    def test_scripts_are_run_only_by_a_running_service(self, generic: harness.Harness) -> None:
        for method, params in (("execute_script", {"command": "run"}), ("get_script_status", {})):
            with pytest.raises(errors.RemoteError, match=r"was expecting one of \['RUNNING'\] but current state is 'INIT'"):
                generic.call(method, **params)

    def test_scripts_know_who_and_where_they_are(self, generic: harness.Harness, stage: Any) -> None:
        generic.start()
        generic.add_nodes({"node": 1})
        master, other = generic.nodes
        execute(generic, "run")
        environment = stage.started[-1].spec.environment
        assert (environment["MY_IP"], environment["MY_ROLE"], environment["MASTER_IP"]) == (other.ip, "node", master.ip)
        assert {"HOME", "PATH", "LANG", "USER", "AGENTS_JSON", "CODE_DIR", "CONPAAS_RUN_ID"} <= environment.keys()


class TestVolumes:
    @pytest.fixture
    def running(self, generic: harness.Harness) -> harness.Harness:
        generic.start()
        disk = self.disk(generic)
        (disk / "content").mkdir(parents=True)
        (disk / "sdb").symlink_to(disk / "content")
        return generic

    @staticmethod
    def disk(made: harness.Harness) -> pathlib.Path:
        return made.directory / "nodes" / made.nodes[0].id / "dev"

    def test_a_directory_volume_is_a_link_in_media(self, running: harness.Harness) -> None:
        running.create_volume("data", 100, running.nodes[0])
        mounted = running.directory / "nodes" / running.nodes[0].id / "media" / "data"
        assert mounted.resolve() == (self.disk(running) / "content").resolve()
        running.delete_volume("data")
        assert not mounted.is_symlink()
        running.check()

    def test_volumes_wait_for_scripts(self, running: harness.Harness, stage: Any) -> None:
        stage.stay = {"run.sh"}
        execute(running, "run")
        with pytest.raises(errors.RemoteError, match=STILL_RUNNING):
            running.create_volume("data", 100, running.nodes[0])

    def test_a_failed_mount_is_an_error_and_leaves_no_volume(self, running: harness.Harness) -> None:
        mounted = running.directory / "nodes" / running.nodes[0].id / "media" / "data"
        mounted.mkdir(parents=True)
        with pytest.raises(errors.OperationFailed, match="Failed to mount volume"):
            running.create_volume("data", 100, running.nodes[0])
        assert running.state == "RUNNING"
        assert running.call("list_volumes", 0)["volumes"] == []
        running.check()
