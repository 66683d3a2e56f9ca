"""The XML of machines that classic clients read."""

from __future__ import annotations

from xml.etree import ElementTree

from conpaas.core import node
from conpaas.services.mysql.manager import ganglia

FIGURES = {
    "cpu_idle": 97.25, "memory_free": 2048, "memory_total": 4096, "disk_free": 5 * 10**9, "disk_total": 8 * 10**9,
    "packets_in": 1, "packets_out": 2, "bytes_in": 3, "bytes_out": 4,
}  # fmt: skip


def test_each_node_that_answered_is_a_host_with_all_metrics() -> None:
    nodes = {one.id: one for one in (node.ServiceNode(name, f"192.0.2.{name}", "", "iaas", "mysql") for name in ("1", "2"))}
    tree = ElementTree.fromstring(ganglia.document({"iaas2": FIGURES}, nodes))
    (host,) = tree.findall("./GRID/CLUSTER/HOST")
    assert (host.attrib["NAME"], host.attrib["IP"]) == ("iaas2", "192.0.2.2")
    told = {metric.attrib["NAME"]: float(metric.attrib["VAL"]) for metric in host}
    assert told == {
        "cpu_idle": 97.25, "mem_free": 2, "mem_total": 4, "disk_free": 5, "disk_total": 8,
        "pkts_in": 1, "pkts_out": 2, "bytes_in": 3, "bytes_out": 4,
    }  # fmt: skip


def test_without_nodes_it_is_an_empty_cluster() -> None:
    assert ElementTree.fromstring(ganglia.document({}, {})).findall("./GRID/CLUSTER/HOST") == []
