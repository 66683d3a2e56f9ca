"""Calls of an ASGI application without a server: a request in, the whole reply out."""

from __future__ import annotations

import asyncio
import dataclasses
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

HOST = "front.example.org"


@dataclasses.dataclass(frozen=True)
class Reply:
    """What came back; of several headers of a name `headers` has the last, `cookies` all that were set."""

    status: int
    headers: dict[str, str]
    cookies: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Browser:
    """Sends requests to an application and keeps cookies as a browser does."""

    def __init__(self, app: Any, *, headers: Mapping[str, str] | None = None) -> None:
        self.app = app
        self.headers = dict(headers or {})
        self.cookies: dict[str, str] = {}

    def get(self, path: str, **headers: str) -> Reply:
        return self.send("GET", path, headers=headers)

    def post(self, path: str, fields: Mapping[str, str] | None = None, **headers: str) -> Reply:
        """Send a form; names of headers have underscores for hyphens."""
        body = urllib.parse.urlencode(dict(fields or {})).encode()
        return self.send("POST", path, body=[body], headers={"content_type": "application/x-www-form-urlencoded", **headers})

    def send(self, method: str, path: str, *, body: Sequence[bytes] = (), headers: Mapping[str, str] | None = None) -> Reply:
        """Send one request; `body` arrives in these pieces."""
        given = {"host": HOST, **self.headers, **{name.replace("_", "-"): value for name, value in (headers or {}).items()}}
        if self.cookies:
            given["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        reply = asyncio.run(_call(self.app, method, path, given, list(body) or [b""]))
        for name, value in reply.cookies.items():
            self.cookies.pop(name, None)
            if value:
                self.cookies[name] = value
        return reply


async def _call(app: Any, method: str, target: str, headers: Mapping[str, str], body: list[bytes]) -> Reply:
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": urllib.parse.unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.82.0.9", 4000),
        "server": (HOST, 80),
    }
    pieces = [{"type": "http.request", "body": piece, "more_body": number < len(body)} for number, piece in enumerate(body, 1)]
    sent: list[dict[str, Any]] = []
    over = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if pieces:
            return pieces.pop(0)
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    over.set()
    start = next(message for message in sent if message["type"] == "http.response.start")
    lines = [(name.decode().lower(), value.decode("latin-1")) for name, value in start["headers"]]
    cookies = [value.partition(";")[0].partition("=") for name, value in lines if name == "set-cookie"]
    content = b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body")
    return Reply(start["status"], dict(lines), {name: value.strip('"') for name, _, value in cookies}, content)
