"""What protects every request: headers, where a request comes from, how large its body may be. Plain ASGI, around everything else."""

from __future__ import annotations

import hmac
import urllib.parse
from typing import Final

from starlette import datastructures, responses, types

from conpaas.frontend import settings

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
CSRF_FIELD: Final = "csrf"
CSRF_HEADER: Final = "x-csrf-token"
SAFE: Final = frozenset({"GET", "HEAD"})
LONG: Final = "public, max-age=31536000, immutable"


class BodyTooLarge(Exception):
    """A request's body exceeds what its page takes; `limit` in bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body has more than {limit} bytes")
        self.limit = limit


def same_token(expected: str, given: str) -> bool:
    """Whether a token is the right one, in a time that does not tell how much of it was."""
    return bool(given) and hmac.compare_digest(expected.encode(), given.encode())


def foreign(headers: datastructures.Headers, origin: str) -> bool:
    """Whether a request that changes something was sent by the page of another site. `origin`: ours, where it is configured."""
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return True
    sender = headers.get("origin")
    if sender is None:
        return False
    if origin:
        return sender != origin
    return urllib.parse.urlsplit(sender).netloc.lower() != headers.get("host", "").lower()


class Guard:
    """ASGI middleware: refuses foreign requests that change something, bounds bodies, and puts the protecting headers on every reply."""

    def __init__(self, app: types.ASGIApp, configured: settings.Settings) -> None:
        self._app = app
        self._settings = configured
        self._headers = dict(HEADERS)
        if configured.secure:
            self._headers["Strict-Transport-Security"] = "max-age=31536000"

    async def __call__(self, scope: types.Scope, receive: types.Receive, send: types.Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = datastructures.Headers(scope=scope)
        scope = self._below_root(scope)

        async def protected(message: types.Message) -> None:
            if message["type"] == "http.response.start":
                self._complete(datastructures.MutableHeaders(scope=message), scope["path"])
            await send(message)

        if scope["method"] not in SAFE and foreign(headers, self._settings.origin):
            reply = responses.PlainTextResponse("This request came from the page of another site and was refused.\n", 403)
            await reply(scope, receive, protected)
            return
        await self._app(scope, receive, protected)

    def _below_root(self, scope: types.Scope) -> types.Scope:
        """The request without the root path, which some reverse proxies take away and others leave."""
        root, path = self._settings.root_path, scope["path"]
        if root and (path == root or path.startswith(f"{root}/")):
            return {**scope, "path": path[len(root) :] or "/"}
        return scope

    def _complete(self, headers: datastructures.MutableHeaders, path: str) -> None:
        for name, value in self._headers.items():
            headers.setdefault(name, value)
        if "cache-control" not in headers:
            headers["cache-control"] = "no-store"
        if "server" in headers:
            del headers["server"]


def bounded(receive: types.Receive, headers: datastructures.Headers, limit: int) -> types.Receive:
    """`receive` for a body of at most `limit` bytes; raises BodyTooLarge at once when a longer one is announced, else when it is."""
    announced = headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limit:
        raise BodyTooLarge(limit)
    seen = 0

    async def counted() -> types.Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise BodyTooLarge(limit)
        return message

    return counted
