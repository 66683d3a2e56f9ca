"""The manager of a mysql service: one cluster at any time, whatever comes and goes."""

from __future__ import annotations

from typing import Any

import pytest

from conpaas.core import errors, operations
from conpaas.services.mysql import spec
from conpaas.services.mysql.manager import authority, cluster

from .fake_agent import MySQLHarness


@pytest.fixture
def made() -> Any:
    with MySQLHarness() as harness:
        yield harness
        harness.watch()


def synced(made: MySQLHarness) -> bool:
    return all(one.running and one.primary for one in made.fakes())


class TestFounding:
    def test_the_first_node_founds_the_cluster_and_the_others_join_it(self, made: Any) -> None:
        made.start()
        made.add_nodes({"mysql": 2})
        assert synced(made)
        assert len({one.uuid for one in made.fakes()}) == 1

    def test_two_services_are_two_clusters(self, made: Any) -> None:
        other = made.call("add_service", 0, service_type="mysql")["service_id"]
        names = {made.app.find_manager(key).cluster._name for key in (made.service_id, other)}
        assert len(names) == 2

    def test_every_member_knows_all_members(self, made: Any) -> None:  # D10
        made.start()
        made.add_nodes({"mysql": 2})
        everybody = {one.my_ip for one in made.fakes()}
        for one in made.fakes():
            assert {member.ip for member in one.settings.members} == everybody

    def test_members_have_certificates_of_one_authority(self, made: Any) -> None:
        made.start()
        made.add_nodes({"mysql": 1})
        first, second = made.fakes()
        assert first.settings.tls.ca == second.settings.tls.ca == made.call("get_access")["ca"]
        assert first.settings.tls.key != second.settings.tls.key

    def test_a_cluster_that_nobody_touches_gets_new_certificates(self, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(authority, "_DAYS", 30)
            made.start()
            former = made.fakes()[0].settings.tls
        made.pass_time(120)
        renewed = made.fakes()[0].settings.tls
        assert renewed.certificate != former.certificate
        assert renewed.ca == former.ca
        made.pass_time(120)
        assert made.fakes()[0].settings.tls == renewed, "once is enough"

    def test_there_is_a_default_user_with_a_password_that_nobody_knows(self, made: Any) -> None:
        made.start()
        assert made.world.users == {"mysqldb": {"*"}}


class TestUsers:
    def test_a_user_that_is_dropped_is_out_on_every_member(self, made: Any) -> None:
        made.start()
        made.add_nodes({"mysql": 2})
        made.call("create_user", user="ann", password="long enough")
        made.call("drop_user", user="ann")
        assert [one.sessions_ended for one in made.fakes()] == [["ann"]] * 3
        assert "ann" not in made.world.users


class TestComingBack:
    def test_all_members_killed_at_once_the_one_with_most_rows_begins(self, made: Any) -> None:  # D9
        made.start()
        made.add_nodes({"mysql": 2})
        made.crash_all()
        made.pass_time(120)
        assert synced(made)
        assert made.state == "RUNNING"

    def test_it_is_not_always_the_founder(self, made: Any) -> None:
        made.start()
        made.add_nodes({"mysql": 2})
        made.crash_all()
        made.fakes()[2].seqno += 10
        made.pass_time(120)
        assert synced(made)
        assert made.manager.memory.founder == made.nodes[2].id

    def test_with_one_member_silent_nobody_begins(self, made: Any) -> None:
        made.start()
        made.add_nodes({"mysql": 2})
        made.crash_all()
        silent = made.nodes[0]
        made.world.agents[silent.ip].seqno += 50
        looks = made.manager.cluster
        made.kill_node(silent)
        with pytest.raises(errors.OperationFailed, match="may hold rows that the others lack"):
            go = looks.round(tolerated=made.nodes)
            looks.converge(go, made.nodes, lambda _: None)
        made.revive_node(silent)

    def test_a_manager_that_restarts_finds_the_cluster(self, made: Any) -> None:
        made.start()
        made.add_nodes({"mysql": 1})
        before = made.fakes()[0].uuid
        made.restart()
        made.add_nodes({"mysql": 1})
        assert {one.uuid for one in made.fakes()} == {before}

    def test_a_lost_member_is_replaced(self, made: Any) -> None:
        made.start()
        made.add_nodes({"mysql": 2})
        made.kill_node(made.nodes[1])
        made.pass_time(60)
        assert len(made.fakes()) == 3
        assert synced(made)

    def test_two_of_three_lost_and_replaced(self, made: Any) -> None:
        made.start()
        made.add_nodes({"mysql": 2})
        for one in made.nodes[1:]:
            made.kill_node(one)
        survivor = made.fakes()[0]
        survivor.primary = False
        made.pass_time(120)
        assert len(made.fakes()) == 3
        assert synced(made)

    def test_a_replacement_waits_for_the_other_one(self, made: Any) -> None:
        """The first of two alone cannot bring the cluster back; it stays, with its disk, until the second one is there."""
        made.start()
        made.add_nodes({"mysql": 2})
        first, second = made.nodes[1:]
        made.kill_node(first)
        made.pass_time(3)  # so that nobody takes both for lost at once
        made.kill_node(second)
        for one in made.fakes():
            one.primary = False
        made.pass_time(120)
        replaced = [one for one in made.operations() if one.kind == "replace_node"]
        assert len(replaced) == 2
        assert [one.error for one in replaced] == [None, None]
        assert len(made.fakes()) == 3
        assert synced(made)

    def test_a_load_balancer_that_was_replaced_meanwhile_knows_the_members_in_the_end(self, made: Any) -> None:
        made.start()
        made.add_nodes({"mysql": 2, "glb": 1})
        silent = made.nodes[2]
        balancer = next(one for one in made.nodes if one.role == spec.GLB)
        made.kill_node(balancer)
        made.pass_time(5)
        made.kill_node(silent)
        parted = made.fakes()
        for one in parted:
            one.running = one.primary = False
        made.pass_time(5)
        assert balancer.id not in {one.id for one in made.nodes}, "it is replaced, though nobody has a majority"
        made.revive_node(silent)
        for one in parted:
            one.running = one.primary = True  # they find each other
        pass_repairs(made)
        (new,) = made.fakes(spec.GLB)
        assert new.balancer is not None
        assert synced(made)

    def test_growing_without_a_majority_is_undone_at_once(self, made: Any) -> None:
        made.start()
        made.add_nodes({"mysql": 2})
        for one in made.nodes[1:]:
            made.kill_node(one)
        for one in made.fakes():
            one.primary = False
        with pytest.raises(errors.OperationFailed, match="may hold rows that the others lack"):
            made.add_nodes({"mysql": 1})
        newest, *_ = made.operations()
        assert newest.status is operations.OperationStatus.UNDONE
        assert made.state == "RUNNING"
        assert len(made.fakes()) == 3


def pass_repairs(made: Any) -> None:
    """Let time pass until every repair that is possible was tried: pauses between them are real ones."""
    for _ in range(4):
        made.manager._rest_until = 0.0
        made.pass_time(60)


class TestDisksLeftBehind:
    """Two members; one is gone with rows that the other has not, and cannot be replaced: its disk is all that is left of it."""

    @pytest.fixture
    def lost(self, made: Any) -> str:
        made.start()
        made.add_nodes({"mysql": 1})
        made.pass_time(5)
        ahead, behind = made.nodes
        made.world.agents[behind.ip].running = made.world.agents[behind.ip].primary = False
        made.world.agents[ahead.ip].seqno += 50
        made.director.fail("create_nodes", times=10_000)
        made.kill_node(ahead)
        pass_repairs(made)
        return str(ahead.id)

    def test_nobody_begins_with_less(self, made: Any, lost: str) -> None:
        assert [one.primary for one in made.fakes()] == [False]
        cluster = made.call("get_service_info")["cluster"]
        assert f"the disk of {lost}, which is gone, may hold rows" in cluster["reason"]
        made.director.no_more_trouble()
        made.pass_time(600)
        pass_repairs(made)
        assert len(made.fakes()) == 2 and synced(made)

    def test_unless_told_to(self, made: Any, lost: str) -> None:
        with pytest.raises(errors.RemoteError, match=f"it waits for {lost}"):
            made.call("go_on_without", node="iaas1")
        made.call("go_on_without", node=lost)
        made.pass_time(60)
        assert synced(made)
        assert "reason" not in made.call("get_service_info")["cluster"]

    def test_a_disk_that_the_others_went_on_without_is_not_waited_for(self, made: Any) -> None:
        made.start()
        made.add_nodes({"mysql": 2})
        made.director.fail("create_nodes", times=10_000)
        made.kill_node(made.nodes[0])
        pass_repairs(made)
        assert synced(made) and len(made.fakes()) == 2
        made.crash_all()
        pass_repairs(made)
        assert synced(made)


class TestFullDisks:
    """A member whose disk is full is no reason for anything else to fail."""

    def full(self, made: Any, *, running: bool) -> Any:
        """The second of two members has no room; its server was ended, unless it is `running` aside."""
        made.start()
        made.add_nodes({"mysql": 1})
        found = made.fakes()[1]
        found.full, found.running, found.primary = True, running, running
        found.looks = 10_000 if running else 0  # it is never Synced
        return found

    @pytest.mark.parametrize("running", [True, False])
    def test_members_join_and_leave_beside_it(self, made: Any, running: bool) -> None:
        full = self.full(made, running=running)
        made.add_nodes({"mysql": 1})
        assert {one.ip for one in full.settings.members} == {one.my_ip for one in made.fakes()}, "it knows where to find the others"
        assert full.running == running
        health = made.call("get_service_info")["cluster"]
        assert (health["healthy"], health["synced"], health["size"]) == (False, 2, 3)
        assert "0 of 1000 MB are left on its disk" in next(one["reason"] for one in health["members"] if "reason" in one)
        made.remove_nodes(node_ids=[next(one.id for one in made.nodes if one.ip == full.my_ip)])
        assert made.call("get_service_info")["cluster"]["healthy"]

    def test_it_is_left_to_itself(self, made: Any) -> None:
        self.full(made, running=False)
        made.world.calls.clear()
        made.pass_time(120)
        assert not [name for name, _ in made.world.calls if name == "start_mysqld"], "a repair could do nothing"

    def test_variables_are_for_the_others_at_once(self, made: Any) -> None:
        full = self.full(made, running=False)
        made.do("set_variables", variables={"max_connections": 321})
        assert made.fakes()[0].variables == {"max_connections": "321"}
        assert full.settings.variables["max_connections"] == "321"


class TestBalancers:
    def test_a_load_balancer_knows_the_members_the_writer_first(self, made: Any) -> None:
        made.start()
        made.add_nodes({"glb": 1, "mysql": 1})
        (balancer,) = made.fakes("glb")
        assert [one.ip for one in balancer.balancer.members] == [one.my_ip for one in made.fakes()]
        access = made.call("get_access")
        assert access["write"] == {"host": balancer.my_ip, "port": 8010}
        assert access["read"] == {"host": balancer.my_ip, "port": 8011}

    def test_without_one_the_first_member_is_the_address(self, made: Any) -> None:
        made.start()
        assert made.call("get_access")["write"] == {"host": made.fakes()[0].my_ip, "port": 3306}

    def test_members_certificates_hold_for_load_balancers(self, made: Any) -> None:
        from conpaas.core.https import x509

        made.start()
        made.add_nodes({"glb": 1})
        certificate = x509.load_certificate(made.fakes()[0].settings.tls.certificate)
        assert made.fakes("glb")[0].my_ip in str(certificate.extensions)

    def test_who_leaves_gets_no_new_sessions_before(self, made: Any) -> None:
        made.start()
        made.add_nodes({"mysql": 2, "glb": 1})
        made.world.calls.clear()
        made.remove_nodes({"mysql": 1})
        methods = [name for name, _ in made.world.calls if name in ("drain_member", "drain_mysqld", "configure_glbd", "stop_mysqld")]
        assert methods[:4] == ["drain_member", "drain_mysqld", "configure_glbd", "stop_mysqld"]

    def test_the_writer_goes_last(self, made: Any) -> None:
        made.start()
        made.add_nodes({"mysql": 2})
        writer = made.nodes[0]
        made.remove_nodes({"mysql": 2})
        assert made.nodes == [writer]


class TestRemoving:
    def test_one_member_must_stay(self, made: Any) -> None:
        made.start()
        with pytest.raises(errors.RemoteError, match="Requesting to delete 1 mysql nodes while none can be removed"):
            made.remove_nodes({"mysql": 1})

    def test_all_load_balancers_may_go(self, made: Any) -> None:
        made.start()
        made.add_nodes({"glb": 2})
        with pytest.raises(errors.RemoteError, match="Requesting to delete 3 glb nodes while only 2 can be removed"):
            made.remove_nodes({"glb": 3})
        made.remove_nodes({"glb": 2})
        assert made.fakes("glb") == []

    def test_nobody_leaves_while_nobody_could_take_over(self, made: Any) -> None:
        made.start()
        made.add_nodes({"mysql": 1})
        stuck = made.fakes()[0]
        stuck.looks = 10_000
        with pytest.raises(errors.OperationFailed, match="Nobody could take over"):
            made.remove_nodes(node_ids=[made.nodes[1].id])
        stuck.looks = 0
        made.pass_time(30)
        assert len(made.nodes) == 2

    def test_by_address(self, made: Any) -> None:
        made.start()
        made.add_nodes({"mysql": 1})
        with pytest.raises(errors.RemoteError, match="Sorry invalid ip !!!"):
            made.call("remove_specific_nodes", ip="10.9.9.9")
        made.do("remove_specific_nodes", ip=made.nodes[1].ip)
        assert len(made.nodes) == 1

    def test_stop_and_start_bring_back_as_many_nodes(self, made: Any) -> None:
        made.start()
        made.add_nodes({"mysql": 2, "glb": 1})
        made.stop()
        assert made.manager.get_starting_nodes() == {"mysql": 3, "glb": 1}


class TestVariables:
    def test_one_is_set_on_all_members_and_kept(self, made: Any) -> None:
        made.start()
        made.add_nodes({"mysql": 1})
        made.do("set_variables", variables={"max_connections": 300})
        assert all(one.variables == {"max_connections": "300"} for one in made.fakes())
        made.add_nodes({"mysql": 1})
        assert all(one.settings.variables == {"max_connections": "300"} for one in made.fakes())

    def test_members_that_were_restarted_for_one_are_served_by_load_balancers_again(self, made: Any) -> None:
        made.start()
        made.add_nodes({"mysql": 1, "glb": 1})
        made.do("set_variables", variables={"back_log": 99})
        assert all(one.restarts for one in made.fakes())
        assert made.fakes("glb")[0].drained == set()

    def test_the_classic_call(self, made: Any) -> None:
        made.start()
        assert made.call("setMySqlParams", variable="max_connections", value="300") == "OK!"
        made.settle()
        assert made.call("get_variables")["variables"] == {"max_connections": "300"}

    @pytest.mark.parametrize(("variable", "value"), [("max_connections", "10; drop database x"), ("wsrep_on", "OFF"), ("a`b", "1")])
    def test_what_is_not_safe_is_refused(self, made: Any, variable: str, value: str) -> None:  # D2
        made.start()
        with pytest.raises(errors.RemoteError):
            made.call("setMySqlParams", variable=variable, value=value)
        assert made.call("get_variables")["variables"] == {}

    def test_a_failure_on_one_member_leaves_all_as_before(self, made: Any) -> None:
        made.start()
        made.add_nodes({"mysql": 1})
        made.world.refuse["set_variables"] = 1
        with pytest.raises(errors.OperationFailed, match="fails by order of a test"):
            made.do("set_variables", variables={"max_connections": 300})
        assert made.call("get_variables")["variables"] == {}
        assert {one.variables.get("max_connections") for one in made.fakes()} == {"151"}


class TestInformation:
    def test_health_is_told(self, made: Any) -> None:
        made.start()
        made.add_nodes({"mysql": 1})
        told = made.call("get_service_info")
        assert told["cluster"]["healthy"] is True
        assert [one["state"] for one in told["cluster"]["members"]] == ["Synced", "Synced"]
        made.fakes()[1].running = made.fakes()[1].primary = False
        assert made.call("get_service_info")["cluster"]["healthy"] is False

    def test_nodes_have_the_classic_fields(self, made: Any) -> None:
        made.start()
        made.add_nodes({"glb": 1})
        found = [made.call("get_node_info", serviceNodeId=one.id)["serviceNode"] for one in made.nodes]
        assert [(one["isNode"], one["isGlb_node"], one["role"]) for one in found] == [(True, False, "mysql"), (False, True, "glb")]
        assert [entry["filename"] for entry in found[0]["logs"]][:2] == ["cpsagent.log", "mysql.log"]


def test_roles() -> None:
    assert spec.ROLES == ("mysql", "glb")


def test_a_restart_of_members_ends_with_nobody_drained(made: Any) -> None:
    made.start()
    made.add_nodes({"mysql": 1, "glb": 1})
    before = made.fakes("glb")[0].balancer.serial
    made.do("set_variables", variables={"back_log": 100})
    assert [one.restarts for one in made.fakes()] == [1, 1]
    assert all(one.healthy for one in made.fakes())
    assert made.fakes("glb")[0].balancer.serial > before


def test_the_only_member_is_restarted_as_the_founder(made: Any) -> None:
    made.start()
    made.do("set_variables", variables={"back_log": 100})
    assert synced(made)
    assert made.fakes()[0].restarts == 0


def test_fields_of_a_manifest(made: Any) -> None:
    made.call("apply_manifest", fields={"Variables": {"max_connections": 300}})
    made.start()
    made.call("apply_manifest", fields={"Password": "correct horse"})
    assert made.call("export_manifest") == {"fields": {"Variables": {"max_connections": "300"}}}
    with pytest.raises(errors.RemoteError, match="have no field Nonsense"):
        made.call("apply_manifest", fields={"Nonsense": 1})
    with pytest.raises(errors.RemoteError, match="Password too short"):
        made.call("apply_manifest", fields={"Password": "short"})


def test_a_member_that_was_to_leave_and_stays_takes_sessions_again(made: Any) -> None:
    made.start()
    made.add_nodes({"mysql": 1, "glb": 1})
    made.world.refuse["configure_glbd"] = 1
    with pytest.raises(errors.OperationFailed, match="fails by order of a test"):
        made.remove_nodes({"mysql": 1})
    made.pass_time(30)
    assert [one.healthy for one in made.fakes()] == [True, True]


def test_a_member_that_starts_over_and_over_is_given_up_though_it_never_says_why() -> None:
    watched = cluster.Watch("m1")
    looks = [{"daemon": daemon, "state": None} for daemon in ("STARTING", "RUNNING")] * 20
    with pytest.raises(errors.OperationFailed, match="The member m1 does not get into the cluster"):
        for look in looks:
            watched.see(look, lambda _: None)


class TestLoading:
    def test_the_load_under_way_is_told_and_can_be_stopped(self, made: Any) -> None:
        made.start()
        made.add_nodes({"mysql": 1})
        assert made.call("get_load_progress") == {"progress": None}
        made.fakes()[1].loading = {"running": True, "bytes": 10, "total": 100, "started": 2.0}
        told = made.call("get_load_progress")["progress"]
        assert (told["running"], told["bytes"], told["node"]) == (True, 10, made.nodes[1].id)
        assert made.call("cancel_load") == {"cancelled": True}
        assert made.call("cancel_load") == {"cancelled": False}
