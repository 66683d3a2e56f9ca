"""Which addresses and ports of this machine a program may listen on, for scripts/quickstart. Needs nothing but Python.

`ports.py holder ADDRESS PORT` ends with 0 and says who is in the way, or with 1 when ADDRESS:PORT is free. `ports.py usable NETWORK PORT…`
prints the first of the ports that this user may listen on at addresses of NETWORK; ends with 1 when there is none.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import pathlib
import socket
import sys
from collections.abc import Iterator

LISTENING = "0A"


def refusal(address: str, port: int) -> OSError | None:
    """Why nothing can listen there, or None when something can."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            return error
    return None


def holder(address: str, port: int) -> str:
    """The program that listens on the port of this address or of all addresses, as far as this user may know."""
    sockets = {f"socket:[{inode}]" for table in ("tcp", "tcp6") for inode in _listeners(pathlib.Path("/proc/net") / table, address, port)}
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(str(link.readlink()) in sockets for link in (process / "fd").iterdir()):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                return f"process {process.name} ({command[:100]})"
    return "a program of another user"


def _listeners(table: pathlib.Path, address: str, port: int) -> Iterator[str]:
    """The sockets in one of the kernel's tables that are in the way of listening there."""
    numbers = {socket.inet_aton(str(info[4][0]))[::-1].hex().upper() for info in socket.getaddrinfo(address, port, socket.AF_INET)}
    with contextlib.suppress(OSError):
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            place, _, number = fields[1].rpartition(":")
            if fields[3] == LISTENING and int(number, 16) == port and (not int(place, 16) or place[-8:] in numbers):
                yield fields[9]


def _holder_command(address: str, port: int) -> int:
    error = refusal(address, port)
    if error is None:
        return 1
    if error.errno == errno.EADDRINUSE:
        print(f"{address}:{port} is taken by {holder(address, port)}.")
    elif error.errno == errno.EACCES:
        print(f"You may not listen on {address}:{port}: ports below 1024 are root's.")
    elif error.errno == errno.EADDRNOTAVAIL:
        print(f"{address} is not an address of this machine.")
    else:
        print(f"Nothing can listen on {address}:{port}: {error.strerror}.")
    return 0


def _usable_command(network: ipaddress.IPv4Network, ports: list[int]) -> int:
    addresses = [str(network[-2 - step]) for step in range(min(16, network.num_addresses - 2))]  # the last that VMs would get
    for port in ports:
        if any(refusal(address, port) is None for address in addresses):
            print(port)
            return 0
    return 1


def main(arguments: list[str]) -> int:
    """Run one of the two commands of the module's text; its exit status."""
    command, place, *ports = arguments
    try:
        if command == "holder":
            return _holder_command(place, int(ports[0]))
        return _usable_command(ipaddress.IPv4Network(place), [int(port) for port in ports])
    except (ValueError, OSError) as error:
        print(f"{place} {' '.join(ports)} is not what it should be: {error}.", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
