"""Getting the files that a manifest names by URL, without lending users the Director's place in the network.

Only http and https; certificates are verified; every address that a name leads to is checked before a connection is made to exactly
that address, for redirections too; content, time and attempts are bounded. A `data:` URL brings its content along, and a `ready-made:`
URL names a file that the operator has prepared.
"""

from __future__ import annotations

import dataclasses
import http.client
import ipaddress
import pathlib
import posixpath
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final
from urllib import parse

from conpaas.core import data_urls, errors, file
from conpaas.director.manifest import ready_made

ATTEMPTS: Final = 3
PAUSE: Final = 1.0
CONNECT_TIMEOUT: Final = 10.0
TOTAL_TIMEOUT: Final = 300.0
REDIRECTS: Final = 5
MAX_SCRIPT: Final = 64 * 1024
MAX_FILE: Final = 500 * 1024 * 1024
MAX_TOGETHER: Final = 4 * 1024 * 1024 * 1024
"""Bytes of all files of one manifest."""
RESERVE: Final = 512 * 1024 * 1024
"""Bytes that stay free on the Director's disk, which its database is on, too."""
_CHUNK: Final = 256 * 1024
_SAFE: Final = "/?%:@!$&'()*+,;=~"
"""What stays as it is in a path or query."""
_PORTS: Final = {"http": 80, "https": 443}
_REDIRECTIONS: Final = frozenset({301, 302, 303, 307, 308})
# Addresses that carry an IPv4 address inside count as that address.
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class _Again(errors.ConPaaSError):
    """A failure that may be gone at the next attempt."""


