"""Crash a service manager at every step of what it does, and assert that a restart ends it or undoes it without a trace."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from conpaas.core import errors, faults, operations
from conpaas.testing import harness as harness_

Make = Callable[[], harness_.Harness]
Act = Callable[[harness_.Harness], object]
Check = Callable[[harness_.Harness], object]

Point = tuple[str, str, str]
"""Kind of operation, step, and when (one of `faults.WHENS`)."""

_FORWARD = (faults.BEFORE, faults.AFTER)


@dataclasses.dataclass(frozen=True)
class Case:
    """One crash: at `crash`, in a run in which the step at `failure` fails (None: nothing fails)."""

    crash: Point
    failure: Point | None = None

    def __str__(self) -> str:
        text = "crash at " + "/".join(self.crash)
        return text + (" after a failure at " + "/".join(self.failure) if self.failure else "")


def points_of(make: Make, act: Act, prepare: Act | None = None, failure: Point | None = None) -> list[Point]:
    """The fault points that an action passes."""
    with make() as harness:
        if prepare is not None:
            prepare(harness)
        if failure is not None:
            harness.fail_at(*failure)
        harness.points.clear()
        _try(harness, act)
        return list(dict.fromkeys(harness.points))


def cases(make: Make, act: Act, prepare: Act | None = None) -> Iterator[Case]:
    """Every crash that can happen in an action: on its way forward, and on the way back after each of its steps failed."""
    forward = points_of(make, act, prepare)
    yield from (Case(point) for point in forward)
    for failure in (point for point in forward if point[2] in _FORWARD):
        passed = points_of(make, act, prepare, failure)
        yield from (Case(point, failure) for point in passed if point not in forward)


def run(case: Case, make: Make, act: Act, prepare: Act | None = None, check: Check | None = None) -> None:
    """Act, crash, restart; then the operation must be done or undone, the state stable and nothing leaked."""
    with make() as harness:
        if prepare is not None:
            prepare(harness)
        before = {op.id for op in harness.app.store.operations.recent(1000)}
        if case.failure is not None:
            harness.fail_at(*case.failure)
        harness.crash_at(*case.crash)
        with harness_.expect_crash():
            _try(harness, act)
        harness.restart()
        for op in harness.app.store.operations.recent(1000):
            if op.id not in before:
                _assert_ended(op, case)
        harness.check()
        if check is not None:
            check(harness)


def crash_everywhere(make: Make, act: Act, prepare: Act | None = None, check: Check | None = None) -> int:
    """Run every case of an action; returns how many there were. Each failure names its case.

    `make` makes a fresh harness, `prepare` brings it to where the action begins, `act` is the action, `check` asserts more afterwards.
    """
    found = list(cases(make, act, prepare))
    for case in found:
        try:
            run(case, make, act, prepare, check)
        except (AssertionError, errors.ConPaaSError) as error:
            raise AssertionError(f"{case}: {error}") from error
    return len(found)


def _try(harness: harness_.Harness, act: Act) -> None:
    """Act; that the operation fails is part of the test."""
    try:
        act(harness)
    except (errors.OperationFailed, errors.RemoteError):
        harness.settle()


def _assert_ended(op: operations.Operation, case: Case) -> None:
    allowed = [operations.OperationStatus.DONE, operations.OperationStatus.UNDONE]
    if case.failure is not None:
        allowed.append(operations.OperationStatus.FAILED)
    assert op.status in allowed, f"{op.kind} ended {op.status}: {op.error}"
