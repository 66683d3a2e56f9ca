"""Random requests, losses, failures and crashes, one after the other: a site that is up never has a gap, and ends up as it should be."""

from __future__ import annotations

import contextlib
from typing import Any

import hypothesis
from hypothesis import stateful
from hypothesis import strategies as st

from conpaas import testing
from conpaas.core import errors, faults, lifecycle, migration, states
from conpaas.services.webservers.manager import deploy

from .fake_agent import WebHarness
from .test_web_crashes import agrees_with_itself

KINDS = (*lifecycle.KINDS, *migration.KINDS, *deploy.Deploying.operations)
POINTS = [(kind.name, step.name, when) for kind in KINDS for step in kind.steps for when in faults.WHENS]
CALLS = [
    "updatePHPCode",
    "createPHP",
    "updateWebServer",
    "updateHttpProxy",
    "check_site",
    "start_session_store",
    "use_session_stores",
    "set_cron",
    "stopPHP",
    "keep_code",
]


class Site(stateful.RuleBasedStateMachine):
    """One service under random treatment."""

    @stateful.initialize(more=st.sampled_from([{}, {"backend": 2}, {"web": 1, "backend": 2, "proxy": 1}]))
    def begin(self, more: dict[str, int]) -> None:
        self.harness = WebHarness()
        self.versions = ["code-default", self.harness.upload(), self.harness.upload()]
        self.harness.call("update_web_settings", settings={"drainTime": 5})
        self.harness.start()
        if more:
            self.harness.add_nodes(more)

    def teardown(self) -> None:
        if not hasattr(self, "harness"):
            return
        try:
            self.come_to_rest()
        finally:
            self.harness.close()

    def come_to_rest(self) -> None:
        one = self.harness
        one.crash_at("", "", "")
        one.world.refuse.clear()
        one.director.no_more_trouble()
        one.restart()
        if one.state is states.State.ERROR:
            one.recover()
        one.pass_time(1500, step=60)
        one.pass_time(30)
        agrees_with_itself(one)
        one.check()
        one.remove()
        assert one.director.machines == {}

    def survive(self, act: Any) -> None:
        try:
            with contextlib.suppress(errors.RemoteError, errors.OperationFailed):
                act()
        except testing.SimulatedCrash:
            self.harness.restart()

    @stateful.rule()
    def start(self) -> None:
        self.survive(self.harness.start)

    @stateful.rule()
    def stop(self) -> None:
        self.survive(self.harness.stop)

    @stateful.rule(nodes=st.dictionaries(st.sampled_from(["proxy", "web", "backend"]), st.integers(1, 2), min_size=1))
    def add(self, nodes: dict[str, int]) -> None:
        self.survive(lambda: self.harness.add_nodes(nodes))

    @stateful.rule(nodes=st.dictionaries(st.sampled_from(["proxy", "web", "backend"]), st.integers(1, 2), min_size=1))
    def remove(self, nodes: dict[str, int]) -> None:
        self.survive(lambda: self.harness.remove_nodes(nodes))

    @stateful.rule(numbers=st.lists(st.integers(0, 5), min_size=1, max_size=4), delay=st.sampled_from([0, 20]))
    def migrate(self, numbers: list[int], delay: int) -> None:
        nodes = self.harness.nodes
        chosen = {nodes[number % len(nodes)].id: "two" for number in numbers} if nodes else {}
        if chosen:
            self.survive(lambda: self.harness.migrate_nodes(chosen, delay))

    @stateful.rule(number=st.integers(0, 2))
    def enable(self, number: int) -> None:
        self.survive(lambda: self.harness.do("update_php_configuration", codeVersionId=self.versions[number]))

    @stateful.rule(limit=st.sampled_from(["64M", "128M"]))
    def set_up(self, limit: str) -> None:
        self.survive(lambda: self.harness.do("update_php_configuration", phpconf={"memory_limit": limit}))

    @stateful.rule(root=st.sampled_from(["", "public"]))
    def move_root(self, root: str) -> None:
        self.survive(lambda: self.harness.do("update_web_settings", settings={"documentRoot": root}))

    @stateful.rule(some=st.booleans())
    def set_cron(self, some: bool) -> None:
        entries = [{"schedule": "0 4 * * *", "command": "true"}] if some else []
        self.survive(lambda: self.harness.do("set_cron", entries=entries))

    @stateful.rule(number=st.integers(0, 5))
    def lose_node(self, number: int) -> None:
        nodes = [one for one in self.harness.nodes if one.id in self.harness.director.machines]
        if nodes:
            self.harness.kill_node(nodes[number % len(nodes)])

    @stateful.rule(method=st.sampled_from(CALLS), times=st.integers(1, 2))
    def spoil_agents(self, method: str, times: int) -> None:
        self.harness.world.refuse[method, "*"] += times

    @stateful.rule(point=st.sampled_from(POINTS))
    def crash_later(self, point: tuple[str, str, str]) -> None:
        self.harness.crash_at(*point)

    @stateful.rule(seconds=st.sampled_from([2, 15, 40]))
    def pass_time(self, seconds: int) -> None:
        self.survive(lambda: self.harness.pass_time(seconds))

    @stateful.invariant()
    def nothing_is_under_way(self) -> None:
        if hasattr(self, "harness"):
            assert self.harness.app.store.operations.unfinished() == []
            assert self.harness.state in states.STABLE
            self.harness.watch()


Site.TestCase.settings = hypothesis.settings(
    max_examples=30, stateful_step_count=20, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
)


class TestSite(Site.TestCase):  # type: ignore[name-defined, misc]
    """The machine above, as a test."""
