"""The manager of a web hosting service killed at every step of every kind of operation; its site never has a gap meanwhile."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from conpaas.core import errors, lifecycle, migration
from conpaas.services.webservers.manager import deploy, placement
from conpaas.testing import crashes

from .fake_agent import WebHarness


def running(made: Any) -> None:
    made.start()


def grown(made: Any) -> None:
    made.start()
    made.add_nodes({"web": 1, "backend": 2})
    made.add_nodes({"proxy": 1})


def with_code(made: Any) -> None:
    grown(made)
    made.upload()


def enable(made: Any) -> None:
    newest = made.call("list_code_versions")["codeVersions"][0]["codeVersionId"]
    made.do("update_php_configuration", codeVersionId=newest, phpconf={"memory_limit": "64M"})


def change_everything(made: Any) -> None:
    """Add a domain and cron entries; the first begins an operation."""
    made.do("set_domain", domain="www.example.org")


def move_the_document_root(made: Any) -> None:
    made.do("update_web_settings", settings={"documentRoot": "public"})


def broken(made: Any) -> None:
    """In ERROR: a removal that could neither go on nor be undone."""
    grown(made)
    made.director.fail("remove_nodes", times=20)
    with contextlib.suppress(errors.OperationFailed):
        made.remove_nodes({"backend": 1})
    made.director.no_more_trouble()
    assert made.state == "ERROR"


def move_all(made: Any) -> None:
    made.migrate_nodes({one.id: "two" for one in made.nodes})


def moving(made: Any) -> None:
    grown(made)
    made.migrate_nodes({one.id: "two" for one in made.nodes[:3]}, delay=5)


def moving_alone(made: Any) -> None:
    made.start()
    made.migrate_nodes({made.nodes[0].id: "two"}, delay=5)


def lose(made: Any, role: str) -> None:
    made.kill_node(next(one for one in made.nodes if placement.base_of(one.role) == role))
    made.pass_time(20)


ACTIONS = {
    "add": (lambda made: made.call("add_service", 0, service_type="php"), None),
    "start": (lambda made: made.start(), None),
    "first backend": (lambda made: made.add_nodes({"backend": 1}), running),
    "one of each": (lambda made: made.add_nodes({"web": 1, "backend": 1, "proxy": 1}), running),
    "remove a backend": (lambda made: made.remove_nodes({"backend": 1}), grown),
    "remove all but one": (lambda made: made.remove_nodes({"proxy": 1, "web": 1, "backend": 2}), grown),
    "enable": (enable, with_code),
    "domain": (change_everything, grown),
    "document root": (move_the_document_root, grown),
    "move the only node": (move_all, running),
    "move all nodes": (move_all, grown),
    "move and linger": (moving_alone, None),
    "leave at last": (lambda made: made.pass_time(8), moving),
    "leave alone at last": (lambda made: made.pass_time(8), moving_alone),
    "stop": (lambda made: made.stop(), grown),
    "recover": (lambda made: made.recover(), broken),
    "remove": (lambda made: made.remove(), running),
}


def agrees_with_itself(made: Any) -> None:
    """Every role is played, all proxies have the same configuration, the enabled version is the one that serves, nothing is left over."""
    made.watch()
    if made.app.find_manager(made.service_id) is None:
        assert made.director.domains == {}
        return
    memory = made.manager.memory
    (current,) = [version["codeVersionId"] for version in made.call("list_code_versions")["codeVersions"] if "current" in version]
    assert memory.site.version == current == made.call("list_releases")["releases"][0]["codeVersionId"]
    assert sorted(made.director.domains) == sorted(one.name for one in memory.site.configuration.domains)
    if made.state != "RUNNING":
        return
    made.rest(120 if made.manager.departures else 30)
    made.watch()
    assert not memory.untidy and not memory.incomplete
    roles = {one.id: placement.roles_of(one.role) for one in made.nodes}
    assert {role for found in roles.values() for role in found} == {"proxy", "web", "backend"}
    configurations = set()
    for one in made.nodes:
        fake = made.world.agents[one.ip]
        assert (fake.proxy is not None) == ("proxy" in roles[one.id])
        assert (fake.web is not None) == ("web" in roles[one.id])
        assert list(fake.releases) == ([memory.site.release.number] if "backend" in roles[one.id] else [])
        assert (fake.store is not None) == (one.id in [store.node for store in memory.stores])
        assert current in fake.code
        if fake.proxy is not None:
            assert fake.old == []
            configurations.add(fake.proxy.configuration)
            assert fake.proxy.configuration.code_version == current
            assert fake.proxy.configuration.site == memory.site.configuration.site_settings()
    assert len({str(one) for one in configurations}) == 1 if configurations else False
    shape = placement.shape_of(placement.placed(made.nodes))
    assert memory.shape == shape


def test_every_kind_of_operation_has_an_action() -> None:
    kinds = {kind for act, prepare in ACTIONS.values() for kind, _, _ in crashes.points_of(WebHarness, act, prepare)}
    lost = {kind for kind, _, _ in crashes.points_of(WebHarness, lambda made: lose(made, "backend"), grown)}
    assert kinds | lost == {kind.name for kind in (*lifecycle.KINDS, *migration.KINDS, *deploy.Deploying.operations)}


@pytest.mark.parametrize("name", ACTIONS)
def test_a_crash_at_any_step_leaves_nothing_half_done(name: str) -> None:  # D22
    act, prepare = ACTIONS[name]
    checks: list[Any] = []

    def check(made: Any) -> None:
        checks.append(made)
        agrees_with_itself(made)

    assert crashes.crash_everywhere(WebHarness, act, prepare, check) == len(checks) > 0


@pytest.mark.parametrize("role", ["proxy", "web", "backend"])
def test_a_crash_while_a_lost_node_is_replaced(role: str) -> None:
    def whole(made: Any) -> None:
        made.pass_time(40)
        agrees_with_itself(made)
        assert sorted(placement.base_of(one.role) for one in made.nodes) == ["backend", "backend", "proxy", "proxy", "web"]

    for point in crashes.points_of(WebHarness, lambda made: lose(made, role), grown):
        crashes.run(crashes.Case(point), WebHarness, lambda made: lose(made, role), grown, whole)
