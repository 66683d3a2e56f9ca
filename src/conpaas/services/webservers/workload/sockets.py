"""HTTP over Unix sockets whose directories may lie deep: the address of a socket holds 108 bytes, so the way leads over a descriptor."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import os
import pathlib
import socket
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Answer:
    """An HTTP answer; of the body as much as was asked for."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: pathlib.Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock.connect(f"/proc/self/fd/{directory}/{self._path.name}")
        except BaseException:
            self.sock.close()
            raise
        finally:
            os.close(directory)


def ask(path: pathlib.Path, target: str, *, headers: Mapping[str, str] | None = None, timeout: float = 2.0, limit: int = 65_536) -> Answer:
    """GET `target` from the server that listens on the socket `path`. Raises OSError when there is no answer in time, or none in HTTP."""
    with contextlib.closing(_Connection(path, timeout)) as connection:
        try:
            connection.request("GET", target, headers={"Connection": "close", **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read(limit))
        except http.client.HTTPException as error:
            raise OSError(f"no answer in HTTP: {error!r}") from error
