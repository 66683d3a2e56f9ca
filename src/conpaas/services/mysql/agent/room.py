"""What a member does when its disk fills up.

A server whose disk is full waits, and the cluster waits for it: Galera lets nobody run ahead of a member that does not apply what was
written. So a member with little room left lets the others go on without it (it is *desynced*: it follows as well as it can, and load
balancers give it no sessions), as long as somebody else is in step with the cluster. When nothing is left its server is ended, which loses
nothing that was acknowledged, and started again when there is room: threads that found none look again after a minute only, and a
member that took part with such a thread would hold up the others for that long.
"""

from __future__ import annotations

import dataclasses
import http.client
import logging
import os
import pathlib
from collections.abc import Iterable
from typing import Final, Protocol

from conpaas.core import errors, file

log: Final = logging.getLogger(__name__)
_NOTE: Final = "room"
_BESIDE: Final = "desynced"
_ENDED: Final = "ended"
_MB: Final = 1024 * 1024
_ASK_TIMEOUT: Final = 1.0
PERIOD: Final = 1.0
"""Seconds between two looks at the disk: once it is full, the whole cluster stands still until somebody has looked."""
_PATIENCE: Final = 5.0
_URGENT: Final = 1.2
"""Seconds that a server may take to obey, or to end, while the others wait for it."""
_ORDERLY: Final = 10.0
"""Seconds that a server may take to end while they do not."""


@dataclasses.dataclass(frozen=True)
class Room:
    """The size of a disk and what is left of it, in bytes."""

    total: int
    free: int

    @classmethod
    def of(cls, directory: pathlib.Path) -> Room:
        """Of the disk that a directory is on. What only root may use does not count."""
        found = os.statvfs(directory)
        return cls(found.f_frsize * found.f_blocks, found.f_frsize * found.f_bavail)

    @property
    def scarce(self) -> bool:
        """Whether it is time to let others go on: less than a twentieth, or 32 MB, is left."""
        return self.free < max(self.total // 20, 32 * _MB)

    @property
    def ample(self) -> bool:
        """Whether there is so much room again that a member which stood aside is one like any other."""
        return self.free > max(self.total // 20, 32 * _MB) * 3 // 2

    @property
    def used_up(self) -> bool:
        """Whether the next thing that is written may not find room."""
        return self.free < max(self.total // 100, 8 * _MB)

    def __str__(self) -> str:
        return f"{self.free // _MB} of {self.total // _MB} MB are left on its disk"


class Server(Protocol):
    """The server that needs the room."""

    def measure(self) -> Room | None: ...

    def wanted(self) -> bool:
        """Whether it should run."""
        ...

    def working(self) -> bool:
        """Whether it runs, and should."""
        ...

    def out_of_step(self) -> bool:
        """Whether it certainly takes no part in the cluster: it does not run, has not opened its data, or says so."""
        ...

    def stand_aside(self, aside: bool, patience: float) -> None:
        """Have the others go on without it, or no longer. Raises ConPaaSError when it does not obey within `patience` seconds."""
        ...

    def follows(self) -> bool:
        """Whether it has carried out all that the cluster has, and so does not hold up the others when it takes part again."""
        ...

    def end(self, patience: float) -> None:
        """End it, in order if that takes `patience` seconds at most; it stays ended, but is still wanted."""
        ...

    def begin(self) -> None:
        """Have it run again."""
        ...

    def others_in_step(self) -> bool: ...


class Keeper:
    """Looks at the room of a member now and then. What it did is remembered in `notes`, and undone when there is room again."""

    def __init__(self, notes: file.Notes, server: Server) -> None:
        self._notes = notes
        self._server = server

    @property
    def ended(self) -> bool:
        """Whether the server was ended for want of room."""
        return bool(self._notes.get(_NOTE) == _ENDED)

    @property
    def out(self) -> bool:
        """Whether the member takes no part for want of room: its server was ended, or stands aside."""
        return bool(self._notes.get(_NOTE))

    def wait(self) -> None:
        """The server is to begin when there is room, and not before."""
        self._notes.set(**{_NOTE: _ENDED})

    def forget(self) -> None:
        """Somebody else decides from now on whether the server runs."""
        self._notes.set(**{_NOTE: None})

    def look(self) -> None:
        """Do what has to be done."""
        room = self._server.measure()
        if room is None:
            return
        done = self._notes.get(_NOTE)
        if done and room.ample:
            self._undo(str(done), room)
        elif done == _ENDED or not room.scarce or not self._server.wanted():
            return
        elif room.used_up and self._server.out_of_step():
            log.warning("%s, and the server is out of step with the cluster: it is ended until there is room", room)
            self._end(_URGENT)
        elif not self._server.working():
            return  # its supervisor starts it
        elif self._server.others_in_step():
            self._stand_aside(room, first=done is None)
        elif done:
            self._take_part(room)  # nobody else could go on

    def _stand_aside(self, room: Room, *, first: bool) -> None:
        if first:
            log.warning("%s: the others go on without this member until there is room", room)
        self._notes.set(**{_NOTE: _BESIDE})  # before, so that an agent that is killed in between takes it back one day
        try:
            self._server.stand_aside(True, _URGENT if room.used_up else _PATIENCE)
        except errors.ConPaaSError as error:
            if not room.used_up:
                raise
            log.warning("%s, and the server holds up the others (%s): it is ended until there is room", room, error)
            self._end(_URGENT)
        else:
            if room.used_up:
                log.warning("%s: the server is ended until there is room", room)
                self._end(_ORDERLY)

    def _end(self, patience: float) -> None:
        self.wait()
        self._server.end(patience)

    def _undo(self, done: str, room: Room) -> None:
        if done == _ENDED:
            self._server.begin()
            log.info("%s: the server begins again", room)
            self.forget()
        elif self._server.working() and self._server.follows():
            self._take_part(room)

    def _take_part(self, room: Room) -> None:
        self._server.stand_aside(False, _PATIENCE)
        log.info("%s: the member takes part again", room)
        self.forget()


def in_step(addresses: Iterable[str], port: int) -> bool:
    """Whether one of these members says that it takes part and has room."""
    return any(_says_so(address, port) for address in addresses)


def _says_so(address: str, port: int) -> bool:
    connection = http.client.HTTPConnection(address, port, timeout=_ASK_TIMEOUT)
    try:
        connection.request("GET", "/rw")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
