"""The engine alone: order, undoing, leases, restarts, and real kills."""

from __future__ import annotations

import dataclasses
import errno
import pathlib
import subprocess
import sys
import threading
from typing import Any

import pytest

from conpaas.core import engine as engines
from conpaas.core import errors, faults, operations, workers
from conpaas.core.operations import Operation, OperationKind, OperationStatus, Step, StepStatus
from conpaas.testing import simulation


class MemoryStore:
    """An `OperationStore` that keeps nothing after the test."""

    def __init__(self) -> None:
        self.kept: dict[str, Operation] = {}
        self.beats: list[str] = []
        self.lost = False

    def begin(self, op: Operation, kind: OperationKind) -> None:
        if any(other.target == op.target and not other.status.finished for other in self.kept.values()):
            raise operations.wrong_state(kind.allowed, "BUSY")
        self.kept[op.id] = op

    def _mine(self) -> None:
        if self.lost:
            raise operations.LeaseLost

    def step_done(self, op: Operation, name: str) -> None:
        self._mine()

    def step_undone(self, op: Operation, name: str) -> None:
        self._mine()

    def set_status(self, op: Operation, status: OperationStatus, failed_step: str | None = None) -> None:
        self._mine()

    def finish(self, op: Operation, kind: OperationKind) -> None:
        self._mine()

    def save(self, op: Operation) -> None:
        self._mine()

    def note(self, op: Operation, text: str) -> None:
        self._mine()

    def unfinished(self) -> list[Operation]:
        return [op for op in self.kept.values() if not op.status.finished]

    def list(self, target: int, limit: int) -> list[Operation]:
        return [op for op in self.kept.values() if op.target == target]

    def get(self, id: str) -> Operation:
        return self.kept[id]

    def heartbeat(self, op: Operation) -> None:
        self.beats.append(op.id)


@dataclasses.dataclass
class Bench:
    """An engine with one kind of three steps that write down what happens."""

    fails: set[str] = dataclasses.field(default_factory=set)
    did: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = MemoryStore()
        self.pool = simulation.DeferredPool()
        steps = tuple(Step(name, f"do_{name}", f"undo_{name}") for name in "abc")
        self.kind = OperationKind("kind", steps, allowed=("RUNNING",))
        self.engine = self.make()

    def make(self, **options: Any) -> engines.OperationEngine:
        settings: dict[str, Any] = {"pool": self.pool, "undo_delay": 0.0, **options}
        return engines.OperationEngine(self.store, kind_of=engines.kinds_by_name({"kind": self.kind}), owner_of=lambda op: self, **settings)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith(("do_", "undo_")):
            raise AttributeError(name)

        def act(op: Operation) -> None:
            self.did.append(name)
            if name in self.fails:
                raise errors.OperationFailed(f"{name} failed")

        return act

    def run(self) -> Operation:
        op = self.engine.submit(self.kind, 1, {}, "me")
        self.pool.settle()
        return op


def test_steps_are_done_in_order() -> None:
    bench = Bench()
    op = bench.run()
    assert (op.status, bench.did) == (OperationStatus.DONE, ["do_a", "do_b", "do_c"])
    assert [step.status for step in op.steps] == [StepStatus.DONE] * 3


def test_a_failed_step_and_those_before_it_are_undone_last_first() -> None:
    bench = Bench(fails={"do_b"})
    op = bench.run()
    assert (op.status, op.error) == (OperationStatus.UNDONE, "do_b failed")
    assert bench.did == ["do_a", "do_b", "undo_b", "undo_a"]
    assert [step.status for step in op.steps] == [StepStatus.UNDONE, StepStatus.UNDONE, StepStatus.PENDING]


def test_an_undo_is_tried_a_bounded_number_of_times() -> None:
    bench = Bench(fails={"do_b", "undo_b"})
    op = bench.run()
    assert (op.status, op.error) == (OperationStatus.FAILED, "do_b failed ('b' could not be undone: undo_b failed)")
    assert bench.did.count("undo_b") == engines.UNDO_ATTEMPTS
    assert "undo_a" not in bench.did


def test_there_is_no_way_back_from_an_irreversible_step() -> None:
    bench = Bench(fails={"do_c"})
    bench.kind = OperationKind("kind", (*bench.kind.steps[:1], Step("b", "do_b", irreversible=True), bench.kind.steps[2]))
    op = bench.run()
    assert (op.status, bench.did) == (OperationStatus.FAILED, ["do_a", "do_b", "do_c"])


def test_a_step_fails_by_returning_false_and_by_any_exception() -> None:
    kind = OperationKind("kind", (Step("a", lambda op: False),))
    bench = Bench()
    op = bench.engine.submit(kind, 1)
    bench.pool.settle()
    assert (op.status, op.error) == (OperationStatus.UNDONE, "The step 'a' of kind failed.")
    op = bench.engine.submit(OperationKind("kind", (Step("a", lambda op: list[int]().pop()),)), 1)
    bench.pool.settle()
    assert (op.status, op.error) == (OperationStatus.UNDONE, "IndexError: pop from empty list")


def test_run_waits_and_raises() -> None:
    bench = Bench(fails={"do_a"})
    with pytest.raises(errors.OperationFailed, match="do_a failed"):
        bench.engine.run(bench.kind, 1)


def test_a_busy_target_is_refused_and_another_is_not() -> None:
    bench = Bench()
    bench.engine.submit(bench.kind, 1)
    with pytest.raises(errors.WrongState):
        bench.engine.submit(bench.kind, 1)
    bench.engine.submit(bench.kind, 2)
    assert len(bench.engine.active()) == 2


