"""Watching the servers behind a proxy: who is asked and gives no answer gets no requests until it answers again."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import logging
import pathlib
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from conpaas.core import errors

log: Final = logging.getLogger(__name__)

INTERVAL: Final = 0.4
"""Seconds between two rounds, from beginning to beginning."""
TIMEOUT: Final = 0.6
"""Seconds a server has to answer. With two failures needed, a frozen one is found within 1.6 s."""
FAILURES: Final = 2
SUCCESSES: Final = 2
MAX_SUCCESSES: Final = 32
CALM: Final = 60.0
"""Seconds a server must have been in for its return to be as easy as the first time."""

PATH: Final = "/.conpaas/health"
PHP_PATH: Final = "/.conpaas/fpm-ping"
_UNHEALTHY: Final = (b"503",)
_RECORD: Final = struct.Struct(">BBHHBx")


class Verdict(enum.Enum):
    """What became of asking a server. DEAD: nobody listens; SLOW: no sound answer, or not in time."""

    GOOD = "good"
    SLOW = "slow"
    DEAD = "dead"


class Protocol(enum.Enum):
    """How a server is asked."""

    HTTP = "http"
    FASTCGI = "fastcgi"


@dataclasses.dataclass(frozen=True)
class Target:
    """A server to be asked, by its Unix socket if it has one. Servers of one `group` do the same work."""

    ip: str
    port: int
    address: str
    group: str
    protocol: Protocol
    socket: pathlib.Path | None = None


@dataclasses.dataclass
class _Record:
    out: bool = False
    bad: int = 0
    good: int = 0
    needed: int = SUCCESSES
    returned: float = -CALM
    last: Verdict = Verdict.GOOD


class Judge:
    """Decides, for the servers of one group, which are left out."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    def hear(self, verdicts: Mapping[str, Verdict], now: float) -> frozenset[str]:
        """Take in the verdicts of one round; returns the addresses that are left out.

        A dead server is left out at once, a slow one after two failures; it comes back after two good answers, and after more of them
        if it keeps failing. When more than half of the servers are slow they all have too much to do, and stay. Somebody always stays.
        """
        self._records = {address: self._records.get(address, _Record()) for address in verdicts}
        for address, verdict in verdicts.items():
            _count(self._records[address], verdict, now)
        out = {address for address, record in self._records.items() if record.out}
        slow = {address for address in out if self._records[address].last is not Verdict.DEAD}
        struggling = sum(1 for verdict in verdicts.values() if verdict is Verdict.SLOW)
        if 2 * struggling > len(verdicts) or len(out) == len(verdicts):
            out -= slow
        return frozenset(out) if len(out) < len(verdicts) else frozenset()


def _count(record: _Record, verdict: Verdict, now: float) -> None:
    record.last = verdict
    if verdict is Verdict.GOOD:
        record.bad = 0
        record.good += 1
        if record.out and record.good >= record.needed:
            record.out = False
            record.returned = now
        return
    record.good = 0
    record.bad += FAILURES if verdict is Verdict.DEAD else 1
    if not record.out and record.bad >= FAILURES:
        record.out = True
        record.needed = SUCCESSES if now - record.returned >= CALM else min(2 * record.needed, MAX_SUCCESSES)


class Watch:
    """A thread that asks `targets()` in rounds and tells `changed` the addresses to be left out, whenever they differ from before."""

    def __init__(self, targets: Callable[[], Sequence[Target]], changed: Callable[[frozenset[str]], None]) -> None:
        self._targets = targets
        self._changed = changed
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._judges: dict[str, Judge] = {}
        self._told: frozenset[str] = frozenset()

    def start(self) -> None:
        """Begin to ask, if that has not begun."""
        if self._thread is None or not self._thread.is_alive():
            self._ending.clear()
            self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ask no more, and forget what was heard and told: whoever starts this again begins with nobody left out.

        Must not be called while a lock is held that `changed` takes.
        """
        self._ending.set()
        if self._thread is not None:
            self._thread.join(timeout=30)
        self._judges, self._told = {}, frozenset()

    def _run(self) -> None:
        while not self._ending.is_set():
            began = time.monotonic()
            try:
                self._round()
            except (errors.ConPaaSError, OSError) as error:
                log.error("the servers behind the proxy cannot be watched, which is tried again: %s", error)
            except Exception:  # nobody would begin to watch again
                log.exception("the servers behind the proxy cannot be watched, which is tried again")
            self._ending.wait(max(0.05, INTERVAL - (time.monotonic() - began)))

    def _round(self) -> None:
        targets = self._targets()
        verdicts = dict(zip(targets, asyncio.run(ask_all(targets)), strict=True)) if targets else {}
        out: frozenset[str] = frozenset()
        for group in {target.group for target in targets}:
            judge = self._judges.setdefault(group, Judge())
            heard = {target.address: verdict for target, verdict in verdicts.items() if target.group == group}
            out |= judge.hear(heard, time.monotonic())
        if out == self._told or self._ending.is_set():
            return
        for address in out - self._told:
            log.warning("the server %s does not answer and gets no requests", address)
        for address in self._told - out:
            log.info("the server %s gets requests again", address)
        self._changed(out)
        self._told = out


async def ask_all(targets: Sequence[Target]) -> list[Verdict]:
    """Ask all at once."""
    return list(await asyncio.gather(*(ask(target) for target in targets)))


async def ask(target: Target, timeout: float = TIMEOUT) -> Verdict:
    """Ask one server; it has `timeout` seconds for everything."""
    try:
        async with asyncio.timeout(timeout):
            try:
                reader, writer = await _connect(target)
            except OSError:
                return Verdict.DEAD
            try:
                return await _converse(target, reader, writer)
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):  # of endless lines asyncio says that they are no value
        return Verdict.SLOW


async def _connect(target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if target.socket is not None:
        return await asyncio.open_unix_connection(target.socket)
    return await asyncio.open_connection(target.ip, target.port)


async def _converse(target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Verdict:
    if target.protocol is Protocol.FASTCGI:
        writer.write(_FASTCGI_PING)
        head = await reader.read(8)
        return Verdict.GOOD if head[:1] == b"\1" else Verdict.SLOW
    writer.write(f"GET {PATH} HTTP/1.0\r\nConnection: close\r\n\r\n".encode())
    words = (await reader.readline()).split()
    sound = len(words) > 1 and words[0].startswith(b"HTTP/") and words[1] not in _UNHEALTHY
    return Verdict.GOOD if sound else Verdict.SLOW


def _fastcgi(params: Mapping[str, str]) -> bytes:
    """A FastCGI request without a body; names and values shorter than 128 bytes."""
    pairs = b"".join(bytes([len(name), len(value)]) + name.encode() + value.encode() for name, value in params.items())
    records = [(1, b"\0\1\0\0\0\0\0\0"), (4, pairs), (4, b""), (5, b"")]
    return b"".join(_RECORD.pack(1, kind, 1, len(content), 0) + content for kind, content in records)


_FASTCGI_PING: Final = _fastcgi({"REQUEST_METHOD": "GET", "SCRIPT_NAME": PHP_PATH, "SCRIPT_FILENAME": PHP_PATH})
