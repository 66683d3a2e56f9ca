"""Every figure that ConPaaS promises, measured and compared with its target.

    misc/bench/run [--json FILE] [--only GROUP…] [--quick]

A platform of its own is started for it, in a temporary directory and on loopback addresses that nothing else uses, and is removed in the
end. docs/reference/figures.md tells how each figure is measured.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import pathlib
import platform
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import frontend
import manager as simulated
import mysql
import on_platform
import web
from figure import Figure

HERE = pathlib.Path(__file__).parent
GROUPS = ("scale", *on_platform.GROUPS, *web.GROUPS, *mysql.GROUPS, *frontend.GROUPS)


def machine() -> dict[str, Any]:
    """What this was measured on, and how busy it was with other things."""
    words = [line.partition(":") for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()]
    models = [value.strip() for key, _, value in words if key.strip() == "model name"]
    return {
        "cores": os.cpu_count(),
        "processor": models[0] if models else platform.machine(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "begun": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }


def scale(quick: bool) -> list[Figure]:
    """What a manager's operations cost per node, with 10 and with 1,000 simulated nodes; each in a process of its own, median of three."""
    sizes = (10, 1000)
    runs: dict[int, list[dict[str, Any]]] = {size: [] for size in sizes}
    for _ in range(1 if quick else 3):
        for size in sizes:
            command = [sys.executable, simulated.__file__, "--json", "--nodes", str(size)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            runs[size].append(json.loads(done.stdout)["rows"][0])
    found = []
    for operation in ("add", "remove", "watch"):
        name = f"{operation}_ms_per_node"
        few, many = (sorted(run[name] for run in runs[size])[len(runs[size]) // 2] for size in sizes)
        notes = f"{few:.2f} ms of CPU per node of 10, {many:.2f} ms per node of 1,000"
        found.append(Figure(f"operation on simulated nodes: {operation}, 1,000 : 10", "scale", many / few, "×", 1.3, notes=notes))
    return found


def table(figures: list[Figure]) -> str:
    """The figures, one a line."""
    width = max(len(figure.name) for figure in figures)
    lines = [f"{'figure':{width}}  {'measured':>12}  {'target':>12}  {'ratio':>5}  verdict"]
    group = ""
    for figure in figures:
        if figure.group != group:
            group = figure.group
            lines.append(f"--- {group}")
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        lines.append(
            f"{figure.name:{width}}  {figure.shown:>12}  {figure.shown_target:>12}  {ratio:>5}  {figure.verdict}  {figure.notes}".rstrip()
        )
    return "\n".join(lines)


def main() -> int:
    """Measure what was asked for; the exit code is 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="misc/bench/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="also write the figures to this file")
    parser.add_argument("--only", nargs="+", choices=GROUPS, metavar="GROUP", help=f"some of: {' '.join(GROUPS)}")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions and 10,000 requests for the memory instead of 100,000")
    parser.add_argument("--net", type=int, default=89, help="use addresses 127.NET.0.0/16 (default %(default)s)")
    parser.add_argument(
        "--directory", type=pathlib.Path, help="where to keep the platform meanwhile (default: the system's temporary directory)"
    )
    options = parser.parse_args()
    wanted = options.only or GROUPS
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the platform is removed then, too
    about = machine()
    print(
        "machine: {cores} × {processor}, {memory_gb} GB, Linux {kernel}, Python {python}, load before {load_before:.2f}".format(**about),
        flush=True,
    )
    figures = scale(options.quick) if "scale" in wanted else []
    on_it = [group for group in on_platform.GROUPS if group in wanted]
    if on_it:
        with tempfile.TemporaryDirectory(prefix="conpaas-bench-", dir=options.directory) as directory:
            figures += on_platform.measure(pathlib.Path(directory), options.net, on_it, options.quick)
    of_sites = [group for group in web.GROUPS if group in wanted]
    if of_sites:
        with tempfile.TemporaryDirectory(prefix="conpaas-bench-", dir=options.directory) as directory:
            figures += web.measure(pathlib.Path(directory), options.net, of_sites, options.quick)
    of_databases = [group for group in mysql.GROUPS if group in wanted]
    if of_databases:
        with tempfile.TemporaryDirectory(prefix="conpaas-bench-", dir=options.directory) as directory:
            figures += mysql.measure(pathlib.Path(directory), options.net, of_databases, options.quick)
    if set(frontend.GROUPS) & set(wanted):
        with tempfile.TemporaryDirectory(prefix="conpaas-bench-", dir=options.directory) as directory:
            figures += frontend.measure(pathlib.Path(directory), options.net, list(frontend.GROUPS), options.quick)
    print(table(figures))
    missed = [figure for figure in figures if figure.verdict == "MISSED"]
    if options.json:
        document = {"machine": about, "figures": [figure.to_dict() for figure in figures]}
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