def test_a_lost_lease_ends_the_work_without_an_outcome() -> None:
    bench = Bench()
    op = bench.engine.submit(bench.kind, 1)
    bench.store.lost = True
    bench.pool.settle()
    assert (op.status, bench.did) == (OperationStatus.RUNNING, ["do_a"])
    assert bench.engine.active() == []


def test_a_closed_engine_begins_nothing_and_resumes_later() -> None:
    bench = Bench()
    op = bench.engine.submit(bench.kind, 1)
    bench.engine.close()
    bench.pool.settle()
    with pytest.raises(errors.WrongState, match="shutting down"):
        bench.engine.submit(bench.kind, 2)
    bench.engine = bench.make()
    assert [one.id for one in bench.engine.resume()] == [op.id]
    assert bench.engine.resume() == []
    bench.pool.settle()
    assert bench.store.get(op.id).status is OperationStatus.DONE


def test_a_step_that_today_s_code_added_is_done_too() -> None:
    bench = Bench()
    op = bench.engine.submit(bench.kind, 1)
    op.steps = op.steps[1:]
    op.steps[0].status = StepStatus.DONE
    bench.engine = bench.make()
    bench.pool.close()
    bench.engine.resume()
    bench.pool.settle()
    assert bench.did == ["do_a", "do_c"]


def test_operations_under_way_send_heartbeats() -> None:
    bench = Bench()
    beaten = threading.Event()
    bench.store.heartbeat = lambda op: beaten.set()  # type: ignore[method-assign]
    engine = bench.make(heartbeat_interval=0.001)
    engine.submit(bench.kind, 1)
    assert beaten.wait(20)
    engine.close()


def test_real_threads_work_on_different_targets_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=20)
    kind = OperationKind("kind", (Step("meet", lambda op: meeting.wait() and None),))
    bench = Bench()
    engine = bench.make(pool=workers.WorkerPool("test", 3))
    begun = [engine.submit(kind, target) for target in (1, 2, 3)]
    assert [engine.wait(op.id, 20).status for op in begun] == [OperationStatus.DONE] * 3
    engine.close()


def test_a_full_disk_only_delays_the_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    attempts = []

    def finish(op: Operation, kind: OperationKind) -> None:
        attempts.append(op.status)
        if len(attempts) < 3:
            raise errors.StorageFull("full")

    bench.store.finish = finish  # type: ignore[method-assign]
    monkeypatch.setattr(bench.engine._closing, "wait", lambda seconds: False)
    bench.run()
    assert attempts == [OperationStatus.DONE] * 3


PROGRAM = """
import pathlib, sys
from conpaas.core import engine as engines
from conpaas.core import operations
from conpaas.core.state import store
where = pathlib.Path(sys.argv[1])
def do(op): (where / "made").write_text("x")
def undo(op): (where / "made").unlink(missing_ok=True)
def fail(op): raise SystemError("no")
kind = operations.OperationKind("make", (operations.Step("do", do, undo), operations.Step("fail", fail)), transient="ADAPTING")
opened = store.Store(where / "state.db")
engine = engines.OperationEngine(opened.operations, kind_of=engines.kinds_by_name({"make": kind}), undo_delay=0.0)
begun = engine.resume() or [engine.submit(kind, 0)]
op = engine.wait(begun[0].id)
print(op.status, opened.services.get(0).state, (where / "made").exists())
"""


@pytest.mark.parametrize("when", ["before", "after", "recorded", "undo", "undo-after", "undo-recorded"])
def test_a_process_that_is_killed_goes_on_after_its_restart(tmp_path: pathlib.Path, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = tmp_path / "faults"
    listed.write_text(f"director * * *\nmanager make do {when}\n")
    monkeypatch.setenv(faults.ENVIRONMENT, str(listed))
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    assert subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == -9
    assert listed.read_text() == "director * * *\n"
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["UNDONE", "RUNNING", "False"]


def test_a_pool_is_bounded_and_survives_failures() -> None:
    pool = workers.WorkerPool("test", 2)
    running, release, most = [], threading.Event(), []

    def work(number: int) -> int:
        running.append(number)
        most.append(len(running))
        release.wait(20)
        running.remove(number)
        if number == 1:
            raise errors.OperationFailed("no")
        return number

    threading.Timer(0.05, release.set).start()
    results = workers.fan_out(pool, work, [0, 1, 2, 3, 4])
    assert [result for result in results if not isinstance(result, Exception)] == [0, 2, 3, 4]
    assert max(most) <= 2
    pool.submit(lambda: 1 / 0)
    assert workers.fan_out(pool, lambda one: one, [7]) == [7]
    pool.close()


def test_a_fan_out_ends_in_time() -> None:
    pool = workers.WorkerPool("test", 2)
    held = threading.Event()
    (result,) = workers.fan_out(pool, lambda one: held.wait(20), [1], timeout=0.01)
    assert isinstance(result, TimeoutError)
    held.set()
    pool.close()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.OperationFailed("php-fpm refuses it"), "php-fpm refuses it"),
        (ValueError("x"), "ValueError: x"),
        (ValueError(), "ValueError"),
        (OSError(errno.ENOSPC, "No space left on device", "/var/code"), "There is no room left on the disk for /var/code."),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "There is no room left on the disk."),
    ],
)
def test_what_history_says_of_a_failure(error: Exception, text: str) -> None:
    assert operations.describe(error) == text
