"""Random requests, failures, losses and crashes, one after the other: a machine is never leaked and never counted twice."""

from __future__ import annotations

import contextlib
from typing import Any

import hypothesis
from hypothesis import stateful
from hypothesis import strategies as st

from conpaas import testing
from conpaas.core import errors, faults, lifecycle, migration, node, states, volumes
from conpaas.core.operations import OperationStatus
from conpaas.core.state import records

from .conftest import SERVICES, make, make_keeper

KINDS = (*lifecycle.KINDS, *migration.KINDS, *volumes.KINDS, SERVICES.SET)
POINTS = [(kind.name, step.name, when) for kind in KINDS for step in kind.steps for when in faults.WHENS]
METHODS = ["create_nodes", "remove_nodes", "create_volume", "attach_volume", "detach_volume", "destroy_volume", "list_nodes", "credit"]
AGENT_TROUBLE = ["start", "stop", "listen", "mount", "unmount"]


class Application(stateful.RuleBasedStateMachine):
    """One service under random treatment."""

    make = staticmethod(make)

    @stateful.initialize()
    def begin(self) -> None:
        self.harness = self.make()
        self.names = 0

    def teardown(self) -> None:
        if not hasattr(self, "harness"):
            return
        try:
            self.come_to_rest()
        finally:
            self.harness.close()

    def come_to_rest(self) -> None:
        """When all trouble is over everything can be put in order, and removed without a trace."""
        one = self.harness
        one.crash_at("", "", "")
        one.director.no_more_trouble()
        one.director.credits = 1000
        for machine in one.director.machines.values():
            machine.answers = True
            machine.agent.refuse.clear()  # type: ignore[attr-defined]
        one.restart()
        if one.state is states.State.ERROR:
            one.recover()
        one.pass_time(1500, step=60)
        one.check()
        assert one.manager.departures == []
        one.remove()
        one.check()
        assert one.director.machines == {}
        assert one.director.disks == {}

    def survive(self, act: Any) -> None:
        """Act; a manager that is killed meanwhile is started again, once more if it is killed again."""
        try:
            with contextlib.suppress(errors.RemoteError, errors.OperationFailed):
                act()
        except testing.SimulatedCrash:
            self.harness.restart()

    def ask(self, method: str, **params: Any) -> None:
        self.survive(lambda: self.harness.request(method, **params))

    @stateful.rule()
    def start(self) -> None:
        self.ask("start_service", service_id=1, cloud="default")

    @stateful.rule(force=st.booleans())
    def stop(self, force: bool) -> None:
        self.ask("stop_service", service_id=1, force=force)

    @stateful.rule(nodes=st.dictionaries(st.sampled_from(["node", "extra", "count"]), st.integers(1, 3), min_size=1))
    def add(self, nodes: dict[str, int]) -> None:
        self.ask("add_nodes", service_id=1, nodes=nodes)

    @stateful.rule(nodes=st.dictionaries(st.sampled_from(["node", "extra"]), st.integers(1, 2), min_size=1))
    def remove(self, nodes: dict[str, int]) -> None:
        self.ask("remove_nodes", service_id=1, nodes=nodes)

    @stateful.rule(number=st.integers(0, 5))
    def remove_one(self, number: int) -> None:
        nodes = self.harness.nodes
        if nodes:
            self.ask("remove_nodes", service_id=1, nodeIds=[nodes[number % len(nodes)].id])

    @stateful.rule(
        numbers=st.lists(st.integers(0, 5), min_size=1, max_size=3), to=st.sampled_from(["iaas", "two"]), delay=st.sampled_from([0, 20])
    )
    def migrate(self, numbers: list[int], to: str, delay: int) -> None:
        nodes = self.harness.nodes
        chosen = {nodes[number % len(nodes)].id: to for number in numbers} if nodes else {}
        if chosen:
            self.survive(lambda: self.harness.migrate_nodes(chosen, delay))

    @stateful.rule()
    def recover(self) -> None:
        self.ask("recover_service", service_id=1)

    @stateful.rule(number=st.integers(0, 5))
    def make_volume(self, number: int) -> None:
        nodes = self.harness.nodes
        if nodes:
            self.names += 1
            self.ask("create_volume", volumeName=f"v{self.names}", volumeSize=1, agentId=nodes[number % len(nodes)].id)

    @stateful.rule(number=st.integers(0, 5))
    def delete_volume(self, number: int) -> None:
        known = self.harness.app.store.volumes.names()
        if known:
            self.ask("delete_volume", volumeName=known[number % len(known)])

    @stateful.rule(word=st.text("ab", min_size=1, max_size=3))
    def set_word(self, word: str) -> None:
        def act() -> None:
            self.harness.call("set_word", word=word)
            self.harness.settle()

        self.survive(act)

    @stateful.rule(number=st.integers(0, 5), how=st.sampled_from(["kill", "vanish", "report"]))
    def lose_node(self, number: int, how: str) -> None:
        nodes = [one for one in self.harness.nodes if one.id in self.harness.director.machines]
        if nodes:
            one = nodes[number % len(nodes)]
            if how == "kill":
                self.harness.kill_node(one)
            elif how == "vanish":
                self.harness.director.vanish(one)
            else:
                self.harness.call("node_lost", 0, nodeId=one.id)

    @stateful.rule(number=st.integers(0, 5), what=st.sampled_from(AGENT_TROUBLE))
    def spoil_agent(self, number: int, what: str) -> None:
        machines = list(self.harness.director.machines.values())
        if machines:
            machines[number % len(machines)].agent.refuse.add(what)  # type: ignore[attr-defined]

    @stateful.rule(seconds=st.sampled_from([1, 5, 15, 120]))
    def pass_time(self, seconds: int) -> None:
        self.survive(lambda: self.harness.pass_time(seconds, step=max(1, seconds / 15)))

    @stateful.rule(method=st.sampled_from(METHODS), times=st.integers(1, 3), how=st.sampled_from(["fail", "lose"]))
    def spoil_director(self, method: str, times: int, how: str) -> None:
        if how == "fail":
            self.harness.director.fail(method, times=times)
        else:
            self.harness.director.lose_answers(method, times=times)

    @stateful.rule(calls=st.integers(1, 12))
    def director_down(self, calls: int) -> None:
        self.harness.director.down(calls)

    @stateful.rule(count=st.integers(1, 2), how=st.sampled_from(["fail", "short"]))
    def spoil_nodes(self, count: int, how: str) -> None:
        if how == "fail":
            self.harness.director.fail_nodes(count)
        else:
            self.harness.director.give_fewer(count)

    @stateful.rule(credits=st.sampled_from([0, 1, 2, 1000]))
    def set_credits(self, credits: int) -> None:
        self.harness.director.credits = credits

    @stateful.rule(point=st.sampled_from(POINTS))
    def crash_later(self, point: tuple[str, str, str]) -> None:
        self.harness.crash_at(*point)

    @stateful.rule()
    def restart(self) -> None:
        self.survive(self.harness.restart)

    @stateful.invariant()
    def nothing_leaks(self) -> None:
        if not hasattr(self, "harness"):
            return
        one = self.harness
        store = one.app.store
        assert store.operations.unfinished() == []
        assert one.state in states.STABLE
        if one.state is states.State.ERROR:
            assert any(op.status is OperationStatus.FAILED for op in one.operations())
            return
        on_record = node.ids_of(store.nodes.with_status(1, records.NodeStatus.MEMBER, records.NodeStatus.LOST))
        assert len(on_record) == len(set(on_record))
        assert set(one.director.machines) <= set(on_record), "a machine is on nobody's record"
        volume_ids = {record.vol_id for record in store.volumes.all()}
        with_nodes = {volume.vol_id for machine in one.director.machines.values() for volume in machine.node.volumes}
        kept = {record.vol_id for record in store.disks.all(1)}
        assert set(one.director.disks) - one.director.ending() <= volume_ids | with_nodes | kept, "a volume is on nobody's record"


class Keeper(Application):
    """The same with disks that outlive their nodes: those of lost nodes are never destroyed while the service is there."""

    make = staticmethod(make_keeper)

    @stateful.rule()
    def cling(self) -> None:
        self.harness.director.cling()

    @stateful.rule()
    def let_go(self) -> None:
        self.harness.director.no_more_trouble()


Application.TestCase.settings = Keeper.TestCase.settings = hypothesis.settings(
    max_examples=40, stateful_step_count=30, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
)


class TestApplication(Application.TestCase):  # type: ignore[name-defined, misc]
    """The machine above, as a test."""


class TestKeeper(Keeper.TestCase):  # type: ignore[name-defined, misc]
    """The machine above, as a test."""
