"""Statements by sysbench: how many transactions a server takes, and how much processor time each of them costs."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import statistics
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

import processes
import pymysql
from figure import Figure
from mysql_by_hand import Place
from placement import Placement, placed

PASSWORD = "bench-password"  # noqa: S105 - of a server on loopback addresses that lives for minutes
SYSBENCH = (
    "--db-driver=mysql",
    "--mysql-user=mysqldb",
    f"--mysql-password={PASSWORD}",
    "--mysql-db=sbtest",
    "--tables=4",
    "--table-size=20000",
    "--threads=8",
)
_WARM_UP = 2
READS, WRITES = "oltp_read_only", "oltp_write_only"


@dataclasses.dataclass(frozen=True)
class Run:
    """Transactions a second, and microseconds of processor time that one of them cost the servers."""

    rate: float
    cost: float


Runs = Mapping[tuple[str, str], list[Run]]
"""By test and place."""


def fill(places: Iterable[Place]) -> None:
    """Have the tables there, and in memory."""
    for place in places:
        with contextlib.closing(connect(place.host, place.port)) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE OR REPLACE DATABASE sbtest")
        _sysbench(READS, place, "prepare")
        run(READS, place, _WARM_UP)


def run(test: str, place: Place, seconds: int) -> Run:
    """Run a test for so long."""
    before = processes.cpu_seconds(place.processes)
    said = _sysbench(test, place, "run", seconds)
    spent = processes.cpu_seconds(place.processes) - before
    found = re.search(r"transactions:\s+(\d+)\s+\(([0-9.]+) per sec", said)
    if found is None or found[1] == "0":
        raise SystemExit(f"sysbench had no transactions at {place.host}: {said[-300:]}")
    return Run(float(found[2]), 1e6 * spent / int(found[1]))


def compare(places: Mapping[str, Place], placement: Placement, rounds: int, seconds: int) -> Runs:
    """Both tests at all places in turn, so often and for so long each; every other time in the opposite order."""
    servers = [pid for place in places.values() for pid in place.server]
    others = [pid for place in places.values() for pid in place.others]
    runs: dict[tuple[str, str], list[Run]] = {}
    with placed(placement, servers, others):
        for number in range(rounds):
            for test in (READS, WRITES):
                for name in list(places)[:: -1 if number % 2 else 1]:
                    runs.setdefault((test, name), []).append(run(test, places[name], seconds))
    return runs


def ratio(runs: Runs, placement: Placement, test: str, name: str, other: str, target: float | None = None) -> Figure:
    """How many transactions one place takes for each that another one does."""
    ours, theirs = runs[test, name], runs[test, other]
    found = sorted(mine.rate / its.rate for mine, its in zip(ours, theirs, strict=True))
    rates = [statistics.median(one.rate for one in each) for each in (ours, theirs)]
    costs = [statistics.median(one.cost for one in each) for each in (ours, theirs)]
    notes = (
        f"ratios {found[0]:.2f} to {found[-1]:.2f}; {rates[0]:,.0f} of {rates[1]:,.0f} transactions/s; "
        f"processor time of one: {costs[0]:,.0f} of {costs[1]:,.0f} µs"
    )
    title = f"MySQL, {placement.value}: {test} {name} : {other}"
    return Figure(title, "mysql", statistics.median(found), "×", target, least=True, notes=notes)


def connect(host: str, port: int) -> Any:
    """A session of the user with all rights."""
    return pymysql.connect(
        host=host, port=port, user="mysqldb", password=PASSWORD, autocommit=True, connect_timeout=2, read_timeout=10, write_timeout=10
    )


def _sysbench(test: str, place: Place, command: str, seconds: int = 0) -> str:
    words = ["sysbench", test, *SYSBENCH, f"--mysql-host={place.host}", f"--mysql-port={place.port}", f"--time={seconds}", command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, start_new_session=True)
    if done.returncode:
        raise SystemExit(f"sysbench fails at {place.host}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout
