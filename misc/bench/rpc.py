"""What a call costs the server: CPU time, throughput, latency and memory, over real mutual TLS.

    python misc/bench/rpc.py [--json FILE] [--requests N] [--soak N]

Starts its own server process and lean clients, and prints a table. The CPU time is that of the server process alone; it
hardly depends on what else the machine does, unlike the throughput.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator

import lean_client

from conpaas.core import expose, rpc
from conpaas.core.https import identity, server

HERE = pathlib.Path(__file__).parent
HOST = "127.0.0.1"
UID, AID = 7, 3
TICKS = os.sysconf("SC_CLK_TCK")


class Manager:
    """Answers what front-ends and command lines ask for most."""

    @expose.expose("GET")
    def get_service_info(self) -> dict[str, str]:
        """State and type, as every manager reports them."""
        return {"state": "RUNNING", "type": "helloworld"}


@dataclasses.dataclass(frozen=True)
class Figure:
    """One line of the table. CPU in milliseconds of the server per request, latencies in milliseconds."""

    scenario: str
    requests: int
    cpu_ms: float
    per_second: float
    p50_ms: float
    p99_ms: float
    rss_mb: float


def make_credentials(directory: pathlib.Path) -> None:
    """Write a CA and a manager's certificate, which serves for both sides."""
    from conpaas.core.https import x509  # not in the server's process, where it would count as memory

    ca_key, ca = x509.new_ca()
    key = x509.new_key()
    subject = x509.Subject(role="manager", cn="ConPaaS", uid=UID, aid=AID)
    (directory / "cert.pem").write_text(x509.issue(ca_key, ca, key.public_key(), subject, san=[HOST]))
    (directory / "key.pem").write_text(x509.key_pem(key))
    (directory / "ca_cert.pem").write_text(x509.certificate_pem(ca))


def serve(directory: pathlib.Path) -> None:
    """The server process: prints its port, then serves until it is terminated."""
    app = rpc.RpcApplication()
    app.register(1, Manager())
    wsgi = server.rpc_wsgi(app, identity.manager_callers(UID, AID))
    https = server.HttpsServer((HOST, 0), wsgi, identity.Credentials.from_dir(directory))
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    https.start_in_thread()
    print(https.port, flush=True)
    while not ended.wait(1):  # a signal that another thread gets does not wake this one
        pass
    https.stop()


@contextlib.contextmanager
def server_process(directory: pathlib.Path) -> Iterator[tuple[int, int]]:
    """A server in a process of its own; yields its pid and port."""
    command = [sys.executable, __file__, "--serve", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.pid, int(process.stdout.readline())
        finally:
            process.terminate()


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def measure(
    scenario: str, pid: int, port: int, directory: pathlib.Path, *, clients: int, requests: int, mode: str, host: str = HOST
) -> Figure:
    """Run client processes side by side, each making `requests` calls."""
    command = [sys.executable, str(HERE / "lean_client.py"), host, str(port), str(directory), str(requests), mode]
    before = cpu_seconds(pid)
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(clients)]
    results = [json.loads(process.communicate()[0]) for process in processes]
    total = clients * requests
    latencies = sorted(latency for result in results for latency in result["latencies"])
    return Figure(
        scenario,
        total,
        cpu_ms=round((cpu_seconds(pid) - before) * 1000 / total, 3),
        per_second=round(total / max(result["seconds"] for result in results)),
        p50_ms=latencies[len(latencies) // 2] / 1000,
        p99_ms=latencies[len(latencies) * 99 // 100] / 1000,
        rss_mb=round(resident_mb(pid), 1),
    )


@contextlib.contextmanager
def idle_connections(port: int, directory: pathlib.Path, *, raw: int, established: int, host: str = HOST) -> Iterator[None]:
    """Connections that do nothing: some that never shake hands, some that did and now keep quiet."""
    context = lean_client.context(directory)
    with contextlib.ExitStack() as stack:
        for _ in range(raw):
            stack.enter_context(socket.create_connection((host, port)))
        for _ in range(established):
            sock = stack.enter_context(lean_client.connect((host, port), context))
            lean_client.exchange(sock, lean_client.request(host))
        yield


def run(requests: int, soak: int) -> list[Figure]:
    """All scenarios, one after another against one server."""
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        make_credentials(directory)
        with server_process(directory) as (pid, port):
            figures = [Figure("started", 0, 0, 0, 0, 0, round(resident_mb(pid), 1))]
            measure("warm-up", pid, port, directory, clients=2, requests=300, mode="keep")

            def add(scenario: str, clients: int, count: int, mode: str) -> None:
                figures.append(measure(scenario, pid, port, directory, clients=clients, requests=count, mode=mode))
                print(render(figures[-1]), flush=True)

            print(HEADER)
            print(render(figures[0]), flush=True)
            add("1 client, kept alive", 1, requests, "keep")
            add("4 clients, kept alive", 4, requests, "keep")
            add("1 client, new connection each", 1, requests // 4, "new")
            add("4 clients, new connection each", 4, requests // 4, "new")
            with idle_connections(port, directory, raw=200, established=200):
                add("4 clients, 200+200 idle", 4, requests, "keep")
            if soak:
                add("soak: first half", 4, soak // 8, "keep")
                add("soak: second half", 4, soak // 8, "keep")
    return figures


HEADER = f"{'scenario':32} {'requests':>9} {'CPU ms':>8} {'req/s':>7} {'p50 ms':>8} {'p99 ms':>8} {'RSS MB':>7}"


def render(figure: Figure) -> str:
    """A figure as a line of the table."""
    start = f"{figure.scenario:32} {figure.requests:9} {figure.cpu_ms:8.3f} {figure.per_second:7.0f}"
    return f"{start} {figure.p50_ms:8.2f} {figure.p99_ms:8.2f} {figure.rss_mb:7.1f}"


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures to this file")
    parser.add_argument("--requests", type=int, default=4000, help="per client and scenario (default %(default)s)")
    parser.add_argument("--soak", type=int, default=0, help="further requests, to see whether memory grows")
    parser.add_argument("--serve", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    figures = run(options.requests, options.soak)
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(figure) for figure in figures], indent=2) + "\n")


if __name__ == "__main__":
    main()
