"""A web hosting service grows, shrinks, loses nodes: roles go where they belong, and the site never has a gap."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from conpaas.core import errors

from .fake_agent import WebHarness


@pytest.fixture
def php() -> Iterator[WebHarness]:
    with WebHarness() as made:
        yield made
        made.watch()


def grown(made: WebHarness) -> None:
    """Two proxies, a web server, two backends."""
    made.start()
    made.add_nodes({"web": 1, "backend": 2})
    made.add_nodes({"proxy": 1})


class TestGrowth:
    def test_the_first_node_does_everything(self, php: WebHarness) -> None:
        php.start()
        (one,) = php.nodes
        assert php.labels == ["proxybackendweb"]
        assert php.call("list_nodes") == {"proxy": [one.id], "web": [one.id], "backend": [one.id]}
        told = php.serving()
        assert [(u.ip, u.port) for u in told.web] == [(one.ip, 8080)]
        assert [(u.ip, u.port) for u in told.backends] == [(one.ip, 9000)]
        assert told.code_version == "code-default"
        php.rest()
        php.check()

    def test_the_classic_worked_trace(self, php: WebHarness) -> None:  # D31
        world = php.world
        php.start()
        order = world.methods()
        assert [order.index(name) for name in ("updatePHPCode", "createPHP", "updateWebServer", "updateHttpProxy")] == sorted(
            order.index(name) for name in ("updatePHPCode", "createPHP", "updateWebServer", "updateHttpProxy")
        )
        world.calls.clear()
        php.add_nodes({"backend": 1})
        assert php.labels == ["proxyweb", "backend"]
        assert "createPHP" in world.methods(php.nodes[1].ip)
        assert "updateHttpProxy" in world.methods(php.nodes[0].ip)
        php.rest()
        assert php.fake(0).releases == {}
        php.add_nodes({"backend": 1, "web": 1})
        assert sorted(php.labels) == ["backend", "backend", "proxy", "web"]
        php.rest()
        assert php.fake(0).web is None
        php.add_nodes({"proxy": 1})
        assert sorted(php.labels) == ["backend", "backend", "proxy", "proxy", "web"]
        with pytest.raises(errors.RemoteError, match="Not enough 'web' nodes will be left"):
            php.remove_nodes({"web": 1})
        first = php.nodes[0]
        php.remove_nodes({"proxy": 1})
        assert php.nodes[0] == first
        assert sorted(php.labels) == ["backend", "backend", "proxy", "web"]
        php.remove_nodes({"web": 1, "backend": 2})
        assert php.nodes == [php.nodes[0]]
        assert php.labels == ["proxybackendweb"]
        assert php.nodes[0].id == first.id
        php.rest()
        php.check()

    def test_a_role_that_cannot_be_taken_over_stays_where_it_was(self, php: WebHarness) -> None:
        php.start()
        php.world.refuse["createPHP", "*"] = 0
        original = php.world.before

        def refuse(agent: object, method: str) -> None:
            if method == "createPHP" and getattr(agent, "my_ip", "") != php.nodes[0].ip:
                raise errors.OperationFailed("php-fpm failed with code 78")

        php.world.before = refuse
        with pytest.raises(errors.OperationFailed, match="php-fpm failed with code 78"):
            php.add_nodes({"backend": 1})
        php.world.before = original
        assert php.state == "RUNNING"
        assert php.labels == ["proxybackendweb"]
        assert php.manager.memory.shape.backend == 0  # type: ignore[attr-defined]
        php.rest()
        php.check()

    def test_the_default_role_is_backend(self, php: WebHarness) -> None:
        php.start()
        php.add_nodes({"count": 2})
        assert php.labels == ["proxyweb", "backend", "backend"]
        with pytest.raises(errors.RemoteError, match="Wrong node type 'proxyweb' for service type 'web'"):
            php.add_nodes({"proxyweb": 1})

    @pytest.mark.parametrize("more", [{}, {"web": 2}, {"backend": 2}, {"web": 1, "backend": 1}, {"web": 1, "backend": 2, "proxy": 1}])
    def test_a_restart_brings_the_same_shape_again(self, php: WebHarness, more: dict[str, int]) -> None:
        php.start()
        if more:
            php.add_nodes(more)
        before = sorted(php.labels)
        php.stop()
        assert php.call("list_nodes") == {}
        php.world.up = False
        php.start()
        assert sorted(php.labels) == before
        php.rest()
        php.check()

    def test_java_does_the_same(self) -> None:
        with WebHarness("java") as java:
            java.start()
            java.add_nodes({"backend": 1})
            assert "createTomcat" in java.world.methods(java.nodes[1].ip)
            assert java.call("get_service_info") == {"state": "RUNNING", "type": "JAVA", "urls": ["http://10.0.0.1/"]}
            assert java.call("get_configuration")["codeVersionId"] == "code-default"
            version = java.upload()
            java.do("update_java_configuration", codeVersionId=version)
            assert java.serving().code_version == version


class TestShrinking:
    def test_requests_end_before_nodes_are_given_back(self, php: WebHarness) -> None:  # D10
        grown(php)
        php.rest()
        php.world.drain = 4
        victim = [one for one in php.nodes if one.role == "backend"][-1]
        php.remove_nodes({"backend": 1})
        assert victim.id not in [one.id for one in php.nodes]

    def test_it_waits_only_so_long(self, php: WebHarness) -> None:
        grown(php)
        php.rest()
        php.do("update_web_settings", settings={"drainTime": 0})
        php.rest()
        php.world.drain, php.world.cuts_allowed = 10**9, True
        op = php.remove_nodes({"backend": 1})
        assert any("did not end within 0 seconds" in note.text for note in php.operation(op.id).notes)

    def test_the_public_address_stays(self, php: WebHarness) -> None:  # D18
        grown(php)
        first = php.nodes[0]
        with pytest.raises(errors.RemoteError, match=f"The node {first.id} cannot be removed"):
            php.call("remove_nodes", 0, service_id=php.service_id, nodeIds=[first.id])
        second = next(one for one in php.nodes[1:] if one.role == "proxy")
        php.request("remove_nodes", service_id=php.service_id, nodeIds=[second.id])
        assert second.id not in [one.id for one in php.nodes]

    def test_a_named_backend_can_go(self, php: WebHarness) -> None:  # D18
        grown(php)
        oldest = next(one for one in php.nodes if one.role == "backend")
        op = php.request("remove_nodes", service_id=php.service_id, nodeIds=[oldest.id])
        assert op.status == "DONE"
        assert oldest.id not in [one.id for one in php.nodes]

    def test_a_removal_that_fails_leaves_all_as_it_was(self, php: WebHarness) -> None:  # D18
        grown(php)
        before = php.nodes
        php.world.refuse["updateHttpProxy", before[0].ip] = 1
        with pytest.raises(errors.OperationFailed):
            php.remove_nodes({"backend": 1})
        assert php.nodes == before
        assert php.state == "RUNNING"
        php.rest()
        assert len(php.serving().backends) == 2
        php.check()


class TestLoss:
    @pytest.mark.parametrize("role", ["web", "backend", "proxy"])
    def test_a_lost_node_is_replaced_in_its_role(self, php: WebHarness, role: str) -> None:  # D11
        grown(php)
        shape = sorted(php.labels)
        lost = next(one for one in php.nodes if one.role == role)
        php.kill_node(lost)
        php.pass_time(40)
        assert lost.id not in [one.id for one in php.nodes]
        assert sorted(php.labels) == shape
        assert php.state == "RUNNING"
        php.check()

    def test_a_service_without_its_only_proxy_promotes_a_node_at_once(self, php: WebHarness) -> None:
        php.start()
        php.add_nodes({"web": 1, "backend": 1})
        php.director.fail("create_nodes", errors.InsufficientCredits(), times=100)
        php.kill_node(php.nodes[0])
        php.pass_time(20)
        assert sorted(php.labels) == ["backend", "proxyweb"]
        assert php.serving().code_version == "code-default"
        php.director.no_more_trouble()
        php.pass_time(200)
        assert sorted(php.labels) == ["backend", "proxy", "web"]
        php.check()

    def test_the_only_node_is_replaced(self, php: WebHarness) -> None:
        php.start()
        php.kill_node(php.nodes[0])
        php.world.up = False
        php.pass_time(40)
        assert php.labels == ["proxybackendweb"]
        php.check()

    def test_a_node_that_keeps_silent_for_a_while_is_passed_over_and_seen_to_later(self, php: WebHarness) -> None:
        php.start()
        php.add_nodes({"backend": 2})
        silent = php.nodes[1]
        php.kill_node(silent)
        php.add_nodes({"backend": 1})
        assert silent.ip not in [one.ip for one in php.serving().backends]
        php.revive_node(silent)
        php.world.dead.clear()
        php.pass_time(5)
        assert silent.ip in [one.ip for one in php.serving().backends]
        php.check()

    def test_a_node_that_dies_while_another_is_added(self, php: WebHarness) -> None:
        grown(php)
        dying = next(one for one in php.nodes if one.role == "backend")

        def die(agent: object, method: str) -> None:
            if method == "createPHP" and php.director.machines[dying.id].answers:
                php.kill_node(dying)

        php.world.before = die
        php.add_nodes({"backend": 1})
        php.world.before = lambda _agent, _method: None
        assert php.state == "RUNNING"
        php.pass_time(40)
        assert len([label for label in php.labels if label == "backend"]) == 3
        php.check()

    def test_a_new_node_that_dies_on_its_way_in_is_given_back(self, php: WebHarness) -> None:  # D21
        grown(php)
        before = php.nodes

        def die(agent: object, method: str) -> None:
            newest = list(php.director.machines.values())[-1]
            if method == "createPHP" and newest.node.id not in [one.id for one in before]:
                newest.answers = False

        php.world.before = die
        with pytest.raises(errors.OperationFailed, match="does not answer"):
            php.add_nodes({"backend": 1})
        php.world.before = lambda _agent, _method: None
        assert php.nodes == before
        assert php.state == "RUNNING"
        php.rest()
        php.check()

    def test_recovery_from_error(self, php: WebHarness) -> None:
        grown(php)
        php.director.fail("remove_nodes", times=20)
        with pytest.raises(errors.OperationFailed):
            php.remove_nodes({"backend": 1})
        assert php.state == "ERROR"
        php.director.no_more_trouble()
        php.recover()
        assert php.state == "RUNNING"
        php.rest()
        php.check()


class TestSessions:
    def test_two_nodes_keep_all_sessions(self, php: WebHarness) -> None:
        php.start()
        assert len(php.fake(0).session_stores) == 1
        first = php.fake(0)
        assert first.store is not None
        first.store["sessions"]["alice"] = "cart"
        php.add_nodes({"backend": 2})
        php.rest()
        holders = [one for one in (php.fake(number) for number in range(3)) if one.store is not None]
        assert len(holders) == 2
        assert all(one.store["sessions"] == {"alice": "cart"} for one in holders if one.store)
        assert len({one.store["secret"] for one in holders if one.store}) == 1

    def test_a_store_that_leaves_is_replaced_before(self, php: WebHarness) -> None:
        php.start()
        php.add_nodes({"backend": 2})
        first = php.fake(0)
        assert first.store is not None
        victim = php.world.agents[php.nodes[1].ip]
        assert victim.store is not None
        for one in (first, victim):
            assert one.store is not None
            one.store["sessions"]["bob"] = "basket"
        php.request("remove_nodes", service_id=php.service_id, nodeIds=[php.nodes[1].id])
        stores = php.fake(1).session_stores
        assert [one["ip"] for one in stores] == [php.nodes[0].ip, php.nodes[1].ip]
        other = php.fake(1).store
        assert other is not None
        assert other["sessions"] == {"bob": "basket"}

    def test_what_a_lost_store_had_is_in_the_other(self, php: WebHarness) -> None:
        php.start()
        php.add_nodes({"backend": 1})
        for number in range(2):
            store = php.fake(number).store
            assert store is not None
            store["sessions"]["carol"] = "order"
        php.kill_node(php.nodes[0])
        php.pass_time(40)
        for number in range(2):
            store = php.fake(number).store
            assert store is not None
            assert store["sessions"] == {"carol": "order"}


class TestTelling:
    def test_a_node_tells_its_roles_weights_and_logs(self, php: WebHarness) -> None:
        php.start()
        info = php.call("get_node_info", serviceNodeId=php.nodes[0].id)["serviceNode"]
        assert {key: info[key] for key in ("isRunningProxy", "isRunningWeb", "isRunningBackend", "weightWeb", "weightBackend", "role")} == {
            "isRunningProxy": True,
            "isRunningWeb": True,
            "isRunningBackend": True,
            "weightWeb": 100,
            "weightBackend": 100,
            "role": "proxybackendweb",
        }
        assert (info["port"], info["tlsPort"]) == (80, None)
        assert [entry["filename"] for entry in info["logs"]][:7] == [
            "cpsagent.log",
            "nginx-proxy-access.log",
            "nginx-proxy-error.log",
            "nginx-static-access.log",
            "nginx-static-error.log",
            "fpm-access.log",
            "fpm-error.log",
        ]

    def test_logs_that_are_told_of_can_be_read_whatever_role_moved(self, php: WebHarness) -> None:  # D24
        php.start()
        php.add_nodes({"backend": 1})
        php.add_nodes({"web": 1})
        for one in php.nodes:
            names = [entry["filename"] for entry in php.call("get_node_info", serviceNodeId=one.id)["serviceNode"]["logs"]]
            for name in names:
                assert php.call("get_agent_log", agentId=one.id, filename=name)["log"] == ""
        with pytest.raises(errors.RemoteError, match="must be one of"):
            php.call("get_agent_log", agentId=php.nodes[0].id, filename="fpm-access.log")

    def test_figures_of_all_proxies_together(self, php: WebHarness) -> None:  # D29
        assert php.call("get_service_performance")["request_rate"] == 0
        grown(php)
        first, second = [php.world.agents[one.ip].figures for one in php.nodes if one.role == "proxy"]
        first["proxy"] = {"requests": 90, "request_rate": 9.0, "error_rate": 0.5, "throughput": 10.0, "response_time": 10.0, "p99": 20.0}
        second["proxy"] = {"requests": 10, "request_rate": 1.0, "error_rate": 0.5, "throughput": 5.0, "response_time": 20.0, "p99": 40.0}
        told = php.call("get_service_performance")
        assert (told["request_rate"], told["error_rate"], told["throughput"], told["response_time"], told["p99"]) == (10, 1, 15, 11, 22)
        node = next(one for one in php.nodes if one.role == "proxy")
        told = php.call("get_node_performance", serviceNodeId=node.id, window=10)
        assert (told["role"], told["request_rate"]) == ("proxy", 9)
        web = next(one for one in php.nodes if one.role == "web")
        php.world.agents[web.ip].figures["web"] = {"requests": 30, "request_rate": 3.0}
        told = php.call("get_node_performance", serviceNodeId=web.id, window=10)
        assert (told["role"], told["request_rate"]) == ("web", 3)
        backend = next(one for one in php.nodes if one.role == "backend")
        with pytest.raises(errors.RemoteError, match="neither a proxy nor a web node"):
            php.call("get_node_performance", serviceNodeId=backend.id)

    def test_figures_of_a_silent_proxy_are_missed(self, php: WebHarness) -> None:
        php.start()
        php.kill_node(php.nodes[0])
        assert php.call("get_service_performance")["silent"].keys() == {php.nodes[0].id}

    def test_volumes_are_refused(self, php: WebHarness) -> None:
        php.start()
        with pytest.raises(errors.RemoteError, match="create_volume method not currently supported for this service"):
            php.create_volume("data", 1, php.nodes[0])
