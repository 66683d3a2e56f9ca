"""What users have on the nodes of a service, which no death of ours may touch: uploaded code, programs that run, sites that answer."""

from __future__ import annotations

import collections
import contextlib
import io
import json
import os
import pathlib
import signal
import tarfile
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from tests.support import consistency, databases, load, sites
from tests.support import platform as platforms

DAEMON, WORK = "86398", "86399"
"""Seconds that the daemon left by init.sh and the work of run.sh sleep; nobody else's arguments."""


class Stage(Protocol):
    """What is needed of the service under test."""

    platform: platforms.Platform
    type: str
    sid: str

    def of_type(self, verb: str, *words: str) -> platforms.Result:
        """Run a command of the service's type, on the service."""

    def data(self, verb: str, *words: str) -> Any:
        """The JSON output of such a command."""

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes in service."""

    def addresses(self) -> set[str]:
        """Their addresses."""

    def state(self) -> str:
        """The state of the service."""

    def kinds(self) -> list[str]:
        """The kinds of its operations on record, newest first."""


class Users:
    """The users of a service of any type: they run nothing of their own."""

    def prepare(self, stage: Stage) -> None:
        """Called when the service was added and has no nodes."""

    def move_in(self, stage: Stage) -> None:
        """Called when the service has the nodes that the operation to come finds."""

    def work(self, stage: Stage) -> None:
        """Called to have something run on all nodes that must be ended in order, if the type has such a thing."""

    @contextlib.contextmanager
    def meanwhile(self, stage: Stage) -> Iterator[None]:
        """Lasts as long as somebody dies in an operation of which users must notice nothing."""
        yield

    def check(self, stage: Stage) -> None:
        """Called in the end: all is as if nobody had died."""


class Coders(Users):
    """They upload code, which must still be there in the end."""

    def __init__(self) -> None:
        self.uploaded: dict[str, pathlib.Path] = {}
        """The archives by the ids of their code versions."""

    def prepare(self, stage: Stage) -> None:
        self.upload(stage, _archive(stage.platform))

    def upload(self, stage: Stage, archive: pathlib.Path) -> str:
        """The id of the new code version."""
        version = str(stage.data("upload_code", str(archive))["codeVersionId"])
        self.uploaded[version] = archive
        return version

    def check(self, stage: Stage) -> None:
        for version, archive in self.uploaded.items():
            found = stage.platform.directory / f"downloaded-{archive.name}"
            stage.of_type("download_code", "--version", version, "--to", str(found))
            assert found.read_bytes() == archive.read_bytes()


class Programmers(Coders):
    """Users of generic services: init.sh leaves a daemon on every node, run.sh works until interrupt.sh comes."""

    def __init__(self) -> None:
        super().__init__()
        self.worked: set[str] = set()

    def prepare(self, stage: Stage) -> None:
        super().prepare(stage)
        stage.of_type("enable_code", *self.uploaded)

    def work(self, stage: Stage) -> None:
        stage.of_type("run")
        self.worked = stage.addresses()
        platforms.until(lambda: self.worked <= _told(stage.platform, "ran").keys(), "run.sh works on all nodes")

    def check(self, stage: Stage) -> None:
        super().check(stage)
        nodes = stage.addresses()
        ran, interrupted = _told(stage.platform, "ran"), _told(stage.platform, "interrupted")
        for ip in self.worked:
            assert (ran[ip], interrupted[ip]) == (1, int(ip not in nodes)), f"run.sh and interrupt.sh on {ip}: {ran[ip], interrupted[ip]}"
        for ip in nodes:
            running = running_on(stage.platform, ip)
            assert [what for what, _ in running].count(DAEMON) == 1, f"programs on {ip}: {running}"
            assert _members(stage.platform, ip) == nodes, f"members known at {ip}, not {nodes}: {_members(stage.platform, ip)}"


class Visitors(Coders):
    """Users of web sites: a first version is enabled, and whoever visits the site gets it; all proxies agree."""

    files: Mapping[str, str] = {
        "index.php": "<?php echo 'version {}';",
        "public/index.php": "<?php echo 'version {} of public';",
    }
    suffix = ".tar.gz"
    backend = "php-fpm: master"
    """How the command line of a backend begins, or its program's name."""

    def __init__(self) -> None:
        super().__init__()
        self.expected = "version one"
        """The page after the operation."""
        self.legal = {self.expected}

    def prepare(self, stage: Stage) -> None:
        stage.of_type("enable_code", self.upload(stage, _site(stage, "one", self.files, self.suffix)))

    def bring_second(self, stage: Stage) -> str:
        """Upload the version that the operation to come will enable; its id."""
        self.expect("version two")
        return self.upload(stage, _site(stage, "two", self.files, self.suffix))

    def expect(self, page: str) -> None:
        """The operation to come changes the site to this."""
        self.expected = page
        self.legal.add(page)

    @contextlib.contextmanager
    def meanwhile(self, stage: Stage) -> Iterator[None]:
        """No request fails, whatever dies; each gets the site as it was or as it shall be."""
        target = load.Target(good=lambda status, body: status == 200 and body.decode() in self.legal)
        with contextlib.ExitStack() as stack:
            outcomes = [stack.enter_context(load.steady(address, target, rate=20)) for address in _proxies(stage)]
            yield
        assert outcomes
        for outcome in outcomes:
            assert outcome.sent and not outcome.failures, outcome.told()

    def check(self, stage: Stage) -> None:
        super().check(stage)
        if stage.state() != "RUNNING":
            return
        proxies = _proxies(stage)
        pages = {sites.Visitor(f"http://{ip}:{port}").ask().body for ip, port in proxies}
        assert pages == {self.expected}, f"pages of {proxies}"
        platforms.until(
            lambda: self._daemons(stage) == self._wanted(stage), f"only {self._wanted(stage)} run, not {self._daemons(stage)}", 20
        )

    def _wanted(self, stage: Stage) -> dict[str, collections.Counter[str]]:
        """The daemons on each node that its roles want; session stores are on no node in particular."""
        found: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        for one in stage.nodes():
            found[one["ip"]][self.backend if one["role"] == "backend" else "nginx: master"] += 1
        return found

    def _daemons(self, stage: Stage) -> dict[str, collections.Counter[str]]:
        kinds = (self.backend, "nginx: master")
        found = {}
        for ip in stage.addresses():
            programs = [consistency.command_of(pid)[0] for pid in consistency.processes_of(stage.platform, ip)]
            found[ip] = collections.Counter(kind for one in programs for kind in kinds if one.startswith(kind) or one.endswith(f"/{kind}"))
        return found


