"""Figures of the mysql service: how fast it starts, grows and takes statements, and what clients notice when its nodes come, go and die."""

from __future__ import annotations

import contextlib
import pathlib
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mysql_by_hand
import processes
import pymysql
import web
from figure import Figure
from tests.support import journal

GROUPS = ("mysql", "mysql-faults")
PASSWORD = "bench-password"  # noqa: S105 - of a server on loopback addresses that lives for minutes
FAULTS_S = 100.0
SYSBENCH = (
    "--db-driver=mysql",
    "--mysql-user=mysqldb",
    f"--mysql-password={PASSWORD}",
    "--mysql-db=sbtest",
    "--tables=4",
    "--table-size=20000",
    "--threads=4",
)
READS, WRITES = "oltp_read_only", "oltp_write_only"


def measure(directory: pathlib.Path, net: int, groups: list[str], quick: bool) -> list[Figure]:
    """Start a platform, measure these groups of figures, and remove the platform."""
    directory.chmod(0o755)  # the server by hand runs as another user
    figures: list[Figure] = []
    with web.stage(directory, net) as add:
        service = add("mysql")
        started = _timed(lambda: service.perform("start_service", cloud="default"))
        service.rpc.post(service.manager, "set_password", service_id=service.sid, params={"user": "mysqldb", "password": PASSWORD})
        if "mysql" in groups:
            figures += [
                Figure("MySQL: service started → takes statements", "mysql", started, "s"),
                *_statements(service, directory, net, quick),
            ]
        joined = [_timed(lambda: service.perform("add_nodes", nodes={"mysql": 1}, cloud="default")) for _ in range(2)]
        if "mysql" in groups:
            notes = ", ".join(f"{one:.1f}" for one in joined)
            figures.append(Figure("MySQL: empty node asked for → Synced", "mysql", max(joined), "s", 8, notes=notes))
            figures += _clusters(service, directory, net, quick)
        if "mysql-faults" in groups:
            service.perform("add_nodes", nodes={"glb": 1}, cloud="default")
            figures += _faults(service, 40.0 if quick else FAULTS_S)
    return figures


def _timed(action: Callable[[], object]) -> float:
    begun = time.monotonic()
    action()
    return time.monotonic() - begun


# Statements


def _statements(service: web.Site, directory: pathlib.Path, net: int, quick: bool) -> list[Figure]:
    """One member, asked directly and through its load balancer, beside the same server by hand without a cluster."""
    service.perform("add_nodes", nodes={"glb": 1}, cloud="default")
    member = next(vm for vm in service.platform.vms() if vm["role"] == "mysql")
    with mysql_by_hand.server(directory / "by-hand", f"127.{net}.254.9", PASSWORD) as alone:
        places = {"through glb": _access(service), "direct": (str(member["ip"]), 3306), "by hand": (alone, 3306)}
        rates = _rates(places, ("direct", "by hand"), quick)
    service.perform("remove_nodes", nodes={"glb": 1})
    targets = ((READS, 0.93), (WRITES, 0.75))
    return [_ratio(rates, test, name, "by hand", target) for test, target in targets for name in ("through glb", "direct")]


def _clusters(service: web.Site, directory: pathlib.Path, net: int, quick: bool) -> list[Figure]:
    """Three members behind a load balancer, beside the same by hand."""
    service.perform("add_nodes", nodes={"glb": 1}, cloud="default")
    with mysql_by_hand.cluster(directory / "cluster-by-hand", f"127.{net}.254", PASSWORD) as balancer:
        places = {"3 members": _access(service), "3 by hand": (balancer, 3306)}
        rates = _rates(places, tuple(places), quick)
    service.perform("remove_nodes", nodes={"glb": 1})
    return [_ratio(rates, test, "3 members", "3 by hand", 0.95) for test in (READS, WRITES)]


def _access(service: web.Site) -> tuple[str, int]:
    access = service.get("get_access")["write"]
    return access["host"], access["port"]


def _rates(places: Mapping[str, tuple[str, int]], fill: Sequence[str], quick: bool) -> dict[tuple[str, str], list[float]]:
    """Transactions a second by test and place, measured in turn; `fill` are the places that get tables first."""
    for place in fill:
        with contextlib.closing(_connect(*places[place])) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE OR REPLACE DATABASE sbtest")
        _sysbench(READS, places[place], "prepare")
    rates: dict[tuple[str, str], list[float]] = {}
    for _ in range(1 if quick else 5):
        for test in (READS, WRITES):
            for name, place in places.items():
                rates.setdefault((test, name), []).append(_sysbench(test, place, "run", 3 if quick else 6))
    return rates


