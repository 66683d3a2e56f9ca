"""Figures of the mysql service: how fast it starts, grows and takes statements, and what clients notice when its nodes come, go and die."""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import mysql_by_hand
import mysql_extras
import mysql_load
import processes
import web
from figure import Figure
from placement import Placement
from tests.support import journal

GROUPS = ("mysql", "mysql-faults", "mysql-extras")
FAULTS_S = 100.0
_ROUNDS = ((Placement.OWN, 6), (Placement.SHARED, 3))
"""What counts first: where servers share their cores with clients and load balancers, rates tell of those, too."""
_SECONDS = 2


def measure(directory: pathlib.Path, net: int, groups: list[str], quick: bool) -> list[Figure]:
    """Start a platform, measure these groups of figures, and remove the platform."""
    directory.chmod(0o755)  # the server by hand runs as another user
    figures = mysql_extras.measure(directory, net, quick) if "mysql-extras" in groups else []
    if groups == ["mysql-extras"]:
        return figures
    with web.stage(directory, net) as add:
        service = add("mysql")
        started = _timed(lambda: service.perform("start_service", cloud="default"))
        service.rpc.post(
            service.manager, "set_password", service_id=service.sid, params={"user": "mysqldb", "password": mysql_load.PASSWORD}
        )
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
    place = directory / "by-hand"
    with (
        mysql_by_hand.server(place, f"127.{net}.254.9", mysql_load.PASSWORD, {}) as alone,
        mysql_by_hand.balancer(place, f"127.{net}.254.8", [alone]) as balanced,
    ):
        member = next(vm for vm in service.platform.vms() if vm["role"] == "mysql")
        places = {
            "through glb": _access(service),
            "direct": mysql_by_hand.Place(str(member["ip"]), 3306, (_guard(service, member),)),
            "by hand": alone,
            "by hand through HAProxy": balanced,
        }
        mysql_load.fill([places["direct"], alone])
        found = _compared(places, quick)
    service.perform("remove_nodes", nodes={"glb": 1})
    figures = []
    for placement, runs in found.items():
        for test, least in ((mysql_load.READS, 0.93), (mysql_load.WRITES, 0.75)):
            target = least if placement is Placement.OWN else None
            figures += [
                mysql_load.ratio(runs, placement, test, "through glb", "by hand", target),
                mysql_load.ratio(runs, placement, test, "by hand through HAProxy", "by hand"),
                mysql_load.ratio(runs, placement, test, "through glb", "by hand through HAProxy"),
                mysql_load.ratio(runs, placement, test, "direct", "by hand", target),
            ]
    return figures


def _clusters(service: web.Site, directory: pathlib.Path, net: int, quick: bool) -> list[Figure]:
    """Three members behind a load balancer, beside the same by hand."""
    service.perform("add_nodes", nodes={"glb": 1}, cloud="default")
    place = directory / "cluster-by-hand"
    addresses = [f"127.{net}.254.{number}" for number in (11, 12, 13)]
    with (
        mysql_by_hand.cluster(place, addresses, mysql_load.PASSWORD) as members,
        mysql_by_hand.balancer(place, f"127.{net}.254.10", members) as balanced,
    ):
        places = {"3 members": _access(service), "3 by hand": balanced}
        mysql_load.fill(places.values())
        found = _compared(places, quick)
    service.perform("remove_nodes", nodes={"glb": 1})
    return [
        mysql_load.ratio(runs, placement, test, "3 members", "3 by hand", 0.95 if placement is Placement.OWN else None)
        for placement, runs in found.items()
        for test in (mysql_load.READS, mysql_load.WRITES)
    ]


def _compared(places: Mapping[str, mysql_by_hand.Place], quick: bool) -> dict[Placement, mysql_load.Runs]:
    return {
        placement: mysql_load.compare(places, placement, max(2, rounds // 3) if quick else rounds, _SECONDS)
        for placement, rounds in _ROUNDS
    }


def _access(service: web.Site) -> mysql_by_hand.Place:
    """The load balancer, who sends writing clients to one of the members."""
    access, writer = service.get("get_access")["write"], _writer(service)
    vms = [vm for vm in service.platform.vms() if vm["role"] in ("mysql", "glb")]
    answers, others = (tuple(_guard(service, vm) for vm in vms if (vm["ip"] == writer) == wanted) for wanted in (True, False))
    return mysql_by_hand.Place(access["host"], access["port"], answers, others)


def _writer(service: web.Site) -> str:
    """The address of the member that takes writes."""
    (balancer,) = service.nodes()["glb"]
    return str(service.get("get_balancer", serviceNodeId=balancer)["writer"])


def _guard(service: web.Site, vm: Mapping[str, Any]) -> int:
    """The process that all of a VM are below: what serves, and its agent."""
    return processes.guard_of(service.platform.directory / "cloud" / "vms" / str(vm["vmid"]))


# Faults


def _faults(service: web.Site, seconds: float) -> list[Figure]:
    """Write while nodes are added, removed and killed; then look for every acknowledged row on every member."""
    access = service.get("get_access")["write"]
    login = {"host": access["host"], "port": access["port"], "user": "mysqldb", "password": mysql_load.PASSWORD}
    with contextlib.closing(mysql_load.connect(access["host"], access["port"])) as connection, connection.cursor() as cursor:
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
    writer = _writer(service)
    _kill(service, lambda vm: vm["ip"] == writer)


def _kill_other(service: web.Site) -> None:
    writer = _writer(service)
    _kill(service, lambda vm: vm["role"] == "mysql" and vm["ip"] != writer)


def _kill(service: web.Site, chosen: Callable[[dict[str, Any]], bool]) -> None:
    victim = next(vm for vm in service.platform.vms() if chosen(vm))
    processes.kill(processes.tree(_guard(service, victim))[1])
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
        with contextlib.closing(mysql_load.connect(str(vm["ip"]), 3306)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT token FROM journal.journal")
            there = [str(row[0]) for row in cursor.fetchall()]
        lost = max(lost, len(acknowledged - set(there)))
        twice = max(twice, len(there) - len(set(there)))
    return lost, twice
