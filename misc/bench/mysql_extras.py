"""What each thing costs that a member of the mysql service has and a bare server has not: servers by hand with and without it, in turn."""

from __future__ import annotations

import contextlib
import pathlib
import statistics
from collections.abc import Iterator, Mapping

import mysql_by_hand
import mysql_load
from figure import Figure
from placement import Placement

ALONE: Mapping[str, tuple[Mapping[str, str | None], bool]] = {
    "a bare server": ({}, True),
    "the same on the machine's own disk": ({}, False),
    "without a binary log": ({"log_bin": None, "sync_binlog": None}, True),
    "with the slow log": ({"slow_query_log": "ON", "long_query_time": "1"}, True),
    "with userstat": ({"userstat": "ON"}, True),
    "with the performance schema": ({"performance_schema": "ON"}, True),
}
"""Options of servers without a cluster, and whether their data are on a disk of their own."""
CLUSTERS: Mapping[str, tuple[bool, str, Mapping[str, str | None]]] = {
    "a cluster of one": (True, "", {}),
    "without TLS": (False, "", {}),
    "without a binary log": (True, "", {"log_bin": None, "sync_binlog": None, "log_slave_updates": None}),
    "with wsrep_gtid_mode": (True, "", {"wsrep_gtid_mode": "ON", "wsrep_gtid_domain_id": "1"}),
    "with 8 appliers": (True, "", {"wsrep_slave_threads": "8"}),
}
"""Whether members talk by TLS, more options of the provider, and options of the servers."""


def measure(directory: pathlib.Path, net: int, quick: bool) -> list[Figure]:
    """All of them."""
    figures = []
    for size in (1, 3):
        figures += _clusters(directory, net, size, quick)
    return [*_alone(directory, net, quick), *figures]


def _alone(directory: pathlib.Path, net: int, quick: bool) -> list[Figure]:
    with contextlib.ExitStack() as stack:
        places = {}
        for number, (name, (options, on_disk)) in enumerate(ALONE.items()):
            where = directory / f"alone-{number}"
            made = mysql_by_hand.server(where, f"127.{net}.253.{number + 1}", mysql_load.PASSWORD, options, on_disk=on_disk)
            places[name] = stack.enter_context(made)
        return _told("one server", places, quick)


def _clusters(directory: pathlib.Path, net: int, size: int, quick: bool) -> list[Figure]:
    with contextlib.ExitStack() as stack:
        places = {}
        for number, name in enumerate(CLUSTERS):
            places[name] = stack.enter_context(_cluster(directory / f"{size}-{number}", f"127.{net}.{250 + size % 3}", number, size, name))
        return _told(f"a cluster of {size}", places, quick)


@contextlib.contextmanager
def _cluster(directory: pathlib.Path, network: str, number: int, size: int, name: str) -> Iterator[mysql_by_hand.Place]:
    """A cluster as a place whose first member clients connect to."""
    tls, provider, options = CLUSTERS[name]
    addresses = [f"{network}.{number * 10 + one + 1}" for one in range(size)]
    with mysql_by_hand.cluster(directory, addresses, mysql_load.PASSWORD, tls=tls, provider=provider, options=options) as members:
        first, *rest = members
        yield mysql_by_hand.Place(first.host, first.port, first.server, tuple(pid for one in rest for pid in one.processes))


def _told(what: str, places: Mapping[str, mysql_by_hand.Place], quick: bool) -> list[Figure]:
    """Each place beside the first one."""
    mysql_load.fill(places.values())
    runs = mysql_load.compare(places, Placement.OWN, *((2, 2) if quick else (4, 3)))
    first, *_ = places
    figures = []
    for test in (mysql_load.READS, mysql_load.WRITES):
        for name in places:
            costs = [one.cost for one in runs[test, name]]
            added = [100 * (mine.cost / its.cost - 1) for mine, its in zip(runs[test, name], runs[test, first], strict=True)]
            rate = statistics.median(one.rate for one in runs[test, name])
            notes = f"{statistics.median(costs):,.0f} µs of processor time, {rate:,.0f} transactions/s"
            figures.append(Figure(f"{what}, {test}: {name}", "mysql-extras", statistics.median(added), "%", notes=notes))
    return figures