class JavaVisitors(Visitors):
    """The same for a site in Java, whose page comes from Tomcat."""

    files: Mapping[str, str] = {"index.html": "version {}", "WEB-INF/web.xml": "<web-app/>"}
    suffix = ".war"
    backend = "java"


class Keepers(Users):
    """They keep a text on the disk of every node, which is that of the first node that had the disk."""

    def check(self, stage: Stage) -> None:
        where = sorted(str(one["agent_id"]) for one in stage.data("list_volumes"))
        if stage.state() != "RUNNING":
            assert set(where) <= {"(spare)"}, f"there are no nodes to have these disks: {where}"
            return
        texts: dict[str, str] = stage.data("read")
        assert where == sorted(texts), f"disks are at {where}, nodes are {sorted(texts)}"
        assert len(set(texts.values())) == len(texts), f"each has its own: {texts}"
        replaced = any(kind == "replace_node" for kind in stage.kinds())
        inherited = [one for one, text in texts.items() if text != f"since {one}"]
        assert len(inherited) == replaced, f"whoever takes the place of a lost node has its disk, and nobody else: {texts}"


class Clerks(Users):
    """Users of a MySQL service: what they have written all members have, in one cluster."""

    def __init__(self) -> None:
        self.wrote = False

    def move_in(self, stage: Stage) -> None:
        for statement in (
            "CREATE DATABASE office",
            "CREATE TABLE office.files (text VARCHAR(9) PRIMARY KEY)",
            "INSERT office.files VALUES ('paper')",
        ):
            databases.ask(stage.platform, min(stage.addresses()), statement)
        self.wrote = True

    def check(self, stage: Stage) -> None:
        if stage.state() != "RUNNING":
            return
        nodes = stage.addresses()
        platforms.until(lambda: stage.data("info")["cluster"]["healthy"], f"the cluster is well, not {stage.data('info')}")
        known = {databases.ask(stage.platform, ip, "SHOW STATUS LIKE 'wsrep_cluster_s%'") for ip in nodes}
        assert len(known) == 1, f"members are in one cluster: {known}"
        assert dict(known.pop())["wsrep_cluster_size"] == str(len(nodes))
        if self.wrote:
            assert {databases.ask(stage.platform, ip, "SELECT text FROM office.files") for ip in nodes} == {(("paper",),)}
        if "configure" in stage.kinds():
            assert {databases.ask(stage.platform, ip, "SELECT @@max_connections, @@back_log") for ip in nodes} == {((123, 99),)}


