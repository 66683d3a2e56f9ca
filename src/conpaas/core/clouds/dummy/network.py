"""Addresses for the VMs of the dummy cloud, out of a pool of loopback addresses (on Linux all of 127.0.0.0/8 is this machine)."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection, Iterable, Iterator

from conpaas.core import errors
from conpaas.core.clouds.dummy import vm

PROBES = 64
PROBE_TIMEOUT = 0.5


class Pool:
    """An IPv4 network whose addresses are given out in turn, so that one just released rests for long."""

    def __init__(self, network: str, ports: Iterable[int]) -> None:
        try:
            self.network = ipaddress.IPv4Network(network)
        except ValueError as error:
            raise errors.ConfigurationError(f"NETWORK must be an IPv4 network like 127.100.0.0/16: {error}") from error
        if self.network.num_addresses < 4:
            raise errors.ConfigurationError(f"NETWORK {network} is too small; use one like 127.100.0.0/16")
        self.ports = tuple(ports)

    def take(self, count: int, used: Collection[str], last: str | None) -> list[tuple[str, socket.socket]]:
        """`count` free addresses after `last`, each with its reservation (the caller closes them). All or CloudError."""
        taken: list[tuple[str, socket.socket]] = []
        busy: list[str] = []
        try:
            for address in self._in_turn(last):
                if len(taken) == count or len(busy) == PROBES:
                    break
                if address in used:
                    continue
                holder = vm.reserve_address(address)
                if holder is None or self._answers(address):
                    busy.append(address)
                    if holder is not None:
                        holder.close()
                    continue
                taken.append((address, holder))
            if len(taken) < count:
                raise self._exhausted(busy)
        except BaseException:
            for _, holder in taken:
                holder.close()
            raise
        return taken

    def _exhausted(self, busy: list[str]) -> errors.CloudError:
        others = f"; other programs use {len(busy)} of them, such as {busy[0]}, on ports {list(self.ports)}" if busy else ""
        return errors.QuotaExceeded(
            f"No address is free in {self.network}{others}",
            hint="set NETWORK in the cloud's section to another part of 127.0.0.0/8, and let nothing listen on 0.0.0.0 at these ports",
        )

    def _in_turn(self, last: str | None) -> Iterator[str]:
        first, size = int(self.network.network_address), self.network.num_addresses
        begin = int(ipaddress.IPv4Address(last)) - first + 1 if last and ipaddress.IPv4Address(last) in self.network else 0
        for step in range(size):
            number = first + (begin + step) % size
            if number & 0xFF not in {0, 255}:
                yield str(ipaddress.IPv4Address(number))

    def _answers(self, address: str) -> bool:
        """Whether somebody listens where an agent or manager would."""
        for port in self.ports:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.settimeout(PROBE_TIMEOUT)
                if probe.connect_ex((address, port)) == 0:
                    return True
        return False
