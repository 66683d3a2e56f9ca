#!/usr/bin/env python3
"""How long VMs of the dummy cloud take: from the request until something in them answers, and until they are gone.

    misc/bench/boot.py [--vms 20] [--isolation auto|pidns|session] [--network 127.99.0.0/16] [--user-data FILE] [--port 5555]

Without --user-data a VM runs one small listener as a service; what is left is the cloud's own share of a boot. With it, any script
that in the end makes something listen on the VM's address and the given port, such as the user-data that a Director composed.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import resource
import socket
import statistics
import tempfile
import threading
import time
from concurrent import futures

from conpaas.core.clouds import base, factory

LISTENER = """#!/bin/bash
mkdir $VM_ROOT/service.new
cat > $VM_ROOT/service.new/run <<END
#!/bin/sh
exec $CPS_PYTHON -I -S -c "import socket; s = socket.create_server(('$IP_PUBLIC', {port})); [s.accept() for _ in iter(int, 1)]"
END
chmod +x $VM_ROOT/service.new/run
mv $VM_ROOT/service.new $VM_ROOT/service/listener
"""
PATIENCE = 120.0


def answered_after(begun: float, address: tuple[str, int]) -> float:
    """Seconds from `begun` until a connection is accepted."""
    while time.monotonic() - begun < PATIENCE:
        with socket.socket() as probe:
            if probe.connect_ex(address) == 0:
                return time.monotonic() - begun
        threading.Event().wait(0.005)
    raise SystemExit(f"{address[0]}:{address[1]} does not answer after {PATIENCE:g} s")


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds from the request until `create_nodes` returned and until VMs answered; of destroying them; CPU of this process."""

    count: int
    created: float
    first: float
    median: float
    last: float
    destroyed: float
    cpu: float


def measure(cloud: base.Cloud, count: int, user_data: str, port: int) -> Times:
    """Boots `count` VMs at once, waits for all, and destroys them."""
    specs = tuple(base.NodeSpec(index, "bench", user_data=user_data) for index in range(count))
    before = resource.getrusage(resource.RUSAGE_SELF)
    begun = time.monotonic()
    nodes = cloud.create_nodes(base.NodeRequest(f"bench-{time.time_ns()}", specs))
    created = time.monotonic() - begun
    with futures.ThreadPoolExecutor(count) as pool:
        times = sorted(pool.map(lambda node: answered_after(begun, (node.ip, port)), nodes))
    after = resource.getrusage(resource.RUSAGE_SELF)
    begun = time.monotonic()
    cloud.destroy_nodes([node.vmid for node in nodes])
    destroyed = time.monotonic() - begun
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Times(count, created, times[0], statistics.median(times), times[-1], destroyed, cpu)


def main() -> None:
    """Measures one VM (three times) and then many at once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vms", type=int, default=20)
    parser.add_argument("--isolation", default="auto", choices=("auto", "pidns", "session"))
    parser.add_argument("--network", default="127.99.0.0/16")
    parser.add_argument("--user-data", type=pathlib.Path)
    parser.add_argument("--port", type=int, default=5555)
    options = parser.parse_args()
    user_data = options.user_data.read_text() if options.user_data else LISTENER.replace("{port}", str(options.port))
    with tempfile.TemporaryDirectory(prefix="conpaas-bench-") as directory:
        section = {"DRIVER": "dummy", "STATE_DIR": directory, "NETWORK": options.network, "ISOLATION": options.isolation}
        cloud = factory.open_cloud("iaas", {**section, "AGENT_PORT": str(options.port)})
        for problem in cloud.check():
            raise SystemExit(problem)
        try:
            for count in (1, 1, 1, options.vms):
                times = measure(cloud, count, user_data, options.port)
                print(
                    f"{count:3} VMs: create_nodes {times.created:.3f} s; answering first {times.first:.3f} s, median {times.median:.3f} s,"
                    f" last {times.last:.3f} s; destroy_nodes {times.destroyed:.3f} s; CPU of this process {times.cpu:.3f} s"
                )
        finally:
            cloud.destroy_nodes([node.vmid for node in cloud.list_nodes()])


if __name__ == "__main__":
    main()
