"""The part of a page that all services have which shows what their machines do."""

from __future__ import annotations

from typing import Final

from conpaas.core.pages import WORKING, Chart, Panel, Table, Value

_METHOD: Final = "get_machines"

PANEL: Final = Panel(
    "Machines",
    (
        Chart("In use", _METHOD, (Value("cpu", "processors"), Value("memory", "memory"), Value("disk", "disk")), unit="%"),
        Chart("Network", _METHOD, (Value("received", "received"), Value("sent", "sent")), unit="KB/s"),
        Table(
            _METHOD,
            "nodes",
            (
                Value("key", "Node", "code"),
                Value("cpu_idle", "Processors idle", "percent"),
                Value("memory_free", "Memory free", "size"),
                Value("memory_total", "Memory", "size"),
                Value("disk_free", "Disk free", "size"),
                Value("disk_total", "Disk", "size"),
            ),
            states=WORKING,
            empty="No node tells what its machine does.",
        ),
    ),
    help="Means over all nodes; of the network, sums. Nodes that share a machine, as on one computer that is a cloud, tell the same.",
)
