"""A steady load on a web site, and what came of it: every request that failed, and how long the others took.

The client behaves as browsers and HTTP libraries do: it keeps connections, and a request for which a kept connection turns out to have been
closed by the server is sent once more on a new one if it changes nothing (RFC 9110, section 9.2.2). Nothing else is repeated.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import ssl
import threading
import time
from collections.abc import Callable, Iterator

IDEMPOTENT = ("GET", "HEAD")


@dataclasses.dataclass
class Target:
    """What is asked for: one request, and what a good answer is."""

    path: str = "/"
    method: str = "GET"
    host: str = ""
    body: bytes = b""
    headers: str = ""
    good: Callable[[int, bytes], bool] = lambda status, body: status == 200


@dataclasses.dataclass
class Failure:
    """A request that got no good answer. `at`: seconds since the load began."""

    at: float
    target: Target
    reason: str

    def __str__(self) -> str:
        return f"{self.at:.2f} s: {self.target.method} {self.target.path}: {self.reason}"


@dataclasses.dataclass
class Outcome:
    """What came of all requests. Latencies in seconds; `bodies` counts the different answers."""

    sent: int = 0
    failures: list[Failure] = dataclasses.field(default_factory=list)
    latencies: list[float] = dataclasses.field(default_factory=list)
    reconnects: int = 0
    bodies: collections.Counter[bytes] = dataclasses.field(default_factory=collections.Counter)

    def percentile(self, share: float) -> float:
        """The latency that this share of the requests did not exceed, in seconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    def told(self) -> str:
        """The failures, for a person."""
        return "\n".join(map(str, self.failures[:20])) or "no failures"


class Load:
    """Requests to `address` at `rate` per second until `stop`, in a thread of their own. The targets take turns."""

    def __init__(
        self, address: tuple[str, int], targets: list[Target], *, rate: float, timeout: float = 10.0, tls: ssl.SSLContext | None = None
    ) -> None:
        self._address = address
        self._targets = targets
        self._rate = rate
        self._timeout = timeout
        self._tls = tls
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")
        self.outcome = Outcome()

    def start(self) -> None:
        self._begun = time.monotonic()
        self._thread.start()

    def stop(self) -> Outcome:
        """End in order: what is under way is waited for."""
        self._ending.set()
        self._thread.join()
        return self.outcome

    async def _run(self) -> None:
        tasks: set[asyncio.Task[None]] = set()
        number = 0
        while not self._ending.is_set():
            due = self._begun + number / self._rate
            pause = due - time.monotonic()
            if pause > 0:
                await asyncio.sleep(pause)
            task = asyncio.create_task(self._request(self._targets[number % len(self._targets)]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        await asyncio.gather(*tasks)
        for _, writer in self._idle:
            writer.close()

    async def _request(self, target: Target) -> None:
        self.outcome.sent += 1
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                status, body = await self._exchange(target)
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            reason = "no answer in time" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"
            self.outcome.failures.append(Failure(begun - self._begun, target, reason))
            return
        if target.good(status, body):
            self.outcome.latencies.append(time.monotonic() - begun)
            self.outcome.bodies[body[:200]] += 1
        else:
            self.outcome.failures.append(Failure(begun - self._begun, target, f"status {status}: {body[:300]!r}"))

    async def _exchange(self, target: Target) -> tuple[int, bytes]:
        while self._idle:
            reader, writer = self._idle.pop()
            if reader.at_eof():
                writer.close()
                continue
            try:
                return await self._ask(reader, writer, target)
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                if target.method not in IDEMPOTENT or (isinstance(error, asyncio.IncompleteReadError) and error.partial):
                    raise
                self.outcome.reconnects += 1
                break
        return await self._ask(*await asyncio.open_connection(*self._address, ssl=self._tls), target)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Target) -> tuple[int, bytes]:
        host = target.host or f"{self._address[0]}:{self._address[1]}"
        length = f"Content-Length: {len(target.body)}\r\n" if target.body or target.method == "POST" else ""
        try:
            writer.write(f"{target.method} {target.path} HTTP/1.1\r\nHost: {host}\r\n{length}{target.headers}\r\n".encode() + target.body)
            await writer.drain()
            status, headers = _head(await reader.readuntil(b"\r\n\r\n"))
            body = b"" if target.method == "HEAD" or status in (204, 304) else await _body(reader, headers)
        except BaseException:
            writer.close()
            raise
        if headers.get("connection", "").lower() == "close":
            writer.close()
        else:
            self._idle.append((reader, writer))
        return status, body


def _head(text: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = text.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return int(first.split()[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    parts = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readuntil(b"\r\n")
    return b"".join(parts)


@contextlib.contextmanager
def steady(
    address: tuple[str, int], *targets: Target, rate: float, timeout: float = 10.0, tls: ssl.SSLContext | None = None
) -> Iterator[Outcome]:
    """A load for the length of a `with` block; its outcome is complete after it."""
    load = Load(address, list(targets) or [Target()], rate=rate, timeout=timeout, tls=tls)
    load.start()
    try:
        yield load.outcome
    finally:
        load.stop()