@dataclasses.dataclass(frozen=True)
class Fetcher:
    """Fetches files. With `private`, addresses that are not public are allowed (loopback, link-local, private ones). Times in seconds."""

    private: bool = False
    attempts: int = ATTEMPTS
    connect_timeout: float = CONNECT_TIMEOUT
    total_timeout: float = TOTAL_TIMEOUT
    ready_made: pathlib.Path | None = None
    pause: Callable[[float], object] = time.sleep
    context: Callable[[], ssl.SSLContext] = ssl.create_default_context

    def fetch(self, url: str, target: pathlib.Path, limit: int, wanted: Callable[[], None] = lambda: None) -> str:
        """Write the content of `url` to `target`, complete or not at all, at most `limit` bytes; returns the name of the file.

        `wanted` is called between attempts and pieces and may raise. Raises InvalidArgument, TooLarge or OperationFailed.
        """
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = target.with_name(f"{target.name}.part")
        try:
            name = self._fetch(url, partial, limit, wanted)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return name

    def _fetch(self, url: str, target: pathlib.Path, limit: int, wanted: Callable[[], None]) -> str:
        if url.startswith(data_urls.SCHEME):
            name, content = data_urls.decode(url)
            if len(content) > limit:
                raise _too_large("The content of a data URL", limit)
            target.write_bytes(content)
            return name or "file"
        if url.startswith(ready_made.SCHEME):
            source = ready_made.file_of(self.ready_made, url)
            shutil.copyfile(source, target)
            return source.name
        for attempt in range(1, self.attempts + 1):
            wanted()
            try:
                self._try(url, target, limit, wanted)
            except _Again as error:
                if attempt == self.attempts:
                    raise errors.OperationFailed(f"{shown(url)} cannot be fetched: {error}.") from error
                self.pause(PAUSE * attempt)
            else:
                break
        return posixpath.basename(parse.unquote(parse.urlsplit(url).path)) or "file"

    def _try(self, url: str, target: pathlib.Path, limit: int, wanted: Callable[[], None]) -> None:
        deadline = time.monotonic() + self.total_timeout
        for _ in range(REDIRECTS + 1):
            following = self._request(url, target, limit, wanted, deadline)
            if following is None:
                return
            if url.startswith("https:") and not following.startswith("https:"):
                raise errors.OperationFailed(f"{shown(url)} leads on to {shown(following)}, which is not https.")
            url = following
        raise errors.OperationFailed(f"{shown(url)} is reached after {REDIRECTS} redirections only; that is too many.")

    def _request(self, url: str, target: pathlib.Path, limit: int, wanted: Callable[[], None], deadline: float) -> str | None:
        """One request; the URL that it leads on to, or None once the content is written."""
        parts, port = _split(url)
        connection = (_Secure if parts.scheme == "https" else _Plain)(self, str(parts.hostname), port)
        expired = threading.Event()
        timer = threading.Timer(max(0.0, deadline - time.monotonic()), _cut, (connection, expired))
        timer.daemon = True
        timer.start()
        try:
            connection.connect()
            if expired.is_set():  # before there was anything to cut
                raise TimeoutError
            where = parse.urlunsplit(("", "", parse.quote(parts.path or "/", safe=_SAFE), parse.quote(parts.query, safe=_SAFE), ""))
            connection.request("GET", where, headers={"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "ConPaaS"})
            response = connection.getresponse()
            if response.status in _REDIRECTIONS and response.getheader("Location"):
                return parse.urljoin(url, str(response.getheader("Location")))
            _check_status(url, response.status)
            _write(url, response, target, limit, wanted)
            if expired.is_set():
                raise TimeoutError
        except ssl.SSLCertVerificationError as error:
            raise errors.OperationFailed(f"The certificate of {shown(url)} is not accepted: {error.verify_message}.") from error
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            if expired.is_set() or isinstance(error, TimeoutError):
                raise _Again("it took too long") from error
            raise _Again(str(getattr(error, "strerror", None) or error or type(error).__name__)) from error
        finally:
            timer.cancel()
            connection.close()
        return None

    def dial(self, host: str, port: int) -> socket.socket:
        """Connect to one of the addresses of a host that may be connected to."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise _Again(f"the name {host} is not known") from error
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        allowed = [address for address in addresses if self.private or is_public(address)]
        if not allowed:
            raise errors.InvalidArgument(
                f"{host} has the address {addresses[0]}, which is not a public one; the Director fetches from there only if its operator "
                "sets FETCH_PRIVATE = yes."
            )
        return self._first(allowed, port)

    def _first(self, addresses: Iterable[str], port: int) -> socket.socket:
        problem: OSError | None = None
        for address in addresses:
            try:
                return socket.create_connection((address, port), self.connect_timeout)
            except OSError as error:
                problem = error
        raise problem or OSError("there is no address to connect to")


class _Plain(http.client.HTTPConnection):
    """A connection whose address the fetcher chooses."""

    def __init__(self, fetcher: Fetcher, host: str, port: int) -> None:
        super().__init__(host, port, timeout=fetcher.connect_timeout)
        self._fetcher = fetcher
        self.peer: socket.socket | None = None  # `sock` is forgotten when the answer begins

    def connect(self) -> None:
        self.sock = self.peer = self._fetcher.dial(self.host, self.port)


class _Secure(_Plain):
    """The same with TLS; the certificate must be valid for the name in the URL."""

    default_port = 443

    def connect(self) -> None:
        super().connect()
        secure = self._fetcher.context().wrap_socket(self.sock, server_hostname=self.host, do_handshake_on_connect=False)
        self.sock = self.peer = secure
        secure.do_handshake()


def _cut(connection: _Plain, expired: threading.Event) -> None:
    """Time is over: whatever waits for the peer ends."""
    expired.set()
    if connection.peer is not None:
        try:
            connection.peer.shutdown(socket.SHUT_RDWR)
        except OSError:  # it has gone already
            return


def is_public(address: str) -> bool:
    """Whether an address is one of the public Internet."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is None and found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast and not found.is_reserved


def _split(url: str) -> tuple[parse.SplitResult, int]:
    try:
        parts = parse.urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise errors.InvalidArgument(f"{shown(url)} is not a URL: {error}.") from error
    if parts.scheme not in _PORTS or not parts.hostname:
        raise errors.InvalidArgument(f"{shown(url)} cannot be fetched: only http, https and data URLs can.")
    if parts.username is not None or parts.password is not None:
        raise errors.InvalidArgument(f"{shown(url)} holds a user's name or password; put neither into a manifest.")
    return parts, port or _PORTS[parts.scheme]


def _check_status(url: str, status: int) -> None:
    if status >= 500 or status == 429:
        raise _Again(f"the server answered with HTTP {status}")
    if status != 200:
        raise errors.OperationFailed(f"{shown(url)} cannot be fetched: the server answered with HTTP {status}.")


def _write(url: str, response: http.client.HTTPResponse, target: pathlib.Path, limit: int, wanted: Callable[[], None]) -> None:
    announced = response.getheader("Content-Length") or ""
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(shown(url), limit)
    size = 0
    with target.open("wb") as stream:
        while piece := response.read(_CHUNK):
            wanted()
            size += len(piece)
            if size > limit:
                raise _too_large(shown(url), limit)
            stream.write(piece)
    if announced.isdigit() and size < int(announced):
        raise _Again(f"the answer broke off after {size} of {announced} bytes")


def _too_large(what: str, limit: int) -> errors.TooLarge:
    return errors.TooLarge(f"{what} has more than the {limit} bytes that are allowed here.")


def shown(url: str) -> str:
    """A URL for a message: without what may be a secret in it, and short."""
    try:
        parts = parse.urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return "the URL"
    if parts.scheme == "data":
        return "a data URL"
    return f"{parts.scheme}://{host}{parts.path}"[:200]


def _check_room(directory: pathlib.Path, wanted: Callable[[], None]) -> None:
    wanted()
    if file.free_bytes(directory) < RESERVE:
        raise errors.StorageFull("The disk of the Director has no room for more files of manifests.", hint="Try again later.")


class Files:
    """The fetched files of deployments under way, one directory per operation."""

    def __init__(self, directory: pathlib.Path, fetcher: Fetcher) -> None:
        self._directory = directory
        self._fetcher = fetcher

    def get(self, owner: str, name: str, url: str, limit: int, wanted: Callable[[], None]) -> tuple[str, pathlib.Path]:
        """A file and what it is called; it is fetched unless an earlier call has done so."""
        target = self._directory / owner / name
        label = target.with_name(f"{name}.name")
        if not (target.exists() and label.exists()):
            label.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            left = MAX_TOGETHER - sum(path.stat().st_size for path in label.parent.iterdir())
            try:
                name = self._fetcher.fetch(url, target, min(limit, left), lambda: _check_room(label.parent, wanted))
            except errors.TooLarge as error:
                if left >= limit:
                    raise
                raise errors.TooLarge(
                    f"The files of a manifest can have {MAX_TOGETHER} bytes together; {shown(url)} exceeds that."
                ) from error
            file.write_atomically(label, name)
        return label.read_text(encoding="utf-8"), target

    def discard(self, owner: str) -> None:
        """Remove the files of an operation. Idempotent."""
        shutil.rmtree(self._directory / owner, ignore_errors=True)

    def keep_only(self, owners: Iterable[str]) -> None:
        """Remove what operations left that are under way no longer."""
        kept = set(owners)
        if self._directory.is_dir():
            for entry in self._directory.iterdir():
                if entry.name not in kept:
                    shutil.rmtree(entry, ignore_errors=True)
