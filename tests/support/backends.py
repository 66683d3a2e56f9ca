"""A node of a web hosting service for tests of its backends: a real runsvdir over a directory that the web user reaches."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import pathlib
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Iterator, Mapping

from conpaas.core import config, file, misc, paths, supervisor
from conpaas.services.webservers import spec
from conpaas.services.webservers.agent import backend, code, cron, sessions, web_user
from conpaas.services.webservers.workload import fastcgi
from tests.integration.node import conftest as runit

SECRET = "a-secret-of-this-test"


@dataclasses.dataclass
class Node:
    """One node and the roles of its agent; `restarted` gives the same node with a new agent."""

    root: pathlib.Path
    address: str
    private_address: str = ""

    def __post_init__(self) -> None:
        self.paths = paths.Paths.under(self.root)
        self.paths.create()
        self.config = config.Config(
            {"agent": {**self.paths.to_config(), "PRIVATE_IP": self.private_address}, "web": {"BACKEND_PORT": "9000"}}
        )
        self.notes = file.Notes(self.paths.lib / "web.json")
        self.supervisor = supervisor.Supervisor(self.paths.service, self.paths.log_dir)
        self.user = web_user.choose(self.paths, self.config)
        self.code = code.CodeStore(self.paths, self.user)
        self.backend = backend.BackendRole(self.paths, self.config, self.supervisor, self.address, self.notes)
        self.sessions = sessions.SessionRole(self.paths, self.config, self.supervisor, self.address, self.notes)
        self.cron = cron.CronRole(self.paths, self.config, self.supervisor, self.address, self.notes)

    def restarted(self) -> Node:
        return Node(self.root, self.address, self.private_address)

    def stage(self, version: str, files: Mapping[str, str | bytes]) -> None:
        """Put code on the node, as an archive that a manager sends."""
        with tempfile.TemporaryDirectory() as scratch:
            archive = pathlib.Path(scratch) / "code.tar"
            pack(archive, files)
            self.code.stage(version, archive, 1_700_000_000)

    def start(self, release: int, version: str, **settings: object) -> int:
        return self.backend.start(release, version, spec.BackendSettings(**settings))  # type: ignore[arg-type]

    def wait_for_another(self, daemon: str, pid: int) -> None:
        """Wait until a daemon has started again as another process; what finishes the former one is none."""

        def started() -> bool:
            status = self.supervisor.status(daemon)
            return status.running and status.pid != pid

        misc.wait_until(started, timeout=10, what=f"the respawn of {daemon}")

    def ask(self, port: int, version: str, script: str = "index.php", *, timeout: float = 20.0, **params: str) -> fastcgi.Answer:
        """What a proxy would ask a PHP backend."""
        path = self.code.directory / version / script
        known = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_FILENAME": str(path),
            "SCRIPT_NAME": f"/{script}",
            "REQUEST_URI": f"/{script}",
            "REMOTE_ADDR": "192.0.2.7",
            "QUERY_STRING": "",
            "SERVER_PROTOCOL": "HTTP/1.1",
        }
        return fastcgi.ask((self.private_address or self.address, port), {**known, **params}, timeout=timeout)


def pack(archive: pathlib.Path, files: Mapping[str, str | bytes]) -> None:
    with tarfile.open(archive, "w") as stream:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            stream.addfile(member, io.BytesIO(data))


@contextlib.contextmanager
def node(address: str, private_address: str = "") -> Iterator[Node]:
    """A node, gone with all its daemons at the end."""
    root = pathlib.Path(tempfile.mkdtemp(prefix="conpaas-web."))
    root.chmod(0o755)  # the web user works in there
    try:
        made = Node(root, address, private_address)
        process = runit.start_runsvdir(made.paths.service)
        try:
            yield made
        finally:
            for thread in [one for one in threading.enumerate() if one.name.startswith(("rotation", "end of"))]:
                thread.join(30)
            runit.end_runsvdir(process, made.paths.service)
    finally:
        shutil.rmtree(root)
