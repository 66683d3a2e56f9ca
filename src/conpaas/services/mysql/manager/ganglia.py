"""Figures of machines in the XML that Ganglia's daemon would give, for classic clients that read nothing else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final
from xml.etree import ElementTree

from conpaas.core import node

NAME: Final = "conpaas"
_KILO: Final = 1024
_GIGA: Final = 1000**3

METRICS: Final[Mapping[str, tuple[str, float, str]]] = {
    "cpu_idle": ("cpu_idle", 1, "%"),
    "mem_free": ("memory_free", _KILO, "KB"),
    "mem_total": ("memory_total", _KILO, "KB"),
    "disk_free": ("disk_free", _GIGA, "GB"),
    "disk_total": ("disk_total", _GIGA, "GB"),
    "pkts_in": ("packets_in", 1, "packets/sec"),
    "pkts_out": ("packets_out", 1, "packets/sec"),
    "bytes_in": ("bytes_in", 1, "bytes/sec"),
    "bytes_out": ("bytes_out", 1, "bytes/sec"),
}
"""By Ganglia's name of a metric: which of our figures it is, in which unit."""


def document(figures: Mapping[str, Mapping[str, Any]], nodes: Mapping[str, node.ServiceNode]) -> str:
    """The XML of all nodes that told figures, both by node id."""
    now = str(int(time.time()))
    root = ElementTree.Element("GANGLIA_XML", VERSION="3.7.2", SOURCE="gmetad")
    grid = ElementTree.SubElement(root, "GRID", NAME=NAME, LOCALTIME=now)
    cluster = ElementTree.SubElement(grid, "CLUSTER", NAME=NAME, LOCALTIME=now)
    for node_id, told in figures.items():
        address = nodes[node_id].ip
        host = ElementTree.SubElement(cluster, "HOST", NAME=node_id, IP=address, REPORTED=now)
        for name, (ours, unit, units) in METRICS.items():
            value = f"{float(told[ours]) / unit:.3f}"
            ElementTree.SubElement(host, "METRIC", NAME=name, VAL=value, TYPE="double", UNITS=units)
    return ElementTree.tostring(root, encoding="unicode")
