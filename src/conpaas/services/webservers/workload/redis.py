"""Redis as a store of sessions, and just as much of its protocol as filling one store from another takes."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import pathlib
import socket
from collections.abc import Iterable, Iterator
from typing import Any, Final

from conpaas.core import errors, file, misc, rendering, supervisor
from conpaas.services.webservers import workload
from conpaas.services.webservers.workload import launch

_START_TIMEOUT: Final = 30.0
"""Seconds; a store that holds much reads its log first."""
_BATCH: Final = 500
# A value is "<counter> <content>"; the one with the higher counter is the newer.
_MERGE: Final = """
local counter = function(value) return tonumber(string.match(value or '', '^(%d+) ')) or 0 end
if counter(ARGV[1]) > counter(redis.call('get', KEYS[1])) then return redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[2]) end
return 0
"""


@dataclasses.dataclass(frozen=True)
class Store:
    """A store on this node. `memory` in MB; `directory` is private to it."""

    name: str
    directory: pathlib.Path
    ip: str
    port: int
    secret: str
    memory: int
    user: str | None = None


class Redis:
    """What to do with the redis-server at `program`."""

    def __init__(self, program: str) -> None:
        self._program = program

    def prepare(self, store: Store) -> supervisor.Daemon:
        """Write the configuration of a store; returns the daemon to run."""
        store.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        launch.give(store.directory, store.user)
        configuration = store.directory / "redis.conf"
        file.write_atomically(configuration, render(store), mode=0o600)
        launch.give(configuration, store.user)
        return supervisor.Daemon(
            name=store.name, argv=(self._program, str(configuration)), cwd=store.directory, user=store.user, stop_timeout=20.0
        )

    def wait_ready(self, store: Store) -> None:
        """Return once the store has read its log and answers. Raises OperationFailed."""
        misc.wait_until(lambda: answers(store), timeout=_START_TIMEOUT, what=f"An answer of the session store on port {store.port}")


def render(store: Store) -> str:
    """The configuration of a store."""
    return rendering.render(
        workload.PACKAGE, "redis.conf.j2", ip=store.ip, port=store.port, secret=store.secret, directory=store.directory, memory=store.memory
    )


def answers(store: Store) -> bool:
    """Whether a store takes requests."""
    with contextlib.suppress(OSError, errors.OperationFailed), Client(store.ip, store.port, store.secret, timeout=2.0) as client:
        return client.call("PING") == b"PONG"
    return False


def merge(source: Client, target: Client) -> int:
    """Copy from one store to another every session that is newer there, with the time it has left; returns how many were looked at.

    May be repeated, and both may be in use meanwhile.
    """
    seen = 0
    cursor = b"0"
    while True:
        cursor, keys = source.call("SCAN", cursor, "MATCH", "s:*", "COUNT", str(_BATCH))
        if keys:
            values = source.call("MGET", *keys)
            left = source.pipeline([("PTTL", key) for key in keys])
            found = zip(keys, values, left, strict=True)
            target.pipeline([("EVAL", _MERGE, "1", key, value, str(time)) for key, value, time in found if value is not None and time > 0])
            seen += len(keys)
        if cursor == b"0":
            return seen


class Client:
    """A connection to a store. Raises OSError when it breaks, OperationFailed for an error that the store answers."""

    def __init__(self, ip: str, port: int, secret: str, *, timeout: float = 10.0) -> None:
        self._socket = socket.create_connection((ip, port), timeout=timeout)
        self._stream = self._socket.makefile("rb")
        try:
            self.call("AUTH", secret)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def call(self, *words: str | bytes) -> Any:
        return self.pipeline([words])[0]

    def pipeline(self, commands: Iterable[tuple[str | bytes, ...]]) -> list[Any]:
        """The answers to several commands, sent together."""
        waiting = list(commands)
        for some in _batches(waiting, _BATCH):
            self._socket.sendall(b"".join(_encoded(words) for words in some))
        answers = [self._read() for _ in waiting]
        for answer in answers:
            if isinstance(answer, errors.OperationFailed):
                raise answer
        return answers

    def _read(self) -> Any:
        line = self._stream.readline()
        if not line.endswith(b"\r\n"):
            raise OSError("the session store closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            return errors.OperationFailed(f"The session store refused: {rest.decode(errors='replace')}")
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self._stream.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self._read() for _ in range(int(rest))]
        return rest


def _encoded(words: tuple[str | bytes, ...]) -> bytes:
    parts = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
