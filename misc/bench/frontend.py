"""What open pages of the web front-end cost, how soon they show a change, and how large and quick they are."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gzip
import os
import pathlib
import re
import statistics
import time
from collections.abc import Iterator
from typing import Any

import processes
from figure import Figure
from tests.support import platform as platforms
from tests.support.pages import Visitor

GROUPS = ("pages",)
PAGES = 200
SESSIONS = 10
CROWD = "crowd"
APP = "bench"
PATIENCE = 60.0


@dataclasses.dataclass
class Stage:
    """A platform with its front-end, one application with a running service, and people who are signed in."""

    platform: platforms.Platform
    site: str
    visitors: list[Visitor]
    aid: int
    manager: int
    frontend: int

    @property
    def director(self) -> int:
        assert self.platform.process is not None
        return self.platform.process.pid


def measure(directory: pathlib.Path, net: int, groups: list[str], quick: bool) -> list[Figure]:
    """Start a platform, measure, and remove the platform."""
    seconds = 15.0 if quick else 60.0
    with stage(directory, net) as made:
        figures = pages(made, 20 if quick else 100)
        for where, path in (("application", f"/apps/{made.aid}/live"), ("list of applications", "/apps/live")):
            figures += asyncio.run(open_pages(made, where, [path] * PAGES, seconds))
        figures.append(asyncio.run(delay(made, 5 if quick else 15)))
        figures += crowd(made, seconds)
    return figures


def crowd(made: Stage, seconds: float) -> list[Figure]:
    """The same with as many users as pages: each looks at the own list of applications, or at an own application."""
    people = [Visitor(made.site) for _ in range(PAGES)]
    try:
        own = [_newcomer(made, visitor, f"{CROWD}{number}") for number, visitor in enumerate(people)]
        every = dataclasses.replace(made, visitors=people)
        lists = asyncio.run(open_pages(every, f"own lists of {PAGES} users", ["/apps/live"] * PAGES, seconds))
        return lists + asyncio.run(open_pages(every, f"own applications of {PAGES} users", [f"/apps/{aid}/live" for aid in own], seconds))
    finally:
        for visitor in people:
            visitor.close()


def _newcomer(made: Stage, visitor: Visitor, name: str) -> int:
    """Make an account as the operator does, sign in with it; the application that it begins with."""
    operator = made.visitors[0]
    operator.get("/operator/users/new")
    shown = operator.post("/operator/users/new", username=name, email=f"{name}@example.org", credit="10", role="user")
    (password,) = re.findall(r"<dt>Password</dt><dd><div class=\"command\"><code>([\w-]+)</code>", shown.text)
    visitor.sign_in(name, password)
    return int(re.findall(r'href="/apps/(\d+)"', visitor.get("/apps").text)[0])


@contextlib.contextmanager
def stage(directory: pathlib.Path, net: int) -> Iterator[Stage]:
    """All of it, and its end."""
    with platforms.platform(directory, net, frontend={"ENABLED": "yes", "PORT": "8080"}) as platform:
        for words in (
            ("application", "create", APP),
            ("application", "start", APP),
            ("helloworld", "add", APP),
            ("service", "start", APP, "1"),
        ):
            platform.cps(*words)
        platform.run("cpsdirector", "user", "role", "alice", "operator")
        site = f"http://127.{net}.255.1:8080"
        platforms.until(lambda: _answers(site), "the front-end answers")
        visitors = [Visitor(site) for _ in range(SESSIONS)]
        for visitor in visitors:
            visitor.sign_in("alice", platform.passwords["alice"])
        aid = next(int(one["aid"]) for one in platform.data("application", "list") if one["name"] == APP)
        vm = next(vm for vm in platform.vms() if vm["role"] == "manager")
        manager = processes.daemon_of(platform.directory / "cloud" / "vms" / str(vm["vmid"]))
        assert platform.process is not None
        frontend = next(pid for pid in processes.tree(platform.process.pid) if _is_frontend(pid))
        yield Stage(platform, site, visitors, aid, manager, frontend)
        for visitor in visitors:
            visitor.close()


def _answers(site: str) -> bool:
    try:
        return Visitor(site).get("/health").status_code == 200
    except OSError:
        return False


def _is_frontend(pid: int) -> bool:
    return b"conpaas.frontend\0" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()


def _cpu(pid: int) -> float:
    """Seconds of CPU that all threads of a process have used."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# Streams