def _ratio(rates: Mapping[tuple[str, str], list[float]], test: str, name: str, other: str, target: float) -> Figure:
    found = [ours / theirs for ours, theirs in zip(rates[test, name], rates[test, other], strict=True)]
    notes = f"{statistics.median(rates[test, name]):,.0f} of {statistics.median(rates[test, other]):,.0f} transactions/s"
    return Figure(f"MySQL: {test} {name} : {other}", "mysql", statistics.median(found), "×", target, least=True, notes=notes)


def _sysbench(test: str, place: tuple[str, int], command: str, seconds: int = 0) -> float:
    """Run sysbench; transactions a second."""
    words = ["sysbench", test, *SYSBENCH, f"--mysql-host={place[0]}", f"--mysql-port={place[1]}", f"--time={seconds}", command]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = re.search(r"transactions:\s+\d+\s+\(([0-9.]+) per sec", done.stdout)
    return float(found[1]) if found else 0.0


def _connect(host: str, port: int) -> Any:
    return pymysql.connect(
        host=host, port=port, user="mysqldb", password=PASSWORD, autocommit=True, connect_timeout=2, read_timeout=10, write_timeout=10
    )


# Faults


def _faults(service: web.Site, seconds: float) -> list[Figure]:
    """Write while nodes are added, removed and killed; then look for every acknowledged row on every member."""
    access = service.get("get_access")["write"]
    login = {"host": access["host"], "port": access["port"], "user": "mysqldb", "password": PASSWORD}
    with contextlib.closing(_connect(access["host"], access["port"])) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE journal")
    rows = journal.Journal(**login, database="journal")
    rows.create()
    planned: list[float] = []
    killed: list[float] = []
    events = ((planned, _add), (killed, _kill_writer), (planned, _remove), (killed, _kill_other))
    until = time.monotonic() + seconds
    with rows.written():
        while time.monotonic() < until:
            for gaps, event in events:
                rows.longest = 0.0
                event(service)
                _well(service)
                gaps.append(rows.longest)
    lost, twice = _compare(service, rows.acknowledged)
    notes = f"{len(rows.acknowledged):,} rows, {sum(rows.errors.values())} transactions failed and were repeated"
    return [
        Figure("MySQL: acknowledged rows that a member lacks", "mysql-faults", lost, "", 0, notes=notes),
        Figure("MySQL: rows that a member has twice", "mysql-faults", twice, "", 0),
        Figure("MySQL: longest gap for clients, node killed", "mysql-faults", max(killed), "s", 2, notes=_all(killed)),
        Figure("MySQL: longest gap for clients, planned change", "mysql-faults", max(planned), "s", notes=_all(planned)),
    ]


def _all(gaps: list[float]) -> str:
    return ", ".join(f"{one:.2f}" for one in gaps)


def _add(service: web.Site) -> None:
    service.perform("add_nodes", nodes={"mysql": 1}, cloud="default")


def _remove(service: web.Site) -> None:
    service.perform("remove_nodes", nodes={"mysql": 1})


def _kill_writer(service: web.Site) -> None:
    (balancer,) = service.nodes()["glb"]
    writer = service.get("get_balancer", serviceNodeId=balancer)["writer"]
    _kill(service, lambda vm: vm["ip"] == writer)


def _kill_other(service: web.Site) -> None:
    (balancer,) = service.nodes()["glb"]
    writer = service.get("get_balancer", serviceNodeId=balancer)["writer"]
    _kill(service, lambda vm: vm["role"] == "mysql" and vm["ip"] != writer)


def _kill(service: web.Site, chosen: Callable[[dict[str, Any]], bool]) -> None:
    victim = next(vm for vm in service.platform.vms() if chosen(vm))
    processes.kill(processes.tree(processes.guard_of(service.platform.directory / "cloud" / "vms" / str(victim["vmid"])))[1])
    deadline = time.monotonic() + web.PATIENCE
    while any(vm["vmid"] == victim["vmid"] for vm in service.platform.vms()):
        if time.monotonic() > deadline:
            raise SystemExit(f"the node {victim['vmid']} was not replaced within {web.PATIENCE:.0f} s")
        time.sleep(0.1)


def _well(service: web.Site) -> None:
    """Wait until all members work."""
    deadline = time.monotonic() + web.PATIENCE
    while True:
        told = service.get("get_service_info")
        if told["state"] == "RUNNING" and told["cluster"]["healthy"]:
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"the cluster is not well within {web.PATIENCE:.0f} s: {told['cluster']}")
        time.sleep(0.2)


def _compare(service: web.Site, acknowledged: set[str]) -> tuple[int, int]:
    """How many rows some member lacks, and how many it has more than once."""
    lost = twice = 0
    for vm in [vm for vm in service.platform.vms() if vm["role"] == "mysql"]:
        with contextlib.closing(_connect(str(vm["ip"]), 3306)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT token FROM journal.journal")
            there = [str(row[0]) for row in cursor.fetchall()]
        lost = max(lost, len(acknowledged - set(there)))
        twice = max(twice, len(there) - len(set(there)))
    return lost, twice