BY_TYPE: dict[str, type[Users]] = {"generic": Programmers, "php": Visitors, "java": JavaVisitors, "keeper": Keepers, "mysql": Clerks}


def freeze_server(platform: platforms.Platform, address: str, until: Callable[[], bool]) -> None:
    """The database server of this VM stands still until something is true."""
    pid = databases.server_of(platform, address)
    os.kill(pid, signal.SIGSTOP)
    try:
        platforms.until(until, f"somebody notices that the server on {address} stands still")
    finally:
        os.kill(pid, signal.SIGCONT)


def running_on(platform: platforms.Platform, address: str) -> list[tuple[str, int]]:
    """What of these programs runs in the VM that has this address: DAEMON or WORK, and the process."""
    found = [(consistency.command_of(pid)[:2], pid) for pid in set(consistency.processes_of(platform, address))]
    return [(words[1], pid) for words, pid in found if words in (["sleep", DAEMON], ["sleep", WORK])]


def _members(platform: platforms.Platform, address: str) -> set[str]:
    """The addresses that a node of a generic service takes for its service's."""
    (path,) = consistency.vm_of(platform, address).glob("root/var/cache/**/agents.json")
    return {one["ip"] for one in json.loads(path.read_text())}


def _told(platform: platforms.Platform, script: str) -> collections.Counter[str]:
    """How often the script was begun, by node's address."""
    path = platform.directory / script
    return collections.Counter(path.read_text().splitlines() if path.exists() else ())


def _archive(platform: platforms.Platform) -> pathlib.Path:
    path = platform.directory / "programs.tar"
    if not path.exists():
        scripts = {
            "init.sh": f"setsid sleep {DAEMON} </dev/null >/dev/null 2>&1 &\n",
            "run.sh": f'echo "$MY_IP" >>{platform.directory}/ran\nexec sleep {WORK}\n',
            "interrupt.sh": f'echo "$MY_IP" >>{platform.directory}/interrupted\n',
        }
        with tarfile.open(path, "w") as archive:
            for name, text in scripts.items():
                member = tarfile.TarInfo(name)
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
    return path


def _site(stage: Stage, name: str, files: Mapping[str, str], suffix: str) -> pathlib.Path:
    path = stage.platform.directory / f"{stage.type}-{name}{suffix}"
    return path if path.exists() else sites.archive(path, {file: text.replace("{}", name) for file, text in files.items()})


def _proxies(stage: Stage) -> list[tuple[str, int]]:
    """The addresses of all proxies of a site; the names of domains lead nowhere in tests."""
    parts = [urllib.parse.urlsplit(url) for url in stage.data("open")]
    return [(str(one.hostname), one.port or 80) for one in parts if str(one.hostname).startswith("127.")]
