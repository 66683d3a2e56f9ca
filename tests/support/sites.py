"""Web sites for tests: archives of code, a service that serves them, and what a visitor gets."""

from __future__ import annotations

import dataclasses
import http.client
import io
import pathlib
import tarfile
import urllib.parse
import zipfile
from collections.abc import Mapping
from typing import Any

from tests.support import platform as platforms


def archive(path: pathlib.Path, files: Mapping[str, str | bytes]) -> pathlib.Path:
    """Write an archive of these files at `path`: a zip if it is called .zip or .war, else a compressed tar."""
    if path.suffix in (".zip", ".war"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in files.items():
                packed.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz") as packed_tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            packed_tar.addfile(member, io.BytesIO(data))
    return path


@dataclasses.dataclass
class Reply:
    """What a visitor got."""

    status: int
    body: str
    headers: dict[str, str]
    cookies: dict[str, str]


class Visitor:
    """A browser without a window: keeps cookies, follows no redirects."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self.address = (str(parts.hostname), parts.port or 80)
        self.cookies: dict[str, str] = {}

    def ask(self, path: str = "/", method: str = "GET", body: str | bytes | None = None, **headers: str) -> Reply:
        """One request on a connection of its own. Underscores in names of headers become dashes."""
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
            for line in answer.headers.get_all("Set-Cookie") or []:
                name, _, value = line.split(";")[0].partition("=")
                self.cookies[name.strip()] = value.strip()
            return Reply(answer.status, text, {name.lower(): value for name, value in answer.headers.items()}, dict(self.cookies))
        finally:
            connection.close()


class Site:
    """A web service of one application, through the command line."""

    def __init__(self, platform: platforms.Platform, app: str, kind: str = "php") -> None:
        self.platform, self.app, self.kind = platform, app, kind
        before = self._ids()
        platform.cps(kind, "add", app)
        (new,) = self._ids() - before
        self.sid = str(new)

    def _ids(self) -> set[int]:
        return {one["sid"] for one in self.platform.data("service", "list", "-a", self.app)}

    def cps(self, verb: str, *words: str | pathlib.Path, check: bool = True) -> platforms.Result:
        """A command on this service, with an answer to whatever it asks."""
        return self.platform.cps("--yes", self.kind, verb, self.app, self.sid, *words, check=check)

    def data(self, verb: str, *words: str) -> Any:
        return self.platform.data(self.kind, verb, self.app, self.sid, *words)

    def upload(self, path: pathlib.Path) -> str:
        return str(self.data("upload_code", str(path))["codeVersionId"])

    def deploy(self, path: pathlib.Path) -> str:
        """Upload and enable; the version's id."""
        version = self.upload(path)
        self.cps("enable_code", version)
        return version

    @property
    def state(self) -> str:
        return next(str(one["status"]) for one in self.platform.data("service", "list", "-a", self.app) if str(one["sid"]) == self.sid)

    @property
    def url(self) -> str:
        return str(self.data("open")[0])

    def visitor(self) -> Visitor:
        return Visitor(self.url)

    def nodes(self) -> dict[str, set[str]]:
        """Ids of nodes by role."""
        found: dict[str, set[str]] = {}
        for row in self.data("list_nodes"):
            found.setdefault(row["role"], set()).add(row["agent_id"])
        return found

    def vm_directory(self, node: str) -> pathlib.Path:
        """The directory of a node's VM on the dummy cloud."""
        vm = next(vm for vm in self.platform.vms() if node.endswith(str(vm["vmid"])))
        return self.platform.directory / "cloud" / "vms" / str(vm["vmid"])

    def stop(self) -> None:
        self.cps("stop")
        self.cps("remove")
