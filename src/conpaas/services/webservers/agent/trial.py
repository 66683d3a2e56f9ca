"""Trying a site before it is used: a short-lived nginx of the same configuration asks every backend, aside from the one that serves."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import html
import http.client
import logging
import os
import pathlib
import re
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any, Final

from conpaas.core import errors, file, misc
from conpaas.services.webservers import spec
from conpaas.services.webservers.agent import server
from conpaas.services.webservers.workload import nginx, nginx_config, sockets

log: Final = logging.getLogger(__name__)
NAME: Final = "nginx-trial"
READY_TIMEOUT: Final = 10.0
MAX_REASON: Final = 400

_STDERR: Final = re.compile(r'FastCGI sent in stderr: "(.*?)" while', re.DOTALL)
_FAILED: Final = re.compile(r"\[(?:error|crit|alert)\] \S+ (?:\*\d+ )?(.*?), client:")


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one server answered. `status` 0: nothing, which `reason` tells more of; `reason` is also given for a status from 400 on."""

    server: str
    status: int
    seconds: float
    reason: str


class Trial:
    """One trial of one configuration, in a directory of its own that is gone afterwards."""

    def __init__(self, place: server.Place, configuration: spec.ProxyConfig, *, root: pathlib.Path, files_only: bool) -> None:
        self._place = place
        self._configuration = configuration
        self._root = root
        self._backends = () if files_only else configuration.backends
        self._files_only = files_only
        names = [domain.name for domain in configuration.domains]
        self._host_name = names[0] if names else place.address

    def run(self, path: str, seconds: float) -> list[dict[str, Any]]:
        """Ask all servers at once for a path; each has `seconds` to answer."""
        spec.check_path("The health path", path)
        tries: list[Callable[[], Answer]] = [lambda one=one: self._ask_web(one, path, seconds) for one in self._configuration.web]  # type: ignore[misc]
        if not self._backends:
            return _all(tries, seconds)
        parent = self._place.run(NAME)
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent) as name:
            directory = pathlib.Path(name)
            process = self._start(directory)
            try:
                tries += [
                    lambda number=number, one=one: self._ask_backend(directory, number, one, path, seconds)  # type: ignore[misc]
                    for number, one in enumerate(self._backends)
                ]
                return _all(tries, seconds)
            finally:
                _end(process)

    # The nginx of the trial

    def _start(self, directory: pathlib.Path) -> subprocess.Popen[bytes]:
        host = dataclasses.replace(
            self._place.host(NAME),
            pid_file=directory / "pid",
            error_log=directory / "errors",
            access_log=None,
            timed_log=None,
            workers=1,
            connections=512,
        )
        configuration = dataclasses.replace(self._configuration, backends=tuple(self._backends))
        names = [f"{number}.sock" for number in range(len(self._backends))]
        proof = secrets.token_hex(8)
        text = nginx_config.trial(host, configuration, root=self._root, files_only=self._files_only, sockets=names)
        (directory / "nginx.conf").write_text(text.replace(nginx_config.PROOF, proof))
        host.directory.mkdir(parents=True, exist_ok=True)
        # It must not outlive an agent that is killed.
        words = [
            "setpriv",
            "--pdeathsig",
            "TERM",
            self._place.program,
            "-c",
            str(directory / "nginx.conf"),
            "-e",
            str(directory / "errors"),
        ]
        process = subprocess.Popen(
            words, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            misc.wait_until(
                lambda: process.poll() is not None or _answers(directory / host.socket), timeout=READY_TIMEOUT, what="its start"
            )
            if process.poll() is not None:
                raise errors.OperationFailed("it ended at once")
        except errors.OperationFailed as error:
            _end(process)
            said = nginx.emergencies(file.tail(directory / "errors", 4000))
            raise errors.OperationFailed(f"nginx refuses the configuration of this site: {said[-1] if said else error}") from error
        return process

    # Asking

    def _ask_backend(self, directory: pathlib.Path, number: int, one: spec.Upstream, path: str, seconds: float) -> Answer:
        began = time.monotonic()
        try:
            found = sockets.ask(directory / f"{number}.sock", path, headers={"Host": self._host_name}, timeout=seconds)
        except OSError as error:
            reason = f"no answer within {seconds:g} s" if isinstance(error, TimeoutError) else f"no answer: {error}"
            return Answer(one.address, 0, _since(began), reason)
        reason = self._reason(directory, one, found) if found.status >= 400 else ""
        return Answer(one.address, found.status, _since(began), reason)

    @staticmethod
    def _reason(directory: pathlib.Path, one: spec.Upstream, found: sockets.Answer) -> str:
        """What nginx or PHP said of this server, or else the text of the page."""
        lines = file.tail(directory / "errors", 64_000)
        mine = [line for line in re.split(r"\n(?=\d{4}/)", lines) if f"//{one.address}" in line]
        said = [match for line in mine for match in (_STDERR.findall(line) or _FAILED.findall(line))]
        if said:
            return _shortened(said[-1])
        page = found.body.decode("utf-8", "replace") if found.headers.get("content-type", "").startswith("text/") else ""
        text = re.sub(r"(?is)<(script|style|head)\b.*?</\1>|<[^>]*>", " ", page)
        return _shortened(html.unescape(text)) or http.client.responses.get(found.status, "")

    def _ask_web(self, one: spec.Upstream, path: str, seconds: float) -> Answer:
        """A web server need not have the path, but the version."""
        began = time.monotonic()
        version = self._configuration.code_version
        connection = http.client.HTTPConnection(one.ip, one.port, timeout=seconds)
        try:
            connection.request("HEAD", path, headers={"Host": version})
            answer = connection.getresponse()
            has_it = answer.getheader("X-Code-Version") == version and answer.status < 500
        except (OSError, http.client.HTTPException) as error:
            return Answer(one.address, 0, _since(began), f"no answer: {error}")
        finally:
            connection.close()
        if has_it:
            return Answer(one.address, 200, _since(began), "")
        return Answer(one.address, 404, _since(began), f"this web server does not serve the code version {version}")


def _all(tries: list[Callable[[], Answer]], seconds: float) -> list[dict[str, Any]]:
    """Do everything at once. Each ends by its own time limit, but for one that answers byte by byte."""
    if not tries:
        return []
    pool = concurrent.futures.ThreadPoolExecutor(len(tries), thread_name_prefix="trial")
    try:
        return [dataclasses.asdict(one.result(timeout=2 * seconds + 5)) for one in [pool.submit(one) for one in tries]]
    except TimeoutError as error:
        raise errors.OperationFailed(f"A server did not end its answer within {2 * seconds + 5:g} seconds.") from error
    finally:
        pool.shutdown(wait=False)


def _answers(socket: pathlib.Path) -> bool:
    try:
        return sockets.ask(socket, "/in-force").status == 200
    except OSError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the nginx of a trial, its worker too."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_REASON else line[: MAX_REASON - 1] + "…"