@contextlib.asynccontextmanager
async def _stream(made: Stage, visitor: Visitor, path: str) -> Any:
    host, _, port = made.site.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    cookies = "; ".join(f"{name}={value}" for name, value in visitor.cookies.items())
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nCookie: {cookies}\r\n\r\n".encode())
    try:
        await asyncio.wait_for(reader.readuntil(b"event: update"), PATIENCE)
        yield reader
    finally:
        writer.close()


async def _drain(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        continue


async def open_pages(made: Stage, where: str, paths: list[str], seconds: float) -> list[Figure]:
    """The CPU time of each process while 200 pages are open and nothing happens, in percent of one core."""
    async with contextlib.AsyncExitStack() as opened:
        readers = [
            await opened.enter_async_context(_stream(made, made.visitors[number % len(made.visitors)], path))
            for number, path in enumerate(paths)
        ]
        draining = [asyncio.create_task(_drain(reader)) for reader in readers]
        await asyncio.sleep(5.0)  # what opening them cost is not what they cost
        pids = {"Director": made.director, "manager": made.manager, "front-end": made.frontend}
        before, begun = {name: _cpu(pid) for name, pid in pids.items()}, time.monotonic()
        await asyncio.sleep(seconds)
        elapsed = time.monotonic() - begun
        used = {name: 100.0 * (_cpu(pid) - before[name]) / elapsed for name, pid in pids.items()}
        memory = processes.memory([made.frontend])
        for task in draining:
            task.cancel()
    parts = ", ".join(f"{name} {share:.1f} %" for name, share in used.items())
    found = [
        Figure(
            f"{PAGES} open pages, {where}: Director and manager",
            "pages",
            used["Director"] + used["manager"],
            "% of a core",
            15,
            notes=parts,
        ),
        Figure(f"{PAGES} open pages, {where}: front-end", "pages", used["front-end"], "% of a core", 15),
    ]
    if where == "application":
        found.append(
            Figure(
                f"memory of the front-end with {PAGES} open pages",
                "pages",
                memory.rss,
                "MB",
                150,
                notes=f"proportional {memory.pss:.1f} MB",
            )
        )
    return found


async def delay(made: Stage, times: int) -> Figure:
    """Seconds from a change by somebody else until an open page has it."""
    took = []
    async with _stream(made, made.visitors[0], f"/apps/{made.aid}/live") as reader:
        for number in range(times):
            adding = asyncio.to_thread(made.platform.cps, "service", "add", "helloworld", APP)
            watching = asyncio.create_task(asyncio.wait_for(reader.readuntil(f"services/{number + 2}".encode()), PATIENCE))
            await adding
            asked = time.monotonic()
            await watching
            took.append(max(0.0, time.monotonic() - asked))
    worst = max(took)
    return Figure(
        "change by somebody else → on an open page, worst",
        "pages",
        worst,
        "s",
        2.2,
        notes=f"{times} times, median {statistics.median(took):.2f} s",
    )


# Pages


def pages(made: Stage, times: int) -> list[Figure]:
    """How long the server takes for a page, and how much a browser that comes for the first time gets."""
    visitor, found = made.visitors[0], []
    for name, path in (("list of applications", "/apps"), ("application", f"/apps/{made.aid}")):
        took = []
        for _ in range(times):
            begun = time.monotonic()
            reply = visitor.get(path)
            took.append(time.monotonic() - begun)
        size = len(reply.content) + sum(len(visitor.get(address).content) for address in _linked(visitor, reply.text))
        p95 = sorted(took)[int(len(took) * 0.95)]
        found.append(Figure(f"page, {name}: p95", "pages", 1000 * p95, "ms", 300, notes=f"p50 {1000 * statistics.median(took):.0f} ms"))
        packed = len(gzip.compress(reply.content))
        found.append(
            Figure(
                f"page, {name}: all that is transferred",
                "pages",
                size / 1000,
                "KB",
                150,
                notes=f"the page {len(reply.content) / 1000:.1f} KB, {packed / 1000:.1f} packed",
            )
        )
    return found


def _linked(visitor: Visitor, text: str) -> set[str]:
    """The static files that a page makes a browser fetch, with what scripts import."""
    found = set(re.findall(r'(?:src|href)="(/static/[^"#]+)', text))
    for address in [address for address in found if address.endswith(".js")]:
        base = address.rpartition("/")[0]
        found |= {f"{base}/{name}" for name in re.findall(r'from "\./([^"]+)"', visitor.get(address).text)}
    for address in [address for address in found if address.endswith("live.js")]:
        base = address.rpartition("/")[0]
        found |= {f"{base}/{name}" for name in re.findall(r'from "\./([^"]+)"', visitor.get(address).text)}
    return found
