"""Which port a daemon of a node listens on: the configured one, or the next that is to be had where several nodes share a machine."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Collection
from typing import Final

from conpaas.core import config, errors, file, paths

TRIES: Final = 2000
_ANYWHERE: Final = "192.0.2.1"  # reserved for documentation
_TAKEN: Final = (errno.EADDRINUSE, errno.EACCES)


class Ports:
    """The ports of one node; what was chosen once stays, in `notes`, for as long as nobody else has taken it."""

    def __init__(self, notes: file.Notes, *, shared: bool) -> None:
        self._notes = notes
        self._shared = shared
        self._lock = threading.Lock()

    def choose(self, name: str, wanted: int, address: str, *, held: Collection[int] = (), taken: int | None = None) -> int:
        """The port of the daemon `name`. `held` are ports that the daemon itself listens on now; `taken` one it uses for something else.

        Raises OperationFailed when the machine is the node's own and the port is not to be had, and when none is.
        """
        with self._lock:
            first = int(self._notes.get(_key(name), wanted)) if self._shared else wanted
            port = self._find(name, first, address, held, taken)
            if self._shared:
                self._notes.set(**{_key(name): port})
            return port

    def _find(self, name: str, first: int, address: str, held: Collection[int], taken: int | None) -> int:
        reason = ""
        for port in range(first, min(first + TRIES, 65_536)) if self._shared else (first,):
            reason = "this node uses it for something else" if port == taken else "" if port in held else why_not(address, port)
            if not reason:
                return port
        raise errors.OperationFailed(
            f"Port {first} of {address} is not to be had for {name}: {reason}.", hint="free it, or configure another"
        )


def _key(name: str) -> str:
    return f"port_of_{name}"


def is_shared(places: paths.Paths) -> bool:
    """Whether several nodes share the machine: each has a directory for its root."""
    return str(places.root) != "/"


def why_not(address: str, port: int) -> str:
    """Why nobody could listen there now; empty if somebody could. What a port is refused for is the only reason that counts."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            return error.strerror or str(error) if error.errno in _TAKEN else ""
    return ""


def is_local(address: str) -> bool:
    """Whether a daemon can listen on this very address: on some clouds a node's address belongs to a router before it."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def inner_address(address: str, configuration: config.Config) -> str:
    """Where daemons for the other nodes listen: a node's address, or the one of this machine to which a router translates it.

    Never all addresses at once: what listens there is not for everybody who reaches the machine.
    """
    for candidate in (address, configuration.get(configuration.main, "PRIVATE_IP", address)):
        if is_local(candidate):
            return candidate
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_ANYWHERE, 9))  # sends nothing; tells which address of this machine leads there
        except OSError:
            return address
        return str(probe.getsockname()[0])


def has_ipv6() -> bool:
    """Whether sockets of IPv6 can be had on this machine."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True
