"""Sites that move to another cloud without a gap: roles, addresses and weights go to the new nodes."""

from __future__ import annotations

import pytest

from conpaas.core import errors
from conpaas.services.webservers.manager import placement

from .fake_agent import WebHarness

ALL = "proxybackendweb"


@pytest.mark.parametrize("kind", ["php", "java"])
def test_what_makes_no_sense_is_refused_in_the_classic_words(kind: str) -> None:  # D19
    with WebHarness(kind) as made:
        move = {"from_cloud": "default", "vmid": "7", "to_cloud": "other"}
        with pytest.raises(errors.RemoteError, match="Wrong service state"):
            made.call("migrate_nodes", migration_plan=[move])
        made.start()
        with pytest.raises(errors.RemoteError, match=r"^Unknown node from cloud default with VM identifier 7$"):
            made.call("migrate_nodes", migration_plan=[move], delay=10)
        assert made.state == "RUNNING"


@pytest.mark.parametrize("kind", ["php", "java"])
def test_a_site_on_one_node_moves_with_all_its_roles(kind: str) -> None:  # D19
    with WebHarness(kind) as made:
        made.start()
        former = made.nodes[0]
        shape = made.manager.memory.shape
        made.migrate_nodes({former.id: "two"})
        assert made.labels == [ALL]
        assert made.nodes[0].cloud_name == "two"
        assert made.manager.memory.shape == shape
        (url,) = made.call("get_service_info")["urls"]
        assert made.nodes[0].ip in url
        made.rest()
        made.check()


def test_both_addresses_serve_while_clients_learn_of_the_new_one() -> None:
    with WebHarness() as made:
        made.start()
        former = made.nodes[0]
        made.migrate_nodes({former.id: "two"}, delay=60)
        urls = made.call("get_service_info")["urls"]
        assert [made.nodes[1].ip in urls[0], former.ip in urls[1]] == [True, True]
        made.do("update_php_configuration", codeVersionId=made.upload(), phpconf={})
        made.rest()
        assert [one.proxy is not None for one in (made.fake(0), made.fake(1))] == [True, True]
        made.pass_time(40)
        assert made.labels == [ALL]
        made.rest()
        made.check()


def test_a_service_that_starts_again_has_as_many_nodes_as_before_it_moved() -> None:
    with WebHarness() as made:
        made.start()
        made.add_nodes({"backend": 1})
        made.migrate_nodes({one.id: "two" for one in made.nodes}, delay=600)
        made.stop()
        made.start()
        assert made.labels == ["proxyweb", "backend"]
        made.check()


def test_each_role_goes_to_the_new_node_with_its_weight() -> None:
    with WebHarness() as made:
        made.start()
        made.add_nodes({"web": 1, "backend": 2})
        _, web, first, second = made.nodes
        made.do("update_nodes_weight", web={}, backend={first.id: 300})
        made.migrate_nodes({first.id: "two", web.id: "two"})
        assert made.labels == ["proxy", "backend", "backend", "web"]
        heir = made.nodes[2]
        described = made.call("get_node_info", serviceNodeId=heir.id)["serviceNode"]
        assert described["weightBackend"] == 300
        assert made.call("get_node_info", serviceNodeId=second.id)["serviceNode"]["weightBackend"] == 100
        weights = {one.ip: one.weight for one in made.serving().backends}
        assert weights == {heir.ip: 300, second.ip: 100}
        made.check()


def test_the_primary_proxy_moves_though_it_may_not_be_removed() -> None:
    with WebHarness() as made:
        made.start()
        made.add_nodes({"web": 1, "backend": 1})
        made.add_nodes({"proxy": 1})
        primary = made.nodes[0]
        with pytest.raises(errors.RemoteError, match="whose address the public uses"):
            made.remove_nodes(node_ids=[primary.id])
        made.migrate_nodes({primary.id: "two"})
        assert primary.id not in [one.id for one in made.nodes]
        assert sorted(placement.base_of(label) for label in made.labels) == ["backend", "proxy", "proxy", "web"]
        made.rest()
        made.check()


def test_a_site_whose_move_fails_is_as_before() -> None:
    with WebHarness() as made:
        made.start()
        made.add_nodes({"backend": 1})
        before = made.nodes
        made.fail_at("migrate_nodes", "leave", "after")
        with pytest.raises(errors.OperationFailed, match="'leave' failed"):
            made.migrate_nodes({one.id: "two" for one in before})
        assert made.nodes == before
        made.rest()
        made.check()


def test_a_departure_with_a_silent_successor_is_undone() -> None:
    with WebHarness() as made:
        made.start()
        former = made.nodes[0]
        made.migrate_nodes({former.id: "two"}, delay=600)
        heir = made.nodes[1]
        made.kill_node(heir)
        op = made.request("remove_nodes", service_id=made.service_id, nodeIds=[former.id])
        assert op.status == "UNDONE"
        assert former.id in [one.id for one in made.nodes]
        assert heir.id in (op.error or "")
